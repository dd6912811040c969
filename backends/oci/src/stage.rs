//! A stage while it is interpreted: its image config, its variables, its layers.

use std::collections::BTreeMap;
use std::sync::Arc;

use windlass_core::digest::Digest;
use windlass_core::dockerfile::Expander;
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::image::{Descriptor, History, ImageConfig};
use windlass_core::platform::Platform;

use crate::removal::Waiting;
use crate::tree::Tree;

/// What BuildKit writes beside each history entry of a Dockerfile.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// The PATH of images that have none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A layer of the image that is being made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Layer {
    /// The blob.
    pub(crate) descriptor: Descriptor,
    /// The digest of its uncompressed bytes.
    pub(crate) diff_id: Digest,
}

/// A stage, up to the instruction that was interpreted last.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// The image config so far; its `rootfs` is filled in at the end.
    pub(crate) config: ImageConfig,
    /// The layers so far, lowest first.
    pub(crate) layers: Vec<Layer>,
    /// The file system so far; `None` until something needs to know it.
    pub(crate) tree: Option<Arc<Tree>>,
    /// What variables expand to: ENV and ARG.
    pub(crate) variables: BTreeMap<String, String>,
    /// The platform that the stage is for.
    pub(crate) platform: Platform,
    /// The stage has a CMD of its own, which ENTRYPOINT then leaves alone.
    pub(crate) has_cmd: bool,
    /// The time of history entries, RFC 3339.
    pub(crate) created: String,
    /// The names of the arguments that were declared, in their order.
    pub(crate) arguments: Vec<String>,
    /// Removals that belong into the layer of the next instruction.
    pub(crate) waiting: Vec<Waiting>,
}

impl Stage {
    /// Starts a stage on an image: its layers, and its config as the base of a new one.
    pub(crate) fn on_image(
        config: ImageConfig,
        layers: Vec<Layer>,
        platform: Platform,
        created: String,
    ) -> Self {
        let mut stage = Self {
            config: inherit(config),
            layers,
            tree: None,
            variables: BTreeMap::new(),
            platform,
            has_cmd: false,
            created,
            arguments: Vec::new(),
            waiting: Vec::new(),
        };
        let container = &mut stage.config.config;
        if !container.env.iter().any(|pair| pair.starts_with("PATH=")) {
            container.env.push(format!("PATH={DEFAULT_PATH}"));
        }
        for pair in &container.env {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            stage.variables.insert(name.to_owned(), value.to_owned());
        }
        stage
    }

    /// Starts a stage on nothing.
    pub(crate) fn on_scratch(platform: Platform, created: String) -> Self {
        let mut config = ImageConfig::empty(&platform);
        config.config.working_dir = "/".to_owned();
        let mut stage = Self::on_image(config, Vec::new(), platform, created);
        stage.tree = Some(Arc::new(Tree::default()));
        stage
    }

    /// Starts a stage on this one. ONBUILD triggers were taken out before, and are not inherited.
    pub(crate) fn child(&self) -> Self {
        let mut child = Self { has_cmd: false, arguments: Vec::new(), ..self.clone() };
        child.config.config.on_build.clear();
        child
    }

    /// Expands a word with the variables of the stage.
    pub(crate) fn expand(&self, expander: Expander, word: &str) -> Result<String> {
        expander.word(word, &|name| self.variables.get(name).cloned()).map_err(|why| cannot_expand(word, why))
    }

    /// Expands a text to several words.
    pub(crate) fn expand_words(&self, expander: Expander, text: &str) -> Result<Vec<String>> {
        expander
            .words(text, &|name| self.variables.get(name).cloned())
            .map_err(|why| cannot_expand(text, why))
    }

    /// Records an instruction that made no layer.
    pub(crate) fn record(&mut self, created_by: String) {
        self.record_as(created_by, true);
    }

    /// Records an instruction that made a layer.
    pub(crate) fn record_layer(&mut self, created_by: String, layer: Layer) {
        self.layers.push(layer);
        self.record_as(created_by, false);
    }

    fn record_as(&mut self, created_by: String, empty_layer: bool) {
        self.config.history.push(History {
            created: Some(self.created.clone()),
            created_by: Some(created_by),
            comment: Some(HISTORY_COMMENT.to_owned()),
            empty_layer,
            ..History::default()
        });
    }
}

fn cannot_expand(word: &str, why: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::InvalidDockerfile, format!("could not expand `{word}`")).with_source(why)
}

/// What of the config of a base becomes part of the new image: what the Dockerfile frontend of
/// BuildKit knows. The rest (`container_config`, `docker_version`, `Hostname`, …) speaks of the
/// container that the base was made in.
fn inherit(mut config: ImageConfig) -> ImageConfig {
    config.created = None;
    config.other.retain(|name, _| matches!(name.as_str(), "os.version" | "os.features"));
    config.config.other.clear();
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_has_a_path_and_a_directory() {
        let stage = Stage::on_scratch(Platform::host(), String::new());
        assert_eq!(stage.config.config.working_dir, "/");
        assert_eq!(stage.config.config.env, [format!("PATH={DEFAULT_PATH}")]);
        assert_eq!(stage.variables["PATH"], DEFAULT_PATH);
    }

    #[test]
    fn a_child_inherits_variables_but_no_triggers() {
        let mut stage = Stage::on_scratch(Platform::host(), String::new());
        stage.variables.insert("A".to_owned(), "1".to_owned());
        stage.config.config.on_build.push("RUN x".to_owned());
        stage.has_cmd = true;
        let child = stage.child();
        assert_eq!(child.variables["A"], "1");
        assert!(child.config.config.on_build.is_empty() && !child.has_cmd);
    }
}

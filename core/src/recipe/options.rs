//! What a user says about one runtime image.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::agent_server::Target;
use super::{Mode, Recipe, RenderInput};
use crate::backend_registry::Host;
use crate::context::ContextSettings;
use crate::error::{Error, ErrorKind, Result};
use crate::output::{Output, OutputKind};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::request::BuildRequest;

/// One runtime image: the recipe, and everything that is said besides. An empty text counts as unset.
#[derive(Clone, Debug)]
pub struct RuntimeOptions {
    /// How it is made.
    pub recipe: Arc<Recipe>,
    /// The base image, as it is typed: hashes count its spelling.
    pub base_image: String,
    /// The source directory, absolute or from the host's current directory.
    pub source: PathBuf,
    /// The repository of the image; where `None`, that of the build service, of the recipe's variable, or
    /// of the recipe.
    pub repository: Option<String>,
    /// The version of the platform; where `None`, what the recipe says or has it read from.
    pub version: Option<String>,
    /// The platforms to build for; the backend's own if empty.
    pub platforms: Vec<Platform>,
    /// The text of one RUN.
    pub extra_deps: String,
    /// Values for ARG.
    pub build_args: BTreeMap<String, String>,
    /// Labels of the image config.
    pub labels: BTreeMap<String, String>,
    /// Whether a browser is installed. Default: yes.
    pub browser: bool,
    /// Variables of the template that are not by default.
    pub variables: BTreeMap<String, Value>,
    /// What is built, for recipes with the tags of agent-server. Default: `binary`.
    pub target: Option<Target>,
    /// Tags of the user's own, the main one first, for recipes with the tags of agent-server.
    pub custom_tags: Vec<String>,
    /// The architecture, where the tags of agent-server shall name it.
    pub architecture: Option<String>,
    /// Whether one of the tags of agent-server names the base image. Default: yes.
    pub base_tag: bool,
    /// Whether there are tags of agent-server for the release.
    pub release_tags: bool,
    /// References that the image gets besides those of the recipe.
    pub further_tags: Vec<Reference>,
    /// Whatever exists, it is built from scratch.
    pub force_rebuild: bool,
    /// Where the result goes; never empty.
    pub outputs: Vec<Output>,
    /// Nothing may be taken from the build cache.
    pub no_cache: bool,
    /// Base images are asked for at their registry even if they are here.
    pub pull: bool,
    /// `SOURCE_DATE_EPOCH`: seconds since 1970 for every time in the image.
    pub source_date_epoch: Option<i64>,
    /// Where the build folder is written, for people to see.
    pub build_folder: Option<PathBuf>,
    /// How the sources are read.
    pub context: ContextSettings,
}

impl RuntimeOptions {
    /// A recipe with everything as it says: the image goes into the backend's own store.
    pub fn new(recipe: Arc<Recipe>) -> Self {
        Self {
            base_image: recipe.base_image.clone().unwrap_or_default(),
            source: recipe.source.clone(),
            recipe,
            repository: None,
            version: None,
            platforms: Vec::new(),
            extra_deps: String::new(),
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            browser: true,
            variables: BTreeMap::new(),
            target: None,
            custom_tags: Vec::new(),
            architecture: None,
            base_tag: true,
            release_tags: false,
            further_tags: Vec::new(),
            force_rebuild: false,
            outputs: vec![Output::image()],
            no_cache: false,
            pull: false,
            source_date_epoch: None,
            build_folder: None,
            context: ContextSettings::default(),
        }
    }

    /// Refuses what cannot be meant, whatever is on disk.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse =
            |message: String, hint: &str| Err(Error::new(ErrorKind::InvalidInput, message).with_hint(hint));
        let recipe = &self.recipe.name;
        if self.base_image.is_empty() {
            return refuse(
                format!("nothing says which base image `{recipe}` starts from"),
                "name it: `--base-image IMAGE`",
            );
        }
        if self.base_image != "scratch" {
            self.base_image.parse::<Reference>().map_err(|source| {
                let message = format!("`{}` cannot be a base image", self.base_image);
                Error::new(ErrorKind::InvalidInput, message).with_source(source)
            })?;
        }
        if self.recipe.scheme().is_none() {
            let of_tags = [
                ("target", self.target.is_some()),
                ("custom-tag", !self.custom_tags.is_empty()),
                ("architecture", self.architecture.is_some()),
                ("no-base-tag", !self.base_tag),
                ("release-tags", self.release_tags),
            ];
            if let Some((option, _)) = of_tags.iter().find(|(_, typed)| *typed) {
                return refuse(
                    format!("`--{option}` means nothing to the recipe `{recipe}`"),
                    "it is for recipes whose tags are those of agent-server",
                );
            }
        }
        if !self.extra_deps.is_empty() && !self.recipe.uses("extra_deps") {
            return refuse(
                format!(
                    "`--extra-deps` would change nothing: the template of `{recipe}` has no `extra_deps`"
                ),
                "leave it out, or put `{{ extra_deps }}` into the template",
            );
        }
        Ok(())
    }

    /// The source directory.
    pub(super) fn source_dir(&self, host: &Host) -> PathBuf {
        host.current_dir.join(&self.source)
    }

    /// What the Dockerfile is rendered for.
    pub(super) fn render_input<'a>(&'a self, mode: Mode, base_image: &'a str) -> RenderInput<'a> {
        RenderInput {
            mode,
            base_image,
            extra_deps: &self.extra_deps,
            browser: self.browser,
            target: self.recipe.scheme().map(|_| self.target.unwrap_or(Target::Binary)),
            variables: &self.variables,
        }
    }

    /// What of a build request is said here: everything but the tree, the Dockerfile and the tags.
    pub(super) fn apply(&self, request: BuildRequest) -> BuildRequest {
        BuildRequest {
            platforms: self.platforms.clone(),
            build_args: self.build_args.clone(),
            labels: self.labels.clone(),
            outputs: self.outputs.clone(),
            no_cache: self.no_cache,
            pull: self.pull,
            source_date_epoch: self.source_date_epoch,
            ..request
        }
    }

    /// Says whether the result is to be in a registry and in a store at once.
    pub(super) fn stays_here_too(&self) -> bool {
        let stays =
            |output: &Output| output.loads() || (output.kind == OutputKind::Image && !output.pushes());
        self.pushes() && self.outputs.iter().any(stays)
    }

    /// Says whether the result is more than an image that can be found by its name: it is made then
    /// whatever exists.
    pub(super) fn writes_files(&self) -> bool {
        let named = |output: &Output| {
            matches!(output.kind, OutputKind::Image | OutputKind::Registry) || output.loads()
        };
        !self.outputs.iter().all(named)
    }

    /// Says whether the result is pushed to a registry.
    pub(super) fn pushes(&self) -> bool {
        self.outputs.iter().any(Output::pushes)
    }
}

//! What is asked of a backend, and what it gives back.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use serde::Serialize;

use crate::backend::Feature;
use crate::context::{Context, ContextPath};
use crate::digest::Digest;
use crate::output::{Output, OutputKind};
use crate::platform::Platform;
use crate::reference::Reference;

/// One build: the same request gives the same image whichever backend builds it.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The file tree that COPY and ADD see.
    pub context: Context,
    /// The instructions.
    pub dockerfile: DockerfileSource,
    /// The stage to build; the last one if `None`.
    pub target: Option<String>,
    /// The platforms to build for; the backend's own if empty.
    pub platforms: Vec<Platform>,
    /// Values for ARG. The caller has resolved `--build-arg NAME` from its environment.
    pub build_args: BTreeMap<String, String>,
    /// Labels of the image config, on top of those of the Dockerfile.
    pub labels: BTreeMap<String, String>,
    /// Annotations in buildx's spelling: `[type:]key` to value.
    pub annotations: BTreeMap<String, String>,
    /// The references that the image gets.
    pub tags: Vec<Reference>,
    /// Named contexts: what `FROM name` and `COPY --from=name` mean.
    pub build_contexts: BTreeMap<String, NamedContext>,
    /// Where the result goes; never empty.
    pub outputs: Vec<Output>,
    /// Nothing may be taken from the build cache.
    pub no_cache: bool,
    /// Base images are asked for at their registry even if they are here.
    pub pull: bool,
    /// `SOURCE_DATE_EPOCH`: seconds since 1970 for every time in the image.
    pub source_date_epoch: Option<i64>,
    /// Options that only a BuildKit behind buildx understands, as typed: (`--secret`, `id=x`).
    pub engine_options: Vec<EngineOption>,
}

/// A Dockerfile, read.
#[derive(Clone, Debug)]
pub struct DockerfileSource {
    /// How the user names it, for messages: `deploy/Dockerfile`, or `-` for the standard input.
    pub shown: PathBuf,
    /// Its place on disk; `None` if it came from the standard input or was rendered.
    pub path: Option<PathBuf>,
    /// Its place in the context; `None` if it lies outside.
    pub in_context: Option<ContextPath>,
    /// Its content.
    pub content: Bytes,
}

/// What a named context is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamedContext {
    /// `docker-image://REF`
    Image(Reference),
    /// `oci-layout://DIR[:TAG][@DIGEST]`
    OciLayout {
        /// The directory of the layout.
        directory: PathBuf,
        /// The tag in its index.
        tag: Option<String>,
        /// The digest of the manifest.
        digest: Option<Digest>,
    },
    /// A directory on disk.
    Directory(PathBuf),
    /// A stage of the Dockerfile, or something only buildx reads (`target:`, an URL of a repository).
    Other(String),
}

/// An option that is passed on as it was typed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EngineOption {
    /// The option with its dashes: `--secret`.
    pub name: String,
    /// Its value; `None` for a switch.
    pub value: Option<String>,
}

impl BuildRequest {
    /// A request with everything else unset: the last stage, into the backend's own store.
    pub fn new(context: Context, dockerfile: DockerfileSource) -> Self {
        Self {
            context,
            dockerfile,
            target: None,
            platforms: Vec::new(),
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            tags: Vec::new(),
            build_contexts: BTreeMap::new(),
            outputs: vec![Output::image()],
            no_cache: false,
            pull: false,
            source_date_epoch: None,
            engine_options: Vec::new(),
        }
    }

    /// What a backend must be able to do for this request, each with the option that asks for it.
    pub fn needs(&self) -> Vec<(Feature, String)> {
        let mut needs: Vec<(Feature, String)> = Vec::new();
        let mut need = |condition: bool, feature: Feature, option: &str| {
            if condition {
                needs.push((feature, option.to_owned()));
            }
        };
        need(self.target.is_some(), Feature::Target, "--target");
        need(!self.platforms.is_empty(), Feature::Platform, "--platform");
        need(self.platforms.len() > 1, Feature::MultiPlatform, "--platform with several values");
        need(!self.build_args.is_empty(), Feature::BuildArguments, "--build-arg");
        need(!self.labels.is_empty(), Feature::Labels, "--label");
        need(!self.annotations.is_empty(), Feature::Annotations, "--annotation");
        need(!self.build_contexts.is_empty(), Feature::NamedContexts, "--build-context");
        for option in &self.engine_options {
            need(true, Feature::EngineOptions, &option.name);
        }
        for output in &self.outputs {
            let option = match output.kind {
                OutputKind::Registry => "--push".to_owned(),
                OutputKind::Docker if output.loads() => "--load".to_owned(),
                _ => format!("--output {output}"),
            };
            need(true, output.feature(), &option);
        }
        needs
    }

    /// Says whether the result is pushed to a registry.
    pub fn pushes(&self) -> bool {
        self.outputs.iter().any(Output::pushes)
    }
}

/// What a build gives back.
#[derive(Clone, Debug, Serialize)]
pub struct BuiltImage {
    /// The references that the image has now, the main one first. Empty if it got none.
    pub references: Vec<Reference>,
    /// The digest of its manifest, or of its index if it is for several platforms. `None` where
    /// no image was made (`type=local`).
    pub digest: Option<Digest>,
    /// The digest of its image config, which `docker` calls the image id. `None` for an index.
    pub image_id: Option<Digest>,
    /// The platforms that it is for.
    pub platforms: Vec<Platform>,
    /// The configured name of the backend that made or found it.
    pub backend: String,
    /// It was found, not built.
    pub reused: bool,
    /// Files and directories that were written.
    pub written: Vec<PathBuf>,
    /// What the builder tells beyond this, in buildx's keys (`containerimage.digest`, …).
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

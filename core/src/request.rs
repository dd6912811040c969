//! What is asked of a backend, and what it gives back.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Serialize;

use crate::backend::{Feature, FoundImage};
use crate::context::{Context, ContextPath};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result, ResultExt};
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

/// More is no Dockerfile.
const DOCKERFILE_LIMIT_BYTES: u64 = 16 << 20;

impl DockerfileSource {
    /// Reads a Dockerfile on disk. `shown` is how the user names it. Blocking.
    ///
    /// # Errors
    /// `InvalidInput` if it is missing, a directory or far too large; `ContextUnreadable` if it cannot be
    /// read.
    pub fn read(shown: &Path, path: &Path, context: &Context) -> Result<Self> {
        let name = format!("`{}`", shown.display());
        let refuse = |what: &str| Err(Error::new(ErrorKind::InvalidInput, format!("{what} {name}")));
        match path.metadata() {
            Ok(metadata) if metadata.is_dir() => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!("the Dockerfile {name} is a directory"),
                ));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return refuse("no Dockerfile at"),
            _ => {}
        }
        let file = std::fs::File::open(path)
            .or_error(ErrorKind::ContextUnreadable, || format!("could not read the Dockerfile {name}"))?;
        Ok(Self {
            shown: shown.to_owned(),
            in_context: context.place_of(path),
            content: read_dockerfile(file, &name)?,
            path: Some(path.to_owned()),
        })
    }
}

/// Reads the content of a Dockerfile. `name` is what messages call it.
///
/// # Errors
/// `InvalidInput` if it is far too large; `ContextUnreadable` if it cannot be read.
pub fn read_dockerfile(reader: impl Read, name: &str) -> Result<Bytes> {
    let mut content = Vec::new();
    reader
        .take(DOCKERFILE_LIMIT_BYTES + 1)
        .read_to_end(&mut content)
        .or_error(ErrorKind::ContextUnreadable, || format!("could not read the Dockerfile {name}"))?;
    if content.len() as u64 > DOCKERFILE_LIMIT_BYTES {
        let message = format!("the Dockerfile {name} is larger than 16 MiB");
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    Ok(content.into())
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

impl NamedContext {
    /// Reads what a named context is, as `--build-context` has it: a directory, `docker-image://REF` or
    /// `oci-layout://DIR[:TAG][@DIGEST]`. Relative directories start at `current_dir`.
    ///
    /// # Errors
    /// `InvalidInput` for a directory that does not exist, and for what cannot be read.
    pub fn parse(name: &str, source: &str, current_dir: &Path) -> Result<Self> {
        if let Some(reference) = source.strip_prefix("docker-image://") {
            return Ok(Self::Image(reference.parse()?));
        }
        if let Some(layout) = source.strip_prefix("oci-layout://") {
            let (directory, tag, digest) = split_layout(layout)?;
            if !current_dir.join(directory).is_dir() {
                return Err(no_directory(name, directory));
            }
            let digest = digest.map(str::parse).transpose()?;
            return Ok(Self::OciLayout { directory: directory.into(), tag: tag.map(str::to_owned), digest });
        }
        // What else has a scheme (`target:`, `https://`, `git@host:`) only buildx reads.
        if source.contains("://") || source.starts_with("target:") || source.starts_with("git@") {
            return Ok(Self::Other(source.to_owned()));
        }
        if !current_dir.join(source).is_dir() {
            return Err(no_directory(name, source));
        }
        Ok(Self::Directory(source.into()))
    }
}

fn no_directory(name: &str, directory: &str) -> Error {
    let message = format!("the directory `{directory}` of the named context `{name}` does not exist");
    Error::new(ErrorKind::InvalidInput, message).with_hint(
        "a named context is a directory, `docker-image://REFERENCE` or `oci-layout://DIR[:TAG][@DIGEST]`",
    )
}

/// `DIR[:TAG][@DIGEST]` of an OCI layout. A colon before the last slash belongs to the directory.
///
/// # Errors
/// `InvalidInput` for an empty directory or tag.
pub fn split_layout(text: &str) -> Result<(&str, Option<&str>, Option<&str>)> {
    let (rest, digest) = match text.rsplit_once('@') {
        Some((rest, digest)) if digest.contains(':') => (rest, Some(digest)),
        _ => (text, None),
    };
    let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (directory, tag) = match rest[name_start..].find(':') {
        Some(colon) => (&rest[..name_start + colon], Some(&rest[name_start + colon + 1..])),
        None => (rest, None),
    };
    if directory.is_empty() || tag == Some("") {
        return Err(Error::new(ErrorKind::InvalidInput, format!("invalid OCI layout `{text}`"))
            .with_hint("it is `DIR`, `DIR:TAG` or `DIR@DIGEST`"));
    }
    Ok((directory, tag, digest))
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

impl BuiltImage {
    /// An image that exists, as the result of a build that was not needed.
    pub fn found(found: FoundImage, references: Vec<Reference>, backend: &str) -> Self {
        Self {
            references,
            digest: found.digest,
            image_id: found.image_id,
            platforms: found.platforms,
            backend: backend.to_owned(),
            reused: true,
            written: Vec::new(),
            metadata: serde_json::Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_contexts_are_told_apart() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("src")).expect("a directory");
        let digest = format!("sha256:{}", "a".repeat(64));
        let layout = |tag: Option<&str>, digest: Option<&str>| NamedContext::OciLayout {
            directory: "src".into(),
            tag: tag.map(str::to_owned),
            digest: digest.map(|digest| digest.parse().expect("a digest")),
        };
        for (source, expected) in [
            ("docker-image://alpine:3", NamedContext::Image("alpine:3".parse().expect("valid"))),
            ("oci-layout://src", layout(None, None)),
            ("oci-layout://src:v1", layout(Some("v1"), None)),
            (&format!("oci-layout://src@{digest}"), layout(None, Some(&digest))),
            (&format!("oci-layout://src:v1@{digest}"), layout(Some("v1"), Some(&digest))),
            ("src", NamedContext::Directory("src".into())),
            ("target:base", NamedContext::Other("target:base".into())),
            ("https://example.com/a.git", NamedContext::Other("https://example.com/a.git".into())),
        ] {
            assert_eq!(NamedContext::parse("base", source, directory.path()).expect(source), expected);
        }
        for source in [
            "absent",
            "oci-layout://absent",
            "oci-layout://",
            "docker-image://A",
            "oci-layout://src@sha256:1",
        ] {
            assert!(NamedContext::parse("base", source, directory.path()).is_err(), "{source}");
        }
    }
}

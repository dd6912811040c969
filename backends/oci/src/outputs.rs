//! What the `--output`s ask for, beyond their places: compression, media types, names, annotations.

use windlass_core::archive::Compression;
use windlass_core::backend::Feature;
use windlass_core::digest::Digest;
use windlass_core::error::{Error, ErrorKind, Result, nearest};
use windlass_core::output::{Output, OutputKind};
use windlass_core::reference::Reference;
use windlass_core::request::BuildRequest;

use crate::assemble::{Annotations, MediaTypes};

/// Attributes that any output may have.
const KNOWN: &[&str] = &[
    "compression",
    "compression-level",
    "force-compression",
    "name",
    "oci-mediatypes",
    "push",
    "push-by-digest",
    "rewrite-timestamp",
    "tar",
    "unpack",
];

/// Attributes of BuildKit that would change the result in a way this backend does not know.
const FOREIGN: &[&str] = &[
    "attestation-inline",
    "buildinfo",
    "dangling-name-prefix",
    "name-canonical",
    "nydus-fs-version",
    "platform-split",
    "prefer-nondist-layers",
    "registry.insecure",
    "store",
];

/// How the image has to be made for all outputs of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// How layers are compressed.
    pub(crate) compression: Compression,
    /// Layers of base images get that compression too.
    pub(crate) force_compression: bool,
    /// Nothing in the layers of the build is younger than `SOURCE_DATE_EPOCH`, not even directories of
    /// the base.
    pub(crate) rewrite_timestamp: bool,
    /// The names of its documents.
    pub(crate) media_types: MediaTypes,
    /// All annotations.
    pub(crate) annotations: Annotations,
}

impl Form {
    /// Reads the attributes of all outputs; `default` is the compression of the settings.
    ///
    /// # Errors
    /// `InvalidInput` for unknown attributes, values that mean nothing, and outputs that contradict
    /// each other; `Unsupported` for attributes that only BuildKit knows.
    pub(crate) fn of(request: &BuildRequest, default: Compression) -> Result<Self> {
        let mut compression = None;
        let (mut media_types, mut forced, mut rewritten) = (None, None, None);
        let mut annotations = Annotations::default();
        for (key, value) in &request.annotations {
            annotations.add(key, value)?;
        }
        for output in &request.outputs {
            for (name, value) in &output.attributes {
                match annotation_key(name) {
                    Some(key) => annotations.add(&key, value)?,
                    None => check_name(output, name)?,
                }
            }
            agree(&mut compression, compression_of(output, default)?, "compression")?;
            agree(&mut media_types, media_types_of(output)?, "oci-mediatypes")?;
            agree(&mut forced, switch(output, "force-compression")?, "force-compression")?;
            agree(&mut rewritten, switch(output, "rewrite-timestamp")?, "rewrite-timestamp")?;
            switch(output, "push-by-digest")?;
        }
        Ok(Self {
            compression: compression.unwrap_or(default),
            force_compression: forced.unwrap_or(false),
            rewrite_timestamp: rewritten.unwrap_or(false),
            media_types: media_types.unwrap_or(MediaTypes::Oci),
            annotations,
        })
    }
}

/// The references that an output gives the image: its `name=`, else those of the request.
///
/// # Errors
/// `InvalidInput` for a name that is no reference.
pub(crate) fn names(output: &Output, request: &BuildRequest) -> Result<Vec<Reference>> {
    match output.attributes.get("name") {
        Some(names) => names.split(',').map(|name| name.trim().parse()).collect(),
        None => Ok(request.tags.clone()),
    }
}

/// The references that an output pushes the image to: with `push-by-digest` the repositories alone.
///
/// # Errors
/// As [`names`].
pub(crate) fn pushed_names(output: &Output, request: &BuildRequest, image: Digest) -> Result<Vec<Reference>> {
    let names = names(output, request)?;
    if !output.pushes() || output.flag("push-by-digest") != Some(true) {
        return Ok(names);
    }
    names.iter().map(|name| format!("{}@{image}", name.name()).parse()).collect()
}

/// `annotation.KEY` and `annotation-TYPE.KEY`, in the spelling of `--annotation`.
fn annotation_key(name: &str) -> Option<String> {
    let rest = name.strip_prefix("annotation")?;
    let (kind, key) = rest.split_once('.')?;
    match kind.strip_prefix('-') {
        Some(kind) => Some(format!("{kind}:{key}")),
        None if kind.is_empty() => Some(key.to_owned()),
        None => None,
    }
}

fn check_name(output: &Output, name: &str) -> Result<()> {
    if FOREIGN.contains(&name) {
        let message = format!("the backend `oci` does not know `{name}` of `--output {output}`");
        return Err(Error::unsupported(Feature::EngineOptions, message));
    }
    if KNOWN.contains(&name) {
        return Ok(());
    }
    let error =
        Error::new(ErrorKind::InvalidInput, format!("unknown attribute `{name}` of `--output {output}`"));
    Err(match nearest(name, KNOWN.iter().copied()) {
        Some(near) => error.with_hint(format!("did you mean `{near}`?")),
        None => error.with_hint(format!("attributes: type, dest, {}", KNOWN.join(", "))),
    })
}

/// All outputs are made from one image, so they have to agree.
fn agree<T: PartialEq>(known: &mut Option<T>, new: Option<T>, name: &str) -> Result<()> {
    match (&known, new) {
        (Some(known), Some(new)) if *known != new => {
            let message = format!("the outputs disagree about `{name}`");
            Err(Error::new(ErrorKind::InvalidInput, message)
                .with_hint(format!("give all of them the same `{name}`, or build once for each")))
        }
        (None, Some(new)) => {
            *known = Some(new);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn compression_of(output: &Output, default: Compression) -> Result<Option<Compression>> {
    let chosen = match output.attributes.get("compression").map(String::as_str) {
        None => None,
        Some("gzip") => Some(Compression::gzip()),
        Some("zstd") => Some(Compression::zstd()),
        Some("uncompressed") => Some(Compression::None),
        Some(other) => {
            let message = format!("invalid compression `{other}` of `--output {output}`");
            return Err(Error::new(ErrorKind::InvalidInput, message)
                .with_hint("compressions: gzip, zstd, uncompressed"));
        }
    };
    let Some(level) = output.attributes.get("compression-level") else { return Ok(chosen) };
    let number = level.parse().map_err(|_| {
        Error::new(
            ErrorKind::InvalidInput,
            format!("invalid compression-level `{level}` of `--output {output}`"),
        )
    })?;
    chosen.unwrap_or(default).with_level(number).map(Some)
}

fn switch(output: &Output, name: &str) -> Result<Option<bool>> {
    match (output.attributes.get(name), output.flag(name)) {
        (None, _) => Ok(None),
        (_, Some(value)) => Ok(Some(value)),
        (Some(value), None) => {
            Err(Error::new(ErrorKind::InvalidInput, format!("`{name}` is `true` or `false`, not `{value}`")))
        }
    }
}

fn media_types_of(output: &Output) -> Result<Option<MediaTypes>> {
    match switch(output, "oci-mediatypes")? {
        None => Ok(None),
        Some(true) => Ok(Some(MediaTypes::Oci)),
        Some(false) if output.kind == OutputKind::Oci => {
            Err(Error::new(ErrorKind::InvalidInput, "an OCI layout has OCI media types")
                .with_hint("leave out `oci-mediatypes=false`"))
        }
        Some(false) => Ok(Some(MediaTypes::Docker)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use windlass_core::context::Context;
    use windlass_core::request::DockerfileSource;

    use super::*;

    fn form(outputs: &[&str]) -> Result<Form> {
        let content = bytes::Bytes::from_static(b"FROM scratch\n");
        let shown = PathBuf::from("Dockerfile");
        let dockerfile = DockerfileSource { shown, path: None, in_context: None, content };
        let mut request = BuildRequest::new(Context::empty(), dockerfile);
        request.outputs = outputs.iter().map(|text| text.parse().expect("an output")).collect();
        Form::of(&request, Compression::gzip())
    }

    #[test]
    fn reads_attributes() {
        let read = form(&["type=image,oci-mediatypes=false,compression=uncompressed,annotation-index.a=b"]);
        let read = read.expect("valid");
        assert_eq!((read.compression, read.media_types), (Compression::None, MediaTypes::Docker));
        assert_eq!(read.annotations.index["a"], "b");
        assert_eq!(form(&["type=image"]).expect("valid").compression, Compression::gzip());
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for outputs in [
            &["type=image,compresion=gzip"][..],
            &["type=image,compression=lz4"],
            &["type=image,compression-level=x"],
            &["type=image,compression=gzip,compression-level=99"],
            &["type=image,force-compression=yes"],
            &["type=image,push-by-digest=x"],
            &["type=image,name-canonical=true"],
            &["type=image,rewrite-timestamp=true", "type=tar,dest=-,rewrite-timestamp=false"],
            &["type=image,oci-mediatypes=x"],
            &["type=image,compression=gzip", "type=tar,dest=-,compression=zstd"],
        ] {
            assert!(form(outputs).is_err(), "{outputs:?}");
        }
    }
}

//! Where an image may come from, as users write it, and how it gets into the store.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::archive_import::import_archive_file;
use super::layout_import::{NamedImage, import_layout};
use super::pull::{FetchLayers, pull};
use super::store::ImageStore;
use crate::backend::Job;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::RegistryClient;

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// The store.
    Store(Reference),
    /// A registry: `docker-image://REFERENCE`.
    Registry(Reference),
    /// An OCI layout: `oci-layout://DIR[:TAG][@DIGEST]`.
    OciLayout {
        /// The directory.
        dir: PathBuf,
        /// The tag in it.
        tag: Option<String>,
        /// The digest; wins over the tag.
        digest: Option<Digest>,
    },
    /// An OCI archive, what `docker save` writes, or both in one: `oci-archive:FILE`, `docker-archive:FILE`.
    Archive(PathBuf),
}

impl ImageSource {
    /// The source that a path means: a directory is an OCI layout, anything else an archive.
    pub fn from_path(path: &Path) -> Self {
        match path.is_dir() {
            true => Self::OciLayout { dir: path.to_owned(), tag: None, digest: None },
            false => Self::Archive(path.to_owned()),
        }
    }

    /// Reads a source with a prefix; `None` for a text without one.
    ///
    /// # Errors
    /// `InvalidInput` for a malformed reference or an empty path.
    pub fn parse_prefixed(text: &str) -> Result<Option<Self>> {
        let path = |path: &str| match path.is_empty() {
            true => {
                Err(Error::new(ErrorKind::InvalidInput, format!("the image source `{text}` has no path")))
            }
            false => Ok(PathBuf::from(path)),
        };
        if let Some(reference) = text.strip_prefix("docker-image://") {
            return reference.parse().map(Self::Registry).map(Some);
        }
        if let Some(file) = text.strip_prefix("oci-archive:").or_else(|| text.strip_prefix("docker-archive:"))
        {
            return path(file).map(Self::Archive).map(Some);
        }
        let Some(rest) = text.strip_prefix("oci-layout://") else { return Ok(None) };
        let (rest, digest) = match rest.rsplit_once('@').map(|(rest, digest)| (rest, digest.parse())) {
            Some((rest, Ok(digest))) => (rest, Some(digest)),
            _ => (rest, None),
        };
        // A colon after the last slash starts the tag.
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (dir, tag) = match rest[slash..].rfind(':') {
            Some(colon) => (&rest[..slash + colon], Some(rest[slash + colon + 1..].to_owned())),
            None => (rest, None),
        };
        Ok(Some(Self::OciLayout { dir: path(dir)?, tag, digest }))
    }

    /// Brings the images of this source into the store, with all their layers. Gives them no names
    /// there. A registry gives the image for `platform`, or for all platforms where that is `None`.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, `InvalidInput` as the source is; those of [`pull`]; `LocalIo`;
    /// `Cancelled`.
    pub async fn import(
        &self,
        client: &RegistryClient,
        store: &ImageStore,
        platform: Option<&Platform>,
        job: &Job,
    ) -> Result<Vec<NamedImage>> {
        match self {
            Self::Store(reference) => match store.resolve(reference)? {
                Some(image) => Ok(vec![NamedImage { image, references: vec![reference.clone()] }]),
                None => Err(Error::new(
                    ErrorKind::NotFound,
                    format!("`{}` is not in the image store", reference.familiar()),
                )
                .with_hint("`windlass image ls` lists what is there")),
            },
            Self::Registry(reference) => {
                let pulled = pull(client, store, reference, platform, FetchLayers::Now, job).await?;
                Ok(vec![NamedImage { image: pulled.image, references: vec![reference.clone()] }])
            }
            Self::OciLayout { dir, tag, digest } => {
                let (store, dir, tag, digest) = (store.clone(), dir.clone(), tag.clone(), *digest);
                let read = move |job: &Job| import_layout(&store, &dir, tag.as_deref(), digest, job);
                let step = job.events.step(format!("read {self}"));
                let image = step.end(job.blocking(read).await)?;
                Ok(vec![image])
            }
            Self::Archive(path) => {
                let (store, path) = (store.clone(), path.clone());
                let step = job.events.step(format!("read {self}"));
                step.end(job.blocking(move |job| import_archive_file(&store, &path, job)).await)
            }
        }
    }
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(reference) => f.write_str(&reference.familiar()),
            Self::Registry(reference) => write!(f, "docker-image://{}", reference.familiar()),
            Self::OciLayout { dir, tag, digest } => {
                write!(f, "oci-layout://{}", dir.display())?;
                tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
                digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
            }
            Self::Archive(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Reads a source with a prefix; anything else is a reference to the store.
impl FromStr for ImageSource {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match Self::parse_prefixed(text)? {
            Some(source) => Ok(source),
            None => text.parse().map(Self::Store),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_buildx_and_skopeo_write() {
        let digest = Digest::of(b"x");
        for text in [
            "oci-layout:///a/b".to_owned(),
            "oci-layout://a:1".to_owned(),
            format!("oci-layout://../x.y/z:tag@{digest}"),
            format!("oci-layout://a@{digest}"),
            "docker-image://ghcr.io/acme/app:1".to_owned(),
            "debian:12".to_owned(),
        ] {
            assert_eq!(text.parse::<ImageSource>().expect(&text).to_string(), text);
        }
        let archive: ImageSource = "docker-archive:/x.tar".parse().expect("archive");
        assert_eq!(archive, ImageSource::Archive("/x.tar".into()));
        for text in ["oci-layout://", "docker-image://A", "oci-archive:"] {
            assert!(text.parse::<ImageSource>().is_err(), "{text}");
        }
    }
}

//! From what a reference stands for to one platform's image.

use super::config::ImageConfig;
use super::documents::{DOCUMENT_LIMIT_BYTES, Descriptor, Document, Index, Manifest};
use super::media_type;
use super::store::ImageStore;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::platform::Platform;

/// BuildKit hangs attestations into an index under this annotation; they are no images.
const ATTESTATION: &str = "vnd.docker.reference.type";

/// One platform's image, with its documents read.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// The manifest, by digest.
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: Manifest,
    /// The image config.
    pub config: ImageConfig,
}

impl Image {
    /// Reads a manifest and its config from the store.
    ///
    /// # Errors
    /// `NotFound` if they are not there; `Unsupported` for artifacts that are no images, and for layers
    /// that nobody can read;
    /// `Corrupt` if they contradict each other.
    pub fn load(store: &ImageStore, descriptor: &Descriptor) -> Result<Self> {
        let shown = format!("`{}`", descriptor.digest);
        let Document::Manifest(manifest) = store.document(descriptor)? else {
            let message = format!("{shown} is an index; choose a platform of it");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        };
        if !media_type::is_config(&manifest.config.media_type) {
            return Err(Error::new(ErrorKind::Unsupported, format!("{shown} is no container image"))
                .with_detail("media type", manifest.config.media_type.clone()));
        }
        if let Some(layer) = manifest.layers.iter().find(|layer| !media_type::is_layer(&layer.media_type)) {
            let message = format!("{shown} has a layer of a kind that images do not have");
            return Err(Error::new(ErrorKind::Unsupported, message)
                .with_detail("layer", layer.digest.to_string())
                .with_detail("media type", layer.media_type.clone()));
        }
        let bytes = store.read(&manifest.config, DOCUMENT_LIMIT_BYTES)?;
        let config = ImageConfig::parse(&bytes, &shown)?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            let message = format!(
                "{shown} has {} layers, and its image config says {}",
                manifest.layers.len(),
                config.rootfs.diff_ids.len()
            );
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        Ok(Self { descriptor: descriptor.clone(), manifest, config })
    }

    /// The layers, lowest first, each with the digest of its uncompressed bytes.
    pub fn layers(&self) -> impl Iterator<Item = (&Descriptor, Digest)> {
        self.manifest.layers.iter().zip(self.config.rootfs.diff_ids.iter().copied())
    }
}

impl Index {
    /// The manifests of images: without attestations and without nested indexes.
    pub fn images(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().filter(|descriptor| {
            media_type::is_manifest(&descriptor.media_type)
                && !descriptor.annotations.contains_key(ATTESTATION)
                && descriptor.platform.as_ref().is_none_or(|platform| platform.os != "unknown")
        })
    }

    /// The manifests that are no images: attestations, and what else hangs on images.
    pub fn other_manifests(&self) -> impl Iterator<Item = &Descriptor> {
        let is_image = |descriptor: &Descriptor| self.images().any(|image| image.digest == descriptor.digest);
        let manifests = self.manifests.iter();
        manifests.filter(move |other| media_type::is_manifest(&other.media_type) && !is_image(other))
    }

    /// Chooses the image for a platform: the same one, else one that can stand in for it (a lower
    /// variant of `arm`), as containerd does. `shown` names the image in errors.
    ///
    /// # Errors
    /// `NotFound`, with the platforms that there are.
    pub fn choose(&self, wanted: &Platform, shown: &str) -> Result<&Descriptor> {
        let ranked = self.images().filter_map(|descriptor| {
            let offered = descriptor.platform.as_ref()?.platform();
            Some((rank(wanted, &offered)?, descriptor))
        });
        // The first of the best: an index may list one platform twice.
        let best = ranked.min_by_key(|(rank, _)| *rank);
        if let Some((_, descriptor)) = best {
            return Ok(descriptor);
        }
        let offered = self.images().filter_map(|d| Some(d.platform.as_ref()?.platform().to_string()));
        let offered = offered.collect::<Vec<_>>().join(", ");
        Err(Error::new(ErrorKind::NotFound, format!("{shown} has no image for `{wanted}`")).with_hint(
            match offered.is_empty() {
                true => "its index names no platforms".to_owned(),
                false => format!("it has: {offered}"),
            },
        ))
    }
}

/// How well a platform can stand in for another, 0 best.
fn rank(wanted: &Platform, offered: &Platform) -> Option<u32> {
    if wanted == offered {
        return Some(0);
    }
    if wanted.accepts(offered) {
        return Some(1);
    }
    let level =
        |platform: &Platform| -> Option<u32> { platform.variant.as_deref()?.strip_prefix('v')?.parse().ok() };
    if wanted.os != offered.os || wanted.architecture != offered.architecture {
        return None;
    }
    match (level(wanted)?, level(offered)) {
        (wanted, Some(offered)) if offered < wanted => Some(1 + wanted - offered),
        (wanted, None) => Some(100 + wanted),
        _ => None,
    }
}

impl ImageStore {
    /// The manifest of an image for a platform: the image itself if it is no index. Its platform is
    /// then taken as it is, as BuildKit does; compare [`ImageConfig::platform`] to warn.
    ///
    /// # Errors
    /// `NotFound` if there is none for this platform, or it is not in the store.
    pub fn choose(&self, image: &Descriptor, wanted: &Platform, shown: &str) -> Result<Descriptor> {
        match self.document(image)? {
            Document::Manifest(_) => Ok(image.clone()),
            Document::Index(index) => Ok(index.choose(wanted, shown)?.clone()),
        }
    }

    /// The manifests of an image that are in the store: itself if it is no index.
    ///
    /// # Errors
    /// As [`ImageStore::document`].
    pub fn manifests(&self, image: &Descriptor) -> Result<Vec<Descriptor>> {
        Ok(match self.document(image)? {
            Document::Manifest(_) => vec![image.clone()],
            Document::Index(index) => index.images().filter(|d| self.has(&d.digest)).cloned().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> Index {
        let manifests = platforms.iter().map(|text| {
            let mut descriptor = Descriptor::of(media_type::OCI_MANIFEST, text.as_bytes());
            let mut parts = text.split('/');
            let mut part = || parts.next().map(str::to_owned);
            descriptor.platform = Some(super::super::PlatformFields {
                os: part().unwrap_or_default(),
                architecture: part().unwrap_or_default(),
                variant: part(),
                other: Default::default(),
            });
            descriptor
        });
        Index::new(media_type::OCI_INDEX, manifests.collect())
    }

    fn chosen(wanted: &str, offered: &[&str]) -> Result<usize> {
        let index = index(offered);
        let chosen = index.choose(&wanted.parse().expect("platform"), "`x`")?;
        Ok(index.manifests.iter().position(|d| d.digest == chosen.digest).expect("one of them"))
    }

    #[test]
    fn the_best_platform_is_chosen() {
        let all = ["unknown/unknown", "linux/amd64", "linux/arm/v5", "linux/arm/v6", "linux/arm64/v8"];
        for (wanted, position) in [
            ("linux/amd64", 1),
            ("linux/arm64", 4),
            ("linux/arm/v7", 3),
            ("linux/arm/v6", 3),
            ("linux/arm/v5", 2),
        ] {
            assert_eq!(chosen(wanted, &all).expect("there"), position, "{wanted}");
        }
        let error = chosen("linux/s390x", &all).expect_err("not there");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.hints()[0].contains("linux/arm64"), "{error:?}");
    }
}

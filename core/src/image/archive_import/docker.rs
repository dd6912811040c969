//! Images that an archive has only in the form of `docker save`.

use std::io::Read;

use super::Contents;
use crate::archive::{Compression, Compressor, Format};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::image::archive_export::DockerImage;
use crate::image::config::ImageConfig;
use crate::image::documents::{DOCUMENT_LIMIT_BYTES, Descriptor, Manifest, to_bytes};
use crate::image::layout_import::NamedImage;
use crate::image::media_type;
use crate::image::selection::Image;
use crate::reference::Reference;

impl Contents<'_> {
    /// Makes an OCI manifest of an entry of `manifest.json`.
    pub(super) fn image_of_docker(&self, docker: &DockerImage) -> Result<NamedImage> {
        let config = self.get(&docker.config)?;
        let bytes = self.store.read(&config, DOCUMENT_LIMIT_BYTES)?;
        let diff_ids = ImageConfig::parse(&bytes, &format!("`{}`", self.shown))?.rootfs.diff_ids;
        if diff_ids.len() != docker.layers.len() {
            let message = format!("`{}` has an image whose config has other layers", self.shown);
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let layers = docker.layers.iter().zip(diff_ids);
        let layers = layers.map(|(name, diff_id)| self.layer(name, diff_id)).collect::<Result<_>>()?;
        let config = Descriptor { media_type: media_type::OCI_CONFIG.to_owned(), ..config };
        let manifest = Manifest::new(media_type::OCI_MANIFEST, config, layers);
        let image = self.added.put_as(media_type::OCI_MANIFEST, &to_bytes(&manifest))?;
        Image::load(self.store, &image)?;
        Ok(NamedImage { image, references: docker.references() })
    }

    fn layer(&self, name: &str, diff_id: Digest) -> Result<Descriptor> {
        let mut layer = self.get(name)?;
        let mut start = Vec::new();
        let file = self.store.open_blob(&layer.digest)?;
        let head = file.take(Format::MAGIC_BYTES as u64).read_to_end(&mut start);
        head.map_err(|error| self.unreadable(error))?;
        let media_type = match Format::detect(&start) {
            Format::Plain if layer.digest == diff_id => return self.compress(&layer),
            Format::Plain => {
                let message =
                    format!("the layer `{name}` of `{}` is not what its image config says", self.shown);
                return Err(Error::new(ErrorKind::Corrupt, message));
            }
            Format::Gzip => media_type::OCI_LAYER_GZIP,
            Format::Zstd => media_type::OCI_LAYER_ZSTD,
            other => {
                let message = format!("the layer `{name}` of `{}` is compressed with {other:?}", self.shown);
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        };
        media_type.clone_into(&mut layer.media_type);
        // Reads it once, and so verifies it.
        self.store.layer_index(&layer, diff_id, self.job)?;
        Ok(layer)
    }

    fn compress(&self, layer: &Descriptor) -> Result<Descriptor> {
        let failed = || self.store.write_failed();
        let writer = self.store.writer()?;
        let mut compressor =
            Compressor::new(writer, Compression::gzip()).or_error(ErrorKind::LocalIo, failed)?;
        self.store.blob_reader(layer, self.job)?.copy_to(&mut compressor)?;
        let writer = compressor.finish().or_error(ErrorKind::LocalIo, failed)?;
        let (digest, size_bytes) = self.added.commit(writer, None)?;
        Ok(Descriptor::new(media_type::OCI_LAYER_GZIP, digest, size_bytes))
    }
}

impl DockerImage {
    /// The names that are valid ones.
    pub(super) fn references(&self) -> Vec<Reference> {
        let tags = self.repo_tags.iter().flatten();
        tags.filter_map(|tag| tag.parse().ok()).collect()
    }
}

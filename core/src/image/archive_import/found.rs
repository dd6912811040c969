//! Which images the documents of an archive name.

use super::Contents;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::image::archive_export::DockerImage;
use crate::image::documents::{Descriptor, Document};
use crate::image::layout_export::parts;
use crate::image::layout_import::{NamedImage, references, without_names};
use crate::image::media_type;
use crate::reference::Reference;

impl Contents<'_> {
    /// The images of an archive that was read to its end.
    pub(super) fn images(self) -> Result<Vec<NamedImage>> {
        let docker = match &self.docker {
            Some(bytes) => serde_json::from_slice::<Vec<DockerImage>>(bytes)
                .or_error(ErrorKind::Corrupt, || {
                    format!("the `manifest.json` of `{}` is malformed", self.shown)
                })?,
            None => Vec::new(),
        };
        let images = match &self.index {
            Some(bytes) => self.images_of_index(bytes, &docker)?,
            None => docker.iter().map(|image| self.image_of_docker(image)).collect::<Result<_>>()?,
        };
        if images.is_empty() {
            return Err(self.no_archive());
        }
        self.added.keep(&images)?;
        Ok(images)
    }

    fn images_of_index(&self, bytes: &[u8], docker: &[DockerImage]) -> Result<Vec<NamedImage>> {
        let shown = format!("the `index.json` of `{}`", self.shown);
        let Document::Index(index) = Document::parse(media_type::OCI_INDEX, bytes, &shown)? else {
            return Err(Error::new(ErrorKind::Corrupt, format!("{shown} is no index")));
        };
        let mut images: Vec<NamedImage> = Vec::new();
        for entry in &index.manifests {
            let mut names = references(entry);
            let image = without_names(entry.clone());
            names.extend(self.docker_names(&image, docker));
            // An image has one entry for each of its names.
            let named = match images.iter_mut().find(|known| known.image.digest == image.digest) {
                Some(known) => known,
                None => {
                    images.push(NamedImage { image, references: Vec::new() });
                    images.last_mut().expect("just pushed")
                }
            };
            for name in names {
                if !named.references.contains(&name) {
                    named.references.push(name);
                }
            }
        }
        // Says which layer is missing, if one is.
        parts(self.store, &images)?;
        Ok(images)
    }

    /// The names that `manifest.json` gives to an image of `index.json`.
    fn docker_names(&self, image: &Descriptor, docker: &[DockerImage]) -> Vec<Reference> {
        let Ok(Document::Manifest(manifest)) = self.store.document(image) else { return Vec::new() };
        let same = |entry: &&DockerImage| {
            self.find(&entry.config).is_some_and(|config| config.digest == manifest.config.digest)
        };
        docker.iter().filter(same).flat_map(DockerImage::references).collect()
    }
}

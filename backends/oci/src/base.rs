//! Base images: from the store, from a registry; and what their layers hold.
//!
//! Of an image only the documents are fetched at first. Its layers come when something has to know
//! what is in them, or at the end, when the result goes somewhere that does not have them.

use std::io::{self, Read};
use std::sync::Arc;

use futures_util::{TryStreamExt, stream};
use sha2::{Digest as _, Sha256};
use windlass_core::backend::Job;
use windlass_core::digest::Digest;
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::image::{self, Descriptor, FetchLayers, Image, ImageConfig, ImageStore, fetch_blob};
use windlass_core::platform::Platform;
use windlass_core::reference::Reference;
use windlass_core::registry::RegistryClient;

use crate::sources::Sources;
use crate::stage::Layer;
use crate::tree::{Stream, Tree};

/// A base image, without what is in its layers.
#[derive(Clone, Debug)]
pub(crate) struct BaseImage {
    /// Its image config.
    pub(crate) config: ImageConfig,
    /// Its layers, lowest first.
    pub(crate) layers: Vec<Layer>,
}

/// Finds base images.
#[derive(Clone, Debug)]
pub(crate) struct Bases {
    pub(crate) store: ImageStore,
    pub(crate) client: RegistryClient,
    /// The registry is asked even if the store has the image.
    pub(crate) pull: bool,
}

impl Bases {
    /// Finds an image by its reference: in the store if it has that name there, else in its registry.
    ///
    /// # Errors
    /// `NotFound` if it is nowhere, or not for this platform; what the registry answers.
    pub(crate) async fn image(
        &self,
        reference: &Reference,
        platform: &Platform,
        job: &Job,
    ) -> Result<BaseImage> {
        let image = match self.stored(reference, platform)? {
            Some(image) => image,
            None => {
                let layers = FetchLayers::WhenRead;
                let pull = image::pull(&self.client, &self.store, reference, Some(platform), layers, job);
                let pulled = job.run(pull).await?;
                let manifest = pulled.manifests.first().ok_or_else(|| {
                    Error::new(ErrorKind::NotFound, format!("`{}` has no image", reference.familiar()))
                })?;
                Image::load(&self.store, manifest)?
            }
        };
        Ok(base_of(image, reference, platform, job))
    }

    /// The image that the store has under this name, if it may be used and is for the platform.
    fn stored(&self, reference: &Reference, platform: &Platform) -> Result<Option<Image>> {
        if self.pull {
            return Ok(None);
        }
        let Some(descriptor) = self.store.resolve(reference)? else { return Ok(None) };
        let shown = format!("`{}`", reference.familiar());
        let Ok(manifest) = self.store.choose(&descriptor, platform, &shown) else { return Ok(None) };
        if !self.store.has(&manifest.digest) {
            return Ok(None);
        }
        let image = Image::load(&self.store, &manifest)?;
        Ok(Some(image).filter(|image| platform.accepts(&image.config.platform())))
    }

    /// Fetches the layers that are not in the store from where they are known to be.
    ///
    /// # Errors
    /// What the registries answer; `NotFound` if no place is known.
    pub(crate) async fn fetch(&self, layers: &[Layer], job: &Job) -> Result<()> {
        let mut missing: Vec<&Descriptor> = layers.iter().map(|layer| &layer.descriptor).collect();
        missing.retain(|blob| !self.store.has(&blob.digest));
        if missing.is_empty() {
            return Ok(());
        }
        let step = job.events.step(format!("fetch {} layers", missing.len()));
        let mut fetches = Vec::new();
        for blob in missing {
            fetches.push(Ok(fetch_blob(&self.client, &self.store, blob, &step, job)));
        }
        let concurrency = self.client.settings().concurrency.max(1);
        let all = stream::iter(fetches).try_buffer_unordered(concurrency).try_collect::<()>();
        let result = job.run(all).await;
        step.end(result)
    }

    /// Reads what the layers of a stage hold. They are in the store.
    ///
    /// # Errors
    /// `Corrupt` for layers that are damaged or are not what the image config says.
    pub(crate) async fn tree(&self, layers: &[Layer], sources: &Sources, job: &Job) -> Result<Arc<Tree>> {
        let (layers, sources) = (layers.to_vec(), sources.clone());
        job.blocking(move |job| {
            let mut tree = Tree::default();
            for layer in &layers {
                add_layer(&mut tree, layer, &sources, job)?;
            }
            Ok(Arc::new(tree))
        })
        .await
    }
}

fn base_of(image: Image, reference: &Reference, platform: &Platform, job: &Job) -> BaseImage {
    let offered = image.config.platform();
    if !platform.accepts(&offered) {
        job.events.warn(format!("`{}` is for {offered}, not for {platform}", reference.familiar()));
    }
    let layers =
        image.layers().map(|(descriptor, diff_id)| Layer { descriptor: descriptor.clone(), diff_id });
    let layers = layers.collect();
    BaseImage { config: image.config, layers }
}

fn add_layer(tree: &mut Tree, layer: &Layer, sources: &Sources, job: &Job) -> Result<()> {
    let mut reader =
        Hashing { inner: sources.open_stream(Stream::Layer(layer.diff_id))?, hasher: Sha256::new() };
    tree.apply_layer(layer.diff_id, &mut reader, job)?;
    let found = Digest::from_bytes(reader.hasher.finalize().into());
    if found != layer.diff_id {
        let message = format!("the layer `{}` is not what the image config says", layer.descriptor.digest);
        return Err(Error::new(ErrorKind::Corrupt, message)
            .with_detail("expected diff_id", layer.diff_id.to_string())
            .with_detail("found", found.to_string()));
    }
    Ok(())
}

/// Hashes what is read through it.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

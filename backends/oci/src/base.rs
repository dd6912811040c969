//! Base images: from the store, from a registry; and what their layers hold.
//!
//! Of an image only the documents are fetched at first. Its layers come when something has to know
//! what is in them, or at the end, when the result goes somewhere that does not have them.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;
use windlass_core::backend::Job;
use windlass_core::digest::Digest;
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::image::{self, Descriptor, FetchLayers, Image, ImageConfig, ImageStore, import_layout};
use windlass_core::platform::Platform;
use windlass_core::reference::Reference;
use windlass_core::registry::RegistryClient;

use crate::schedule::{LockEach, OnceEach};
use crate::stage::Layer;
use crate::tree::{Content, Stream, Tree};

/// A base image, without what is in its layers.
#[derive(Clone, Debug)]
pub(crate) struct BaseImage {
    /// Its image config.
    pub(crate) config: ImageConfig,
    /// Its layers, lowest first.
    pub(crate) layers: Vec<Layer>,
}

/// Finds base images. Clones share what was found: an image is looked for once in a build, and is
/// the same wherever the build names it.
#[derive(Clone, Debug)]
pub(crate) struct Bases {
    pub(crate) store: ImageStore,
    pub(crate) client: RegistryClient,
    /// The registry is asked even if the store has the image.
    pull: bool,
    found: Arc<OnceEach<(String, String), BaseImage>>,
    trees: Arc<OnceEach<Vec<Digest>, Arc<Tree>>>,
    turns: BaseTurns,
}

/// What the builds of one program do about bases one after the other: the second finds in the store what
/// the first has fetched.
#[derive(Clone, Debug, Default)]
pub(crate) struct BaseTurns {
    images: Arc<LockEach<String>>,
    layers: Arc<LockEach<Digest>>,
}

impl Bases {
    /// Makes one that knows nothing yet. With `pull`, the registry is asked even if the store has an
    /// image.
    pub(crate) fn new(store: ImageStore, client: RegistryClient, pull: bool, turns: BaseTurns) -> Self {
        let (found, trees) = Default::default();
        Self { store, client, pull, found, trees, turns }
    }

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
        let key = (reference.to_string(), platform.to_string());
        self.found.get(key, Box::pin(self.find(reference, platform, job))).await
    }

    async fn find(&self, reference: &Reference, platform: &Platform, job: &Job) -> Result<BaseImage> {
        job.check()?;
        let image = match self.stored(reference, platform)? {
            Some(image) => image,
            None => {
                let turn = self.turns.images.lock([reference.to_string()].into());
                let _turn = job.run(async { Ok(turn.await) }).await?;
                let layers = FetchLayers::WhenRead;
                let pulled =
                    image::pull(&self.client, &self.store, reference, Some(platform), layers, job).await?;
                let manifest = pulled.manifests.first().ok_or_else(|| {
                    Error::new(ErrorKind::NotFound, format!("`{}` has no image", reference.familiar()))
                })?;
                Image::load(&self.store, manifest)?
            }
        };
        Ok(base_of(image, &format!("`{}`", reference.familiar()), platform, job))
    }

    /// Reads an image of an OCI layout into the store.
    ///
    /// # Errors
    /// `InvalidInput` for a directory that is no layout; `NotFound` if it has no such image, or not
    /// for this platform; `Corrupt`.
    pub(crate) async fn layout(
        &self,
        directory: &Path,
        tag: Option<String>,
        digest: Option<Digest>,
        platform: &Platform,
        job: &Job,
    ) -> Result<BaseImage> {
        let place = format!("{} {} {digest:?}", directory.display(), tag.as_deref().unwrap_or_default());
        let key = (place, platform.to_string());
        let (store, directory, platform) = (self.store.clone(), directory.to_owned(), platform.clone());
        let read = move |job: &Job| {
            let named = import_layout(&store, &directory, tag.as_deref(), digest, job)?;
            let shown = format!("`{}`", directory.display());
            let manifest = store.choose(&named.image, &platform, &shown)?;
            Ok(base_of(Image::load(&store, &manifest)?, &shown, &platform, job))
        };
        self.found.get(key, Box::pin(job.blocking(read))).await
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

    /// Says what the layers of a stage hold, from what the store remembers of them; what it has never
    /// read is fetched first.
    ///
    /// # Errors
    /// What the registries answer; `NotFound` for a layer that is nowhere; `Corrupt` for layers that
    /// are damaged or are not what the image config says.
    pub(crate) async fn tree(&self, layers: &[Layer], job: &Job) -> Result<Arc<Tree>> {
        let key = layers.iter().flat_map(|layer| [layer.descriptor.digest, layer.diff_id]).collect();
        self.trees.get(key, Box::pin(self.read_tree(layers, job))).await
    }

    async fn read_tree(&self, layers: &[Layer], job: &Job) -> Result<Arc<Tree>> {
        job.check()?;
        let unread = |layer: &&Layer| !self.store.has_layer_index(&layer.descriptor.digest, layer.diff_id);
        let mut unread_layers: Vec<Layer> = layers.iter().filter(unread).cloned().collect();
        let _turn = self.turn_for(&unread_layers, job).await?;
        unread_layers.retain(|layer| unread(&layer));
        self.fetch_now(&unread_layers, job).await?;
        let (store, layers) = (self.store.clone(), layers.to_vec());
        job.blocking(move |job| {
            let mut tree = Tree::default();
            for Layer { descriptor, diff_id } in &layers {
                let index = store.layer_index(descriptor, *diff_id, job)?;
                let stream = Stream::Layer(*diff_id);
                tree.apply(&index, |member| Content::Member { stream, member })?;
                job.check()?;
            }
            Ok(Arc::new(tree))
        })
        .await
    }

    /// Fetches the layers that are not in the store from where they are known to be.
    ///
    /// # Errors
    /// What the registries answer; `NotFound` if no place is known.
    pub(crate) async fn fetch(&self, layers: &[Layer], job: &Job) -> Result<()> {
        let _turn = self.turn_for(layers, job).await?;
        self.fetch_now(layers, job).await
    }

    /// Waits until nobody else fetches or reads these layers: what another did is there then.
    async fn turn_for(&self, layers: &[Layer], job: &Job) -> Result<Vec<OwnedMutexGuard<()>>> {
        let turn = self.turns.layers.lock(layers.iter().map(|layer| layer.descriptor.digest).collect());
        job.run(async { Ok(turn.await) }).await
    }

    async fn fetch_now(&self, layers: &[Layer], job: &Job) -> Result<()> {
        let blobs: Vec<Descriptor> = layers.iter().map(|layer| layer.descriptor.clone()).collect();
        Box::pin(image::fetch_blobs(&self.client, &self.store, &blobs, job)).await
    }
}

fn base_of(image: Image, shown: &str, platform: &Platform, job: &Job) -> BaseImage {
    let offered = image.config.platform();
    if !platform.accepts(&offered) {
        job.events.warn(format!("{shown} is for {offered}, not for {platform}"));
    }
    let layers =
        image.layers().map(|(descriptor, diff_id)| Layer { descriptor: descriptor.clone(), diff_id });
    let layers = layers.collect();
    BaseImage { config: image.config, layers }
}

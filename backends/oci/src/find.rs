//! Looking for a finished image, and giving it further names.

use windlass_core::backend::{FindScope, FoundImage, Job};
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::image::{self, Descriptor, Document, Image, ImageStore};
use windlass_core::platform::Platform;
use windlass_core::reference::Reference;

use crate::backend::Oci;

/// Looks for an image in the store and in its registry, as the scope says.
///
/// # Errors
/// Those of the store; where the registry cannot be asked, what it answered.
pub(crate) async fn find(
    oci: &Oci,
    reference: &Reference,
    scope: FindScope,
    job: &Job,
) -> Result<Option<FoundImage>> {
    if scope != FindScope::Registry {
        let store = ImageStore::open(oci.store_dir())?;
        let name = reference.clone();
        let found = job.blocking(move |_| stored(&store, &name)).await?;
        if found.is_some() || scope == FindScope::Store {
            return Ok(found);
        }
    }
    let head = job.run(oci.host().registry_client.head_manifest(reference, job)).await?;
    Ok(head.map(|descriptor| FoundImage {
        reference: reference.clone(),
        digest: Some(descriptor.digest),
        image_id: None,
        platforms: Vec::new(),
        in_registry: true,
    }))
}

/// An image of the store, if all of it is there.
fn stored(store: &ImageStore, reference: &Reference) -> Result<Option<FoundImage>> {
    let Some(descriptor) = store.resolve(reference)? else { return Ok(None) };
    let Ok(parts) = store.closure(&descriptor) else { return Ok(None) };
    if parts.iter().any(|part| !store.has(&part.digest)) {
        return Ok(None);
    }
    let images: Vec<Image> = store
        .manifests(&descriptor)?
        .iter()
        .map(|manifest| Image::load(store, manifest))
        .collect::<Result<_>>()?;
    let platforms: Vec<Platform> = images.iter().map(|image| image.config.platform()).collect();
    let image_id = match (&images[..], store.document(&descriptor)?) {
        ([image], Document::Manifest(_)) => Some(image.manifest.config.digest),
        _ => None,
    };
    let reference = reference.clone();
    Ok(Some(FoundImage {
        reference,
        digest: Some(descriptor.digest),
        image_id,
        platforms,
        in_registry: false,
    }))
}

/// Gives a found image further names, where it was found: in the store, or in a registry, which may
/// be another one than it was found in.
///
/// # Errors
/// `NotFound` if it is gone; what the store and the registries say.
pub(crate) async fn tag(oci: &Oci, found: &FoundImage, references: &[Reference], job: &Job) -> Result<()> {
    let store = ImageStore::open(oci.store_dir())?;
    if !found.in_registry {
        let image = resolve(&store, found)?;
        return references.iter().try_for_each(|reference| store.tag(reference, &image));
    }
    let client = &oci.host().registry_client;
    let exact = match found.digest {
        Some(digest) => found.reference.with_digest(digest),
        None => found.reference.clone(),
    };
    let pulled = image::pull(client, &store, &exact, None, image::FetchLayers::WhenRead, job).await?;
    image::push(client, &store, &pulled.image, references, job).await.map(drop)
}

fn resolve(store: &ImageStore, found: &FoundImage) -> Result<Descriptor> {
    store.resolve(&found.reference)?.filter(|image| Some(image.digest) == found.digest).ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!("`{}` is no longer in the image store", found.reference.familiar()),
        )
        .with_hint("build again")
    })
}

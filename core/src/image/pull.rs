//! From a registry into the store: all of an image, or its documents now and its layers when they
//! are read.

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::documents::{Descriptor, Document};
use super::media_type;
use super::store::ImageStore;
use crate::backend::Job;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Step;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::RegistryClient;

/// When layers are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchLayers {
    /// At once.
    Now,
    /// When somebody reads them: [`fetch_missing`]. A push to the registry they are in never does.
    WhenRead,
}

/// An image that was pulled.
#[derive(Clone, Debug, PartialEq)]
pub struct Pulled {
    /// What the reference stands for: an index or a manifest.
    pub image: Descriptor,
    /// The manifests that were fetched.
    pub manifests: Vec<Descriptor>,
}

/// Brings an image into the store, and remembers where its blobs are. Gives it no name there.
/// Of an index only the image for `platform` is fetched; all of them where that is `None`.
///
/// # Errors
/// `NotFound` if there is no such image, or none for this platform; `Corrupt` for what does not
/// fit its digest; `Denied`, `Unavailable`, `TimedOut`, `Cancelled`; `LocalIo`.
pub async fn pull(
    client: &RegistryClient,
    store: &ImageStore,
    reference: &Reference,
    platform: Option<&Platform>,
    layers: FetchLayers,
    job: &Job,
) -> Result<Pulled> {
    let step = job.events.step(format!("pull {}", reference.familiar()));
    let result = async {
        let (image, bytes) = client.manifest(reference, job).await?;
        let document = keep(store, &image, &bytes)?;
        let wanted = match &document {
            Document::Manifest(_) => vec![image.clone()],
            Document::Index(index) => match platform {
                Some(platform) => vec![index.choose(platform, &format!("`{reference}`"))?.clone()],
                None => index.images().cloned().collect(),
            },
        };
        // What hangs on the images, such as attestations, belongs to all platforms together.
        let others = match (&document, platform) {
            (Document::Index(index), None) => index.other_manifests().cloned().collect(),
            _ => Vec::new(),
        };
        for manifest in wanted.iter().chain(&others) {
            pull_manifest(client, store, reference, manifest, layers, &step, job).await?;
        }
        Ok(Pulled { image, manifests: wanted })
    };
    let result = result.await;
    step.end(result)
}

async fn pull_manifest(
    client: &RegistryClient,
    store: &ImageStore,
    repository: &Reference,
    manifest: &Descriptor,
    layers: FetchLayers,
    step: &Step,
    job: &Job,
) -> Result<()> {
    let document = if store.has(&manifest.digest) {
        store.document(manifest)?
    } else {
        let (_, bytes) = client.manifest(&repository.with_digest(manifest.digest), job).await?;
        keep(store, manifest, &bytes)?
    };
    let Document::Manifest(document) = document else {
        let message = format!("`{}` is an index where a manifest was announced", manifest.digest);
        return Err(Error::new(ErrorKind::Corrupt, message));
    };
    for blob in std::iter::once(&document.config).chain(&document.layers) {
        store.record_origin(&blob.digest, repository)?;
    }
    client.blob_to(repository, &document.config, store, step, job).await?;
    if layers == FetchLayers::Now {
        let layers = document.layers.iter().filter(|layer| !is_elsewhere(layer));
        let job = together(job);
        let fetches = layers.map(|layer| client.blob_to(repository, layer, store, step, &job)).collect();
        all(client, fetches, &job).await?;
    }
    Ok(())
}

/// Stores a document that came from a registry.
fn keep(store: &ImageStore, descriptor: &Descriptor, bytes: &Bytes) -> Result<Document> {
    let shown = format!("`{}`", descriptor.digest);
    let document = Document::parse(&descriptor.media_type, bytes, &shown)?;
    store.put(bytes)?;
    Ok(document)
}

/// Fetches the blobs of an image that are not in the store from where they are known to be.
///
/// # Errors
/// `NotFound` if nobody knows where a blob is; else as [`pull`].
pub async fn fetch_missing(
    client: &RegistryClient,
    store: &ImageStore,
    image: &Descriptor,
    job: &Job,
) -> Result<()> {
    let mut parts = store.closure(image)?;
    parts.retain(|part| !is_elsewhere(part));
    fetch_blobs(client, store, &parts, job).await
}

/// Fetches those of these blobs that are not in the store from where they are known to be.
///
/// # Errors
/// As [`fetch_missing`].
pub async fn fetch_blobs(
    client: &RegistryClient,
    store: &ImageStore,
    blobs: &[Descriptor],
    job: &Job,
) -> Result<()> {
    let mut missing: Vec<&Descriptor> = Vec::new();
    for blob in blobs {
        // An image may have the same layer twice.
        if !missing.iter().any(|known| known.digest == blob.digest) && !store.has(&blob.digest) {
            missing.push(blob);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let step = job.events.step(format!("fetch {} layers", missing.len()));
    let job = together(job);
    let fetches = missing.into_iter().map(|blob| fetch_blob(client, store, blob, &step, &job)).collect();
    let result = all(client, fetches, &job).await;
    step.end(result)
}

/// Fetches one blob, unless it is in the store, from where it is known to be.
///
/// # Errors
/// As [`fetch_missing`].
pub(super) async fn fetch_blob(
    client: &RegistryClient,
    store: &ImageStore,
    blob: &Descriptor,
    step: &Step,
    job: &Job,
) -> Result<()> {
    if store.has(&blob.digest) {
        return Ok(());
    }
    let mut last = nowhere(blob);
    for origin in store.origins(&blob.digest) {
        match client.blob_to(&origin, blob, store, step, job).await {
            Ok(()) => return Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::LocalIo) => {
                return Err(error);
            }
            // The next place may have it.
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The error for a blob that cannot be had.
pub(super) fn nowhere(blob: &Descriptor) -> Error {
    let message = format!("blob `{}` is not in the image store, nor known to be anywhere else", blob.digest);
    Error::new(ErrorKind::NotFound, message).with_hint("pull the image again, or build it with `--no-cache`")
}

/// Layers that are not in registries at all but at addresses of their vendor.
pub(super) fn is_elsewhere(descriptor: &Descriptor) -> bool {
    let media_type = &descriptor.media_type;
    media_type::is_layer(media_type)
        && (media_type.contains(".foreign.") || media_type.contains(".nondistributable."))
        && descriptor.other.contains_key("urls")
}

/// The job of transfers that stop together: [`all`] stops it with the first failure.
pub(super) fn together(job: &Job) -> Job {
    job.child()
}

/// Runs transfers, as many at a time as the settings allow. The first failure stops the others by
/// their common job, and they are waited for: each clears away what it has begun.
pub(super) async fn all<F: Future<Output = Result<()>>>(
    client: &RegistryClient,
    transfers: Vec<F>,
    together: &Job,
) -> Result<()> {
    all_at(client.settings().concurrency, transfers, together).await
}

/// As [`all`], so many at a time.
pub(super) async fn all_at<F: Future<Output = Result<()>>>(
    concurrency: usize,
    transfers: Vec<F>,
    together: &Job,
) -> Result<()> {
    let mut transfers = stream::iter(transfers).buffer_unordered(concurrency.max(1));
    let mut outcome = Ok(());
    while let Some(result) = transfers.next().await {
        if outcome.is_ok() && result.is_err() {
            outcome = result;
            together.cancel.cancel();
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::RegistrySettings;

    /// Backends are used from any thread; the compiler says so here rather than there.
    fn assert_send<T: Send>(_: &T) {}

    #[tokio::test]
    async fn the_first_failure_stops_the_others_and_waits_for_them() {
        let client = RegistryClient::new(RegistrySettings::default()).expect("client");
        let job = together(&Job::silent());
        let ended = std::sync::atomic::AtomicUsize::new(0);
        let transfer = async |number: usize| {
            let result = match number {
                2 => Err(Error::new(ErrorKind::Corrupt, "wrong")),
                _ => job.run(std::future::pending()).await,
            };
            ended.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            result
        };
        let error = all(&client, (0..9).map(transfer).collect(), &job).await.expect_err("one fails");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(ended.into_inner(), 9);
    }

    #[tokio::test]
    async fn transfers_can_be_sent_to_other_threads() {
        let client = RegistryClient::new(RegistrySettings::default()).expect("client");
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = ImageStore::open(dir.path()).expect("store");
        let (image, reference, job) =
            (Descriptor::of("", b""), "x.io/a".parse().expect("reference"), Job::silent());
        assert_send(&pull(&client, &store, &reference, None, FetchLayers::Now, &job));
        assert_send(&fetch_missing(&client, &store, &image, &job));
        assert_send(&super::super::push(&client, &store, &image, std::slice::from_ref(&reference), &job));
    }
}

//! From the store to a registry: blobs concurrently, then manifests, indexes after them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::PoisonError;

use serde::Serialize;

use super::documents::{DOCUMENT_LIMIT_BYTES, Descriptor, Document};
use super::pull::{all_at, is_elsewhere, nowhere, together};
use super::store::ImageStore;
use crate::backend::Job;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Step;
use crate::reference::Reference;
use crate::registry::{BlobSource, Pushed, RegistryClient};

/// So many blobs are asked for while one is sent.
const ASKED_AT_ONCE: usize = 4;

/// A blob that is no larger and was never seen anywhere is sent without a question: the config of a new image.
const SENT_UNASKED_BYTES: u64 = 64 << 10;

/// Indexes of indexes exist; towers of them are nobody's image.
const DEEPEST_INDEX: usize = 8;

/// What a push did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PushSummary {
    /// The digest under which the image can be pulled.
    pub digest: Digest,
    /// How many blobs were sent.
    pub uploaded: usize,
    /// Their size.
    pub uploaded_bytes: u64,
    /// How many were taken over from another repository of the registry.
    pub mounted: usize,
    /// How many were there.
    pub existed: usize,
}

/// Sends an image to all of these references. Layers that are not in the store are mounted
/// where the registry has them, else sent on from where they are known to be, without being stored.
///
/// # Errors
/// `NotFound` if a part of the image is nowhere; `Denied` with a hint how to log in;
/// `Unavailable`, `TimedOut`, `UnexpectedAnswer`, `Cancelled`. What was sent stays there without a
/// name, and is not sent again.
pub async fn push(
    client: &RegistryClient,
    store: &ImageStore,
    image: &Descriptor,
    references: &[Reference],
    job: &Job,
) -> Result<PushSummary> {
    let mut repositories: BTreeMap<String, Vec<&Reference>> = BTreeMap::new();
    for reference in references {
        repositories.entry(reference.name()).or_default().push(reference);
    }
    let mut summary =
        PushSummary { digest: image.digest, uploaded: 0, uploaded_bytes: 0, mounted: 0, existed: 0 };
    for references in repositories.into_values() {
        let names: Vec<String> = references.iter().map(|reference| reference.familiar()).collect();
        let step = job.events.step(format!("push {}", names.join(", ")));
        let work = Push { client, store, step: &step, job, counts: Mutex::new(&mut summary) };
        let result = work.to_repository(image, &references).await;
        step.end(result)?;
    }
    Ok(summary)
}

/// Sends one layer of an image that is still being made; [`push`] finds it there later. The layer is
/// in the store, or known to be at a registry.
///
/// # Errors
/// As [`push`].
pub async fn push_layer(
    client: &RegistryClient,
    store: &ImageStore,
    repository: &Reference,
    layer: &Descriptor,
    step: &Step,
    job: &Job,
) -> Result<()> {
    if is_elsewhere(layer) {
        return Ok(());
    }
    let mut summary =
        PushSummary { digest: layer.digest, uploaded: 0, uploaded_bytes: 0, mounted: 0, existed: 0 };
    Push { client, store, step, job, counts: Mutex::new(&mut summary) }.blob(repository, layer, job).await
}

struct Push<'a> {
    client: &'a RegistryClient,
    store: &'a ImageStore,
    step: &'a Step,
    job: &'a Job,
    counts: Mutex<&'a mut PushSummary>,
}

impl Push<'_> {
    async fn to_repository(&self, image: &Descriptor, references: &[&Reference]) -> Result<()> {
        let Some(repository) = references.first() else { return Ok(()) };
        let bytes = self.store.read(image, DOCUMENT_LIMIT_BYTES)?;
        // A registry that has the manifest has everything it names.
        let by_digest = repository.with_digest(image.digest);
        let there = self.client.has_manifest(&by_digest, self.job).await?;
        if there {
            self.step.log(format!("{} is there", image.digest));
        } else {
            for child in self.documents_below(image)? {
                let bytes = self.store.read(&child, DOCUMENT_LIMIT_BYTES)?;
                self.blobs(repository, &child).await?;
                let reference = name_by_digest(repository, &child)?;
                self.client.push_manifest(&reference, &child.media_type, &bytes, self.job).await?;
            }
            self.blobs(repository, image).await?;
        }
        for reference in references {
            match (reference.tag(), there) {
                (Some(tag), _) => {
                    let tagged = reference.with_tag(tag)?;
                    self.client.push_manifest(&tagged, &image.media_type, &bytes, self.job).await?;
                }
                (None, true) => {}
                (None, false) => {
                    let reference = name_by_digest(reference, image)?;
                    self.client.push_manifest(&reference, &image.media_type, &bytes, self.job).await?;
                }
            }
        }
        Ok(())
    }

    /// The manifests and indexes that an index names, deepest first, each once.
    fn documents_below(&self, image: &Descriptor) -> Result<Vec<Descriptor>> {
        let (mut seen, mut below) = (HashSet::new(), Vec::new());
        self.add_below(image, DEEPEST_INDEX, &mut seen, &mut below)?;
        Ok(below)
    }

    fn add_below(
        &self,
        image: &Descriptor,
        levels: usize,
        seen: &mut HashSet<String>,
        below: &mut Vec<Descriptor>,
    ) -> Result<()> {
        let Document::Index(index) = self.store.document(image)? else { return Ok(()) };
        let Some(levels) = levels.checked_sub(1) else {
            let message = format!("the index `{}` is below {DEEPEST_INDEX} others", image.digest);
            return Err(Error::new(ErrorKind::Unsupported, message));
        };
        for child in &index.manifests {
            if !seen.insert(child.digest.hex()) {
                continue;
            }
            if !self.store.has(&child.digest) {
                let platform = child.platform.as_ref().map(|platform| platform.platform().to_string());
                let which = platform.unwrap_or_else(|| child.digest.to_string());
                let message = format!("the image for `{which}` is not in the image store");
                return Err(Error::new(ErrorKind::NotFound, message)
                    .with_hint("push one platform with `--platform`")
                    .with_hint("or fetch the others first: `windlass image pull --all-platforms`"));
            }
            self.add_below(child, levels, seen, below)?;
            below.push(child.clone());
        }
        Ok(())
    }

    /// Sends the blobs that a manifest names; an index names none.
    async fn blobs(&self, repository: &Reference, document: &Descriptor) -> Result<()> {
        let Document::Manifest(manifest) = self.store.document(document)? else { return Ok(()) };
        let mut blobs: Vec<&Descriptor> = Vec::new();
        for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
            // An image may have the same layer twice.
            if !is_elsewhere(blob) && !blobs.iter().any(|known| known.digest == blob.digest) {
                blobs.push(blob);
            }
        }
        let job = together(self.job);
        let transfers = blobs.into_iter().map(|blob| self.blob(repository, blob, &job)).collect();
        // Most are only asked for: those that are sent wait for their turn in the client.
        all_at(ASKED_AT_ONCE * self.client.settings().concurrency, transfers, &job).await
    }

    async fn blob(&self, repository: &Reference, blob: &Descriptor, job: &Job) -> Result<()> {
        let (client, store) = (self.client, self.store);
        let mut origins = store.origins(&blob.digest);
        let mut _turn = None;
        if !origins.iter().any(|origin| origin.registry() == repository.registry()) {
            // Somebody else may be sending it there: then it is taken over from where that goes.
            _turn = Some(client.upload_turn(repository.registry(), blob.digest, job).await?);
            origins = store.origins(&blob.digest);
        }
        let from = origins.iter().find(|origin| origin.registry() == repository.registry());
        let from = from.map(Reference::repository);
        let was_here = origins.iter().any(|origin| origin.name() == repository.name());
        if let Some(from) = from.filter(|_| !was_here)
            && !client.knows_blob(repository, blob)
            && client.mount_blob(repository, blob, from, job).await?
        {
            self.arrived(repository, blob, Pushed::Mounted);
            return Ok(());
        }
        // Where it goes it is not yet, whatever was known.
        let mut elsewhere = origins.clone();
        elsewhere.retain(|origin| origin.name() != repository.name());
        let source = if store.has(&blob.digest) {
            BlobSource::File(store.path(&blob.digest))
        } else if elsewhere.is_empty() {
            let claimed = client.claim_blob(repository, blob, None, job).await?;
            return claimed.map(|pushed| self.count(blob, pushed)).ok_or_else(|| nowhere(blob));
        } else {
            // Nobody has read it here, so it need not be kept here.
            BlobSource::Registries(elsewhere)
        };
        // A document that was only just made is hardly there: it is as soon sent as asked for.
        let is_new = origins.is_empty() && blob.size_bytes <= SENT_UNASKED_BYTES;
        let pushed = match is_new {
            true => client.send_blob(repository, blob, &source, self.step, job).await,
            false => client.push_blob(repository, blob, &source, from, self.step, job).await,
        };
        let pushed = match pushed {
            Ok(pushed) => pushed,
            Err(error) if matches!(source, BlobSource::File(_)) && may_be_ours(&error) => {
                return Err(self.check_own(blob, job).await.err().unwrap_or(error));
            }
            Err(error) => return Err(error),
        };
        self.arrived(repository, blob, pushed);
        Ok(())
    }

    /// Remembers where a blob is. Only a hint: a store that cannot be written is no reason to fail after the
    /// blob is there.
    fn arrived(&self, repository: &Reference, blob: &Descriptor, pushed: Pushed) {
        if let Err(error) = self.store.record_origin(&blob.digest, repository) {
            tracing::debug!(digest = %blob.digest, %error, "the origin is not remembered");
        }
        self.count(blob, pushed);
    }

    /// Reads a blob of the store that a registry does not take. One that is damaged is taken out, so that
    /// the next build makes it again.
    async fn check_own(&self, blob: &Descriptor, job: &Job) -> Result<()> {
        let (store, blob) = (self.store.clone(), blob.clone());
        job.blocking(move |job| store.verify_blob(&blob, job)).await
    }

    fn count(&self, blob: &Descriptor, pushed: Pushed) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let word = match pushed {
            Pushed::Existed => {
                counts.existed += 1;
                "is there"
            }
            Pushed::Mounted => {
                counts.mounted += 1;
                "taken over from another repository"
            }
            Pushed::Uploaded => {
                counts.uploaded += 1;
                counts.uploaded_bytes += blob.size_bytes;
                "sent"
            }
        };
        self.step.log(format!("{} {word}", blob.digest));
    }
}

fn name_by_digest(repository: &Reference, document: &Descriptor) -> Result<Reference> {
    format!("{}@{}", repository.name(), document.digest).parse()
}

/// Says whether a registry may have refused what we sent for being damaged here.
fn may_be_ours(error: &Error) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::Cancelled | ErrorKind::Unavailable | ErrorKind::TimedOut | ErrorKind::Denied
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Index, media_type, to_bytes};
    use crate::registry::RegistrySettings;

    /// An index of indexes, each of which is named twice by the one above.
    fn tower(store: &ImageStore, levels: usize) -> Descriptor {
        let mut top = crate::image::tests::image(store, &[]).descriptor;
        for _ in 0..levels {
            let index = to_bytes(&Index::new(media_type::OCI_INDEX, vec![top.clone(), top]));
            top = store.put_as(media_type::OCI_INDEX, &index).expect("put");
        }
        top
    }

    #[test]
    fn documents_are_found_once_and_not_below_a_tower_of_indexes() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = ImageStore::open(dir.path()).expect("store");
        let client = RegistryClient::new(RegistrySettings::default()).expect("client");
        let job = Job::silent();
        let step = job.events.step("push");
        let mut summary =
            PushSummary { digest: Digest::of(b""), uploaded: 0, uploaded_bytes: 0, mounted: 0, existed: 0 };
        let work =
            Push { client: &client, store: &store, step: &step, job: &job, counts: Mutex::new(&mut summary) };
        let below = work.documents_below(&tower(&store, DEEPEST_INDEX)).expect("all are there");
        assert_eq!(below.len(), DEEPEST_INDEX);
        assert!(media_type::is_manifest(&below[0].media_type), "the deepest comes first");
        let error = work.documents_below(&tower(&store, DEEPEST_INDEX + 1)).expect_err("too deep");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let part = tower(&store, 1);
        std::fs::remove_file(store.path(&below[0].digest)).expect("removed");
        let error = work.documents_below(&part).expect_err("an index in part");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.hints().iter().any(|hint| hint.contains("--platform")), "{error:?}");
        step.end(Ok(())).expect("ended");
    }
}

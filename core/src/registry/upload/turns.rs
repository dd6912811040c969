//! Uploads that would be made twice: who comes second waits, and has the blob taken over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

use super::super::RegistryClient;
use crate::backend::Job;
use crate::digest::Digest;
use crate::error::Result;

type Lock = tokio::sync::Mutex<()>;

/// The blobs that somebody of this program is sending, by registry.
#[derive(Debug, Default)]
pub(in super::super) struct Turns(Mutex<HashMap<(String, Digest), Weak<Lock>>>);

/// The right to send a blob to a registry, whatever the repository. Others wait until it is dropped.
#[derive(Debug)]
pub struct UploadTurn {
    _guard: OwnedMutexGuard<()>,
}

impl Turns {
    fn lock(&self, registry: &str, blob: Digest) -> Arc<Lock> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        let place = locks.entry((registry.to_owned(), blob)).or_default();
        place.upgrade().unwrap_or_else(|| {
            let lock = Arc::new(Lock::default());
            *place = Arc::downgrade(&lock);
            lock
        })
    }
}

impl RegistryClient {
    /// Waits until nobody else of this program sends this blob to this registry. What the other has sent
    /// can be taken over then.
    ///
    /// # Errors
    /// `Cancelled`.
    pub async fn upload_turn(&self, registry: &str, blob: Digest, job: &Job) -> Result<UploadTurn> {
        let lock = self.inner.turns.lock(registry, blob);
        job.run(async { Ok(UploadTurn { _guard: lock.lock_owned().await }) }).await
    }

    /// As [`RegistryClient::upload_turn`], without waiting: `None` if somebody else sends it.
    pub fn try_upload_turn(&self, registry: &str, blob: Digest) -> Option<UploadTurn> {
        self.inner.turns.lock(registry, blob).try_lock_owned().ok().map(|_guard| UploadTurn { _guard })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::RegistrySettings;

    #[tokio::test]
    async fn one_sends_and_the_others_wait() {
        let client = RegistryClient::new(RegistrySettings::default()).expect("client");
        let (blob, job) = (Digest::of(b"x"), Job::silent());
        let turn = client.upload_turn("r.io", blob, &job).await.expect("free");
        assert!(client.clone().try_upload_turn("r.io", blob).is_none());
        assert!(client.try_upload_turn("other.io", blob).is_some());
        assert!(client.try_upload_turn("r.io", Digest::of(b"y")).is_some());
        let mut second = Box::pin(client.upload_turn("r.io", blob, &job));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(turn);
        second.await.expect("its turn");
    }
}

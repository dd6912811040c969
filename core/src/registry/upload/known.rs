//! Blobs that a repository is known to have, so that nobody asks for the same one twice in a run.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::digest::Digest;

/// A registry may clean up at any time; what we have seen there is believed for so long.
const LIFETIME: Duration = Duration::from_secs(300);

/// Repositories with their registry, and what was seen in them when.
#[derive(Debug, Default)]
pub(in super::super) struct KnownBlobs(Mutex<HashMap<String, HashMap<Digest, Instant>>>);

impl KnownBlobs {
    /// Says whether a repository has a blob, as far as is known.
    pub(super) fn has(&self, repository: &str, blob: Digest, now: Instant) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = known.get(repository).and_then(|blobs| blobs.get(&blob));
        seen.is_some_and(|seen| now.saturating_duration_since(*seen) < LIFETIME)
    }

    /// Notes that a repository has a blob.
    pub(super) fn note(&self, repository: &str, blob: Digest, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(repository.to_owned()).or_default().insert(blob, now);
    }

    /// Forgets what was seen in a repository: the registry says otherwise.
    pub(in super::super) fn forget(&self, repository: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(repository);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn believes_what_it_saw_for_a_while() {
        let (known, blob, start) = (KnownBlobs::default(), Digest::of(b"x"), Instant::now());
        known.note("r.io/a", blob, start);
        assert!(known.has("r.io/a", blob, start));
        assert!(!known.has("r.io/b", blob, start));
        assert!(!known.has("r.io/a", Digest::of(b"y"), start));
        assert!(!known.has("r.io/a", blob, start + LIFETIME));
        known.forget("r.io/a");
        assert!(!known.has("r.io/a", blob, start));
    }
}

//! A batch stops before the disk is full: what is half-written by then is of no use to anybody.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

type Free = dyn Fn(&Path) -> Option<u64> + Send + Sync;

/// Watches how much room is left where a batch writes.
#[derive(Clone)]
pub struct DiskGuard {
    least_bytes: u64,
    places: Vec<PathBuf>,
    free: Arc<Free>,
}

impl DiskGuard {
    /// Wants so many bytes to be free at each of these places; 0 for no guard. Of a place that does not exist yet
    /// the nearest directory above counts.
    pub fn new(least_bytes: u64, places: Vec<PathBuf>) -> Self {
        Self { least_bytes, places, free: Arc::new(free_bytes) }
    }

    /// The same with another measure, for tests.
    #[cfg(test)]
    pub(super) fn measured_by(self, free: impl Fn(&Path) -> Option<u64> + Send + Sync + 'static) -> Self {
        Self { free: Arc::new(free), ..self }
    }

    /// Measures. Takes no time worth a thread of its own.
    ///
    /// # Errors
    /// `LocalIo` if a place has less room than is wanted. A place that cannot be measured counts as good.
    pub fn check(&self) -> Result<()> {
        if self.least_bytes == 0 {
            return Ok(());
        }
        for place in &self.places {
            match (self.free)(place) {
                Some(free) if free < self.least_bytes => return Err(self.full(place, free)),
                _ => {}
            }
        }
        Ok(())
    }

    fn full(&self, place: &Path, free: u64) -> Error {
        let message = format!(
            "only {} MB are free at `{}`, and {} MB must be",
            free / 1_000_000,
            place.display(),
            self.least_bytes / 1_000_000
        );
        Error::new(ErrorKind::LocalIo, message)
            .with_hint("free some space (`windlass image prune` removes what no image needs), and go on with `--resume`")
            .with_hint("`--min-free` sets how much must be free")
    }
}

impl fmt::Debug for DiskGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskGuard")
            .field("least_bytes", &self.least_bytes)
            .field("places", &self.places)
            .finish()
    }
}

/// What users without privileges may still write at a place, in bytes.
fn free_bytes(place: &Path) -> Option<u64> {
    let there = place.ancestors().find(|path| path.exists())?;
    let space = rustix::fs::statvfs(there).ok()?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_with_too_little_room_is_named() {
        let guard = DiskGuard::new(5_000_000, vec!["/a".into(), "/b".into(), "/c".into()]);
        let guard = guard.measured_by(|place| match place.to_str() {
            Some("/a") => Some(5_000_000),
            Some("/b") => None,
            _ => Some(4_999_999),
        });
        assert_eq!(
            guard.check().expect_err("full").message(),
            "only 4 MB are free at `/c`, and 5 MB must be"
        );
        DiskGuard::new(0, vec!["/a".into()]).measured_by(|_| Some(0)).check().expect("no guard");
    }

    #[test]
    fn a_place_that_is_not_there_yet_is_measured_above() {
        let dir = tempfile::tempdir().expect("a directory");
        let free = free_bytes(&dir.path().join("a/b/c")).expect("measured");
        assert!(free > 0);
        assert!(DiskGuard::new(u64::MAX, vec![dir.path().join("x")]).check().is_err());
    }
}

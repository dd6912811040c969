//! The content hashes of the files of one listing: those that are remembered, and those that
//! somebody learns while reading the files for another purpose.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::StatCache;
use super::stat_cache::{ContextCache, SHA256_BYTES};
use super::tree::hash_on_all_cores;
use crate::Result;
use crate::backend::Job;
use crate::context::{Context, Entry, EntrySource};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind};

/// What is known of the contents of a listing, by the positions of its entries.
pub struct FileHashes {
    cache: ContextCache<SHA256_BYTES>,
    listed: SystemTime,
    state: Mutex<State>,
}

struct State {
    hashes: Vec<Option<Digest>>,
    /// A hash of a file on disk that is not in the cache.
    learned: bool,
}

impl FileHashes {
    /// Takes what the cache remembers. `listed` is a moment before the entries were listed. Nothing
    /// is read but the cache.
    pub fn remembered(context: &Context, entries: &[Entry], cache: &StatCache, listed: SystemTime) -> Self {
        let cache = cache.load(context);
        let known = cache.known(entries);
        let hashes = known.into_iter().map(|hash| hash.map(Digest::from_bytes)).collect();
        Self { cache, listed, state: Mutex::new(State { hashes, learned: false }) }
    }

    /// The hash of an entry, if it is known.
    pub fn get(&self, entry: usize) -> Option<Digest> {
        self.lock().hashes[entry]
    }

    /// Takes hashes that somebody found while reading the entries.
    ///
    /// # Errors
    /// `ContextUnreadable` if one was known to be another: the file changed in a way that the file
    /// system does not show.
    pub fn learn(&self, entries: &[Entry], found: impl IntoIterator<Item = (usize, Digest)>) -> Result<()> {
        let mut state = self.lock();
        for (index, hash) in found {
            let known = state.hashes[index].replace(hash);
            if known.is_some_and(|known| known != hash) {
                let message = format!("`{}` changed while it was read", entries[index].path);
                return Err(Error::new(ErrorKind::ContextUnreadable, message));
            }
            state.learned |= known.is_none() && matches!(entries[index].source, EntrySource::Disk(_));
        }
        Ok(())
    }

    /// Reads those of these files whose hashes are unknown. Blocking; reads on all cores.
    ///
    /// # Errors
    /// `ContextUnreadable`, naming the path; `Cancelled`.
    pub fn complete(&self, context: &Context, entries: &[Entry], wanted: &[usize], job: &Job) -> Result<()> {
        let unknown: Vec<usize> = {
            let state = self.lock();
            wanted.iter().copied().filter(|index| state.hashes[*index].is_none()).collect()
        };
        let found = hash_on_all_cores(context, entries, &unknown, job)?;
        self.learn(entries, found)
    }

    /// Writes what was learned into the cache. That it cannot be written harms nobody.
    pub fn save(&self, entries: &[Entry]) {
        let mut state = self.lock();
        if std::mem::take(&mut state.learned) {
            let hashes: Vec<_> = state.hashes.iter().map(|hash| hash.map(|hash| *hash.as_bytes())).collect();
            self.cache.save(entries, &hashes, self.listed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for FileHashes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileHashes")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::context::ContextSettings;

    #[test]
    fn what_was_learned_is_not_read_again() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (root, cache) = (directory.path().join("context"), StatCache::open(directory.path()));
        std::fs::create_dir(&root).expect("created");
        std::fs::write(root.join("a"), "a").expect("written");
        std::fs::write(root.join("b"), "b").expect("written");
        let context = Context::from_dir(&root, None, &ContextSettings::default()).expect("a context");
        let (job, later) = (Job::silent(), SystemTime::now() + Duration::from_secs(60));
        let entries = context.list(&job).expect("listed");

        let hashes = FileHashes::remembered(&context, &entries, &cache, later);
        assert_eq!((hashes.get(0), hashes.get(1)), (None, None));
        hashes.learn(&entries, [(1, Digest::of(b"b"))]).expect("new");
        hashes.save(&entries);
        let hashes = FileHashes::remembered(&context, &entries, &cache, later);
        assert_eq!((hashes.get(0), hashes.get(1)), (None, Some(Digest::of(b"b"))));
        // It is not even there any more.
        std::fs::remove_file(root.join("b")).expect("removed");
        hashes.complete(&context, &entries, &[0, 1], &job).expect("known or there");
        assert_eq!(hashes.get(0), Some(Digest::of(b"a")));
        let other = hashes.learn(&entries, [(0, Digest::of(b"x"))]).expect_err("another content");
        assert_eq!(other.kind(), ErrorKind::ContextUnreadable);
    }

    #[test]
    fn what_was_not_at_rest_is_not_remembered() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (root, cache) = (directory.path().join("context"), StatCache::open(directory.path()));
        std::fs::create_dir(&root).expect("created");
        std::fs::write(root.join("a"), "a").expect("written");
        let context = Context::from_dir(&root, None, &ContextSettings::default()).expect("a context");
        let entries = context.list(&Job::silent()).expect("listed");
        let hashes = FileHashes::remembered(&context, &entries, &cache, SystemTime::now());
        hashes.learn(&entries, [(0, Digest::of(b"a"))]).expect("new");
        hashes.save(&entries);
        let hashes = FileHashes::remembered(&context, &entries, &cache, SystemTime::now());
        assert_eq!(hashes.get(0), None);
    }
}

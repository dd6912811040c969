//! The hash of a file tree: paths, types, permission bits, link targets, contents.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use super::stat_cache::SHA256_BYTES;
use super::{StableHasher, StatCache};
use crate::Result;
use crate::backend::Job;
use crate::context::{Context, Entry, EntryKind, EntrySource};
use crate::digest::Digest;

const BUFFER_BYTES: usize = 256 << 10;
/// A thread takes so many files at a time.
const FILES_AT_A_TIME: usize = 16;

/// The content hashes of a list of entries of a context: one place for each entry, `None` for
/// all but files. Files that the cache knows are not read. Blocking; reads on all cores.
///
/// # Errors
/// `ContextUnreadable`, naming the path; `Cancelled`.
pub fn hash_files(
    context: &Context,
    entries: &[Entry],
    cache: &StatCache,
    job: &Job,
) -> Result<Vec<Option<Digest>>> {
    let started = SystemTime::now();
    let cache = cache.load(context);
    let mut hashes: Vec<Option<[u8; SHA256_BYTES]>> = cache.known(entries);
    let unknown: Vec<usize> =
        (0..entries.len()).filter(|index| entries[*index].is_file() && hashes[*index].is_none()).collect();
    for (index, hash) in hash_on_all_cores(context, entries, &unknown, job)? {
        hashes[index] = Some(*hash.as_bytes());
    }
    if unknown.iter().any(|index| matches!(entries[*index].source, EntrySource::Disk(_))) {
        cache.save(entries, &hashes, started);
    }
    Ok(hashes.into_iter().map(|hash| hash.map(Digest::from_bytes)).collect())
}

pub(super) fn hash_on_all_cores(
    context: &Context,
    entries: &[Entry],
    indexes: &[usize],
    job: &Job,
) -> Result<Vec<(usize, Digest)>> {
    on_all_cores(indexes, |index, buffer| hash_file(context, &entries[index], buffer, job))
}

/// Does the work for each index, with a buffer that it may use. Blocking.
///
/// # Errors
/// The first that a thread meets; the others then stop soon.
pub(crate) fn on_all_cores<T: Send>(
    indexes: &[usize],
    each: impl Fn(usize, &mut [u8]) -> Result<T> + Sync,
) -> Result<Vec<(usize, T)>> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, T)>> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut found = Vec::new();
        loop {
            let start = next.fetch_add(FILES_AT_A_TIME, Ordering::Relaxed);
            let Some(rest) = indexes.get(start..) else { return Ok(found) };
            for index in rest.iter().take(FILES_AT_A_TIME) {
                let hash = each(*index, &mut buffer);
                if hash.is_err() {
                    // The others need not go on.
                    next.store(indexes.len(), Ordering::Relaxed);
                }
                found.push((*index, hash?));
            }
            if rest.len() <= FILES_AT_A_TIME {
                return Ok(found);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    let threads = threads.min(indexes.len().div_ceil(FILES_AT_A_TIME)).max(1);
    let mut found = Vec::with_capacity(indexes.len());
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut results = vec![work()];
        for other in others {
            results.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        for result in results {
            found.extend(result?);
        }
        Ok(found)
    })
}

fn hash_file(context: &Context, entry: &Entry, buffer: &mut [u8], job: &Job) -> Result<Digest> {
    let mut content = context.open(entry)?;
    let mut hasher = Sha256::new();
    loop {
        job.check()?;
        match content.read(buffer) {
            Ok(0) => return Ok(Digest::from_bytes(hasher.finalize().into())),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(crate::context::read_error(&entry.path, error)),
        }
    }
}

/// Adds a list of entries with their content hashes to a hash. Owners and times do not count.
pub(super) fn hash_tree(entries: &[Entry], hashes: &[Option<Digest>], hasher: &mut StableHasher) {
    hasher.list(entries.len());
    for (entry, hash) in entries.iter().zip(hashes) {
        hasher.bytes(entry.path.as_bytes());
        match (&entry.kind, hash) {
            (EntryKind::Directory, _) => hasher.bytes(b"directory"),
            (EntryKind::File { .. }, hash) => {
                hasher.bytes(b"file");
                hasher.bytes(hash.as_ref().map_or(&[], |hash| hash.as_bytes().as_slice()));
            }
            (EntryKind::Symlink { target }, _) => {
                hasher.bytes(b"symlink");
                hasher.bytes(target);
            }
        }
        hasher.number(u64::from(entry.mode));
    }
}

/// The hash of a context alone: what `context hash` prints.
///
/// # Errors
/// As [`hash_files`].
pub fn context_digest(context: &Context, entries: &[Entry], cache: &StatCache, job: &Job) -> Result<Digest> {
    let hashes = hash_files(context, entries, cache, job)?;
    let mut hasher = StableHasher::new("windlass context 1");
    hash_tree(entries, &hashes, &mut hasher);
    Ok(hasher.finish())
}

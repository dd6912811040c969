//! Remembers the hashes of files, so that an unchanged file is not read again.
//!
//! There is one file a context, read and written as a whole. What tells that a file is unchanged
//! is its size, modification time, change time, inode and device. A hash is only remembered if
//! the file had been at rest for a while when it was read: a later change within the same tick of
//! the clock would otherwise go unseen (what git calls "racily clean").
//!
//! The cache can be wrong in no way that matters: it is replaced by renaming, so that processes
//! that run at the same time lose at most each other's additions, and one that does not match its
//! own checksum is not used.

use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::context::{Context, DiskState, Entry, EntrySource, Links};
use crate::digest::Digest;

/// A file must have been at rest for so long. Twice the coarsest clock of a file system in use
/// (FAT: 2 s; Linux: 10 ms).
const REST: Duration = Duration::from_secs(4);
/// Goes up with every change of the format.
const MAGIC: &[u8] = b"windlass stat cache 1\n";
/// The hashes of files are SHA-256.
pub(super) const SHA256_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 32;

/// The remembered hashes of all contexts of a user.
#[derive(Clone, Debug)]
pub struct StatCache {
    directory: Option<PathBuf>,
}

/// The remembered hashes of one context, each of so many bytes.
pub(crate) struct ContextCache<const N: usize> {
    file: Option<PathBuf>,
    content: Vec<u8>,
}

impl StatCache {
    /// Uses the user's cache directory. Nothing is read yet, and nothing needs to exist.
    pub fn open(cache_dir: &Path) -> Self {
        Self { directory: Some(cache_dir.join("stat")) }
    }

    /// Remembers nothing: every file is read.
    pub fn disabled() -> Self {
        Self { directory: None }
    }

    /// Reads what is remembered of a context. One that is damaged counts as empty.
    pub(crate) fn load<const N: usize>(&self, context: &Context) -> ContextCache<N> {
        let file = self.directory.as_ref().map(|directory| directory.join(file_name(context, N)));
        let content = file.as_ref().and_then(|file| std::fs::read(file).ok()).unwrap_or_default();
        let content = verified(content).unwrap_or_default();
        ContextCache { file, content }
    }
}

/// Two Dockerfiles with ignore files of their own list other files of the same directory; each
/// gets its own cache, so that they do not empty each other's.
fn file_name(context: &Context, hash_bytes: usize) -> String {
    let mut hasher = super::StableHasher::new("windlass stat cache name 1");
    hasher.bytes(&real_path(context.root().unwrap_or(Path::new(""))));
    hasher.bytes(context.ignore().file().as_os_str().as_bytes());
    for mount in context.mounts() {
        hasher.bytes(mount.at.as_bytes());
        hasher.bytes(&real_path(&mount.directory));
        hasher.bytes(mount.ignore.file().as_os_str().as_bytes());
        hasher.number(u64::from(mount.links == Links::Follow));
    }
    if hash_bytes != SHA256_BYTES {
        hasher.number(hash_bytes as u64);
    }
    hasher.finish().hex()
}

fn real_path(directory: &Path) -> Vec<u8> {
    let path = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    path.into_os_string().into_vec()
}

/// The records inside a cache file; `None` if it is not exactly what was written.
fn verified(mut content: Vec<u8>) -> Option<Vec<u8>> {
    let end = content.len().checked_sub(CHECKSUM_BYTES)?;
    let intact = content.starts_with(MAGIC) && Digest::of(&content[..end]).as_bytes() == &content[end..];
    intact.then(|| {
        content.truncate(end);
        content.drain(..MAGIC.len());
        content
    })
}

impl<const N: usize> ContextCache<N> {
    /// The hashes that are still good, one place for each entry.
    pub(crate) fn known(&self, entries: &[Entry]) -> Vec<Option<[u8; N]>> {
        let mut known = vec![None; entries.len()];
        let mut records = Records::<N>(&self.content).peekable();
        // Both are sorted by path.
        for (entry, known) in entries.iter().zip(&mut known) {
            let EntrySource::Disk(state) = entry.source else { continue };
            let path = entry.path.as_bytes();
            while records.next_if(|record| record.path < path).is_some() {}
            *known = records
                .next_if(|record| record.path == path)
                .filter(|record| record.state == state)
                .map(|record| record.hash);
        }
        known
    }

    /// Remembers the hashes of these entries, sorted by path; forgets all others. `started` is a
    /// moment before the first file was read. That it cannot be written harms nobody.
    pub(crate) fn save(&self, entries: &[Entry], hashes: &[Option<[u8; N]>], started: SystemTime) {
        let Some(file) = &self.file else { return };
        let rested = nanoseconds(started.checked_sub(REST).unwrap_or(SystemTime::UNIX_EPOCH));
        let mut content = MAGIC.to_vec();
        for (entry, hash) in entries.iter().zip(hashes) {
            if let (EntrySource::Disk(state), Some(hash)) = (&entry.source, hash)
                && state.mtime_ns.max(state.ctime_ns) < rested
            {
                append_record(&mut content, entry.path.as_bytes(), state, hash);
            }
        }
        let checksum = Digest::of(&content);
        content.extend_from_slice(checksum.as_bytes());
        if let Err(error) = replace(file, &content) {
            tracing::debug!(file = %file.display(), %error, "the stat cache cannot be written");
        }
    }
}

fn nanoseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// No fsync: what a crash leaves behind is recognised by its checksum.
fn replace(file: &Path, content: &[u8]) -> std::io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
    temporary.write_all(content)?;
    temporary.persist(file)?;
    Ok(())
}

struct Record<'a, const N: usize> {
    path: &'a [u8],
    state: DiskState,
    hash: [u8; N],
}

fn append_record(content: &mut Vec<u8>, path: &[u8], state: &DiskState, hash: &[u8]) {
    content.extend_from_slice(&(path.len() as u32).to_le_bytes());
    content.extend_from_slice(path);
    content.extend_from_slice(&state.size_bytes.to_le_bytes());
    content.extend_from_slice(&state.mtime_ns.to_le_bytes());
    content.extend_from_slice(&state.ctime_ns.to_le_bytes());
    content.extend_from_slice(&state.inode.to_le_bytes());
    content.extend_from_slice(&state.device.to_le_bytes());
    content.extend_from_slice(hash);
}

/// The records of a cache, in the order they were written.
struct Records<'a, const N: usize>(&'a [u8]);

impl<'a, const N: usize> Iterator for Records<'a, N> {
    type Item = Record<'a, N>;

    fn next(&mut self) -> Option<Record<'a, N>> {
        let length = u32::from_le_bytes(*self.0.split_off(..4)?.first_chunk()?);
        let path = self.0.split_off(..length as usize)?;
        let mut number = || Some(u64::from_le_bytes(*self.0.split_off(..8)?.first_chunk()?));
        let state = DiskState {
            size_bytes: number()?,
            mtime_ns: number()?.cast_signed(),
            ctime_ns: number()?.cast_signed(),
            inode: number()?,
            device: number()?,
        };
        let hash = *self.0.split_off(..N)?.first_chunk()?;
        Some(Record { path, state, hash })
    }
}

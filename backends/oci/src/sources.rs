//! Where the content of files comes from: contexts on disk and in memory, layers, archives.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufReader, Read};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use windlass_core::archive::unpack::TarReader;
use windlass_core::archive::{self, TarEntry, decompress};
use windlass_core::backend::Job;
use windlass_core::context::{Context, DiskState, Entry, EntryKind, EntrySource};
use windlass_core::digest::Digest;
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::fingerprint::{FileHashes, StatCache};
use windlass_core::image::{Descriptor, ImageStore};

use crate::tree::{Content, Node, NodeKind, Stream, Tree};

/// What the first part of a file is read with, to see what it is.
const HEAD_BYTES: usize = 512;

/// A context that was listed.
#[derive(Debug)]
pub(crate) struct ListedContext {
    /// The context.
    pub(crate) context: Context,
    /// Its entries, sorted by path.
    pub(crate) entries: Arc<[Entry]>,
    /// The same as a tree, owned by the super-user.
    pub(crate) tree: Arc<Tree>,
    /// What is known of their contents.
    pub(crate) hashes: FileHashes,
}

impl ListedContext {
    /// An entry by its number, with its context.
    pub(crate) fn entry(&self, number: usize) -> (&Context, &Entry) {
        (&self.context, &self.entries[number])
    }
}

/// Everything that content may come from in one build. Clones share it.
///
/// Contexts have numbers in the order in which they happen to be listed, which differs from one
/// build to the next: nothing in a layer may depend on them.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    store: ImageStore,
    cache: StatCache,
    contexts: Arc<RwLock<Vec<Arc<ListedContext>>>>,
    layers: Arc<RwLock<BTreeMap<Digest, Descriptor>>>,
}

impl Sources {
    /// Starts with the layers of a store, none of them named yet.
    pub(crate) fn new(store: ImageStore, cache: StatCache) -> Self {
        Self { store, cache, contexts: Arc::default(), layers: Arc::default() }
    }

    /// Lists a context and adds it; returns its number. Blocking.
    ///
    /// # Errors
    /// Those of listing it.
    pub(crate) fn add_context(&self, context: Context, job: &Job) -> Result<usize> {
        let listed = SystemTime::now();
        let entries = context.list_once(job)?;
        // What is in memory, or was fetched for this build alone, is not met again.
        let mut outside = context.directories().map(|directory| !directory.starts_with(self.store.dir()));
        let lasting = outside.next() == Some(true) && outside.all(|other| other);
        drop(outside);
        let cache = if lasting { self.cache.clone() } else { StatCache::disabled() };
        let hashes = FileHashes::remembered(&context, &entries, &cache, listed);
        let mut contexts = self.contexts.write().unwrap_or_else(PoisonError::into_inner);
        let number = contexts.len();
        let tree = Arc::new(tree_of(&entries, number));
        contexts.push(Arc::new(ListedContext { context, entries, tree, hashes }));
        Ok(number)
    }

    /// A context by its number.
    pub(crate) fn context(&self, number: usize) -> Arc<ListedContext> {
        self.contexts.read().unwrap_or_else(PoisonError::into_inner)[number].clone()
    }

    /// All contexts so far, by their numbers.
    pub(crate) fn contexts(&self) -> Vec<Arc<ListedContext>> {
        self.contexts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers what was learned of the contents of files, for the next build.
    pub(crate) fn save_hashes(&self) {
        self.contexts().iter().for_each(|listed| listed.hashes.save(&listed.entries));
    }

    /// Makes a layer known by its `diff_id`, which is what the config of its image says: before the layer
    /// is read, that has to be verified.
    pub(crate) fn add_layer(&self, diff_id: Digest, descriptor: Descriptor) {
        self.layers.write().unwrap_or_else(PoisonError::into_inner).insert(diff_id, descriptor);
    }

    /// The blob of a layer that was made known.
    pub(crate) fn layer(&self, diff_id: Digest) -> Option<Descriptor> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner).get(&diff_id).cloned()
    }

    /// Opens an archive, decompressed.
    ///
    /// # Errors
    /// `NotFound` for a layer that is not in the store; those of reading.
    pub(crate) fn open_stream(&self, stream: Stream) -> Result<Box<dyn Read + Send>> {
        match stream {
            Stream::Layer(diff_id) => {
                let Some(descriptor) = self.layer(diff_id) else {
                    return Err(Error::new(
                        ErrorKind::NotFound,
                        format!("the layer `{diff_id}` is not known"),
                    ));
                };
                self.store.open_layer(&descriptor.digest)
            }
            Stream::Archive { context, entry } => {
                let listed = self.context(context);
                let (context, entry) = listed.entry(entry);
                let content = BufReader::with_capacity(128 << 10, context.open(entry)?);
                let shown = format!("the archive `{}`", entry.path);
                let plain = decompress(content).map_err(|error| {
                    archive::recover(error, |error| {
                        Error::new(ErrorKind::BuildFailed, format!("{shown} cannot be read"))
                            .with_source(error)
                    })
                })?;
                Ok(Box::new(self.store.unpack_limit().enforce(plain, shown)))
            }
        }
    }

    /// Reads a small file.
    ///
    /// # Errors
    /// `BuildFailed` if it is larger than `limit_bytes`; those of reading.
    pub(crate) fn read_small(&self, content: Content, limit_bytes: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = |reader: &mut dyn Read, bytes: &mut Vec<u8>| {
            let result = reader.take(limit_bytes + 1).read_to_end(bytes);
            result.map_err(|error| {
                archive::recover(error, |error| {
                    Error::new(ErrorKind::Corrupt, "a file cannot be read").with_source(error)
                })
            })
        };
        match content {
            Content::Entry { context, entry } => {
                let listed = self.context(context);
                let (context, entry) = listed.entry(entry);
                read(&mut context.open(entry)?, &mut bytes)?;
            }
            Content::Member { stream, member } => {
                let mut reader = TarReader::new(self.open_stream(stream)?);
                let mut number = 0;
                while let Some(mut next) = reader.next_member()? {
                    if number == member {
                        read(&mut next, &mut bytes)?;
                        break;
                    }
                    number += 1;
                }
            }
        }
        if bytes.len() as u64 > limit_bytes {
            return Err(Error::new(
                ErrorKind::BuildFailed,
                format!("a file has more than {limit_bytes} bytes"),
            ));
        }
        Ok(bytes)
    }

    /// What is in an archive of a context. One that was read before is not read again.
    ///
    /// # Errors
    /// Those of reading the entry; `Corrupt` for a damaged archive; `Cancelled`.
    pub(crate) fn archive_members(&self, context: usize, entry: usize, job: &Job) -> Result<Vec<TarEntry>> {
        let listed = self.context(context);
        // Its hash is wanted for the layer anyway.
        listed.hashes.complete(&listed.context, &listed.entries, &[entry], job)?;
        let hash = listed.hashes.get(entry);
        if let Some(members) = hash.and_then(|hash| self.store.archive_index(&hash)) {
            return Ok(members);
        }
        let mut reader = TarReader::new(self.open_stream(Stream::Archive { context, entry })?);
        let mut members = Vec::new();
        while let Some(member) = reader.next_member()? {
            members.push(member.entry);
            job.check()?;
        }
        if let Some(hash) = hash {
            // What is not kept is read again.
            let _ = self.store.keep_archive_index(&hash, members.clone());
        }
        Ok(members)
    }

    /// Says whether an entry is a tar archive, in any compression: whether it begins with a header
    /// whose checksum is right. ADD unpacks only those.
    ///
    /// # Errors
    /// Those of reading the entry.
    pub(crate) fn is_archive(&self, context: usize, entry: usize) -> Result<bool> {
        let listed = self.context(context);
        if listed.hashes.get(entry).is_some_and(|hash| self.store.archive_index(&hash).is_some()) {
            return Ok(true);
        }
        let (context, entry) = listed.entry(entry);
        let Ok(reader) = decompress(BufReader::new(context.open(entry)?)) else { return Ok(false) };
        let mut head = Vec::with_capacity(HEAD_BYTES);
        // What breaks off is no archive; what cannot be read will say so when it is copied.
        let complete =
            reader.take(HEAD_BYTES as u64).read_to_end(&mut head).is_ok() && head.len() == HEAD_BYTES;
        Ok(complete && is_tar_header(&head))
    }
}

fn is_tar_header(head: &[u8]) -> bool {
    let digits = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
    };
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    digits(&head[148..156]) == Some(sum(&head[..148]) + 8 * u64::from(b' ') + sum(&head[156..]))
}

/// The entries of a context as a tree. Files that are one file on disk become hard links.
fn tree_of(entries: &[Entry], context: usize) -> Tree {
    let mut tree = Tree::default();
    // All of the state counts: some network file systems give two files one number.
    let mut seen: HashMap<DiskState, usize> = HashMap::with_capacity(entries.len());
    for (number, entry) in entries.iter().enumerate() {
        let kind = match &entry.kind {
            EntryKind::Directory => NodeKind::Directory,
            EntryKind::Symlink { target } => NodeKind::Symlink { target: target.clone() },
            EntryKind::File { size_bytes } => {
                let first = match &entry.source {
                    EntrySource::Disk(state) => *seen.entry(*state).or_insert(number),
                    EntrySource::Memory(_) => number,
                };
                NodeKind::File { size_bytes: *size_bytes, content: Content::Entry { context, entry: first } }
            }
        };
        let node =
            Node { kind, mode: entry.mode, uid: 0, gid: 0, mtime: entry.mtime, xattrs: BTreeMap::new() };
        tree.insert(entry.path.as_bytes().to_vec(), node);
    }
    tree
}

#[cfg(test)]
mod tests {
    use windlass_core::context::ContextPath;

    use super::*;

    #[test]
    fn one_file_has_one_state_and_not_only_one_number() {
        let entry = |name: &str, mtime_ns: i64| {
            let state = DiskState { size_bytes: 1, mtime_ns, ctime_ns: 7, inode: 5, device: 3 };
            Entry {
                path: ContextPath::from_clean(name),
                kind: EntryKind::File { size_bytes: 1 },
                mode: 0o644,
                mtime: 0,
                source: EntrySource::Disk(state),
            }
        };
        let tree = tree_of(&[entry("a", 1), entry("b", 1), entry("c", 2)], 0);
        let content = |name: &[u8]| match tree.get(name).expect("there").kind {
            NodeKind::File { content, .. } => content,
            _ => panic!("a file"),
        };
        assert_eq!(content(b"a"), content(b"b"));
        assert_ne!(content(b"a"), content(b"c"));
    }
}

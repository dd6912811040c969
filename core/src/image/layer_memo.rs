//! Layers that were made before: a layer that would come out the same is not made again.
//!
//! A layer is known by its shape, which is everything about it but the content of files that have
//! to be read for it, and by the hashes of those contents. There is one file a shape, so that a
//! layer whose shape is new is known to be new before anything is read.
//!
//! File: a magic line; records (key, `diff_id`, digest, size, media type), the newest first; and the
//! sha256 of all that. One that is damaged counts as none.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use super::documents::Descriptor;
use super::layer_index::LayerIndex;
use super::sealed::{seal, unseal};
use super::store::ImageStore;
use crate::archive::{Compression, TarEntry};
use crate::digest::{Digest, DigestWriter};
use crate::error::Result;
use crate::fingerprint::StableHasher;

/// Goes up when the same entries come to make another layer: with every change of the tar writer
/// or of a compressor that shows in the bytes. The version of windlass counts as well.
const LAYERS_VERSION: &str = concat!("windlass layer 2 ", env!("CARGO_PKG_VERSION"));
const MAGIC: &[u8] = b"windlass layer memo 1\n";
/// So many layers of one shape are remembered: as many as branches that somebody changes between.
const MOST_RECORDS: usize = 16;

/// Where the content of a member of a layer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberContent {
    /// It has none.
    None,
    /// A file that has to be read for it.
    Read,
    /// A member of a layer, by the `diff_id` of that.
    Layer(Digest, u64),
    /// A member of an archive, which is the nth that has to be read.
    Archive(usize, u64),
}

/// Everything about a layer but the contents that have to be read for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LayerShape(Digest);

/// What a layer is made of, down to the contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LayerKey(Digest);

/// A layer that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerMemo {
    /// What it was made of.
    pub key: LayerKey,
    /// The digest of the uncompressed layer.
    pub diff_id: Digest,
    /// The blob.
    pub descriptor: Descriptor,
}

impl LayerShape {
    /// The shape of the layer with these members, in this order.
    pub fn of<'a>(
        compression: Compression,
        members: impl IntoIterator<Item = (&'a TarEntry, MemberContent)>,
    ) -> Self {
        let mut hasher = StableHasher::new(LAYERS_VERSION);
        hasher.bytes(compression_name(compression).as_bytes());
        let mut bytes = Vec::new();
        for (entry, content) in members {
            bytes.clear();
            super::layer_index::put_entry(&mut bytes, entry);
            hasher.bytes(&bytes);
            match content {
                MemberContent::None => hasher.number(0),
                MemberContent::Read => hasher.number(1),
                MemberContent::Layer(diff_id, member) => {
                    hasher.bytes(diff_id.as_bytes());
                    hasher.number(member);
                }
                MemberContent::Archive(archive, member) => {
                    hasher.list(archive);
                    hasher.number(member);
                }
            }
        }
        Self(hasher.finish())
    }

    /// The shape of a layer that is another one in this compression.
    pub fn recompressed(compression: Compression, diff_id: Digest) -> Self {
        let mut hasher = StableHasher::new("windlass recompressed layer 1");
        hasher.bytes(LAYERS_VERSION.as_bytes());
        hasher.bytes(compression_name(compression).as_bytes());
        hasher.bytes(diff_id.as_bytes());
        Self(hasher.finish())
    }

    /// The key of a layer of this shape with these contents, in the order in which they are read.
    pub fn with_contents(&self, contents: impl IntoIterator<Item = Digest>) -> LayerKey {
        let mut hasher = StableHasher::new("windlass layer contents 1");
        hasher.bytes(self.0.as_bytes());
        contents.into_iter().for_each(|content| hasher.bytes(content.as_bytes()));
        LayerKey(hasher.finish())
    }
}

fn compression_name(compression: Compression) -> String {
    match compression {
        Compression::None => "none".to_owned(),
        Compression::Gzip { level } => format!("gzip {level}"),
        Compression::Zstd { level } => format!("zstd {level}"),
    }
}

impl ImageStore {
    /// The layers of a shape that were made before, the newest first. Their blobs need not be in the
    /// store any more.
    pub fn layer_memos(&self, shape: &LayerShape) -> Vec<LayerMemo> {
        fs::read(self.memo_path(shape)).ok().and_then(|bytes| from_bytes(&bytes)).unwrap_or_default()
    }

    /// Remembers a layer.
    ///
    /// # Errors
    /// `LocalIo` if the disk refuses.
    pub fn remember_layer(&self, shape: &LayerShape, memo: LayerMemo) -> Result<()> {
        let mut memos = self.layer_memos(shape);
        memos.retain(|known| known.key != memo.key);
        memos.insert(0, memo);
        memos.truncate(MOST_RECORDS);
        self.write_hint(self.memo_path(shape), &to_bytes(&memos))
    }

    /// Keeps the list of what is in a layer that was just made, so that nobody has to read it.
    ///
    /// # Errors
    /// `LocalIo` if the disk refuses.
    pub fn keep_layer_index(&self, layer: &Digest, index: &LayerIndex) -> Result<()> {
        self.write_hint(self.index_path(layer), &index.to_bytes())
    }

    /// What is in an archive that is no layer, by the digest of its file, if somebody kept it.
    pub fn archive_index(&self, archive: &Digest) -> Option<Vec<TarEntry>> {
        self.kept_layer_index(archive, *archive).map(|index| index.members)
    }

    /// Keeps the list of what is in an archive that is no layer.
    ///
    /// # Errors
    /// `LocalIo` if the disk refuses.
    pub fn keep_archive_index(&self, archive: &Digest, members: Vec<TarEntry>) -> Result<()> {
        self.keep_layer_index(archive, &LayerIndex { diff_id: *archive, members })
    }

    /// Says whether a blob is there in its full length. One of another length is read to see who is
    /// wrong, and taken out if it is damaged.
    pub fn has_whole(&self, blob: &Descriptor) -> bool {
        let Ok(metadata) = fs::metadata(self.path(&blob.digest)) else { return false };
        if metadata.len() == blob.size_bytes {
            return self.has(&blob.digest);
        }
        let mut hasher = DigestWriter::new(io::sink());
        let read =
            fs::File::open(self.path(&blob.digest)).and_then(|mut file| io::copy(&mut file, &mut hasher));
        if read.is_ok() && hasher.finish().1 != blob.digest {
            let _ = fs::remove_file(self.path(&blob.digest));
        }
        false
    }

    /// Forgets the layers that are neither in the store nor known to be at a registry.
    pub(super) fn sweep_memos(&self, cutoff: SystemTime) -> io::Result<()> {
        let entries = match fs::read_dir(self.memo_dir()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.metadata()?.modified()? >= cutoff {
                continue;
            }
            let memos = fs::read(entry.path()).ok().and_then(|bytes| from_bytes(&bytes)).unwrap_or_default();
            let somewhere = |digest: &Digest| self.path(digest).exists() || !self.origins(digest).is_empty();
            if !memos.iter().any(|memo| somewhere(&memo.descriptor.digest)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn memo_dir(&self) -> PathBuf {
        self.dir().join("memos")
    }

    fn memo_path(&self, shape: &LayerShape) -> PathBuf {
        self.memo_dir().join(shape.0.hex())
    }
}

fn to_bytes(memos: &[LayerMemo]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for memo in memos {
        bytes.extend_from_slice(memo.key.0.as_bytes());
        bytes.extend_from_slice(memo.diff_id.as_bytes());
        bytes.extend_from_slice(memo.descriptor.digest.as_bytes());
        bytes.extend_from_slice(&memo.descriptor.size_bytes.to_le_bytes());
        bytes.extend_from_slice(&(memo.descriptor.media_type.len() as u64).to_le_bytes());
        bytes.extend_from_slice(memo.descriptor.media_type.as_bytes());
    }
    seal(bytes)
}

fn from_bytes(bytes: &[u8]) -> Option<Vec<LayerMemo>> {
    let mut rest = unseal(MAGIC, bytes)?;
    let mut memos = Vec::new();
    while !rest.is_empty() {
        let mut digest = || Some(Digest::from_bytes(*rest.split_off(..32)?.first_chunk()?));
        let (key, diff_id, blob) = (LayerKey(digest()?), digest()?, digest()?);
        let mut number = || Some(u64::from_le_bytes(*rest.split_off(..8)?.first_chunk()?));
        let (size_bytes, length) = (number()?, usize::try_from(number()?).ok()?);
        let media_type = str::from_utf8(rest.split_off(..length)?).ok()?;
        memos.push(LayerMemo { key, diff_id, descriptor: Descriptor::new(media_type, blob, size_bytes) });
    }
    Some(memos)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::archive::TarKind;
    use crate::image::media_type;

    fn file(path: &str) -> TarEntry {
        TarEntry::new(path, TarKind::File { size_bytes: 1 }, 0o644)
    }

    fn shape(entry: &TarEntry, content: MemberContent) -> LayerShape {
        LayerShape::of(Compression::gzip(), [(entry, content)])
    }

    #[test]
    fn everything_that_shows_in_a_layer_changes_its_shape() {
        let plain = file("a");
        let base = shape(&plain, MemberContent::Read);
        assert_eq!(base, shape(&plain, MemberContent::Read));
        let mut others = vec![shape(&file("b"), MemberContent::Read)];
        let change = |change: &dyn Fn(&mut TarEntry)| {
            let mut entry = plain.clone();
            change(&mut entry);
            shape(&entry, MemberContent::Read)
        };
        others.push(change(&|entry| entry.mode = 0o600));
        others.push(change(&|entry| entry.uid = 1));
        others.push(change(&|entry| entry.gid = 1));
        others.push(change(&|entry| entry.mtime = 1));
        others.push(change(&|entry| entry.kind = TarKind::File { size_bytes: 2 }));
        others.push(change(&|entry| entry.kind = TarKind::Fifo));
        others.push(change(&|entry| drop(entry.xattrs.insert(b"user.a".to_vec(), b"1".to_vec()))));
        let zstd = Compression::zstd();
        others.push(LayerShape::of(zstd, [(&plain, MemberContent::Read)]));
        let level = Compression::gzip().with_level(9).expect("a level");
        others.push(LayerShape::of(level, [(&plain, MemberContent::Read)]));
        let layer = Digest::of(b"layer");
        for content in [
            MemberContent::None,
            MemberContent::Layer(layer, 0),
            MemberContent::Layer(layer, 1),
            MemberContent::Layer(Digest::of(b"other"), 0),
            MemberContent::Archive(0, 0),
            MemberContent::Archive(1, 0),
            MemberContent::Archive(0, 1),
        ] {
            others.push(shape(&plain, content));
        }
        let count = others.len();
        assert!(!others.contains(&base));
        assert_eq!(others.into_iter().collect::<BTreeSet<_>>().len(), count);
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_ne!(base.with_contents([a, b]), base.with_contents([b, a]));
    }

    #[test]
    fn layers_are_remembered_until_they_are_nowhere() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = ImageStore::open(dir.path()).expect("store");
        let shape = shape(&file("a"), MemberContent::Read);
        let memo = |content: &[u8]| LayerMemo {
            key: shape.with_contents([Digest::of(content)]),
            diff_id: Digest::of(b"diff"),
            descriptor: Descriptor::of(media_type::OCI_LAYER_GZIP, content),
        };
        assert_eq!(store.layer_memos(&shape), []);
        for content in [b"1", b"2", b"1"] {
            store.remember_layer(&shape, memo(content)).expect("remembered");
        }
        assert_eq!(store.layer_memos(&shape), [memo(b"1"), memo(b"2")]);
        for number in 0..40_u8 {
            store.remember_layer(&shape, memo(&[number])).expect("remembered");
        }
        assert_eq!(store.layer_memos(&shape).len(), MOST_RECORDS);

        store.put_as(media_type::OCI_LAYER_GZIP, &[39]).expect("put");
        let later = SystemTime::now() + std::time::Duration::from_secs(60);
        store.sweep_memos(later).expect("swept");
        assert_eq!(store.layer_memos(&shape).len(), MOST_RECORDS);
        fs::remove_file(store.path(&Digest::of([39]))).expect("removed");
        store.sweep_memos(SystemTime::UNIX_EPOCH).expect("all are new");
        assert_eq!(store.layer_memos(&shape).len(), MOST_RECORDS);
        store.sweep_memos(later).expect("swept");
        assert_eq!(store.layer_memos(&shape), []);
    }

    #[test]
    fn a_damaged_memo_counts_as_none() {
        let memo = LayerMemo {
            key: LayerKey(Digest::of(b"key")),
            diff_id: Digest::of(b"diff"),
            descriptor: Descriptor::of(media_type::OCI_LAYER_GZIP, b"content"),
        };
        let bytes = to_bytes(std::slice::from_ref(&memo));
        assert_eq!(from_bytes(&bytes), Some(vec![memo]));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(from_bytes(&damaged), None, "byte {at}");
        }
        assert_eq!(from_bytes(&bytes[..bytes.len() - 1]), None);
        assert_eq!(from_bytes(b""), None);
    }

    #[test]
    fn what_is_in_an_archive_is_kept_by_its_own_digest() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = ImageStore::open(dir.path()).expect("store");
        let archive = Digest::of(b"archive");
        assert_eq!(store.archive_index(&archive), None);
        store.keep_archive_index(&archive, vec![file("a")]).expect("kept");
        assert_eq!(store.archive_index(&archive), Some(vec![file("a")]));
        assert!(!store.has_layer_index(&archive, Digest::of(b"diff")));
    }

    #[test]
    fn a_blob_of_another_length_is_none() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = ImageStore::open(dir.path()).expect("store");
        let blob = store.put_as("text/plain", b"hello").expect("put");
        assert!(store.has_whole(&blob));
        // It is sound: the descriptor is wrong.
        assert!(!store.has_whole(&Descriptor { size_bytes: 4, ..blob.clone() }) && store.has(&blob.digest));
        fs::remove_file(store.path(&blob.digest)).expect("removed");
        assert!(!store.has_whole(&blob));
        for damaged in [&b"hel"[..], b"hello!"] {
            fs::write(store.path(&blob.digest), damaged).expect("damaged");
            assert!(!store.has_whole(&blob) && !store.has(&blob.digest));
        }
    }

    #[test]
    fn each_recompressed_layer_has_its_own_memory() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = ImageStore::open(dir.path()).expect("store");
        let blob = store.put_as("text/plain", b"hello").expect("put");
        let shape = |number: u8| LayerShape::recompressed(Compression::gzip(), Digest::of([number]));
        // More than one shape would hold.
        for number in 0..=MOST_RECORDS as u8 {
            let key = shape(number).with_contents([]);
            let memo = LayerMemo { key, diff_id: Digest::of([number]), descriptor: blob.clone() };
            store.remember_layer(&shape(number), memo).expect("remembered");
        }
        assert_eq!(store.layer_memos(&shape(0)).len(), 1);
    }
}

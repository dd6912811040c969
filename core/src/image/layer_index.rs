//! What is in a layer, without its content; kept in the store, so that a layer is read once.
//!
//! File: a magic line, the `diff_id`, the members (numbers as LEB128, byte strings with their
//! length before them), and the sha256 of all that. One that is damaged is made again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use super::documents::Descriptor;
use super::sealed::{seal, unseal};
use super::store::ImageStore;
use crate::archive::unpack::TarReader;
use crate::archive::{TarEntry, TarKind, decompress};
use crate::backend::Job;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result, ResultExt};

/// A layer of a million files needs a third of it.
const MEMBERS_LIMIT_BYTES: usize = 512 << 20;
const MAGIC: &[u8] = b"windlass layer index 1\n";

/// What is in a layer, in the order of the archive. Whiteouts are members like others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerIndex {
    /// The digest of the uncompressed layer.
    pub diff_id: Digest,
    /// The members. The position of one counts from 0, and is what its content is found by.
    pub members: Vec<TarEntry>,
}

impl LayerIndex {
    /// Reads an uncompressed layer to its end.
    ///
    /// # Errors
    /// `Corrupt` for an archive that is damaged, leads out of its root, or has so many members
    /// that it can only be meant to fill the memory; `Cancelled`.
    pub fn read(layer: impl Read, job: &Job) -> Result<Self> {
        Self::read_within(MEMBERS_LIMIT_BYTES, layer, job)
    }

    fn read_within(limit_bytes: usize, layer: impl Read, job: &Job) -> Result<Self> {
        let mut reader = Hashing { inner: layer, hasher: Sha256::new() };
        let mut members = Vec::new();
        let mut members_bytes = 0;
        let mut archive = TarReader::new(&mut reader);
        while let Some(member) = archive.next_member()? {
            members_bytes += size_in_memory(&member.entry);
            if members_bytes > limit_bytes {
                let why = format!("the list of its members is larger than {limit_bytes} bytes");
                return Err(unreadable(why.into()));
            }
            members.push(member.entry);
            job.check()?;
        }
        // What stands behind the end of the archive counts for the digest as well.
        io::copy(&mut reader, &mut io::sink())
            .map_err(|error| crate::archive::recover(error, |error| unreadable(error.into())))?;
        Ok(Self { diff_id: Digest::from_bytes(reader.hasher.finalize().into()), members })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAGIC.len() + 64 + self.members.len() * 64);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(self.diff_id.as_bytes());
        put_number(&mut bytes, self.members.len() as u64);
        for entry in &self.members {
            put_entry(&mut bytes, entry);
        }
        seal(bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = unseal(MAGIC, bytes)?;
        let (diff_id, members) = rest.split_first_chunk::<32>()?;
        rest = members;
        let count = take_number(&mut rest)?;
        let members = (0..count).map(|_| take_entry(&mut rest)).collect::<Option<Vec<_>>>()?;
        rest.is_empty().then(|| Self { diff_id: Digest::from_bytes(*diff_id), members })
    }
}

impl ImageStore {
    /// Says what is in a layer: from an earlier reading of it, else by reading it, which takes the
    /// layer to be in the store. Blocks.
    ///
    /// # Errors
    /// `NotFound` if it was never read and is not in the store; `Corrupt` if its uncompressed bytes
    /// are not those of `diff_id`, or are no archive; `Cancelled`.
    pub fn layer_index(&self, layer: &Descriptor, diff_id: Digest, job: &Job) -> Result<LayerIndex> {
        if let Some(index) = self.kept_layer_index(&layer.digest, diff_id) {
            return Ok(index);
        }
        let index = LayerIndex::read(self.open_layer(&layer.digest)?, job)
            .map_err(|error| error.with_detail("layer", layer.digest.to_string()))?;
        if index.diff_id != diff_id {
            let message = format!("the layer `{}` is not what the image config says", layer.digest);
            return Err(Error::new(ErrorKind::Corrupt, message)
                .with_detail("expected diff_id", diff_id.to_string())
                .with_detail("found", index.diff_id.to_string()));
        }
        self.write_hint(self.index_path(&layer.digest), &index.to_bytes())?;
        Ok(index)
    }

    /// Says whether [`ImageStore::layer_index`] will do without the layer.
    pub fn has_layer_index(&self, layer: &Digest, diff_id: Digest) -> bool {
        self.kept_layer_index(layer, diff_id).is_some()
    }

    /// What an earlier reading left, if it is whole.
    pub(super) fn kept_layer_index(&self, layer: &Digest, diff_id: Digest) -> Option<LayerIndex> {
        let index = LayerIndex::from_bytes(&fs::read(self.index_path(layer)).ok()?)?;
        Some(index).filter(|index| index.diff_id == diff_id)
    }

    /// Opens a layer, uncompressed. Reading more of it than the store's limit allows fails.
    ///
    /// # Errors
    /// `NotFound` if it is not in the store.
    pub fn open_layer(&self, layer: &Digest) -> Result<Box<dyn Read + Send>> {
        let file = io::BufReader::with_capacity(256 * 1024, self.open_blob(layer)?);
        let shown = format!("the layer `{layer}`");
        let plain = decompress(file).or_error(ErrorKind::Corrupt, || format!("could not read {shown}"))?;
        Ok(Box::new(self.unpack_limit().enforce(plain, shown)))
    }

    pub(super) fn index_path(&self, layer: &Digest) -> PathBuf {
        self.dir().join("indexes").join(layer.hex())
    }
}

fn size_in_memory(entry: &TarEntry) -> usize {
    let target = match &entry.kind {
        TarKind::Symlink { target } | TarKind::HardLink { target } => target.len(),
        _ => 0,
    };
    let xattrs = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    size_of::<TarEntry>() + entry.path.len() + target + xattrs
}

fn unreadable(source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::new(ErrorKind::Corrupt, "the layer cannot be read").with_source(source)
}

/// Hashes what is read through it.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

pub(super) fn put_entry(bytes: &mut Vec<u8>, entry: &TarEntry) {
    put_bytes(bytes, &entry.path);
    let numbers: &[u64] = match &entry.kind {
        TarKind::Directory => &[0],
        TarKind::File { size_bytes } => &[1, *size_bytes],
        TarKind::Symlink { .. } => &[2],
        TarKind::HardLink { .. } => &[3],
        TarKind::CharDevice { major, minor } => &[4, u64::from(*major), u64::from(*minor)],
        TarKind::BlockDevice { major, minor } => &[5, u64::from(*major), u64::from(*minor)],
        TarKind::Fifo => &[6],
    };
    numbers.iter().for_each(|number| put_number(bytes, *number));
    if let TarKind::Symlink { target } | TarKind::HardLink { target } = &entry.kind {
        put_bytes(bytes, target);
    }
    for number in [u64::from(entry.mode), entry.uid, entry.gid, entry.mtime.cast_unsigned()] {
        put_number(bytes, number);
    }
    put_number(bytes, entry.xattrs.len() as u64);
    for (name, value) in &entry.xattrs {
        put_bytes(bytes, name);
        put_bytes(bytes, value);
    }
}

fn take_entry(rest: &mut &[u8]) -> Option<TarEntry> {
    let path = take_bytes(rest)?;
    let small = |rest: &mut &[u8]| u32::try_from(take_number(rest)?).ok();
    let kind = match take_number(rest)? {
        0 => TarKind::Directory,
        1 => TarKind::File { size_bytes: take_number(rest)? },
        2 => TarKind::Symlink { target: take_bytes(rest)? },
        3 => TarKind::HardLink { target: take_bytes(rest)? },
        4 => TarKind::CharDevice { major: small(rest)?, minor: small(rest)? },
        5 => TarKind::BlockDevice { major: small(rest)?, minor: small(rest)? },
        6 => TarKind::Fifo,
        _ => return None,
    };
    let mode = small(rest)?;
    let (uid, gid) = (take_number(rest)?, take_number(rest)?);
    let mtime = take_number(rest)?.cast_signed();
    let mut xattrs = BTreeMap::new();
    for _ in 0..take_number(rest)? {
        xattrs.insert(take_bytes(rest)?, take_bytes(rest)?);
    }
    Some(TarEntry { path, kind, mode, uid, gid, mtime, xattrs })
}

fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn put_bytes(bytes: &mut Vec<u8>, content: &[u8]) {
    put_number(bytes, content.len() as u64);
    bytes.extend_from_slice(content);
}

fn take_bytes(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(take_number(rest)?).ok()?;
    let (content, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(content.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::TarWriter;
    use crate::image::media_type;

    fn entries() -> Vec<TarEntry> {
        let kinds = [
            TarKind::Directory,
            TarKind::File { size_bytes: 0 },
            TarKind::Symlink { target: b"../x".to_vec() },
            TarKind::HardLink { target: b"e1".to_vec() },
            TarKind::CharDevice { major: 5, minor: 1 },
            TarKind::BlockDevice { major: 300, minor: 2 },
            TarKind::Fifo,
        ];
        let mut entries: Vec<TarEntry> = kinds
            .into_iter()
            .enumerate()
            .map(|(n, kind)| TarEntry::new(format!("e{n}"), kind, 0o4755))
            .collect();
        entries[1].mtime = -1;
        (entries[1].uid, entries[1].gid) = (100_000, u64::from(u32::MAX));
        entries[1].xattrs.insert(b"user.a".to_vec(), vec![0, 255]);
        entries
    }

    fn layer(entries: &[TarEntry]) -> Vec<u8> {
        let mut tar = TarWriter::new(Vec::new());
        entries.iter().for_each(|entry| tar.append_bytes(entry, b"").expect("in memory"));
        tar.finish().expect("in memory")
    }

    #[test]
    fn every_kind_of_member_survives() {
        let bytes = layer(&entries());
        let index = LayerIndex::read(&bytes[..], &Job::silent()).expect("readable");
        assert_eq!(index.diff_id, Digest::of(&bytes));
        assert_eq!(index.members, entries());
        let kept = index.to_bytes();
        assert_eq!(LayerIndex::from_bytes(&kept), Some(index));
        for at in [0, MAGIC.len() + 1, kept.len() / 2, kept.len() - 1] {
            let mut damaged = kept.clone();
            damaged[at] ^= 1;
            assert_eq!(LayerIndex::from_bytes(&damaged), None, "byte {at}");
        }
        assert_eq!(LayerIndex::from_bytes(&kept[..kept.len() - 1]), None);
    }

    #[test]
    fn the_list_of_members_is_bounded() {
        let bytes = layer(&entries());
        let needed = entries().iter().map(size_in_memory).sum();
        assert!(LayerIndex::read_within(needed, &bytes[..], &Job::silent()).is_ok());
        let error = LayerIndex::read_within(needed - 1, &bytes[..], &Job::silent()).expect_err("too many");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_layer_is_read_once_and_must_be_what_the_config_says() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = ImageStore::open(dir.path()).expect("store");
        let bytes = layer(&entries());
        let descriptor = store.put_as(media_type::OCI_LAYER, &bytes).expect("put");
        let wrong = store.layer_index(&descriptor, Digest::of(b"other"), &Job::silent());
        assert_eq!(wrong.expect_err("wrong").kind(), ErrorKind::Corrupt);
        let index = store.layer_index(&descriptor, Digest::of(&bytes), &Job::silent()).expect("read");
        fs::remove_file(store.path(&descriptor.digest)).expect("remove");
        assert!(store.has_layer_index(&descriptor.digest, Digest::of(&bytes)));
        assert_eq!(store.layer_index(&descriptor, Digest::of(&bytes), &Job::silent()).expect("kept"), index);
        // A damaged one counts as none, so that the layer is fetched again.
        fs::write(store.index_path(&descriptor.digest), b"damaged").expect("damage");
        assert!(!store.has_layer_index(&descriptor.digest, Digest::of(&bytes)));
    }
}

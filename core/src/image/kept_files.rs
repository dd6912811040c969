//! Small files of layers that were read once, such as `/etc/passwd`: kept, so that a layer need not
//! be fetched again to read them.
//!
//! There is one file a layer: a magic line, the contents (position of the member, length, bytes), and
//! the sha256 of all that. One that is damaged counts as none.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::store::ImageStore;
use crate::digest::Digest;
use crate::error::Result;

/// Larger files are read from their layer each time.
const LARGEST_BYTES: usize = 1 << 20;
const MAGIC: &[u8] = b"windlass kept files 1\n";

impl ImageStore {
    /// The content of a member of a layer, if it was kept.
    pub fn kept_file(&self, layer: &Digest, member: u64) -> Option<Vec<u8>> {
        self.kept_files(layer).remove(&member)
    }

    /// Keeps the content of a member of a layer, unless it is larger than 1 MiB.
    ///
    /// # Errors
    /// `LocalIo` if the disk refuses.
    pub fn keep_file(&self, layer: &Digest, member: u64, content: &[u8]) -> Result<()> {
        if content.len() > LARGEST_BYTES {
            return Ok(());
        }
        let mut files = self.kept_files(layer);
        files.insert(member, content.to_vec());
        self.write_cached(&self.kept_files_path(layer), &to_bytes(&files))
    }

    fn kept_files(&self, layer: &Digest) -> BTreeMap<u64, Vec<u8>> {
        let bytes = fs::read(self.kept_files_path(layer));
        bytes.ok().and_then(|bytes| from_bytes(&bytes)).unwrap_or_default()
    }

    fn kept_files_path(&self, layer: &Digest) -> PathBuf {
        self.dir().join("files").join(layer.hex())
    }
}

fn to_bytes(files: &BTreeMap<u64, Vec<u8>>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for (member, content) in files {
        bytes.extend_from_slice(&member.to_le_bytes());
        bytes.extend_from_slice(&(content.len() as u64).to_le_bytes());
        bytes.extend_from_slice(content);
    }
    let digest = Digest::of(&bytes);
    bytes.extend_from_slice(digest.as_bytes());
    bytes
}

fn from_bytes(bytes: &[u8]) -> Option<BTreeMap<u64, Vec<u8>>> {
    let (body, digest) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if Digest::of(body).as_bytes() != digest {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut files = BTreeMap::new();
    while !rest.is_empty() {
        let mut number = || Some(u64::from_le_bytes(*rest.split_off(..8)?.first_chunk()?));
        let (member, length) = (number()?, usize::try_from(number()?).ok()?);
        files.insert(member, rest.split_off(..length)?.to_vec());
    }
    Some(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_are_kept_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = ImageStore::open(dir.path()).expect("store");
        let layer = Digest::of(b"layer");
        assert_eq!(store.kept_file(&layer, 3), None);
        store.keep_file(&layer, 3, b"root:x:0:0::/:\n").expect("kept");
        store.keep_file(&layer, 5, b"").expect("kept");
        store.keep_file(&layer, 6, &vec![0; LARGEST_BYTES + 1]).expect("left out");
        assert_eq!(store.kept_file(&layer, 3).as_deref(), Some(&b"root:x:0:0::/:\n"[..]));
        assert_eq!(store.kept_file(&layer, 5).as_deref(), Some(&b""[..]));
        assert_eq!((store.kept_file(&layer, 4), store.kept_file(&layer, 6)), (None, None));
        assert_eq!(store.kept_file(&Digest::of(b"other"), 3), None);
        let path = store.kept_files_path(&layer);
        let bytes = fs::read(&path).expect("read");
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            fs::write(&path, damaged).expect("damaged");
            assert_eq!(store.kept_file(&layer, 3), None, "byte {at}");
        }
    }
}

//! The compressed blocks of the layers in the store: a layer that differs from an earlier one in a few
//! files takes the rest from that.
//!
//! File: a magic line; records (key, offset, size, CRC); and the sha256 of all that. One that is
//! damaged counts as none, and so does a block whose checksum is not right.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::sealed::{seal, unseal};
use super::store::ImageStore;
use crate::archive::{BlockCache, BlockRecord};
use crate::digest::Digest;
use crate::error::Result;

/// The version counts: the compressor of another one may make other bytes of the same block.
const MAGIC: &[u8] = concat!("windlass layer blocks 1 ", env!("CARGO_PKG_VERSION"), "\n").as_bytes();
const RECORD_BYTES: usize = 32 + 8 + 4 + 4;
/// So many of the newest layers are looked at: those of a few images that somebody works on.
const MOST_LAYERS: usize = 8;

/// Blocks of layers in the store.
#[derive(Debug, Default)]
struct KeptBlocks {
    blobs: Vec<File>,
    /// The position of the blob, and the block in it.
    blocks: HashMap<Digest, (usize, BlockRecord)>,
}

impl BlockCache for KeptBlocks {
    fn append(&self, key: &Digest, output: &mut Vec<u8>) -> bool {
        let Some((blob, block)) = self.blocks.get(key) else { return false };
        let start = output.len();
        output.resize(start + block.size_bytes as usize, 0);
        let read = self.blobs[*blob].read_exact_at(&mut output[start..], block.offset);
        let is_sound = read.is_ok() && block.is_of(&output[start..]);
        if !is_sound {
            output.truncate(start);
        }
        is_sound
    }
}

impl ImageStore {
    /// The blocks of the newest layers; what cannot be read of them is left out.
    pub fn layer_blocks(&self) -> Arc<dyn BlockCache> {
        let mut found: Vec<(SystemTime, PathBuf)> = fs::read_dir(self.blocks_dir())
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        found.sort_unstable_by(|one, other| other.cmp(one));
        let mut kept = KeptBlocks::default();
        for (_, path) in found.iter().take(MOST_LAYERS) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else { continue };
            let Some(records) = fs::read(path).ok().and_then(|bytes| from_bytes(&bytes)) else { continue };
            let Ok(blob) = File::open(self.path(&digest)) else { continue };
            let number = kept.blobs.len();
            kept.blobs.push(blob);
            kept.blocks.extend(records.into_iter().map(|block| (block.key, (number, block))));
        }
        Arc::new(kept)
    }

    /// Keeps where the blocks of a layer are.
    ///
    /// # Errors
    /// `LocalIo` if the disk refuses.
    pub fn keep_layer_blocks(&self, layer: &Digest, blocks: &[BlockRecord]) -> Result<()> {
        if blocks.is_empty() {
            return Ok(());
        }
        self.write_hint(self.blocks_dir().join(layer.hex()), &to_bytes(blocks))
    }

    fn blocks_dir(&self) -> PathBuf {
        self.dir().join("blocks")
    }
}

fn to_bytes(blocks: &[BlockRecord]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + blocks.len() * RECORD_BYTES + 32);
    bytes.extend_from_slice(MAGIC);
    for block in blocks {
        bytes.extend_from_slice(block.key.as_bytes());
        bytes.extend_from_slice(&block.offset.to_le_bytes());
        bytes.extend_from_slice(&block.size_bytes.to_le_bytes());
        bytes.extend_from_slice(&block.crc.to_le_bytes());
    }
    seal(bytes)
}

fn from_bytes(bytes: &[u8]) -> Option<Vec<BlockRecord>> {
    let (records, []) = unseal(MAGIC, bytes)?.as_chunks::<RECORD_BYTES>() else { return None };
    records.iter().map(|record| read_record(record)).collect()
}

fn read_record(mut record: &[u8]) -> Option<BlockRecord> {
    let key = Digest::from_bytes(*record.split_off(..32)?.first_chunk()?);
    let offset = u64::from_le_bytes(*record.split_off(..8)?.first_chunk()?);
    let size_bytes = u32::from_le_bytes(*record.split_off(..4)?.first_chunk()?);
    let crc = u32::from_le_bytes(*record.first_chunk()?);
    Some(BlockRecord { key, offset, size_bytes, crc })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::archive::{Compression, Compressor};

    fn layer(store: &ImageStore, content: &[u8]) -> (Digest, Vec<BlockRecord>) {
        let blob = store.writer().expect("writer");
        let mut compressor =
            Compressor::with_cache(blob, Compression::gzip(), store.layer_blocks()).expect("starts");
        compressor.write_all(content).expect("writes");
        let (blob, blocks) = compressor.finish_with_blocks().expect("finishes");
        let (digest, _) = blob.commit(None).expect("committed");
        store.keep_layer_blocks(&digest, &blocks).expect("kept");
        (digest, blocks)
    }

    #[test]
    fn blocks_are_given_while_they_are_sound() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = ImageStore::open(dir.path()).expect("store");
        let content: Vec<u8> = (0..80_000).flat_map(|line| format!("line {line}\n").into_bytes()).collect();
        let (digest, blocks) = layer(&store, &content);
        assert!(blocks.len() > 2);
        let mut output = b"before".to_vec();
        assert!(store.layer_blocks().append(&blocks[1].key, &mut output));
        let blob = fs::read(store.path(&digest)).expect("blob");
        let packed = &blob[blocks[1].offset as usize..][..blocks[1].size_bytes as usize];
        assert_eq!(output, [b"before", packed].concat());
        assert!(!store.layer_blocks().append(&Digest::of(b"other"), &mut output));

        let mut damaged = blob.clone();
        damaged[blocks[1].offset as usize + 3] ^= 1;
        fs::set_permissions(store.path(&digest), PermissionsExt::from_mode(0o644)).expect("writable");
        fs::write(store.path(&digest), &damaged).expect("damaged");
        let before = output.clone();
        assert!(!store.layer_blocks().append(&blocks[1].key, &mut output));
        assert!(output == before && store.layer_blocks().append(&blocks[2].key, &mut output));

        fs::remove_file(store.path(&digest)).expect("removed");
        assert!(!store.layer_blocks().append(&blocks[2].key, &mut output));
    }

    #[test]
    fn damaged_records_count_as_none() {
        let block = BlockRecord { key: Digest::of(b"key"), offset: 10, size_bytes: 20, crc: 30 };
        let bytes = to_bytes(&[block, block]);
        assert_eq!(from_bytes(&bytes), Some(vec![block, block]));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(from_bytes(&damaged), None, "byte {at}");
        }
        assert_eq!(from_bytes(b""), None);
    }
}

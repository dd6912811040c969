//! Compressed blocks that were made before: what of an archive did not change is not compressed again.

use std::fmt;

use flate2::Crc;

use crate::digest::Digest;

/// Somebody who may know blocks of a gzip stream from earlier.
///
/// A block is known by a hash of all that its bytes depend on, so an archive has the same bytes
/// with and without a cache.
pub trait BlockCache: Send + Sync + fmt::Debug {
    /// Appends the compressed form of a block, if it is known; else changes nothing and says no.
    fn append(&self, key: &Digest, output: &mut Vec<u8>) -> bool;
}

/// A block of a gzip stream that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRecord {
    /// The hash of all that the block depends on.
    pub key: Digest,
    /// Where its compressed form begins in the stream.
    pub offset: u64,
    /// How long that is.
    pub size_bytes: u32,
    /// The CRC-32 of that.
    pub crc: u32,
}

impl BlockRecord {
    pub(super) fn of(key: Digest, offset: u64, output: &[u8]) -> Self {
        // A block of 256 KiB does not grow to 4 GiB.
        Self { key, offset, size_bytes: output.len() as u32, crc: checksum(output) }
    }

    /// Says whether these are the bytes of the block.
    pub fn is_of(&self, output: &[u8]) -> bool {
        output.len() == self.size_bytes as usize && checksum(output) == self.crc
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

//! Archives: the one tar writer, compression, and reading archives safely.
//!
//! [`pack`] writes a build context as an archive; [`TarWriter`] and [`Compressor`] are what it and
//! the layers of images are made with. Reading is [`decompress`], which finds out the compression
//! by itself, and [`unpack`], which lets no name out of its root.

mod blocks;
mod compress;
mod decompress;
mod deflate;
mod gzip;
mod limit;
mod pack;
mod tar_writer;
mod tree;
pub mod unpack;

pub use blocks::{BlockCache, BlockRecord};
pub use compress::{Compression, Compressor};
pub use decompress::{Format, decompress, decompress_as};
pub use limit::{Limited, UnpackLimit};
pub use pack::{MemberNames, PackSummary, pack, pack_entries};
pub use tar_writer::{TarEntry, TarKind, TarWriter};
use tree::write_error;
pub use tree::{Member, recover, write_tree};

/// 1980-01-01, the modification time in archives where none is chosen. Zip archives hold nothing
/// older, so 1970 would break the building of Python wheels inside an image.
pub const DEFAULT_EPOCH: i64 = 315_532_800;

/// How archives and layers are written, and how much of others' is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchiveSettings {
    /// How they are compressed.
    pub compression: Compression,
    /// What their modification times are.
    pub timestamps: Timestamps,
    /// `SOURCE_DATE_EPOCH`: the time of [`Timestamps::Fixed`]; [`DEFAULT_EPOCH`] if `None`.
    pub source_date_epoch: Option<i64>,
    /// How much an archive of somebody else may hold.
    pub unpack_limit: UnpackLimit,
}

impl ArchiveSettings {
    /// The fixed time of entries, also where single ones are kept.
    pub fn epoch(&self) -> i64 {
        self.source_date_epoch.unwrap_or(DEFAULT_EPOCH)
    }

    /// The modification time that an entry gets which has this one on disk.
    pub fn mtime(&self, on_disk: i64) -> i64 {
        match self.timestamps {
            Timestamps::Fixed => self.epoch(),
            Timestamps::Keep => on_disk,
        }
    }
}

/// What the modification times in an archive are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timestamps {
    /// All the same, so that the archive depends on the content alone.
    #[default]
    Fixed,
    /// Those on disk, in whole seconds, as docker keeps them.
    Keep,
}

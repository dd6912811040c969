//! What a context is made of.

use std::os::unix::fs::MetadataExt;

use bytes::Bytes;

use super::ContextPath;

/// One entry of a context.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where it is in the context.
    pub path: ContextPath,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    /// Modification time on disk, whole seconds since 1970; 0 for entries in memory.
    pub mtime: i64,
    /// Where its content comes from.
    pub source: EntrySource,
}

impl Entry {
    /// The size of its content; 0 for all but files.
    pub fn size_bytes(&self) -> u64 {
        match self.kind {
            EntryKind::File { size_bytes } => size_bytes,
            EntryKind::Directory | EntryKind::Symlink { .. } => 0,
        }
    }

    /// Says whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == EntryKind::Directory
    }

    /// Says whether it is a regular file.
    pub fn is_file(&self) -> bool {
        matches!(self.kind, EntryKind::File { .. })
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its size in bytes when it was listed.
        size_bytes: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points, as it stands in the link.
        target: Vec<u8>,
    },
}

/// Where the content of an entry comes from.
#[derive(Clone, Debug)]
pub enum EntrySource {
    /// Something on disk, under the root of the context, as it was when it was listed.
    Disk(DiskState),
    /// Bytes in memory.
    Memory(Bytes),
}

/// What tells that a file on disk is still the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskState {
    /// Size in bytes.
    pub size_bytes: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Time of the last change of content or attributes, in nanoseconds since 1970. No program
    /// can set it back.
    pub ctime_ns: i64,
    /// The number of the file on its device.
    pub inode: u64,
    /// The device.
    pub device: u64,
}

impl DiskState {
    /// Takes it from what the system says of a file.
    pub fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            size_bytes: metadata.len(),
            mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }
}

/// Good for the years 1677 to 2262; times beyond, which only damage produces, stay distinct.
fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.wrapping_mul(1_000_000_000).wrapping_add(nanoseconds)
}

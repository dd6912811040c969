//! The build context: a virtual tree, seen through the ignore file.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// A path inside a context or an image: bytes, `/` between the parts, none at either end, no
/// `.` or `..` parts. The root is empty. Order is that of the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ContextPath(Vec<u8>);

impl ContextPath {
    /// Takes bytes that follow the rules above.
    pub fn from_clean(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path in the form of the standard library.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }
}

impl fmt::Display for ContextPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

impl fmt::Debug for ContextPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// A build context.
#[derive(Clone, Debug)]
pub struct Context {
    root: Option<PathBuf>,
}

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
    /// A file on disk, under the root of the context.
    Disk,
    /// Bytes in memory.
    Memory(Bytes),
}

//! What is at one path of a file system.

use std::collections::BTreeMap;

use crate::archive::{TarEntry, TarKind};

/// One file, directory, link or device. `C` says where the content of a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node<C> {
    /// What it is.
    pub kind: NodeKind<C>,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    /// The number of its owner.
    pub uid: u64,
    /// The number of its group.
    pub gid: u64,
    /// Modification time, whole seconds since 1970.
    pub mtime: i64,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind<C> {
    /// A directory.
    Directory,
    /// A regular file. Two files with one content are hard links of each other.
    File {
        /// The size of the content.
        size_bytes: u64,
        /// Where it is.
        content: C,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points, as it stands in the link.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

impl<C> Node<C> {
    /// A directory of the super-user, as missing parents are made.
    pub fn directory(mtime: i64) -> Self {
        let (kind, xattrs) = (NodeKind::Directory, BTreeMap::new());
        Self { kind, mode: 0o755, uid: 0, gid: 0, mtime, xattrs }
    }

    /// Says whether it is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, NodeKind::Directory)
    }

    /// The size of its content; 0 for all but files.
    pub fn size_bytes(&self) -> u64 {
        match self.kind {
            NodeKind::File { size_bytes, .. } => size_bytes,
            _ => 0,
        }
    }

    /// The member of an archive that stands for it.
    pub fn to_entry(&self, path: &[u8]) -> TarEntry {
        let kind = match &self.kind {
            NodeKind::Directory => TarKind::Directory,
            NodeKind::File { size_bytes, .. } => TarKind::File { size_bytes: *size_bytes },
            NodeKind::Symlink { target } => TarKind::Symlink { target: target.clone() },
            NodeKind::CharDevice { major, minor } => TarKind::CharDevice { major: *major, minor: *minor },
            NodeKind::BlockDevice { major, minor } => TarKind::BlockDevice { major: *major, minor: *minor },
            NodeKind::Fifo => TarKind::Fifo,
        };
        TarEntry {
            path: path.to_vec(),
            kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            xattrs: self.xattrs.clone(),
        }
    }
}

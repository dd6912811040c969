//! The file system of a stage: core's tree, with our word for where content is.

use windlass_core::archive::TarKind;
use windlass_core::digest::Digest;
use windlass_core::image;

/// The file system of a stage or a context: what is where, not what is in it.
pub(crate) type Tree = image::Tree<Content>;
/// One file, directory, link or device.
pub(crate) type Node = image::Node<Content>;
/// What a node is.
pub(crate) type NodeKind = image::NodeKind<Content>;

/// The permissions that Linux shows for every symbolic link.
pub(crate) const LINK_MODE: u32 = 0o777;

/// Where the content of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Content {
    /// In an entry of a context: the number of the context in [`crate::sources::Sources`], and of
    /// the entry in it.
    Entry { context: usize, entry: usize },
    /// In a member of an archive, which can only be read from its start.
    Member { stream: Stream, member: u64 },
}

/// An archive that members are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stream {
    /// A layer, by its `diff_id`.
    Layer(Digest),
    /// An archive that lies in a context.
    Archive { context: usize, entry: usize },
}

/// The kind that a member of an archive becomes; `None` for a hard link, which has none of its own.
pub(crate) fn kind_of(kind: TarKind, content: Content) -> Option<NodeKind> {
    Some(match kind {
        TarKind::Directory => NodeKind::Directory,
        TarKind::File { size_bytes } => NodeKind::File { size_bytes, content },
        TarKind::Symlink { target } => NodeKind::Symlink { target },
        TarKind::CharDevice { major, minor } => NodeKind::CharDevice { major, minor },
        TarKind::BlockDevice { major, minor } => NodeKind::BlockDevice { major, minor },
        TarKind::Fifo => NodeKind::Fifo,
        TarKind::HardLink { .. } => return None,
    })
}

/// Joins a directory and a name below it.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match (directory.is_empty(), name.is_empty()) {
        (true, _) => name.to_vec(),
        (_, true) => directory.to_vec(),
        _ => [directory, b"/", name].concat(),
    }
}

/// The directory that a path is in.
pub(crate) fn parent(path: &[u8]) -> &[u8] {
    &path[..path.iter().rposition(|byte| *byte == b'/').unwrap_or(0)]
}

/// The last part of a path.
pub(crate) fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

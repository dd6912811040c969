//! The file system of a stage, as a tree in memory: what is where, not what is in it.
//!
//! It answers what COPY and WORKDIR must know of a base: which directories exist, where symbolic
//! links lead, who owns what. Content stays in the layers; a node says where to find it.

use std::collections::BTreeMap;
use std::io::Read;

use windlass_core::archive::unpack::TarReader;
use windlass_core::archive::{TarEntry, TarKind};
use windlass_core::backend::Job;
use windlass_core::digest::Digest;
use windlass_core::error::{Error, ErrorKind, Result};

/// As many links as the kernel and Go's `RootPath` follow before they call it a loop.
const LINK_LIMIT: usize = 255;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// One file, directory, link or device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// What it is.
    pub(crate) kind: NodeKind,
    /// Permission bits, 0 to 0o7777.
    pub(crate) mode: u32,
    /// The number of its owner.
    pub(crate) uid: u64,
    /// The number of its group.
    pub(crate) gid: u64,
    /// Modification time, whole seconds since 1970.
    pub(crate) mtime: i64,
    /// Extended attributes.
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NodeKind {
    /// A directory.
    Directory,
    /// A regular file. Two files with one content are hard links of each other.
    File { size_bytes: u64, content: Content },
    /// A symbolic link.
    Symlink { target: Vec<u8> },
    /// A character device.
    CharDevice { major: u32, minor: u32 },
    /// A block device.
    BlockDevice { major: u32, minor: u32 },
    /// A named pipe.
    Fifo,
}

/// Where the content of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Content {
    /// In an entry of a context: the number of the context in [`crate::sources::Sources`], and of
    /// the entry in it.
    Entry { context: usize, entry: usize },
    /// In a member of an archive, which can only be read from its start.
    Member { stream: Stream, member: u64 },
}

/// An archive that members are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stream {
    /// A layer, by its `diff_id`.
    Layer(Digest),
    /// An archive that lies in a context.
    Archive { context: usize, entry: usize },
}

impl Node {
    /// A directory of the super-user, as parents are made.
    pub(crate) fn directory(mtime: i64) -> Self {
        Self { kind: NodeKind::Directory, mode: 0o755, uid: 0, gid: 0, mtime, xattrs: BTreeMap::new() }
    }

    /// Says whether it is a directory.
    pub(crate) fn is_directory(&self) -> bool {
        self.kind == NodeKind::Directory
    }

    /// The size of its content; 0 for all but files.
    pub(crate) fn size_bytes(&self) -> u64 {
        match self.kind {
            NodeKind::File { size_bytes, .. } => size_bytes,
            _ => 0,
        }
    }

    /// What it is in an archive.
    pub(crate) fn tar_kind(&self) -> TarKind {
        match &self.kind {
            NodeKind::Directory => TarKind::Directory,
            NodeKind::File { size_bytes, .. } => TarKind::File { size_bytes: *size_bytes },
            NodeKind::Symlink { target } => TarKind::Symlink { target: target.clone() },
            NodeKind::CharDevice { major, minor } => TarKind::CharDevice { major: *major, minor: *minor },
            NodeKind::BlockDevice { major, minor } => TarKind::BlockDevice { major: *major, minor: *minor },
            NodeKind::Fifo => TarKind::Fifo,
        }
    }
}

/// A file system: nodes by path. The root is always there, and so is the parent of every node.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    nodes: BTreeMap<Vec<u8>, Node>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: BTreeMap::from([(Vec::new(), Node::directory(0))]) }
    }
}

impl Tree {
    /// The node at a clean path, links not followed.
    pub(crate) fn get(&self, path: &[u8]) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// The nodes below a directory, sorted by path, without the directory itself.
    pub(crate) fn below(&self, directory: &[u8]) -> impl Iterator<Item = (&[u8], &Node)> {
        let prefix = if directory.is_empty() { Vec::new() } else { [directory, b"/"].concat() };
        let start = std::ops::Bound::Excluded(prefix.clone());
        let range = self.nodes.range((start, std::ops::Bound::Unbounded));
        range
            .map(|(path, node)| (path.as_slice(), node))
            .take_while(move |(path, _)| path.starts_with(&prefix))
    }

    /// Puts a node at a path whose parents exist. A directory stays if a directory comes, with all
    /// that is in it; everything else is replaced.
    pub(crate) fn insert(&mut self, path: Vec<u8>, node: Node) {
        if !node.is_directory() && self.get(&path).is_some_and(Node::is_directory) {
            self.remove_below(&path);
        }
        self.nodes.insert(path, node);
    }

    /// Says where the content of a file is from now on; does nothing for all else.
    pub(crate) fn move_content(&mut self, path: &[u8], to: Content) {
        if let Some(Node { kind: NodeKind::File { content, .. }, .. }) = self.nodes.get_mut(path) {
            *content = to;
        }
    }

    fn remove_below(&mut self, path: &[u8]) {
        let below: Vec<Vec<u8>> = self.below(path).map(|(path, _)| path.to_vec()).collect();
        for path in below {
            self.nodes.remove(&path);
        }
    }

    /// Follows all links of a path inside the root, also a last one, as Go's `fs.RootPath` does. What
    /// does not exist is taken as it stands.
    ///
    /// # Errors
    /// `BuildFailed` if links lead in a circle.
    pub(crate) fn resolve(&self, path: &[u8]) -> Result<Vec<u8>> {
        self.resolve_in(b"", path)
    }

    /// As [`Tree::resolve`], with a directory of the tree for the root: no link leads out of it.
    ///
    /// # Errors
    /// As [`Tree::resolve`].
    pub(crate) fn resolve_in(&self, root: &[u8], path: &[u8]) -> Result<Vec<u8>> {
        let mut done: Vec<u8> = Vec::new();
        let mut todo: Vec<Vec<u8>> = reversed_parts(path);
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == b".." {
                done.truncate(done.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                continue;
            }
            let next = join(&done, &part);
            match self.get(&join(root, &next)).map(|node| &node.kind) {
                Some(NodeKind::Symlink { target }) => {
                    links += 1;
                    if links > LINK_LIMIT {
                        let shown = String::from_utf8_lossy(path);
                        return Err(Error::new(
                            ErrorKind::BuildFailed,
                            format!("the links of `/{shown}` lead in a circle"),
                        ));
                    }
                    if target.starts_with(b"/") {
                        done.clear();
                    }
                    todo.extend(reversed_parts(target));
                }
                _ => done = next,
            }
        }
        Ok(join(root, &done))
    }

    /// Follows the links of all parts but the last.
    ///
    /// # Errors
    /// As [`Tree::resolve`].
    pub(crate) fn resolve_parent(&self, path: &[u8]) -> Result<Vec<u8>> {
        match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => Ok(join(&self.resolve(&path[..slash])?, &path[slash + 1..])),
            None => Ok(path.to_vec()),
        }
    }

    /// Lays a layer over the tree: its whiteouts first, then its members.
    ///
    /// # Errors
    /// `Corrupt` for an archive that is damaged or leads out of its root; `Cancelled`.
    pub(crate) fn apply_layer(&mut self, diff_id: Digest, layer: impl Read, job: &Job) -> Result<()> {
        let mut reader = TarReader::new(layer);
        let mut additions = Vec::new();
        let mut member = 0;
        while let Some(next) = reader.next_member()? {
            let entry = next.entry;
            let name = entry.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            if name == OPAQUE {
                let directory = parent(&entry.path).to_vec();
                let directory = self.resolve(&directory)?;
                self.remove_below(&directory);
            } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
                let path = self.resolve_parent(&join(parent(&entry.path), hidden))?;
                self.remove_below(&path);
                self.nodes.remove(&path);
            } else {
                additions.push((entry, member));
            }
            member += 1;
            job.check()?;
        }
        for (entry, member) in additions {
            self.add(entry, Content::Member { stream: Stream::Layer(diff_id), member })?;
        }
        Ok(())
    }

    fn add(&mut self, entry: TarEntry, content: Content) -> Result<()> {
        let path = self.resolve_parent(&entry.path)?;
        self.add_parents(&path)?;
        let kind = match entry.kind {
            TarKind::HardLink { target } => {
                let target = self.resolve_parent(&target)?;
                let Some(node) = self.get(&target).filter(|node| !node.is_directory()).cloned() else {
                    let shown = String::from_utf8_lossy(&entry.path);
                    return Err(Error::new(
                        ErrorKind::Corrupt,
                        format!("the hard link `{shown}` of a layer has no target"),
                    ));
                };
                self.insert(path, node);
                return Ok(());
            }
            other => NodeKind::of(other, content),
        };
        let TarEntry { mode, uid, gid, mtime, xattrs, .. } = entry;
        self.insert(path, Node { kind, mode, uid, gid, mtime, xattrs });
        Ok(())
    }

    /// Makes the parents that a layer leaves out, as every reader of layers does.
    fn add_parents(&mut self, path: &[u8]) -> Result<()> {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for parent in slashes.map(|at| &path[..at]) {
            match self.get(parent) {
                None => self.insert(parent.to_vec(), Node::directory(0)),
                Some(node) if node.is_directory() => {}
                Some(_) => {
                    let (path, parent) = (String::from_utf8_lossy(path), String::from_utf8_lossy(parent));
                    let message = format!("a layer has `{path}` although `{parent}` is no directory");
                    return Err(Error::new(ErrorKind::Corrupt, message));
                }
            }
        }
        Ok(())
    }
}

impl NodeKind {
    /// The kind that an archive gives; a hard link has none of its own.
    pub(crate) fn of(kind: TarKind, content: Content) -> Self {
        match kind {
            TarKind::Directory => Self::Directory,
            TarKind::File { size_bytes } => Self::File { size_bytes, content },
            TarKind::HardLink { .. } => Self::File { size_bytes: 0, content },
            TarKind::Symlink { target } => Self::Symlink { target },
            TarKind::CharDevice { major, minor } => Self::CharDevice { major, minor },
            TarKind::BlockDevice { major, minor } => Self::BlockDevice { major, minor },
            TarKind::Fifo => Self::Fifo,
        }
    }
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

fn reversed_parts(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.rsplit(|byte| *byte == b'/');
    parts.filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use windlass_core::archive::TarWriter;

    use super::*;

    fn layer(entries: &[(&str, TarKind)]) -> Vec<u8> {
        let mut tar = TarWriter::new(Vec::new());
        for (path, kind) in entries {
            tar.append_bytes(&TarEntry::new(*path, kind.clone(), 0o755), &[]).expect("in memory");
        }
        tar.finish().expect("in memory")
    }

    fn tree(layers: &[Vec<u8>]) -> Tree {
        let mut tree = Tree::default();
        for layer in layers {
            tree.apply_layer(Digest::of(layer), &layer[..], &Job::silent()).expect("a good layer");
        }
        tree
    }

    fn paths(tree: &Tree) -> Vec<String> {
        tree.below(b"").map(|(path, _)| String::from_utf8_lossy(path).into_owned()).collect()
    }

    fn link(target: &str) -> TarKind {
        TarKind::Symlink { target: target.into() }
    }

    const DIRECTORY: TarKind = TarKind::Directory;
    const FILE: TarKind = TarKind::File { size_bytes: 0 };

    #[test]
    fn whiteouts_hide_what_is_below_and_nothing_else() {
        let lower = layer(&[
            ("a", DIRECTORY),
            ("a/x", FILE),
            ("a/y", FILE),
            ("b", DIRECTORY),
            ("b/x", FILE),
            ("c", FILE),
        ]);
        let upper = layer(&[
            ("a", DIRECTORY),
            ("a/.wh.x", FILE),
            ("b/new", FILE),
            ("b/.wh..wh..opq", FILE),
            (".wh.c", FILE),
        ]);
        assert_eq!(paths(&tree(&[lower, upper])), ["a", "a/y", "b", "b/new"]);
    }

    #[test]
    fn a_layer_writes_through_the_links_of_the_layers_below() {
        let lower = layer(&[("usr", DIRECTORY), ("usr/lib", DIRECTORY), ("lib", link("usr/lib"))]);
        let upper = layer(&[("lib/x", FILE)]);
        assert_eq!(paths(&tree(&[lower, upper])), ["lib", "usr", "usr/lib", "usr/lib/x"]);
    }

    #[test]
    fn what_replaces_a_directory_takes_its_content_away() {
        let lower = layer(&[("a", DIRECTORY), ("a/x", FILE), ("a-b", FILE)]);
        let upper = layer(&[("a", FILE)]);
        assert_eq!(paths(&tree(&[lower, upper])), ["a", "a-b"]);
    }

    #[test]
    fn hard_links_share_their_content() {
        let tree = tree(&[layer(&[("a", FILE), ("b", TarKind::HardLink { target: b"a".to_vec() })])]);
        assert_eq!(tree.get(b"a"), tree.get(b"b"));
        let bad = layer(&[("b", TarKind::HardLink { target: b"a".to_vec() })]);
        assert!(Tree::default().apply_layer(Digest::of(b""), &bad[..], &Job::silent()).is_err());
    }

    #[test]
    fn links_are_followed_inside_the_root() {
        let tree = tree(&[layer(&[
            ("a", DIRECTORY),
            ("abs", link("/a")),
            ("up", link("../../a/./b")),
            ("a/back", link("..")),
            ("loop", link("loop")),
        ])]);
        for (path, resolved) in
            [("abs/x", "a/x"), ("up/c", "a/b/c"), ("a/back/abs", "a"), ("none/../x", "x"), ("", "")]
        {
            assert_eq!(tree.resolve(path.as_bytes()).expect(path), resolved.as_bytes(), "{path}");
        }
        assert!(tree.resolve(b"loop/x").is_err());
        assert_eq!(tree.resolve_parent(b"a/back/abs").expect("fine"), b"abs");
    }
}

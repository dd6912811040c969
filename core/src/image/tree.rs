//! The file system of an image: its layers laid over each other. What is where, not what is in it.
//!
//! Content stays in the layers; a node says where to find it, in the terms of whoever made the
//! tree.
//!
//! Source: OCI image-spec `layer.md`, and containerd's `archive.Apply` for what it leaves open.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::layer_index::LayerIndex;
use super::node::{Node, NodeKind};
use crate::archive::{TarEntry, TarKind};
use crate::error::{Error, ErrorKind, Result};

/// As many links as the kernel and Go's `RootPath` follow before they call it a loop.
const LINK_LIMIT: usize = 255;
/// The paths of all parents that a layer leaves out: a deep name makes many of one.
const IMPLIED_LIMIT_BYTES: usize = 128 << 20;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A file system: nodes by clean path. The root is always there, and so is the parent of every node.
#[derive(Clone, Debug)]
pub struct Tree<C> {
    nodes: BTreeMap<Vec<u8>, Node<C>>,
}

impl<C> Default for Tree<C> {
    fn default() -> Self {
        Self { nodes: BTreeMap::from([(Vec::new(), Node::directory(0))]) }
    }
}

impl<C: Clone> Tree<C> {
    /// The node at a clean path, links not followed.
    pub fn get(&self, path: &[u8]) -> Option<&Node<C>> {
        self.nodes.get(path)
    }

    /// All nodes, the root first, sorted by the bytes of their paths: parents before children.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Node<C>)> {
        self.nodes.iter().map(|(path, node)| (path.as_slice(), node))
    }

    /// The nodes below a directory, sorted by path, without the directory itself.
    pub fn below(&self, directory: &[u8]) -> impl Iterator<Item = (&[u8], &Node<C>)> {
        let prefix = if directory.is_empty() { Vec::new() } else { [directory, b"/"].concat() };
        let range = self.nodes.range((Bound::Excluded(prefix.clone()), Bound::Unbounded));
        range
            .map(|(path, node)| (path.as_slice(), node))
            .take_while(move |(path, _)| path.starts_with(&prefix))
    }

    /// Puts a node at a path whose parents exist. A directory stays if a directory comes, with all
    /// that is in it; everything else is replaced.
    pub fn insert(&mut self, path: Vec<u8>, node: Node<C>) {
        if !node.is_directory() && self.get(&path).is_some_and(Node::is_directory) {
            self.remove_below(&path);
        }
        self.nodes.insert(path, node);
    }

    /// Changes the node at a path in place.
    pub fn get_mut(&mut self, path: &[u8]) -> Option<&mut Node<C>> {
        self.nodes.get_mut(path)
    }

    /// Takes a node away, with all that is below it.
    pub fn remove(&mut self, path: &[u8]) {
        self.remove_below(path);
        if !path.is_empty() {
            self.nodes.remove(path);
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
    pub fn resolve(&self, path: &[u8]) -> Result<Vec<u8>> {
        self.resolve_in(b"", path)
    }

    /// As [`Tree::resolve`], with a directory of the tree for the root: no link leads out of it.
    ///
    /// # Errors
    /// As [`Tree::resolve`].
    pub fn resolve_in(&self, root: &[u8], path: &[u8]) -> Result<Vec<u8>> {
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
                        let message = format!("the links of `/{shown}` lead in a circle");
                        return Err(Error::new(ErrorKind::BuildFailed, message));
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
    pub fn resolve_parent(&self, path: &[u8]) -> Result<Vec<u8>> {
        match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => Ok(join(&self.resolve(&path[..slash])?, &path[slash + 1..])),
            None => Ok(path.to_vec()),
        }
    }

    /// Lays a layer over the tree: its whiteouts first, for they hide what is below and nothing
    /// of the layer itself; then its members. `content` says where the content of a member is,
    /// by its position in the layer.
    ///
    /// # Errors
    /// `Corrupt` for a layer that cannot be laid over this tree: a hard link to nothing, a member
    /// below what is no directory.
    pub fn apply(&mut self, layer: &LayerIndex, content: impl Fn(u64) -> C) -> Result<()> {
        let mut additions = Vec::with_capacity(layer.members.len());
        for (entry, position) in layer.members.iter().zip(0..) {
            let name = file_name(&entry.path);
            if name == OPAQUE {
                let directory = self.resolve_parent(parent(&entry.path))?;
                // A link that the layer replaces by a directory leads nowhere any more.
                if self.get(&directory).is_some_and(Node::is_directory) {
                    self.remove_below(&directory);
                } else if !layer.members.iter().any(|member| is_directory(member, parent(&entry.path))) {
                    let directory = self.resolve(&directory)?;
                    self.remove_below(&directory);
                }
            } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
                let path = self.resolve_parent(&join(parent(&entry.path), hidden))?;
                // `.wh.` alone would hide the directory itself; as containerd does, it hides nothing.
                if !hidden.is_empty() && !matches!(hidden, b"." | b"..") {
                    self.remove(&path);
                }
            } else {
                additions.push((entry, position));
            }
        }
        let mut room = IMPLIED_LIMIT_BYTES;
        additions.into_iter().try_for_each(|(entry, position)| self.add(entry, content(position), &mut room))
    }

    fn add(&mut self, entry: &TarEntry, content: C, room: &mut usize) -> Result<()> {
        let path = self.resolve_parent(&entry.path)?;
        self.add_parents(&path, room)?;
        let kind = match &entry.kind {
            TarKind::HardLink { target } => {
                let target = self.resolve_parent(target)?;
                let Some(node) = self.get(&target).filter(|node| !node.is_directory()).cloned() else {
                    let shown = String::from_utf8_lossy(&entry.path);
                    let message = format!("the hard link `{shown}` of a layer has no target");
                    return Err(Error::new(ErrorKind::Corrupt, message));
                };
                self.insert(path, node);
                return Ok(());
            }
            TarKind::Directory => NodeKind::Directory,
            TarKind::File { size_bytes } => NodeKind::File { size_bytes: *size_bytes, content },
            TarKind::Symlink { target } => NodeKind::Symlink { target: target.clone() },
            TarKind::CharDevice { major, minor } => NodeKind::CharDevice { major: *major, minor: *minor },
            TarKind::BlockDevice { major, minor } => NodeKind::BlockDevice { major: *major, minor: *minor },
            TarKind::Fifo => NodeKind::Fifo,
        };
        let TarEntry { mode, uid, gid, mtime, .. } = *entry;
        self.insert(path, Node { kind, mode, uid, gid, mtime, xattrs: entry.xattrs.clone() });
        Ok(())
    }

    /// Makes the parents that a layer leaves out, as every reader of layers does. `room` is for
    /// the paths of more of them.
    fn add_parents(&mut self, path: &[u8], room: &mut usize) -> Result<()> {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for parent in slashes.map(|at| &path[..at]) {
            match self.get(parent) {
                None => {
                    *room = room.checked_sub(parent.len()).ok_or_else(|| {
                        let message = "a layer has too many deep paths whose directories it leaves out";
                        Error::new(ErrorKind::Corrupt, message)
                    })?;
                    self.insert(parent.to_vec(), Node::directory(0));
                }
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

/// Joins a directory and a name below it.
pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match (directory.is_empty(), name.is_empty()) {
        (true, _) => name.to_vec(),
        (_, true) => directory.to_vec(),
        _ => [directory, b"/", name].concat(),
    }
}

fn is_directory(member: &TarEntry, path: &[u8]) -> bool {
    member.path == path && member.kind == TarKind::Directory
}

/// The directory that a path is in.
fn parent(path: &[u8]) -> &[u8] {
    &path[..path.iter().rposition(|byte| *byte == b'/').unwrap_or(0)]
}

/// The last part of a path.
fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

fn reversed_parts(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.rsplit(|byte| *byte == b'/');
    parts.filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    const DIRECTORY: TarKind = TarKind::Directory;
    const FILE: TarKind = TarKind::File { size_bytes: 0 };

    fn layer(entries: &[(&str, TarKind)]) -> LayerIndex {
        let members = entries.iter().map(|(path, kind)| TarEntry::new(*path, kind.clone(), 0o755));
        LayerIndex { diff_id: Digest::of(b""), members: members.collect() }
    }

    fn tree(layers: &[LayerIndex]) -> Tree<(usize, u64)> {
        let mut tree = Tree::default();
        for (number, layer) in layers.iter().enumerate() {
            tree.apply(layer, |position| (number, position)).expect("a good layer");
        }
        tree
    }

    fn paths(tree: &Tree<(usize, u64)>) -> Vec<String> {
        tree.below(b"").map(|(path, _)| String::from_utf8_lossy(path).into_owned()).collect()
    }

    fn link(target: &str) -> TarKind {
        TarKind::Symlink { target: target.into() }
    }

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
            ("a/.wh.", FILE),
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
    fn hard_links_share_their_content_and_outlive_each_other() {
        let hard = TarKind::HardLink { target: b"a".to_vec() };
        let lower = layer(&[("a", FILE), ("b", hard.clone())]);
        let both = tree(std::slice::from_ref(&lower));
        assert_eq!(both.get(b"a"), both.get(b"b"));
        let replaced = tree(&[lower, layer(&[("a", TarKind::File { size_bytes: 1 })])]);
        assert_eq!(replaced.get(b"b"), both.get(b"b"));
        let bad = layer(&[("b", hard)]);
        assert!(Tree::default().apply(&bad, |position| (0, position)).is_err());
    }

    #[test]
    fn nothing_is_below_a_file() {
        let error = Tree::default().apply(&layer(&[("a", FILE), ("a/b", FILE)]), |position| position);
        assert_eq!(error.expect_err("a is a file").kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn parents_that_a_layer_leaves_out_are_bounded() {
        let deep = |n: usize| format!("{n}/{}x", "d/".repeat(2000));
        let paths: Vec<String> = (0..100).map(deep).collect();
        let members: Vec<_> = paths.iter().map(|path| (path.as_str(), FILE)).collect();
        let error = Tree::default().apply(&layer(&members), |position| position).expect_err("too much");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
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
        assert_eq!(tree.resolve_in(b"a", b"back/x").expect("fine"), b"a/x");
    }
}

//! Putting files into a stage: where a source lands, which directories are made, what may replace
//! what.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::backend::Job;
use windlass_core::context::{ContextPath, IgnoreRules};
use windlass_core::error::{Error, ErrorKind, Result};

use super::select::clean;
use crate::change::Touched;
use crate::mode::ModeChange;
use crate::owner::Owner;
use crate::sources::Sources;
use crate::tree::{Content, Node, NodeKind, Tree, file_name, join, parent};

/// How files change on their way.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The owner that they get; their own if `None`.
    pub(crate) owner: Option<Owner>,
    /// What happens to their permissions; links have none.
    pub(crate) mode: Option<ModeChange>,
    /// What is left out, by its path below the source.
    pub(crate) exclude: Option<IgnoreRules>,
    /// The modification time of directories that are made on the way.
    pub(crate) made_mtime: i64,
    /// The modification time that files get; their own if `None`.
    pub(crate) mtime: Option<i64>,
    /// The modification time of what is unpacked; that of the archive if `None`.
    pub(crate) unpacked_mtime: Option<i64>,
    /// Archives are unpacked.
    pub(crate) unpack: bool,
}

impl Settings {
    /// The settings for making directories alone.
    pub(crate) fn for_directories(owner: Option<Owner>, made_mtime: i64) -> Self {
        Self {
            owner,
            mode: None,
            exclude: None,
            made_mtime,
            mtime: None,
            unpacked_mtime: None,
            unpack: false,
        }
    }
}

/// Puts files into the tree of a stage and notes what it touched.
#[derive(Debug)]
pub(crate) struct Placer<'a> {
    pub(super) tree: &'a mut Tree,
    pub(super) touched: &'a mut Touched,
    pub(super) sources: &'a Sources,
    pub(super) settings: &'a Settings,
    /// The names of each file that an archive has or links to.
    pub(super) unpacked: BTreeMap<Content, BTreeSet<Vec<u8>>>,
    pub(super) job: &'a Job,
}

impl<'a> Placer<'a> {
    /// Starts on a tree.
    pub(crate) fn new(
        tree: &'a mut Tree,
        touched: &'a mut Touched,
        sources: &'a Sources,
        settings: &'a Settings,
        job: &'a Job,
    ) -> Self {
        Self { tree, touched, sources, settings, unpacked: BTreeMap::new(), job }
    }

    /// Copies one selected path of a source to a destination, an absolute path of the image; a
    /// slash at its end makes it a directory.
    ///
    /// Links are followed at the source, and at the destination except for what is inside a copied
    /// directory.
    ///
    /// # Errors
    /// `NotFound` if the source does not exist; `BuildFailed` where a file would replace a directory
    /// or a directory a file; `Cancelled`.
    pub(crate) fn copy(&mut self, source: &Tree, path: &[u8], destination: &str) -> Result<()> {
        self.touched.begin_copy();
        let followed = source.resolve(path)?;
        let Some(node) = source.get(&followed) else {
            let shown = String::from_utf8_lossy(path);
            return Err(Error::new(ErrorKind::NotFound, format!("`{shown}` does not exist")));
        };
        if self.settings.unpack && self.unpack(node, destination)? {
            return Ok(());
        }
        let mut target = self.prepare(destination)?;
        let existing = self.tree.get(&target);
        if node.is_directory() {
            let made = if existing.is_none() { target.clone() } else { parent(&target).to_vec() };
            self.make_directories(&made)?;
            return self.copy_directory(source, &followed, &target);
        }
        if existing.is_some_and(Node::is_directory) {
            target = join(&target, file_name(path));
        }
        self.make_directories(parent(&target))?;
        self.put(target, node.clone())
    }

    /// Makes the directories that a destination speaks of, and returns where it is.
    pub(super) fn prepare(&mut self, destination: &str) -> Result<Vec<u8>> {
        let parts = clean(destination.as_bytes());
        let whole = parts.join(&b'/');
        let directory = if destination.ends_with('/') { &whole[..] } else { parent(&whole) };
        let directory = self.tree.resolve(directory)?;
        self.make_directories(&directory)?;
        self.tree.resolve(&whole)
    }

    /// Makes a directory and its parents where they are missing; no part of the path is a link.
    pub(crate) fn make_directories(&mut self, path: &[u8]) -> Result<()> {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]).filter(|end| *end > 0) {
            let directory = &path[..end];
            match self.tree.get(directory) {
                Some(node) if node.is_directory() => {}
                Some(_) => return Err(no_directory(directory)),
                None => {
                    let Owner { uid, gid } = self.settings.owner.unwrap_or_default();
                    let node = Node { uid, gid, ..Node::directory(self.settings.made_mtime) };
                    self.tree.insert(directory.to_vec(), node);
                    self.touched.insert(directory.to_vec());
                }
            }
        }
        Ok(())
    }

    /// Copies what is in a directory. The target itself keeps what it has.
    fn copy_directory(&mut self, source: &Tree, directory: &[u8], target: &[u8]) -> Result<()> {
        if !self.tree.get(target).is_some_and(Node::is_directory) {
            return Err(no_directory(target));
        }
        for (path, node) in source.below(directory) {
            self.job.check()?;
            let relative = if directory.is_empty() { path } else { &path[directory.len() + 1..] };
            if !self.excluded(relative) {
                self.copy_below(source, directory, relative, target, node)?;
            }
        }
        Ok(())
    }

    /// Copies one node of a directory, after the directories above it that are not there yet.
    pub(super) fn copy_below(
        &mut self,
        source: &Tree,
        directory: &[u8],
        relative: &[u8],
        target: &[u8],
        node: &Node,
    ) -> Result<()> {
        self.copy_parents(source, directory, relative, target)?;
        self.put(join(target, relative), node.clone())
    }

    pub(super) fn excluded(&self, relative: &[u8]) -> bool {
        let path = || ContextPath::from_clean(relative);
        self.settings.exclude.as_ref().is_some_and(|rules| rules.excluded(&path()))
    }

    /// Copies the directories above something that is copied although they were left out.
    fn copy_parents(
        &mut self,
        source: &Tree,
        directory: &[u8],
        relative: &[u8],
        target: &[u8],
    ) -> Result<()> {
        let ends = relative.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for above in ends.map(|end| &relative[..end]) {
            if self.tree.get(&join(target, above)).is_none()
                && let Some(node) = source.get(&join(directory, above))
            {
                self.put(join(target, above), node.clone())?;
            }
        }
        Ok(())
    }

    /// Puts one node at its place, with the owner, mode and time that the settings give.
    pub(super) fn put(&mut self, path: Vec<u8>, node: Node) -> Result<()> {
        let existing = self.tree.get(&path);
        match (existing.map(Node::is_directory), node.is_directory()) {
            (Some(true), false) => {
                let shown = String::from_utf8_lossy(&path);
                return Err(Error::new(
                    ErrorKind::InvalidDockerfile,
                    format!("a file cannot replace the directory `/{shown}`"),
                ));
            }
            (Some(false), true) => return Err(no_directory(&path)),
            _ => {}
        }
        let node = self.changed(node);
        self.tree.insert(path.clone(), node);
        self.touched.insert(path);
        Ok(())
    }

    fn changed(&self, mut node: Node) -> Node {
        if let Some(Owner { uid, gid }) = self.settings.owner {
            (node.uid, node.gid) = (uid, gid);
        }
        if let Some(change) = &self.settings.mode
            && !matches!(node.kind, NodeKind::Symlink { .. })
        {
            node.mode = change.apply(node.mode, node.is_directory());
        }
        node.mtime = self.settings.mtime.unwrap_or(node.mtime);
        node
    }

    /// Unpacks a node if it is an archive, and says whether it was one.
    fn unpack(&mut self, node: &Node, destination: &str) -> Result<bool> {
        let NodeKind::File { content: Content::Entry { context, entry }, .. } = node.kind else {
            return Ok(false);
        };
        if !self.sources.is_archive(context, entry)? {
            return Ok(false);
        }
        self.unpack_archive(context, entry, destination)?;
        Ok(true)
    }
}

pub(super) fn no_directory(path: &[u8]) -> Error {
    let shown = String::from_utf8_lossy(path);
    Error::new(ErrorKind::InvalidDockerfile, format!("`/{shown}` is in the way: it is no directory"))
}

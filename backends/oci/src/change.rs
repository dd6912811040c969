//! What an instruction did to the files of its stage, before it is a layer.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::removal::{self, Waiting};
use crate::tree::Tree;

/// The paths that an instruction changed in a tree.
///
/// Each carries the number of the copy that it belongs to: files that are hard links of each other at
/// their source are so in the layer if one copy took both, as with `cp -a`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Touched {
    /// The paths, each with the number of its copy.
    pub(crate) paths: BTreeMap<Vec<u8>, u32>,
    copy: u32,
    /// What hides files of the layers below, with its time.
    pub(crate) whiteouts: BTreeMap<Vec<u8>, i64>,
}

impl Touched {
    /// Begins the next copy.
    pub(crate) fn begin_copy(&mut self) {
        self.copy += 1;
    }

    /// Notes a path of the current copy.
    pub(crate) fn insert(&mut self, path: Vec<u8>) {
        self.paths.insert(path, self.copy);
    }

    /// Notes that a path is no longer there.
    pub(crate) fn hide(&mut self, path: &[u8], mtime: i64) {
        let directory = [path, b"/"].concat();
        self.whiteouts.retain(|known, _| !known.starts_with(&directory));
        self.whiteouts.insert(removal::whiteout(path), mtime);
    }

    /// Notes that a directory has nothing but what this layer puts into it.
    pub(crate) fn hide_below(&mut self, directory: &[u8], mtime: i64) {
        self.whiteouts.insert(removal::opaque(directory), mtime);
    }
}

/// What an instruction did to the files of its stage.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// The files after it.
    pub(crate) tree: Arc<Tree>,
    /// Those that it changed.
    pub(crate) touched: Touched,
    /// The history entry.
    pub(crate) created_by: String,
    /// The tree is that of the stage; with `--link` it only has what the instruction made.
    pub(crate) whole: bool,
}

impl Change {
    /// What it touches if these removals are done in its layer too; `None` if they cannot be.
    pub(crate) fn hiding(&self, waiting: &[Waiting], mtime: i64) -> Option<Touched> {
        let mut touched = self.touched.clone();
        let hidden = waiting.iter().all(|waiting| waiting.hide(&self.tree, &mut touched, mtime));
        Some(touched).filter(|_| hidden && !self.whole)
    }
}

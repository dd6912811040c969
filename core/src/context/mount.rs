//! Directories on disk that appear somewhere in a context.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ContextPath, IgnoreRules};
use crate::error::{Error, ErrorKind, Result};

/// What becomes of the symbolic links of a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Links {
    /// They stay links, wherever they lead.
    #[default]
    Keep,
    /// What they lead to has their name, inside of the directory or not. Those that lead nowhere are left out
    /// with a warning; a circle is an error.
    Follow,
}

/// A directory on disk at a place of a context.
#[derive(Clone, Debug)]
pub struct Mount {
    /// Where its content appears.
    pub at: ContextPath,
    /// The directory on disk.
    pub directory: PathBuf,
    /// What of it is left out; paths of the rules begin in the directory.
    pub ignore: Arc<IgnoreRules>,
    /// What becomes of its links.
    pub links: Links,
}

/// The directories of a context, outer ones before those inside them.
#[derive(Clone, Debug, Default)]
pub(super) struct Mounts(Arc<Vec<Mount>>);

impl Mounts {
    /// Adds one.
    ///
    /// # Errors
    /// `InvalidInput` if there is one at this place.
    pub(super) fn add(&mut self, mount: Mount) -> Result<()> {
        match self.0.binary_search_by(|other| other.at.cmp(&mount.at)) {
            Ok(_) => Err(taken_twice(&mount.at)),
            Err(place) => {
                Arc::make_mut(&mut self.0).insert(place, mount);
                Ok(())
            }
        }
    }

    pub(super) fn all(&self) -> &[Mount] {
        &self.0
    }

    /// The innermost one that a path lies in, and the path inside of it.
    pub(super) fn of(&self, path: &ContextPath) -> Option<(&Mount, ContextPath)> {
        self.0.iter().rev().find_map(|mount| Some((mount, path.below(&mount.at)?)))
    }
}

/// The error for two directories at one place.
pub(super) fn taken_twice(at: &ContextPath) -> Error {
    let shown = if at.is_root() { ".".to_owned() } else { at.to_string() };
    Error::new(
        ErrorKind::InvalidInput,
        format!("two directories are given for `{shown}` of the build context"),
    )
}

/// Checks that there is a directory; `what` says to the user what it is for.
pub(super) fn check_directory(directory: &Path, what: &str) -> Result<()> {
    let shown = directory.display();
    match std::fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Error::new(ErrorKind::InvalidInput, format!("{what} `{shown}` is no directory"))
            .with_hint("name the directory that holds the files; name the Dockerfile with `--file`")),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::new(ErrorKind::InvalidInput, format!("{what} `{shown}` does not exist")))
        }
        Err(source) => {
            Err(Error::new(ErrorKind::ContextUnreadable, format!("could not read {what} `{shown}`"))
                .with_source(source))
        }
    }
}

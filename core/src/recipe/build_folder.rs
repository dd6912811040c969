//! The build folder of a recipe: virtual, or on disk where the user wants to see it.

use std::path::Path;

use super::definition::{HashedTags, Recipe};
use crate::backend::Job;
use crate::context::{Context, ContextSettings};
use crate::error::{Error, ErrorKind, Result};
use crate::request::DockerfileSource;

/// A Dockerfile and what it copies. Nothing is on disk until it is written.
#[derive(Clone, Debug)]
pub struct BuildFolder {
    /// What COPY sees.
    pub context: Context,
    /// The rendered Dockerfile; its place in the context is `Dockerfile`.
    pub dockerfile: DockerfileSource,
}

impl Recipe {
    /// Puts the build folder together. Reads lock files and looks for the sources; blocking.
    ///
    /// # Errors
    /// `InvalidInput` for a source directory, a lock file or a source that is missing, named with the
    /// key of the recipe; `ContextUnreadable`.
    pub fn build_folder(
        &self,
        _source: &Path,
        _dockerfile: String,
        _settings: &ContextSettings,
        _job: &Job,
    ) -> Result<BuildFolder> {
        Err(Error::new(ErrorKind::InvalidInput, "not put together"))
    }

    /// What a build adds to the configuration file of a build folder on disk; `None` without one.
    ///
    /// # Errors
    /// `InvalidConfig` for what the template does wrong.
    pub fn config_lines(
        &self,
        _repository: &str,
        _generic_tag: &str,
        _tags: &HashedTags,
    ) -> Result<Option<AddedLines>> {
        Ok(None)
    }
}

/// Lines that are added at the end of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedLines {
    /// Its name in the build folder.
    pub file: String,
    /// The lines.
    pub text: String,
}

impl BuildFolder {
    /// Writes the folder to a directory that is windlass' own: whole, or not at all. `added` goes to the
    /// end of what its file held before. Blocking.
    ///
    /// # Errors
    /// `InvalidInput` for a directory that windlass may not replace; `ContextUnreadable`, `LocalIo`,
    /// `Cancelled`.
    pub fn write(&self, _directory: &Path, _added: Option<&AddedLines>, _job: &Job) -> Result<()> {
        Err(Error::new(ErrorKind::LocalIo, "not written"))
    }
}

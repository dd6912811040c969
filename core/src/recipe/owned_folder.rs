//! Directories that windlass may empty, and how their content is replaced: whole, or not at all.
//!
//! A directory is windlass' own if it is new, empty, or holds the file [`MARKER`]. What else a path may
//! lead to is refused in `refusals`; how the old content makes way for the new one is in `staging`.

mod refusals;
mod staging;

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::backend::Job;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use staging::Staging;

/// The file that says that windlass made a directory and may empty it.
pub const MARKER: &str = ".made-by-windlass";

/// What is in it. The first line is what counts.
const MARKER_TEXT: &str = "written by windlass\n\n\
    Windlass empties this directory when it writes it again: keep nothing else in it.\n\
    Remove this file, and windlass leaves the directory alone.\n";

/// So much is read of a file that may be the marker.
const MARKER_LINE: &[u8] = b"written by windlass\n";

/// What a directory must not be for windlass to empty it.
#[derive(Clone, Copy, Debug)]
pub struct FolderGuard<'a> {
    /// Relative paths start here; neither it nor what it lies in is emptied.
    pub current_dir: &'a Path,
    /// The user's home directory, if it is known.
    pub home_dir: Option<&'a Path>,
    /// What is read to write the directory: it must lie outside of these, and they outside of it. Those
    /// that are missing do not count.
    pub sources: &'a [PathBuf],
    /// A directory that windlass did not make is emptied too. The other rules hold.
    pub forced: bool,
    /// The option that would force it, for hints; empty where there is none.
    pub force_option: &'a str,
}

impl Default for FolderGuard<'_> {
    fn default() -> Self {
        Self { current_dir: Path::new(""), home_dir: None, sources: &[], forced: false, force_option: "" }
    }
}

impl<'a> FolderGuard<'a> {
    /// A guard that knows no more than the current directory.
    pub fn new(current_dir: &'a Path) -> Self {
        Self { current_dir, home_dir: None, sources: &[], forced: false, force_option: "" }
    }
}

/// A directory that windlass writes.
#[derive(Debug)]
pub struct OwnedFolder {
    /// As it was typed, for messages.
    shown: PathBuf,
    /// Absolute, all links followed.
    path: PathBuf,
    content: Content,
}

/// What is in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Absent,
    Empty,
    /// Something of ours, and what somebody may have put beside it.
    Owned,
    /// Something that windlass did not make, or not alone.
    Foreign {
        may_go: bool,
    },
}

impl OwnedFolder {
    /// Looks whether a directory may be emptied and written. Changes nothing.
    ///
    /// Links are followed, and the rules hold for the directory that they lead to.
    ///
    /// # Errors
    /// `InvalidInput` for `/`, the home directory, the current one, a repository, directories that these
    /// or mount points lie in, directories inside and around the sources, files, and a directory with
    /// content that windlass did not write; `LocalIo` for one that cannot be read.
    pub fn claim(directory: &Path, guard: &FolderGuard<'_>) -> Result<Self> {
        let folder = Self::claim_to_add(directory, guard)?;
        refusals::refuse_to_empty(&folder.shown, &folder.path, guard)?;
        match folder.content {
            Content::Foreign { may_go: false } => Err(refusals::foreign(&folder.shown, &folder.path, guard)),
            _ => Ok(folder),
        }
    }

    /// Looks whether files may be put into a directory, beside what is there.
    ///
    /// # Errors
    /// `InvalidInput` for directories inside and around the sources, and for files; `LocalIo`.
    pub fn claim_to_add(directory: &Path, guard: &FolderGuard<'_>) -> Result<Self> {
        let path = refusals::resolve(directory, guard.current_dir)?;
        refusals::refuse_sources(directory, &path, guard)?;
        let content = content_of(directory, &path, guard.forced)?;
        Ok(Self { shown: directory.to_owned(), path, content })
    }

    /// The directory, absolute and without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says whether there was something in the directory when it was claimed.
    pub fn has_content(&self) -> bool {
        matches!(self.content, Content::Owned | Content::Foreign { .. })
    }

    /// Writes the directory anew: `fill` gets an empty one beside it, which then takes its place in one
    /// step. Until then, and where anything fails, what was there before stays as it is; a program that is
    /// killed leaves the old content or the new one, and what it left beside them goes with the next
    /// write. Blocking.
    ///
    /// Where the file system cannot swap two directories, the old one is moved aside first, and a kill
    /// just then leaves none.
    ///
    /// # Errors
    /// That of `fill`; `Cancelled`; `LocalIo` for a directory that cannot be replaced; `InvalidInput`
    /// where it has come to hold something else since it was claimed.
    pub fn replace<T>(&self, job: &Job, fill: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let staging = Staging::beside(&self.path).map_err(|error| self.failed(error))?;
        let marker = staging.path().join(MARKER);
        fs::write(&marker, MARKER_TEXT)
            .or_error(ErrorKind::LocalIo, || format!("could not write `{}`", marker.display()))?;
        let result = fill(staging.path())?;
        job.check()?;
        self.check_unchanged()?;
        if let Ok(old) = fs::metadata(&self.path) {
            let kept = fs::set_permissions(staging.path(), fs::Permissions::from_mode(old.mode() & 0o7777));
            kept.map_err(|error| self.failed(error))?;
        }
        if let Some(left) = staging.put_in_place(&self.path).map_err(|error| self.failed(error))? {
            job.events.warn(format!(
                "what was in `{}` before could not be removed, and is in `{}` now: {}",
                self.shown.display(),
                left.place.display(),
                left.error
            ));
        }
        Ok(result)
    }

    /// Copies a file that is in the directory into the one that takes its place. Nothing happens where
    /// there is none: links and what is no regular file do not count.
    ///
    /// # Errors
    /// `LocalIo`.
    pub fn carry_over(&self, name: &str, fresh: &Path) -> Result<()> {
        let old = self.path.join(name);
        if !fs::symlink_metadata(&old).is_ok_and(|found| found.is_file()) {
            return Ok(());
        }
        fs::copy(&old, fresh.join(name))
            .or_error(ErrorKind::LocalIo, || format!("could not keep `{}`", old.display()))
            .map(drop)
    }

    /// Much time passes while a directory is filled.
    fn check_unchanged(&self) -> Result<()> {
        let forced = self.content == Content::Foreign { may_go: true };
        match content_of(&self.shown, &self.path, forced)? {
            Content::Foreign { may_go: false } => {
                let message = format!(
                    "`{}` holds what windlass did not write, and is not replaced",
                    self.shown.display()
                );
                Err(Error::new(ErrorKind::InvalidInput, message))
            }
            _ => Ok(()),
        }
    }

    fn failed(&self, error: io::Error) -> Error {
        let message = format!("could not write the directory `{}`", self.shown.display());
        Error::new(ErrorKind::LocalIo, message).with_source(error)
    }
}

fn content_of(shown: &Path, path: &Path, forced: bool) -> Result<Content> {
    let unreadable = || format!("could not look into `{}`", shown.display());
    let mut entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::Absent),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            let message = format!("`{}` is a file, not a directory", shown.display());
            return Err(Error::new(ErrorKind::InvalidInput, message).with_hint("name a new directory"));
        }
        Err(error) => return Err(Error::new(ErrorKind::LocalIo, unreadable()).with_source(error)),
    };
    match entries.next() {
        None => Ok(Content::Empty),
        Some(Err(error)) => Err(Error::new(ErrorKind::LocalIo, unreadable()).with_source(error)),
        Some(Ok(_)) if is_marked(path) => Ok(Content::Owned),
        Some(Ok(_)) => Ok(Content::Foreign { may_go: forced }),
    }
}

/// Says whether windlass made a directory. What cannot be read was not made by us.
fn is_marked(directory: &Path) -> bool {
    let marker = directory.join(MARKER);
    fs::symlink_metadata(&marker).is_ok_and(|found| found.is_file())
        && staging::begins_with(&marker, MARKER_LINE).unwrap_or(false)
}

#[cfg(test)]
mod tests;

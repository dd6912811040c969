//! A directory that is filled beside the one whose place it takes.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with, syncfs};
use tempfile::TempDir;

use super::is_marked;

/// What directories are called that are not in their place yet, or no longer.
const PREFIX: &str = ".windlass-folder-";

/// The same for the old content, where the file system cannot swap.
const ASIDE: &str = ".windlass-old-folder-";

/// Somebody who cleans up may take a directory away before we hold it.
const ATTEMPTS: usize = 10;

/// A directory on its way. It vanishes unless it is put in its place.
pub(super) struct Staging {
    directory: TempDir,
    /// Held as long as we live: what nobody holds was left by a program that was killed.
    held: File,
    /// Directories above that were made for it, the outermost first.
    made: Vec<PathBuf>,
}

/// What could not be removed.
pub(super) struct Left {
    pub(super) place: PathBuf,
    pub(super) error: io::Error,
}

impl Staging {
    /// Makes one in the directory that `target` lies or will lie in, and removes what killed programs
    /// left there.
    pub(super) fn beside(target: &Path) -> io::Result<Self> {
        let parent = target.parent().unwrap_or(Path::new("/"));
        remove_leftovers(parent);
        let made = make_parents(parent)?;
        match hold_new(parent) {
            Ok((directory, held)) => Ok(Self { directory, held, made }),
            Err(error) => {
                remove_empty(&made);
                Err(error)
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Takes the place of `target`. Gives what is left of its old content, if that could not be removed.
    pub(super) fn put_in_place(mut self, target: &Path) -> io::Result<Option<Left>> {
        // One call for all files: to sync them one by one takes longer than to write them.
        syncfs(&self.held)?;
        let old = match fs::symlink_metadata(target) {
            Ok(_) => Some(swap(self.path(), target)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                rename_to_new(self.path(), target)?;
                None
            }
            Err(error) => return Err(error),
        };
        self.made.clear();
        // From here on the path of the temporary directory is not ours, or has the old content.
        self.directory.disable_cleanup(true);
        if let Some(parent) = target.parent() {
            File::open(parent)?.sync_all()?;
        }
        let Some(place) = old else { return Ok(None) };
        Ok(match fs::remove_dir_all(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Some(Left { place, error }),
            _ => None,
        })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.made.is_empty() {
            // Before the directories that it lies in.
            let _ = fs::remove_dir_all(self.directory.path());
            remove_empty(&self.made);
        }
    }
}

/// Swaps two directories. Gives the path of the old content.
fn swap(fresh: &Path, target: &Path) -> io::Result<PathBuf> {
    match renameat_with(CWD, fresh, CWD, target, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(fresh.to_owned()),
        Err(error) if cannot(error) => {
            // Not by a name that is cleaned up: a kill just now leaves it as all that there is.
            let name = fresh.file_name().unwrap_or_default().to_string_lossy();
            let aside = fresh.with_file_name(name.replacen(PREFIX, ASIDE, 1));
            fs::rename(target, &aside)?;
            fs::rename(fresh, target).inspect_err(|_| {
                // Back to what it was; the first error is the one that tells something.
                let _ = fs::rename(&aside, target);
            })?;
            Ok(aside)
        }
        Err(error) => Err(error.into()),
    }
}

fn rename_to_new(fresh: &Path, target: &Path) -> io::Result<()> {
    match renameat_with(CWD, fresh, CWD, target, RenameFlags::NOREPLACE) {
        Err(error) if cannot(error) => fs::rename(fresh, target),
        result => result.map_err(Into::into),
    }
}

/// What file systems answer that know only the old call.
fn cannot(error: rustix::io::Errno) -> bool {
    use rustix::io::Errno;

    matches!(error, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
}

/// A new directory, with the permissions that any program would give it, and held.
fn hold_new(parent: &Path) -> io::Result<(TempDir, File)> {
    for _ in 0..ATTEMPTS {
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o777))
            .tempdir_in(parent)?;
        let Ok(held) = File::open(directory.path()) else { continue };
        let is_held = flock(&held, FlockOperation::NonBlockingLockExclusive)
            // File systems without locks have no cleaning either.
            .map_or_else(|error| error != rustix::io::Errno::WOULDBLOCK, |()| true);
        let is_there = |now: fs::Metadata| held.metadata().is_ok_and(|held| held.ino() == now.ino());
        if is_held && fs::symlink_metadata(directory.path()).is_ok_and(is_there) {
            return Ok((directory, held));
        }
    }
    Err(io::Error::other("another program removes the directories that are made"))
}

/// Removes what killed programs left in a directory: what has our names, our marker or nothing in it, and
/// nobody who holds it. What cannot be removed stays for the next time.
fn remove_leftovers(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let path = entry.path();
        let is_ours = || is_marked(&path) || fs::read_dir(&path).is_ok_and(|mut all| all.next().is_none());
        let Ok(open) = File::open(&path) else { continue };
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory && flock(&open, FlockOperation::NonBlockingLockExclusive).is_ok() && is_ours() {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Makes a directory and those above it. Gives those that were missing, the outermost first.
fn make_parents(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let missing = directory.ancestors().take_while(|above| !above.exists());
    let mut missing: Vec<PathBuf> = missing.map(Path::to_owned).collect();
    missing.reverse();
    fs::create_dir_all(directory).inspect_err(|_| remove_empty(&missing))?;
    Ok(missing)
}

fn remove_empty(made: &[PathBuf]) {
    for directory in made.iter().rev() {
        // What somebody else has put something into stays.
        let _ = fs::remove_dir(directory);
    }
}

/// Says whether a file begins with these bytes.
pub(super) fn begins_with(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    let mut read = Vec::with_capacity(bytes.len());
    File::open(path)?.take(bytes.len() as u64).read_to_end(&mut read)?;
    Ok(read == bytes)
}

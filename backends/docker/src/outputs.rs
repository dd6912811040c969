//! Where results go: outputs appear whole or not at all.
//!
//! buildx writes straight to its destination and leaves half a file when it is stopped. So each
//! file, and each directory that does not exist yet, is written beside its place and renamed when
//! the build has succeeded. Into a directory that exists and holds files buildx writes directly:
//! there it merges, as the user knows it.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{TempDir, TempPath};
use windlass_core::Result;
use windlass_core::error::{Error, ErrorKind, ResultExt};
use windlass_core::output::{Destination, Output, OutputKind};

/// The outputs of one build, with places to write them to. Dropping it removes what is unfinished.
#[derive(Debug)]
pub(crate) struct Placed {
    outputs: Vec<PlacedOutput>,
}

#[derive(Debug)]
struct PlacedOutput {
    output: Output,
    beside: Beside,
    destination: Option<PathBuf>,
}

#[derive(Debug)]
enum Beside {
    Nothing,
    File(TempPath),
    Directory(TempDir),
}

impl Placed {
    /// Makes a place beside each destination.
    ///
    /// # Errors
    /// `InvalidInput` if one is a directory or lies in none; `LocalIo` if it cannot be written to.
    pub(crate) fn new(outputs: &[Output], current_dir: &Path) -> Result<Self> {
        let outputs = outputs.iter().map(|output| place(output, current_dir)).collect::<Result<_>>()?;
        Ok(Self { outputs })
    }

    /// The outputs as buildx is told them.
    pub(crate) fn for_buildx(&self) -> impl Iterator<Item = Output> + '_ {
        self.outputs.iter().map(|placed| {
            let mut output = placed.output.clone();
            match &placed.beside {
                Beside::Nothing => {}
                Beside::File(path) => output.destination = Some(Destination::Path(path.to_path_buf())),
                Beside::Directory(directory) => {
                    output.destination = Some(Destination::Path(directory.path().to_owned()));
                }
            }
            output
        })
    }

    /// Puts everything in its place; gives back the places. Blocks while it flushes.
    ///
    /// # Errors
    /// `LocalIo`.
    pub(crate) fn commit(self) -> Result<Vec<PathBuf>> {
        let mut written = Vec::new();
        for placed in self.outputs {
            let Some(destination) = placed.destination else { continue };
            let failed = || format!("could not write `{}`", destination.display());
            match placed.beside {
                Beside::Nothing => {}
                Beside::File(path) => {
                    File::open(&path)
                        .and_then(|file| file.sync_all())
                        .or_error(ErrorKind::LocalIo, failed)?;
                    path.persist(&destination).or_error(ErrorKind::LocalIo, failed)?;
                }
                Beside::Directory(directory) => {
                    let path = directory.keep();
                    if let Err(error) = std::fs::rename(&path, &destination) {
                        // It is ours and incomplete without its name; nothing more can be done if it stays.
                        let _ = std::fs::remove_dir_all(&path);
                        return Err(Error::new(ErrorKind::LocalIo, failed()).with_source(error));
                    }
                }
            }
            written.push(destination);
        }
        Ok(written)
    }
}

fn place(output: &Output, current_dir: &Path) -> Result<PlacedOutput> {
    let destination = match &output.destination {
        Some(Destination::Path(path)) => Some(current_dir.join(path)),
        _ => None,
    };
    let beside = match &destination {
        Some(path) if is_directory(output) => beside_directory(path)?,
        Some(path) => beside_file(path)?,
        None => Beside::Nothing,
    };
    Ok(PlacedOutput { output: output.clone(), beside, destination })
}

fn is_directory(output: &Output) -> bool {
    output.kind == OutputKind::Local || output.flag("tar") == Some(false)
}

fn beside_file(path: &Path) -> Result<Beside> {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => {
            let message = format!("the output `{}` is a directory", path.display());
            return Err(Error::new(ErrorKind::InvalidInput, message).with_hint("name a file in it"));
        }
        // A device or a FIFO, such as `/dev/null`, cannot be replaced.
        Ok(metadata) if !metadata.is_file() => return Ok(Beside::Nothing),
        _ if !parent(path).is_dir() => {
            let message = format!("the directory of the output `{}` does not exist", path.display());
            return Err(Error::new(ErrorKind::InvalidInput, message).with_hint("make the directory first"));
        }
        _ => {}
    }
    let file = tempfile::Builder::new()
        .prefix(&prefix(path))
        // The process's umask takes from this what the user does not want.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(parent(path))
        .or_error(ErrorKind::LocalIo, || format!("could not write `{}`", path.display()))?;
    Ok(Beside::File(file.into_temp_path()))
}

fn beside_directory(path: &Path) -> Result<Beside> {
    let failed = || format!("could not write into `{}`", path.display());
    if path.exists() {
        let mut entries = path.read_dir().or_error(ErrorKind::LocalIo, failed)?;
        if entries.next().is_some() {
            return Ok(Beside::Nothing);
        }
    }
    std::fs::create_dir_all(parent(path)).or_error(ErrorKind::LocalIo, failed)?;
    let directory = tempfile::Builder::new()
        .prefix(&prefix(path))
        .permissions(Permissions::from_mode(0o777))
        .tempdir_in(parent(path))
        .or_error(ErrorKind::LocalIo, failed)?;
    Ok(Beside::Directory(directory))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn prefix(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    format!(".{}.", name.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(text: &str) -> Output {
        text.parse().expect("an output")
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = directory.read_dir().expect("a directory").map(|entry| entry.expect("an entry"));
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_when_it_is_complete() {
        let temporary = TempDir::new().expect("a directory");
        let placed = Placed::new(&[output("type=tar,dest=out.tar")], temporary.path()).expect("writable");
        let told = placed.for_buildx().next().expect("one output");
        let Some(Destination::Path(beside)) = told.destination else { panic!("{told:?}") };
        assert_eq!(beside.parent(), Some(temporary.path()));
        std::fs::write(&beside, "content").expect("written");
        assert!(!temporary.path().join("out.tar").exists());
        assert_eq!(placed.commit().expect("renamed"), [temporary.path().join("out.tar")]);
        assert_eq!(names(temporary.path()), ["out.tar"]);
    }

    #[test]
    fn nothing_is_left_of_a_build_that_failed() {
        let temporary = TempDir::new().expect("a directory");
        std::fs::write(temporary.path().join("old.tar"), "old").expect("written");
        let outputs = [output("type=oci,dest=old.tar"), output("type=local,dest=new")];
        let placed = Placed::new(&outputs, temporary.path()).expect("writable");
        assert_eq!(names(temporary.path()).len(), 3);
        drop(placed);
        assert_eq!(names(temporary.path()), ["old.tar"]);
        assert_eq!(std::fs::read(temporary.path().join("old.tar")).expect("still there"), b"old");
    }

    #[test]
    fn a_new_directory_is_renamed_and_a_full_one_is_written_into() {
        let temporary = TempDir::new().expect("a directory");
        let full = temporary.path().join("full");
        std::fs::create_dir(&full).expect("made");
        std::fs::write(full.join("kept"), "").expect("written");
        let outputs = [output("type=local,dest=a/new"), output("type=oci,tar=false,dest=full")];
        let placed = Placed::new(&outputs, temporary.path()).expect("writable");
        let told: Vec<_> = placed.for_buildx().map(|output| output.destination).collect();
        assert_eq!(told[1], Some(Destination::Path("full".into())));
        placed.commit().expect("renamed");
        assert_eq!(names(temporary.path()), ["a", "full"]);
        assert_eq!(names(&temporary.path().join("a")), ["new"]);
        assert_eq!(names(&full), ["kept"]);
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let temporary = TempDir::new().expect("a directory");
        std::fs::create_dir(temporary.path().join("d")).expect("made");
        for text in ["type=tar,dest=d", "type=tar,dest=missing/x"] {
            let error = Placed::new(&[output(text)], temporary.path()).expect_err("not writable");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        }
    }
}

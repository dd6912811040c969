//! Files that appear whole or not at all: written beside their place, then moved there. What is no
//! regular file (a pipe, a device such as `/dev/null`) is written into: it must not be replaced.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use windlass_core::error::ResultExt;
use windlass_core::{Error, ErrorKind, Result};

/// A file that is being written. Nothing is left of it unless [`WrittenFile::keep`] is called.
#[derive(Debug)]
pub(crate) struct WrittenFile {
    path: PathBuf,
    target: Target,
}

#[derive(Debug)]
enum Target {
    Beside(NamedTempFile),
    Special(File),
}

impl WrittenFile {
    /// Starts a file.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        check_file(path)?;
        let target = if is_special(path) {
            File::options().write(true).open(path).map(Target::Special)
        } else {
            tempfile::Builder::new()
                .prefix(".windlass-")
                // As any program would leave it: the umask decides.
                .permissions(std::fs::Permissions::from_mode(0o666))
                .tempfile_in(directory_of(path))
                .map(Target::Beside)
        };
        let target =
            target.or_error(ErrorKind::LocalIo, || format!("could not write `{}`", path.display()))?;
        Ok(Self { path: path.to_owned(), target })
    }

    /// Takes the content.
    pub(crate) fn writer(&mut self) -> &mut File {
        match &mut self.target {
            Target::Beside(file) => file.as_file_mut(),
            Target::Special(file) => file,
        }
    }

    /// Puts the file in its place.
    pub(crate) fn keep(self) -> Result<()> {
        let Self { path, target } = self;
        let Target::Beside(file) = target else { return Ok(()) };
        let kept = file.as_file().sync_all().and_then(|()| file.persist(&path).map_err(|error| error.error));
        kept.or_error(ErrorKind::LocalIo, || format!("could not write `{}`", path.display())).map(drop)
    }
}

/// Writes a small file.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = WrittenFile::create(path)?;
    file.writer()
        .write_all(content)
        .or_error(ErrorKind::LocalIo, || format!("could not write `{}`", path.display()))?;
    file.keep()
}

/// Finds out before any work that a file could not be written after it.
pub(crate) fn check_writable(path: &Path) -> Result<()> {
    // A pipe is not opened for that: it would wait for its reader, who would see it end.
    if is_special(path) { Ok(()) } else { WrittenFile::create(path).map(drop) }
}

/// Says whether something is there that is neither a regular file nor a directory.
pub(crate) fn is_special(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

fn check_file(path: &Path) -> Result<()> {
    let directory = directory_of(path);
    let message = if path.is_dir() {
        format!("`{}` is a directory, not a file", path.display())
    } else if !directory.is_dir() {
        format!(
            "could not write `{}`: the directory `{}` does not exist",
            path.display(),
            directory.display()
        )
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidInput, message))
}

/// The directory that a file will be in.
fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("out");
        let mut file = WrittenFile::create(&path).expect("created");
        file.writer().write_all(b"half").expect("written");
        drop(file);
        assert_eq!(std::fs::read_dir(directory.path()).expect("readable").count(), 0);
        write(&path, b"whole").expect("written");
        assert_eq!(std::fs::read(&path).expect("readable"), b"whole");
        assert_eq!(write(directory.path(), b"x").expect_err("a directory").kind(), ErrorKind::InvalidInput);
        // As root, a test with `/dev/null` itself could do harm.
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .expect("a pipe");
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read(pipe)
        });
        check_writable(&pipe).expect("not touched");
        write(&pipe, b"through").expect("written");
        assert_eq!(reader.join().expect("reader").expect("read"), b"through");
        assert!(is_special(&pipe));
        let lost = directory.path().join("absent/out");
        assert_eq!(check_writable(&lost).expect_err("no parent").kind(), ErrorKind::InvalidInput);
    }
}

//! Files that appear whole or not at all: written beside their place, then moved there.
//!
//! A link is followed and stays. What is no regular file (a pipe, a device such as `/dev/null`), and
//! whatever the kernel shows below `/dev` and `/proc` (`/dev/stdout`), is written into: replaced, it would
//! be gone for every program on the machine.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Error, ErrorKind, Result, ResultExt};

/// So many links are followed, as by the kernel.
const MOST_LINKS: usize = 40;

/// A file that is being written. Nothing is left of it unless [`WrittenFile::keep`] is called.
#[derive(Debug)]
pub struct WrittenFile {
    path: PathBuf,
    target: Target,
}

#[derive(Debug)]
enum Target {
    /// The file, and the place that it gets.
    Beside(NamedTempFile, PathBuf),
    Into(File),
}

/// Where a file is to be written, links followed.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Beside(PathBuf),
    Into(PathBuf),
}

impl WrittenFile {
    /// Starts a file.
    ///
    /// # Errors
    /// `InvalidInput` for a directory, and where the directory is missing; `LocalIo`.
    pub fn create(path: &Path) -> Result<Self> {
        check_file(path)?;
        let target = place_of(path).and_then(|place| match place {
            Place::Into(place) => open(&place).map(Target::Into),
            Place::Beside(place) => tempfile::Builder::new()
                .prefix(".windlass-")
                // As any program would leave it: the umask decides.
                .permissions(Permissions::from_mode(0o666))
                .tempfile_in(directory_of(&place))
                .map(|file| Target::Beside(file, place)),
        });
        let target = target.or_error(ErrorKind::LocalIo, || failed(path))?;
        Ok(Self { path: path.to_owned(), target })
    }

    /// Takes the content.
    pub fn writer(&mut self) -> &mut File {
        match &mut self.target {
            Target::Beside(file, _) => file.as_file_mut(),
            Target::Into(file) => file,
        }
    }

    /// Puts the file in its place, safe from a crash.
    ///
    /// # Errors
    /// `LocalIo`.
    pub fn keep(self) -> Result<()> {
        let Target::Beside(file, place) = self.target else { return Ok(()) };
        let kept = file.as_file().sync_all().and_then(|()| file.persist(place).map_err(|error| error.error));
        kept.or_error(ErrorKind::LocalIo, || failed(&self.path)).map(drop)
    }
}

/// Writes a small file.
///
/// # Errors
/// As [`WrittenFile::create`].
pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = WrittenFile::create(path)?;
    file.writer().write_all(content).or_error(ErrorKind::LocalIo, || failed(path))?;
    file.keep()
}

/// Finds out before any work that a file could not be written after it.
///
/// # Errors
/// As [`WrittenFile::create`].
pub fn check_writable(path: &Path) -> Result<()> {
    match place_of(path) {
        // A pipe is not opened for that: it would wait for its reader, who would see it end.
        Ok(Place::Into(place)) => {
            check_file(path)?;
            place.metadata().or_error(ErrorKind::LocalIo, || failed(path)).map(drop)
        }
        _ => WrittenFile::create(path).map(drop),
    }
}

/// Says whether a file is written into, and not replaced: it must not be removed either.
pub fn is_special(path: &Path) -> bool {
    matches!(place_of(path), Ok(Place::Into(_)))
}

fn failed(path: &Path) -> String {
    format!("could not write `{}`", path.display())
}

/// Follows links, one after the other: of what `/proc/self/fd/1` leads to, the name alone says nothing.
fn place_of(path: &Path) -> io::Result<Place> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let directory = directory_of(&path).canonicalize()?;
        path = match path.file_name() {
            Some(name) => directory.join(name),
            None => path.canonicalize()?,
        };
        if belongs_to_the_kernel(&path) {
            return Ok(Place::Into(path));
        }
        match path.symlink_metadata() {
            Ok(found) if found.is_symlink() => path = directory.join(path.read_link()?),
            Ok(found) if !found.is_file() && !found.is_dir() => return Ok(Place::Into(path)),
            _ => return Ok(Place::Beside(path)),
        }
    }
    Err(io::Error::other("too many links"))
}

/// Memory that is used like a disk is below `/dev` too.
fn belongs_to_the_kernel(path: &Path) -> bool {
    path.starts_with("/proc") || (path.starts_with("/dev") && !path.starts_with("/dev/shm"))
}

/// Opens what is written into. What this program has open already goes on where it is.
fn open(place: &Path) -> io::Result<File> {
    let own = |number: u32| place == Path::new(&format!("/proc/{}/fd/{number}", std::process::id()));
    if own(1) {
        return io::stdout().as_fd().try_clone_to_owned().map(File::from);
    }
    if own(2) {
        return io::stderr().as_fd().try_clone_to_owned().map(File::from);
    }
    // A file that another one has open keeps what is in it.
    File::options().append(place.is_file()).write(true).open(place)
}

fn check_file(path: &Path) -> Result<()> {
    let directory = directory_of(path);
    let message = if path.is_dir() {
        format!("`{}` is a directory, not a file", path.display())
    } else if !directory.is_dir() {
        format!("{}: the directory `{}` does not exist", failed(path), directory.display())
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
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::symlink;

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

    #[test]
    fn links_stay_and_lead_to_what_is_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("d")).expect("made");
        symlink("d/file", at("link")).expect("a link");
        symlink("link", at("again")).expect("a link");
        for content in [&b"new"[..], b"replaced"] {
            write(&at("again"), content).expect("written");
            assert_eq!(std::fs::read(at("d/file")).expect("readable"), content);
        }
        assert!(at("again").is_symlink() && at("link").is_symlink() && !is_special(&at("again")));
        symlink("circle", at("circle")).expect("a link");
        assert_eq!(write(&at("circle"), b"x").expect_err("endless").kind(), ErrorKind::LocalIo);
    }

    #[test]
    fn what_the_kernel_shows_is_not_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let (link, path) = (directory.path().join("link"), directory.path().join("file"));
        std::fs::write(&path, "old ").expect("written");
        let open = File::options().append(true).open(&path).expect("opened");
        let target = format!("/proc/self/fd/{}", open.as_raw_fd());
        symlink(&target, &link).expect("a link");
        assert!(is_special(&link));
        check_writable(&link).expect("writable");
        write(&link, b"new").expect("written");
        assert_eq!(std::fs::read(&path).expect("readable"), b"old new");
        assert_eq!(std::fs::read_link(&link).expect("a link"), Path::new(&target));
        // Only looked at, never written.
        assert!(is_special(Path::new("/dev/stdout")) && is_special(Path::new("/dev/null")));
        let absent = Path::new("/dev/there-is-no-such-device");
        assert_eq!(check_writable(absent).expect_err("nothing there").kind(), ErrorKind::LocalIo);
        assert!(!is_special(Path::new("/dev/shm/x")) && !is_special(Path::new("/x")));
    }
}

//! A root file system as files below a directory.
//!
//! Everything is written into a fresh directory of ours, where nobody else puts links, and where the
//! parent of each name is a directory that we made: no name can lead out of it. Only when all of
//! it is there is it moved to where it belongs.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use super::merge::{check_merge, merge};
use crate::archive::{TarEntry, TarKind, recover};
use crate::backend::Job;
use crate::error::{Error, ErrorKind, Result};

/// How many names of skipped devices a warning holds.
const NAMES_SHOWN: usize = 5;

pub(super) struct DirectoryTarget<'a> {
    dest: PathBuf,
    work: tempfile::TempDir,
    super_user: bool,
    /// Directories get their bits and times last: they may forbid writing, and writing changes times.
    directories: Vec<TarEntry>,
    skipped: Vec<String>,
    finished: bool,
    job: &'a Job,
}

impl<'a> DirectoryTarget<'a> {
    pub(super) fn new(dest: &Path, job: &'a Job) -> Result<Self> {
        let failed = |error| failed(dest, error);
        let exists = match fs::metadata(dest) {
            Ok(metadata) if metadata.is_dir() => true,
            Ok(_) => return Err(failed(io::Error::other("it exists and is no directory"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(failed(error)),
        };
        // Beside or inside: in any case in the same file system.
        let parent = match dest.parent() {
            _ if exists => dest,
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(failed)?;
        let work = tempfile::Builder::new().prefix(".windlass-").tempdir_in(parent).map_err(failed)?;
        Ok(Self {
            dest: dest.to_owned(),
            work,
            super_user: rustix::process::geteuid().is_root(),
            directories: Vec::new(),
            skipped: Vec::new(),
            finished: false,
            job,
        })
    }

    fn path(&self, name: &[u8]) -> PathBuf {
        self.work.path().join(OsStr::from_bytes(name))
    }

    /// Gives the directories their final form, and moves everything to where it belongs.
    pub(super) fn finish(mut self) -> Result<()> {
        self.place()?;
        self.finished = true;
        Ok(())
    }

    fn place(&mut self) -> Result<()> {
        let failed = |error| failed(&self.dest, error);
        if !self.skipped.is_empty() {
            let shown = self.skipped[..self.skipped.len().min(NAMES_SHOWN)].join(", ");
            let count = self.skipped.len();
            self.job.events.warn(format!(
                "{count} device nodes were left out, which only the super-user can make: {shown}"
            ));
        }
        // Children first: a parent may forbid to change what is in it.
        for entry in self.directories.iter().rev().filter(|entry| !entry.path.is_empty()) {
            self.job.check()?;
            self.set_attributes(entry).map_err(failed)?;
        }
        let root = self.directories.iter().find(|entry| entry.path.is_empty());
        // Made for us alone; now it becomes what users expect of a directory.
        let mode = root.map_or(0o755, |entry| entry.mode & 0o777 | 0o700);
        fs::set_permissions(self.work.path(), fs::Permissions::from_mode(mode)).map_err(failed)?;
        if fs::symlink_metadata(&self.dest).is_err() {
            fs::rename(self.work.path(), &self.dest).map_err(failed)?;
            self.work.disable_cleanup(true);
            return Ok(());
        }
        check_merge(self.work.path(), &self.dest).map_err(failed)?;
        merge(self.work.path(), &self.dest).map_err(failed)
    }

    fn set_attributes(&self, entry: &TarEntry) -> io::Result<()> {
        let path = self.path(&entry.path);
        let is_link = matches!(entry.kind, TarKind::Symlink { .. });
        if self.super_user {
            let id = |number: u64| u32::try_from(number).map_err(io::Error::other);
            std::os::unix::fs::lchown(&path, Some(id(entry.uid)?), Some(id(entry.gid)?))?;
        }
        if !is_link {
            // After the owner: a change of it clears set-uid bits.
            fs::set_permissions(&path, fs::Permissions::from_mode(entry.mode))?;
            for (name, value) in &entry.xattrs {
                set_xattr(&path, name, value)?;
            }
        }
        let time = Timespec { tv_sec: entry.mtime, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        Ok(rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn make(&mut self, entry: &TarEntry, content: &mut dyn Read) -> io::Result<()> {
        let path = self.path(&entry.path);
        match &entry.kind {
            TarKind::Directory => {
                if !entry.path.is_empty() {
                    fs::DirBuilder::new().mode(0o700).create(&path)?;
                }
                self.directories.push(entry.clone());
                return Ok(());
            }
            TarKind::File { .. } => {
                let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
                io::copy(content, &mut file)?;
            }
            TarKind::Symlink { target } => symlink(OsStr::from_bytes(target), &path)?,
            // The file it names is there, with its attributes.
            TarKind::HardLink { target } => return fs::hard_link(self.path(target), &path),
            TarKind::CharDevice { .. } | TarKind::BlockDevice { .. } | TarKind::Fifo => {
                match make_node(&path, &entry.kind) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        self.skipped.push(String::from_utf8_lossy(&entry.path).into_owned());
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        self.set_attributes(entry)
    }
}

/// After a failure directories may have their final bits already, which may forbid to clear them away.
impl Drop for DirectoryTarget<'_> {
    fn drop(&mut self) {
        for entry in self.directories.iter().filter(|_| !self.finished) {
            let _ = fs::set_permissions(self.path(&entry.path), fs::Permissions::from_mode(0o700));
        }
    }
}

impl DirectoryTarget<'_> {
    /// Adds one member. Directories come before what is in them, a file before its hard links;
    /// the root comes first, with an empty path.
    pub(super) fn add(&mut self, entry: &TarEntry, content: &mut dyn Read) -> Result<()> {
        self.make(entry, content).map_err(|error| {
            recover(error, |error| {
                let shown = String::from_utf8_lossy(&entry.path).into_owned();
                failed(&self.dest, error).with_detail("file", shown)
            })
        })
    }
}

#[cfg(not(target_vendor = "apple"))]
fn make_node(path: &Path, kind: &TarKind) -> io::Result<()> {
    use rustix::fs::{FileType, Mode, makedev, mknodat};
    let (file_type, device) = match kind {
        TarKind::CharDevice { major, minor } => (FileType::CharacterDevice, makedev(*major, *minor)),
        TarKind::BlockDevice { major, minor } => (FileType::BlockDevice, makedev(*major, *minor)),
        _ => (FileType::Fifo, 0),
    };
    Ok(mknodat(CWD, path, file_type, Mode::RUSR | Mode::WUSR, device)?)
}

#[cfg(target_vendor = "apple")]
fn make_node(_: &Path, _: &TarKind) -> io::Result<()> {
    Err(io::ErrorKind::PermissionDenied.into())
}

/// Sets an extended attribute. What the file system does not know, or only the super-user may set,
/// is left out, as `docker`'s own exporter does.
fn set_xattr(path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
    match xattr::set(path, OsStr::from_bytes(name), value) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) =>
        {
            Ok(())
        }
        result => result,
    }
}

fn failed(dest: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::LocalIo, format!("could not write the root file system to `{}`", dest.display()))
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ImageStore;
    use crate::image::root_filesystem::root_filesystem_dir;
    use crate::image::tests::{file, image, link};
    use std::os::unix::fs::MetadataExt;

    fn export(layers: &[Vec<(TarEntry, &'static str)>], dest: &Path) -> Result<()> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = ImageStore::open(dir.path()).expect("store");
        root_filesystem_dir(&store, &image(&store, layers), dest, &Job::silent())
    }

    #[test]
    fn files_come_out_with_bits_times_and_links() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let dest = dir.path().join("new/root");
        let closed = (TarEntry::new("closed", TarKind::Directory, 0o555), "");
        let hard = (TarEntry::new("closed/b", TarKind::HardLink { target: b"closed/a".to_vec() }, 0), "");
        export(&[vec![closed, file("closed/a", "text"), hard, link("l", "/nowhere")]], &dest)
            .expect("written");
        let a = fs::metadata(dest.join("closed/a")).expect("a");
        assert_eq!((a.mode() & 0o7777, a.mtime(), a.nlink()), (0o644, crate::archive::DEFAULT_EPOCH, 2));
        let directory = fs::metadata(dest.join("closed")).expect("closed");
        assert_eq!((directory.mode() & 0o7777, directory.mtime()), (0o555, crate::archive::DEFAULT_EPOCH));
        assert_eq!(fs::read_link(dest.join("l")).expect("link"), Path::new("/nowhere"));
        fs::set_permissions(dest.join("closed"), fs::Permissions::from_mode(0o755)).expect("open up");
    }

    /// Only shows something where the tests are not run by the super-user.
    #[test]
    fn closed_directories_can_be_moved_and_cleared_away() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let dest = dir.path().join("root");
        let closed = || (TarEntry::new("closed", TarKind::Directory, 0o555), "");
        let below = || (TarEntry::new("closed/below", TarKind::Directory, 0o500), "");
        let members = || vec![closed(), below(), file("closed/below/a", "text")];
        let mode = |path: &str| fs::metadata(dest.join(path)).expect("there").mode() & 0o7777;
        fs::create_dir(&dest).expect("dest");
        for _ in 0..2 {
            export(&[members()], &dest).expect("written");
            assert_eq!((mode("closed"), mode("closed/below")), (0o555, 0o500));
        }
        let job = Job::silent();
        let mut target = DirectoryTarget::new(&dest, &job).expect("begun");
        for (entry, _) in [closed(), below()] {
            target.add(&entry, &mut io::empty()).expect("added");
        }
        for entry in target.directories.iter().rev() {
            target.set_attributes(entry).expect("set");
        }
        drop(target);
        assert_eq!(fs::read_dir(&dest).expect("dest").count(), 1);
        for path in ["closed", "closed/below"] {
            fs::set_permissions(dest.join(path), fs::Permissions::from_mode(0o755)).expect("open up");
        }
    }

    #[test]
    fn no_link_leads_out_of_the_root() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).expect("outside");
        let dest = dir.path().join("root");
        let layers = [
            vec![link("out", outside.to_str().expect("utf-8")), link("up", "../outside")],
            vec![file("out/x", "1"), file("up/y", "2")],
        ];
        export(&layers, &dest).expect("written");
        assert_eq!(fs::read_dir(&outside).expect("outside").count(), 0);
        // Both links lead to places inside the root, which were made there.
        assert_eq!(fs::read_to_string(dest.join("outside/y")).expect("inside"), "2");
    }

    #[test]
    fn an_existing_directory_is_merged_and_its_links_are_not_followed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let dest = dir.path().join("root");
        let outside = dir.path().join("outside");
        fs::create_dir_all(dest.join("d")).expect("dest");
        fs::create_dir(&outside).expect("outside");
        fs::write(dest.join("d/kept"), "kept").expect("kept");
        symlink(&outside, dest.join("e")).expect("link");
        export(&[vec![file("d/x", "1"), file("e/y", "2"), file("kept", "3")]], &dest).expect("written");
        assert_eq!(fs::read_to_string(dest.join("d/kept")).expect("kept"), "kept");
        assert_eq!(fs::read_to_string(dest.join("d/x")).expect("new"), "1");
        assert_eq!(fs::read_to_string(dest.join("e/y")).expect("new"), "2");
        assert_eq!(fs::read_dir(&outside).expect("outside").count(), 0);
        let names = fs::read_dir(&dest).expect("dest").flatten().map(|entry| entry.file_name());
        assert!(names.into_iter().all(|name| !name.as_bytes().starts_with(b".windlass")));
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let dest = dir.path().join("root");
        let bad = (TarEntry::new("x", TarKind::HardLink { target: b"none".to_vec() }, 0), "");
        assert!(export(&[vec![file("a", "1"), bad]], &dest).is_err());
        assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 0);
    }
}

//! Moving a finished file system into a directory that has other things in it.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, Timespec, Timestamps};

/// Asks whether [`merge`] will get through, so that it does not stop half-way: whether every directory that gets
/// something may be changed by us, and is in the same file system.
pub(super) fn check_merge(from: &Path, to: &Path) -> io::Result<()> {
    let there = fs::symlink_metadata(to)?;
    if there.dev() != fs::symlink_metadata(from)?.dev() {
        return Err(refused(to, io::ErrorKind::CrossesDevices));
    }
    rustix::fs::access(to, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| at(to, error.into()))?;
    check_below(from, to)
}

fn check_below(from: &Path, to: &Path) -> io::Result<()> {
    let we = rustix::process::geteuid();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let Ok(there) = fs::symlink_metadata(&target) else { continue };
        if !there.is_dir() {
            continue;
        }
        // Mounted here: it can be neither filled by moving nor replaced.
        if there.dev() != entry.metadata()?.dev() {
            return Err(refused(&target, io::ErrorKind::CrossesDevices));
        }
        // Only its owner gives a directory other permissions.
        if !we.is_root() && there.uid() != we.as_raw() {
            return Err(refused(&target, io::ErrorKind::PermissionDenied));
        }
        if entry.file_type()?.is_dir() {
            check_below(&entry.path(), &target)?;
        }
    }
    Ok(())
}

fn refused(path: &Path, kind: io::ErrorKind) -> io::Error {
    at(path, kind.into())
}

fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
}

/// Moves what is in one directory into another. Directories are merged, all else is replaced; a
/// link at the destination is replaced too, not followed.
pub(super) fn merge(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let there = fs::symlink_metadata(&target);
        let is_directory = entry.file_type()?.is_dir();
        match there {
            Ok(there) if there.is_dir() && is_directory => {
                let attributes = entry.metadata()?;
                // Ours may forbid to take its content out, and the other to put it in.
                fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o700))?;
                let closed = there.mode() & 0o300 != 0o300;
                if closed {
                    fs::set_permissions(&target, fs::Permissions::from_mode(there.mode() | 0o700))?;
                }
                let merged = merge(&entry.path(), &target);
                if merged.is_err() && closed {
                    let _ = fs::set_permissions(&target, there.permissions());
                }
                merged?;
                take_over(&target, &attributes)?;
                continue;
            }
            Ok(there) if there.is_dir() => fs::remove_dir_all(&target)?,
            Ok(_) if is_directory => fs::remove_file(&target)?,
            _ => {}
        }
        if is_directory {
            rename_directory(&entry.path(), &target)?;
        } else {
            fs::rename(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Moves a directory. Its owner may do that only while it may be written: the entry `..` changes.
fn rename_directory(from: &Path, to: &Path) -> io::Result<()> {
    let permissions = fs::symlink_metadata(from)?.permissions();
    let closed = permissions.mode() & 0o200 == 0;
    if closed {
        fs::set_permissions(from, fs::Permissions::from_mode(0o700))?;
    }
    fs::rename(from, to)?;
    if closed {
        fs::set_permissions(to, permissions)?;
    }
    Ok(())
}

/// Gives a directory that was there the attributes of the one that is merged into it.
fn take_over(directory: &Path, attributes: &fs::Metadata) -> io::Result<()> {
    let there = fs::symlink_metadata(directory)?;
    if (there.uid(), there.gid()) != (attributes.uid(), attributes.gid()) {
        std::os::unix::fs::lchown(directory, Some(attributes.uid()), Some(attributes.gid()))?;
    }
    fs::set_permissions(directory, attributes.permissions())?;
    let time = Timespec { tv_sec: attributes.mtime(), tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, directory, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_another_file_system_is_noticed_before_anything_is_moved() {
        let from = tempfile::tempdir().expect("directory");
        fs::create_dir(from.path().join("a")).expect("directory");
        fs::write(from.path().join("a/x"), "x").expect("file");
        // Wherever tests run, this is not the file system of temporary files.
        let error = check_merge(from.path(), Path::new("/proc")).expect_err("another file system");
        assert!(error.to_string().contains("/proc"), "{error}");
        let to = tempfile::tempdir().expect("directory");
        fs::create_dir(to.path().join("a")).expect("directory");
        check_merge(from.path(), to.path()).expect("it can be done");
        merge(from.path(), to.path()).expect("done");
        assert!(to.path().join("a/x").exists());
    }
}

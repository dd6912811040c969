//! What is never emptied, whatever the marker says.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::FolderGuard;
use crate::error::{Error, ErrorKind, Result};

/// More names than this do not help.
const MOST_NAMES: usize = 3;

/// What tells that a directory is the root of somebody's history.
const REPOSITORIES: [&str; 4] = [".git", ".hg", ".jj", ".svn"];

/// A file of its own, whatever paths lead to it: device and number.
type Identity = (u64, u64);

/// Makes a path absolute and follows its links; parts that do not exist yet stay as they are.
pub(super) fn resolve(typed: &Path, current_dir: &Path) -> Result<PathBuf> {
    if typed.as_os_str().is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, "the name of the output directory is empty"));
    }
    let mut real = PathBuf::from("/");
    for part in current_dir.join(typed).components() {
        match part {
            Component::Normal(name) => real = follow(&real.join(name), typed)?,
            // Of what is real, this is the parent: links are behind us.
            Component::ParentDir => drop(real.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(real)
}

fn follow(path: &Path, typed: &Path) -> Result<PathBuf> {
    let shown = typed.display();
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => fs::canonicalize(path).map_err(|error| {
            let message =
                format!("`{shown}` goes through the link `{}`, which leads nowhere", path.display());
            Error::new(ErrorKind::InvalidInput, message).with_source(error)
        }),
        Ok(_) => Ok(path.to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            let message = format!("`{shown}` would lie inside a file");
            Err(Error::new(ErrorKind::InvalidInput, message).with_hint("name a new directory"))
        }
        Err(error) => {
            let message = format!("could not look at `{}`", path.display());
            Err(Error::new(ErrorKind::LocalIo, message).with_source(error))
        }
    }
}

/// Refuses directories that lie inside a source, or have one inside.
pub(super) fn refuse_sources(shown: &Path, path: &Path, guard: &FolderGuard<'_>) -> Result<()> {
    for source in guard.sources {
        let Ok(real) = fs::canonicalize(guard.current_dir.join(source)) else { continue };
        let relation = if is_within(path, &real) {
            "lies in"
        } else if is_within(&real, path) {
            "contains"
        } else {
            continue;
        };
        let source = as_said(source, guard.current_dir);
        let message = format!("`{}` {relation} the source directory `{}`", shown.display(), source.display());
        return Err(Error::new(ErrorKind::InvalidInput, message)
            .with_hint("name an output directory beside the sources"));
    }
    Ok(())
}

/// A path as somebody in the current directory says it: from there, and without `.` in it.
fn as_said(path: &Path, current_dir: &Path) -> PathBuf {
    let said: PathBuf = path.strip_prefix(current_dir).unwrap_or(path).components().collect();
    if said.as_os_str().is_empty() { ".".into() } else { said }
}

/// Refuses directories that hold more than an output.
pub(super) fn refuse_to_empty(shown: &Path, path: &Path, guard: &FolderGuard<'_>) -> Result<()> {
    let refuse = |why: String| {
        let message = format!("`{}` is not emptied: {why}", shown.display());
        Err(Error::new(ErrorKind::InvalidInput, message).with_hint("name a directory for this output alone"))
    };
    if path == Path::new("/") {
        return refuse("it is the root of the file system".to_owned());
    }
    for (place, name) in [(guard.home_dir, "home directory"), (Some(guard.current_dir), "current directory")]
    {
        let Some(place) = place.and_then(|place| fs::canonicalize(place).ok()) else { continue };
        if is_same(path, &place) {
            return refuse(format!("it is the {name}"));
        }
        if is_within(&place, path) {
            return refuse(format!("the {name} lies in it"));
        }
    }
    if let Some(name) = REPOSITORIES.iter().find(|name| fs::symlink_metadata(path.join(name)).is_ok()) {
        return refuse(format!("it is the root of a repository, with `{name}`"));
    }
    if ["HEAD", "objects", "refs"].iter().all(|name| path.join(name).exists()) {
        return refuse("it is a git repository".to_owned());
    }
    if let Some(mount) = mount_points().into_iter().find(|mount| mount.starts_with(path)) {
        let what = if mount == path { "it is a mount point" } else { "something is mounted in it" };
        return refuse(format!("{what} (`{}`)", mount.display()));
    }
    Ok(())
}

/// The refusal of a directory with content that windlass did not write.
pub(super) fn foreign(shown: &Path, path: &Path, guard: &FolderGuard<'_>) -> Error {
    let mut names: Vec<String> = fs::read_dir(path)
        .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .map(Iterator::collect)
        .unwrap_or_default();
    names.sort();
    let (named, rest) = names.split_at(names.len().min(MOST_NAMES));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    let named: Vec<String> = named.iter().map(|name| format!("`{name}`")).collect();
    let message = format!(
        "`{}` is not emptied: windlass did not make it, and it holds {}{more}",
        shown.display(),
        named.join(", ")
    );
    let error = Error::new(ErrorKind::InvalidInput, message)
        .with_hint("name a new directory, or one that holds nothing");
    match guard.force_option {
        "" => error,
        option => error.with_hint(format!("`{option}` empties it all the same")),
    }
}

/// Says whether the first directory is the second, or lies in it. Bind mounts and letter case do not
/// deceive it: files are compared, not names.
fn is_within(path: &Path, directory: &Path) -> bool {
    if path.starts_with(directory) {
        return true;
    }
    let Some(wanted) = identity(directory) else { return false };
    path.ancestors().any(|above| identity(above) == Some(wanted))
}

fn is_same(path: &Path, other: &Path) -> bool {
    path == other || identity(path).is_some_and(|found| identity(other) == Some(found))
}

fn identity(path: &Path) -> Option<Identity> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// Where file systems are mounted; empty where the kernel does not say.
fn mount_points() -> Vec<PathBuf> {
    let Ok(table) = fs::read("/proc/self/mountinfo") else { return Vec::new() };
    let lines = table.split(|byte| *byte == b'\n');
    lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4)).map(unescaped).collect()
}

/// Spaces and the like stand as `\040` there: proc(5).
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, others)) = rest.split_first() {
        let digits = others.get(..3).filter(|_| *first == b'\\');
        let value = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { &others[3..] } else { others };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        for (field, path) in [(&b"/a\\040b\\134"[..], "/a b\\"), (b"/a\\04", "/a\\04"), (b"/\\x", "/\\x")] {
            assert_eq!(unescaped(field), Path::new(path));
        }
        assert!(mount_points().contains(&PathBuf::from("/")));
    }
}

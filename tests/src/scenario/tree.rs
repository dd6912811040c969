//! The files of a scenario, as data and on disk.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};

use super::{Places, Scenario};

/// One thing on disk.
#[derive(Debug, Clone)]
pub struct Item {
    /// Where, relative to the scenario's root: bytes, for a name need not be UTF-8.
    pub path: Vec<u8>,
    /// What.
    pub content: Content,
    /// Permission bits: 0644 or 0755 if not said.
    pub mode: Option<u32>,
    /// Extended attributes.
    pub xattrs: Vec<(&'static str, &'static str)>,
}

/// What an item is.
#[derive(Debug, Clone)]
pub enum Content {
    /// A file with these bytes.
    Bytes(Vec<u8>),
    /// A directory.
    Directory,
    /// A symbolic link to this.
    Symlink(Vec<u8>),
    /// Another name of the file at this path.
    HardLink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Scenario {
    /// A file of the context. Parents come by themselves.
    #[must_use]
    pub fn file(self, path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        self.item("context", path, Content::Bytes(content.as_ref().to_vec()))
    }

    /// Several empty files of the context.
    #[must_use]
    pub fn files(self, paths: &[&str]) -> Self {
        paths.iter().fold(self, |scenario, path| scenario.file(path, ""))
    }

    /// A directory of the context, of which nothing else need be said when files in it are.
    #[must_use]
    pub fn directory(self, path: impl AsRef<[u8]>) -> Self {
        self.item("context", path, Content::Directory)
    }

    /// A symbolic link of the context.
    #[must_use]
    pub fn symlink(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.item("context", path, Content::Symlink(target.as_ref().to_vec()))
    }

    /// A second name of a file of the context.
    #[must_use]
    pub fn hard_link(self, path: impl AsRef<[u8]>, first: &str) -> Self {
        let first = format!("context/{first}").into_bytes();
        self.item("context", path, Content::HardLink(first))
    }

    /// A thing of the context that is no file, directory or link.
    #[must_use]
    pub fn special(self, path: &str, content: Content) -> Self {
        self.item("context", path, content)
    }

    /// A file beside the context: a path relative to the scenario's root.
    #[must_use]
    pub fn beside(self, path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        self.item("", path, Content::Bytes(content.as_ref().to_vec()))
    }

    /// The permission bits of the last item.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.items.last_mut().expect("a mode belongs to an item").mode = Some(mode);
        self
    }

    /// An extended attribute of the last item.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn xattr(mut self, name: &'static str, value: &'static str) -> Self {
        self.items.last_mut().expect("an attribute belongs to an item").xattrs.push((name, value));
        self
    }

    /// Any item, with a path relative to the scenario's root.
    #[must_use]
    pub fn with_item(mut self, item: Item) -> Self {
        self.items.push(item);
        self
    }

    fn item(mut self, within: &str, path: impl AsRef<[u8]>, content: Content) -> Self {
        let path = [within.as_bytes(), path.as_ref()].join(&b'/');
        self.items.push(Item { path, content, mode: None, xattrs: Vec::new() });
        self
    }

    /// Writes all files of the scenario, the Dockerfile among them, into the root that `places` names.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn write(&self, places: &Places) -> io::Result<()> {
        let root = Path::new(&places.root);
        make_directory(&root.join("context"))?;
        if let Some(content) = &self.dockerfile {
            let path = root.join("context").join(self.dockerfile_path);
            write_item(root, &path, &Content::Bytes(places.fill_bytes(content)), None)?;
        }
        for item in &self.items {
            let path = root.join(relative(&item.path));
            write_item(root, &path, &item.content, item.mode)?;
            for (name, value) in &item.xattrs {
                setxattr(&path, *name, value.as_bytes(), XattrFlags::empty())?;
            }
        }
        // Modes of directories last, in case one keeps us from writing into it.
        for item in &self.items {
            if let (Content::Directory, Some(mode)) = (&item.content, item.mode) {
                fs::set_permissions(root.join(relative(&item.path)), Permissions::from_mode(mode))?;
            }
        }
        Ok(())
    }
}

fn relative(path: &[u8]) -> &Path {
    let path = Path::new(OsStr::from_bytes(path));
    path.strip_prefix("/").unwrap_or(path)
}

fn write_item(root: &Path, path: &Path, content: &Content, mode: Option<u32>) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        make_directory(parent)?;
    }
    // A scenario may be written again over itself; links and the like cannot be made twice.
    if !matches!(content, Content::Bytes(_) | Content::Directory) && path.symlink_metadata().is_ok() {
        fs::remove_file(path)?;
    }
    match content {
        Content::Bytes(bytes) => {
            fs::write(path, bytes)?;
            fs::set_permissions(path, Permissions::from_mode(mode.unwrap_or(0o644)))
        }
        Content::Directory => make_directory(path),
        Content::Symlink(target) => symlink(OsStr::from_bytes(target), path),
        Content::HardLink(first) => fs::hard_link(root.join(relative(first)), path),
        Content::Fifo => Ok(mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o644), 0)?),
        Content::Socket => UnixListener::bind(path).map(drop),
    }
}

/// Makes a directory and its parents with a mode that does not depend on the umask.
fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directory(parent)?;
    }
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

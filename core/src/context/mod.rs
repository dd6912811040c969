//! The build context: a virtual tree, seen through the ignore file.
//!
//! A [`Context`] is a directory on disk, further directories at places of their own ([`Context::mount`]),
//! entries that exist only in memory, or all of these. Listing it gives its [`Entry`]s in the order of
//! their paths; nothing is copied to build it. What is left out is decided by [`IgnoreRules`].
//! [`crate::archive::pack`] writes a context as an archive.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::Result;
use crate::backend::Job;
use crate::error::{Error, ErrorKind};

mod content;
mod dockerignore;
mod entry;
mod git_patterns;
mod mount;
mod overlay;
mod path;
mod pattern;
mod queue;
mod settings;
mod walk;
mod warnings;

pub use content::Content;
pub(crate) use content::read_error;
pub use dockerignore::{Decision, IgnoreRules};
pub use entry::{DiskState, Entry, EntryKind, EntrySource};
pub use mount::{Links, Mount};
pub use path::ContextPath;
pub use settings::{ContextSettings, DEFAULT_SECRET_PATTERNS, Modes};
pub use warnings::warnings;

/// A build context. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Context {
    root: Option<PathBuf>,
    mounts: mount::Mounts,
    memory: Arc<BTreeMap<ContextPath, Entry>>,
    ignore: Arc<IgnoreRules>,
    always_sent: Vec<ContextPath>,
    settings: Arc<ContextSettings>,
    /// The first listing, shared by clones.
    listed: Arc<OnceLock<Arc<[Entry]>>>,
}

impl Context {
    /// Takes a directory on disk, with its ignore file: `<name>.dockerignore` beside the
    /// Dockerfile `dockerfile` if there is one, else `.dockerignore` in `root`.
    ///
    /// # Errors
    /// `InvalidInput` if `root` is no directory, or the ignore file has an invalid pattern;
    /// `ContextUnreadable` if the ignore file cannot be read.
    pub fn from_dir(root: &Path, dockerfile: Option<&Path>, settings: &ContextSettings) -> Result<Self> {
        mount::check_directory(root, "the build context")?;
        let mut context = Self::empty();
        context.root = Some(root.to_owned());
        context.settings = Arc::new(settings.clone());
        if let Some(dockerfile) = dockerfile {
            context.send_always(dockerfile);
        }
        if let Some((file, content)) = read_ignore_file(root, dockerfile)? {
            context.send_always(&file);
            if settings.ignore {
                context.ignore = Arc::new(IgnoreRules::parse(&content, &shown(&file, root))?);
            }
        }
        Ok(context)
    }

    /// A context without entries.
    pub fn empty() -> Self {
        Self {
            root: None,
            mounts: mount::Mounts::default(),
            memory: Arc::default(),
            ignore: Arc::default(),
            always_sent: Vec::new(),
            settings: Arc::default(),
            listed: Arc::default(),
        }
    }

    /// A context without entries that is read so once it has some.
    pub fn with_settings(settings: &ContextSettings) -> Self {
        Self { settings: Arc::new(settings.clone()), ..Self::empty() }
    }

    /// Lets a directory on disk appear at a place of the context, as far as `ignore` does not leave it out. It
    /// hides what the context had there and below, but for entries in memory. Missing directories above
    /// it come by themselves. Its own ignore file counts only where `ignore` was read from it.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such directory, or something is mounted at `at` already;
    /// `ContextUnreadable`.
    pub fn mount(
        &mut self,
        at: ContextPath,
        directory: &Path,
        ignore: IgnoreRules,
        links: Links,
    ) -> Result<()> {
        mount::check_directory(directory, "the source")?;
        if at.is_root() && self.root.is_some() {
            return Err(mount::taken_twice(&at));
        }
        let (directory, ignore) = (directory.to_owned(), Arc::new(ignore));
        self.mounts.add(Mount { at, directory, ignore, links })?;
        self.listed = Arc::default();
        Ok(())
    }

    /// The directories that were mounted, outer ones before those inside them.
    pub fn mounts(&self) -> &[Mount] {
        self.mounts.all()
    }

    /// All directories on disk that entries come from.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        let mounted = self.mounts.all().iter().map(|mount| mount.directory.as_path());
        self.root.as_deref().into_iter().chain(mounted)
    }

    /// Where the disk would have an entry of this path, listed or not; `None` if no directory is there.
    pub fn on_disk(&self, path: &ContextPath) -> Option<PathBuf> {
        match self.mounts.of(path) {
            Some((mount, inside)) => Some(mount.directory.join(inside.as_path())),
            None => Some(self.root.as_ref()?.join(path.as_path())),
        }
    }

    /// Which line of an ignore file decided about a path on disk; `None` if no rule speaks about it, so
    /// that it is sent.
    pub fn decision(&self, path: &ContextPath) -> Option<Decision> {
        match self.mounts.of(path) {
            Some((mount, inside)) => mount.ignore.decision(&inside),
            None => self.ignore.decision(path),
        }
    }

    /// The directory that is the whole context, but for what was mounted or inserted, if there is one.
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// How the context is read.
    pub fn settings(&self) -> &ContextSettings {
        &self.settings
    }

    /// The rules of the ignore file of the root.
    pub fn ignore(&self) -> &IgnoreRules {
        &self.ignore
    }

    /// What a builder elsewhere needs although COPY may not see it: the Dockerfile and the ignore
    /// file, where they lie inside.
    pub fn always_sent(&self) -> &[ContextPath] {
        &self.always_sent
    }

    /// The place of a file on disk in this context; `None` if it lies outside.
    pub fn place_of(&self, file: &Path) -> Option<ContextPath> {
        inside(self.root.as_deref()?, file)
    }

    /// Adds a file that exists only in memory. It stands before an entry of the same path on disk,
    /// and the ignore file does not apply to it. Missing directories above it come by themselves.
    pub fn insert(&mut self, path: ContextPath, content: impl Into<Bytes>, mode: u32) {
        let content = content.into();
        let kind = EntryKind::File { size_bytes: content.len() as u64 };
        self.insert_entry(path, kind, mode, content);
    }

    /// Adds a symbolic link that exists only in memory.
    pub fn insert_symlink(&mut self, path: ContextPath, target: impl Into<Vec<u8>>) {
        self.insert_entry(path, EntryKind::Symlink { target: target.into() }, 0o777, Bytes::new());
    }

    /// Adds a directory that exists only in memory.
    pub fn insert_directory(&mut self, path: ContextPath, mode: u32) {
        self.insert_entry(path, EntryKind::Directory, mode, Bytes::new());
    }

    /// The entries that exist only in memory, in the order of their paths.
    pub fn in_memory(&self) -> impl Iterator<Item = &Entry> {
        self.memory.values()
    }

    /// Lists what COPY sees: everything that is not excluded, and the directories above it, in
    /// the order of the path bytes. Without the root. Sockets, FIFOs and devices are left out
    /// with a warning. Blocking; walks on several threads.
    ///
    /// # Errors
    /// `ContextUnreadable`, naming the path; `Cancelled`.
    pub fn list(&self, job: &Job) -> Result<Vec<Entry>> {
        let modes = self.settings.modes;
        let mut entries = match &self.root {
            Some(root) => walk::Walk::of_root(root, &self.ignore, modes, job).entries()?,
            None => Vec::new(),
        };
        for mount in self.mounts.all() {
            let mut mounted = walk::Walk::of_mount(mount, modes, job).entries()?;
            mounted.splice(..0, walk::mount_point(mount, modes)?);
            overlay::remove_below(&mut entries, &mount.at);
            entries = overlay::lay_over(entries, mounted);
        }
        if !self.memory.is_empty() {
            entries = overlay::lay_over(entries, self.memory.values().cloned().collect());
        }
        Ok(entries)
    }

    /// Gives what [`Context::list`] gave the first time, for this context and its clones: what several
    /// parts of a program do with one listing, they do with the same files, or fail.
    ///
    /// # Errors
    /// As [`Context::list`].
    pub fn list_once(&self, job: &Job) -> Result<Arc<[Entry]>> {
        if let Some(listed) = self.listed.get() {
            return Ok(listed.clone());
        }
        let entries = self.list(job)?;
        Ok(self.listed.get_or_init(|| entries.into()).clone())
    }

    /// Lists what is sent to a builder elsewhere: what [`Context::list_once`] gives, the Dockerfile and
    /// the ignore file.
    ///
    /// # Errors
    /// As [`Context::list`].
    pub fn list_to_send(&self, job: &Job) -> Result<Vec<Entry>> {
        let mut entries = self.list_once(job)?.to_vec();
        let Some(root) = &self.root else { return Ok(entries) };
        for path in self.always_sent.iter().filter(|path| self.mounts.of(path).is_none()) {
            let mut wanted = Some(path.clone());
            while let Some(path) = wanted.filter(|path| !path.is_root()) {
                let Err(place) = entries.binary_search_by(|entry| entry.path.cmp(&path)) else { break };
                wanted = path.parent();
                if let Some(entry) = walk::single(root, path, self.settings.modes)? {
                    entries.insert(place, entry);
                }
            }
        }
        Ok(entries)
    }

    /// Opens the content of a file that was listed.
    ///
    /// # Errors
    /// `ContextUnreadable`, naming the path. The same, inside an I/O error, comes out of reading
    /// if the file is not what it was when it was listed.
    pub fn open(&self, entry: &Entry) -> Result<Content> {
        let links = self.mounts.of(&entry.path).map_or(Links::Keep, |(mount, _)| mount.links);
        Content::open(entry, || self.on_disk(&entry.path), links)
    }

    fn insert_entry(&mut self, path: ContextPath, kind: EntryKind, mode: u32, content: Bytes) {
        let source = EntrySource::Memory(content);
        let entry = Entry { path: path.clone(), kind, mode, mtime: 0, source };
        Arc::make_mut(&mut self.memory).insert(path, entry);
        self.listed = Arc::default();
    }

    /// Notes a file on disk that is sent even if it is excluded; nothing if it lies outside.
    fn send_always(&mut self, file: &Path) {
        let inside = self.root.as_deref().and_then(|root| inside(root, file));
        if let Some(path) = inside.filter(|path| !self.always_sent.contains(path)) {
            self.always_sent.push(path);
        }
    }
}

/// Finds the ignore file as BuildKit's `dockerui` does.
fn read_ignore_file(root: &Path, dockerfile: Option<&Path>) -> Result<Option<(PathBuf, Vec<u8>)>> {
    let beside = dockerfile.map(|dockerfile| {
        let mut name = dockerfile.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for file in beside.into_iter().chain([root.join(".dockerignore")]) {
        match std::fs::read(&file) {
            Ok(content) => return Ok(Some((file, content))),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => {
                let message = format!("could not read the ignore file `{}`", file.display());
                return Err(Error::new(ErrorKind::ContextUnreadable, message).with_source(source));
            }
        }
    }
    Ok(None)
}

/// The name of a file for messages: below the root if it lies there.
fn shown(file: &Path, root: &Path) -> PathBuf {
    file.strip_prefix(root).unwrap_or(file).to_owned()
}

/// The place of a file in a context; `None` if it lies outside.
fn inside(root: &Path, file: &Path) -> Option<ContextPath> {
    use std::os::unix::ffi::OsStrExt;

    let root = root.canonicalize().ok()?;
    // The last part is kept as it is: a Dockerfile that is a link is sent under its own name.
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = directory.canonicalize().ok()?;
    let path = directory.join(file.file_name()?);
    ContextPath::clean(path.strip_prefix(&root).ok()?.as_os_str().as_bytes())
}

#[cfg(test)]
mod mount_tests;
#[cfg(test)]
mod tests;

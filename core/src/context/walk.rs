//! Walking a directory tree on several threads; the outcome does not depend on how many.

use std::collections::BTreeSet;
use std::fs::{DirEntry, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::content::unreadable;
use super::dockerignore::{IgnoreRules, MatchState};
use super::queue::Queue;
use super::{ContextPath, DiskState, Entry, EntryKind, EntrySource, Links, Modes, Mount};
use crate::Result;
use crate::backend::Job;
use crate::error::{Error, ErrorKind};

/// More threads than this only wait for the kernel's locks.
const MOST_THREADS: usize = 8;

/// One entry of the disk by its path; `None` if it is not there or of a kind that is not sent.
pub(super) fn single(root: &Path, path: ContextPath, modes: Modes) -> Result<Option<Entry>> {
    let on_disk = root.join(path.as_path());
    match std::fs::symlink_metadata(&on_disk) {
        Ok(metadata) => entry(path, &metadata, modes, || std::fs::read_link(&on_disk)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(&path, error)),
    }
}

/// The directory entry that a mounted directory gets; none at the root.
pub(super) fn mount_point(mount: &Mount, modes: Modes) -> Result<Option<Entry>> {
    if mount.at.is_root() {
        return Ok(None);
    }
    let metadata = std::fs::metadata(&mount.directory).map_err(|error| unreadable(&mount.at, error))?;
    entry(mount.at.clone(), &metadata, modes, || Err(io::ErrorKind::InvalidInput.into()))
}

/// Makes an entry; `None` for a socket, FIFO or device.
fn entry(
    path: ContextPath,
    metadata: &Metadata,
    modes: Modes,
    read_link: impl FnOnce() -> io::Result<std::path::PathBuf>,
) -> Result<Option<Entry>> {
    let kind = if metadata.is_file() {
        EntryKind::File { size_bytes: metadata.len() }
    } else if metadata.is_dir() {
        EntryKind::Directory
    } else if metadata.is_symlink() {
        let target = read_link().map_err(|error| unreadable(&path, error))?;
        EntryKind::Symlink { target: target.as_os_str().as_bytes().to_vec() }
    } else {
        return Ok(None);
    };
    let mode = match kind {
        // Systems differ in what they say of links, and nobody heeds it.
        EntryKind::Symlink { .. } => 0o777,
        _ => modes.apply(metadata.mode(), metadata.is_dir()),
    };
    let source = EntrySource::Disk(DiskState::of(metadata));
    Ok(Some(Entry { path, kind, mode, mtime: metadata.mtime(), source }))
}

/// One walk through a directory.
pub(super) struct Walk<'a> {
    directory: &'a Path,
    /// Where it is in the context.
    at: ContextPath,
    rules: &'a IgnoreRules,
    links: Links,
    modes: Modes,
    job: &'a Job,
    queue: Queue<Directory>,
}

/// A directory to be read.
#[derive(Default)]
struct Directory {
    /// From where the walk began.
    path: ContextPath,
    state: Arc<MatchState>,
    /// It is excluded, but something below it may not be.
    excluded: bool,
    /// Where links are followed: which directory it really is, and those above it.
    chain: Option<Arc<Above>>,
}

/// A directory that the walk is in.
struct Above {
    device: u64,
    inode: u64,
    /// The link that led here.
    link: Option<ContextPath>,
    above: Option<Arc<Above>>,
}

impl Above {
    /// The last link that was followed on the way.
    fn last_link(self: &Arc<Self>) -> Option<&ContextPath> {
        let mut chain = std::iter::successors(Some(self), |directory| directory.above.as_ref());
        chain.find_map(|directory| directory.link.as_ref())
    }

    /// Adds a directory; `None` if it is there already.
    fn enter(
        above: Option<&Arc<Self>>,
        metadata: &Metadata,
        link: Option<&ContextPath>,
    ) -> Option<Arc<Self>> {
        let (device, inode) = (metadata.dev(), metadata.ino());
        let mut chain = std::iter::successors(above, |directory| directory.above.as_ref());
        let is_there = chain.any(|directory| (directory.device, directory.inode) == (device, inode));
        (!is_there).then(|| Arc::new(Self { device, inode, link: link.cloned(), above: above.cloned() }))
    }
}

/// What a thread has found.
#[derive(Default)]
struct Found {
    entries: Vec<Entry>,
    /// Excluded directories that were read: they are sent if something below them is.
    passed_through: Vec<Entry>,
    /// Sockets, FIFOs, devices.
    special: Vec<ContextPath>,
    /// Links that lead nowhere, where links are followed.
    dangling: Vec<ContextPath>,
    error: Option<Error>,
}

impl<'a> Walk<'a> {
    pub(super) fn of_root(root: &'a Path, rules: &'a IgnoreRules, modes: Modes, job: &'a Job) -> Self {
        let (at, links) = (ContextPath::default(), Links::Keep);
        Self { directory: root, at, rules, links, modes, job, queue: Queue::default() }
    }

    pub(super) fn of_mount(mount: &'a Mount, modes: Modes, job: &'a Job) -> Self {
        let Mount { at, directory, ignore, links } = mount;
        let (at, links, queue) = (at.clone(), *links, Queue::default());
        Self { directory, at, rules: ignore, links, modes, job, queue }
    }

    /// Lists everything below the directory that is not excluded, sorted by path bytes.
    pub(super) fn entries(&self) -> Result<Vec<Entry>> {
        self.queue.push(Directory { chain: self.chain_of_root()?, ..Directory::default() });
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        let found = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| self.run())).collect();
            let mut found = self.run();
            for other in others {
                match other.join() {
                    Ok(more) => found.add(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            found
        });
        self.job.check()?;
        found.finish(self.job)
    }

    fn chain_of_root(&self) -> Result<Option<Arc<Above>>> {
        if self.links == Links::Keep {
            return Ok(None);
        }
        let metadata = std::fs::metadata(self.directory).map_err(|error| unreadable(&self.at, error))?;
        Ok(Above::enter(None, &metadata, None))
    }

    fn run(&self) -> Found {
        let mut found = Found::default();
        while let Some(directory) = self.queue.pop() {
            let result = self.job.check().and_then(|()| self.read(&directory, &mut found));
            self.queue.done(result.is_err());
            found.error = result.err();
        }
        found
    }

    fn read(&self, directory: &Directory, found: &mut Found) -> Result<()> {
        let unreadable = |error| unreadable(&self.at.join(directory.path.as_bytes()), error);
        let listing = match std::fs::read_dir(self.directory.join(directory.path.as_path())) {
            Ok(listing) => listing,
            // Docker does not mind either.
            Err(error) if directory.excluded && error.kind() == io::ErrorKind::PermissionDenied => {
                return Ok(());
            }
            Err(error) => return Err(unreadable(error)),
        };
        for item in listing {
            self.visit(directory, &item.map_err(unreadable)?, found)?;
        }
        Ok(())
    }

    fn visit(&self, directory: &Directory, item: &DirEntry, found: &mut Found) -> Result<()> {
        let path = directory.path.join(item.file_name().as_bytes());
        // Mostly known without asking the disk.
        let file_type =
            item.file_type().map_err(|error| unreadable(&self.at.join(path.as_bytes()), error))?;
        if file_type.is_symlink() && self.links == Links::Follow {
            return self.follow(directory, path, item, found);
        }
        if !file_type.is_dir() {
            if !self.rules.excludes(path.as_bytes(), &directory.state) {
                self.add(&path, &self.metadata(&path, item)?, item, found)?;
            }
            return Ok(());
        }
        let Some((excluded, state)) = self.enter(directory, &path) else { return Ok(()) };
        let metadata = self.metadata(&path, item)?;
        let chain = match &directory.chain {
            Some(above) => {
                let chain = Above::enter(Some(above), &metadata, None);
                Some(chain.ok_or_else(|| self.circle(above.last_link().unwrap_or(&path)))?)
            }
            None => None,
        };
        self.add_directory(Directory { path, state, excluded, chain }, &metadata, item, found)
    }

    /// A link where links are followed. What is excluded is not looked at.
    fn follow(
        &self,
        directory: &Directory,
        path: ContextPath,
        item: &DirEntry,
        found: &mut Found,
    ) -> Result<()> {
        let excluded = self.rules.excludes(path.as_bytes(), &directory.state);
        if excluded && !self.rules.may_reinclude_below(path.as_bytes()) {
            return Ok(());
        }
        let metadata = match std::fs::metadata(item.path()) {
            Ok(metadata) => metadata,
            Err(_) if excluded => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                found.dangling.push(self.at.join(path.as_bytes()));
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                let link = self.at.join(path.as_bytes());
                let message =
                    format!("the link `{link}` of the build context leads through a file, so nowhere");
                return Err(Error::new(ErrorKind::ContextUnreadable, message).with_source(error));
            }
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                return Err(self.circle(&path));
            }
            Err(error) => return Err(unreadable(&self.at.join(path.as_bytes()), error)),
        };
        if !metadata.is_dir() {
            return if excluded { Ok(()) } else { self.add(&path, &metadata, item, found) };
        }
        let Some((excluded, state)) = self.enter(directory, &path) else { return Ok(()) };
        let chain = Above::enter(directory.chain.as_ref(), &metadata, Some(&path))
            .ok_or_else(|| self.circle(&path))?;
        self.add_directory(Directory { path, state, excluded, chain: Some(chain) }, &metadata, item, found)
    }

    /// How a directory comes out against the rules; `None` if nothing in it can be sent.
    fn enter(&self, directory: &Directory, path: &ContextPath) -> Option<(bool, Arc<MatchState>)> {
        let (excluded, state) = self.rules.enter(path.as_bytes(), &directory.state);
        let is_needed = !excluded || self.rules.may_reinclude_below(path.as_bytes());
        is_needed.then(|| (excluded, Arc::new(state)))
    }

    fn add_directory(
        &self,
        directory: Directory,
        metadata: &Metadata,
        item: &DirEntry,
        found: &mut Found,
    ) -> Result<()> {
        let kept = if directory.excluded { &mut found.passed_through } else { &mut found.entries };
        kept.extend(self.entry(&directory.path, metadata, item)?);
        self.queue.push(directory);
        Ok(())
    }

    fn add(&self, path: &ContextPath, metadata: &Metadata, item: &DirEntry, found: &mut Found) -> Result<()> {
        match self.entry(path, metadata, item)? {
            Some(entry) => found.entries.push(entry),
            None => found.special.push(self.at.join(path.as_bytes())),
        }
        Ok(())
    }

    fn entry(&self, path: &ContextPath, metadata: &Metadata, item: &DirEntry) -> Result<Option<Entry>> {
        entry(self.at.join(path.as_bytes()), metadata, self.modes, || std::fs::read_link(item.path()))
    }

    fn metadata(&self, path: &ContextPath, item: &DirEntry) -> Result<Metadata> {
        item.metadata().map_err(|error| unreadable(&self.at.join(path.as_bytes()), error))
    }

    fn circle(&self, link: &ContextPath) -> Error {
        let link = self.at.join(link.as_bytes());
        let message = format!("the link `{link}` of the build context leads to a directory that it is in");
        Error::new(ErrorKind::ContextUnreadable, message)
            .with_hint("links are followed here: take it out, or leave it out by a rule")
    }
}

impl Found {
    fn add(&mut self, more: Self) {
        self.entries.extend(more.entries);
        self.passed_through.extend(more.passed_through);
        self.special.extend(more.special);
        self.dangling.extend(more.dangling);
        self.error = self.error.take().or(more.error);
    }

    fn finish(mut self, job: &Job) -> Result<Vec<Entry>> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if !self.passed_through.is_empty() {
            let needed: BTreeSet<ContextPath> = self.entries.iter().flat_map(directories_above).collect();
            self.entries.extend(self.passed_through.into_iter().filter(|entry| needed.contains(&entry.path)));
        }
        self.entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        self.special.sort_unstable();
        for path in self.special {
            job.events.warn(format!(
                "`{path}` is a socket, a FIFO or a device: it is left out of the build context"
            ));
        }
        self.dangling.sort_unstable();
        for path in self.dangling {
            job.events
                .warn(format!("`{path}` is a link that leads nowhere: it is left out of the build context"));
        }
        Ok(self.entries)
    }
}

fn directories_above(entry: &Entry) -> impl Iterator<Item = ContextPath> {
    std::iter::successors(entry.path.parent(), ContextPath::parent)
}

//! Walking a directory tree on several threads; the outcome does not depend on how many.

use std::collections::BTreeSet;
use std::fs::{DirEntry, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::content::unreadable;
use super::dockerignore::{IgnoreRules, MatchState};
use super::{ContextPath, DiskState, Entry, EntryKind, EntrySource, Modes};
use crate::Result;
use crate::backend::Job;
use crate::error::Error;

/// More threads than this only wait for the kernel's locks.
const MOST_THREADS: usize = 8;

/// Lists everything below a directory that is not excluded, sorted by path bytes.
pub(super) fn walk(root: &Path, rules: &IgnoreRules, modes: Modes, job: &Job) -> Result<Vec<Entry>> {
    let walk = Walk { root, rules, modes, job, queue: Queue::default() };
    walk.queue.push(Directory::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    let found = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| walk.run())).collect();
        let mut found = walk.run();
        for other in others {
            match other.join() {
                Ok(more) => found.add(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        found
    });
    job.check()?;
    found.finish(job)
}

/// One entry of the disk by its path; `None` if it is not there or of a kind that is not sent.
pub(super) fn single(root: &Path, path: ContextPath, modes: Modes) -> Result<Option<Entry>> {
    let on_disk = root.join(path.as_path());
    match std::fs::symlink_metadata(&on_disk) {
        Ok(metadata) => entry(path, &metadata, modes, || std::fs::read_link(&on_disk)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(&path, error)),
    }
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

struct Walk<'a> {
    root: &'a Path,
    rules: &'a IgnoreRules,
    modes: Modes,
    job: &'a Job,
    queue: Queue,
}

/// A directory to be read.
#[derive(Default)]
struct Directory {
    path: ContextPath,
    state: Arc<MatchState>,
    /// It is excluded, but something below it may not be.
    excluded: bool,
}

/// What a thread has found.
#[derive(Default)]
struct Found {
    entries: Vec<Entry>,
    /// Excluded directories that were read: they are sent if something below them is.
    passed_through: Vec<Entry>,
    /// Sockets, FIFOs, devices.
    special: Vec<ContextPath>,
    error: Option<Error>,
}

impl Walk<'_> {
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
        let path = &directory.path;
        let listing = match std::fs::read_dir(self.root.join(path.as_path())) {
            Ok(listing) => listing,
            // Docker does not mind either.
            Err(error) if directory.excluded && error.kind() == io::ErrorKind::PermissionDenied => {
                return Ok(());
            }
            Err(error) => return Err(unreadable(path, error)),
        };
        for item in listing {
            let item = item.map_err(|error| unreadable(path, error))?;
            self.visit(directory, &item, found)?;
        }
        Ok(())
    }

    fn visit(&self, directory: &Directory, item: &DirEntry, found: &mut Found) -> Result<()> {
        let path = directory.path.join(item.file_name().as_bytes());
        // Mostly known without asking the disk.
        let file_type = item.file_type().map_err(|error| unreadable(&path, error))?;
        if !file_type.is_dir() {
            if !self.rules.excludes(path.as_bytes(), &directory.state) {
                match self.entry(path.clone(), item)? {
                    Some(entry) => found.entries.push(entry),
                    None => found.special.push(path),
                }
            }
            return Ok(());
        }
        let (excluded, state) = self.rules.enter(path.as_bytes(), &directory.state);
        if excluded && !self.rules.may_reinclude_below(path.as_bytes()) {
            return Ok(());
        }
        if let Some(entry) = self.entry(path.clone(), item)? {
            if excluded { &mut found.passed_through } else { &mut found.entries }.push(entry);
        }
        self.queue.push(Directory { path, state: Arc::new(state), excluded });
        Ok(())
    }

    fn entry(&self, path: ContextPath, item: &DirEntry) -> Result<Option<Entry>> {
        let metadata = item.metadata().map_err(|error| unreadable(&path, error))?;
        entry(path, &metadata, self.modes, || std::fs::read_link(item.path()))
    }
}

impl Found {
    fn add(&mut self, more: Self) {
        self.entries.extend(more.entries);
        self.passed_through.extend(more.passed_through);
        self.special.extend(more.special);
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
        Ok(self.entries)
    }
}

fn directories_above(entry: &Entry) -> impl Iterator<Item = ContextPath> {
    std::iter::successors(entry.path.parent(), ContextPath::parent)
}

/// The directories that wait to be read, and how many are being read. Nothing more can come when
/// both are zero.
#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    waiting: Vec<Directory>,
    active: usize,
    /// Threads that wait for work.
    idle: usize,
    stopped: bool,
}

impl Queue {
    fn push(&self, directory: Directory) {
        let mut state = self.lock();
        state.waiting.push(directory);
        // Waking nobody is a system call too.
        if state.idle > 0 {
            self.changed.notify_one();
        }
    }

    /// Waits for a directory; `None` when there will be none.
    fn pop(&self) -> Option<Directory> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(directory) = state.waiting.pop() {
                state.active += 1;
                return Some(directory);
            }
            if state.active == 0 {
                return None;
            }
            state.idle += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// Says that a directory from [`Queue::pop`] has been read, or that the walk has failed.
    fn done(&self, failed: bool) {
        let mut state = self.lock();
        state.active -= 1;
        state.stopped |= failed;
        if state.active == 0 || state.stopped {
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Writing many members at speed: threads read files ahead while the caller's thread writes.
//!
//! Each reader takes the next few members and renders them as tar into a buffer of its own; the
//! buffers are written in order. Large files are streamed by the writing thread, so that memory
//! stays the same whatever is written.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use sha2::{Digest as _, Sha256};

use super::{TarEntry, TarWriter};
use crate::Result;
use crate::backend::Job;
use crate::context::{Context, Entry};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind};

/// A buffer is full at this size.
const BATCH_BYTES: u64 = 256 << 10;
/// A buffer holds no more members than this.
const BATCH_MEMBERS: usize = 128;
/// A larger file is not read ahead.
const LARGEST_READ_AHEAD: u64 = 1 << 20;
/// So many buffers may be read and not yet written.
const BATCHES_AHEAD: usize = 8;
/// More readers than this find nothing to do.
const MOST_READERS: usize = 4;

/// One member to be written, and where its content comes from.
#[derive(Debug)]
pub struct Member<'a> {
    /// What the archive says of it.
    pub header: TarEntry,
    /// The content of a file; `None` for all else, and for a file that is empty.
    pub content: Option<(&'a Context, &'a Entry)>,
    /// Where the hash of the content is put, if somebody wants to know it.
    pub hash: Option<&'a OnceLock<Digest>>,
}

/// Appends one member for each item, in their order, and tells `progress` how many bytes of tar
/// have been written. Does not end the archive.
///
/// # Errors
/// `ContextUnreadable`, naming the path, if a file vanished or changed since it was listed;
/// `Cancelled`; `LocalIo` if writing fails, unless the writer's error holds one of ours.
pub fn write_tree<'a, T: Sync>(
    items: &'a [T],
    member: impl Fn(&'a T) -> Member<'a> + Sync,
    tar: &mut TarWriter<impl Write>,
    job: &Job,
    mut progress: impl FnMut(u64),
) -> Result<()> {
    let tree = Tree { items, member, state: Mutex::default(), changed: Condvar::new() };
    let readers = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_READERS);
    std::thread::scope(|scope| {
        for _ in 0..readers {
            scope.spawn(|| tree.read_ahead());
        }
        let _stop = StopGuard { tree: &tree, always: true };
        let mut written = 0;
        while let Some(batch) = tree.take_next()? {
            job.check()?;
            written += match batch {
                Batch::Rendered(bytes) => {
                    tar.get_mut().write_all(&bytes).map_err(write_error)?;
                    let size = bytes.len() as u64;
                    tree.recycle(bytes);
                    size
                }
                Batch::Large(index) => tree.stream(index, tar, job)?,
            };
            progress(written);
        }
        Ok(())
    })
}

/// The error for an archive that cannot be written, or the one of ours that is inside.
pub(super) fn write_error(error: io::Error) -> Error {
    recover(error, |error| Error::new(ErrorKind::LocalIo, "could not write the archive").with_source(error))
}

/// Takes the error of ours out of an I/O error, where one went through a `Read` or `Write`; makes
/// one otherwise.
pub fn recover(error: io::Error, otherwise: impl FnOnce(io::Error) -> Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(otherwise)
}

struct Tree<'a, T, F> {
    items: &'a [T],
    member: F,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The first item that no reader has taken.
    next_item: usize,
    /// How many batches have been taken by readers and by the writer.
    taken: usize,
    written: usize,
    ready: BTreeMap<usize, Result<Batch>>,
    spare: Vec<Vec<u8>>,
    stopped: bool,
}

/// Some members in a row.
enum Batch {
    Rendered(Vec<u8>),
    /// The index of a single item.
    Large(usize),
}

impl<'a, T: Sync, F: Fn(&'a T) -> Member<'a> + Sync> Tree<'a, T, F> {
    fn read_ahead(&self) {
        let _stop = StopGuard { tree: self, always: false };
        while let Some((number, range, buffer)) = self.claim() {
            let batch = self.render(range, buffer);
            self.lock().ready.insert(number, batch);
            self.changed.notify_all();
        }
    }

    /// Takes the next items to be read; waits while enough are ready.
    fn claim(&self) -> Option<(usize, Range<usize>, Vec<u8>)> {
        let mut state = self.lock();
        while !state.stopped && state.taken >= state.written + BATCHES_AHEAD {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopped || state.next_item == self.items.len() {
            return None;
        }
        let range = self.batch_from(state.next_item);
        state.next_item = range.end;
        state.taken += 1;
        Some((state.taken - 1, range, state.spare.pop().unwrap_or_default()))
    }

    fn batch_from(&self, start: usize) -> Range<usize> {
        let mut size = 0;
        let mut end = start;
        while end < self.items.len() && end - start < BATCH_MEMBERS && size < BATCH_BYTES {
            let member = (self.member)(&self.items[end]).header.size_bytes();
            if member > LARGEST_READ_AHEAD {
                // Alone, or the start of the next batch.
                return start..end.max(start + 1);
            }
            size += member;
            end += 1;
        }
        start..end
    }

    fn render(&self, range: Range<usize>, mut buffer: Vec<u8>) -> Result<Batch> {
        buffer.clear();
        let mut tar = TarWriter::new(buffer);
        let mut content = Vec::new();
        for index in range {
            let member = (self.member)(&self.items[index]);
            if member.header.size_bytes() > LARGEST_READ_AHEAD {
                return Ok(Batch::Large(index));
            }
            content.clear();
            if let Some((context, entry)) = member.content {
                context.open(entry)?.append_to(&mut content)?;
            }
            if let Some(hash) = member.hash {
                let _ = hash.set(Digest::of(&content));
            }
            tar.append_bytes(&member.header, &content).map_err(write_error)?;
        }
        Ok(Batch::Rendered(std::mem::take(tar.get_mut())))
    }

    fn stream(&self, index: usize, tar: &mut TarWriter<impl Write>, job: &Job) -> Result<u64> {
        let Member { header, content, hash } = (self.member)(&self.items[index]);
        match content {
            Some((context, entry)) => {
                let hasher = hash.is_some().then(Sha256::new);
                let mut content = Interruptible { inner: context.open(entry)?, job, hasher };
                tar.append(&header, &mut content).map_err(write_error)?;
                if let (Some(hash), Some(hasher)) = (hash, content.hasher) {
                    let _ = hash.set(Digest::from_bytes(hasher.finalize().into()));
                }
            }
            None => tar.append_bytes(&header, &[]).map_err(write_error)?,
        }
        Ok(header.size_bytes())
    }

    /// Waits for the next batch in order; `None` after the last.
    fn take_next(&self) -> Result<Option<Batch>> {
        let mut state = self.lock();
        loop {
            let number = state.written;
            if let Some(batch) = state.ready.remove(&number) {
                state.written += 1;
                self.changed.notify_all();
                return batch.map(Some);
            }
            if state.stopped || (state.next_item == self.items.len() && state.taken == state.written) {
                return Ok(None);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn recycle(&self, buffer: Vec<u8>) {
        self.lock().spare.push(buffer);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stops everybody when the writer is done or has failed, or when a reader panics.
struct StopGuard<'g, 'a, T, F> {
    tree: &'g Tree<'a, T, F>,
    always: bool,
}

impl<T, F> Drop for StopGuard<'_, '_, T, F> {
    fn drop(&mut self) {
        if self.always || std::thread::panicking() {
            self.tree.state.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
            self.tree.changed.notify_all();
        }
    }
}

/// A reader that fails when the user stops the work, and may hash what is read.
struct Interruptible<'a, R> {
    inner: R,
    job: &'a Job,
    hasher: Option<Sha256>,
}

impl<R: Read> Read for Interruptible<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.job.check().map_err(io::Error::other)?;
        let read = self.inner.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..read]);
        }
        Ok(read)
    }
}

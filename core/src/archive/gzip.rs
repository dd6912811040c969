//! Parallel gzip: one member, whose bytes depend on the input and the level alone.
//!
//! The input is cut into blocks. Workers compress each block as raw deflate with the last 32 KiB
//! before it as dictionary and end it on a byte boundary (a sync flush), so that the blocks joined
//! are one deflate stream; their checksums are combined. This is how pigz works. One member, because
//! many readers of image layers stop after the first.
//!
//! Where a block ends is up to the content: preferably where a member of a tar archive begins. So two
//! archives that differ in one file have most blocks in common, and [`BlockCache`] may know them.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use flate2::Crc;
use sha2::{Digest as _, Sha256};

use super::blocks::{BlockCache, BlockRecord};
use super::deflate::{self, WINDOW_BYTES};
use crate::digest::Digest;

/// The most that a block holds. Another size gives other bytes. Smaller blocks cost more for the
/// dictionary each, larger ones more memory.
const BLOCK_BYTES: usize = 256 << 10;
/// A block does not end before this.
const SHORTEST_BLOCK_BYTES: usize = 128 << 10;
/// The unit of tar, in which its headers stand.
const TAR_BYTES: usize = 512;
/// Neither time nor name, operating system unknown.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Compresses what is written to it as one gzip member.
pub(super) struct GzipWriter<W: Write> {
    inner: W,
    pool: Pool,
    /// The block that is being filled.
    block: Block,
    /// The blocks that workers have, oldest first.
    pending: VecDeque<Receiver<io::Result<Block>>>,
    spare: Vec<Block>,
    crc: Crc,
    /// The blocks that were written, if somebody wants to know them.
    records: Vec<BlockRecord>,
    written_bytes: u64,
}

impl<W: Write> GzipWriter<W> {
    pub(super) fn new(
        mut inner: W,
        level: u32,
        workers: usize,
        cache: Option<Arc<dyn BlockCache>>,
    ) -> io::Result<Self> {
        if !(1..=9).contains(&level) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("gzip has no level {level}")));
        }
        let pool = Pool::new(level, workers, cache)?;
        inner.write_all(&HEADER)?;
        let (block, pending, spare, records) = Default::default();
        let written_bytes = HEADER.len() as u64;
        Ok(Self { inner, pool, block, pending, spare, crc: Crc::new(), records, written_bytes })
    }

    pub(super) fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let room = self.block.dictionary_bytes + BLOCK_BYTES - self.block.input.len();
        let taken = &buffer[..buffer.len().min(room)];
        self.block.input.extend_from_slice(taken);
        if taken.len() == room {
            self.submit(false)?;
        }
        Ok(taken.len())
    }

    /// Gives back the writer and, with a cache, the blocks in their order.
    pub(super) fn finish(mut self) -> io::Result<(W, Vec<BlockRecord>)> {
        self.submit(true)?;
        while !self.pending.is_empty() {
            self.take_oldest()?;
        }
        self.inner.write_all(&self.crc.sum().to_le_bytes())?;
        self.inner.write_all(&self.crc.amount().to_le_bytes())?;
        Ok((self.inner, self.records))
    }

    /// Gives the current block to a worker and starts the next one, first waiting for the oldest
    /// if there are enough under way.
    fn submit(&mut self, last: bool) -> io::Result<()> {
        if self.pending.len() >= self.pool.depth() {
            self.take_oldest()?;
        }
        let mut next = self.spare.pop().unwrap_or_default();
        let end = if last { self.block.input.len() } else { self.block.end() };
        let window = end.saturating_sub(WINDOW_BYTES);
        next.input.clear();
        next.input.extend_from_slice(&self.block.input[window..]);
        next.dictionary_bytes = end - window;
        self.block.input.truncate(end);
        let block = std::mem::replace(&mut self.block, next);
        self.pending.push_back(self.pool.submit(block, last)?);
        Ok(())
    }

    fn take_oldest(&mut self) -> io::Result<()> {
        if let Some(oldest) = self.pending.pop_front() {
            let block = oldest.recv().map_err(|_| worker_died())??;
            self.crc.combine(&block.crc);
            self.inner.write_all(&block.output)?;
            if let Some(key) = block.key {
                self.records.push(BlockRecord::of(key, self.written_bytes, &block.output));
            }
            self.written_bytes += block.output.len() as u64;
            self.spare.push(block);
        }
        Ok(())
    }
}

/// A piece of the input and what becomes of it. Its buffers go round, so that each is allocated
/// once.
#[derive(Default)]
struct Block {
    /// The dictionary, then the piece itself.
    input: Vec<u8>,
    dictionary_bytes: usize,
    output: Vec<u8>,
    crc: Crc,
    /// What the output depends on, hashed; only with a cache.
    key: Option<Digest>,
}

struct Task {
    block: Block,
    last: bool,
    reply: SyncSender<io::Result<Block>>,
}

/// The workers. They end when the pool is dropped.
struct Pool {
    tasks: Option<Sender<Task>>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    fn new(level: u32, workers: usize, cache: Option<Arc<dyn BlockCache>>) -> io::Result<Self> {
        let (tasks, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        let mut pool = Self { tasks: Some(tasks), workers: Vec::new() };
        for _ in 0..workers {
            let (queue, cache) = (Arc::clone(&queue), cache.clone());
            let worker = std::thread::Builder::new().name("gzip".into());
            pool.workers.push(worker.spawn(move || work(&queue, level, cache.as_deref()))?);
        }
        Ok(pool)
    }

    /// How many blocks may be under way: enough that no worker waits for the writer.
    fn depth(&self) -> usize {
        2 * self.workers.len() + 2
    }

    fn submit(&self, block: Block, last: bool) -> io::Result<Receiver<io::Result<Block>>> {
        let (reply, result) = mpsc::sync_channel(1);
        let task = Task { block, last, reply };
        let sent = self.tasks.as_ref().is_some_and(|tasks| tasks.send(task).is_ok());
        if sent { Ok(result) } else { Err(worker_died()) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.tasks = None;
        for worker in self.workers.drain(..) {
            // A worker that panicked has reported by closing its reply.
            let _ = worker.join();
        }
    }
}

fn worker_died() -> io::Error {
    io::Error::other("a gzip worker ended early")
}

fn work(queue: &Mutex<Receiver<Task>>, level: u32, cache: Option<&dyn BlockCache>) {
    loop {
        let task = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Task { mut block, last, reply }) = task else { return };
        let result = block.compress(level, last, cache).map(|()| block);
        // Nobody waits for it when the writer was dropped; the queue then ends too.
        let _ = reply.send(result);
    }
}

impl Block {
    /// Where the block ends, now that it is full: at the header of a member, at one whose checksum says
    /// so if there is one, so that the ends are the same again soon after something was put in.
    fn end(&self) -> usize {
        let headers = (self.dictionary_bytes + SHORTEST_BLOCK_BYTES..self.input.len())
            .step_by(TAR_BYTES)
            .filter(|at| self.input[*at..].get(257..262) == Some(b"ustar".as_slice()));
        let mut first = None;
        for at in headers {
            // The last digit of the checksum, octal.
            if self.input[at + 153] & 3 == 0 {
                return at;
            }
            first = first.or(Some(at));
        }
        first.unwrap_or(self.input.len())
    }

    fn compress(&mut self, level: u32, last: bool, cache: Option<&dyn BlockCache>) -> io::Result<()> {
        self.crc.reset();
        self.crc.update(&self.input[self.dictionary_bytes..]);
        self.output.clear();
        self.key = cache.map(|_| self.hash(level, last));
        let known = cache.zip(self.key).is_some_and(|(cache, key)| cache.append(&key, &mut self.output));
        if known {
            return Ok(());
        }
        deflate::compress(&self.input, self.dictionary_bytes, level, &mut self.output)?;
        if last {
            self.output.extend_from_slice(&deflate::END);
        }
        Ok(())
    }

    fn hash(&self, level: u32, last: bool) -> Digest {
        let mut hasher = Sha256::new();
        hasher.update(level.to_le_bytes());
        hasher.update([u8::from(last)]);
        hasher.update((self.dictionary_bytes as u64).to_le_bytes());
        hasher.update(&self.input);
        Digest::from_bytes(hasher.finalize().into())
    }
}

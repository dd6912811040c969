//! Parallel gzip: one member, whose bytes depend on the input and the level alone.
//!
//! The input is cut into blocks of one size. Workers compress each block as raw deflate with the
//! last 32 KiB before it as dictionary and end it on a byte boundary (a sync flush), so that the
//! blocks joined are one deflate stream; their checksums are combined. This is how pigz works.
//! One member, because many readers of image layers stop after the first.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use flate2::Crc;

use super::deflate::{self, WINDOW_BYTES};

/// Another size gives other bytes. Smaller blocks cost more for the dictionary each, larger ones
/// more memory.
const BLOCK_BYTES: usize = 256 << 10;
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
}

impl<W: Write> GzipWriter<W> {
    pub(super) fn new(mut inner: W, level: u32, workers: usize) -> io::Result<Self> {
        if !(1..=9).contains(&level) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("gzip has no level {level}")));
        }
        let pool = Pool::new(level, workers)?;
        inner.write_all(&HEADER)?;
        let (pending, spare) = (VecDeque::new(), Vec::new());
        Ok(Self { inner, pool, block: Block::default(), pending, spare, crc: Crc::new() })
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

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.submit(true)?;
        while !self.pending.is_empty() {
            self.take_oldest()?;
        }
        self.inner.write_all(&self.crc.sum().to_le_bytes())?;
        self.inner.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.inner)
    }

    /// Gives the current block to a worker and starts the next one, first waiting for the oldest
    /// if there are enough under way.
    fn submit(&mut self, last: bool) -> io::Result<()> {
        if self.pending.len() >= self.pool.depth() {
            self.take_oldest()?;
        }
        let mut next = self.spare.pop().unwrap_or_default();
        let window = self.block.input.len().saturating_sub(WINDOW_BYTES);
        next.input.clear();
        next.input.extend_from_slice(&self.block.input[window..]);
        next.dictionary_bytes = next.input.len();
        let block = std::mem::replace(&mut self.block, next);
        self.pending.push_back(self.pool.submit(block, last)?);
        Ok(())
    }

    fn take_oldest(&mut self) -> io::Result<()> {
        if let Some(oldest) = self.pending.pop_front() {
            let block = oldest.recv().map_err(|_| worker_died())??;
            self.crc.combine(&block.crc);
            self.inner.write_all(&block.output)?;
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
    fn new(level: u32, workers: usize) -> io::Result<Self> {
        let (tasks, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        let mut pool = Self { tasks: Some(tasks), workers: Vec::new() };
        for _ in 0..workers {
            let queue = Arc::clone(&queue);
            let worker = std::thread::Builder::new().name("gzip".into());
            pool.workers.push(worker.spawn(move || work(&queue, level))?);
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

fn work(queue: &Mutex<Receiver<Task>>, level: u32) {
    loop {
        let task = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Task { mut block, last, reply }) = task else { return };
        let result = block.compress(level, last).map(|()| block);
        // Nobody waits for it when the writer was dropped; the queue then ends too.
        let _ = reply.send(result);
    }
}

impl Block {
    fn compress(&mut self, level: u32, last: bool) -> io::Result<()> {
        self.crc.reset();
        self.crc.update(&self.input[self.dictionary_bytes..]);
        self.output.clear();
        deflate::compress(&self.input, self.dictionary_bytes, level, &mut self.output)?;
        if last {
            self.output.extend_from_slice(&deflate::END);
        }
        Ok(())
    }
}

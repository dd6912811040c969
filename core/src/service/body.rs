//! The body of an upload while it is on its way: made on a thread, sent as it comes, watched for stalls.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use super::frame::Frame;
use super::payload::Payload;
use super::send::SendLimits;
use crate::backend::Job;
use crate::error::{Error, Result};
use crate::events::{Step, Unit};

/// The pieces that a body is sent in.
const PIECE_BYTES: usize = 64 * 1024;
/// So many pieces are made ahead of the network.
const PIECES_AHEAD: usize = 16;
/// Contents of up to this size are held, so that their length can be said.
const SMALL_BYTES: usize = 1024 * 1024;

/// A body that is being made.
pub struct Body {
    pieces: mpsc::Receiver<Bytes>,
    first: Vec<Bytes>,
    after: Option<Bytes>,
    length: Option<u64>,
    watch: Arc<Watch>,
    /// Lets another upload begin when the last byte was handed over.
    turn: Option<OwnedSemaphorePermit>,
}

/// What is known of a body that was handed to the HTTP client.
#[derive(Debug)]
pub(super) struct Watch {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    moment: Moment,
    since: Instant,
    sent_bytes: u64,
    failure: Option<Error>,
    made: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The other side takes what there is.
    Sending,
    /// There is nothing to send: we are slow ourselves.
    Waiting,
    /// All was handed over.
    Complete,
}

impl Watch {
    fn new() -> Arc<Self> {
        let state = State {
            moment: Moment::Sending,
            since: Instant::now(),
            sent_bytes: 0,
            failure: None,
            made: false,
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, moment: Moment, sent: usize) {
        let mut state = self.state();
        state.moment = moment;
        state.since = Instant::now();
        state.sent_bytes += sent as u64;
    }

    /// Says whether the whole body was handed over, after which the other side may act on it.
    pub(super) fn is_complete(&self) -> bool {
        self.state().moment == Moment::Complete
    }

    /// How many bytes were handed over.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.state().sent_bytes
    }

    /// What kept us from making the body.
    pub(super) fn take_failure(&self) -> Option<Error> {
        self.state().failure.take()
    }

    /// Ends when the other side has taken nothing, or not answered after all was sent, for as long as the
    /// limits say; says which. Shows progress meanwhile.
    pub(super) async fn stalled(&self, limits: SendLimits, step: &Step) -> Stalled {
        let SendLimits { stall, answer } = limits;
        loop {
            let (deadline, stalled) = {
                let state = self.state();
                step.progress(state.sent_bytes, None, Unit::Bytes);
                match state.moment {
                    Moment::Sending => (state.since + stall, Stalled::Sending),
                    Moment::Complete => (state.since + answer, Stalled::Answering),
                    // The packing has its own ends; a minute from now there may be something to send.
                    Moment::Waiting => (Instant::now() + stall, Stalled::Sending),
                }
            };
            let now = Instant::now();
            if deadline <= now {
                return stalled;
            }
            tokio::time::sleep((deadline - now).min(Duration::from_millis(250))).await;
        }
    }
}

/// Where an exchange came to a halt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stalled {
    /// The other side takes nothing.
    Sending,
    /// The other side does not answer.
    Answering,
}

impl Body {
    /// Starts to make a body. A small one is waited for, so that its length is known, unless `chunked`.
    ///
    /// # Errors
    /// What keeps a small one from being made.
    pub async fn open(payload: &Payload, frame: &Frame, chunked: bool, job: &Job) -> Result<Self> {
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        let watch = Watch::new();
        let (payload_of, job, watch_of) = (payload.clone(), job.clone(), watch.clone());
        tokio::task::spawn_blocking(move || {
            let mut writer = PieceWriter { sender, piece: BytesMut::new() };
            let result = payload_of
                .write(&mut writer, &job)
                .and_then(|()| writer.flush().map_err(|error| Error::cancelled().with_source(error)));
            let mut state = watch_of.state();
            match result {
                Ok(()) => state.made = true,
                // Nobody takes it any more: what ended the exchange is the reason, not this.
                Err(_) if writer.sender.is_closed() => {}
                Err(error) => state.failure = Some(error),
            }
            // The writer, and with it the channel, ends after the state is written.
            drop(state);
            drop(writer);
        });
        let mut body = Self {
            pieces,
            first: vec![frame.before.clone()],
            after: Some(frame.after.clone()),
            length: None,
            watch,
            turn: None,
        };
        match payload.size_bytes() {
            _ if chunked => {}
            Some(size_bytes) => body.length = Some(size_bytes + frame.size_bytes()),
            None => body.hold_small(frame).await?,
        }
        body.first.reverse();
        Ok(body)
    }

    async fn hold_small(&mut self, frame: &Frame) -> Result<()> {
        let mut held = 0;
        while held < SMALL_BYTES {
            match self.pieces.recv().await {
                Some(piece) => {
                    held += piece.len();
                    self.first.push(piece);
                }
                None => {
                    if let Some(failure) = self.watch.take_failure() {
                        return Err(failure);
                    }
                    self.length = Some(held as u64 + frame.size_bytes());
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The size of the whole body, where that is known.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The body that holds this turn until all of it was handed over.
    pub(super) fn in_turn(self, turn: Option<OwnedSemaphorePermit>) -> Self {
        Self { turn, ..self }
    }

    /// Watches the body once it was handed to the HTTP client.
    pub(super) fn watch(&self) -> Arc<Watch> {
        self.watch.clone()
    }

    fn hand_over(&mut self, piece: Bytes) -> Poll<Option<io::Result<Bytes>>> {
        self.watch.enter(Moment::Sending, piece.len());
        Poll::Ready(Some(Ok(piece)))
    }
}

impl Stream for Body {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(piece) = self.first.pop() {
            return self.hand_over(piece);
        }
        match self.pieces.poll_recv(context) {
            Poll::Ready(Some(piece)) => self.hand_over(piece),
            Poll::Pending => {
                self.watch.enter(Moment::Waiting, 0);
                Poll::Pending
            }
            // A body that could not be made must not look whole.
            Poll::Ready(None) if !self.watch.state().made => {
                Poll::Ready(Some(Err(io::Error::other("the upload was broken off"))))
            }
            Poll::Ready(None) => match self.after.take() {
                Some(after) => {
                    let handed = self.hand_over(after);
                    // With a length, nobody asks for more after the last byte.
                    self.watch.enter(Moment::Complete, 0);
                    self.turn = None;
                    handed
                }
                None => Poll::Ready(None),
            },
        }
    }
}

/// Hands on what is written, in pieces. Waits where the network is slower.
struct PieceWriter {
    sender: mpsc::Sender<Bytes>,
    piece: BytesMut,
}

impl Write for PieceWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.piece.reserve(PIECE_BYTES);
        let room = PIECE_BYTES - self.piece.len();
        let taken = buffer.len().min(room);
        self.piece.extend_from_slice(&buffer[..taken]);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = self.piece.split().freeze();
        self.sender.blocking_send(piece).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

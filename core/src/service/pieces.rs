//! The body of an answer as it comes: at once where it comes slowly, in large pieces where it comes fast.
//!
//! Services that log flush every line, so each line is a chunk of HTTP of its own. Waking the reader for
//! each costs twelve times as much as reading them; so a task of its own takes them from the connection,
//! and the reader is woken for what has come meanwhile.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// After a piece, what comes is collected for so long, or until it is this much.
const COLLECT_TIME: Duration = Duration::from_millis(5);
const PIECE_BYTES: usize = 64 * 1024;
/// No more than this, and one chunk, is read ahead of a slow reader.
const AHEAD_BYTES: usize = 1024 * 1024;

/// A body that is being read. Dropping it ends the reading.
#[derive(Debug)]
pub struct Pieces<E = reqwest::Error> {
    shared: Arc<Shared<E>>,
    reader: JoinHandle<()>,
    /// When the last piece was given.
    given: Option<Instant>,
}

#[derive(Debug)]
struct Shared<E> {
    state: Mutex<State<E>>,
    /// There is something, or enough for a piece, or the end.
    came: Notify,
    /// There is room again.
    taken: Notify,
}

#[derive(Debug)]
struct State<E> {
    bytes: BytesMut,
    end: Option<Result<(), E>>,
}

impl<E> Shared<E> {
    fn state(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a chunk, and says whether there is room for more.
    fn put(&self, chunk: &[u8]) -> bool {
        let mut state = self.state();
        let before = state.bytes.len();
        state.bytes.extend_from_slice(chunk);
        let now = state.bytes.len();
        drop(state);
        if before == 0 || (before < PIECE_BYTES && now >= PIECE_BYTES) {
            self.came.notify_one();
        }
        now < AHEAD_BYTES
    }
}

impl<E: Send + 'static> Pieces<E> {
    /// Starts to read, on a task of its own.
    pub fn of(body: impl Stream<Item = Result<Bytes, E>> + Send + 'static) -> Self {
        let state = Mutex::new(State { bytes: BytesMut::new(), end: None });
        let shared = Arc::new(Shared { state, came: Notify::new(), taken: Notify::new() });
        let reader = tokio::spawn(read(body, shared.clone()));
        Self { shared, reader, given: None }
    }

    /// The next bytes; `None` at the end. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// As the connection fails, once what came before was given.
    pub async fn next(&mut self) -> Option<Result<Bytes, E>> {
        loop {
            let come = self.shared.came.notified();
            let collected = {
                let mut state = self.shared.state();
                let until =
                    self.given.map(|given| given + COLLECT_TIME).filter(|until| Instant::now() < *until);
                if state.bytes.is_empty() {
                    match state.end.take() {
                        Some(Ok(())) => {
                            state.end = Some(Ok(()));
                            return None;
                        }
                        Some(Err(error)) => return Some(Err(error)),
                        None => None,
                    }
                } else if until.is_none() || state.end.is_some() || state.bytes.len() >= PIECE_BYTES {
                    self.given = Some(Instant::now());
                    let bytes = state.bytes.split().freeze();
                    self.shared.taken.notify_one();
                    return Some(Ok(bytes));
                } else {
                    until
                }
            };
            match collected {
                // Its end is not a reason to give up what comes earlier.
                Some(until) => drop(tokio::time::timeout_at(until, come).await),
                None => come.await,
            }
        }
    }
}

async fn read<E>(body: impl Stream<Item = Result<Bytes, E>>, shared: Arc<Shared<E>>) {
    let mut body = pin!(body);
    let end = loop {
        match body.next().await {
            Some(Ok(chunk)) => {
                let mut has_room = shared.put(&chunk);
                while !has_room {
                    shared.taken.notified().await;
                    has_room = shared.state().bytes.len() < AHEAD_BYTES;
                }
            }
            Some(Err(error)) => break Err(error),
            None => break Ok(()),
        }
    };
    shared.state().end = Some(end);
    shared.came.notify_one();
}

impl<E> Drop for Pieces<E> {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::stream;

    use super::*;

    async fn all(mut pieces: Pieces<io::Error>) -> (Vec<u8>, Option<io::ErrorKind>) {
        let mut seen = Vec::new();
        loop {
            match pieces.next().await {
                Some(Ok(piece)) => seen.extend_from_slice(&piece),
                Some(Err(error)) => return (seen, Some(error.kind())),
                None => return (seen, None),
            }
        }
    }

    fn chunks(count: usize, size: usize) -> impl Stream<Item = Result<Bytes, io::Error>> + Send {
        stream::iter((0..count).map(move |number| Ok(vec![number as u8; size].into())))
    }

    #[tokio::test]
    async fn everything_comes_in_order_and_the_failure_after_it() {
        for (count, size) in [(0, 0), (1, 1), (10_000, 3), (100, 50_000), (3, 3 << 20)] {
            let expected: Vec<u8> = (0..count).flat_map(|number| vec![number as u8; size]).collect();
            assert!(
                all(Pieces::of(chunks(count, size))).await == (expected.clone(), None),
                "{count} of {size}"
            );
            let broken = chunks(count, size).chain(stream::iter([Err(io::ErrorKind::BrokenPipe.into())]));
            let (seen, failure) = all(Pieces::of(broken)).await;
            assert!(seen == expected && failure == Some(io::ErrorKind::BrokenPipe), "{count} of {size}");
        }
    }

    #[tokio::test]
    async fn what_comes_slowly_comes_at_once() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, io::Error>>(1);
        let body =
            stream::unfold(receiver, async |mut receiver| receiver.recv().await.map(|item| (item, receiver)));
        let mut pieces = Pieces::of(body);
        for text in ["one", "two", "three"] {
            sender.send(Ok(text.into())).await.expect("somebody reads");
            assert_eq!(pieces.next().await.expect("more").expect("intact"), text);
        }
        drop(sender);
        assert!(pieces.next().await.is_none() && pieces.next().await.is_none());
    }

    #[tokio::test]
    async fn a_slow_reader_holds_the_connection_back() {
        let taken = Arc::new(AtomicUsize::new(0));
        let counting = taken.clone();
        let endless = stream::repeat_with(move || {
            counting.fetch_add(1, Ordering::SeqCst);
            Ok::<_, io::Error>(Bytes::from_static(&[7; 1000]))
        });
        let mut pieces = Pieces::of(endless);
        for _ in 0..10 {
            let piece = pieces.next().await.expect("more").expect("intact");
            assert!(piece.len() <= AHEAD_BYTES + 1000);
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let most = 11 * (AHEAD_BYTES / 1000 + 2);
        assert!(taken.load(Ordering::SeqCst) <= most, "{taken:?}");
        let source = Arc::downgrade(&taken);
        drop((pieces, taken));
        while source.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

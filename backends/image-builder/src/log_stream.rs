//! One reading of a build's log: from the connection to its end, or to that of the build.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Response, StatusCode};
use tokio::time::Instant;
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::http::Failure;
use windlass_core::service::{EventStream, Pieces, Refusal};

use crate::follow::{Ending, Follower, GROWTH, Glance};
use crate::history::Reading;
use crate::wire::Control;

const LAST_EVENT_ID: &str = "last-event-id";
/// So many claims in a row that the status did not confirm are asked about at once; the ones after them
/// no more often than the log is read again.
const DOUBTS: u32 = 3;

/// How one reading ended.
pub(crate) enum End {
    /// The build has ended; the status says so.
    Ended(Box<Ending>),
    /// The server ended the log.
    Closed,
    /// The log could not be read on.
    Broken {
        /// Why.
        error: Error,
        /// There was a log.
        opened: bool,
        /// How long the service asked us to wait.
        retry_after: Option<Duration>,
    },
    /// There is no log, perhaps not yet.
    Absent(Refusal),
}

/// Claims of the log about the build that the status did not confirm.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Doubts {
    unconfirmed: u32,
    asked: Option<Instant>,
    /// When the status is asked without another claim.
    due: Option<Instant>,
    /// How long the last wait for that was.
    wait: Duration,
}

enum Next {
    Piece(Bytes),
    Over,
    Broken(Error),
    Due,
}

impl Follower<'_> {
    /// Reads the log once, and passes on what was not shown yet.
    ///
    /// # Errors
    /// What no later reading will change; `Cancelled`.
    pub(crate) async fn read_log(&mut self) -> Result<End> {
        let (client, id) = (self.client(), self.id());
        let url = client.url(&["builds", id.as_str(), "logs"], &[]);
        let silence = self.config().log_stall_timeout;
        let headers = headers(self.history.last_id());
        let asked = self.job.run(async { Ok(client.get_within(url, headers, silence).await) }).await?;
        let broken = |error, retry_after| End::Broken { error, opened: false, retry_after };
        let response = match asked {
            Ok(response) => response,
            Err(Failure::Transient { error, .. }) => return Ok(broken(error, None)),
            Err(Failure::Final(error)) => return Err(error),
        };
        if !response.status().is_success() {
            let refusal = self.job.run(async { Ok(client.refusal(response).await) }).await?;
            let retry_after = refusal.retry_after;
            return match refusal.status {
                StatusCode::NOT_FOUND => Ok(End::Absent(refusal)),
                _ if refusal.may_pass() => Ok(broken(refusal.into_error(&self.unreadable()), retry_after)),
                _ => Err(refusal.into_error(&self.unreadable())),
            };
        }
        if let Some(other) = other_type(&response) {
            let message = format!("`{}` answered `{other}`, which is no log", client.server());
            return Ok(broken(Error::new(ErrorKind::UnexpectedAnswer, message), None));
        }
        self.read_events(response).await
    }

    async fn read_events(&mut self, response: Response) -> Result<End> {
        let mut pieces = Pieces::of(response.bytes_stream());
        let (mut stream, mut reading) = (EventStream::default(), Reading::default());
        let silence = self.config().log_stall_timeout;
        let mut stalled = Instant::now() + silence;
        loop {
            let piece = match self.next_piece(&mut pieces, stalled).await? {
                Next::Piece(piece) => piece,
                Next::Over => {
                    for data in reading.into_held() {
                        if let Some(ending) = self.pass(&data).await? {
                            return Ok(End::Ended(ending.into()));
                        }
                    }
                    self.lines.pass_on(self.line);
                    return Ok(End::Closed);
                }
                Next::Broken(error) => return Ok(End::Broken { error, opened: true, retry_after: None }),
                Next::Due => {
                    if let Some(ending) = self.look_again().await? {
                        return Ok(End::Ended(ending.into()));
                    }
                    continue;
                }
            };
            stream.feed(piece);
            while let Some(event) = stream.next_event() {
                let Some(held) = self.history.take(&mut reading, &event.data, event.id) else { continue };
                self.progressed = true;
                if held.is_empty() && Control::of(&event.data).is_none() {
                    self.lines.add(&event.data, self.line);
                    continue;
                }
                for data in held.into_iter().chain([event.data.into_owned()]) {
                    if let Some(ending) = self.pass(&data).await? {
                        return Ok(End::Ended(ending.into()));
                    }
                }
            }
            self.lines.pass_on(self.line);
            self.server_wait = stream.retry().or(self.server_wait);
            stalled = Instant::now() + silence;
        }
    }

    /// Passes on what one event says. What it says of the end of the build is held against the status.
    async fn pass(&mut self, data: &str) -> Result<Option<Ending>> {
        if let Some(claim) = Control::of(data) {
            self.lines.pass_on(self.line);
            if let Some(ending) = self.weigh(claim).await? {
                return Ok(Some(ending));
            }
        }
        self.lines.add(data, self.line);
        Ok(None)
    }

    /// Waits for more of the log, for its end, or until the status is asked; `stalled` is when a silent log
    /// counts as broken off.
    async fn next_piece(&mut self, pieces: &mut Pieces, stalled: Instant) -> Result<Next> {
        let silence = self.config().log_stall_timeout;
        let until = self.doubts.due.map_or(stalled, |due| due.min(stalled));
        let piece = async { Ok(tokio::time::timeout_at(until, pieces.next()).await) };
        Ok(match self.job.run(piece).await? {
            Ok(Some(Ok(piece))) => Next::Piece(piece),
            Ok(None) => Next::Over,
            Ok(Some(Err(error))) => Next::Broken(self.client().broke_off(error).into_error()),
            Err(_) if self.doubts.due.take_if(|due| *due == until).is_some() => Next::Due,
            Err(_) => {
                let message =
                    format!("`{}` sent nothing for {} s", self.client().server(), silence.as_secs());
                Next::Broken(Error::new(ErrorKind::TimedOut, message))
            }
        })
    }

    /// Asks the status whether a claim of the log is true. A log full of such claims does not become a
    /// flood of questions.
    async fn weigh(&mut self, claim: Control) -> Result<Option<Ending>> {
        let interval = self.config().reconnect_first_wait;
        let now = Instant::now();
        if self.doubts.unconfirmed >= DOUBTS
            && let Some(asked) = self.doubts.asked.filter(|asked| now < *asked + interval)
        {
            self.doubts.due = Some(asked + interval);
            return Ok(None);
        }
        let ending = self.confirm(claim).await?;
        if ending.is_none() {
            let now = Instant::now();
            // A status that lags behind its own log is asked again.
            self.doubts = Doubts {
                unconfirmed: self.doubts.unconfirmed + 1,
                asked: Some(now),
                due: Some(now + interval),
                wait: interval,
            };
        }
        Ok(ending)
    }

    /// Asks the status once more about a claim, and less and less often.
    async fn look_again(&mut self) -> Result<Option<Ending>> {
        let glance = self.look().await?;
        let asked = match &glance {
            Glance::Unknown { wait, .. } => wait.unwrap_or_default(),
            Glance::Ended(_) | Glance::GoesOn => Duration::ZERO,
        };
        let wait = (self.doubts.wait * GROWTH).min(self.config().reconnect_longest_wait);
        self.doubts = Doubts { due: Some(Instant::now() + wait.max(asked)), wait, ..self.doubts };
        Ok(glance.ended())
    }

    fn unreadable(&self) -> String {
        format!("could not read the log of the build `{}`", self.id())
    }
}

fn headers(last_id: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(value) = HeaderValue::from_str(last_id).ok().filter(|value| !value.is_empty()) {
        headers.insert(LAST_EVENT_ID, value);
    }
    headers
}

/// The type of an answer that is no event stream. One without a type may be one.
fn other_type(response: &Response) -> Option<String> {
    let text = response.headers().get(CONTENT_TYPE)?.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim();
    let is_stream = essence.is_empty() || essence.eq_ignore_ascii_case("text/event-stream");
    (!is_stream).then(|| essence.to_owned())
}

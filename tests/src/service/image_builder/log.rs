//! Logs as event streams, whole or in every bad form.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::{Asked, Shared, State, absent, lock};

/// How often a log that waits looks whether there is more.
const LOOK: Duration = Duration::from_millis(5);
/// A connection that nobody reads ends after so long.
const PATIENCE: Duration = Duration::from_secs(600);

/// A piece of a log as it is told to be.
#[derive(Debug, Clone)]
pub enum LogPart {
    /// These bytes, as one chunk.
    Send(Vec<u8>),
    /// Nothing for so long.
    Pause(Duration),
    /// Nothing until the build has ended.
    UntilTheEnd,
    /// Nothing any more, and the connection stays.
    Hang,
    /// The connection is closed in the middle of the answer.
    Cut,
}

impl From<&str> for LogPart {
    fn from(text: &str) -> Self {
        Self::Send(text.as_bytes().to_vec())
    }
}

/// One event of one line.
pub fn event(line: &str) -> String {
    format!("data: {line}\n\n")
}

/// An answer in chunks.
struct Chunks<'a>(&'a mut TcpStream);

impl Chunks<'_> {
    fn begin(&mut self) -> io::Result<()> {
        self.0.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\
              Cache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.0.write_all(&[format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat())
    }

    fn end(&mut self) -> io::Result<bool> {
        self.0.write_all(b"0\r\n\r\n").map(|()| true)
    }
}

impl Shared {
    /// Sends a log in the form that it is told to have.
    pub(super) fn send_log(
        self: &Arc<Self>,
        parts: Vec<LogPart>,
        id: &str,
        stream: &mut TcpStream,
    ) -> io::Result<bool> {
        let mut chunks = Chunks(stream);
        chunks.begin()?;
        for part in parts {
            match part {
                LogPart::Send(bytes) => chunks.send(&bytes)?,
                LogPart::Pause(pause) => thread::sleep(pause),
                LogPart::UntilTheEnd => {
                    while matches!(self.state(id), Some(State::Running)) {
                        thread::sleep(LOOK);
                    }
                }
                LogPart::Hang => {
                    thread::sleep(PATIENCE);
                    return Ok(false);
                }
                LogPart::Cut => return Ok(false),
            }
        }
        chunks.end()
    }

    /// Sends the log of a build from the beginning, or from where the other side was, until the build has ended.
    pub(super) fn send_whole_log(
        self: &Arc<Self>,
        asked: &Asked,
        stream: &mut TcpStream,
    ) -> io::Result<bool> {
        let id = asked.build_id();
        if self.state(id).is_none() {
            return absent().write(stream, false).map(|()| true);
        }
        let last = asked.head.header("last-event-id").filter(|_| self.habits.resumes);
        let mut at = last.and_then(|last| last.parse().ok()).unwrap_or(0);
        let mut chunks = Chunks(stream);
        chunks.begin()?;
        loop {
            // The state first: what it ends with is then in the log.
            let state = self.state(id);
            for line in self.lines_from(id, at) {
                at += 1;
                let id = if self.habits.ids { format!("id: {at}\n") } else { String::new() };
                chunks.send(format!("{id}{}", event(&line)).as_bytes())?;
            }
            let end = match state {
                Some(State::Running) => {
                    thread::sleep(LOOK);
                    continue;
                }
                Some(State::Done(_)) => serde_json::json!({ "done": true }),
                Some(State::Failed(error)) => serde_json::json!({ "error": error }),
                Some(State::Cancelled) | None => serde_json::json!({ "error": "cancelled" }),
            };
            if self.habits.says_the_end {
                chunks.send(event(&end.to_string()).as_bytes())?;
            }
            return chunks.end();
        }
    }

    fn state(&self, id: &str) -> Option<State> {
        lock(&self.builds).get(id).map(|build| build.state.clone())
    }

    fn lines_from(&self, id: &str, at: usize) -> Vec<String> {
        let builds = lock(&self.builds);
        builds.get(id).and_then(|build| build.log.get(at..)).unwrap_or_default().to_vec()
    }
}

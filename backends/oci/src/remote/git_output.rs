//! What git prints while it works, and how long it has been silent.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

/// So much of the end of what was printed is kept.
const KEPT: usize = 256 << 10;
/// Once all has arrived, git works on its own and says little: it may be silent so many times longer.
const LONGER_ON_ITS_OWN: u32 = 10;

/// When git was heard last.
#[derive(Debug)]
pub(super) struct Heard(Mutex<Last>);

#[derive(Clone, Copy, Debug)]
struct Last {
    at: Instant,
    all_arrived: bool,
}

impl Default for Heard {
    fn default() -> Self {
        Self(Mutex::new(Last { at: Instant::now(), all_arrived: false }))
    }
}

impl Heard {
    fn last(&self) -> Last {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, piece: &[u8]) {
        let last = Last { at: Instant::now(), all_arrived: says_all_arrived(piece) };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }

    /// Ends when nothing was heard for so long; never without a limit.
    pub(super) async fn silence(&self, limit: Option<Duration>) {
        let Some(limit) = limit else { return std::future::pending().await };
        loop {
            let last = self.last();
            let due = last.at + if last.all_arrived { limit * LONGER_ON_ITS_OWN } else { limit };
            if Instant::now() >= due {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

/// `Resolving deltas: 100% (2/2), done.`, but not what the server says of its own work.
fn says_all_arrived(piece: &[u8]) -> bool {
    let text = String::from_utf8_lossy(piece);
    let line = text.trim_end().rsplit(['\n', '\r']).next().unwrap_or_default();
    !line.starts_with("remote:") && line.ends_with("done.")
}

/// Reads to the end, and keeps the last of it.
pub(super) async fn listen(from: Option<impl AsyncRead + Unpin>, heard: &Heard) -> io::Result<String> {
    let Some(mut from) = from else { return Ok(String::new()) };
    let (mut kept, mut piece) = (Vec::new(), vec![0; 8 << 10]);
    loop {
        let read = from.read(&mut piece).await?;
        if read == 0 {
            return Ok(String::from_utf8_lossy(&kept).into_owned());
        }
        heard.hear(&piece[..read]);
        kept.extend_from_slice(&piece[..read]);
        if kept.len() > 2 * KEPT {
            kept.drain(..kept.len() - KEPT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_transfer_is_told_from_the_work_of_the_server() {
        for (piece, arrived) in [
            ("Receiving objects:  99% (1/2)\rReceiving objects: 100% (2/2), 1 KiB, done.\n", true),
            ("Resolving deltas: 100% (1/1), done.\n", true),
            ("remote: Compressing objects: 100% (2/2), done.        \n", false),
            ("Cloning into '/x'...\n", false),
            ("Resolving deltas: 100% (1/1), done.\nCloning into '/x'...\n", false),
        ] {
            assert_eq!(says_all_arrived(piece.as_bytes()), arrived, "{piece}");
        }
    }

    #[tokio::test]
    async fn what_is_kept_has_an_end() {
        let printed = "x".repeat(5 * KEPT) + "end";
        let kept = listen(Some(printed.as_bytes()), &Heard::default()).await.expect("read");
        assert!(kept.len() <= 2 * KEPT && kept.ends_with("end"));
    }
}

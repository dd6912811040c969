//! What comes on stdin, as long as the user does not stop the work: a pipe that is silent does not end by
//! itself.

use std::io::{self, Cursor, Read};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use windlass_core::backend::Job;

const PIECE_BYTES: usize = 256 * 1024;
const PIECES_AHEAD: usize = 4;
/// How soon the end of the work is noticed.
const PATIENCE: Duration = Duration::from_millis(50);

/// Reads stdin from a thread of its own, which the end of the process stops.
pub(super) struct Stdin<'a> {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Cursor<Vec<u8>>,
    job: &'a Job,
}

impl<'a> Stdin<'a> {
    pub(super) fn start(job: &'a Job) -> Self {
        Self::reading(io::stdin(), job)
    }

    fn reading(mut from: impl Read + Send + 'static, job: &'a Job) -> Self {
        let (pieces, received) = mpsc::sync_channel(PIECES_AHEAD);
        thread::spawn(move || {
            loop {
                let mut piece = vec![0; PIECE_BYTES];
                let read = match from.read(&mut piece) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    read => read,
                };
                let ends = !matches!(read, Ok(1..));
                piece.truncate(*read.as_ref().unwrap_or(&0));
                if pieces.send(read.map(|_| piece)).is_err() || ends {
                    return;
                }
            }
        });
        Self { pieces: received, piece: Cursor::default(), job }
    }
}

impl Read for Stdin<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            self.job.check().map_err(io::Error::other)?;
            match self.pieces.recv_timeout(PATIENCE) {
                Ok(piece) => self.piece = Cursor::new(piece?),
                Err(RecvTimeoutError::Timeout) => continue,
                // The end was the last piece.
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
            }
            if self.piece.get_ref().is_empty() {
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_all_that_comes_and_stops_with_the_work() {
        let job = Job::silent();
        let mut read = Vec::new();
        let long = vec![7; 3 * PIECE_BYTES + 1];
        let mut stdin = Stdin::reading(Cursor::new(long.clone()), &job);
        stdin.read_to_end(&mut read).expect("read");
        assert!(read == long);
        assert_eq!(stdin.read(&mut [0; 9]).expect("still the end"), 0);
        let (silent, _writer) = io::pipe().expect("a pipe");
        let mut stdin = Stdin::reading(silent, &job);
        job.cancel.cancel();
        stdin.read(&mut [0; 9]).expect_err("stopped");
    }
}

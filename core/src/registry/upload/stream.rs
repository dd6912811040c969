//! Sending a blob while it is being made: its digest is known only at its end.

use std::io::{self, Write};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::RegistryClient;
use super::super::authentication::Scope;
use super::part::{Content, Part};
use super::session::{Begun, Ended, Session};
use super::{BlobSource, LARGEST_PIECE_BYTES, Pushed, Report};
use crate::backend::Job;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Step;
use crate::image::Descriptor;
use crate::reference::Reference;

/// Takes the content of a blob that is being sent. Dropped, it says that this was all of it.
///
/// To be written to from a thread that may block: it waits for the connection. Writing never
/// fails: once the upload has broken, what comes is swallowed, and [`BlobStream::finish`] says so.
#[derive(Debug)]
pub struct BlobSink {
    pieces: Option<mpsc::Sender<Bytes>>,
    rest: Option<oneshot::Sender<Bytes>>,
    buffer: BytesMut,
    piece_bytes: usize,
}

impl Write for BlobSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(pieces) = &self.pieces else { return Ok(bytes.len()) };
        // A full piece waits for more: the last one is the rest, and a blob of one piece is no stream.
        if self.buffer.len() == self.piece_bytes {
            let piece = std::mem::take(&mut self.buffer).freeze();
            if pieces.blocking_send(piece).is_err() {
                self.pieces = None;
                return Ok(bytes.len());
            }
        }
        let room = self.piece_bytes - self.buffer.len();
        let taken = bytes.len().min(room);
        self.buffer.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobSink {
    fn drop(&mut self) {
        if let Some(rest) = self.rest.take() {
            let _ = rest.send(std::mem::take(&mut self.buffer).freeze());
        }
    }
}

/// A blob that is being sent while it is being made. Dropped, it is given up.
#[derive(Debug)]
pub struct BlobStream {
    upload: JoinHandle<Result<Pushed>>,
    end: oneshot::Sender<Descriptor>,
    _stop: DropGuard,
}

impl BlobStream {
    /// Ends the upload, once the sink was dropped: what was written to it is this blob.
    ///
    /// # Errors
    /// Whatever broke the upload on the way. The registry has nothing of it then, and the blob can
    /// be sent with [`RegistryClient::push_blob`], which knows more ways.
    pub async fn finish(self, blob: &Descriptor) -> Result<Pushed> {
        // Nobody listens to an upload that has failed.
        let _ = self.end.send(blob.clone());
        match self.upload.await {
            Ok(result) => result,
            Err(join) if join.is_panic() => std::panic::resume_unwind(join.into_panic()),
            Err(_) => Err(Error::cancelled()),
        }
    }

    /// Gives the upload up, and tells the registry; takes no longer than a few seconds.
    pub async fn abandon(self) {
        let Self { upload, end, _stop: stop } = self;
        drop((end, stop));
        let _ = upload.await;
    }
}

impl RegistryClient {
    /// Opens an upload of a blob whose digest is known only at its end. What is written to the
    /// sink is sent in pieces as it comes; a piece that breaks off is sent again in place. A blob of
    /// at most one piece (8 MiB, less where [`super::super::RegistrySettings::piece_bytes`] is) is
    /// sent at its end, and only if the registry does not have it.
    ///
    /// # Errors
    /// `InvalidConfig` for certificate files that cannot be read. What the registry has to say
    /// comes from [`BlobStream::finish`].
    pub async fn stream_blob(
        &self,
        repository: &Reference,
        step: &Step,
        job: &Job,
    ) -> Result<(BlobStream, BlobSink)> {
        let stop = job.cancel.child_token();
        let (pieces, waiting) = mpsc::channel(1);
        let (rest, last) = oneshot::channel();
        let (end, ending) = oneshot::channel();
        let upload = Streamed {
            session: Session {
                client: self.clone(),
                endpoint: self.endpoint(repository.registry())?,
                scope: Scope::push(repository.repository()),
                what: "a blob that is being made".to_owned(),
                job: Job { cancel: stop.clone(), ..job.clone() },
            },
            repository: repository.clone(),
            report: Report::new(step, job),
            begun: None,
            sent_bytes: 0,
        };
        let piece_bytes = self.settings().piece_bytes.clamp(1, LARGEST_PIECE_BYTES) as usize;
        let upload = tokio::spawn(upload.run(waiting, last, ending));
        let sink = BlobSink { pieces: Some(pieces), rest: Some(rest), buffer: BytesMut::new(), piece_bytes };
        Ok((BlobStream { upload, end, _stop: stop.drop_guard() }, sink))
    }
}

/// The side of the connection.
struct Streamed {
    session: Session,
    repository: Reference,
    report: Report,
    begun: Option<Begun>,
    sent_bytes: u64,
}

impl Streamed {
    async fn run(
        mut self,
        pieces: mpsc::Receiver<Bytes>,
        rest: oneshot::Receiver<Bytes>,
        end: oneshot::Receiver<Descriptor>,
    ) -> Result<Pushed> {
        let stop = self.session.job.cancel.clone();
        let result = self.send(pieces, rest, end, &stop).await;
        if let (Err(_), Some(begun)) = (&result, &self.begun) {
            self.session.abandon(begun.location.clone()).await;
        }
        result
    }

    async fn send(
        &mut self,
        mut pieces: mpsc::Receiver<Bytes>,
        rest: oneshot::Receiver<Bytes>,
        end: oneshot::Receiver<Descriptor>,
        stop: &CancellationToken,
    ) -> Result<Pushed> {
        let given_up = |_| Error::cancelled();
        let job = Job { cancel: stop.clone(), ..self.session.job.clone() };
        while let Some(piece) = job.run(async { Ok(pieces.recv().await) }).await? {
            self.piece(piece).await?;
        }
        let rest = job.run(async { rest.await.map_err(given_up) }).await?;
        if self.begun.is_some() && !rest.is_empty() {
            self.piece(rest.clone()).await?;
        }
        let blob = job.run(async { end.await.map_err(given_up) }).await?;
        self.session.what = format!("blob `{}` ({} bytes)", blob.digest, blob.size_bytes);
        let Some(begun) = &self.begun else {
            let source = BlobSource::Bytes(rest);
            return self
                .session
                .client
                .push_reported(&self.repository, &blob, &source, None, &self.report, &job)
                .await;
        };
        if self.sent_bytes != blob.size_bytes {
            let message = format!("{} bytes of a blob of {} were sent", self.sent_bytes, blob.size_bytes);
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let close = self.session.close(begun.location.clone(), blob.digest).await;
        close.map_err(Ended::into_error)?;
        self.report.of(&blob).sent(blob.size_bytes);
        let known = &self.session.client.inner.known_blobs;
        known.note(&self.repository.name(), blob.digest, Instant::now());
        Ok(Pushed::Uploaded)
    }

    async fn piece(&mut self, piece: Bytes) -> Result<()> {
        let session = &self.session;
        let begun = match self.begun.take() {
            Some(begun) => begun,
            None if session.client.takes_only_whole(&session.endpoint.registry) => {
                let message = format!("`{}` takes blobs only whole", session.endpoint.registry);
                return Err(Error::new(ErrorKind::UnexpectedAnswer, message));
            }
            None => session.begin().await?,
        };
        let begun = self.begun.insert(begun);
        if begun.least_piece_bytes > piece.len() as u64 && self.sent_bytes == 0 {
            let message = format!("`{}` takes no pieces as small as ours", session.endpoint.registry);
            return Err(Error::new(ErrorKind::UnexpectedAnswer, message));
        }
        let (from, to) = (self.sent_bytes, self.sent_bytes + piece.len() as u64);
        let part = |start: u64| {
            let content = Content::Bytes(piece.slice((start - from) as usize..));
            Part { content, start, length: to - start, report: &self.report }
        };
        let taken = session.piece(&mut begun.location, (from, to), part).await;
        if matches!(taken, Err(Ended::NotThisForm(_))) && from == 0 {
            session.client.remember_form(&session.endpoint.registry, false, to);
        }
        taken.map_err(Ended::into_error)?;
        self.sent_bytes = to;
        Ok(())
    }
}

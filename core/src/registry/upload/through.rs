//! A blob that comes from another registry and is sent on, without being stored in between.
//!
//! It is verified on the way: the end of content that is not what its digest says is held back, so
//! that it can never become a blob over there.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::{TryStreamExt, stream};
use reqwest::Body;
use tokio::sync::mpsc;

use super::super::RegistryClient;
use super::super::exchange::Source;
use super::Report;
use super::session::Ended;
use crate::backend::Job;
use crate::digest::DigestWriter;
use crate::error::{Error, ErrorKind, Result};
use crate::image::Descriptor;
use crate::reference::Reference;

/// How many pieces, as they come from the connection, may wait for the other one.
const PIECES_AHEAD: usize = 16;

/// A blob at other registries.
pub(super) struct Through<'a> {
    pub(super) client: &'a RegistryClient,
    /// Where it is; the next goes on where the one before failed.
    pub(super) origins: &'a [Reference],
    pub(super) blob: &'a Descriptor,
    pub(super) report: &'a Report,
    pub(super) job: &'a Job,
    failure: Arc<Mutex<Option<Ended>>>,
}

impl<'a> Through<'a> {
    pub(super) fn new(
        client: &'a RegistryClient,
        origins: &'a [Reference],
        blob: &'a Descriptor,
        report: &'a Report,
        job: &'a Job,
    ) -> Self {
        Self { client, origins, blob, report, job, failure: Arc::default() }
    }

    /// Why the blob could not be had, if it could not. An upload that ended early has this cause.
    pub(super) fn failure(&self) -> Option<Ended> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Starts to fetch. What comes is right if it is whole.
    fn start(&self) -> mpsc::Receiver<Bytes> {
        let (verified, received) = mpsc::channel(PIECES_AHEAD);
        let (client, origins, blob) = (self.client.clone(), self.origins.to_vec(), self.blob.clone());
        let (job, failure) = (self.job.clone(), self.failure.clone());
        *failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
        tokio::spawn(async move {
            let result = tokio::select! {
                biased;
                // Nobody wants it any more.
                () = verified.closed() => return,
                result = fetch_verified(&client, &origins, &blob, &verified, &job) => result,
            };
            if let Err(error) = result {
                // Wrong content may be a mirror's: without them it may be right.
                let mirrors_gave =
                    error.kind() == ErrorKind::Corrupt && client.distrust_mirrors(&origins, &job);
                let ended = if mirrors_gave { Ended::Lost(error) } else { Ended::Failed(error) };
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
            }
        });
        received
    }

    /// Starts to fetch in pieces of this size, apart from the last.
    pub(super) fn pieces(&self, piece_bytes: usize) -> mpsc::Receiver<Bytes> {
        let mut parts = self.start();
        let (pieces, received) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut piece = BytesMut::new();
            while let Some(mut part) = parts.recv().await {
                while !part.is_empty() {
                    let room = piece_bytes - piece.len();
                    piece.extend_from_slice(&part.split_to(part.len().min(room)));
                    if piece.len() == piece_bytes && pieces.send(piece.split().freeze()).await.is_err() {
                        return;
                    }
                }
            }
            if !piece.is_empty() {
                let _ = pieces.send(piece.freeze()).await;
            }
        });
        received
    }
}

async fn fetch_verified(
    client: &RegistryClient,
    origins: &[Reference],
    blob: &Descriptor,
    verified: &mpsc::Sender<Bytes>,
    job: &Job,
) -> Result<()> {
    let (pieces, mut received) = mpsc::channel(PIECES_AHEAD);
    let fetch = async {
        // Dropped at its end, so that the other side ends too.
        let pieces = pieces;
        client.blob_pieces(origins, blob, &pieces, job).await
    };
    let verify = async {
        let mut seen = DigestWriter::new(io::sink());
        let mut last = None;
        while let Some(piece) = received.recv().await {
            let _ = seen.write_all(&piece);
            // The last piece waits until it is known to be right.
            if let Some(piece) = last.replace(piece)
                && verified.send(piece).await.is_err()
            {
                return Ok(());
            }
        }
        let (_, digest, size_bytes) = seen.finish();
        if size_bytes == blob.size_bytes && digest != blob.digest {
            let message = format!("blob `{}` comes with content of digest `{digest}`", blob.digest);
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        if let Some(piece) = last {
            let _ = verified.send(piece).await;
        }
        Ok(())
    };
    let (fetched, right) = tokio::join!(fetch, verify);
    right.and(fetched)
}

impl Source for Through<'_> {
    fn open(&self, sent: Arc<AtomicU64>) -> Body {
        let state = (self.start(), self.blob.size_bytes);
        let pieces = stream::try_unfold(state, async |(mut received, missing)| match received.recv().await {
            Some(piece) => {
                let missing = missing - piece.len() as u64;
                Ok(Some((piece, (received, missing))))
            }
            None if missing == 0 => Ok(None),
            None => Err(io::Error::other("its source broke off")),
        });
        let count = move |piece: &Bytes| {
            sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        };
        Body::wrap_stream(pieces.inspect_ok(count))
    }

    fn size_bytes(&self) -> u64 {
        self.blob.size_bytes
    }

    fn progress(&self, sent_bytes: u64) {
        self.report.sent(sent_bytes);
    }
}

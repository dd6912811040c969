//! Sending a blob that is at hand: whole or in pieces, and the other way where one is refused.

use std::ops::Range;

use url::Url;

use super::part::{Content, Part};
use super::session::{Begun, Ended, Session};
use super::through::Through;
use super::{BlobSource, LARGEST_PIECE_BYTES, Report};
use crate::error::Result;
use crate::http::Failure;
use crate::image::Descriptor;
use crate::reference::Reference;

/// A blob at hand that is sent.
pub(super) struct Upload<'a> {
    pub(super) session: Session,
    pub(super) blob: &'a Descriptor,
    pub(super) source: &'a BlobSource,
    pub(super) report: Report,
}

impl Upload<'_> {
    /// Sends the blob, to this address if an upload was begun already.
    pub(super) async fn run(&self, location: Option<Url>) -> Result<()> {
        let session = &self.session;
        let (client, registry) = (&session.client, &session.endpoint.registry);
        let mut begun = location.map(|location| Begun { location, least_piece_bytes: 0 });
        let mut in_pieces = client.sends_in_pieces(registry, self.blob.size_bytes);
        let mut changed_form = false;
        let mut attempts = client.settings().retry.attempts(session.server(), &session.job);
        loop {
            let mut upload = match begun.take() {
                Some(begun) => begun,
                None => session.begin().await?,
            };
            let ended = match in_pieces {
                true => self.in_pieces(&mut upload).await,
                false => self.whole(upload.location.clone()).await,
            };
            let Err(ended) = ended else {
                if changed_form {
                    client.remember_form(registry, in_pieces, self.blob.size_bytes);
                }
                return Ok(());
            };
            session.abandon(upload.location).await;
            match ended {
                Ended::NotThisForm(_) if !changed_form => {
                    changed_form = true;
                    in_pieces = !in_pieces;
                }
                Ended::StartOver(failure) => {
                    attempts.again(failure).await?;
                    // Only the answer may have been lost.
                    let scope = session.scope.clone();
                    if client.has_blob_as(&session.endpoint, scope, self.blob, &session.job).await? {
                        return Ok(());
                    }
                }
                ended => return Err(ended.into_error()),
            }
        }
    }

    async fn whole(&self, location: Url) -> Result<(), Ended> {
        let (size_bytes, digest) = (self.blob.size_bytes, self.blob.digest);
        let content = match self.source {
            BlobSource::Bytes(bytes) => Content::Bytes(bytes.clone()),
            BlobSource::File(path) => Content::File(path.clone(), 0),
            BlobSource::Registries(origins) => {
                let through = self.through(origins);
                let ended = self.session.whole(location, digest, &through).await;
                return ended.map_err(|ended| through.failure().map_or(ended, Ended::Failed));
            }
        };
        let part = Part { content, start: 0, length: size_bytes, report: &self.report };
        self.session.whole(location, digest, &part).await
    }

    async fn in_pieces(&self, begun: &mut Begun) -> Result<(), Ended> {
        let mut sent = Pieces { location: &mut begun.location, from: 0, resumed: false };
        let piece_bytes = self.session.client.settings().chunk_bytes.max(begun.least_piece_bytes).max(1);
        match self.source {
            BlobSource::File(path) => {
                let content = |part: Range<u64>| Content::File(path.clone(), part.start);
                self.pieces_at_hand(&mut sent, piece_bytes, content).await?;
            }
            BlobSource::Bytes(bytes) => {
                let content =
                    |part: Range<u64>| Content::Bytes(bytes.slice(part.start as usize..part.end as usize));
                self.pieces_at_hand(&mut sent, piece_bytes, content).await?;
            }
            BlobSource::Registries(origins) => {
                let piece_bytes = piece_bytes.min(LARGEST_PIECE_BYTES).max(begun.least_piece_bytes);
                self.pieces_through(&mut sent, piece_bytes, origins).await?;
            }
        }
        match self.session.close(sent.location.clone(), self.blob.digest).await {
            // What it said that it had stored of a piece that broke off was not so.
            Err(Ended::OtherContent(error)) if sent.resumed => {
                Err(Ended::StartOver(Failure::transient(error)))
            }
            ended => ended,
        }
    }

    async fn pieces_at_hand(
        &self,
        sent: &mut Pieces<'_>,
        piece_bytes: u64,
        content: impl Fn(Range<u64>) -> Content,
    ) -> Result<(), Ended> {
        while sent.from < self.blob.size_bytes {
            let to = sent.from.saturating_add(piece_bytes).min(self.blob.size_bytes);
            self.piece(sent, to, |from| content(from..to)).await?;
        }
        Ok(())
    }

    async fn pieces_through(
        &self,
        sent: &mut Pieces<'_>,
        piece_bytes: u64,
        origins: &[Reference],
    ) -> Result<(), Ended> {
        let through = self.through(origins);
        let mut pieces = through.pieces(usize::try_from(piece_bytes).unwrap_or(usize::MAX));
        while let Some(piece) = pieces.recv().await {
            let start = sent.from;
            let content = |from: u64| Content::Bytes(piece.slice((from - start) as usize..));
            self.piece(sent, start + piece.len() as u64, content).await?;
        }
        through.failure().map_or(Ok(()), |error| Err(Ended::Failed(error)))
    }

    /// Sends the next piece, which ends at a position; `content` gives what is from a position to
    /// that end.
    async fn piece(
        &self,
        sent: &mut Pieces<'_>,
        to: u64,
        content: impl Fn(u64) -> Content,
    ) -> Result<(), Ended> {
        let part = |start| Part { content: content(start), start, length: to - start, report: &self.report };
        sent.resumed |= self.session.piece(sent.location, (sent.from, to), part).await?;
        sent.from = to;
        Ok(())
    }

    fn through<'a>(&'a self, origins: &'a [Reference]) -> Through<'a> {
        Through::new(&self.session.client, origins, self.blob, &self.report, &self.session.job)
    }
}

/// How far an upload in pieces is.
struct Pieces<'a> {
    /// Where the next goes.
    location: &'a mut Url,
    /// Where it begins.
    from: u64,
    /// One broke off and was gone on with.
    resumed: bool,
}

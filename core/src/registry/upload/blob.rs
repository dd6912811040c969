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

/// A whole blob that has broken off so often is sent in pieces, which go on where they break off.
const BREAKS_OF_A_WHOLE: u32 = 2;

/// A blob at hand that is sent.
pub(super) struct Upload<'a> {
    pub(super) session: Session,
    pub(super) blob: &'a Descriptor,
    pub(super) source: &'a BlobSource,
    pub(super) report: Report,
}

impl Upload<'_> {
    /// Sends the blob, as the upload that was begun already if there is one.
    pub(super) async fn run(&self, mut begun: Option<Begun>) -> Result<()> {
        let session = &self.session;
        let (client, registry) = (&session.client, &session.endpoint.registry);
        let mut in_pieces = client.sends_in_pieces(registry, self.blob.size_bytes);
        let (mut changed_form, mut refused_form, mut broken) = (false, None, 0);
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
                Ended::NotThisForm(_) if refused_form.is_none() => {
                    refused_form = Some(in_pieces);
                    (changed_form, in_pieces) = (true, !in_pieces);
                }
                Ended::Lost(_) | Ended::Broken(_) => {
                    let failure = match ended {
                        Ended::Broken(failure) => failure,
                        ended => Failure::transient(ended.into_error()),
                    };
                    attempts.again(failure).await?;
                    broken += 1;
                    // A front end may cut what is too large, or takes too long, without a word.
                    let has_pieces = self.blob.size_bytes > client.settings().piece_bytes;
                    if !in_pieces && broken == BREAKS_OF_A_WHOLE && has_pieces && refused_form.is_none() {
                        (changed_form, in_pieces) = (true, true);
                    }
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
                return ended.map_err(|ended| through.failure().unwrap_or(ended));
            }
        };
        let part = Part { content, start: 0, length: size_bytes, report: &self.report };
        self.session.whole(location, digest, &part).await
    }

    async fn in_pieces(&self, begun: &mut Begun) -> Result<(), Ended> {
        let mut sent = Pieces { location: &mut begun.location, from: 0, resumed: false };
        let piece_bytes = self.session.client.settings().piece_bytes.max(begun.least_piece_bytes).max(1);
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
                // What the registry wants is held in memory: it may not want everything.
                let least_bytes = begun.least_piece_bytes.min(8 * LARGEST_PIECE_BYTES);
                let piece_bytes = piece_bytes.min(LARGEST_PIECE_BYTES).max(least_bytes);
                self.pieces_through(&mut sent, piece_bytes, origins).await?;
            }
        }
        match self.session.close(sent.location.clone(), self.blob.digest).await {
            // What it said that it had stored of a piece that broke off was not so.
            Err(Ended::OtherContent(error)) if sent.resumed => Err(Ended::Lost(error)),
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
        through.failure().map_or(Ok(()), Err)
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

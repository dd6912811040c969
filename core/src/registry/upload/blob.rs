//! Sending a blob that is at hand: whole or in pieces, and the other way where one is refused.

use url::Url;

use super::part::{Content, Part};
use super::session::{Begun, Ended, Session};
use super::{BlobSource, Report};
use crate::error::Result;
use crate::http::Failure;
use crate::image::Descriptor;

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
            let upload = match begun.take() {
                Some(begun) => begun,
                None => session.begin().await?,
            };
            let ended = match in_pieces {
                true => self.in_pieces(upload.clone()).await,
                false => {
                    let part = self.part(0, self.blob.size_bytes);
                    session.whole(upload.location.clone(), self.blob.digest, &part).await
                }
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

    async fn in_pieces(&self, begun: Begun) -> Result<(), Ended> {
        let piece_bytes = self.session.client.settings().chunk_bytes.max(begun.least_piece_bytes).max(1);
        let (mut location, mut resumed, mut from) = (begun.location, false, 0);
        while from < self.blob.size_bytes {
            let to = from.saturating_add(piece_bytes).min(self.blob.size_bytes);
            let taken = self.session.piece(location, (from, to), |from| self.part(from, to)).await?;
            (location, resumed, from) = (taken.next, resumed || taken.resumed, to);
        }
        match self.session.close(location, self.blob.digest).await {
            // What it said that it had stored of a piece that broke off was not so.
            Err(Ended::OtherContent(error)) if resumed => Err(Ended::StartOver(Failure::transient(error))),
            ended => ended,
        }
    }

    fn part(&self, start: u64, end: u64) -> Part<'_> {
        let content = match self.source {
            BlobSource::Bytes(bytes) => Content::Bytes(bytes.slice(start as usize..end as usize)),
            BlobSource::File(path) => Content::File(path.clone(), start),
        };
        Part { content, start, length: end - start, report: &self.report }
    }
}

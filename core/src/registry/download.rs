//! Fetching blobs: streamed to the store, verified, gone on with where they broke off.

use std::io::Write;

use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::mpsc;

use super::RegistryClient;
use super::authentication::Scope;
use super::endpoint::Endpoint;
use super::exchange::{Answer, Request};
use crate::backend::Job;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::events::{Step, Unit};
use crate::http::{Failure, next_piece};
use crate::image::{BlobWriter, Descriptor, ImageStore};
use crate::reference::Reference;

/// How many pieces may wait for the disk.
const PIECES_AHEAD: usize = 16;

impl RegistryClient {
    /// Asks whether a repository has a blob. A registry that does not know the question has not.
    ///
    /// # Errors
    /// As [`RegistryClient::head_manifest`].
    pub async fn has_blob(&self, repository: &Reference, blob: &Descriptor, job: &Job) -> Result<bool> {
        let endpoint = self.endpoint(repository.registry())?;
        self.has_blob_as(&endpoint, Scope::pull(repository.repository()), blob, job).await
    }

    pub(super) async fn has_blob_as(
        &self,
        endpoint: &Endpoint,
        scope: Scope,
        blob: &Descriptor,
        job: &Job,
    ) -> Result<bool> {
        let (repository, push) = (scope.repository.clone(), scope.push);
        let url = endpoint.url(&repository, &format!("blobs/{}", blob.digest));
        let request = Request::new(endpoint, scope, Method::HEAD, url);
        match self.exchange(&request, job).await? {
            Answer::Success(_) => Ok(true),
            Answer::Refused(refusal)
                if matches!(refusal.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) =>
            {
                Ok(false)
            }
            // Who may send need not be allowed to look; the upload tells.
            Answer::Refused(refusal) if push && refusal.status == StatusCode::FORBIDDEN => Ok(false),
            Answer::Refused(refusal) => {
                let message = format!("could not ask `{}` for blob `{}`", endpoint.registry, blob.digest);
                Err(self.refused(refusal, &message, endpoint, &repository, job).await)
            }
        }
    }

    /// Fetches a blob into the store, unless it is there. A broken transfer goes on where it broke
    /// off. Progress is reported under the digest.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` if the content is not what the descriptor says; `LocalIo`; and as
    /// [`RegistryClient::head_manifest`].
    pub async fn blob_to(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        store: &ImageStore,
        step: &Step,
        job: &Job,
    ) -> Result<()> {
        if store.has(&blob.digest) {
            return Ok(());
        }
        for place in self.places(repository).iter().filter(|place| *place != repository) {
            match self.blob_from(place, blob, store, step, job).await {
                Ok(()) => return Ok(()),
                Err(error) => self.pass_over(place, error, job)?,
            }
        }
        self.blob_from(repository, blob, store, step, job).await
    }

    async fn blob_from(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        store: &ImageStore,
        step: &Step,
        job: &Job,
    ) -> Result<()> {
        let endpoint = self.endpoint(repository.registry())?;
        let (pieces, received) = mpsc::channel(PIECES_AHEAD);
        let writer = store.writer()?;
        let expected = blob.clone();
        let failed = store.write_failed();
        let write = job.blocking(move |_| write_pieces(writer, received, &expected, &failed));
        let item = blob.digest.to_string();
        let progress = |bytes| step.progress_of(&item, bytes, Some(blob.size_bytes), Unit::Bytes);
        let fetch = async {
            // Dropped at its end, so that the writer ends too.
            let pieces = pieces;
            let fetch = Fetch { client: self, endpoint: &endpoint, repository, blob, job };
            fetch.run(&mut 0, &pieces, &progress).await
        };
        // Both end together: the writer when the channel closes, the fetcher when nobody receives.
        let (fetched, written) = tokio::join!(fetch, write);
        let place = |error: Error| error.with_detail("reference", repository.name());
        match (fetched, written) {
            // The disk's complaint is the cause of the fetcher's.
            (Err(_), Err(error)) if error.kind() == ErrorKind::LocalIo => Err(error),
            (Err(error), _) => Err(error),
            (Ok(()), written) => written.map_err(place),
        }
    }

    /// Fetches a blob from the first of these registries that has it, without storing it; the next
    /// goes on where one failed. The receiver verifies.
    pub(super) async fn blob_pieces(
        &self,
        origins: &[Reference],
        blob: &Descriptor,
        pieces: &mpsc::Sender<Bytes>,
        job: &Job,
    ) -> Result<()> {
        let mut received_bytes = 0;
        let message = format!("nobody is known to have blob `{}`", blob.digest);
        let mut last = Error::new(ErrorKind::NotFound, message);
        for origin in origins {
            for place in self.places(origin) {
                let endpoint = self.endpoint(place.registry())?;
                let fetch = Fetch { client: self, endpoint: &endpoint, repository: &place, blob, job };
                match fetch.run(&mut received_bytes, pieces, &|_| ()).await {
                    Ok(()) => return Ok(()),
                    Err(error) if matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::LocalIo) => {
                        return Err(error);
                    }
                    Err(error) if place != *origin => self.pass_over(&place, error, job)?,
                    Err(error) => last = error,
                }
            }
        }
        Err(last)
    }
}

/// One blob on its way from one registry.
struct Fetch<'a> {
    client: &'a RegistryClient,
    endpoint: &'a Endpoint,
    repository: &'a Reference,
    blob: &'a Descriptor,
    job: &'a Job,
}

impl Fetch<'_> {
    /// Fetches what is missing, and goes on where it breaks off as long as it gets on.
    async fn run(
        &self,
        received_bytes: &mut u64,
        pieces: &mpsc::Sender<Bytes>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let retry = self.client.inner.settings.retry;
        let mut attempts = retry.attempts(format!("`{}`", self.endpoint.registry), self.job);
        loop {
            let before = *received_bytes;
            let attempt = async {
                let mut response = self.open(before).await?;
                self.receive(&mut response, received_bytes, pieces, progress).await
            };
            match self.job.run(async { Ok(attempt.await) }).await? {
                Ok(()) => return Ok(()),
                Err(failure) => attempts.again(failure).await?,
            }
            if *received_bytes > before {
                // It gets on: count the failures of this stretch only.
                attempts = retry.attempts(format!("`{}`", self.endpoint.registry), self.job);
            }
        }
    }

    /// Asks for a blob from a position on.
    async fn open(&self, position: u64) -> Result<Response, Failure> {
        let Self { client, endpoint, repository, blob, job } = *self;
        let url = endpoint.url(repository.repository(), &format!("blobs/{}", blob.digest));
        let scope = Scope::pull(repository.repository());
        let mut request = Request::new(endpoint, scope, Method::GET, url);
        if position > 0 {
            let range = HeaderValue::from_str(&format!("bytes={position}-")).expect("digits are ASCII");
            request = request.header(RANGE, range);
        }
        match client.exchange_once(&request, job).await? {
            Answer::Success(response) => Ok(response),
            Answer::Refused(refusal) => {
                let message = format!("could not fetch blob `{}` of `{}`", blob.digest, repository.name());
                Err(client.refused(refusal, &message, endpoint, repository.repository(), job).await.into())
            }
        }
    }

    async fn receive(
        &self,
        response: &mut Response,
        received_bytes: &mut u64,
        pieces: &mpsc::Sender<Bytes>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), Failure> {
        let Self { endpoint, blob, .. } = *self;
        let registry = &endpoint.registry;
        let (start, said_bytes) = match response.status() {
            StatusCode::PARTIAL_CONTENT => range_of(response),
            // A registry that ignores the range sends everything again.
            _ => (Some(0), response.content_length()),
        };
        let skip = start.filter(|start| *start == 0 || *start == *received_bytes);
        let Some(mut skip) = skip.map(|start| *received_bytes - start) else {
            let message = format!("`{registry}` sent another range of a blob than asked for");
            return Err(Error::new(ErrorKind::UnexpectedAnswer, message).into());
        };
        // One that breaks off says the right size; this is another blob.
        if let Some(said_bytes) = said_bytes.filter(|said| *said != blob.size_bytes) {
            let (digest, size_bytes) = (&blob.digest, blob.size_bytes);
            let message = format!(
                "`{registry}` says that blob `{digest}` has {said_bytes} bytes, not {size_bytes} as announced"
            );
            return Err(Error::new(ErrorKind::Corrupt, message).into());
        }
        while let Some(mut piece) = next_piece(registry, response, endpoint.silence_timeout).await? {
            let skipped = skip.min(piece.len() as u64);
            skip -= skipped;
            piece = piece.slice(skipped as usize..);
            *received_bytes += piece.len() as u64;
            if *received_bytes > blob.size_bytes {
                let message = format!("`{registry}` sent more of blob `{}` than its size says", blob.digest);
                return Err(Error::new(ErrorKind::Corrupt, message).into());
            }
            progress(*received_bytes);
            if !piece.is_empty() && pieces.send(piece).await.is_err() {
                return Err(Error::new(ErrorKind::LocalIo, "nobody takes the blob any more").into());
            }
        }
        if *received_bytes < blob.size_bytes {
            let message = format!("`{registry}` sent {received_bytes} of {} bytes", blob.size_bytes);
            return Err(Failure::transient(Error::new(ErrorKind::Unavailable, message)));
        }
        Ok(())
    }
}

/// Where the content of a 206 answer starts, and how large the whole is: `bytes 5-9/10`.
fn range_of(response: &Response) -> (Option<u64>, Option<u64>) {
    let range =
        response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok()?.strip_prefix("bytes "));
    let Some((part, total)) = range.and_then(|range| range.split_once('/')) else { return (None, None) };
    (part.split('-').next().and_then(|start| start.parse().ok()), total.parse().ok())
}

/// Writes what arrives. Commits only a whole blob: after a failure the size tells.
fn write_pieces(
    mut writer: BlobWriter,
    mut received: mpsc::Receiver<Bytes>,
    blob: &Descriptor,
    failed: &str,
) -> Result<()> {
    while let Some(piece) = received.blocking_recv() {
        writer.write_all(&piece).or_error(ErrorKind::LocalIo, || failed.to_owned())?;
    }
    if writer.size_bytes() == blob.size_bytes {
        writer.commit(Some(blob.digest))?;
    }
    Ok(())
}

//! One upload at a registry: its requests, and what their answers mean.

use std::time::Duration;

use oci_distribution::errors::OciErrorCode;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use url::Url;

use super::super::RegistryClient;
use super::super::authentication::Scope;
use super::super::endpoint::Endpoint;
use super::super::exchange::{Answer, Payload, Request, Source};
use super::super::manifests::digest_header;
use super::super::refusal::Refusal;
use super::location::{location as location_of, stored_bytes, with_digest};
use super::part::Part;
use crate::backend::Job;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::http::Failure;

/// So long we try to tell the registry that an upload is given up.
const ABANDON_LIMIT: Duration = Duration::from_secs(2);

/// Uploads of one blob to one repository, one after the other.
pub(in super::super) struct Session {
    pub(in super::super) client: RegistryClient,
    pub(in super::super) endpoint: Endpoint,
    pub(in super::super) scope: Scope,
    /// The blob, for messages: `` blob `sha256:…` (17 bytes) ``.
    pub(in super::super) what: String,
    pub(in super::super) job: Job,
}

/// An upload that was begun.
#[derive(Clone, Debug)]
pub(in super::super) struct Begun {
    /// Where it goes on.
    pub(in super::super) location: Url,
    /// Pieces other than the last must not be smaller: `OCI-Chunk-Min-Length`.
    pub(super) least_piece_bytes: u64,
}

/// Why an attempt at an upload ended without success.
#[derive(Debug)]
pub(super) enum Ended {
    /// Nothing helps.
    Failed(Error),
    /// The registry has other content than was meant.
    OtherContent(Error),
    /// This form of upload is not wanted; the other may be.
    NotThisForm(Error),
    /// The registry does not know the upload any more: it may start over.
    Lost(Error),
    /// The connection broke, or the registry was busy: it may start over.
    Broken(Failure),
}

impl Ended {
    /// The error, whatever becomes of it.
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Failed(error)
            | Self::OtherContent(error)
            | Self::NotThisForm(error)
            | Self::Lost(error) => error,
            Self::Broken(failure) => failure.into_error(),
        }
    }
}

impl Session {
    /// Opens an upload.
    ///
    /// # Errors
    /// `UnexpectedAnswer` if the registry does not say where; and as an exchange.
    pub(in super::super) async fn begin(&self) -> Result<Begun> {
        let url = self.endpoint.url(&self.scope.repository, "blobs/uploads/");
        match self.open(&self.request(Method::POST, url.clone(), 0)).await? {
            Answer::Success(answer) => self.begun(&url, answer.headers()).ok_or_else(|| {
                let message = format!("`{}` opened an upload and did not say where", self.endpoint.registry);
                Error::new(ErrorKind::UnexpectedAnswer, message)
            }),
            Answer::Refused(refusal) => Err(self.error(refusal).await),
        }
    }

    /// Sends a request that may open an upload. Who is stopped just then waits a moment for the answer:
    /// the upload would stay open.
    ///
    /// # Errors
    /// As an exchange.
    pub(super) async fn open(&self, request: &Request<'_>) -> Result<Answer> {
        let unstopped = self.job.unstopped();
        let mut exchange = std::pin::pin!(self.client.exchange(request, &unstopped));
        tokio::select! {
            biased;
            answer = &mut exchange => return answer,
            () = self.job.cancel.cancelled() => {}
        }
        if let Ok(Ok(Answer::Success(answer))) = tokio::time::timeout(ABANDON_LIMIT, exchange).await
            // 201 would be a blob that was taken over.
            && answer.status() == StatusCode::ACCEPTED
            && let Some(begun) = self.begun(&request.url, answer.headers())
        {
            self.abandon(begun.location).await;
        }
        Err(Error::cancelled())
    }

    pub(super) fn begun(&self, asked: &Url, headers: &HeaderMap) -> Option<Begun> {
        let least = headers.get("oci-chunk-min-length").and_then(|value| value.to_str().ok()?.parse().ok());
        let location = location_of(&self.endpoint, asked, headers)?;
        Some(Begun { location, least_piece_bytes: least.unwrap_or(0) })
    }

    /// Sends a whole blob in one request.
    pub(super) async fn whole(
        &self,
        location: Url,
        digest: Digest,
        source: &dyn Source,
    ) -> Result<(), Ended> {
        let url = with_digest(location, digest);
        let request = self.request(Method::PUT, url, source.size_bytes()).payload(Payload::Stream(source));
        self.last(&request, digest).await
    }

    /// Ends an upload whose pieces have all been sent.
    pub(super) async fn close(&self, location: Url, digest: Digest) -> Result<(), Ended> {
        let request = self.request(Method::PUT, with_digest(location, digest), 0);
        let mut attempts = self.client.settings().retry.attempts(self.server(), &self.job);
        loop {
            match self.last(&request, digest).await {
                // All of the blob is there: this costs less than to start over. If only the answer was
                // lost, the upload is not known any more, and the blob is.
                Err(Ended::Broken(failure)) => attempts.again(failure).await.map_err(Ended::Failed)?,
                ended => return ended,
            }
        }
    }

    async fn last(&self, request: &Request<'_>, digest: Digest) -> Result<(), Ended> {
        match self.once(request).await? {
            Ok(Answer::Success(answer)) => match digest_header(answer.headers()) {
                Some(stored) if stored != digest => {
                    let registry = &self.endpoint.registry;
                    let message = format!("`{registry}` has stored something other than {}", self.what);
                    let error = Error::new(ErrorKind::Corrupt, message);
                    Err(Ended::OtherContent(
                        error.with_detail("digest of what it stored", stored.to_string()),
                    ))
                }
                _ => Ok(()),
            },
            Ok(Answer::Refused(refusal)) => Err(self.ended(refusal).await),
            Err(failure) => Err(Ended::Broken(failure)),
        }
    }

    /// Sends the piece between two positions; `part` makes the part from a position to its end. One
    /// that breaks off goes on where the registry says; gives back whether one did. `location` follows
    /// what the registry says, also when this fails.
    pub(super) async fn piece<'a>(
        &self,
        location: &mut Url,
        (from, to): (u64, u64),
        part: impl Fn(u64) -> Part<'a>,
    ) -> Result<bool, Ended> {
        let mut attempts = self.client.settings().retry.attempts(self.server(), &self.job);
        let (mut at, mut resumed) = (from, false);
        while at < to {
            let part = part(at);
            let range = HeaderValue::from_str(&format!("{at}-{}", to - 1)).expect("digits are ASCII");
            let request = self
                .request(Method::PATCH, location.clone(), part.length)
                .header(CONTENT_RANGE, range)
                .payload(Payload::Stream(&part));
            match self.piece_once(&request, location).await? {
                Ok(Answer::Success(answer)) => {
                    self.follow(location, answer.headers());
                    return Ok(resumed);
                }
                // The registry counts otherwise than we do.
                Ok(Answer::Refused(refusal))
                    if refusal.status == StatusCode::RANGE_NOT_SATISFIABLE && at > 0 =>
                {
                    return Err(self.lost(self.error(refusal).await));
                }
                Ok(Answer::Refused(refusal)) => return Err(self.ended(refusal).await),
                Err(failure) => {
                    attempts.again(failure).await.map_err(Ended::Failed)?;
                    at = self.position(location, at, to).await?;
                    resumed = true;
                }
            }
        }
        Ok(resumed)
    }

    fn follow(&self, location: &mut Url, headers: &HeaderMap) {
        if let Some(next) = location_of(&self.endpoint, location, headers) {
            *location = next;
        }
    }

    /// Asks how far an upload got that broke off between two positions. What the registry says
    /// outside of them is not believed: it has acknowledged the lower one.
    async fn position(&self, location: &mut Url, from: u64, to: u64) -> Result<u64, Ended> {
        let request = self.request(Method::GET, location.clone(), 0);
        match self.client.exchange(&request, &self.job).await.map_err(Ended::Failed)? {
            Answer::Success(answer) => {
                self.follow(location, answer.headers());
                let stored = stored_bytes(answer.headers()).filter(|stored| (from..=to).contains(stored));
                Ok(stored.unwrap_or(from))
            }
            // distribution 2.8 refuses once a part has come that it has not acknowledged.
            Answer::Refused(refusal) => Err(self.lost(self.error(refusal).await)),
        }
    }

    /// Tells the registry that an upload will not go on. It would find out by itself after days (a
    /// week, with the distribution project's), and some refuse: an upload that broke off in the
    /// middle of a part is unknown to distribution 2.8.
    pub(in super::super) async fn abandon(&self, location: Url) {
        let request = self.request(Method::DELETE, location, 0);
        let silent = Job::silent();
        let _ = tokio::time::timeout(ABANDON_LIMIT, self.client.exchange_once(&request, &silent)).await;
    }

    fn request(&self, method: Method, url: Url, length: u64) -> Request<'_> {
        let request = Request::new(&self.endpoint, self.scope.clone(), method, url);
        if request.method == Method::GET || request.method == Method::DELETE {
            return request;
        }
        request
            .header(CONTENT_LENGTH, length.into())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
    }

    /// Sends once; the outer failure is that the user stopped it.
    async fn once(&self, request: &Request<'_>) -> Result<Result<Answer, Failure>, Ended> {
        self.piece_once(request, &mut request.url.clone()).await
    }

    /// Sends a piece once. Who is stopped just then waits a moment for the answer: distribution knows an
    /// upload only by what it says then, and could not be told that it is given up. `location` follows it.
    async fn piece_once(
        &self,
        request: &Request<'_>,
        location: &mut Url,
    ) -> Result<Result<Answer, Failure>, Ended> {
        let mut exchange = std::pin::pin!(self.client.exchange_once(request, &self.job));
        let answer = tokio::select! {
            biased;
            answer = &mut exchange => Some(answer),
            () = self.job.cancel.cancelled() => None,
        };
        match answer {
            Some(Err(Failure::Final(error))) => Err(Ended::Failed(error)),
            Some(answer) => Ok(answer),
            None => {
                if let Ok(Ok(Answer::Success(answer))) = tokio::time::timeout(ABANDON_LIMIT, exchange).await {
                    self.follow(location, answer.headers());
                }
                Err(Ended::Failed(Error::cancelled()))
            }
        }
    }

    async fn ended(&self, refusal: Refusal) -> Ended {
        let status = refusal.status;
        let wrong_digest = refusal.codes.contains(&OciErrorCode::DigestInvalid);
        let error = self.error(refusal).await;
        match status {
            _ if wrong_digest => Ended::OtherContent(error),
            StatusCode::NOT_FOUND | StatusCode::GONE => self.lost(error),
            StatusCode::BAD_REQUEST
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::LENGTH_REQUIRED
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::RANGE_NOT_SATISFIABLE
            | StatusCode::NOT_IMPLEMENTED => Ended::NotThisForm(error),
            _ => Ended::Failed(error),
        }
    }

    /// What the registry says of the upload is not what it would say of the repository.
    fn lost(&self, error: Error) -> Ended {
        let message = format!("`{}` lost an upload that it had opened", self.endpoint.registry);
        Ended::Lost(Error::new(ErrorKind::Unavailable, message).with_source(error))
    }

    async fn error(&self, refusal: Refusal) -> Error {
        let (registry, repository) = (&self.endpoint.registry, &self.scope.repository);
        let message = format!("could not push {} to `{registry}/{repository}`", self.what);
        let unknown = refusal.codes.contains(&OciErrorCode::NameUnknown);
        let error = self.client.refused(refusal, &message, &self.endpoint, repository, &self.job).await;
        match unknown {
            true => error.with_hint(format!(
                "create the repository `{repository}` first: `{registry}` does not do that by itself"
            )),
            false => error,
        }
    }

    /// The registry, for messages about attempts.
    pub(super) fn server(&self) -> String {
        format!("`{}`", self.endpoint.registry)
    }
}

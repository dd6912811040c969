//! One upload: begun, sent whole or in chunks, gone on with, given up.

use std::time::Duration;

use oci_distribution::errors::OciErrorCode;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};
use url::Url;

use super::super::RegistryClient;
use super::super::authentication::Scope;
use super::super::endpoint::Endpoint;
use super::super::exchange::{Answer, Payload, Request};
use super::super::refusal::Refusal;
use super::BlobSource;
use super::location::{location as location_of, stored_bytes, with_digest};
use super::part::Part;
use crate::backend::Job;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Step;
use crate::http::Failure;
use crate::image::Descriptor;

/// So long we try to tell the registry that an upload is given up.
const ABANDON_LIMIT: Duration = Duration::from_secs(2);

/// One upload: what, where to, and how it is told about.
pub(super) struct Upload<'a> {
    pub(super) client: &'a RegistryClient,
    pub(super) endpoint: &'a Endpoint,
    pub(super) scope: Scope,
    pub(super) blob: &'a Descriptor,
    pub(super) source: &'a BlobSource,
    pub(super) step: &'a Step,
    pub(super) job: &'a Job,
}

/// Why an attempt at an upload ended without success.
enum Ended {
    /// Nothing helps.
    Failed(Error),
    /// This form of upload is not wanted; the other may be.
    NotThisForm(Error),
    /// The registry lost the upload, or the connection broke: it may start over.
    StartOver(Failure),
}

impl Upload<'_> {
    /// Sends the blob, to this address if an upload was begun already.
    pub(super) async fn run(&self, mut location: Option<Url>) -> Result<()> {
        let settings = self.client.settings();
        let mut in_chunks = self.blob.size_bytes > settings.monolithic_limit_bytes;
        let mut changed_form = false;
        let mut attempts = settings.retry.attempts(self.what(), self.job);
        loop {
            let begun = match location.take() {
                Some(location) => location,
                None => self.begin().await?,
            };
            let ended = match in_chunks {
                true => self.send_in_chunks(begun.clone()).await,
                false => self.send_whole(begun.clone()).await,
            };
            let Err(ended) = ended else { return Ok(()) };
            self.abandon(begun).await;
            match ended {
                Ended::NotThisForm(_) if !changed_form => {
                    changed_form = true;
                    in_chunks = !in_chunks;
                }
                Ended::NotThisForm(error) | Ended::Failed(error) => return Err(error),
                Ended::StartOver(failure) => {
                    attempts.again(failure).await?;
                    // Only the answer may have been lost.
                    let there =
                        self.client.has_blob_as(self.endpoint, self.scope.clone(), self.blob, self.job);
                    if there.await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Opens an upload and gives back its address.
    async fn begin(&self) -> Result<Url> {
        let url = self.endpoint.url(&self.scope.repository, "blobs/uploads/");
        let request = self.request(Method::POST, url.clone(), 0);
        match self.client.exchange(&request, self.job).await? {
            Answer::Success(answer) => location_of(self.endpoint, &url, answer.headers()).ok_or_else(|| {
                let message = format!("`{}` opened an upload and did not say where", self.endpoint.registry);
                Error::new(ErrorKind::UnexpectedAnswer, message)
            }),
            Answer::Refused(refusal) => Err(self.error(refusal).await),
        }
    }

    async fn send_whole(&self, location: Url) -> Result<(), Ended> {
        let part = Part::new(self, 0, self.blob.size_bytes);
        let url = with_digest(location, self.blob);
        let request = self.request(Method::PUT, url, part.length).payload(Payload::Stream(&part));
        match self.once(&request).await? {
            Ok(Answer::Success(_)) => Ok(()),
            Ok(Answer::Refused(refusal)) => Err(self.ended(refusal).await),
            Err(failure) => Err(Ended::StartOver(failure)),
        }
    }

    async fn send_in_chunks(&self, mut location: Url) -> Result<(), Ended> {
        let settings = self.client.settings();
        let size_bytes = self.blob.size_bytes;
        let mut sent_bytes = 0;
        let mut attempts = settings.retry.attempts(self.what(), self.job);
        while sent_bytes < size_bytes {
            let part = Part::new(self, sent_bytes, settings.chunk_bytes.min(size_bytes - sent_bytes));
            let end = sent_bytes + part.length;
            let range =
                HeaderValue::from_str(&format!("{sent_bytes}-{}", end - 1)).expect("digits are ASCII");
            let request = self
                .request(Method::PATCH, location.clone(), part.length)
                .header(CONTENT_RANGE, range)
                .payload(Payload::Stream(&part));
            match self.once(&request).await? {
                Ok(Answer::Success(answer)) => {
                    location = location_of(self.endpoint, &location, answer.headers()).unwrap_or(location);
                    sent_bytes = end;
                    attempts = settings.retry.attempts(self.what(), self.job);
                }
                Ok(Answer::Refused(refusal)) if refusal.status == StatusCode::RANGE_NOT_SATISFIABLE => {
                    let error = self.error(refusal).await;
                    return Err(if sent_bytes == 0 {
                        Ended::NotThisForm(error)
                    } else {
                        Ended::StartOver(Failure::transient(error))
                    });
                }
                Ok(Answer::Refused(refusal)) => return Err(self.ended(refusal).await),
                Err(failure) => {
                    attempts.again(failure).await.map_err(Ended::Failed)?;
                    (location, sent_bytes) = self.position(location, sent_bytes, end).await?;
                }
            }
        }
        let request = self.request(Method::PUT, with_digest(location, self.blob), 0);
        match self.once(&request).await? {
            Ok(Answer::Success(_)) => Ok(()),
            Ok(Answer::Refused(refusal)) => Err(self.ended(refusal).await),
            Err(failure) => Err(Ended::StartOver(failure)),
        }
    }

    /// Asks how far an upload got that broke off between two positions. What the registry says
    /// outside of them is not believed: it has acknowledged the lower one.
    async fn position(&self, location: Url, from: u64, to: u64) -> Result<(Url, u64), Ended> {
        let request = self.request(Method::GET, location.clone(), 0);
        match self.client.exchange(&request, self.job).await.map_err(Ended::Failed)? {
            Answer::Success(answer) => {
                let next = location_of(self.endpoint, &location, answer.headers()).unwrap_or(location);
                let stored = stored_bytes(answer.headers()).filter(|stored| (from..=to).contains(stored));
                Ok((next, stored.unwrap_or(from)))
            }
            Answer::Refused(refusal) => Err(Ended::StartOver(Failure::transient(self.error(refusal).await))),
        }
    }

    /// Tells the registry that an upload will not go on. It would find out by itself after days, and
    /// some want it so: distribution 2.8 refuses once a part has come that it has not acknowledged.
    async fn abandon(&self, location: Url) {
        let request = self.request(Method::DELETE, location, 0);
        let silent = Job::silent();
        let _ = tokio::time::timeout(ABANDON_LIMIT, self.client.exchange_once(&request, &silent)).await;
    }

    fn request(&self, method: Method, url: Url, length: u64) -> Request<'_> {
        let request = Request::new(self.endpoint, self.scope.clone(), method, url);
        if request.method == Method::GET || request.method == Method::DELETE {
            return request;
        }
        request
            .header(CONTENT_LENGTH, length.into())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
    }

    /// Sends once; the outer failure is that the user stopped it.
    async fn once(&self, request: &Request<'_>) -> Result<Result<Answer, Failure>, Ended> {
        let answer = async { Ok(self.client.exchange_once(request, self.job).await) };
        match self.job.run(answer).await.map_err(Ended::Failed)? {
            Err(Failure::Final(error)) => Err(Ended::Failed(error)),
            answer => Ok(answer),
        }
    }

    async fn ended(&self, refusal: Refusal) -> Ended {
        let status = refusal.status;
        let wrong_digest = refusal.codes.contains(&OciErrorCode::DigestInvalid);
        let error = self.error(refusal).await;
        match status {
            _ if wrong_digest => Ended::Failed(error),
            StatusCode::NOT_FOUND | StatusCode::GONE => Ended::StartOver(Failure::transient(error)),
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

    async fn error(&self, refusal: Refusal) -> Error {
        let message = format!(
            "could not push blob `{}` ({} bytes) to `{}/{}`",
            self.blob.digest, self.blob.size_bytes, self.endpoint.registry, self.scope.repository
        );
        self.client.refused(refusal, &message, self.endpoint, &self.scope.repository, self.job).await
    }

    fn what(&self) -> String {
        format!("`{}`", self.endpoint.registry)
    }
}

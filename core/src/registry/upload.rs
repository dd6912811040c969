//! Sending blobs: HEAD, then mount, then upload, in one request or in pieces.
//!
//! What registries do beyond the specification, and what is done about it:
//! Google Artifact Registry takes only whole blobs, many front ends only small requests: the form
//! that is refused is followed by the other. ECR answers 201 to a piece, and its `Range` may
//! stay at the first one: a success counts, not the `Range`. `Location` may be relative, may have
//! a query, and may lead to another host, which gets no credentials.

use std::io::SeekFrom;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use oci_distribution::errors::OciErrorCode;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RANGE};
use reqwest::{Body, Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;
use url::Url;

use super::RegistryClient;
use super::authentication::Scope;
use super::endpoint::Endpoint;
use super::exchange::{Answer, Payload, Request, Source};
use super::refusal::Refusal;
use crate::backend::Job;
use crate::error::{Error, ErrorKind, Result};
use crate::events::{Step, Unit};
use crate::http::Failure;
use crate::image::Descriptor;
use crate::reference::Reference;

/// A file is read in pieces of this size while it is sent.
const READ_BYTES: usize = 256 * 1024;
/// So long we try to tell the registry that an upload is given up.
const ABANDON_LIMIT: Duration = Duration::from_secs(2);

/// Where the content of a blob is.
#[derive(Clone, Debug)]
pub enum BlobSource {
    /// In a file, which must not change while it is sent.
    File(PathBuf),
    /// In memory.
    Bytes(Bytes),
}

/// How a blob came to the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Existed,
    /// It was taken over from another repository of the registry.
    Mounted,
    /// It was sent.
    Uploaded,
}

/// What was found out about a blob before anything is sent.
enum Claim {
    /// The repository has it.
    There(Pushed),
    /// It must be sent; to this address, if the registry named one already.
    Absent(Option<Url>),
}

impl RegistryClient {
    /// Sees to it that a repository has a blob, in the cheapest way: asks for it, takes it over from
    /// `mount_from` (a repository of the same registry), sends it. Progress is reported under the digest.
    ///
    /// # Errors
    /// `Denied`, `Unavailable`, `TimedOut`, `UnexpectedAnswer` as the registry does; `LocalIo` if
    /// the source cannot be read; `Cancelled`. An upload that was begun is given up.
    pub async fn push_blob(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        source: &BlobSource,
        mount_from: Option<&str>,
        step: &Step,
        job: &Job,
    ) -> Result<Pushed> {
        let endpoint = self.endpoint(repository.registry())?;
        match self.claim(&endpoint, repository, blob, mount_from, job).await? {
            Claim::There(pushed) => Ok(pushed),
            Claim::Absent(location) => {
                let upload = Upload {
                    client: self,
                    endpoint: &endpoint,
                    scope: Scope::push(repository.repository()),
                    blob,
                    source,
                    step,
                    job,
                };
                upload.run(location).await.map(|()| Pushed::Uploaded)
            }
        }
    }

    /// Sees to it that a repository has a blob without sending it: asks for it, takes it over from
    /// `mount_from`. `None` if it must be sent.
    ///
    /// # Errors
    /// As [`RegistryClient::push_blob`].
    pub async fn claim_blob(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        mount_from: Option<&str>,
        job: &Job,
    ) -> Result<Option<Pushed>> {
        let endpoint = self.endpoint(repository.registry())?;
        match self.claim(&endpoint, repository, blob, mount_from, job).await? {
            Claim::There(pushed) => Ok(Some(pushed)),
            Claim::Absent(_) => Ok(None),
        }
    }

    async fn claim(
        &self,
        endpoint: &Endpoint,
        repository: &Reference,
        blob: &Descriptor,
        mount_from: Option<&str>,
        job: &Job,
    ) -> Result<Claim> {
        let scope = Scope::push(repository.repository());
        if self.has_blob_as(endpoint, scope.clone(), blob, job).await? {
            return Ok(Claim::There(Pushed::Existed));
        }
        match mount_from.filter(|from| *from != repository.repository()) {
            Some(from) => self.mount(endpoint, scope, blob, from, job).await,
            None => Ok(Claim::Absent(None)),
        }
    }

    /// Asks the registry to take the blob over from another repository. That it cannot, or that we
    /// may not read there, only means that the blob is sent.
    async fn mount(
        &self,
        endpoint: &Endpoint,
        scope: Scope,
        blob: &Descriptor,
        from: &str,
        job: &Job,
    ) -> Result<Claim> {
        let mut url = endpoint.url(&scope.repository, "blobs/uploads/");
        url.query_pairs_mut().append_pair("mount", &blob.digest.to_string()).append_pair("from", from);
        let scope = Scope { mount_from: Some(from.to_owned()), ..scope };
        let request = Request::new(endpoint, scope, Method::POST, url.clone())
            .header(CONTENT_LENGTH, HeaderValue::from_static("0"));
        match self.exchange(&request, job).await {
            Ok(Answer::Success(answer)) if answer.status() == StatusCode::CREATED => {
                Ok(Claim::There(Pushed::Mounted))
            }
            Ok(Answer::Success(answer)) => Ok(Claim::Absent(location(endpoint, &url, answer.headers()))),
            Ok(Answer::Refused(_)) => Ok(Claim::Absent(None)),
            Err(error) if error.kind() == ErrorKind::Denied => Ok(Claim::Absent(None)),
            Err(error) => Err(error),
        }
    }
}

/// One upload: what, where to, and how it is told about.
struct Upload<'a> {
    client: &'a RegistryClient,
    endpoint: &'a Endpoint,
    scope: Scope,
    blob: &'a Descriptor,
    source: &'a BlobSource,
    step: &'a Step,
    job: &'a Job,
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
    async fn run(&self, mut location: Option<Url>) -> Result<()> {
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
            Answer::Success(answer) => location(self.endpoint, &url, answer.headers()).ok_or_else(|| {
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
                .header(HeaderName::from_static("content-range"), range)
                .payload(Payload::Stream(&part));
            match self.once(&request).await? {
                Ok(Answer::Success(answer)) => {
                    location = self::location(self.endpoint, &location, answer.headers()).unwrap_or(location);
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
                let next = self::location(self.endpoint, &location, answer.headers()).unwrap_or(location);
                let stored = stored_bytes(answer.headers()).filter(|stored| (from..=to).contains(stored));
                Ok((next, stored.unwrap_or(from)))
            }
            Answer::Refused(refusal) => Err(Ended::StartOver(Failure::transient(self.error(refusal).await))),
        }
    }

    /// Tells the registry that an upload will not go on. It would find out by itself after days.
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

/// A part of a blob on its way.
struct Part<'a> {
    source: &'a BlobSource,
    start: u64,
    length: u64,
    step: &'a Step,
    item: String,
    total: u64,
}

impl<'a> Part<'a> {
    fn new(upload: &Upload<'a>, start: u64, length: u64) -> Self {
        let item = upload.blob.digest.to_string();
        Self { source: upload.source, start, length, step: upload.step, item, total: upload.blob.size_bytes }
    }
}

impl Source for Part<'_> {
    fn open(&self, sent: Arc<AtomicU64>) -> Body {
        let (start, length) = (self.start, self.length);
        match self.source {
            BlobSource::Bytes(bytes) => {
                sent.store(length, Ordering::Relaxed);
                Body::from(bytes.slice(start as usize..(start + length) as usize))
            }
            BlobSource::File(path) => {
                let path = path.clone();
                let open = async move {
                    let mut file = tokio::fs::File::open(path).await?;
                    file.set_max_buf_size(READ_BYTES);
                    file.seek(SeekFrom::Start(start)).await?;
                    Ok::<_, std::io::Error>(ReaderStream::with_capacity(file.take(length), READ_BYTES))
                };
                let pieces = futures_util::stream::once(open).try_flatten();
                Body::wrap_stream(pieces.inspect_ok(move |piece| {
                    sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                }))
            }
        }
    }

    fn size_bytes(&self) -> u64 {
        self.length
    }

    fn progress(&self, sent_bytes: u64) {
        self.step.progress_of(&self.item, self.start + sent_bytes, Some(self.total), Unit::Bytes);
    }
}

/// The address that an answer names, relative to the one that was asked. A registry behind a
/// front end may think that it is reached without TLS: its own address keeps our scheme.
fn location(endpoint: &Endpoint, asked: &Url, headers: &HeaderMap) -> Option<Url> {
    let mut url = asked.join(headers.get(LOCATION)?.to_str().ok()?).ok()?;
    let same_host = url.host_str() == endpoint.base.host_str();
    if same_host && url.scheme() == "http" && url.port().is_none() && endpoint.is_secure() {
        url.set_scheme("https").ok()?;
        url.set_port(endpoint.base.port()).ok()?;
    }
    matches!(url.scheme(), "http" | "https").then_some(url)
}

fn with_digest(mut location: Url, blob: &Descriptor) -> Url {
    location.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
    location
}

/// How many bytes `Range: 0-N` says are stored; some write `bytes=0-N`.
fn stored_bytes(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?;
    let last = range.trim_start_matches("bytes=").strip_prefix("0-")?;
    last.parse::<u64>().ok()?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::RegistrySettings;

    fn resolved(registry: &str, location_header: &str) -> Option<String> {
        let endpoint = Endpoint::new(registry, &RegistrySettings::default()).expect("endpoint");
        let asked = endpoint.url("a/b", "blobs/uploads/");
        let headers = HeaderMap::from_iter([(LOCATION, location_header.parse().expect("header"))]);
        location(&endpoint, &asked, &headers).map(|url| url.to_string())
    }

    #[test]
    fn a_location_may_be_relative_or_elsewhere() {
        for (registry, location, expected) in [
            (
                "r.io",
                "/v2/a/b/blobs/uploads/1?_state=x%3D",
                "https://r.io/v2/a/b/blobs/uploads/1?_state=x%3D",
            ),
            ("r.io", "https://storage.io/up?sig=y", "https://storage.io/up?sig=y"),
            ("r.io", "http://r.io/v2/up", "https://r.io/v2/up"),
            ("r.io:8443", "http://r.io/v2/up", "https://r.io:8443/v2/up"),
            ("localhost:5000", "http://localhost:5000/v2/up", "http://localhost:5000/v2/up"),
        ] {
            assert_eq!(resolved(registry, location).as_deref(), Some(expected));
        }
        assert_eq!(resolved("r.io", "file:///etc/passwd"), None);
    }

    #[test]
    fn the_digest_joins_an_existing_query() {
        let blob = Descriptor::of("", b"");
        let url: Url = "https://r.io/up?_state=a%2Bb".parse().expect("url");
        let text = with_digest(url, &blob).to_string();
        assert!(text.starts_with("https://r.io/up?_state=a%2Bb&digest=sha256%3Ae3b0c442"), "{text}");
    }

    #[test]
    fn reads_how_much_is_stored() {
        for (range, stored) in [("0-99", Some(100)), ("bytes=0-0", Some(1)), ("5-9", None), ("", None)] {
            let headers = HeaderMap::from_iter([(RANGE, range.parse().expect("header"))]);
            assert_eq!(stored_bytes(&headers), stored, "{range}");
        }
    }
}

//! One request and its answer: authentication, retries, time limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Body, Method, Response, StatusCode};
use tokio::time::Instant;
use url::Url;

use super::RegistryClient;
use super::authentication::Scope;
use super::endpoint::{Endpoint, no_answer};
use super::refusal::Refusal;
use crate::backend::Job;
use crate::error::Result;
use crate::http::{Failure, describe_failure};

/// How often progress is reported, and silence is noticed.
const TICK: Duration = Duration::from_millis(200);

/// A request that can be sent any number of times.
pub(super) struct Request<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) scope: Scope,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) payload: Payload<'a>,
}

/// What a request carries.
pub(super) enum Payload<'a> {
    /// Nothing.
    Empty,
    /// A document.
    Bytes(Bytes),
    /// A part of a blob, opened anew for each attempt.
    Stream(&'a dyn Source),
}

/// Something that is read to be sent, from the start each time it is opened.
pub(super) trait Source: Send + Sync {
    /// Opens it. `sent` counts what has been handed to the connection.
    fn open(&self, sent: Arc<AtomicU64>) -> Body;
    /// How many bytes it has.
    fn size_bytes(&self) -> u64;
    /// Is told from time to time how many bytes have been sent.
    fn progress(&self, sent_bytes: u64);
}

impl<'a> Request<'a> {
    pub(super) fn new(endpoint: &'a Endpoint, scope: Scope, method: Method, url: Url) -> Self {
        Self { endpoint, scope, method, url, headers: HeaderMap::new(), payload: Payload::Empty }
    }

    pub(super) fn header(mut self, name: reqwest::header::HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(super) fn payload(mut self, payload: Payload<'a>) -> Self {
        self.payload = payload;
        self
    }

    /// The name of the server for messages: the registry, or where it sent us.
    pub(super) fn server(&self) -> String {
        if self.endpoint.owns(&self.url) {
            return self.endpoint.registry.clone();
        }
        self.url.host_str().unwrap_or(&self.endpoint.registry).to_owned()
    }
}

impl RegistryClient {
    /// Sends a request until it is answered with something other than "later", and gives back the
    /// answer, whatever it is.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`, `TimedOut`, `Cancelled`.
    pub(super) async fn exchange(&self, request: &Request<'_>, job: &Job) -> Result<Answer> {
        let mut attempts = self.inner.settings.retry.attempts(format!("`{}`", request.server()), job);
        loop {
            match job.run(async { Ok(self.exchange_once(request, job).await) }).await? {
                Ok(answer) => return Ok(answer),
                Err(failure) => attempts.again(failure).await?,
            }
        }
    }

    /// As [`RegistryClient::exchange`], and reads the body of a success, which is small; one that
    /// breaks off is asked for again.
    pub(super) async fn exchange_document(
        &self,
        request: &Request<'_>,
        limit_bytes: u64,
        job: &Job,
    ) -> Result<Result<(HeaderMap, Bytes), Refusal>> {
        let mut attempts = self.inner.settings.retry.attempts(format!("`{}`", request.server()), job);
        loop {
            let attempt = async {
                match self.exchange_once(request, job).await? {
                    Answer::Refused(refusal) => Ok(Err(refusal)),
                    Answer::Success(response) => {
                        let headers = response.headers().clone();
                        let server = request.server();
                        let body = request.endpoint.read_capped(response, &server, limit_bytes).await?;
                        Ok(Ok((headers, body)))
                    }
                }
            };
            match job.run(async { Ok(attempt.await) }).await? {
                Ok(answer) => return Ok(answer),
                Err(failure) => attempts.again(failure).await?,
            }
        }
    }

    /// Sends a request once; again only to show who we are.
    pub(super) async fn exchange_once(&self, request: &Request<'_>, job: &Job) -> Result<Answer, Failure> {
        let authenticator = &self.inner.authenticator;
        let (endpoint, scope) = (request.endpoint, &request.scope);
        // "Never send credentials to another host": an upload may go on elsewhere.
        let own = endpoint.owns(&request.url);
        let header = if own { authenticator.header(endpoint, scope, job).await? } else { None };
        let mut response = send(request, header.as_ref(), job).await?;
        // A host that the registry has sent us on to may not ask who we are.
        let own = own && endpoint.owns(response.url());
        if own && response.status() == StatusCode::UNAUTHORIZED {
            let refused = header.as_ref();
            let next =
                authenticator.header_after_refusal(endpoint, scope, refused, response.headers(), job).await?;
            if next.is_some() {
                response = send(request, next.as_ref(), job).await?;
            }
        }
        tracing::debug!(method = %request.method, url = %shown(&request.url), status = response.status().as_u16());
        if response.status().is_success() {
            return Ok(Answer::Success(response));
        }
        let mut refusal = Refusal::read(response, &request.server(), endpoint).await;
        if request.method == Method::HEAD {
            refusal = refusal.after_head(endpoint);
        }
        if refusal.is_transient() {
            let lookup = authenticator.lookup(endpoint, &scope.repository, job).await?;
            let message = format!("`{}` is not available", request.server());
            return Err(refusal.into_failure(&message, lookup.found.is_some()));
        }
        Ok(Answer::Refused(refusal))
    }

    /// Makes the error of a refusal.
    pub(super) async fn refused(
        &self,
        refusal: Refusal,
        message: &str,
        endpoint: &Endpoint,
        repository: &str,
        job: &Job,
    ) -> crate::Error {
        let lookup = self.inner.authenticator.lookup(endpoint, repository, job).await;
        let found = lookup.as_ref().ok().and_then(|lookup| lookup.found.as_ref());
        let error = refusal.into_failure(message, found.is_some()).into_error();
        match found {
            Some(found) if error.kind() == crate::ErrorKind::Denied => {
                error.with_detail("credentials from", found.origin.clone())
            }
            _ => error,
        }
    }
}

/// The answer to a request.
pub(super) enum Answer {
    /// 2xx.
    Success(Response),
    /// What another attempt would not change: 4xx, or a redirection that cannot be followed, as
    /// that of a body that is read while it is sent.
    Refused(Refusal),
}

async fn send(
    request: &Request<'_>,
    authorization: Option<&HeaderValue>,
    job: &Job,
) -> Result<Response, Failure> {
    request.endpoint.wait_for_budget(&request.url, job).await?;
    let mut headers = request.headers.clone();
    if let Some(authorization) = authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    let client = request.endpoint.client(&request.url)?;
    let builder = client.request(request.method.clone(), request.url.clone()).headers(headers);
    let server = request.server();
    match &request.payload {
        Payload::Empty => {
            let answer = request.endpoint.send(builder, &server).await?;
            follow_to_tls(request, answer).await
        }
        Payload::Bytes(bytes) => request.endpoint.send(builder.body(bytes.clone()), &server).await,
        Payload::Stream(source) => {
            let sent = Arc::new(AtomicU64::new(0));
            let answer = builder.body(source.open(sent.clone())).send();
            watch(answer, *source, &sent, request.endpoint, &server).await
        }
    }
}

/// Goes on to where a registry without TLS sends us with TLS: its own client has no roots for that.
async fn follow_to_tls(request: &Request<'_>, answer: Response) -> Result<Response, Failure> {
    let location = answer.headers().get(LOCATION).and_then(|to| answer.url().join(to.to_str().ok()?).ok());
    let asks = matches!(request.method, Method::GET | Method::HEAD) && answer.status().is_redirection();
    let Some(to) = location.filter(|to| asks && to.scheme() == "https") else { return Ok(answer) };
    let server = to.host_str().unwrap_or_default().to_owned();
    let client = request.endpoint.client(&to)?;
    let onward = client.request(request.method.clone(), to).headers(request.headers.clone());
    request.endpoint.send(onward, &server).await
}

/// Waits for the answer to a request with a large body, as long as bytes keep going out.
async fn watch(
    answer: impl Future<Output = Result<Response, reqwest::Error>>,
    source: &dyn Source,
    sent: &AtomicU64,
    endpoint: &Endpoint,
    server: &str,
) -> Result<Response, Failure> {
    let mut answer = std::pin::pin!(answer);
    let (mut last, mut since) = (0, Instant::now());
    loop {
        match tokio::time::timeout(TICK, &mut answer).await {
            Ok(answer) => return answer.map_err(|error| describe_failure(server, error)),
            Err(_) => {
                let now = sent.load(Ordering::Relaxed);
                let limit = match now < source.size_bytes() {
                    true => endpoint.silence_timeout,
                    false => endpoint.blob_answer_timeout,
                };
                if now != last {
                    (last, since) = (now, Instant::now());
                    source.progress(now);
                } else if since.elapsed() > limit {
                    return Err(Failure::transient(no_answer(server, limit)));
                }
            }
        }
    }
}

/// An address without its query, which may hold a signature.
fn shown(url: &Url) -> String {
    format!("{}{}", url.host_str().unwrap_or_default(), url.path())
}

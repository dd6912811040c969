//! The calls of a service: one address, one key, which goes nowhere else.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::{Client as Http, Method, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::address::ServiceAddress;
use super::body::Body;
use super::key::ServiceKey;
use super::refusal::{Refusal, broke_off, unexpected};
use crate::backend::Job;
use crate::error::{Error, ErrorKind, Result};
use crate::http::{Failure, HttpSettings, RetryPolicy, read_capped_within};

/// Answers are small documents.
const ANSWER_LIMIT_BYTES: u64 = 16 * 1024 * 1024;
/// When the user stops us, an answer that has begun may take so long to its end.
const LAST_BODY_LIMIT: Duration = Duration::from_secs(5);
/// A question follows so many redirects inside the service.
const REDIRECT_LIMIT: usize = 5;

/// How a service is reached.
#[derive(Clone, Debug)]
pub struct ServiceSettings {
    /// Where it is.
    pub address: ServiceAddress,
    /// Who we are.
    pub key: ServiceKey,
    /// A file with further root certificates, PEM.
    pub ca_file: Option<PathBuf>,
    /// Accept any certificate.
    pub insecure: bool,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long a call that is no upload may take to be answered.
    pub call_timeout: Duration,
    /// How often calls are repeated that may be.
    pub retry: RetryPolicy,
    /// So many uploads go to the service at once, others wait for their turn. Each has a thread and a few MiB
    /// of its own while it is made, and a line is not made faster by more of them. At least 1.
    pub uploads: usize,
}

/// A service. Cloning is cheap, and clones share their connections.
#[derive(Clone, Debug)]
pub struct ServiceClient {
    address: ServiceAddress,
    key: ServiceKey,
    http: Http,
    call_timeout: Duration,
    retry: RetryPolicy,
    uploads: Arc<Semaphore>,
}

/// What came of a call: the document, or the no.
pub type Answer = Result<Bytes, Refusal>;

impl ServiceClient {
    /// Sets up the way to a service; reaches for nothing.
    ///
    /// # Errors
    /// `InvalidConfig` for the certificates.
    pub fn new(settings: ServiceSettings) -> Result<Self> {
        let ServiceSettings { address, key, call_timeout, retry, .. } = settings;
        let http = HttpSettings {
            ca_files: settings.ca_file.into_iter().collect(),
            insecure: settings.insecure,
            proxy: !address.is_loopback(),
            // The key may be in a header of its own, which would follow to any host.
            follow_redirects: false,
            connect_timeout: settings.connect_timeout,
            ..HttpSettings::default()
        };
        let uploads = Arc::new(Semaphore::new(settings.uploads.clamp(1, Semaphore::MAX_PERMITS)));
        Ok(Self { http: http.client()?, address, key, call_timeout, retry, uploads })
    }

    /// Where it is.
    pub fn address(&self) -> &ServiceAddress {
        &self.address
    }

    /// How messages name it.
    pub fn server(&self) -> &str {
        self.address.server()
    }

    /// Who we are.
    pub fn key(&self) -> &ServiceKey {
        &self.key
    }

    /// The address of a call.
    pub fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Url {
        self.address.call(path, query)
    }

    /// Asks once, and gives whatever is answered. Redirects are followed inside the service only.
    ///
    /// # Errors
    /// Transient where the connection fails, or no answer begins in time.
    pub async fn get(&self, url: Url, headers: HeaderMap) -> Result<Response, Failure> {
        self.get_within(url, headers, self.call_timeout).await
    }

    /// As [`ServiceClient::get`], but an answer may take so long to begin.
    ///
    /// # Errors
    /// As [`ServiceClient::get`].
    pub async fn get_within(
        &self,
        mut url: Url,
        headers: HeaderMap,
        limit: Duration,
    ) -> Result<Response, Failure> {
        for _ in 0..REDIRECT_LIMIT {
            let request = self.request(Method::GET, url.clone()).headers(headers.clone());
            let answer = self.exchange(request, limit).await?;
            match inside(&answer, &url) {
                Some(next) => url = next,
                None => return Ok(answer),
            }
        }
        let message = format!("`{}` redirects in circles", self.server());
        Err(Error::new(ErrorKind::UnexpectedAnswer, message).into())
    }

    /// Makes one call, with a document or none, and reads the document that is answered. Any success
    /// counts as one.
    ///
    /// # Errors
    /// As [`ServiceClient::get`].
    pub async fn call<T: Serialize + ?Sized>(
        &self,
        method: Method,
        url: Url,
        document: Option<&T>,
    ) -> Result<Answer, Failure> {
        let answer = match document {
            _ if method == Method::GET => self.get(url, HeaderMap::new()).await?,
            Some(document) => {
                self.exchange(self.request(method, url).json(document), self.call_timeout).await?
            }
            None => self.exchange(self.request(method, url), self.call_timeout).await?,
        };
        if !answer.status().is_success() {
            return Ok(Err(self.refusal(answer).await));
        }
        self.read_whole(answer).await.map(Ok)
    }

    /// Asks once for a document.
    ///
    /// # Errors
    /// As [`ServiceClient::get`].
    pub async fn ask(&self, url: Url) -> Result<Answer, Failure> {
        self.call::<()>(Method::GET, url, None).await
    }

    /// Makes a call that may be repeated until the service is not busy any more, within the retry policy.
    /// `message` says what could not be done.
    ///
    /// # Errors
    /// What ended the attempts; `Cancelled`.
    pub async fn call_again<T: Serialize + ?Sized>(
        &self,
        (method, url): (Method, Url),
        document: Option<&T>,
        message: &str,
        job: &Job,
    ) -> Result<Answer> {
        let mut attempts = self.retry.attempts(format!("`{}`", self.server()), job);
        loop {
            let call = async { Ok(self.call(method.clone(), url.clone(), document).await) };
            let failure = match job.run(call).await? {
                Ok(Err(refusal)) if refusal.may_pass() => refusal.into_failure(message),
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            attempts.again(failure).await?;
        }
    }

    /// Asks for a document until the service is not busy any more.
    ///
    /// # Errors
    /// As [`ServiceClient::call_again`].
    pub async fn ask_again(&self, url: Url, message: &str, job: &Job) -> Result<Answer> {
        self.call_again::<()>((Method::GET, url), None, message, job).await
    }

    /// Reads an answer that is no success.
    pub async fn refusal(&self, answer: Response) -> Refusal {
        Refusal::read(self.server(), &self.key, answer, self.call_timeout).await
    }

    /// Reads a document; `what` it is not, for the message: `no build id`.
    ///
    /// # Errors
    /// `UnexpectedAnswer`, with what came instead.
    pub fn read<T: DeserializeOwned>(&self, body: &[u8], what: &str) -> Result<T> {
        serde_json::from_slice(body).map_err(|_| self.unexpected(what, body))
    }

    /// The error of an answer that is not what the protocol says.
    pub fn unexpected(&self, what: &str, body: &[u8]) -> Error {
        unexpected(self.server(), &self.key, what, body)
    }

    /// Reads the answer to an upload, which is a small document.
    ///
    /// # Errors
    /// As the exchange fails.
    pub async fn body(&self, response: Response) -> Result<Bytes> {
        self.read_whole(response).await.map_err(Failure::into_error)
    }

    /// Reads the answer that names a build. Stopping the job waits a moment for it: without it nobody could come
    /// back to the build.
    ///
    /// # Errors
    /// As the exchange fails; `Cancelled`.
    pub async fn last_body(&self, response: Response, job: &Job) -> Result<Bytes> {
        let stopped = async {
            job.cancel.cancelled().await;
            tokio::time::sleep(LAST_BODY_LIMIT).await;
        };
        tokio::select! {
            biased;
            body = self.body(response) => body,
            () = stopped => Err(Error::cancelled()),
        }
    }

    /// The failure of an exchange, with hints that fit a service.
    pub fn broke_off(&self, error: reqwest::Error) -> Failure {
        broke_off(self.server(), error)
    }

    /// The error of a service that keeps silent.
    pub fn silent(&self, limit: Duration) -> Error {
        let message = format!("`{}` did not answer for {} s", self.server(), limit.as_secs());
        Error::new(ErrorKind::TimedOut, message)
    }

    /// Waits until an upload may begin. It has ended when what this gives is dropped.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.uploads.clone().acquire_owned().await.ok()
    }

    pub(super) async fn post(&self, url: Url, content_type: &str, body: Body) -> Result<Response, Failure> {
        let mut request = self.request(Method::POST, url).header(CONTENT_TYPE, content_type);
        if let Some(length) = body.length() {
            request = request.header(CONTENT_LENGTH, length);
        }
        let request = request.body(reqwest::Body::wrap_stream(body));
        request.send().await.map_err(|error| self.broke_off(error))
    }

    fn request(&self, method: Method, url: Url) -> reqwest::RequestBuilder {
        let (name, value) = self.key.header();
        self.http.request(method, url).header(name, value)
    }

    /// Reads a document, which may stop in the middle no longer than a call may take.
    async fn read_whole(&self, answer: Response) -> Result<Bytes, Failure> {
        read_capped_within(self.server(), answer, ANSWER_LIMIT_BYTES, self.call_timeout).await
    }

    /// Waits for the head of an answer.
    async fn exchange(&self, request: reqwest::RequestBuilder, limit: Duration) -> Result<Response, Failure> {
        match tokio::time::timeout(limit, request.send()).await {
            Ok(answer) => answer.map_err(|error| self.broke_off(error)),
            Err(_) => Err(Failure::transient(self.silent(limit))),
        }
    }
}

/// Where a redirect leads, if that is the same server.
fn inside(answer: &Response, from: &Url) -> Option<Url> {
    if !answer.status().is_redirection() {
        return None;
    }
    let location = answer.headers().get(LOCATION)?.to_str().ok()?;
    from.join(location).ok().filter(|next| next.origin() == from.origin())
}

//! The calls of the service: one address, one key, which goes nowhere else.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Client as Http, Response, StatusCode};
use serde::de::DeserializeOwned;
use url::Url;
use windlass_core::backend::Job;
use windlass_core::backend_registry::Host;
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::http::{Failure, HttpSettings, RetryPolicy, read_capped};
use windlass_core::reference::is_loopback;

use crate::body::Body;
use crate::config::{Config, Key};
use crate::error::{Refusal, broke_off, unexpected};
use crate::wire::{ExistsAnswer, KEY_HEADER, PrefixAnswer};

/// Answers are small documents.
const ANSWER_LIMIT_BYTES: u64 = 1024 * 1024;
/// A call follows so many redirects inside the service.
const REDIRECT_LIMIT: usize = 5;

/// The service as it is reached.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Its address, without a slash at its end.
    pub(crate) base: Url,
    /// How messages name it: host and port.
    pub(crate) server: String,
    /// Who we are.
    pub(crate) key: Key,
    http: Http,
    call_timeout: Duration,
}

impl Client {
    /// Sets up the way to the service; reaches for nothing.
    ///
    /// # Errors
    /// `InvalidConfig` for the address, the key or the certificates.
    pub(crate) fn new(config: &Config, name: &str, host: &Host) -> Result<Self> {
        let base = config.base(name, host)?;
        let server = match (base.host_str(), base.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (host, _) => host.unwrap_or_default().to_owned(),
        };
        let settings = HttpSettings {
            ca_files: config.ca_file.iter().map(|file| host.current_dir.join(file)).collect(),
            insecure: config.insecure,
            proxy: !is_loopback(&server),
            // The key is in a header of its own, which would follow to any host.
            follow_redirects: false,
            connect_timeout: config.connect_timeout,
            ..HttpSettings::default()
        };
        let (key, http) = (config.key(name, host)?, settings.client()?);
        Ok(Self { base, server, key, http, call_timeout: config.call_timeout })
    }

    /// The address of a call: `build_status`, with its query.
    pub(crate) fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Says whether the key would go over the network in the clear.
    pub(crate) fn is_open(&self) -> bool {
        self.base.scheme() == "http" && !is_loopback(&self.server)
    }

    /// Asks once, and gives whatever is answered. Redirects are followed inside the service only.
    ///
    /// # Errors
    /// Transient where the connection fails, or nothing is answered in time.
    pub(crate) async fn get(&self, mut url: Url) -> Result<Response, Failure> {
        for _ in 0..REDIRECT_LIMIT {
            let request = self.http.get(url.clone()).header(KEY_HEADER, self.key.header.clone());
            let answer = match tokio::time::timeout(self.call_timeout, request.send()).await {
                Ok(answer) => answer.map_err(|error| broke_off(&self.server, error))?,
                Err(_) => return Err(Failure::transient(self.silent(self.call_timeout))),
            };
            match inside(&answer, &url) {
                Some(next) => url = next,
                None => return Ok(answer),
            }
        }
        Err(Error::new(ErrorKind::UnexpectedAnswer, format!("`{}` redirects in circles", self.server)).into())
    }

    /// Asks once for a document.
    ///
    /// # Errors
    /// As [`Client::get`]; what the service refuses, with its status.
    pub(crate) async fn ask(&self, url: Url) -> Result<Result<Bytes, Refusal>, Failure> {
        let answer = self.get(url).await?;
        if answer.status() != StatusCode::OK {
            return Ok(Err(Refusal::read(&self.server, answer).await));
        }
        read_capped(&self.server, answer, ANSWER_LIMIT_BYTES).await.map(Ok)
    }

    /// `GET /registry_prefix`; `None` where the service has no such call.
    ///
    /// # Errors
    /// What the service says, after some attempts.
    pub(crate) async fn registry_prefix(&self, job: &Job) -> Result<Option<String>> {
        let message = format!("could not ask `{}` for its registry", self.server);
        match self.ask_again(self.url(&["registry_prefix"], &[]), &message, job).await? {
            Ok(body) => {
                let answer: PrefixAnswer = self.read(&body, "no registry prefix")?;
                Ok(crate::names::prefix(&answer.registry_prefix))
            }
            Err(refusal) if refusal.status == StatusCode::NOT_FOUND => Ok(None),
            Err(refusal) => Err(refusal.into_error(&message)),
        }
    }

    /// `GET /image_exists`
    ///
    /// # Errors
    /// What the service says, after some attempts: not being able to tell is not "absent".
    pub(crate) async fn image_exists(&self, image: &str, job: &Job) -> Result<bool> {
        let message = format!("could not ask whether `{image}` exists");
        match self.ask_again(self.url(&["image_exists"], &[("image", image)]), &message, job).await? {
            Ok(body) => Ok(self.read::<ExistsAnswer>(&body, "not whether the image exists")?.exists),
            Err(refusal) => Err(refusal.into_error(&message)),
        }
    }

    /// Reads a document.
    ///
    /// # Errors
    /// `UnexpectedAnswer`, with what came instead.
    pub(crate) fn read<T: DeserializeOwned>(&self, body: &[u8], what: &str) -> Result<T> {
        serde_json::from_slice(body).map_err(|_| unexpected(&self.server, what, body))
    }

    /// Sends an upload, once.
    ///
    /// # Errors
    /// As the exchange fails.
    pub(crate) async fn post(&self, content_type: &str, body: Body) -> Result<Response, Failure> {
        let mut request = self
            .http
            .post(self.url(&["build"], &[]))
            .header(KEY_HEADER, self.key.header.clone())
            .header(CONTENT_TYPE, content_type);
        if let Some(length) = body.length() {
            request = request.header(CONTENT_LENGTH, length);
        }
        request
            .body(reqwest::Body::wrap_stream(body))
            .send()
            .await
            .map_err(|error| broke_off(&self.server, error))
    }

    /// Reads the answer to an upload, which is a small document.
    ///
    /// # Errors
    /// As the exchange fails.
    pub(crate) async fn body(&self, response: Response) -> Result<Bytes> {
        read_capped(&self.server, response, ANSWER_LIMIT_BYTES).await.map_err(Failure::into_error)
    }

    /// The error of a service that keeps silent.
    pub(crate) fn silent(&self, limit: Duration) -> Error {
        let message = format!("`{}` did not answer for {} s", self.server, limit.as_secs());
        Error::new(ErrorKind::TimedOut, message)
    }

    /// Asks until the service is not busy any more, within the one retry policy.
    async fn ask_again(&self, url: Url, message: &str, job: &Job) -> Result<Result<Bytes, Refusal>> {
        let mut attempts = RetryPolicy::default().attempts(format!("`{}`", self.server), job);
        loop {
            let ask = async { Ok(self.ask(url.clone()).await) };
            let failure = match job.run(ask).await? {
                Ok(Err(refusal)) if refusal.may_pass() => refusal.into_failure(message),
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            attempts.again(failure).await?;
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

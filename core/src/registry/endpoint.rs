//! One registry as it is reached: its address, and the HTTP client for it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, RequestBuilder, Response};
use url::Url;

use super::budget::Budget;
use super::settings::{HostSettings, RegistrySettings, api_host};
use crate::backend::Job;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::http::{Failure, HttpSettings, describe_failure, read_capped_within};
use crate::reference::is_loopback;

/// One registry as it is reached.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// The registry as it stands in references; credentials belong to this name.
    pub(super) registry: String,
    /// `https://host/v2/`
    pub(super) base: Url,
    /// The client with the certificates for it.
    http: Client,
    settings: HttpSettings,
    /// The client for where a registry without TLS sends us on to with TLS.
    secure_http: Arc<OnceLock<Client>>,
    /// How long it may take to answer.
    pub(super) answer_timeout: Duration,
    /// How long a transfer may stand still.
    pub(super) silence_timeout: Duration,
    /// How long it may take over a whole blob.
    pub(super) blob_answer_timeout: Duration,
    /// How many requests it gets, shared by clones.
    budget: Option<Arc<Budget>>,
}

impl Endpoint {
    /// Sets up the way to a registry.
    ///
    /// # Errors
    /// `InvalidConfig` for certificate files that cannot be read.
    pub(super) fn new(registry: &str, settings: &RegistrySettings) -> Result<Self> {
        let none = HostSettings::default();
        let host = settings.hosts.get(registry).unwrap_or(&none);
        let scheme = if host.is_plain_http(registry) { "http" } else { "https" };
        let base = format!("{scheme}://{}/v2/", api_host(registry));
        let base =
            base.parse().or_error(ErrorKind::InvalidInput, || format!("`{registry}` is no registry"))?;
        let http_settings = HttpSettings {
            ca_files: host.ca_file.iter().cloned().collect(),
            identity_files: host.client_certificate.iter().chain(&host.client_key).cloned().collect(),
            insecure: host.insecure,
            // Neither it nor a proxy is talked to with TLS.
            system_roots: scheme == "https" || !is_loopback(registry),
            // As Go programs do: a proxy is never asked for this machine.
            proxy: !is_loopback(registry),
            follow_redirects: true,
            connect_timeout: settings.connect_timeout,
        };
        Ok(Self {
            registry: registry.to_owned(),
            base,
            http: http_settings.client()?,
            settings: http_settings,
            secure_http: Arc::default(),
            answer_timeout: settings.answer_timeout,
            silence_timeout: settings.silence_timeout,
            blob_answer_timeout: settings.blob_answer_timeout,
            budget: Budget::of(registry, host.requests_per_minute, settings.requests_per_minute)
                .map(Arc::new),
        })
    }

    /// The client for an address: the registry, or where it sends us.
    ///
    /// # Errors
    /// As [`Endpoint::new`].
    pub(super) fn client(&self, url: &Url) -> Result<Client> {
        if url.scheme() != "https" || self.settings.system_roots {
            return Ok(self.http.clone());
        }
        if let Some(client) = self.secure_http.get() {
            return Ok(client.clone());
        }
        let client = self.settings_for(url).client()?;
        Ok(self.secure_http.get_or_init(|| client).clone())
    }

    /// A client for requests with a secret in their body: it goes nowhere but where it is told to.
    ///
    /// # Errors
    /// As [`Endpoint::new`].
    pub(super) fn client_without_redirects(&self, url: &Url) -> Result<Client> {
        HttpSettings { follow_redirects: false, ..self.settings_for(url) }.client()
    }

    /// Who is not the registry may need TLS and a proxy where the registry does not.
    fn settings_for(&self, url: &Url) -> HttpSettings {
        let proxy = !is_loopback(url.host_str().unwrap_or_default());
        HttpSettings { system_roots: true, proxy, ..self.settings.clone() }
    }

    /// The address of something in a repository: `manifests/latest`.
    pub(super) fn url(&self, repository: &str, rest: &str) -> Url {
        // Repositories, tags and digests are checked when they are parsed: nothing needs escaping.
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{repository}/{rest}"));
        url
    }

    /// Says whether the registry is reached over TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.base.scheme() == "https"
    }

    /// Says whether an address is this registry, so that credentials may go there. One that drops
    /// back to plain http is not.
    pub(super) fn owns(&self, url: &Url) -> bool {
        url.scheme() == self.base.scheme()
            && url.host_str() == self.base.host_str()
            && url.port_or_known_default() == self.base.port_or_known_default()
    }

    /// Waits until the registry may be asked again. Who it sends us on to has no part in its budget.
    ///
    /// # Errors
    /// `Cancelled`.
    pub(super) async fn wait_for_budget(&self, url: &Url, job: &Job) -> Result<()> {
        match &self.budget {
            Some(budget) if self.owns(url) => budget.wait(&self.registry, job).await,
            _ => Ok(()),
        }
    }

    /// Sends a request with at most a small body, and waits for the head of the answer.
    ///
    /// # Errors
    /// Transient where the connection fails, or nothing is answered in time.
    pub(super) async fn send(&self, request: RequestBuilder, server: &str) -> Result<Response, Failure> {
        match tokio::time::timeout(self.answer_timeout, request.send()).await {
            Ok(answer) => answer.map_err(|error| describe_failure(server, error)),
            Err(_) => Err(Failure::transient(no_answer(server, self.answer_timeout))),
        }
    }

    /// Reads a whole small body.
    ///
    /// # Errors
    /// As [`crate::http::read_capped`].
    pub(super) async fn read_capped(
        &self,
        response: Response,
        server: &str,
        limit_bytes: u64,
    ) -> Result<Bytes, Failure> {
        read_capped_within(server, response, limit_bytes, self.silence_timeout).await
    }
}

/// The error of a server that keeps silent.
pub(super) fn no_answer(server: &str, limit: Duration) -> Error {
    Error::new(ErrorKind::TimedOut, format!("`{server}` did not answer for {} s", limit.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_to_the_registry_itself_only() {
        let endpoint = Endpoint::new("registry.example.com", &RegistrySettings::default()).expect("endpoint");
        for (url, own) in [
            ("https://registry.example.com/v2/a/blobs/uploads/1?x=y", true),
            ("https://registry.example.com:443/v2/", true),
            ("http://registry.example.com/v2/", false),
            ("https://registry.example.com:444/v2/", false),
            ("https://storage.example.com/v2/", false),
        ] {
            assert_eq!(endpoint.owns(&url.parse().expect("url")), own, "{url}");
        }
    }

    #[test]
    fn docker_hub_is_elsewhere() {
        let endpoint = Endpoint::new("docker.io", &RegistrySettings::default()).expect("endpoint");
        let url = endpoint.url("library/debian", "manifests/12");
        assert_eq!(url.as_str(), "https://registry-1.docker.io/v2/library/debian/manifests/12");
    }
}

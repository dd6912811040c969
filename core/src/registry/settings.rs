//! How registries are reached.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::credentials::CredentialSettings;
use crate::http::RetryPolicy;
use crate::reference::{DOCKER_HUB, is_loopback};

/// Everything a [`super::RegistryClient`] is told about its surroundings.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    /// What differs for single registries, by host as it stands in references: `localhost:5000`.
    pub hosts: BTreeMap<String, HostSettings>,
    /// Where credentials are looked for.
    pub credentials: CredentialSettings,
    /// How often something is tried again.
    pub retry: RetryPolicy,
    /// How long a connection may take to be made. Default: 10 s.
    pub connect_timeout: Duration,
    /// How long a registry may take to answer once it has the whole request. Default: 60 s.
    pub answer_timeout: Duration,
    /// How long a transfer may stand still before it is broken off. Default: 60 s.
    pub silence_timeout: Duration,
    /// How long a registry may take over a blob once it has all of it. Default: 5 minutes: it hashes
    /// the blob first (seen: 1 s a GB), and some copy it to slow storage.
    pub blob_answer_timeout: Duration,
    /// How many blobs of one image are sent or fetched at a time. Default: 4.
    pub concurrency: usize,
    /// Blobs up to this size are sent in one request. Default: 64 MiB.
    pub whole_limit_bytes: u64,
    /// Larger ones are sent in pieces of this size. Default: 16 MiB: some front ends refuse
    /// requests over 100 MB.
    pub piece_bytes: u64,
    /// How many requests a minute a registry gets that has no [`HostSettings::requests_per_minute`]; 0 for
    /// no limit. Default: no limit, but 100 for Docker Hub, which asks for that.
    pub requests_per_minute: Option<u32>,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            credentials: CredentialSettings::default(),
            retry: RetryPolicy::default(),
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(60),
            silence_timeout: Duration::from_secs(60),
            blob_answer_timeout: Duration::from_secs(300),
            concurrency: 4,
            whole_limit_bytes: 64 << 20,
            piece_bytes: 16 << 20,
            requests_per_minute: None,
        }
    }
}

/// What differs for one registry. The names are those of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct HostSettings {
    /// Talk plain http. Default: only to this machine (`localhost`, `127.0.0.0/8`, `[::1]`), as
    /// `docker` does, and not even there when a certificate setting is given.
    pub plain_http: Option<bool>,
    /// A file with further root certificates, PEM.
    pub ca_file: Option<PathBuf>,
    /// A file with our own certificate, PEM, for registries that ask for one.
    pub client_certificate: Option<PathBuf>,
    /// A file with the key of that certificate, PEM.
    pub client_key: Option<PathBuf>,
    /// Accept any certificate. Default: no.
    pub insecure: bool,
    /// Hosts that are asked first when something is fetched, never when something is sent:
    /// `mirror.gcr.io`, or with a scheme `http://10.0.0.7:5000`.
    pub mirrors: Vec<String>,
    /// How many requests it gets within a minute; 0 for no limit.
    pub requests_per_minute: Option<u32>,
}

impl HostSettings {
    /// Says whether the registry with these settings is talked to without TLS.
    pub fn is_plain_http(&self, registry: &str) -> bool {
        let wants_tls = self.insecure || self.ca_file.is_some() || self.client_certificate.is_some();
        self.plain_http.unwrap_or(is_loopback(registry) && !wants_tls)
    }
}

/// Where the API of a registry is: Docker Hub's is not at its name.
pub(super) fn api_host(registry: &str) -> &str {
    if registry == DOCKER_HUB { "registry-1.docker.io" } else { registry }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_trusted_without_tls() {
        let plain = HostSettings::default();
        assert!(plain.is_plain_http("localhost:5000"));
        assert!(!plain.is_plain_http("registry.example.com"));
        let with_ca = HostSettings { ca_file: Some("ca.pem".into()), ..HostSettings::default() };
        assert!(!with_ca.is_plain_http("localhost:5000"));
        let asked = HostSettings { plain_http: Some(true), ..HostSettings::default() };
        assert!(asked.is_plain_http("10.0.0.7:5000"));
    }
}

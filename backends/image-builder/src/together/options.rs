//! How the management API is reached.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use windlass_core::backend_registry::{BackendOptions, Host};
use windlass_core::config::duration_option;
use windlass_core::error::Result;
use windlass_core::http::RetryPolicy;
use windlass_core::service::{KeyHeader, ServiceAddress, ServiceKey, ServiceSettings};

/// The variable that holds the key.
pub const KEY_VARIABLE: &str = "TOGETHER_API_KEY";
/// The variable that holds the address, and where the service is if it is not set.
pub const URL_VARIABLE: &str = "TOGETHER_BASE_URL";
/// Where the service is by default.
pub const DEFAULT_URL: &str = "https://api.bartender.codesandbox.io";

/// The image-builder has this name where the management service beside it has [`MANAGEMENT_NAME`].
const BUILDER_NAME: &str = "://builder.";
const MANAGEMENT_NAME: &str = "://api.bartender.";

/// The options of the `image-builder` backend that hold for this service too: both are Together's.
const SHARED: &[&str] = &[
    "url",
    "api-key-env",
    "ca-file",
    "insecure",
    "attempts",
    "retry-first-wait",
    "retry-after-limit",
    "connect-timeout",
    "call-timeout",
];

/// How the management API is reached: those options of `[backends.image-builder]` that hold for both of
/// Together's services.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Options {
    /// The address of the image-builder, or of the management service beside it.
    url: Option<String>,
    /// The variable that holds the key. [`KEY_VARIABLE`] by default.
    api_key_env: Option<String>,
    /// A file with further root certificates, PEM.
    ca_file: Option<PathBuf>,
    /// Accept any certificate. No by default.
    insecure: bool,
    /// How often a call is made that may be repeated. 3 by default.
    attempts: u32,
    /// The first wait between two attempts; it doubles. 500 ms by default.
    #[serde(deserialize_with = "duration_option")]
    retry_first_wait: Duration,
    /// So long a wait that the service asks for is obeyed; our own waits do not grow beyond it either.
    /// 120 s by default.
    #[serde(deserialize_with = "duration_option")]
    retry_after_limit: Duration,
    /// How long a connection may take to be made. 10 s by default.
    #[serde(deserialize_with = "duration_option")]
    connect_timeout: Duration,
    /// How long a call may take to be answered. 30 s by default.
    #[serde(deserialize_with = "duration_option")]
    call_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            url: None,
            api_key_env: None,
            ca_file: None,
            insecure: false,
            attempts: 3,
            retry_first_wait: Duration::from_millis(500),
            retry_after_limit: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(30),
        }
    }
}

impl Options {
    /// Reads them out of the options of the backend `name`.
    pub(super) fn read(options: BackendOptions, name: &str) -> Result<Self> {
        options.only(SHARED).parse(name, SHARED)
    }

    /// Where the service is, and who says so; `name` is that of the backend.
    ///
    /// A key and an address belong together: the environment's key goes to the environment's address, that of a
    /// configured backend to the service beside its `url`, whatever the environment says.
    fn address(&self, name: &str, host: &Host) -> (String, String) {
        let variable = host.variable(URL_VARIABLE);
        match self.url.as_deref().filter(|url| !url.is_empty()) {
            Some(url) if variable.is_none() || self.key_variable() != KEY_VARIABLE => {
                (url.replacen(BUILDER_NAME, MANAGEMENT_NAME, 1), format!("`url` of the backend `{name}`"))
            }
            _ => (variable.unwrap_or(DEFAULT_URL).to_owned(), URL_VARIABLE.to_owned()),
        }
    }

    fn key_variable(&self) -> &str {
        self.api_key_env.as_deref().unwrap_or(KEY_VARIABLE)
    }

    /// The address, the key and the manners, and who says what the address is; `name` is that of the backend.
    pub(super) fn service(&self, name: &str, host: &Host) -> Result<(ServiceSettings, String)> {
        let (text, source) = self.address(name, host);
        let settings = ServiceSettings {
            address: ServiceAddress::parse(&text, &source)?,
            key: ServiceKey::from_environment(host, &[self.key_variable()], KeyHeader::Bearer, name)?,
            ca_file: self.ca_file.as_ref().map(|file| host.current_dir.join(file)),
            insecure: self.insecure,
            connect_timeout: self.connect_timeout,
            call_timeout: self.call_timeout,
            retry: self.retry(),
            // It takes documents only.
            uploads: 1,
        };
        Ok((settings, source))
    }

    /// How calls are repeated that may be.
    pub(super) fn retry(&self) -> RetryPolicy {
        let retries = self.attempts.saturating_sub(1);
        RetryPolicy {
            retries,
            retries_when_refused: retries.min(RetryPolicy::default().retries_when_refused),
            first_wait: self.retry_first_wait,
            longest_wait: self.retry_after_limit,
            ..RetryPolicy::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::tests::{host, setup};

    /// No key goes to a host that whoever gave the key did not name.
    #[test]
    fn the_address_belongs_to_the_key() {
        const PRODUCTION: &str = "https://api.bartender.codesandbox.io";
        const OWN_KEY: &str = "\napi-key-env = 'STAGING_KEY'";
        let builder = "url = 'https://builder.staging.dev'";
        for (options, base_url, address, key) in [
            (String::new(), "", PRODUCTION, KEY_VARIABLE),
            (String::new(), "https://other.dev//", "https://other.dev", KEY_VARIABLE),
            (builder.into(), "", "https://api.bartender.staging.dev", KEY_VARIABLE),
            (builder.into(), "https://other.dev", "https://other.dev", KEY_VARIABLE),
            (format!("{builder}{OWN_KEY}"), "", "https://api.bartender.staging.dev", "STAGING_KEY"),
            (format!("{builder}{OWN_KEY}"), PRODUCTION, "https://api.bartender.staging.dev", "STAGING_KEY"),
            (
                format!("url = 'https://api.bartender.staging.dev/'{OWN_KEY}"),
                PRODUCTION,
                "https://api.bartender.staging.dev",
                "STAGING_KEY",
            ),
            (format!("url = 'http://127.0.0.1:1'{OWN_KEY}"), PRODUCTION, "http://127.0.0.1:1", "STAGING_KEY"),
            (OWN_KEY.into(), "https://other.dev", "https://other.dev", "STAGING_KEY"),
        ] {
            let directory = tempfile::tempdir().expect("a directory");
            let variables = [(URL_VARIABLE, base_url), (KEY_VARIABLE, "k"), ("STAGING_KEY", "s")];
            let host = std::sync::Arc::new(host(directory.path(), &variables));
            let options = Options::read(setup(&options, host.clone()).options, "staging").expect("valid");
            let (settings, source) = options.service("staging", &host).expect("an address and a key");
            assert_eq!((settings.address.as_str(), settings.key.variable()), (address, key));
            assert_eq!(
                source == URL_VARIABLE,
                address == base_url.trim_end_matches('/') || base_url.is_empty() && address == PRODUCTION
            );
        }
    }
}

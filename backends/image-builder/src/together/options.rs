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

/// The options of the `image-builder` backend that hold for this service too: both are Together's.
const SHARED: &[&str] = &[
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

    /// The address, the key and the manners; `name` is that of the backend.
    pub(super) fn service(&self, name: &str, host: &Host) -> Result<ServiceSettings> {
        let text = host.variable(URL_VARIABLE).unwrap_or(DEFAULT_URL);
        let variable = self.api_key_env.as_deref().unwrap_or(KEY_VARIABLE);
        Ok(ServiceSettings {
            address: ServiceAddress::parse(text, URL_VARIABLE)?,
            key: ServiceKey::from_environment(host, &[variable], KeyHeader::Bearer, name)?,
            ca_file: self.ca_file.as_ref().map(|file| host.current_dir.join(file)),
            insecure: self.insecure,
            connect_timeout: self.connect_timeout,
            call_timeout: self.call_timeout,
            retry: self.retry(),
            // It takes documents only.
            uploads: 1,
        })
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

//! The options of the `image-builder` backend, every default stated.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use windlass_core::Result;
use windlass_core::backend_registry::{BackendSetup, Host};
use windlass_core::config::duration_option;
use windlass_core::error::{Error, ErrorKind};
use windlass_core::http::RetryPolicy;
use windlass_core::service::{KeyHeader, ServiceAddress, ServiceClient, ServiceKey, ServiceSettings};

use crate::names;

const KNOWN: &[&str] = &[
    "url",
    "api-key-env",
    "ca-file",
    "insecure",
    "cache-key",
    "nydus",
    "upload",
    "attempts",
    "retry-first-wait",
    "retry-longest-wait",
    "retry-after-limit",
    "connect-timeout",
    "answer-timeout",
    "stall-timeout",
    "call-timeout",
    "cancel-timeout",
    "build-timeout",
    "log-stall-timeout",
    "log-attempts",
    "status-attempts",
    "reconnect-first-wait",
    "reconnect-longest-wait",
    "not-found-timeout",
    "submit-timeout",
    "log-rest-timeout",
    "uploads",
];

/// The variable that holds the address of Together's management service, and what it is if that is not set.
pub(crate) const URL_VARIABLE: &str = "TOGETHER_BASE_URL";
const DEFAULT_URL: &str = "https://api.bartender.codesandbox.io";
/// The image-builder is where the management service is, but for this part of the name.
const MANAGEMENT_PART: &str = "api.bartender.";
const BUILDER_PART: &str = "builder.";
/// The variable that holds the key.
pub(crate) const KEY_VARIABLE: &str = "TOGETHER_API_KEY";

/// The options, as `[backends.NAME]` of the configuration gives them.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The address of the service, or of the management service beside it. By default what
    /// [`URL_VARIABLE`] says.
    pub(crate) url: Option<String>,
    /// The variable that holds the key. [`KEY_VARIABLE`] by default.
    pub(crate) api_key_env: Option<String>,
    /// A file with further root certificates, PEM.
    pub(crate) ca_file: Option<PathBuf>,
    /// Accept any certificate. No by default.
    pub(crate) insecure: bool,
    /// What the service keeps its build cache under. By default the repository of the tag, else the name of
    /// the context's directory; an empty one leaves it to the service.
    pub(crate) cache_key: Option<String>,
    /// Convert the image to the nydus format too. Yes by default.
    pub(crate) nydus: bool,
    /// How the body is sent; `auto` by default.
    pub(crate) upload: Upload,
    /// How often a call is made at most while the service is busy or unreachable. 3 by default.
    pub(crate) attempts: u32,
    /// The first wait between two of those; it doubles each time. 500 ms by default.
    #[serde(deserialize_with = "duration_option")]
    pub(crate) retry_first_wait: Duration,
    /// The longest wait of our own. 10 s by default.
    #[serde(deserialize_with = "duration_option")]
    pub(crate) retry_longest_wait: Duration,
    /// A `Retry-After` of more counts as this. 120 s by default.
    #[serde(deserialize_with = "duration_option")]
    pub(crate) retry_after_limit: Duration,
    /// How long a connection may take to be made. 10 s by default.
    #[serde(deserialize_with = "duration_option")]
    pub(crate) connect_timeout: Duration,
    /// How long the service may take to answer once it has the whole upload. 5 min by default.
    #[serde(deserialize_with = "duration_option")]
    pub(crate) answer_timeout: Duration,
    /// How long the service may take nothing while there is something to send. 60 s by default.
    #[serde(deserialize_with = "duration_option")]
    pub(crate) stall_timeout: Duration,
    /// How long a question may take. 30 s by default.
    #[serde(deserialize_with = "duration_option")]
    pub(crate) call_timeout: Duration,
    /// How long stopping a build may take. 10 s by default, which is also the most that Ctrl-C waits.
    #[serde(deserialize_with = "duration_option")]
    pub(crate) cancel_timeout: Duration,
    /// How long a build is followed; 0 is for ever. 60 min by default.
    #[serde(deserialize_with = "duration_option")]
    pub(crate) build_timeout: Duration,
    /// A log that says nothing for so long counts as broken off. 120 s by default.
    #[serde(deserialize_with = "duration_option")]
    pub(crate) log_stall_timeout: Duration,
    /// After so many failures in a row to read the log, the status decides. 10 by default.
    pub(crate) log_attempts: u32,
    /// After so many failures to learn that, the connection counts as lost. 5 by default.
    pub(crate) status_attempts: u32,
    /// The first wait before the log is read again. 1 s by default.
    #[serde(deserialize_with = "duration_option")]
    pub(crate) reconnect_first_wait: Duration,
    /// The wait grows to this. 10 s by default.
    #[serde(deserialize_with = "duration_option")]
    pub(crate) reconnect_longest_wait: Duration,
    /// For so long after it was sent, a build may be unknown: its builder has to start. 5 min by default.
    #[serde(deserialize_with = "duration_option")]
    pub(crate) not_found_timeout: Duration,
    /// No attempt to send a build begins later than this after the first. 60 min by default.
    #[serde(deserialize_with = "duration_option")]
    pub(crate) submit_timeout: Duration,
    /// A build that ended while its log was cut off does not wait longer for the rest of it. 10 s by default.
    #[serde(deserialize_with = "duration_option")]
    pub(crate) log_rest_timeout: Duration,
    /// So many uploads are sent at once; others wait for their turn. 16 by default.
    pub(crate) uploads: usize,
}

/// How the body of an upload is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Upload {
    /// With its length where it is small, else in chunks; spooled where the service wants a length.
    #[default]
    Auto,
    /// In chunks.
    Chunked,
    /// With its length, from a temporary file.
    Spool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: None,
            api_key_env: None,
            ca_file: None,
            insecure: false,
            cache_key: None,
            nydus: true,
            upload: Upload::default(),
            attempts: 3,
            retry_first_wait: Duration::from_millis(500),
            retry_longest_wait: Duration::from_secs(10),
            retry_after_limit: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(300),
            stall_timeout: Duration::from_secs(60),
            call_timeout: Duration::from_secs(30),
            cancel_timeout: Duration::from_secs(10),
            build_timeout: Duration::from_secs(60 * 60),
            log_stall_timeout: Duration::from_secs(120),
            log_attempts: 10,
            status_attempts: 5,
            reconnect_first_wait: Duration::from_secs(1),
            reconnect_longest_wait: Duration::from_secs(10),
            not_found_timeout: Duration::from_secs(300),
            submit_timeout: Duration::from_secs(60 * 60),
            log_rest_timeout: Duration::from_secs(10),
            uploads: 16,
        }
    }
}

impl Config {
    /// Reads and checks the options.
    ///
    /// # Errors
    /// `InvalidConfig`: an option is unknown, has the wrong form, or makes no sense.
    pub(crate) fn read(setup: &BackendSetup) -> Result<Self> {
        let config: Self = setup.options.parse(&setup.name, KNOWN)?;
        if let Some(key) = &config.cache_key {
            names::check_cache_key(key)?;
        }
        let too_small = [
            ("attempts", config.attempts == 0),
            ("log-attempts", config.log_attempts == 0),
            ("status-attempts", config.status_attempts == 0),
            ("reconnect-first-wait", config.reconnect_first_wait.is_zero()),
            ("reconnect-longest-wait", config.reconnect_longest_wait < config.reconnect_first_wait),
            ("connect-timeout", config.connect_timeout.is_zero()),
            ("answer-timeout", config.answer_timeout.is_zero()),
            ("stall-timeout", config.stall_timeout.is_zero()),
            ("call-timeout", config.call_timeout.is_zero()),
            ("cancel-timeout", config.cancel_timeout.is_zero()),
            ("uploads", config.uploads == 0),
            ("log-stall-timeout", config.log_stall_timeout.is_zero()),
        ];
        match too_small.iter().find(|(_, wrong)| *wrong) {
            None => Ok(config),
            Some((name, _)) => {
                let message = format!("`{name}` of the backend `{}` is too small", setup.name);
                Err(Error::new(ErrorKind::InvalidConfig, message))
            }
        }
    }

    /// The address of the service. A base in which the name of the management service does not occur is
    /// taken as it is.
    ///
    /// # Errors
    /// `InvalidConfig` if it is no address, or holds a credential.
    fn address(&self, name: &str, host: &Host) -> Result<ServiceAddress> {
        let option = self.url.as_deref().filter(|url| !url.is_empty());
        let (source, text) = match option {
            Some(url) => (format!("`url` of the backend `{name}`"), url),
            None => (URL_VARIABLE.to_owned(), host.variable(URL_VARIABLE).unwrap_or(DEFAULT_URL)),
        };
        ServiceAddress::parse(&text.replacen(MANAGEMENT_PART, BUILDER_PART, 1), &source)
            .map_err(|error| error.with_hint(format!("the key goes into {KEY_VARIABLE}")))
    }

    /// The way to the service; reaches for nothing.
    ///
    /// # Errors
    /// `InvalidConfig` for the address, the key or the certificates.
    pub(crate) fn client(&self, name: &str, host: &Host) -> Result<ServiceClient> {
        let variable = self.api_key_env.as_deref().unwrap_or(KEY_VARIABLE);
        ServiceClient::new(ServiceSettings {
            address: self.address(name, host)?,
            key: ServiceKey::from_environment(host, &[variable], KeyHeader::Bearer, name)?,
            ca_file: self.ca_file.as_ref().map(|file| host.current_dir.join(file)),
            insecure: self.insecure,
            connect_timeout: self.connect_timeout,
            call_timeout: self.call_timeout,
            retry: self.retry(),
            uploads: self.uploads,
        })
    }

    /// How calls are repeated that may be.
    pub(crate) fn retry(&self) -> RetryPolicy {
        let retries = self.attempts - 1;
        RetryPolicy {
            retries,
            retries_when_refused: RetryPolicy::default().retries_when_refused.min(retries),
            first_wait: self.retry_first_wait,
            longest_wait: self.retry_longest_wait.max(self.retry_first_wait),
            ..RetryPolicy::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::tests::{host, setup};

    fn read(options: &str, variables: &[(&str, &str)]) -> (Result<Config>, Arc<Host>) {
        let directory = tempfile::tempdir().expect("a directory");
        let host = Arc::new(host(directory.path(), variables));
        (Config::read(&setup(options, host.clone())), host)
    }

    #[test]
    fn the_address_is_that_of_the_builder_beside_the_management_service() {
        for (variables, options, expected) in [
            (&[("TOGETHER_API_KEY", "k")][..], "", "https://builder.codesandbox.io TOGETHER_API_KEY"),
            (
                &[("TOGETHER_API_KEY", "k"), ("TOGETHER_BASE_URL", "https://api.bartender.x.dev//")],
                "",
                "https://builder.x.dev TOGETHER_API_KEY",
            ),
            (
                &[("TOGETHER_API_KEY", "k"), ("TOGETHER_BASE_URL", "http://127.0.0.1:1/")],
                "",
                "http://127.0.0.1:1 TOGETHER_API_KEY",
            ),
            (&[("MINE", "k")], "url = 'https://b.dev'\napi-key-env = 'MINE'", "https://b.dev MINE"),
        ] {
            let (config, host) = read(options, variables);
            let client = config.expect(options).client("it", &host).expect("an address and a key");
            assert_eq!(format!("{} {}", client.address().as_str(), client.key().variable()), expected);
        }
    }

    #[test]
    fn what_is_no_address_or_key_is_refused_without_showing_it() {
        for (url, key) in
            [("https://user:secret@a", "k"), ("https://a", "two\nlines secret"), ("https://a", "")]
        {
            let (config, host) = read("", &[("TOGETHER_BASE_URL", url), ("TOGETHER_API_KEY", key)]);
            let error = config.expect("valid").client("it", &host).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }

    #[test]
    fn options_are_checked() {
        let (config, _) = read("log-stall-timeout = '1s'\nbuild-timeout = 0\nnydus = false", &[]);
        let config = config.expect("valid");
        assert_eq!((config.log_stall_timeout.as_secs(), config.build_timeout.as_secs()), (1, 0));
        assert!(!config.nydus && Config::default().nydus);
        for options in [
            "attempts = 0",
            "reconnect-first-wait = '20s'",
            "stall-timeout = 'soon'",
            "cache-key = 'Team/App:1'",
            "pol = 1",
        ] {
            let kind = read(options, &[]).0.expect_err(options).kind();
            assert!(matches!(kind, ErrorKind::InvalidConfig | ErrorKind::InvalidInput), "{options}");
        }
    }
}

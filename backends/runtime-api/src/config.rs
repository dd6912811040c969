//! The options of the `runtime-api` backend, every default stated.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use windlass_core::Result;
use windlass_core::backend_registry::{BackendSetup, Host};
use windlass_core::config::parse_duration;
use windlass_core::error::{Error, ErrorKind};
use windlass_core::http::RetryPolicy;
use windlass_core::service::{KeyHeader, ServiceAddress, ServiceClient, ServiceKey, ServiceSettings};

use crate::wire::KEY_HEADER;

const KNOWN: &[&str] = &[
    "url",
    "api-key-env",
    "ca-file",
    "insecure",
    "encoding",
    "json-tags",
    "upload",
    "registry-prefix",
    "repeat-uploads",
    "attempts",
    "retry-first-wait",
    "retry-longest-wait",
    "retry-after-limit",
    "connect-timeout",
    "answer-timeout",
    "stall-timeout",
    "call-timeout",
    "poll-first",
    "poll-longest",
    "build-timeout",
    "not-found-limit",
    "submit-timeout",
    "log-timeout",
    "uploads",
    "call-attempts",
    "call-first-wait",
    "unreadable-limit",
];

/// The variables that hold the address, the first that is set counts; the second is OpenHands' name.
pub(crate) const URL_VARIABLES: [&str; 2] = ["RUNTIME_API_URL", "SANDBOX_REMOTE_RUNTIME_API_URL"];
/// The variables that hold the key.
pub(crate) const KEY_VARIABLES: [&str; 2] = ["RUNTIME_API_KEY", "SANDBOX_API_KEY"];

/// The options, as `[backends.NAME]` of the configuration gives them.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The address of the service. By default what the environment says ([`URL_VARIABLES`]).
    pub(crate) url: Option<String>,
    /// The variable that holds the key. By default the first of [`KEY_VARIABLES`] that is set.
    pub(crate) api_key_env: Option<String>,
    /// A file with further root certificates, PEM.
    pub(crate) ca_file: Option<PathBuf>,
    /// Accept any certificate. No by default.
    pub(crate) insecure: bool,
    /// How a build is sent; `auto` by default.
    pub(crate) encoding: Encoding,
    /// Send further tags in JSON too, as `tags`, which no service documents. No by default.
    pub(crate) json_tags: bool,
    /// How the body is sent; `auto` by default.
    pub(crate) upload: Upload,
    /// What stands before names that have no registry: `auto` (the default) asks the service, `none`
    /// sends names as they are, anything else is the prefix itself.
    pub(crate) registry_prefix: String,
    /// Send a build again after the service may have taken it, if it then says that the image does not
    /// exist. No by default: the build may be running.
    pub(crate) repeat_uploads: bool,
    /// How often a build is sent at most while the service is busy or unreachable. 8 by default.
    pub(crate) attempts: u32,
    /// The first wait between two of those; it doubles each time. 4 s by default.
    #[serde(deserialize_with = "duration")]
    pub(crate) retry_first_wait: Duration,
    /// The longest wait of our own. 60 s by default.
    #[serde(deserialize_with = "duration")]
    pub(crate) retry_longest_wait: Duration,
    /// A `Retry-After` of more counts as this. 120 s by default.
    #[serde(deserialize_with = "duration")]
    pub(crate) retry_after_limit: Duration,
    /// How long a connection may take to be made. 10 s by default.
    #[serde(deserialize_with = "duration")]
    pub(crate) connect_timeout: Duration,
    /// How long the service may take to answer once it has the whole upload. 5 min by default.
    #[serde(deserialize_with = "duration")]
    pub(crate) answer_timeout: Duration,
    /// How long the service may take nothing while there is something to send. 60 s by default.
    #[serde(deserialize_with = "duration")]
    pub(crate) stall_timeout: Duration,
    /// How long any other call may take. 30 s by default.
    #[serde(deserialize_with = "duration")]
    pub(crate) call_timeout: Duration,
    /// The first wait before the status is asked again. 2 s by default.
    #[serde(deserialize_with = "duration")]
    pub(crate) poll_first: Duration,
    /// The wait grows to this. 10 s by default.
    #[serde(deserialize_with = "duration")]
    pub(crate) poll_longest: Duration,
    /// How long a build is followed; 0 is for ever. 30 min by default.
    #[serde(deserialize_with = "duration")]
    pub(crate) build_timeout: Duration,
    /// So many answers of 404 in a row say that a build does not exist: a new one may not be visible
    /// yet. 3 by default.
    pub(crate) not_found_limit: u32,
    /// No attempt to send a build begins later than this after the first. 60 min by default.
    #[serde(deserialize_with = "duration")]
    pub(crate) submit_timeout: Duration,
    /// A build that failed does not wait longer for the last lines of its log. 10 s by default.
    #[serde(deserialize_with = "duration")]
    pub(crate) log_timeout: Duration,
    /// So many uploads are sent at once; others wait for their turn. 16 by default.
    pub(crate) uploads: usize,
    /// How often a question is asked at most while the service is busy or unreachable. 6 by default.
    pub(crate) call_attempts: u32,
    /// The first wait between two of those; it doubles each time. 200 ms by default.
    #[serde(deserialize_with = "duration")]
    pub(crate) call_first_wait: Duration,
    /// So many answers in a row that are no status are the service's way, not an accident. 3 by default.
    pub(crate) unreadable_limit: u32,
}

/// How a build is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Encoding {
    /// JSON; a multipart form where there are several tags, or the service refuses JSON.
    #[default]
    Auto,
    /// JSON.
    Json,
    /// A multipart form.
    Multipart,
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
            encoding: Encoding::default(),
            json_tags: false,
            upload: Upload::default(),
            registry_prefix: "auto".to_owned(),
            repeat_uploads: false,
            attempts: 8,
            retry_first_wait: Duration::from_secs(4),
            retry_longest_wait: Duration::from_secs(60),
            retry_after_limit: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(300),
            stall_timeout: Duration::from_secs(60),
            call_timeout: Duration::from_secs(30),
            poll_first: Duration::from_secs(2),
            poll_longest: Duration::from_secs(10),
            build_timeout: Duration::from_secs(30 * 60),
            not_found_limit: 3,
            submit_timeout: Duration::from_secs(60 * 60),
            log_timeout: Duration::from_secs(10),
            uploads: 16,
            call_attempts: 6,
            call_first_wait: Duration::from_millis(200),
            unreadable_limit: 3,
        }
    }
}

/// Seconds, or a time span such as `90s`.
fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Typed {
        Seconds(u64),
        Text(String),
    }
    match Typed::deserialize(from)? {
        Typed::Seconds(seconds) => Ok(Duration::from_secs(seconds)),
        Typed::Text(text) => parse_duration(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("`{text}` is no time span such as `90s` or `30m`"))
        }),
    }
}

impl Config {
    /// Reads and checks the options.
    ///
    /// # Errors
    /// `InvalidConfig`: an option is unknown, has the wrong form, or makes no sense.
    pub(crate) fn read(setup: &BackendSetup) -> Result<Self> {
        let config: Self = setup.options.parse(&setup.name, KNOWN)?;
        let zero = [
            ("attempts", config.attempts == 0),
            ("not-found-limit", config.not_found_limit == 0),
            ("uploads", config.uploads == 0),
            ("call-attempts", config.call_attempts == 0),
            ("unreadable-limit", config.unreadable_limit == 0),
            ("poll-first", config.poll_first.is_zero()),
            ("poll-longest", config.poll_longest < config.poll_first),
            ("connect-timeout", config.connect_timeout.is_zero()),
            ("answer-timeout", config.answer_timeout.is_zero()),
            ("stall-timeout", config.stall_timeout.is_zero()),
            ("call-timeout", config.call_timeout.is_zero()),
        ];
        match zero.iter().find(|(_, wrong)| *wrong) {
            None => Ok(config),
            Some((name, _)) => {
                let message = format!("`{name}` of the backend `{}` is too small", setup.name);
                Err(Error::new(ErrorKind::InvalidConfig, message))
            }
        }
    }

    /// The address of the service.
    ///
    /// # Errors
    /// `InvalidConfig` if there is none, or it is no address, or holds a credential.
    pub(crate) fn address(&self, name: &str, host: &Host) -> Result<ServiceAddress> {
        let from_environment = || {
            URL_VARIABLES.iter().find_map(|variable| Some((*variable, host.variable(variable)?.to_owned())))
        };
        let option = self.url.clone().filter(|url| !url.is_empty()).map(|url| ("url", url));
        let Some((source, text)) = option.or_else(from_environment) else {
            let message = format!("nothing says where the service of the backend `{name}` is");
            return Err(Error::new(ErrorKind::InvalidConfig, message)
                .with_hint(format!("set {}, or `url` of the backend", URL_VARIABLES[0])));
        };
        ServiceAddress::parse(&text, &format!("`{source}` of the backend `{name}`"))
            .map_err(|error| error.with_hint(format!("the key goes into {}", KEY_VARIABLES[0])))
    }

    /// The way to the service; reaches for nothing.
    ///
    /// # Errors
    /// `InvalidConfig` for the address, the key or the certificates.
    pub(crate) fn client(&self, name: &str, host: &Host) -> Result<ServiceClient> {
        let variables: Vec<&str> = match &self.api_key_env {
            Some(variable) => vec![variable],
            None => KEY_VARIABLES.to_vec(),
        };
        ServiceClient::new(ServiceSettings {
            address: self.address(name, host)?,
            key: ServiceKey::from_environment(host, &variables, KeyHeader::Own(KEY_HEADER), name)?,
            ca_file: self.ca_file.as_ref().map(|file| host.current_dir.join(file)),
            insecure: self.insecure,
            connect_timeout: self.connect_timeout,
            call_timeout: self.call_timeout,
            retry: RetryPolicy {
                retries: self.call_attempts - 1,
                retries_when_refused: RetryPolicy::default().retries_when_refused.min(self.call_attempts - 1),
                first_wait: self.call_first_wait,
                longest_wait: self.retry_longest_wait.max(self.call_first_wait),
                ..RetryPolicy::default()
            },
            uploads: self.uploads,
        })
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
    fn the_address_and_the_key_come_from_the_environment() {
        for (variables, options, expected) in [
            (
                &[("RUNTIME_API_URL", "https://a.example.com//"), ("RUNTIME_API_KEY", "k")][..],
                "",
                "https://a.example.com RUNTIME_API_KEY",
            ),
            (
                &[("SANDBOX_REMOTE_RUNTIME_API_URL", "http://b:1/x/"), ("SANDBOX_API_KEY", "k")],
                "",
                "http://b:1/x SANDBOX_API_KEY",
            ),
            (
                &[("RUNTIME_API_URL", "https://a"), ("MINE", "k\n")],
                "url = 'https://c/'\napi-key-env = 'MINE'",
                "https://c MINE",
            ),
        ] {
            let (config, host) = read(options, variables);
            let config = config.expect(options);
            let client = config.client("it", &host).expect("an address and a key");
            assert_eq!(format!("{} {}", client.address().as_str(), client.key().variable()), expected);
        }
    }

    #[test]
    fn what_is_no_address_or_key_is_refused_without_showing_it() {
        for url in ["", "https://user:secret@a"] {
            let (config, host) = read("", &[("RUNTIME_API_URL", url), ("RUNTIME_API_KEY", "k")]);
            let error = config.expect("valid").client("it", &host).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
        for key in ["", "two\nlines secret"] {
            let (config, host) = read("", &[("RUNTIME_API_URL", "https://a"), ("RUNTIME_API_KEY", key)]);
            let error = config.expect("valid").client("it", &host).expect_err("no key");
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }

    #[test]
    fn options_are_checked() {
        let (config, _) = read("poll-first = '1s'\nbuild-timeout = 0\nencoding = 'multipart'", &[]);
        let config = config.expect("valid");
        assert_eq!((config.poll_first.as_secs(), config.build_timeout.as_secs()), (1, 0));
        assert_eq!(config.encoding, Encoding::Multipart);
        for options in
            ["attempts = 0", "poll-first = '20s'", "encoding = 'xml'", "stall-timeout = 'soon'", "pol = 1"]
        {
            assert_eq!(read(options, &[]).0.expect_err(options).kind(), ErrorKind::InvalidConfig);
        }
    }
}

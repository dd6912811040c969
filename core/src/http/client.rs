//! The one HTTP client set-up: rustls with the ring provider, and the roots of the platform.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Certificate, Client, Identity, redirect};

use super::retry::Failure;
use crate::error::{Error, ErrorKind, Result, ResultExt};

/// How a client talks to its servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// Files with further root certificates, PEM.
    pub ca_files: Vec<PathBuf>,
    /// A file with our own certificate and key, PEM, for servers that ask for one.
    pub identity_files: Vec<PathBuf>,
    /// Accept any certificate. Default: no.
    pub insecure: bool,
    /// Go through the proxy of the environment (`HTTPS_PROXY`, `NO_PROXY`). Default: yes.
    pub proxy: bool,
    /// Go on to where a server points. Default: yes; what is sent in the body of a request then
    /// goes there as well, so a secret in it must not.
    pub follow_redirects: bool,
    /// How long a connection may take to be made. Default: 10 s.
    pub connect_timeout: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            ca_files: Vec::new(),
            identity_files: Vec::new(),
            insecure: false,
            proxy: true,
            follow_redirects: true,
            connect_timeout: Duration::from_secs(10),
        }
    }
}

impl HttpSettings {
    /// Makes a client. It has no time limit for a whole request: those who send one watch over it.
    ///
    /// # Errors
    /// `InvalidConfig` for certificate files that cannot be read; names the file.
    pub fn client(&self) -> Result<Client> {
        // reqwest takes its provider from the process. Somebody may have installed one already: fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(concat!("windlass/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.connect_timeout)
            .redirect(match self.follow_redirects {
                true => redirect::Policy::limited(10),
                false => redirect::Policy::none(),
            })
            .tcp_keepalive(Duration::from_secs(30))
            .danger_accept_invalid_certs(self.insecure);
        if !self.proxy {
            builder = builder.no_proxy();
        }
        let mut roots = Vec::new();
        for file in &self.ca_files {
            let invalid = || format!("could not read certificates from `{}`", file.display());
            let pem = std::fs::read(file).or_error(ErrorKind::InvalidConfig, invalid)?;
            let certificates =
                Certificate::from_pem_bundle(&pem).or_error(ErrorKind::InvalidConfig, invalid)?;
            if certificates.is_empty() {
                return Err(Error::new(ErrorKind::InvalidConfig, invalid())
                    .with_source("there is no certificate in it"));
            }
            roots.extend(certificates);
        }
        builder = builder.tls_certs_merge(roots);
        if let Some(identity) = self.identity()? {
            builder = builder.identity(identity);
        }
        builder.build().or_error(ErrorKind::InvalidConfig, || "could not set up the HTTP client")
    }

    fn identity(&self) -> Result<Option<Identity>> {
        let mut pem = Vec::new();
        for file in &self.identity_files {
            let invalid = || format!("could not read the client certificate `{}`", file.display());
            pem.extend(std::fs::read(file).or_error(ErrorKind::InvalidConfig, invalid)?);
            pem.push(b'\n');
        }
        if pem.is_empty() {
            return Ok(None);
        }
        let identity = Identity::from_pem(&pem)
            .or_error(ErrorKind::InvalidConfig, || "the client certificate needs a certificate and a key")?;
        Ok(Some(identity))
    }
}

/// Turns a failed exchange into ours: `server` could not be reached, or the exchange broke off.
/// The cause is the last link of the chain, which is what the user needs: `connection refused`.
pub fn describe_failure(server: &str, error: reqwest::Error) -> Failure {
    let error = error.without_url();
    // Neither an address without a listener nor a name without an address is likely to change.
    let refused = has_io_error(&error, io::ErrorKind::ConnectionRefused) || is_unknown_name(&error);
    let tls = tls_cause(&error);
    let message = if error.is_connect() {
        format!("could not reach `{server}`")
    } else if error.is_timeout() {
        format!("`{server}` did not answer in time")
    } else if error.is_builder() {
        return Error::new(ErrorKind::InvalidInput, format!("could not form a request to `{server}`"))
            .with_source(error)
            .into();
    } else {
        format!("the exchange with `{server}` broke off")
    };
    let kind =
        if error.is_timeout() && !error.is_connect() { ErrorKind::TimedOut } else { ErrorKind::Unavailable };
    let cause = root_cause(&error);
    let failed = Error::new(kind, message).with_source(cause);
    match tls {
        Tls::NotSpoken => failed
            .with_hint(format!(
                "if `{server}` speaks plain http, set `registries.\"{server}\".plain-http = true`"
            ))
            .into(),
        Tls::BadCertificate => failed
            .with_hint(format!("name its certificate authority: `registries.\"{server}\".ca-file = \"...\"`"))
            .into(),
        Tls::Fine => Failure::Transient { error: failed, retry_after: None, refused },
    }
}

enum Tls {
    Fine,
    NotSpoken,
    BadCertificate,
}

/// What a repetition cannot change: a server without TLS, a certificate nobody vouches for.
fn tls_cause(error: &reqwest::Error) -> Tls {
    let found = chain(error).find_map(|cause| {
        let mut cause = cause;
        // I/O errors leave what they wrap out of the chain.
        while let Some(inner) = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            cause = inner;
        }
        cause.downcast_ref::<rustls::Error>().cloned()
    });
    match found {
        Some(rustls::Error::InvalidCertificate(_)) => Tls::BadCertificate,
        Some(rustls::Error::InvalidMessage(_)) => Tls::NotSpoken,
        _ => Tls::Fine,
    }
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn has_io_error(error: &reqwest::Error, kind: io::ErrorKind) -> bool {
    chain(error).any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == kind))
}

/// hyper's resolver has no type for this, only words.
fn is_unknown_name(error: &reqwest::Error) -> bool {
    error.is_connect() && chain(error).any(|cause| cause.to_string().starts_with("dns error"))
}

fn root_cause(error: &reqwest::Error) -> String {
    chain(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refused_connection_says_so() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address").to_string();
        drop(listener);
        let client = HttpSettings { proxy: false, ..HttpSettings::default() }.client().expect("client");
        let error = client.get(format!("http://{address}/v2/")).send().await.expect_err("nobody listens");
        let Failure::Transient { error, refused, .. } = describe_failure(&address, error) else {
            panic!("may be tried again")
        };
        assert!(refused);
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.message(), format!("could not reach `{address}`"));
        assert!(error.source().expect("cause").to_string().contains("refused"), "{error:?}");
    }

    #[test]
    fn a_missing_certificate_file_is_named() {
        let settings =
            HttpSettings { ca_files: vec!["/nonexistent/ca.pem".into()], ..HttpSettings::default() };
        let error = settings.client().expect_err("missing");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.message().contains("/nonexistent/ca.pem"));
    }
}

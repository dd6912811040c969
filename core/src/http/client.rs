//! The one HTTP client set-up: rustls with the ring provider, and the roots of the platform.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Certificate, Client, Identity, redirect};

use crate::error::{Error, ErrorKind, Result, ResultExt};

/// How a client talks to its servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// Files with further root certificates, PEM.
    pub ca_files: Vec<PathBuf>,
    /// A file with our own certificate and key, PEM, for servers that ask for one.
    pub identity_files: Vec<PathBuf>,
    /// Trust the system's certificate authorities as well. Default: yes. To read them takes 10 ms, which
    /// one who talks plain http can do without; redirections to https are then not followed.
    pub system_roots: bool,
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
            system_roots: true,
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
            .redirect(match (self.follow_redirects, self.system_roots) {
                (true, true) => redirect::Policy::limited(MOST_REDIRECTIONS),
                (true, false) => redirect::Policy::custom(follow_plain),
                (false, _) => redirect::Policy::none(),
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
        builder = match self.system_roots {
            true => builder.tls_certs_merge(roots),
            false => builder.tls_certs_only(roots),
        };
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

/// So many redirections are followed.
const MOST_REDIRECTIONS: usize = 10;

fn follow_plain(attempt: redirect::Attempt<'_>) -> redirect::Action {
    match attempt.url().scheme() {
        "https" => attempt.stop(),
        _ if attempt.previous().len() > MOST_REDIRECTIONS => attempt.error("too many redirects"),
        _ => attempt.follow(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_certificate_file_is_named() {
        let settings =
            HttpSettings { ca_files: vec!["/nonexistent/ca.pem".into()], ..HttpSettings::default() };
        let error = settings.client().expect_err("missing");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.message().contains("/nonexistent/ca.pem"));
    }
}

//! The one HTTP client set-up: rustls with the ring provider, and the roots of the platform.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Certificate, Client, Identity, redirect};

use super::failure::root_cause;
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
            // The address of a redirection may have secrets in its query.
            .referer(false)
            .tcp_keepalive(Duration::from_secs(30))
            // Front ends close idle connections after a minute; one that is used just then breaks.
            .pool_idle_timeout(Duration::from_secs(45))
            // Several connections carry more than the one of HTTP/2, whose windows for what is sent to
            // them servers keep small; and a handshake that fails says why.
            .http1_only()
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
        builder.build().map_err(|error| {
            let message = match self.identity_files.first() {
                Some(file) => format!("could not use the client certificate `{}`", file.display()),
                None => "could not set up the HTTP client".to_owned(),
            };
            Error::new(ErrorKind::InvalidConfig, message).with_source(root_cause(&error))
        })
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
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::*;

    #[test]
    fn a_missing_certificate_file_is_named() {
        let settings =
            HttpSettings { ca_files: vec!["/nonexistent/ca.pem".into()], ..HttpSettings::default() };
        let error = settings.client().expect_err("missing");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.message().contains("/nonexistent/ca.pem"));
    }

    /// Takes one request, answers, and gives the head of the request in lower case.
    fn answer_once(listener: TcpListener, answer: String) -> JoinHandle<String> {
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a request");
            let lines = BufReader::new(stream.try_clone().expect("a handle")).lines();
            let head = lines.map_while(std::result::Result::ok).take_while(|line| !line.is_empty());
            let head = head.collect::<Vec<_>>().join("\n").to_ascii_lowercase();
            stream.write_all(answer.as_bytes()).expect("an answer");
            head
        })
    }

    #[tokio::test]
    async fn a_server_that_another_one_points_to_does_not_learn_the_address() {
        let (first, second) = (listener(), listener());
        let [from, to] = [&first, &second].map(|listener| listener.local_addr().expect("an address"));
        let end = "Content-Length: 0\r\nConnection: close\r\n\r\n";
        let first = answer_once(first, format!("HTTP/1.1 302 Found\r\nLocation: http://{to}/there\r\n{end}"));
        let second = answer_once(second, format!("HTTP/1.1 200 OK\r\n{end}"));
        let client = HttpSettings { proxy: false, ..HttpSettings::default() }.client().expect("a client");
        client.get(format!("http://{from}/here?token=secret")).send().await.expect("an answer");
        assert!(first.join().expect("asked").contains("token=secret"));
        let head = second.join().expect("asked");
        assert!(head.starts_with("get /there"), "{head}");
        assert!(!head.contains("referer") && !head.contains("secret"), "{head}");
    }

    fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").expect("a port")
    }
}

//! What a registry says when it says no, and what that means to us.

use std::time::Duration;

use oci_distribution::errors::{OciEnvelope, OciErrorCode};
use reqwest::{Response, StatusCode};

use super::endpoint::Endpoint;
use crate::error::{Error, ErrorKind};
use crate::http::{Failure, read_excerpt, retry_after};

/// Of a page that is no error document, so much is shown.
const EXCERPT_CHARACTERS: usize = 200;

/// An answer other than success.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) codes: Vec<OciErrorCode>,
    registry: String,
    words: String,
    retry_after: Option<Duration>,
    /// What to do about it, where the page says more than its status.
    hint: Option<String>,
}

impl Refusal {
    /// Reads the answer of `server`, which is the registry or one of its helpers.
    pub(super) async fn read(response: Response, server: &str, endpoint: &Endpoint) -> Self {
        let status = response.status();
        let retry_after = retry_after(response.headers(), jiff::Timestamp::now());
        let body = read_excerpt(server, response, endpoint.silence_timeout).await;
        let hint = transport_hint(&String::from_utf8_lossy(&body), &endpoint.registry);
        let (codes, text) = understand(&body);
        let mut words = format!("`{server}` answered {}", status.as_u16());
        match (text.is_empty(), status.canonical_reason()) {
            (false, _) => words = format!("{words} {text}"),
            (true, Some(reason)) => words = format!("{words} {reason}"),
            (true, None) => {}
        }
        Self { status, codes, registry: endpoint.registry.clone(), words, retry_after, hint }
    }

    /// Says whether the registry may answer otherwise in a moment.
    pub(super) fn is_transient(&self) -> bool {
        self.status == StatusCode::REQUEST_TIMEOUT
            || self.status == StatusCode::TOO_MANY_REQUESTS
            || (self.status.is_server_error()
                && self.status != StatusCode::NOT_IMPLEMENTED
                && self.status != StatusCode::HTTP_VERSION_NOT_SUPPORTED)
    }

    /// Makes the error: `message` says what could not be done; `known` whether we had a
    /// credential to show.
    pub(super) fn into_failure(self, message: &str, known: bool) -> Failure {
        let transient = self.is_transient();
        let retry_after = self.retry_after;
        let error = self.into_error(message, known);
        if transient {
            Failure::Transient { error, retry_after, refused: false }
        } else {
            Failure::Final(error)
        }
    }

    fn into_error(self, message: &str, known: bool) -> Error {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
            StatusCode::NOT_FOUND => ErrorKind::NotFound,
            _ if self.is_transient() => ErrorKind::Unavailable,
            _ => ErrorKind::UnexpectedAnswer,
        };
        let registry = &self.registry;
        let login = match registry.as_str() {
            crate::reference::DOCKER_HUB => "docker login".to_owned(),
            registry => format!("docker login {registry}"),
        };
        let hint = match (kind, known) {
            _ if self.hint.is_some() => self.hint,
            // Docker Hub and others count by address those whom they do not know.
            (_, false) if self.status == StatusCode::TOO_MANY_REQUESTS => {
                Some(format!("run `{login}`: registries let accounts do more than strangers"))
            }
            (ErrorKind::Denied, false) => Some(format!("run `{login}`: there are no credentials for it")),
            (ErrorKind::Denied, true) => {
                Some(format!("check that your account may do this, or run `{login}` with another one"))
            }
            _ => None,
        };
        let error = Error::new(kind, message).with_source(self.words);
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

/// What servers say to those who come without TLS, or without a certificate: Go's, nginx, Jetty.
fn transport_hint(page: &str, registry: &str) -> Option<String> {
    let says = |words: &[&str]| words.iter().any(|words| page.contains(words));
    if says(&[
        "HTTP request to an HTTPS server",
        "plain HTTP request was sent to HTTPS port",
        "combination of host and port requires TLS",
    ]) {
        return Some(format!("it speaks https: set `registries.\"{registry}\".plain-http = false`"));
    }
    says(&["No required SSL certificate was sent"]).then(|| {
        format!(
            "it wants our certificate: set `registries.\"{registry}\".client-certificate` and `.client-key`"
        )
    })
}

/// Reads an error document, or else takes the beginning of the page as it is.
fn understand(body: &[u8]) -> (Vec<OciErrorCode>, String) {
    if let Ok(envelope) = serde_json::from_slice::<OciEnvelope>(body)
        && !envelope.errors.is_empty()
    {
        let one = |error: &oci_distribution::errors::OciError| {
            let code = serde_json::to_value(&error.code).ok();
            let code = code.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
            let detail = error.detail.as_str().unwrap_or_default();
            let words = [code, &error.message, detail].into_iter().filter(|words| !words.is_empty());
            printable(&words.collect::<Vec<_>>().join(": "))
        };
        let text = envelope.errors.iter().map(one).collect::<Vec<_>>().join("; ");
        return (envelope.errors.into_iter().map(|error| error.code).collect(), text);
    }
    // A page for browsers says nothing that the status does not.
    let text = String::from_utf8_lossy(body);
    let is_page = text.trim_start().starts_with('<');
    (Vec::new(), if is_page { String::new() } else { printable(&text) })
}

/// One line without control characters: the text goes to a terminal.
fn printable(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(EXCERPT_CHARACTERS) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_who_speaks_https() {
        for (page, found) in [
            ("Client sent an HTTP request to an HTTPS server.\n", Some("plain-http = false")),
            ("<h1>400</h1>The plain HTTP request was sent to HTTPS port", Some("plain-http = false")),
            ("<center>No required SSL certificate was sent</center>", Some("client-certificate")),
            ("<h1>400 Bad Request</h1>", None),
        ] {
            let hint = transport_hint(page, "r.io");
            assert_eq!(hint.is_some(), found.is_some(), "{page}");
            assert!(hint.unwrap_or_default().contains(found.unwrap_or_default()), "{page}");
        }
    }

    #[test]
    fn reads_error_documents_and_other_pages() {
        let document = br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":null},{"code":"ARTIFACT_LOCKED"}]}"#;
        let (codes, text) = understand(document);
        assert_eq!(codes[0], OciErrorCode::Unauthorized);
        assert_eq!(text, "UNAUTHORIZED: authentication required; ARTIFACT_LOCKED");
        assert_eq!(understand(b"<html>nginx</html>").1, "");
        assert_eq!(understand(b"404 page\n\x1b[31mnot found").1, "404 page [31mnot found");
        assert_eq!(understand(&[b'x'; 5000]).1.chars().count(), EXCERPT_CHARACTERS + 1);
    }
}

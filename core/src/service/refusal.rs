//! What the service says no with, as kinds of errors.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::LOCATION;
use reqwest::{Response, StatusCode};

use super::key::ServiceKey;
use crate::error::{Error, ErrorKind};
use crate::http::{Failure, describe_failure, read_capped_within, retry_after};

/// Of an error page, so much is read.
const PAGE_LIMIT_BYTES: u64 = 256 * 1024;
/// Of what it says, so much is shown.
const EXCERPT_CHARACTERS: usize = 300;

/// An answer other than success.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Its status.
    pub status: StatusCode,
    /// How long the service asked us to wait.
    pub retry_after: Option<Duration>,
    /// What it says, as it came: no more than 256 KiB of it.
    pub page: Bytes,
    server: String,
    key: ServiceKey,
    location: Option<String>,
}

impl Refusal {
    /// Reads an answer.
    pub(super) async fn read(server: &str, key: &ServiceKey, response: Response, silence: Duration) -> Self {
        let status = response.status();
        let retry_after = retry_after(response.headers(), jiff::Timestamp::now());
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(host_of);
        // A page that breaks off, or is endless, says nothing.
        let page = read_capped_within(server, response, PAGE_LIMIT_BYTES, silence).await.unwrap_or_default();
        Self { status, retry_after, page, server: server.to_owned(), key: key.clone(), location }
    }

    /// Says whether the service may answer otherwise in a moment.
    pub fn may_pass(&self) -> bool {
        self.status == StatusCode::REQUEST_TIMEOUT
            || self.status == StatusCode::TOO_MANY_REQUESTS
            || self.status.is_server_error() && self.status != StatusCode::NOT_IMPLEMENTED
    }

    /// What it comes to.
    pub fn kind(&self) -> ErrorKind {
        match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
            StatusCode::NOT_FOUND => ErrorKind::NotFound,
            StatusCode::PAYLOAD_TOO_LARGE => ErrorKind::InvalidInput,
            _ if self.may_pass() => ErrorKind::Unavailable,
            _ => ErrorKind::UnexpectedAnswer,
        }
    }

    /// The status, and the words of the page in one line, without the key.
    pub fn in_words(&self) -> String {
        let reason = match words(&self.page, &self.key) {
            words if words.is_empty() => self.status.canonical_reason().unwrap_or_default().to_owned(),
            words => words,
        };
        format!("`{}` answered {} {reason}", self.server, self.status.as_u16()).trim_end().to_owned()
    }

    /// Makes the error; `message` says what could not be done.
    pub fn into_error(self, message: &str) -> Error {
        let Self { server, key, location, .. } = &self;
        let sent_as = key.sent_as();
        let kind = self.kind();
        let error = Error::new(kind, message).with_source(self.in_words());
        match (kind, location) {
            (ErrorKind::Denied, _) => error.with_hint(format!(
                "check the key in {}, and that it is for `{server}`: it is sent as `{sent_as}`",
                key.variable()
            )),
            (ErrorKind::NotFound, _) => error.with_hint("check `url`: the service may lie below a path"),
            (ErrorKind::InvalidInput, _) => {
                error.with_hint("leave out of the context what COPY does not need: `.dockerignore`")
            }
            (_, Some(location)) => error.with_hint(format!(
                "it points to `{location}`: if the service is there, say so with `url`; the key goes nowhere else"
            )),
            _ => error,
        }
    }

    /// Makes the failure of a call that may be repeated.
    pub fn into_failure(self, message: &str) -> Failure {
        let (may_pass, retry_after) = (self.may_pass(), self.retry_after);
        let error = self.into_error(message);
        match may_pass {
            true => Failure::Transient { error, retry_after, refused: false },
            false => Failure::Final(error),
        }
    }
}

/// Where a redirect leads, without what may be secret in it.
fn host_of(location: &str) -> String {
    match location.parse::<url::Url>() {
        Ok(url) => url.origin().ascii_serialization(),
        Err(_) => location.split('?').next().unwrap_or_default().to_owned(),
    }
}

/// What a page says, in one line and without the key: the message of a JSON document, or the beginning of a
/// text. The key is hidden before anything is cut: the half of a key is one too.
fn words(page: &[u8], key: &ServiceKey) -> String {
    let document = serde_json::from_slice::<serde_json::Value>(page).ok();
    let message = document.as_ref().and_then(|document| {
        ["error", "message", "detail"].iter().find_map(|key| match document.get(key)? {
            serde_json::Value::String(text) => Some(text.clone()),
            serde_json::Value::Null => None,
            other => Some(
                other
                    .get("message")
                    .and_then(|text| text.as_str())
                    .map_or_else(|| other.to_string(), str::to_owned),
            ),
        })
    });
    let text = message.unwrap_or_else(|| String::from_utf8_lossy(page).into_owned());
    // A page of a proxy: its title is what it says.
    let title = text.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
    let text = title.map_or(text.as_str(), |(title, _)| title);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = key.hide(&line).into_owned();
    match line.char_indices().nth(EXCERPT_CHARACTERS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Turns a failed exchange into ours. The hints for registries do not hold here.
pub(super) fn broke_off(server: &str, error: reqwest::Error) -> Failure {
    let is_unreachable = error.is_connect();
    match describe_failure(server, error) {
        Failure::Final(error) => Failure::Final(for_service(&error, is_unreachable)),
        Failure::Transient { error, retry_after, refused } => {
            Failure::Transient { error: for_service(&error, is_unreachable), retry_after, refused }
        }
    }
}

fn for_service(error: &Error, is_unreachable: bool) -> Error {
    let mut ours = Error::new(error.kind(), error.message());
    if let Some(cause) = std::error::Error::source(error) {
        ours = ours.with_source(cause.to_string());
    }
    if error.hints().iter().any(|hint| hint.contains("ca-file")) {
        return ours.with_hint("name its certificate authority: the option `ca-file` of the backend");
    }
    if error.hints().iter().any(|hint| hint.contains("plain-http")) {
        return ours.with_hint("if it speaks plain http, `url` begins with `http://`");
    }
    // Of what a proxy has to do with it, the same holds here.
    let of_proxy = error.hints().iter().filter(|hint| hint.contains("proxy"));
    ours = of_proxy.fold(ours, |ours, hint| ours.with_hint(hint));
    match is_unreachable {
        true => ours.with_hint("check the address, and that the service runs: `windlass backends check`"),
        false => ours,
    }
}

/// The error of an answer that is not what the protocol says.
pub(super) fn unexpected(server: &str, key: &ServiceKey, what: &str, body: &[u8]) -> Error {
    let words = words(body, key);
    let seen = if words.is_empty() { "nothing".to_owned() } else { words };
    Error::new(ErrorKind::UnexpectedAnswer, format!("`{server}` answered {what}"))
        .with_source(format!("it said: {seen}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::KeyHeader;

    fn key() -> ServiceKey {
        ServiceKey::new(&"secret-key".into(), KeyHeader::Bearer, "KEY").expect("a key")
    }

    #[test]
    fn the_words_of_a_page_are_one_line() {
        for (page, expected) in [
            (r#"{"error":"no\nroom"}"#, "no room"),
            (r#"{"error":null,"detail":"later"}"#, "later"),
            (r#"{"error":{"message":"inner"}}"#, "inner"),
            (r#"{"detail":[{"loc":1}]}"#, r#"[{"loc":1}]"#),
            ("<html><title>502 Bad\n Gateway</title><body>x", "502 Bad Gateway"),
            ("", ""),
        ] {
            assert_eq!(words(page.as_bytes(), &key()), expected);
        }
        assert_eq!(words("x".repeat(1000).as_bytes(), &key()).chars().count(), EXCERPT_CHARACTERS + 1);
    }

    #[test]
    fn the_key_is_not_repeated_not_even_its_beginning() {
        for before in ["", &"x".repeat(EXCERPT_CHARACTERS - 5)] {
            for page in
                [format!("{before}secret-key and more"), format!(r#"{{"error":"{before}secret-key"}}"#)]
            {
                let words = words(page.as_bytes(), &key());
                assert!(!words.contains("secr") && words.contains("(hid"), "{words}");
            }
        }
    }

    #[test]
    fn a_redirect_shows_no_query() {
        assert_eq!(host_of("https://b.example.com/x?token=secret"), "https://b.example.com");
        assert_eq!(host_of("/x?token=secret"), "/x");
    }
}

//! Why an exchange failed, and what to do about it.

use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, CertificateError};

use super::retry::Failure;
use crate::error::{Error, ErrorKind};

/// Turns a failed exchange into ours: `server` could not be reached, or the exchange broke off.
/// The cause is the last link of the chain, which is what the user needs: `connection refused`.
pub fn describe_failure(server: &str, error: reqwest::Error) -> Failure {
    let is_plain = error.url().is_some_and(|url| url.scheme() == "http");
    let error = error.without_url();
    if error.is_builder() {
        return Error::new(ErrorKind::InvalidInput, format!("could not form a request to `{server}`"))
            .with_source(error)
            .into();
    }
    if error.is_redirect() {
        return Error::new(ErrorKind::UnexpectedAnswer, format!("`{server}` sends us round in circles"))
            .with_source(root_cause(&error))
            .into();
    }
    let late = error.is_timeout();
    let (kind, message) = match error.is_connect() {
        true => (ErrorKind::Unavailable, format!("could not reach `{server}`")),
        false if late => (ErrorKind::TimedOut, format!("`{server}` did not answer in time")),
        false => (ErrorKind::Unavailable, format!("the exchange with `{server}` broke off")),
    };
    let failed = Error::new(kind, message).with_source(root_cause(&error));
    if let Some(tls) = tls_error(&error) {
        let failed = match tls_hint(&tls, server) {
            Some(hint) => failed.with_hint(hint),
            None => failed,
        };
        // What a repetition cannot change.
        return failed.into();
    }
    let hint = match () {
        () if error.is_connect() && has_words(&error, "tunnel") => Some(
            "the proxy of `HTTPS_PROXY` did not let us through; hosts in `NO_PROXY` are reached without it"
                .to_owned(),
        ),
        () if error.is_connect() && (late || is_unknown_name(&error) || is_cut_off(&error)) => Some(format!(
            "check the name; if this machine reaches others only through a proxy, set `{}`",
            if is_plain { "HTTP_PROXY" } else { "HTTPS_PROXY" }
        )),
        () if has_words(&error, "tls handshake eof") => Some(plain_hint(server)),
        () if is_plain && has_words(&error, "invalid HTTP version") => {
            Some(format!("if `{server}` speaks https, set `registries.\"{server}\".plain-http = false`"))
        }
        () => None,
    };
    let error_with_hint = match hint {
        Some(hint) => failed.with_hint(hint),
        None => failed,
    };
    // Neither an address without a listener nor a name without an address is likely to change.
    let refused = has_io_error(&error, io::ErrorKind::ConnectionRefused)
        || is_unknown_name(&error)
        || (error.is_connect() && (late || is_cut_off(&error)));
    Failure::Transient { error: error_with_hint, retry_after: None, refused }
}

/// What TLS itself has to say, if it does.
fn tls_error(error: &reqwest::Error) -> Option<rustls::Error> {
    chain(error).find_map(|cause| {
        let mut cause = cause;
        // I/O errors leave what they wrap out of the chain.
        while let Some(inner) = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            cause = inner;
        }
        cause.downcast_ref::<rustls::Error>().cloned()
    })
}

fn tls_hint(error: &rustls::Error, server: &str) -> Option<String> {
    use CertificateError as Certificate;
    match error {
        rustls::Error::InvalidMessage(_) => Some(plain_hint(server)),
        rustls::Error::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => Some(format!("its certificate is for another name than `{server}`: reach it by that name")),
        rustls::Error::InvalidCertificate(
            Certificate::Expired
            | Certificate::ExpiredContext { .. }
            | Certificate::NotValidYet
            | Certificate::NotValidYetContext { .. },
        ) => Some("its certificate is not valid now: check the clock of this machine".to_owned()),
        rustls::Error::InvalidCertificate(_) => {
            Some(format!("name its certificate authority: `registries.\"{server}\".ca-file = \"...\"`"))
        }
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::HandshakeFailure,
        ) => Some(format!(
            "it wants a certificate of ours: `registries.\"{server}\".client-certificate` and `.client-key`"
        )),
        _ => None,
    }
}

fn plain_hint(server: &str) -> String {
    format!("if `{server}` speaks plain http, set `registries.\"{server}\".plain-http = true`")
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn has_io_error(error: &reqwest::Error, kind: io::ErrorKind) -> bool {
    chain(error).any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == kind))
}

/// There is no way to the address.
fn is_cut_off(error: &reqwest::Error) -> bool {
    has_io_error(error, io::ErrorKind::NetworkUnreachable)
        || has_io_error(error, io::ErrorKind::HostUnreachable)
}

/// hyper and its resolver have no types for some causes, only words.
fn has_words(error: &reqwest::Error, words: &str) -> bool {
    chain(error).any(|cause| cause.to_string().contains(words))
}

fn is_unknown_name(error: &reqwest::Error) -> bool {
    error.is_connect() && chain(error).any(|cause| cause.to_string().starts_with("dns error"))
}

fn root_cause(error: &reqwest::Error) -> String {
    chain(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HttpSettings;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Asks a server that answers whatever it is sent with these bytes, and ends.
    async fn answered_with(scheme: &str, answer: &'static [u8]) -> Failure {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("connection");
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(answer).await;
        });
        let client = HttpSettings { proxy: false, ..HttpSettings::default() }.client().expect("client");
        let asked = client.get(format!("{scheme}://{address}/v2/")).send().await;
        describe_failure("r.io", asked.expect_err("no answer"))
    }

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

    #[tokio::test]
    async fn the_wrong_scheme_is_named() {
        let plain = answered_with("https", b"HTTP/1.0 400 Bad Request\r\n\r\n").await;
        assert!(matches!(plain, Failure::Final(_)), "{plain:?}");
        assert!(plain.into_error().hints()[0].contains("plain-http = true"));
        let silent = answered_with("https", b"").await;
        assert!(silent.into_error().hints()[0].contains("plain-http = true"));
        // A TLS alert: unexpected message.
        let tls = answered_with("http", b"\x15\x03\x01\x00\x02\x02\x0a").await;
        assert!(tls.into_error().hints()[0].contains("plain-http = false"));
        let cut = answered_with("http", b"HTTP/1.1 200 OK\r\n").await;
        assert!(cut.into_error().hints().is_empty());
    }

    #[tokio::test]
    async fn who_has_no_way_out_is_told_of_proxies() {
        let client = HttpSettings { proxy: false, ..HttpSettings::default() }.client().expect("client");
        let error = client.get("https://windlass.invalid/v2/").send().await.expect_err("no such name");
        let Failure::Transient { error, refused, .. } = describe_failure("windlass.invalid", error) else {
            panic!("may be tried again")
        };
        assert!(refused);
        assert!(error.hints()[0].contains("HTTPS_PROXY"), "{error:?}");
    }

    #[test]
    fn certificates_have_their_own_hints() {
        for (error, hint) in [
            (CertificateError::UnknownIssuer, "ca-file"),
            (CertificateError::NotValidForName, "another name"),
            (CertificateError::Expired, "clock"),
        ] {
            let found = tls_hint(&rustls::Error::InvalidCertificate(error), "r.io").expect("hint");
            assert!(found.contains(hint), "{found}");
        }
        let alert = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
        assert!(tls_hint(&alert, "r.io").expect("hint").contains("client-certificate"));
    }
}

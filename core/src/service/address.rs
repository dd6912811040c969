//! Where a service is.

use url::Url;

use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::reference::is_loopback;

/// What is forgotten most often.
const SCHEMES: &str = "it begins with `https://` or `http://`";

/// The address of a service: scheme, host and path, never a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAddress {
    url: Url,
    server: String,
}

impl ServiceAddress {
    /// Reads an address; `source` says where it was written, for messages. Slashes at its end do not
    /// count.
    ///
    /// # Errors
    /// `InvalidConfig` if it is no address of http or https, or holds more than an address. The text is
    /// not shown: it may hold a password.
    pub fn parse(text: &str, source: &str) -> Result<Self> {
        let invalid = || format!("{source} is no address");
        let url: Url = text
            .trim()
            .trim_end_matches('/')
            .parse()
            .or_error(ErrorKind::InvalidConfig, invalid)
            .map_err(|error| error.with_hint(SCHEMES))?;
        let Some(host) = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https")) else {
            return Err(Error::new(ErrorKind::InvalidConfig, invalid()).with_hint(SCHEMES));
        };
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            let message = format!("{source} holds more than an address");
            return Err(
                Error::new(ErrorKind::InvalidConfig, message).with_hint("leave user, password and query out")
            );
        }
        let server = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Ok(Self { url, server })
    }

    /// How messages name it: host, and port where it is not the usual one.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The address as text, without a slash at its end.
    pub fn as_str(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// The address of a call: its path in segments, and its query. Both are encoded as they need.
    pub fn call(&self, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Says whether it is on this machine.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.server)
    }

    /// Says whether a key would go over the network in the clear.
    pub fn is_open(&self) -> bool {
        self.url.scheme() == "http" && !self.is_loopback()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_at_the_end_do_not_count() {
        for (text, shown, server) in [
            ("https://a.example.com//", "https://a.example.com", "a.example.com"),
            (" http://b:1/x/ ", "http://b:1/x", "b:1"),
            ("http://[::1]:2", "http://[::1]:2", "[::1]:2"),
        ] {
            let address = ServiceAddress::parse(text, "`url`").expect(text);
            assert_eq!((address.as_str(), address.server()), (shown, server));
        }
        let address = ServiceAddress::parse("http://b:1/x/", "`url`").expect("valid");
        assert_eq!(address.call(&["a", "@b/c"], &[("q", "1&2")]).as_str(), "http://b:1/x/a/@b%2Fc?q=1%262");
    }

    #[test]
    fn what_is_no_address_is_refused_without_showing_it() {
        for text in ["", "ftp://a", "https://user:secret@a", "nonsense secret", "https://a/?key=secret"] {
            let error = ServiceAddress::parse(text, "`url`").expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
        for text in ["127.0.0.1:1", "localhost:1", "builds.example.com"] {
            let error = ServiceAddress::parse(text, "`url`").expect_err(text);
            assert_eq!(error.hints(), [SCHEMES], "{text}");
        }
    }
}

//! Who we are to a service.

use std::borrow::Cow;
use std::fmt;

use memchr::memmem;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use crate::backend_registry::Host;
use crate::error::{Error, ErrorKind, Result};

/// A shorter key is looked for nowhere: it would be found in words that have nothing to do with it.
const SHORTEST_HIDDEN: usize = 8;

/// Where a key stands in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyHeader {
    /// In a header of its own, as it is: `X-API-Key`.
    Own(&'static str),
    /// `Authorization: Bearer …`
    Bearer,
}

impl fmt::Display for KeyHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(name) => f.write_str(name),
            Self::Bearer => f.write_str("Authorization: Bearer"),
        }
    }
}

/// The key of a service; it never shows itself.
#[derive(Clone, Debug)]
pub struct ServiceKey {
    name: HeaderName,
    value: HeaderValue,
    header: KeyHeader,
    variable: String,
}

impl ServiceKey {
    /// Reads the key from the first of these variables that is set; `backend` is the configured name.
    ///
    /// # Errors
    /// `InvalidConfig` if there is none, or it cannot stand in a header.
    pub fn from_environment(
        host: &Host,
        variables: &[&str],
        header: KeyHeader,
        backend: &str,
    ) -> Result<Self> {
        let found = variables.iter().find_map(|variable| Some((*variable, host.variable(variable)?)));
        let Some((variable, text)) = found else {
            let message = format!("there is no key for the backend `{backend}`");
            return Err(Error::new(ErrorKind::InvalidConfig, message)
                .with_hint(format!("put it into the environment variable {}", variables[0])));
        };
        Self::new(&SecretString::from(text.trim()), header, variable)
    }

    /// Takes a key as it is; `variable` says where it came from.
    ///
    /// # Errors
    /// `InvalidConfig` if it cannot stand in a header.
    pub fn new(secret: &SecretString, header: KeyHeader, variable: &str) -> Result<Self> {
        let (name, text) = match header {
            KeyHeader::Own(name) => {
                (HeaderName::from_bytes(name.as_bytes()).ok(), secret.expose_secret().to_owned())
            }
            KeyHeader::Bearer => (Some(AUTHORIZATION), format!("Bearer {}", secret.expose_secret())),
        };
        let value = HeaderValue::from_str(&text).ok();
        let Some((name, mut value)) = name.zip(value) else {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("what {variable} holds cannot be a key"),
            )
            .with_hint("a key is one line of printable characters"));
        };
        value.set_sensitive(true);
        Ok(Self { name, value, header, variable: variable.to_owned() })
    }

    /// The header as it is sent, its value marked as sensitive.
    pub fn header(&self) -> (HeaderName, HeaderValue) {
        (self.name.clone(), self.value.clone())
    }

    /// What a service says, without the key: some repeat what they were sent.
    pub fn hide<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let value = self.value.to_str().unwrap_or_default();
        let key = value.strip_prefix("Bearer ").unwrap_or(value);
        // As fast as it gets: a log of a million lines goes through this.
        let holds = || memmem::find(text.as_bytes(), key.as_bytes()).is_some();
        match key.len() >= SHORTEST_HIDDEN && holds() {
            true => text.replace(key, "(hidden)").into(),
            false => text.into(),
        }
    }

    /// Where it stands in a request.
    pub fn sent_as(&self) -> KeyHeader {
        self.header
    }

    /// The variable that it came from.
    pub fn variable(&self) -> &str {
        &self.variable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_does_not_show_itself() {
        let key = ServiceKey::new(&"secret-1".into(), KeyHeader::Bearer, "KEY").expect("a key");
        assert!(!format!("{key:?}").contains("secret-1"), "{key:?}");
        assert_eq!(key.header().1.as_bytes(), b"Bearer secret-1");
        let own = ServiceKey::new(&"secret-1".into(), KeyHeader::Own("X-API-Key"), "KEY").expect("a key");
        assert_eq!((own.header().0.as_str(), own.header().1.as_bytes()), ("x-api-key", &b"secret-1"[..]));
        assert_eq!(own.hide("what is secret-1?"), "what is (hidden)?");
        assert_eq!(key.hide("secret-1 and Bearer secret-1"), "(hidden) and Bearer (hidden)");
        let short = ServiceKey::new(&"a".into(), KeyHeader::Bearer, "KEY").expect("a key");
        assert_eq!(short.hide("a cat"), "a cat");
        let error = ServiceKey::new(&"secret\n2".into(), KeyHeader::Bearer, "KEY").expect_err("two lines");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}

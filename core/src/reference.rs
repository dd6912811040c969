//! Image references: `registry/repository:tag@digest`.
//!
//! The grammar is that of `distribution/reference`; names without a registry mean Docker Hub, as
//! `docker` reads them: `debian` is `docker.io/library/debian:latest`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::error::{Error, ErrorKind};

/// The registry that is meant where a reference names none.
pub const DOCKER_HUB: &str = "docker.io";

/// The longest name (registry and repository together), in bytes.
const NAME_LIMIT: usize = 255;
/// The longest tag, in bytes.
const TAG_LIMIT: usize = 128;

/// A parsed and normalised image reference. It has a tag, a digest, or both; the digest wins.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry: a host, with its port if one was given. `docker.io` for Docker Hub.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path inside the registry: `library/debian`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag. `latest` where neither tag nor digest were given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Registry and repository: `docker.io/library/debian`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The name as `docker` prints it: without `docker.io/` and `library/`.
    pub fn familiar_name(&self) -> String {
        if self.registry != DOCKER_HUB {
            return self.name();
        }
        let repository = &self.repository;
        match repository.strip_prefix("library/") {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => repository.clone(),
        }
    }

    /// The whole reference as `docker` prints it.
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_name(), self.suffix())
    }

    /// The same repository with another tag and no digest.
    ///
    /// # Errors
    /// `InvalidInput` if this is no tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, Error> {
        if !is_tag(tag) {
            return Err(invalid(
                tag,
                "a tag has 1 to 128 of `A-Za-z0-9_.-` and does not start with `.` or `-`",
            ));
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same reference with this digest.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// Says whether the registry is this machine: `localhost`, `127.0.0.0/8` or `[::1]`, which
    /// `docker` too talks to over plain http.
    pub fn registry_is_loopback(&self) -> bool {
        is_loopback(&self.registry)
    }

    fn suffix(&self) -> String {
        let tag = self.tag.iter().map(|tag| format!(":{tag}"));
        tag.chain(self.digest.iter().map(|digest| format!("@{digest}"))).collect()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, self.suffix())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|source| invalid(text, "after `@` comes a digest").with_source(source))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // A colon after the last slash starts the tag; one before it belongs to the port.
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[slash..].rfind(':') {
            Some(colon) => (&rest[..slash + colon], Some(&rest[slash + colon + 1..])),
            None => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(invalid(
                text,
                "a tag has 1 to 128 of `A-Za-z0-9_.-` and does not start with `.` or `-`",
            ));
        }
        let (registry, repository) = split_registry(name);
        if !is_host(&registry) {
            return Err(invalid(text, &format!("`{registry}` is not a registry host")));
        }
        check_repository(text, &repository)?;
        if registry.len() + 1 + repository.len() > NAME_LIMIT {
            return Err(invalid(text, "registry and repository are longer than 255 bytes"));
        }
        let tag = tag.or(if digest.is_none() { Some("latest") } else { None }).map(str::to_owned);
        Ok(Self { registry, repository, tag, digest })
    }
}

/// The first part is a registry if it has a dot or a colon, is `localhost`, or has capitals
/// (repositories have none); else Docker Hub is meant, and a lone name is one of its `library`.
fn split_registry(name: &str) -> (String, String) {
    let is_registry = |part: &str| {
        part.contains(['.', ':']) || part == "localhost" || part.bytes().any(|b| b.is_ascii_uppercase())
    };
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if is_registry(first) => (first, rest),
        _ => (DOCKER_HUB, name),
    };
    let registry = if registry == "index.docker.io" { DOCKER_HUB } else { registry };
    let library = registry == DOCKER_HUB && !repository.contains('/');
    let repository = if library { format!("library/{repository}") } else { repository.to_owned() };
    (registry.to_owned(), repository)
}

fn check_repository(text: &str, repository: &str) -> Result<(), Error> {
    for part in repository.split('/') {
        let shown = repository.strip_prefix("library/").unwrap_or(repository);
        if part.is_empty() {
            return Err(invalid(text, "the repository has an empty part"));
        }
        if part.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(invalid(text, &format!("the repository `{shown}` must be lower case")));
        }
        if !is_path_component(part.as_bytes()) {
            return Err(invalid(
                text,
                &format!(
                    "`{part}` is no part of a repository: letters and digits, separated by one `.`, one or two `_`, or dashes"
                ),
            ));
        }
    }
    Ok(())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(part: &[u8]) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (Some(first), Some(last)) = (part.first(), part.last()) else { return false };
    alphanumeric(first)
        && alphanumeric(last)
        && part
            .split(alphanumeric)
            .all(|run| matches!(run, b"" | b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-'))
}

/// `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`
fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= TAG_LIMIT
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_host(registry: &str) -> bool {
    let (host, port) = match registry.rfind(':') {
        Some(colon) if !registry[colon..].contains(']') => (&registry[..colon], Some(&registry[colon + 1..])),
        _ => (registry, None),
    };
    let port_ok = port.is_none_or(|port| !port.is_empty() && port.parse::<u16>().is_ok());
    let host_ok = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }),
    };
    port_ok && host_ok
}

/// Says whether a registry host (with or without port) is this machine.
pub fn is_loopback(registry: &str) -> bool {
    let host = match registry.rfind(':') {
        Some(colon) if !registry[colon..].contains(']') => &registry[..colon],
        _ => registry,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

fn invalid(text: &str, why: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("invalid image reference `{text}`"))
        .with_source(why.to_owned())
        .with_hint(
            "an image reference is `[registry/]repository[:tag][@digest]`, such as `ghcr.io/acme/agent:1.4`",
        )
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Reference {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error:?}"))
    }

    #[test]
    fn normalises_as_docker_does() {
        for (text, full) in [
            ("debian", "docker.io/library/debian:latest"),
            ("acme/app", "docker.io/acme/app:latest"),
            ("index.docker.io/debian:12", "docker.io/library/debian:12"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("ghcr.io/acme/a__b--c.d:V1", "ghcr.io/acme/a__b--c.d:V1"),
            ("Registry/app", "Registry/app:latest"),
        ] {
            assert_eq!(parse(text).to_string(), full);
        }
        assert_eq!(parse("debian:12").familiar(), "debian:12");
        assert_eq!(parse("acme/app").familiar(), "acme/app:latest");
    }

    #[test]
    fn a_digest_needs_no_tag() {
        let digest = Digest::of(b"x");
        let reference = parse(&format!("127.0.0.1:5000/a@{digest}"));
        assert_eq!((reference.tag(), reference.digest()), (None, Some(digest)));
        let both = parse(&format!("a:1@{digest}"));
        assert_eq!((both.tag(), both.digest()), (Some("1"), Some(digest)));
    }

    #[test]
    fn refuses_what_the_grammar_does() {
        let long = "a".repeat(256);
        for text in [
            "",
            ":1",
            "a:",
            "a:-x",
            "a//b",
            "/a",
            "a/",
            "A",
            "a/B",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a b",
            "a@sha256:1",
            "host:port/a",
            "host:99999/a",
            "ho_st.x/a",
            "a:b:c/d",
            "http://a/b",
            &long,
            &format!("a:{}", "t".repeat(129)),
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }

    #[test]
    fn knows_loopback_registries() {
        for (registry, loopback) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:1", true),
            ("127.8.9.1", true),
            ("[::1]:5000", true),
            ("10.0.0.1:5000", false),
            ("localhost.example.com", false),
        ] {
            assert_eq!(is_loopback(registry), loopback, "{registry}");
        }
    }
}

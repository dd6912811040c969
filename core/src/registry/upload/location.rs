//! Where an upload goes on.

use reqwest::header::{HeaderMap, LOCATION, RANGE};
use url::Url;

use super::super::endpoint::Endpoint;
use crate::digest::Digest;

/// The address that an answer names, relative to the one that was asked. A registry behind a
/// front end may think that it is reached without TLS: its own address keeps our scheme.
pub(super) fn location(endpoint: &Endpoint, asked: &Url, headers: &HeaderMap) -> Option<Url> {
    let mut url = asked.join(headers.get(LOCATION)?.to_str().ok()?).ok()?;
    let same_host = url.host_str() == endpoint.base.host_str();
    if same_host && url.scheme() == "http" && url.port().is_none() && endpoint.is_secure() {
        url.set_scheme("https").ok()?;
        url.set_port(endpoint.base.port()).ok()?;
    }
    matches!(url.scheme(), "http" | "https").then_some(url)
}

pub(super) fn with_digest(mut location: Url, digest: Digest) -> Url {
    location.query_pairs_mut().append_pair("digest", &digest.to_string());
    location
}

/// How many bytes `Range: 0-N` says are stored; some write `bytes=0-N`. `0-0` is what distribution says of
/// nothing at all; nobody sends a piece of one byte.
pub(super) fn stored_bytes(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?;
    let last = range.trim_start_matches("bytes=").strip_prefix("0-")?;
    match last.parse::<u64>().ok()? {
        0 => Some(0),
        last => last.checked_add(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::RegistrySettings;

    fn resolved(registry: &str, location_header: &str) -> Option<String> {
        let endpoint = Endpoint::new(registry, &RegistrySettings::default()).expect("endpoint");
        let asked = endpoint.url("a/b", "blobs/uploads/");
        let headers = HeaderMap::from_iter([(LOCATION, location_header.parse().expect("header"))]);
        location(&endpoint, &asked, &headers).map(|url| url.to_string())
    }

    #[test]
    fn a_location_may_be_relative_or_elsewhere() {
        for (registry, location, expected) in [
            (
                "r.io",
                "/v2/a/b/blobs/uploads/1?_state=x%3D",
                "https://r.io/v2/a/b/blobs/uploads/1?_state=x%3D",
            ),
            ("r.io", "https://storage.io/up?sig=y", "https://storage.io/up?sig=y"),
            ("r.io", "http://r.io/v2/up", "https://r.io/v2/up"),
            ("r.io:8443", "http://r.io/v2/up", "https://r.io:8443/v2/up"),
            ("localhost:5000", "http://localhost:5000/v2/up", "http://localhost:5000/v2/up"),
        ] {
            assert_eq!(resolved(registry, location).as_deref(), Some(expected));
        }
        assert_eq!(resolved("r.io", "file:///etc/passwd"), None);
    }

    #[test]
    fn the_digest_joins_an_existing_query() {
        let url: Url = "https://r.io/up?_state=a%2Bb".parse().expect("url");
        let text = with_digest(url, Digest::of(b"")).to_string();
        assert!(text.starts_with("https://r.io/up?_state=a%2Bb&digest=sha256%3Ae3b0c442"), "{text}");
    }

    #[test]
    fn reads_how_much_is_stored() {
        for (range, stored) in
            [("0-99", Some(100)), ("bytes=0-7", Some(8)), ("0-0", Some(0)), ("5-9", None), ("", None)]
        {
            let headers = HeaderMap::from_iter([(RANGE, range.parse().expect("header"))]);
            assert_eq!(stored_bytes(&headers), stored, "{range}");
        }
    }
}

//! What a registry asks for when it answers 401.
//!
//! Source: the distribution project's `token.md`, and RFC 9110 section 11.6.1.

use http_auth::parser::ChallengeParser;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use url::Url;

/// How a registry wants to be shown who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// The password itself with every request.
    Basic,
    /// A token from a token server.
    Bearer {
        /// The token server.
        realm: Url,
        /// The registry's name for itself.
        service: Option<String>,
        /// What it wants us to ask for; may be missing.
        scope: Option<String>,
    },
}

impl Challenge {
    /// Reads the challenges of an answer; tokens are preferred.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<Self> = texts.flat_map(Self::parse_all).collect();
        let is_bearer = |challenge: &&Self| matches!(challenge, Self::Bearer { .. });
        challenges.iter().find(is_bearer).or(challenges.first()).cloned()
    }

    fn parse_all(text: &str) -> Vec<Self> {
        let challenges = ChallengeParser::new(text).map_while(std::result::Result::ok);
        challenges
            .filter_map(|challenge| {
                let parameter = |name: &str| {
                    let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                    found.map(|(_, value)| value.to_unescaped())
                };
                match challenge.scheme {
                    scheme if scheme.eq_ignore_ascii_case("basic") => Some(Self::Basic),
                    scheme if scheme.eq_ignore_ascii_case("bearer") => Some(Self::Bearer {
                        realm: parameter("realm")?.parse().ok()?,
                        service: parameter("service").filter(|service| !service.is_empty()),
                        scope: parameter("scope").filter(|scope| !scope.is_empty()),
                    }),
                    _ => None,
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str]) -> Option<Challenge> {
        let header = |text: &&str| (WWW_AUTHENTICATE, text.parse().expect("header"));
        let mut headers = HeaderMap::new();
        for (name, value) in texts.iter().map(header) {
            headers.append(name, value);
        }
        Challenge::read(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let realm = realm.parse().expect("url");
        Some(Challenge::Bearer { realm, service: service.map(Into::into), scope: scope.map(Into::into) })
    }

    #[test]
    fn reads_the_forms_that_registries_send() {
        let full = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        assert_eq!(
            read(&[full]),
            bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:a/b:pull,push")
            )
        );
        assert_eq!(read(&[r#"bearer Realm="https://x/t""#]), bearer("https://x/t", None, None));
        let quoted = r#"Bearer realm="https://x/t",service="a \"b\", c""#;
        assert_eq!(read(&[quoted]), bearer("https://x/t", Some(r#"a "b", c"#), None));
        assert_eq!(read(&["Basic realm=\"Registry Realm\""]), Some(Challenge::Basic));
        assert_eq!(
            read(&["Basic realm=\"x\"", r#"Bearer realm="https://x/t""#]),
            bearer("https://x/t", None, None)
        );
        assert_eq!(read(&["Negotiate"]), None);
        assert_eq!(read(&["Bearer realm=\"no url\""]), None);
        assert_eq!(read(&[]), None);
    }
}

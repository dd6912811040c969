//! What images are called at the service.

use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::reference::{DOCKER_HUB, Reference};

/// The registry of names that windlass makes itself, which name no registry at all.
const LOCAL: &str = "localhost";

/// Spells a reference as the service wants it, `name:tag`. One without a registry of its own gets the
/// prefix; `docker.io` cannot be told from none.
///
/// # Errors
/// `InvalidInput` for a reference with a digest, which nothing can be built as.
pub(crate) fn spell(reference: &Reference, prefix: Option<&str>) -> Result<String> {
    if reference.digest().is_some() {
        let message = format!("`{}` has a digest, and an image cannot be built as one", reference.familiar());
        return Err(Error::new(ErrorKind::InvalidInput, message).with_hint("leave the digest out"));
    }
    let name = match reference.registry() {
        DOCKER_HUB => reference.familiar_name(),
        LOCAL => reference.repository().to_owned(),
        _ => return Ok(format!("{}:{}", reference.name(), tag(reference))),
    };
    Ok(match prefix {
        Some(prefix) => format!("{prefix}/{name}:{}", tag(reference)),
        None => format!("{name}:{}", tag(reference)),
    })
}

/// Says whether a reference gets the prefix, if there is one.
pub(crate) fn lacks_registry(reference: &Reference) -> bool {
    matches!(reference.registry(), DOCKER_HUB | LOCAL)
}

fn tag(reference: &Reference) -> &str {
    reference.tag().unwrap_or("latest")
}

/// The prefix as it is used: without slashes around it; an empty one is none.
pub(crate) fn prefix(text: &str) -> Option<String> {
    let text = text.trim().trim_matches('/');
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_a_registry_get_the_prefix() {
        for (reference, with, without) in [
            ("agent:1", "r.example.com/p/agent:1", "agent:1"),
            ("team/agent", "r.example.com/p/team/agent:latest", "team/agent:latest"),
            ("localhost/work:fp-1", "r.example.com/p/work:fp-1", "work:fp-1"),
            ("127.0.0.1:5000/a/b:1", "127.0.0.1:5000/a/b:1", "127.0.0.1:5000/a/b:1"),
            ("ghcr.io/a/b:1", "ghcr.io/a/b:1", "ghcr.io/a/b:1"),
        ] {
            let reference: Reference = reference.parse().expect(reference);
            assert_eq!(spell(&reference, Some("r.example.com/p")).expect(with), with);
            assert_eq!(spell(&reference, None).expect(without), without);
        }
        let digest = format!("a@sha256:{}", "a".repeat(64)).parse().expect("valid");
        assert_eq!(spell(&digest, None).expect_err("a digest").kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn a_prefix_has_no_slash_at_its_end() {
        assert_eq!(prefix("gcr.io/project/").as_deref(), Some("gcr.io/project"));
        assert_eq!(prefix(" / "), None);
    }
}

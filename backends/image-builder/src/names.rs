//! What images and build caches are called at the service.

use std::path::Path;

use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::reference::{DOCKER_HUB, Reference};
use windlass_core::request::BuildRequest;

use crate::together::uuid4;

/// The registry of names that windlass makes itself, which name no registry at all.
const LOCAL: &str = "localhost";
/// What such tags begin with: they are fingerprints.
const FINGERPRINT: &str = "fp-";
const FINGERPRINT_CHARACTERS: usize = FINGERPRINT.len() + 32;
/// What names begin with that nobody chose.
const MADE: &str = "image-";
const UUID_CHARACTERS: usize = 36;
/// The longest key that the service takes.
const CACHE_KEY_LIMIT: usize = 255;

/// The name that the user wants for the image, `name` or `name:tag`; `None` if one must be made.
///
/// # Errors
/// `Unsupported` for several names; `InvalidInput` for one with a registry, a digest or capital letters.
pub(crate) fn wanted(tags: &[Reference]) -> Result<Option<String>> {
    let mut own = tags.iter().filter(|tag| !is_fingerprint(tag));
    let Some(reference) = own.next() else { return Ok(None) };
    if let Some(other) = own.next() {
        let message = format!("the service gives an image one name, and `{}` is another", other.familiar());
        return Err(Error::new(ErrorKind::Unsupported, message).with_hint("give one `--tag`"));
    }
    let refuse = |why: &str, hint: &str| {
        let message = format!("the service cannot call an image `{}`: {why}", reference.familiar());
        Err(Error::new(ErrorKind::InvalidInput, message).with_hint(hint))
    };
    if reference.digest().is_some() {
        return refuse("an image cannot be built as a digest", "leave the digest out");
    }
    let name = match reference.registry() {
        DOCKER_HUB => reference.familiar_name(),
        LOCAL => reference.repository().to_owned(),
        _ => return refuse("it puts its images into its own registry", "leave the registry out of the tag"),
    };
    match reference.tag() {
        None => Ok(Some(name)),
        Some(tag) if tag.chars().any(|c| c.is_ascii_uppercase()) => {
            refuse("its names have no capital letters", "write the tag in small letters")
        }
        Some(tag) => Ok(Some(format!("{name}:{tag}"))),
    }
}

/// A name of our own, which nobody else has in the namespace that is shared.
pub(crate) fn made() -> String {
    format!("{MADE}{}:{}", uuid4(), uuid4())
}

/// What the service keeps its build cache under: as set, else the wanted repository, else the name of the
/// context's directory. `None` leaves it to the service: then nothing is found again under a name that
/// was made.
pub(crate) fn cache_key(set: Option<&str>, request: &BuildRequest, name: Option<&str>) -> Option<String> {
    if request.no_cache {
        // Nothing is under a key that nobody used before.
        return Some(format!("{MADE}{}", uuid4()));
    }
    if let Some(set) = set {
        return Some(set.to_owned()).filter(|key| !key.is_empty());
    }
    let repository = name.map(|name| name.split(':').next().unwrap_or(name)).filter(|name| !is_made(name));
    let directory = || request.context.root().and_then(Path::file_name).map(|name| name.to_string_lossy());
    let key = match repository {
        Some(repository) => in_alphabet(repository),
        None => in_alphabet(&directory()?),
    };
    Some(key).filter(|key| !key.is_empty())
}

/// Checks a key that somebody set.
///
/// # Errors
/// `InvalidInput`, with what would do.
pub(crate) fn check_cache_key(key: &str) -> Result<()> {
    let allowed = in_alphabet(key);
    if key == allowed || key.is_empty() {
        return Ok(());
    }
    let message = format!("`cache-key` cannot be `{key}`");
    let error = Error::new(ErrorKind::InvalidInput, message).with_hint(format!(
        "it is a path of `a-z`, `0-9`, `.`, `_` and `-` without a tag, of up to {CACHE_KEY_LIMIT} characters"
    ));
    Err(if allowed.is_empty() { error } else { error.with_hint(format!("`{allowed}` would do")) })
}

/// The nearest text that may be a key.
fn in_alphabet(text: &str) -> String {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    let parts = text.split('/').map(|part| {
        let lower = part.to_lowercase();
        let spelled: String = lower.chars().map(|c| if is_allowed(c) { c } else { '-' }).collect();
        spelled.trim_matches(['.', '_', '-']).to_owned()
    });
    let parts: Vec<String> = parts.filter(|part| !part.is_empty()).collect();
    let mut key = parts.join("/");
    // What is left is ASCII.
    key.truncate(CACHE_KEY_LIMIT);
    key.trim_end_matches(['.', '_', '-', '/']).to_owned()
}

/// A tag that the pipeline made of the content.
fn is_fingerprint(reference: &Reference) -> bool {
    reference.tag().is_some_and(|tag| {
        tag.len() == FINGERPRINT_CHARACTERS
            && tag.strip_prefix(FINGERPRINT).is_some_and(|hex| hex.chars().all(|c| c.is_ascii_hexdigit()))
    })
}

/// A name that nobody chose: `image-` and a UUID.
fn is_made(name: &str) -> bool {
    name.strip_prefix(MADE).is_some_and(|rest| {
        rest.len() == UUID_CHARACTERS && rest.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
    })
}

#[cfg(test)]
mod tests {
    use windlass_core::context::{Context, ContextSettings};
    use windlass_core::request::DockerfileSource;

    use super::*;

    fn tags(texts: &[&str]) -> Vec<Reference> {
        texts.iter().map(|text| text.parse().expect("a reference")).collect()
    }

    #[test]
    fn the_users_name_is_taken_where_the_service_can() {
        let print = format!("localhost/app:fp-{}", "0a".repeat(16));
        for (references, expected) in [
            (&[][..], None),
            (&[print.as_str()], None),
            (&["agent"], Some("agent:latest")),
            (&["team/agent:1"], Some("team/agent:1")),
            (&["agent:1", print.as_str()], Some("agent:1")),
            (&["localhost/x:fp-1"], Some("x:fp-1")),
        ] {
            assert_eq!(wanted(&tags(references)).expect("a name").as_deref(), expected, "{references:?}");
        }
        let digest = format!("a@sha256:{}", "a".repeat(64));
        for (references, kind) in [
            (&["a:1", "a:2"][..], ErrorKind::Unsupported),
            (&["ghcr.io/a/b:1"], ErrorKind::InvalidInput),
            (&["a:V1"], ErrorKind::InvalidInput),
            (&[digest.as_str()], ErrorKind::InvalidInput),
        ] {
            assert_eq!(wanted(&tags(references)).expect_err("refused").kind(), kind, "{references:?}");
        }
        let made = made();
        assert!(is_made(made.split(':').next().expect("a name")) && made.len() == 6 + 36 + 1 + 36, "{made}");
    }

    #[test]
    fn the_key_is_the_same_each_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("My App (2)");
        std::fs::create_dir(&root).expect("made");
        let request = |root: Option<&Path>| {
            let settings = ContextSettings::default();
            let context = root.map(|root| Context::from_dir(root, None, &settings).expect("a context"));
            let content = "FROM scratch\n".into();
            let file = DockerfileSource { shown: "-".into(), path: None, in_context: None, content };
            BuildRequest::new(context.unwrap_or_else(Context::empty), file)
        };
        let made = made();
        for (set, root, name, expected) in [
            (None, Some(&*root), None, Some("my-app--2")),
            (None, Some(&*root), Some("team/agent:1"), Some("team/agent")),
            (None, Some(&*root), Some(made.as_str()), Some("my-app--2")),
            (None, None, Some(made.as_str()), None),
            (Some("own/key"), Some(&*root), Some("agent"), Some("own/key")),
            (Some(""), Some(&*root), Some("agent"), None),
        ] {
            assert_eq!(cache_key(set, &request(root), name).as_deref(), expected, "{set:?} {name:?}");
        }
        let fresh = BuildRequest { no_cache: true, ..request(None) };
        assert_ne!(cache_key(None, &fresh, None), cache_key(None, &fresh, None));
    }

    #[test]
    fn a_key_has_its_alphabet() {
        for good in ["", "a", "my/app", "a.b_c-d/9"] {
            check_cache_key(good).expect(good);
        }
        for (bad, would_do) in
            [("My/App", "my/app"), ("app:1", "app-1"), ("/a//b/", "a/b"), ("é", ""), ("a/../b", "a/b")]
        {
            let error = check_cache_key(bad).expect_err(bad);
            assert_eq!(error.hints().get(1).is_some(), !would_do.is_empty());
            assert!(error.hints().last().expect("a hint").contains(would_do), "{error:?}");
        }
        assert_eq!(in_alphabet(&"x/".repeat(300)).len(), 255);
    }
}

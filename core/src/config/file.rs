//! The shape of `windlass.toml`: every key, what it may be, its default, what it does.

use crate::error::{Error, ErrorKind, nearest};

use super::kind::Kind;

/// The name of a project's file.
pub const PROJECT_FILE: &str = "windlass.toml";

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The key, `.` between its parts; `*` is a name that the user chooses. A `*` at the end of a
    /// [`Kind::Free`] key stands for one part or more.
    pub path: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// Its default, written as in an environment variable; `None` where unset means something.
    pub default: Option<&'static str>,
    /// What it does, for the commented file and the documentation.
    pub help: &'static str,
}

const fn key(path: &'static str, kind: Kind, default: Option<&'static str>, help: &'static str) -> Key {
    Key { path, kind, default, help }
}

/// Every key, in the order of the documentation.
pub const KEYS: &[Key] = &[
    key(
        "default-backend",
        Kind::List,
        None,
        "The backend to build with. Several are tried in order, each only where the one before is unavailable.",
    ),
    key(
        "progress",
        Kind::Choice(&["auto", "tty", "plain", "rawjson", "quiet"]),
        Some("auto"),
        "How progress is shown.",
    ),
    key("color", Kind::Choice(&["auto", "always", "never"]), Some("auto"), "Whether messages are coloured."),
    key(
        "cache-dir",
        Kind::Path,
        None,
        "Where the image store and caches live. Unset: the user's cache directory.",
    ),
    key("state-dir", Kind::Path, None, "Where records of builds live. Unset: the user's state directory."),
    key("context.ignore", Kind::Flag, Some("true"), "Whether `.dockerignore` is honoured."),
    key(
        "context.modes",
        Kind::Choice(&["keep", "normalize"]),
        Some("keep"),
        "Permission bits as on disk, or 0644 and 0755 everywhere (for teams whose umasks differ).",
    ),
    key(
        "context.timestamps",
        Kind::Choice(&["fixed", "keep"]),
        Some("fixed"),
        "File times: SOURCE_DATE_EPOCH, else 1980-01-01; or as on disk.",
    ),
    key(
        "context.warn-size",
        Kind::Bytes,
        Some("1GiB"),
        "Warns about a context larger than this; 0 never warns.",
    ),
    key("context.warn-secrets", Kind::Flag, Some("true"), "Warns about files that look like secrets."),
    key(
        "context.secret-patterns",
        Kind::List,
        None,
        "What looks like a secret, in the syntax of `.dockerignore`. Unset: the built-in list.",
    ),
    key(
        "compression.format",
        Kind::Choice(&["gzip", "zstd", "none"]),
        Some("gzip"),
        "How layers and context archives are compressed.",
    ),
    key(
        "compression.level",
        Kind::Integer,
        None,
        "gzip 1 to 9, zstd 1 to 22. Unset: the format's own default.",
    ),
    key(
        "limits.unpack",
        Kind::Bytes,
        Some("100GiB"),
        "How much an archive or a layer may hold once it is unpacked; 0 for no limit.",
    ),
    key("timeouts.build", Kind::Duration, None, "Stops a build that takes longer. Unset: never."),
    key("timeouts.connect", Kind::Duration, Some("10s"), "How long a registry may take to answer the door."),
    key("timeouts.answer", Kind::Duration, Some("60s"), "How long a registry may take to answer a request."),
    key(
        "timeouts.silence",
        Kind::Duration,
        Some("60s"),
        "How long a transfer may stand still before it is broken off and tried again.",
    ),
    key(
        "timeouts.blob-answer",
        Kind::Duration,
        Some("5m"),
        "How long a registry may take over a blob once it has all of it.",
    ),
    key(
        "retries.count",
        Kind::Integer,
        Some("5"),
        "How often a request is tried again after the first time.",
    ),
    key("retries.first-wait", Kind::Duration, Some("200ms"), "The first wait; it doubles each time."),
    key(
        "retries.longest-wait",
        Kind::Duration,
        Some("60s"),
        "The longest wait, also when a registry asks for a longer one; it is not tried again then.",
    ),
    key("transfers.concurrency", Kind::Integer, Some("4"), "How many blobs are sent or fetched at a time."),
    key(
        "transfers.whole-limit",
        Kind::Bytes,
        Some("64MiB"),
        "Blobs up to this size are sent in one request, larger ones in pieces.",
    ),
    key("transfers.piece-size", Kind::Bytes, Some("16MiB"), "The size of these pieces."),
    key("environments.*.backend", Kind::List, None, "The backend, or several, of `--env NAME`."),
    key("backends.*.type", Kind::Text, None, "The type of this backend. Unset: its name."),
    key("backends.*.*", Kind::Free, None, "An option of this backend; see the page of its type."),
    key("recipes.*.extends", Kind::Text, None, "The recipe that this one is like, but for its own keys."),
    key("recipes.*.template", Kind::Path, None, "The template of the Dockerfile of this recipe."),
    key("recipes.*.repository", Kind::Text, None, "The repository of its images."),
    key("recipes.*.base-image", Kind::Text, None, "The base image where none is typed."),
    key("recipes.*.source", Kind::Text, None, "The source directory where none is typed."),
    key("recipes.*.version", Kind::Text, None, "The version that its tags name."),
    key("recipes.*.*", Kind::Free, None, "Another key of this recipe; see the page about recipes."),
    key(
        "registries.*.plain-http",
        Kind::Flag,
        None,
        "Talks plain http to this registry. Unset: only to one on this machine.",
    ),
    key(
        "registries.*.ca-file",
        Kind::Path,
        None,
        "Certificates (PEM) to trust for this registry, besides the system's.",
    ),
    key("registries.*.client-certificate", Kind::Path, None, "Our own certificate (PEM) for this registry."),
    key("registries.*.client-key", Kind::Path, None, "The key (PEM) of that certificate."),
    key("registries.*.insecure", Kind::Flag, Some("false"), "Accepts any certificate of this registry."),
    key("registries.*.mirrors", Kind::List, None, "Registries that are asked first for images of this one."),
    key(
        "registries.*.requests-per-minute",
        Kind::Integer,
        None,
        "How many requests it gets within a minute; 0 for no limit. Unset: none, but 100 for docker.io.",
    ),
];

/// What a path means.
pub(super) enum Place {
    /// A value.
    Value(&'static Key),
    /// A section: keys start with it.
    Section,
}

/// Finds what a path of the configuration means; `Err` holds the key that it may be meant to be.
pub(super) fn find(path: &[String]) -> Result<Place, Option<String>> {
    if let Some(key) = KEYS.iter().find(|key| matches(key, path)) {
        return Ok(Place::Value(key));
    }
    if KEYS.iter().any(|key| prefixes(key, path).is_some_and(|rest| !rest.is_empty())) {
        return Ok(Place::Section);
    }
    Err(suggest(path))
}

fn matches(key: &Key, path: &[String]) -> bool {
    match prefixes(key, path) {
        Some(rest) => rest.is_empty(),
        // An option of a backend may be a table of its own.
        None if key.kind == Kind::Free => {
            let length = key.path.split('.').count();
            path.len() > length && prefixes(key, &path[..length]).is_some()
        }
        None => false,
    }
}

/// The parts of a key that follow a path; `None` if the key does not start with it.
fn prefixes(key: &Key, path: &[String]) -> Option<Vec<&'static str>> {
    let mut parts = key.path.split('.');
    for part in path {
        let pattern = parts.next()?;
        if pattern != "*" && pattern != part {
            return None;
        }
    }
    Some(parts.collect())
}

/// The nearest key: one with a similar last part in the same section, else a key or section of
/// another place that has exactly this name.
fn suggest(path: &[String]) -> Option<String> {
    let (last, section) = path.split_last()?;
    let siblings = KEYS.iter().filter_map(|key| prefixes(key, section)?.first().copied());
    if let Some(name) = nearest(last, siblings.filter(|name| *name != "*")) {
        return Some([section, &[name.to_owned()]].concat().join("."));
    }
    let elsewhere = KEYS.iter().find(|key| key.path.rsplit('.').next() == Some(last));
    elsewhere.map(|key| key.path.replace('*', "NAME"))
}

/// The error of a key that does not exist.
pub(super) fn unknown(path: &[String], nearest: Option<String>) -> Error {
    let error = Error::new(ErrorKind::InvalidConfig, format!("unknown configuration key `{}`", show(path)));
    match nearest {
        Some(name) => error.with_hint(format!("did you mean `{name}`?")),
        None => error.with_hint("`windlass config show` lists every key"),
    }
}

/// A path as one would write it: parts with unusual letters are quoted.
pub(super) fn show(path: &[String]) -> String {
    let bare = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let parts = path.iter().map(|part| if bare(part) { part.clone() } else { format!("{part:?}") });
    parts.collect::<Vec<_>>().join(".")
}

/// A `windlass.toml` in which every key is explained and commented out.
pub fn example() -> String {
    let mut text = String::from(
        "# Settings of windlass for this project. Every line that is commented out shows the default,\n\
         # or an example where there is none. `windlass config show` prints what is in force, and why.\n\n",
    );
    let mut section = "";
    for key in KEYS.iter().filter(|key| !key.path.contains('*')) {
        let (own, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if own != section {
            section = own;
            text += &format!("[{section}]\n");
        }
        text += &format!("# {} {}\n", key.help, accepts(key));
        text += &format!("#{name} = {}\n\n", example_value(key));
    }
    text + EXAMPLE_TABLES
}

fn accepts(key: &Key) -> String {
    format!("({})", key.kind.describe())
}

fn example_value(key: &Key) -> String {
    match (key.kind, key.default) {
        (Kind::Flag | Kind::Integer, Some(default)) => default.to_owned(),
        (_, Some(default)) => format!("{default:?}"),
        (Kind::List, None) if key.path == "default-backend" => "[\"oci\"]".to_owned(),
        (Kind::List, None) => "[\".env\", \"**/*.pem\"]".to_owned(),
        (Kind::Integer, None) => "6".to_owned(),
        (Kind::Duration, None) => "\"2h\"".to_owned(),
        (_, None) => "\"/path/to/directory\"".to_owned(),
    }
}

const EXAMPLE_TABLES: &str = "\
# A backend under a name of your own: its type, and the options of that type.
#[backends.staging]
#type = \"docker\"
#builder = \"staging\"

# `--env ci` or WINDLASS_ENV=ci builds with this one.
#[environments.ci]
#backend = \"oci\"

# A recipe for runtime images, which extends a built-in one: `windlass runtime build --recipe acme`.
#[recipes.acme]
#extends = \"openhands-runtime\"
#repository = \"registry.example.com/acme/runtime\"

# A registry that is not plain https with a well-known certificate.
#[registries.\"registry.example.com:5000\"]
#plain-http = false
#ca-file = \"certificates/registry.pem\"
#mirrors = [\"mirror.example.com\"]
#requests-per-minute = 600
";

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn knows_values_and_sections() {
        for (text, is_value) in [
            ("default-backend", true),
            ("context.ignore", true),
            ("backends.staging.type", true),
            ("backends.staging.builder", true),
            ("backends.staging.tls.ca", true),
            ("recipes.acme.template", true),
            ("recipes.acme.tags.lock", true),
            ("recipes.acme", false),
            ("context", false),
            ("backends", false),
            ("backends.staging", false),
            ("registries.x", false),
        ] {
            match find(&path(text)) {
                Ok(Place::Value(_)) => assert!(is_value, "{text}"),
                Ok(Place::Section) => assert!(!is_value, "{text}"),
                Err(_) => panic!("{text} is unknown"),
            }
        }
    }

    #[test]
    fn suggests_the_nearest_key() {
        for (text, expected) in [
            ("default_backend", Some("default-backend")),
            ("context.warn-sise", Some("context.warn-size")),
            ("contxt", Some("context")),
            ("warn-size", Some("context.warn-size")),
            ("registries.a.mirror", Some("registries.a.mirrors")),
            ("environments.ci.backends", Some("environments.ci.backend")),
            ("nonsense", None),
        ] {
            let found = match find(&path(text)) {
                Err(found) => found,
                Ok(_) => panic!("{text} is known"),
            };
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn defaults_are_of_their_kind() {
        for key in KEYS {
            let Some(default) = key.default else { continue };
            assert!(key.kind.parse(default).is_some(), "{}", key.path);
        }
    }

    #[test]
    fn the_example_holds_valid_keys() {
        let active: String = example()
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let table: toml::Table = toml::from_str(&active).expect("the example is TOML");
        assert!(table.contains_key("registries"));
        toml::from_str::<toml::Table>(&example()).expect("also with everything commented out");
    }
}

//! What docker, buildx and BuildKit say when something fails, as kinds of errors.
//!
//! They say it in texts only: exit codes are always 1, and the API's status codes are mostly 500.
//! One table maps texts to kinds; it is ordered, the first match wins.

use std::error::Error as _;

use windlass_core::backend::Feature;
use windlass_core::error::{Error, ErrorKind};

/// A text that gives a failure its kind.
struct Rule {
    /// All of these are in the text, in any case of letters.
    needles: &'static [&'static str],
    kind: ErrorKind,
    hint: &'static str,
}

const fn rule(needles: &'static [&'static str], kind: ErrorKind, hint: &'static str) -> Rule {
    Rule { needles, kind, hint }
}

const START_ENGINE: &str = "start docker, or point `DOCKER_HOST` or a docker context at a running engine";
const OTHER_BUILDER: &str = "use a builder of the `docker-container` driver (`docker buildx create --driver docker-container`, \
     then `--builder NAME`), or turn on the engine's containerd image store";
const LOG_IN: &str =
    "run `docker login` for this registry, and check that the repository exists and that you may use it";

#[rustfmt::skip]
const RULES: &[Rule] = &[
    // First, because these texts quote the Dockerfile, which may hold any words.
    rule(&["did not complete successfully"], ErrorKind::BuildFailed, ""),
    rule(&["dockerfile parse error"], ErrorKind::InvalidDockerfile, ""),
    // The engine. Its socket refusing us is a matter of permissions, not of a stopped daemon.
    rule(&["permission denied while trying to connect to the docker"], ErrorKind::Denied,
        "add your user to the group `docker`, or choose another engine by `DOCKER_HOST`"),
    rule(&["cannot connect to the docker daemon"], ErrorKind::Unavailable, START_ENGINE),
    rule(&["error during connect"], ErrorKind::Unavailable, START_ENGINE),
    rule(&["failed to connect to the docker api"], ErrorKind::Unavailable, START_ENGINE),
    // The set-up of docker. Clients without buildx print either, by where an unknown flag stands.
    rule(&["is not a docker command"], ErrorKind::Unavailable, "install the buildx plugin"),
    rule(&["unknown command: docker buildx"], ErrorKind::Unavailable, "install the buildx plugin"),
    rule(&["no builder", "found"], ErrorKind::InvalidInput, "`docker buildx ls` lists the builders"),
    rule(&["context not found"], ErrorKind::InvalidConfig, "`docker context ls` lists the contexts"),
    rule(&["failed to find driver"], ErrorKind::Unavailable, "`docker buildx ls` shows the state of each builder"),
    rule(&["no valid drivers found"], ErrorKind::Unavailable, "`docker buildx ls` shows the state of each builder"),
    rule(&["unknown flag"], ErrorKind::InvalidInput, "`docker buildx build --help` lists the options of this buildx"),
    rule(&["unknown shorthand flag"], ErrorKind::InvalidInput, "`docker buildx build --help` lists the options of this buildx"),
    rule(&["invalid argument", "flag"], ErrorKind::InvalidInput, ""),
    // What a builder of this kind cannot do.
    rule(&["is not supported for the docker driver"], ErrorKind::Unsupported, OTHER_BUILDER),
    rule(&["not supported for the docker driver without changes"], ErrorKind::Unsupported, OTHER_BUILDER),
    rule(&["currently not supported", "driver"], ErrorKind::Unsupported, OTHER_BUILDER),
    rule(&["does not currently support exporting manifest lists"], ErrorKind::Unsupported, OTHER_BUILDER),
    rule(&["multiple outputs"], ErrorKind::Unsupported, "give one output, or use a BuildKit of 0.13 or newer"),
    rule(&["tag is needed when pushing"], ErrorKind::InvalidInput, "name the image with `--tag`"),
    // The Dockerfile.
    rule(&["failed to read dockerfile"], ErrorKind::InvalidInput, "name the Dockerfile with `--file`"),
    rule(&["dockerfile cannot be empty"], ErrorKind::InvalidDockerfile, ""),
    rule(&["no build stage in current context"], ErrorKind::InvalidDockerfile, "begin the first stage with `FROM`"),
    rule(&["unterminated heredoc"], ErrorKind::InvalidDockerfile, ""),
    rule(&["file with no instructions"], ErrorKind::InvalidDockerfile, ""),
    rule(&["circular dependency"], ErrorKind::InvalidDockerfile, ""),
    rule(&["failed to parse stage name"], ErrorKind::InvalidDockerfile, ""),
    rule(&["base name", "should not be blank"], ErrorKind::InvalidDockerfile, ""),
    rule(&["target stage", "could not be found"], ErrorKind::InvalidInput, "name a stage of the Dockerfile with `--target`"),
    // Files. buildx looks at secrets before it does anything. `error from sender` is buildx reading the context for BuildKit.
    rule(&["error from sender"], ErrorKind::ContextUnreadable, ""),
    rule(&["failed to stat"], ErrorKind::InvalidInput, ""),
    rule(&["failed to get build context"], ErrorKind::InvalidInput, "check the directory given with `--build-context`"),
    rule(&["could not lock", "index.json.lock"], ErrorKind::InvalidInput,
        "check the OCI layout given with `--build-context`: buildx needs to write a lock file into it"),
    rule(&["no space left on device"], ErrorKind::LocalIo, "free some space; `docker system df` shows what docker uses"),
    rule(&["read-only file system"], ErrorKind::LocalIo, ""),
    rule(&["failed to calculate checksum", "not found"], ErrorKind::InvalidDockerfile, ""),
    rule(&["no match for platform in manifest"], ErrorKind::NotFound, "choose a platform of the base image with `--platform`"),
    // Registries. Docker Hub says `denied` both for "no such repository" and for "not yours".
    rule(&["pull access denied"], ErrorKind::Denied, LOG_IN),
    rule(&["push access denied"], ErrorKind::Denied, LOG_IN),
    rule(&["requested access to the resource is denied"], ErrorKind::Denied, LOG_IN),
    rule(&["authentication required"], ErrorKind::Denied, LOG_IN),
    rule(&["no basic auth credentials"], ErrorKind::Denied, LOG_IN),
    rule(&["failed to authorize"], ErrorKind::Denied, LOG_IN),
    rule(&["insufficient_scope"], ErrorKind::Denied, LOG_IN),
    rule(&["401 unauthorized"], ErrorKind::Denied, LOG_IN),
    rule(&["403 forbidden"], ErrorKind::Denied, LOG_IN),
    rule(&["unauthorized:"], ErrorKind::Denied, LOG_IN),
    rule(&["denied:"], ErrorKind::Denied, LOG_IN),
    rule(&["toomanyrequests"], ErrorKind::Denied, "log in, or wait: the registry limits anonymous pulls"),
    rule(&["connection refused"], ErrorKind::Unavailable, ""),
    rule(&["no such host"], ErrorKind::Unavailable, "check the name of the registry and the network of the builder"),
    rule(&["network is unreachable"], ErrorKind::Unavailable, ""),
    rule(&["no route to host"], ErrorKind::Unavailable, ""),
    rule(&["connection reset by peer"], ErrorKind::Unavailable, ""),
    rule(&["i/o timeout"], ErrorKind::Unavailable, ""),
    rule(&["tls handshake timeout"], ErrorKind::Unavailable, ""),
    rule(&["deadline exceeded"], ErrorKind::Unavailable, ""),
    rule(&["server gave http response to https client"], ErrorKind::Unavailable,
        "the registry speaks plain http: add it to `insecure-registries` of the engine, or to the builder's `buildkitd.toml`"),
    rule(&["x509:"], ErrorKind::Unavailable, "the builder does not trust the registry's certificate: give it the right CA"),
    rule(&["502 bad gateway"], ErrorKind::Unavailable, ""),
    rule(&["503 service unavailable"], ErrorKind::Unavailable, ""),
    rule(&["unknown scheme oci-layout"], ErrorKind::Unsupported,
        "this builder reads no OCI layouts: use a builder of the `docker-container` driver (`--builder`), or push the layout and name it with `docker-image://`"),
    rule(&["failed to resolve source metadata", "not found"], ErrorKind::NotFound, "check the name and tag of the base image"),
    rule(&["manifest unknown"], ErrorKind::NotFound, ""),
    rule(&["no such image"], ErrorKind::NotFound, ""),
];

/// The kind that a text of docker, buildx or BuildKit stands for, and what to do next, which is
/// empty if there is nothing to say. `None` if no rule knows it.
pub(crate) fn classify(text: &str) -> Option<(ErrorKind, &'static str)> {
    let text = text.to_lowercase();
    let matches = |rule: &&Rule| rule.needles.iter().all(|needle| text.contains(needle));
    RULES.iter().find(matches).map(|rule| (rule.kind, rule.hint))
}

/// Strips what buildx and gRPC wrap around the words of the one who knows, and the advice below
/// them that a hint of ours gives in better words.
pub(crate) fn cause(text: &str) -> &str {
    let advice = ["\nSwitch to a different driver", "\nLearn more at ", "\nSee 'docker "];
    let end = advice.iter().filter_map(|advice| text.find(advice)).min().unwrap_or(text.len());
    let mut text = text[..end].trim();
    loop {
        let prefixes = ["ERROR: ", "error: ", "failed to solve: ", "rpc error: code = Unknown desc = "];
        match prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)) {
            Some(rest) => text = rest.trim_start(),
            None => return text,
        }
    }
}

/// The feature that a builder says it lacks.
pub(crate) fn feature(text: &str) -> Option<Feature> {
    let features = [
        ("OCI exporter", Feature::OciArchive),
        ("Docker exporter", Feature::DockerArchive),
        ("Multi-platform", Feature::MultiPlatform),
        ("manifest lists", Feature::MultiPlatform),
        ("ache export", Feature::EngineOptions),
        ("ttestation", Feature::EngineOptions),
    ];
    features.iter().find(|(word, _)| text.contains(word)).map(|(_, feature)| *feature)
}

/// Makes the error for what a call other than a build says.
pub(crate) fn from_text(message: impl Into<String>, text: &str) -> Error {
    let (kind, hint) = classify(text).unwrap_or((ErrorKind::UnexpectedAnswer, ""));
    let error = Error::new(kind, message).with_source(cause(text).to_owned());
    if hint.is_empty() { error } else { error.with_hint(hint) }
}

/// Makes the error for a failed call of the engine's API.
pub(crate) fn from_engine(message: impl Into<String>, source: bollard::errors::Error) -> Error {
    use bollard::errors::Error as Engine;
    let kind = match &source {
        // 404 also stands for "no such repository" of a push; 500 carries the registry's words.
        Engine::DockerResponseServerError { status_code, message: text } => match status_code {
            401 | 403 => ErrorKind::Denied,
            404 => ErrorKind::NotFound,
            400 => ErrorKind::InvalidInput,
            _ => return from_text(message, text),
        },
        Engine::DockerStreamError { error } => return from_text(message, error),
        Engine::RequestTimeoutError => ErrorKind::TimedOut,
        Engine::SocketNotFoundError(_) => ErrorKind::Unavailable,
        Engine::HyperLegacyError { .. } | Engine::IOError { .. } | Engine::HyperResponseError { .. } => {
            if chain(&source).contains("permission denied") {
                ErrorKind::Denied
            } else {
                ErrorKind::Unavailable
            }
        }
        Engine::UnsupportedURISchemeError { .. } => ErrorKind::InvalidConfig,
        Engine::CertPathError { .. } | Engine::CertParseError { .. } => ErrorKind::InvalidConfig,
        _ => ErrorKind::UnexpectedAnswer,
    };
    let hint = match kind {
        ErrorKind::Unavailable => START_ENGINE,
        ErrorKind::Denied => "check that your user may use the engine (group `docker`)",
        _ => "",
    };
    let error = Error::new(kind, message).with_source(source);
    if hint.is_empty() { error } else { error.with_hint(hint) }
}

/// All causes in one lower-case text.
fn chain(error: &bollard::errors::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_kinds() {
        // As printed by docker 26.1 with buildx 0.13, some by docker 28.
        for (text, kind) in [
            (
                "ERROR: Cannot connect to the Docker daemon at unix:///x.sock. Is the docker daemon running?",
                ErrorKind::Unavailable,
            ),
            (
                "ERROR: permission denied while trying to connect to the Docker daemon socket at unix:///x: dial unix \
              /x: connect: permission denied",
                ErrorKind::Denied,
            ),
            ("docker: 'buildx' is not a docker command.", ErrorKind::Unavailable),
            ("ERROR: no builder \"nope\" found", ErrorKind::InvalidInput),
            (
                "ERROR: context \"x\": context not found: open meta.json: no such file",
                ErrorKind::InvalidConfig,
            ),
            ("unknown flag: --frob", ErrorKind::InvalidInput),
            (
                "invalid argument \"bad\" for \"--ulimit\" flag: invalid ulimit argument: bad",
                ErrorKind::InvalidInput,
            ),
            ("ERROR: failed to stat /nope: stat /nope: no such file or directory", ErrorKind::InvalidInput),
            ("ERROR: OCI exporter is not supported for the docker driver.", ErrorKind::Unsupported),
            (
                "ERROR: docker exporter does not currently support exporting manifest lists",
                ErrorKind::Unsupported,
            ),
            ("ERROR: tag is needed when pushing to registry", ErrorKind::InvalidInput),
            (
                "ERROR: failed to solve: dockerfile parse error on line 2: unknown instruction: RUNN",
                ErrorKind::InvalidDockerfile,
            ),
            (
                "ERROR: failed to solve: failed to read dockerfile: open nope: no such file",
                ErrorKind::InvalidInput,
            ),
            ("ERROR: failed to solve: the Dockerfile cannot be empty", ErrorKind::InvalidDockerfile),
            ("ERROR: failed to solve: target stage \"nope\" could not be found", ErrorKind::InvalidInput),
            (
                "ERROR: failed to solve: failed to compute cache key: failed to calculate checksum of ref a::b: \
              \"/nope\": not found",
                ErrorKind::InvalidDockerfile,
            ),
            (
                "ERROR: failed to solve: r/x:1: failed to resolve source metadata for r/x:1: r/x:1: not found",
                ErrorKind::NotFound,
            ),
            (
                "ERROR: failed to solve: failed to do request: Head \"https://r/v2/\": dial tcp 127.0.0.1:5999: connect: \
              connection refused",
                ErrorKind::Unavailable,
            ),
            (
                "ERROR: failed to solve: x: pull access denied, repository does not exist or may require authorization: \
              server message: insufficient_scope: authorization failed",
                ErrorKind::Denied,
            ),
            (
                "ERROR: failed to solve: rpc error: code = Unknown desc = write /x: no space left on device",
                ErrorKind::LocalIo,
            ),
            (
                "ERROR: failed to solve: error from sender: open /c/f: permission denied",
                ErrorKind::ContextUnreadable,
            ),
        ] {
            assert_eq!(classify(text).map(|(kind, _)| kind), Some(kind), "{text}");
        }
    }

    #[test]
    fn the_words_of_a_failed_command_do_not_count() {
        let text = "ERROR: failed to solve: process \"/bin/sh -c grep 'connection refused' log; echo denied:\" did not \
                    complete successfully: exit code: 1";
        assert_eq!(classify(text), Some((ErrorKind::BuildFailed, "")));
        assert_eq!(classify("something nobody has seen"), None);
    }

    #[test]
    fn the_cause_is_bare() {
        assert_eq!(cause("ERROR: failed to solve: rpc error: code = Unknown desc = disk full"), "disk full");
        assert_eq!(
            cause(
                "ERROR: OCI exporter is not supported.\nSwitch to a different driver\nLearn more at https://x"
            ),
            "OCI exporter is not supported."
        );
    }
}

//! What can go wrong, as data: a kind for code, words for people.
//!
//! An [`Error`] says what failed and on what ([`Error::message`]), why (the chain of
//! [`std::error::Error::source`]), where (details, source line, last log lines) and what to do
//! next ([`Error::hints`]). The kind alone decides exit code, retry and fallback.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::backend::Feature;
use crate::remote::{BuildId, RemoteState};

/// What the id of a remote build is called among the facts of an error.
const BUILD_ID: &str = "build id";

/// The result of everything in windlass that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure an [`Error`] is; code matches on this and never on texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request itself is wrong: a bad reference, a missing context, conflicting options.
    InvalidInput,
    /// A setting is unknown, malformed or contradicts another.
    InvalidConfig,
    /// The backend cannot do what was asked; found out before any work.
    Unsupported,
    /// The Dockerfile cannot be built as it is written.
    InvalidDockerfile,
    /// A file of the context, or an ignore file, cannot be read, or changed while it was read.
    ContextUnreadable,
    /// The build ran and failed.
    BuildFailed,
    /// An image, blob or file that was asked for does not exist.
    NotFound,
    /// The local disk refused: full, read-only, no permission.
    LocalIo,
    /// Content does not match its digest, or a document breaks its format.
    Corrupt,
    /// The other side answered something that its protocol does not allow.
    UnexpectedAnswer,
    /// The other side cannot be reached, or is not installed.
    Unavailable,
    /// The other side refuses us: no credentials, wrong credentials, no permission.
    Denied,
    /// A time limit passed.
    TimedOut,
    /// The user stopped it.
    Cancelled,
}

impl ErrorKind {
    /// Says whether the same operation may succeed on another backend: only when this one could
    /// not be reached or refused us, never when a build failed.
    pub fn is_unavailable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Denied)
    }
}

/// A line of a file that an error is about, shown below the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceLine {
    /// The file as the user would name it.
    pub file: PathBuf,
    /// Line number, from 1.
    pub line: usize,
    /// The line itself, without its line end.
    pub text: String,
}

/// A failure with everything a user needs to act on it.
///
/// Display prints the message alone: causes are in the `source` chain and are not repeated. A clone
/// shares the cause: work that several wait for fails for all of them.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    details: Vec<(&'static str, String)>,
    source_line: Option<SourceLine>,
    log_tail: Vec<String>,
    feature: Option<Feature>,
    build: Option<BuildId>,
    end: Option<RemoteState>,
    hints: Vec<String>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Makes an error; `message` is lower case, says what failed on what, and has no final stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            details: Vec::new(),
            source_line: None,
            log_tail: Vec::new(),
            feature: None,
            build: None,
            end: None,
            hints: Vec::new(),
            source: None,
        }))
    }

    /// Makes the error for a feature that a backend lacks; the pipeline adds which backends have it.
    pub fn unsupported(feature: Feature, message: impl Into<String>) -> Self {
        let mut error = Self::new(ErrorKind::Unsupported, message);
        error.0.feature = Some(feature);
        error
    }

    /// Makes the error of a build that the user stopped.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "cancelled")
    }

    /// Adds the cause. Its own text is printed below the message, so the message must not repeat it.
    /// What an [`Error`] as the cause says to do next still holds: its hints are taken over.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source: Box<dyn StdError + Send + Sync> = source.into();
        if let Some(cause) = source.downcast_ref::<Self>() {
            let new = cause.hints().iter().filter(|hint| !self.0.hints.contains(hint));
            let new: Vec<String> = new.cloned().collect();
            self.0.hints.extend(new);
        }
        self.0.source = Some(source.into());
        self
    }

    /// Adds a named fact: `reference`, `path`, `build id`, `attempt`.
    #[must_use]
    pub fn with_detail(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.details.push((name, value.into()));
        self
    }

    /// Says which remote build this is about: one that a service has taken. The id becomes one of the
    /// facts too.
    #[must_use]
    pub fn with_build(mut self, id: &BuildId) -> Self {
        if self.0.build.as_ref() != Some(id) {
            self.0.build = Some(id.clone());
            self.0.details.push((BUILD_ID, id.to_string()));
        }
        self
    }

    /// Says how the remote build that this is about has ended.
    #[must_use]
    pub fn with_end(mut self, state: RemoteState) -> Self {
        self.0.end = Some(state).filter(|state| state.is_final());
        self
    }

    /// Adds the line of a file that the error is about.
    #[must_use]
    pub fn with_source_line(mut self, line: SourceLine) -> Self {
        self.0.source_line = Some(line);
        self
    }

    /// Adds the last lines of the log of a failed build, oldest first.
    #[must_use]
    pub fn with_log_tail(mut self, lines: Vec<String>) -> Self {
        self.0.log_tail = lines;
        self
    }

    /// Adds what the user can do next, as an imperative sentence without final stop.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        if !self.0.hints.contains(&hint) {
            self.0.hints.push(hint);
        }
        self
    }

    /// What sort of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What failed, on what.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Named facts, in the order they were added.
    pub fn details(&self) -> &[(&'static str, String)] {
        &self.0.details
    }

    /// The line of a file that this is about.
    pub fn source_line(&self) -> Option<&SourceLine> {
        self.0.source_line.as_ref()
    }

    /// The last lines of a failed build's log, oldest first.
    pub fn log_tail(&self) -> &[String] {
        &self.0.log_tail
    }

    /// The feature that the backend lacks, for [`ErrorKind::Unsupported`].
    pub fn feature(&self) -> Option<Feature> {
        self.0.feature
    }

    /// How the remote build that this is about has ended, where that is known.
    pub fn end(&self) -> Option<RemoteState> {
        self.0.end
    }

    /// The remote build that this is about, where a service has taken one.
    pub fn build(&self) -> Option<&BuildId> {
        self.0.build.as_ref()
    }

    /// What to do next.
    pub fn hints(&self) -> &[String] {
        &self.0.hints
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("details", &self.0.details)
            .field("source", &self.0.source)
            .field("hints", &self.0.hints)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Gives any failure of the standard library or of a crate its kind and its words.
pub trait ResultExt<T> {
    /// Wraps the failure as the cause of an [`Error`] of this kind and message.
    ///
    /// # Errors
    /// The wrapped failure.
    fn or_error<M: Into<Cow<'static, str>>>(self, kind: ErrorKind, message: impl FnOnce() -> M) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> ResultExt<T> for std::result::Result<T, E> {
    fn or_error<M: Into<Cow<'static, str>>>(self, kind: ErrorKind, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|source| Error::new(kind, message().into()).with_source(source))
    }
}

/// Says "did you mean `x`?" when one of the known names is close to what was typed.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(typed, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len().max(typed.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_typos_and_leaves_strangers_alone() {
        let known = ["oci", "docker", "runtime-api", "image-builder"];
        assert_eq!(nearest("dokcer", known), Some("docker"));
        assert_eq!(nearest("runtimeapi", known), Some("runtime-api"));
        assert_eq!(nearest("kaniko", known), None);
    }

    #[test]
    fn display_leaves_the_cause_to_the_chain() {
        let error = Error::new(ErrorKind::LocalIo, "could not write `x`")
            .with_source(std::io::Error::other("disk full"));
        assert_eq!(error.to_string(), "could not write `x`");
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("disk full"));
    }

    #[test]
    fn the_hints_of_a_cause_are_not_lost() {
        let cause = Error::new(ErrorKind::InvalidInput, "inner").with_hint("do this").with_hint("do that");
        let error = Error::new(ErrorKind::InvalidDockerfile, "outer").with_hint("do that").with_source(cause);
        assert_eq!(error.hints(), ["do that", "do this"]);
    }
}

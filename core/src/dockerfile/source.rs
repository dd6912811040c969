//! The text of a Dockerfile by lines, and the errors that point into it.

use std::path::{Path, PathBuf};

use super::redact::without_credentials;
use crate::Result;
use crate::error::{Error, ErrorKind, SourceLine};

/// The lines that an instruction spans, from 1, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The first line.
    pub first_line: usize,
    /// The last line, heredocs included.
    pub last_line: usize,
}

impl Location {
    /// One line.
    pub fn line(line: usize) -> Self {
        Self { first_line: line, last_line: line }
    }
}

/// The text of a Dockerfile, kept for messages.
#[derive(Clone, Debug)]
pub struct Source {
    shown: PathBuf,
    lines: Vec<String>,
    ends: Vec<&'static str>,
}

impl Source {
    /// Takes the text; a byte order mark at its start is dropped.
    ///
    /// # Errors
    /// `InvalidDockerfile` if it is not UTF-8.
    pub(super) fn new(shown: &Path, content: &[u8]) -> Result<Self> {
        let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        let mut source = Self { shown: shown.to_owned(), lines: Vec::new(), ends: Vec::new() };
        for line in content.split_inclusive(|byte| *byte == b'\n') {
            let (line, end) = match line {
                [line @ .., b'\r', b'\n'] => (line, "\r\n"),
                [line @ .., b'\n'] => (line, "\n"),
                line => (line, ""),
            };
            match std::str::from_utf8(line) {
                Ok(text) => source.lines.push(text.to_owned()),
                Err(cause) => {
                    source.lines.push(String::from_utf8_lossy(line).into_owned());
                    let location = Location::line(source.lines.len());
                    return Err(source.error(location, "the Dockerfile is not UTF-8").with_source(cause));
                }
            }
            source.ends.push(end);
        }
        Ok(source)
    }

    /// How the user names the file.
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// The lines, without their ends.
    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The end of a line (from 0): `\n`, `\r\n`, or nothing at the end of the file.
    pub(super) fn line_end(&self, index: usize) -> &'static str {
        self.ends.get(index).copied().unwrap_or_default()
    }

    /// The first line of a location, for [`Error::with_source_line`]; names and passwords of addresses in
    /// it are hidden.
    pub fn line(&self, location: Location) -> SourceLine {
        let line = self.lines.get(location.first_line.saturating_sub(1));
        let text = line.map(|line| without_credentials(line)).unwrap_or_default();
        SourceLine { file: self.shown.clone(), line: location.first_line, text }
    }

    /// Makes an `InvalidDockerfile` error that points at a location.
    pub fn error(&self, location: Location, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidDockerfile, message).with_source_line(self.line(location))
    }
}

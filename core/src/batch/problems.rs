//! Everything that is wrong with a list, told at once: who wrote three hundred images has more than one slip.

use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// More than these are counted, not shown.
const SHOWN: usize = 20;

/// What is wrong with one file.
#[derive(Debug)]
pub(super) struct Problems {
    file: PathBuf,
    found: Vec<(usize, String)>,
}

impl Problems {
    /// Nothing is wrong yet. `file` is how messages name it.
    pub(super) fn of(file: &Path) -> Self {
        Self { file: file.to_owned(), found: Vec::new() }
    }

    /// How messages name the file.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Adds one, at a line from 1; said twice it counts once.
    pub(super) fn add(&mut self, line: usize, text: impl Into<String>) {
        let problem = (line, text.into());
        if !self.found.contains(&problem) {
            self.found.push(problem);
        }
    }

    /// Adds an error: its message, causes, line and first hint.
    pub(super) fn add_error(&mut self, line: usize, error: &Error) {
        self.add(line, in_one_line(error));
    }

    /// Whether nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Fails with all of them.
    ///
    /// # Errors
    /// `InvalidInput`, where something was found.
    pub(super) fn finish(mut self) -> Result<()> {
        if self.found.is_empty() {
            return Ok(());
        }
        self.found.sort();
        let (file, count) = (self.file.display(), self.found.len());
        let message = match count {
            1 => format!("`{file}` has an error: nothing was started"),
            _ => format!("`{file}` has {count} errors: nothing was started"),
        };
        let mut lines: Vec<String> =
            self.found.iter().take(SHOWN).map(|(line, text)| format!("{file}:{line}: {text}")).collect();
        if count > SHOWN {
            lines.push(format!("and {} more", count - SHOWN));
        }
        Err(Error::new(ErrorKind::InvalidInput, message).with_detail("errors", lines.join("\n")))
    }
}

/// An error with its causes, its line and its first hint.
pub(super) fn in_one_line(error: &Error) -> String {
    let mut text = error.message().to_owned();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let words = cause.to_string();
        let words = words.trim().trim_end_matches('.');
        if !words.is_empty() && !text.contains(words) {
            text += &format!(": {}", words.replace('\n', " "));
        }
        next = cause.source();
    }
    if let Some(line) = error.source_line() {
        text += &format!(" ({}:{}: `{}`)", line.file.display(), line.line, line.text.trim());
    }
    if let Some(hint) = error.hints().first() {
        text += &format!("; {hint}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_told_in_order_and_once() {
        let mut problems = Problems::of(Path::new("l.toml"));
        problems.add(9, "b");
        problems.add(2, "a");
        problems.add(9, "b");
        let error = problems.finish().expect_err("two");
        assert_eq!(error.message(), "`l.toml` has 2 errors: nothing was started");
        assert_eq!(error.details(), [("errors", "l.toml:2: a\nl.toml:9: b".to_owned())]);
        Problems::of(Path::new("l.toml")).finish().expect("nothing is wrong");
        let mut many = Problems::of(Path::new("l"));
        (0..30).for_each(|line| many.add(line, "x"));
        assert!(many.finish().expect_err("many").details()[0].1.ends_with("\nand 10 more"));
    }
}

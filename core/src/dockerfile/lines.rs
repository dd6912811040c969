//! From the text of a Dockerfile to its logical lines: directives, comments, continuations, heredocs.
//!
//! The rules are those of BuildKit's `frontend/dockerfile/parser`.

use super::heredoc::{self, Heredoc};
use super::{Location, Source};
use crate::Result;

/// One instruction as it stands in the file, continuation lines joined.
#[derive(Clone, Debug)]
pub(super) struct LogicalLine {
    /// The text, with continuation characters, comments and empty lines taken out.
    pub(super) text: String,
    /// The lines it spans, heredocs included.
    pub(super) location: Location,
    /// The heredocs that follow it, in order.
    pub(super) heredocs: Vec<Heredoc>,
}

/// What stands before the first instruction.
#[derive(Clone, Debug)]
pub(super) struct Directives {
    /// `# syntax=`: the image of another frontend.
    pub(super) syntax: Option<String>,
    /// `# check=`: options of BuildKit's linter.
    pub(super) check: Option<String>,
    /// `# escape=`, a backslash unless set.
    pub(super) escape: char,
}

/// Reads the directives at the top: `# key=value` lines before anything else.
pub(super) fn directives(source: &Source) -> Result<Directives> {
    let mut found = Directives { syntax: None, check: None, escape: '\\' };
    let mut seen_escape = false;
    for (index, line) in source.lines().iter().enumerate() {
        let Some((key, value)) = directive(line.trim()) else { break };
        let location = Location::line(index + 1);
        let twice = match key.as_str() {
            "syntax" => found.syntax.replace(value.to_owned()).is_some(),
            "check" => found.check.replace(value.to_owned()).is_some(),
            "escape" => {
                found.escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    other => {
                        let message = format!("invalid escape character `{other}`");
                        return Err(source
                            .error(location, message)
                            .with_hint("it is a backslash or a backtick"));
                    }
                };
                std::mem::replace(&mut seen_escape, true)
            }
            _ => break,
        };
        if twice {
            return Err(source.error(location, format!("the directive `{key}` is given twice")));
        }
    }
    Ok(found)
}

/// `# key = value`; the key in lower case.
fn directive(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.strip_prefix('#')?.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let valid = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric())
        && !value.is_empty();
    valid.then(|| (key.to_ascii_lowercase(), value))
}

/// Splits the file into its logical lines. Also returns the lines at which an empty line stands
/// within a continuation, which BuildKit warns about.
pub(super) fn split(source: &Source, escape: char) -> Result<(Vec<LogicalLine>, Vec<usize>)> {
    let lines = source.lines();
    let mut logical = Vec::new();
    let mut gaps = Vec::new();
    let mut next = 0;
    while next < lines.len() {
        let first = next;
        let line = lines[next].trim_start();
        next += 1;
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (text, mut more) = strip_continuation(line, escape);
        let mut text = text.to_owned();
        while more && next < lines.len() {
            let line = &lines[next];
            next += 1;
            match line.trim_start() {
                "" => gaps.push(next),
                comment if comment.starts_with('#') => {}
                _ => {
                    let (part, continues) = strip_continuation(line, escape);
                    text.push_str(part);
                    more = continues;
                }
            }
        }
        if text.trim().is_empty() {
            continue;
        }
        let head = Location { first_line: first + 1, last_line: next };
        let mut heredocs = heredoc::openings(&text);
        for heredoc in &mut heredocs {
            next = heredoc.read(source, head, next)?;
        }
        let location = Location { first_line: first + 1, last_line: next };
        logical.push(LogicalLine { text, location, heredocs });
    }
    Ok((logical, gaps))
}

/// Takes the continuation character off the end of a line, and says whether there was one. A
/// doubled one continues nothing.
fn strip_continuation(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest, true),
        _ => (line, false),
    }
}

//! Heredocs: `<<EOF`, `<<-EOF`, `<<"EOF"`, and the lines up to the one that closes them.

use super::expand::Expander;
use super::{Location, Source};
use crate::Result;

/// One heredoc of an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that closes it; `COPY` also takes it for the file name.
    pub name: String,
    /// Variables in it are expanded: the word was not quoted.
    pub expand: bool,
    /// Leading tabs are taken off its lines: `<<-`.
    pub chomp: bool,
    /// The lines between, each with its line end, before expansion and chomping.
    pub content: String,
}

impl Heredoc {
    /// Reads a word such as `<<EOF`, `3<<-"EOF"`; `None` if it opens no heredoc.
    pub(super) fn opening(word: &str) -> Option<Self> {
        let word = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
        let (chomp, rest) = match word.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, word),
        };
        let rest = rest.trim_start();
        if rest.is_empty() || rest.contains('<') {
            return None;
        }
        let nothing = |_: &str| None;
        let plain = Expander::new('\\').keep_unset().words(rest, &nothing).ok()?;
        let [name] = &plain[..] else { return None };
        let quotes = |text: &str| text.matches(['"', '\'']).count();
        Some(Self { name: name.clone(), expand: quotes(name) == quotes(rest), chomp, content: String::new() })
    }

    /// Reads the content from line `next` (from 0) on, and returns the line after the closing one.
    pub(super) fn read(&mut self, source: &Source, head: Location, next: usize) -> Result<usize> {
        for (index, line) in source.lines().iter().enumerate().skip(next) {
            let candidate = if self.chomp { line.trim_start_matches('\t') } else { line };
            if candidate == self.name {
                return Ok(index + 1);
            }
            self.content.push_str(line);
            self.content.push_str(source.line_end(index));
        }
        Err(source
            .error(head, format!("the heredoc `{}` is not closed", self.name))
            .with_hint(format!("close it with a line that is exactly `{}`", self.name)))
    }

    /// The content as it is used: without leading tabs if it was opened with `<<-`.
    pub fn chomped(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// Finds the heredocs that an instruction opens. Only COPY, ADD and RUN can, also behind ONBUILD,
/// and not in their JSON form.
pub(super) fn openings(text: &str) -> Vec<Heredoc> {
    let mut rest = text.trim_start();
    let mut word = first_word(rest);
    if word.eq_ignore_ascii_case("onbuild") {
        rest = rest[word.len()..].trim_start();
        word = first_word(rest);
    }
    let able = ["copy", "add", "run"].iter().any(|name| word.eq_ignore_ascii_case(name));
    let arguments = rest[word.len()..].trim_start();
    if !able || !arguments.contains("<<") || super::words::json_array(arguments).is_ok() {
        return Vec::new();
    }
    let nothing = |_: &str| None;
    let lexer = Expander::new('\\').keep_unset().keep_quotes().keep_escapes().join_heredocs();
    // Where our words do not fit, a shell may still know what to do: then there is no heredoc.
    let words = lexer.words(arguments, &nothing).unwrap_or_default();
    words.iter().filter_map(|word| Heredoc::opening(word)).collect()
}

fn first_word(text: &str) -> &str {
    text.split(char::is_whitespace).next().unwrap_or_default()
}

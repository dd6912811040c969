//! Rules in the manner of git, as `pathspec` for Python understands them.
//!
//! They differ from docker's: a pattern without `/` in its middle holds at any depth, one with `/` at its end
//! holds for directories alone, and the last rule that matches decides, whatever stood before it.

use std::path::Path;

use super::IgnoreRules;
use super::dockerignore::{Rule, invalid_pattern};
use super::pattern::Pattern;
use crate::error::Result;

impl IgnoreRules {
    /// Reads lines in the syntax of `.gitignore`; `file` is their name for messages.
    ///
    /// # Errors
    /// `InvalidInput` for a malformed pattern, with the line.
    pub fn parse_git(lines: &str, file: &Path) -> Result<Self> {
        let mut rules = Vec::new();
        for (index, line) in lines.lines().enumerate() {
            if let Some(rule) = rule(line, index + 1) {
                let why = |why| invalid_pattern(file, index + 1, line.as_bytes(), why);
                rules.push(rule.map_err(why)?);
            }
        }
        Ok(Self { file: file.to_owned(), rules, as_git: true })
    }

    /// The rules as they were written, for messages.
    pub(crate) fn shown(&self) -> Vec<String> {
        self.rules.iter().map(|rule| format!("`{}`", rule.text)).collect()
    }
}

/// `None` for a line that says nothing.
fn rule(line: &str, number: usize) -> Option<std::result::Result<Rule, &'static str>> {
    let text = line.trim();
    if text.is_empty() || text.starts_with('#') {
        return None;
    }
    let (negated, pattern) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
    let (only_directories, pattern) = pattern.strip_suffix('/').map_or((false, pattern), |rest| (true, rest));
    if pattern.is_empty() {
        return None;
    }
    let anywhere = if pattern.contains('/') { "" } else { "**/" };
    let pattern = pattern.strip_prefix('/').unwrap_or(pattern);
    // Docker's sets are Go's.
    let pattern = format!("{anywhere}{}", pattern.replace("[!", "[^"));
    let compiled = Pattern::compile(pattern.as_bytes());
    let text = text.to_owned();
    Some(compiled.map(|pattern| Rule { pattern, negated, only_directories, line: number, text }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::ContextPath;

    #[test]
    fn patterns_are_those_of_git() {
        for (lines, path, excluded) in [
            (".*/", ".git/config", true),
            (".*/", "a/.hid/b/c", true),
            (".*/", ".env", false),
            (".*/", "a/.env", false),
            ("__pycache__/", "a/__pycache__/x", true),
            ("__pycache__/", "__pycache__", false),
            ("*.pyc", "a/x.pyc", true),
            ("*.pyc", "d.pyc/in.txt", true),
            ("*.pyc", ".pyc", true),
            ("*.pyc", "x.pyc.txt", false),
            ("a/b", "a/b/c", true),
            ("a/b", "x/a/b", false),
            ("/a", "a", true),
            ("/a", "x/a", false),
            ("a/**/z", "a/b/c/z", true),
            ("[!a].txt", "b.txt", true),
            ("[!a].txt", "a.txt", false),
            ("*.pyc\n!keep.pyc", "a/keep.pyc", false),
            ("*.pyc\n!d", "d/x.pyc", false),
            ("!d\n*.pyc", "d/x.pyc", true),
            ("# a\n\n", "a", false),
        ] {
            let rules = IgnoreRules::parse_git(lines, Path::new("patterns")).expect(lines);
            assert_eq!(rules.excluded(&ContextPath::from_clean(path)), excluded, "{lines:?}: {path}");
        }
    }

    #[test]
    fn a_malformed_pattern_is_refused_with_its_line() {
        let error = IgnoreRules::parse_git("a\n[", Path::new("recipe.toml")).expect_err("malformed");
        assert_eq!(error.source_line().map(|line| line.line), Some(2));
    }
}

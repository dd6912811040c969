//! The rules of an ignore file, exactly as docker reads and applies them.
//!
//! Sources: github.com/moby/patternmatcher, `ignorefile.ReadAll` for the lines and
//! `MatchesUsingParentResults` for the order of the rules; tonistiigi/fsutil `filter.go` for
//! directories that are excluded while something inside is not.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::ContextPath;
use super::pattern::Pattern;
use crate::error::{Error, ErrorKind, Result, SourceLine};

/// The rules of one ignore file.
#[derive(Clone, Debug, Default)]
pub struct IgnoreRules {
    pub(super) file: PathBuf,
    pub(super) rules: Vec<Rule>,
    /// Git does not know docker's rules that are not looked at.
    pub(super) as_git: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) pattern: Pattern,
    /// It re-includes.
    pub(super) negated: bool,
    /// It is not about files but through the directories above them.
    pub(super) only_directories: bool,
    pub(super) line: usize,
    pub(super) text: String,
}

/// Which line decided about a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The ignore file, as the user would name it.
    pub file: PathBuf,
    /// Line number, from 1.
    pub line: usize,
    /// The line, without white space at its ends.
    pub pattern: String,
    /// The path is excluded; otherwise the line re-included it.
    pub excluded: bool,
}

/// How a directory came out against each rule. What lies in the directory inherits it.
#[derive(Clone, Debug, Default)]
pub(super) struct MatchState(Vec<bool>);

impl IgnoreRules {
    /// Reads the content of an ignore file; `file` is its name for messages.
    ///
    /// # Errors
    /// `InvalidInput` for a pattern that docker refuses, with the line.
    pub fn parse(content: &[u8], file: &Path) -> Result<Self> {
        let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        let mut rules = Vec::new();
        for (index, line) in content.split(|b| *b == b'\n').enumerate() {
            if line.starts_with(b"#") || trim(line).is_empty() {
                continue;
            }
            let text = String::from_utf8_lossy(trim(line)).into_owned();
            let rule = Rule::parse(trim(line), index + 1, text);
            rules.push(rule.map_err(|why| invalid_pattern(file, index + 1, line, why))?);
        }
        Ok(Self { file: file.to_owned(), rules, as_git: false })
    }

    /// The ignore file as the user would name it; empty if there is none.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Says whether there are no rules at all.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Says whether a path is excluded, by itself or through a directory above it.
    pub fn excluded(&self, path: &ContextPath) -> bool {
        self.decide(path).is_some_and(|rule| !rule.negated)
    }

    /// Which line decided about a path; `None` if no rule speaks about it, so that it is sent.
    pub fn decision(&self, path: &ContextPath) -> Option<Decision> {
        self.decide(path).map(|rule| Decision {
            file: self.file.clone(),
            line: rule.line,
            pattern: rule.text.clone(),
            excluded: !rule.negated,
        })
    }

    fn decide(&self, path: &ContextPath) -> Option<&Rule> {
        Cursor::new(self).decide(path)
    }

    /// Says whether an entry is excluded that lies in a directory with this state.
    pub(super) fn excludes(&self, path: &[u8], parent: &MatchState) -> bool {
        self.apply(path, false, parent, |_, _| {}).is_some_and(|rule| !rule.negated)
    }

    /// The same for a directory, with the state that its entries inherit.
    pub(super) fn enter(&self, path: &[u8], parent: &MatchState) -> (bool, MatchState) {
        let mut state = MatchState(vec![false; self.rules.len()]);
        let rule = self.apply(path, true, parent, |index, matched| state.0[index] = matched);
        (rule.is_some_and(|rule| !rule.negated), state)
    }

    /// Says whether something below an excluded directory might be re-included.
    pub(super) fn may_reinclude_below(&self, directory: &[u8]) -> bool {
        self.rules.iter().any(|rule| rule.negated && rule.pattern.may_match_below(directory))
    }

    /// Applies the rules in order; the last that matches decides.
    ///
    /// A rule that cannot change the outcome is not looked at, and then counts as not matched for
    /// what lies below: with `a/b` before `!a`, `a/b` stays excluded. Docker does it so.
    fn apply(
        &self,
        path: &[u8],
        is_directory: bool,
        parent: &MatchState,
        mut record: impl FnMut(usize, bool),
    ) -> Option<&Rule> {
        let mut last = None;
        let mut excluded = false;
        for (index, rule) in self.rules.iter().enumerate() {
            let inherited = parent.0.get(index).copied().unwrap_or(false);
            if !inherited && rule.negated != excluded && !self.as_git {
                continue;
            }
            let matched =
                inherited || ((is_directory || !rule.only_directories) && rule.pattern.matches(path));
            record(index, matched);
            if matched {
                excluded = !rule.negated;
                last = Some(rule);
            }
        }
        last
    }
}

/// Applies rules to many paths; those of one directory in a row share the work for it.
#[derive(Debug)]
pub(super) struct Cursor<'r> {
    rules: &'r IgnoreRules,
    /// The directories above the last path, outermost first.
    above: Vec<(Vec<u8>, MatchState)>,
}

impl<'r> Cursor<'r> {
    pub(super) fn new(rules: &'r IgnoreRules) -> Self {
        Self { rules, above: Vec::new() }
    }

    /// Says whether a path is excluded.
    pub(super) fn excluded(&mut self, path: &ContextPath) -> bool {
        self.decide(path).is_some_and(|rule| !rule.negated)
    }

    fn decide(&mut self, path: &ContextPath) -> Option<&'r Rule> {
        let bytes = path.as_bytes();
        let is_above =
            |directory: &[u8]| bytes.starts_with(directory) && bytes.get(directory.len()) == Some(&b'/');
        while self.above.pop_if(|(directory, _)| !is_above(directory)).is_some() {}
        let known = self.above.last().map_or(0, |(directory, _)| directory.len() + 1);
        let top = MatchState::default();
        for end in (known..bytes.len()).filter(|at| bytes[*at] == b'/') {
            let directory = &bytes[..end];
            let (_, state) = self.rules.enter(directory, self.above.last().map_or(&top, |(_, state)| state));
            self.above.push((directory.to_vec(), state));
        }
        self.rules.apply(bytes, false, self.above.last().map_or(&top, |(_, state)| state), |_, _| {})
    }
}

const ALONE: &str = "`!` alone re-includes nothing";

impl Rule {
    fn parse(line: &[u8], number: usize, text: String) -> std::result::Result<Self, &'static str> {
        let (negated, pattern) = match line.strip_prefix(b"!") {
            Some(rest) => (true, trim(rest)),
            None => (false, line),
        };
        if pattern.is_empty() {
            return Err(ALONE);
        }
        let cleaned = clean(pattern);
        let mut relative = match cleaned.strip_prefix(b"/") {
            Some(rest) if !rest.is_empty() => rest.to_vec(),
            _ => cleaned,
        };
        if negated && relative == b"/" {
            return Err(ALONE);
        }
        // Moby then looks at the result as if it were a line of its own: `/!a` negates.
        let mut negated = negated;
        if !negated {
            relative = clean(trim(&relative));
            if let Some(rest) = relative.strip_prefix(b"!") {
                negated = true;
                relative = rest.to_vec();
            }
        }
        if relative.is_empty() {
            return Err(ALONE);
        }
        let pattern = Pattern::compile(&relative)?;
        Ok(Self { pattern, negated, only_directories: false, line: number, text })
    }
}

/// Go's `strings.TrimSpace`.
fn trim(line: &[u8]) -> &[u8] {
    match str::from_utf8(line) {
        Ok(text) => text.trim().as_bytes(),
        Err(_) => line.trim_ascii(),
    }
}

/// Go's `path.Clean`, for a path that is not empty.
fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.starts_with(b"/");
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => drop(parts.pop()),
            b".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join(&b'/');
    match (rooted, joined.is_empty()) {
        (true, _) => [b"/", joined.as_slice()].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}

pub(super) fn invalid_pattern(file: &Path, line: usize, text: &[u8], why: &'static str) -> Error {
    let text = String::from_utf8_lossy(text).trim_end_matches('\r').to_owned();
    Error::new(ErrorKind::InvalidInput, format!("invalid pattern in `{}`", file.display()))
        .with_source(why)
        .with_source_line(SourceLine { file: file.to_owned(), line, text })
        .with_hint("write `\\` before a character that stands for itself")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(lines: &str) -> IgnoreRules {
        IgnoreRules::parse(lines.as_bytes(), Path::new(".dockerignore")).expect(lines)
    }

    fn excluded(lines: &str, path: &str) -> bool {
        rules(lines).excluded(&ContextPath::from_clean(path))
    }

    const TREE: &[&str] = &[
        "Dockerfile",
        "a.log",
        "sub/a.log",
        "sub/deep/a.log",
        ".dockerignore",
        "node_modules/x.js",
        "sub/node_modules/x.js",
        "build/out.txt",
        "sub/build/out.txt",
        "README.md",
        "docs/README.md",
        "keep/me.txt",
        "temp1",
        "sub/temp1",
        "a/b/c.txt",
    ];

    #[test]
    fn excludes_what_docker_excludes() {
        let all_but_keep: Vec<&str> = TREE.iter().copied().filter(|path| *path != "keep/me.txt").collect();
        for (lines, expected) in [
            ("*.log", vec!["a.log"]),
            ("node_modules", vec!["node_modules/x.js"]),
            ("build/", vec!["build/out.txt"]),
            ("/build", vec!["build/out.txt"]),
            ("*.md\n!README.md", vec![]),
            ("**/temp?", vec!["temp1", "sub/temp1"]),
            ("*\n!keep", all_but_keep),
            ("a/*/c.txt", vec!["a/b/c.txt"]),
            ("./build", vec!["build/out.txt"]),
            ("sub/../build", vec!["build/out.txt"]),
            ("docs//README.md", vec!["docs/README.md"]),
            ("**.md", vec!["README.md", "docs/README.md"]),
        ] {
            let found: Vec<&str> = TREE.iter().copied().filter(|path| excluded(lines, path)).collect();
            assert_eq!(found, expected, "{lines}");
        }
    }

    #[test]
    fn reads_lines_as_docker_does() {
        for (lines, path, expected) in [
            ("\u{feff}*.log", "a.log", true),
            ("*.log\r\n# x\r\n", "a.log", true),
            (" # no comment\n", "# no comment", true),
            ("#*.log", "a.log", false),
            ("   *.log \t", "a.log", true),
            ("! *.log", "a.log", false),
            ("a.log\n!  a.log", "a.log", false),
            ("a.log\n!/a.log", "a.log", false),
            ("a.log\n!./a.log", "a.log", false),
            ("//a.log", "a.log", true),
            ("/!a.log", "a.log", false),
            ("/", "a.log", false),
            (".", "a.log", false),
            ("../a.log", "a.log", false),
            ("\\!a.log", "!a.log", true),
            ("\\#a.log", "#a.log", true),
            ("a\\ b", "a b", true),
        ] {
            assert_eq!(excluded(lines, path), expected, "{lines:?} {path}");
        }
    }

    /// From moby's `TestMatches`: several patterns, in order.
    #[test]
    fn the_last_match_wins_and_parents_count() {
        for (lines, path, expected) in [
            ("**\n!util/docker/web", "util/docker/web/foo", false),
            ("**\n!util/docker/web\nutil/docker/web/foo", "util/docker/web/foo", true),
            (
                "**\n!dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
                "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
                false,
            ),
            ("**\n!dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", false),
            ("!a\na", "a", true),
            ("a\n!a\na", "a", true),
            ("docs\n!docs/README.md", "docs/README.md", false),
            ("docs\n!docs/README.md", "docs/x", true),
            ("docs/x\n!docs", "docs/y", false),
        ] {
            assert_eq!(excluded(lines, path), expected, "{lines:?} {path}");
        }
    }

    /// A rule that could not change how the directory came out is not inherited by its entries.
    #[test]
    fn rules_without_effect_on_a_directory_are_not_inherited() {
        assert!(excluded("a/b\n!a", "a/b/c"));
        assert!(!excluded("a\n!a/b\na", "a/b"));
    }

    #[test]
    fn names_the_line_that_decided() {
        let rules = rules("# all\n*\n\n  !src \n");
        let decision = |path: &str| rules.decision(&ContextPath::from_clean(path));
        let (out, back) = (decision("x").expect("decided"), decision("src/main.rs").expect("decided"));
        assert_eq!((out.line, out.pattern.as_str(), out.excluded), (2, "*", true));
        assert_eq!((back.line, back.pattern.as_str(), back.excluded), (4, "!src", false));
        assert_eq!(IgnoreRules::default().decision(&ContextPath::from_clean("x")), None);
    }

    #[test]
    fn shows_the_line_that_is_wrong() {
        for (lines, line, text) in [
            ("a\n[x\r\nb", 2, "[x"),
            ("!", 1, "!"),
            ("a\n!  \n", 2, "!  "),
            ("a\\", 1, "a\\"),
            ("!/", 1, "!/"),
        ] {
            let error = IgnoreRules::parse(lines.as_bytes(), Path::new("x.dockerignore")).expect_err(lines);
            let shown = error.source_line().expect("has a line");
            assert_eq!((shown.line, shown.text.as_str()), (line, text), "{lines:?}");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }
}

//! Expansion of variables, quotes and escapes, as BuildKit's `frontend/dockerfile/shell` does it.

use std::fmt;

/// Where the values of variables come from.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why a word cannot be expanded, in a few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpandError(pub(super) String);

impl fmt::Display for ExpandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ExpandError {}

pub(super) type Expanded<T> = Result<T, ExpandError>;

pub(super) fn fail<T>(why: impl Into<String>) -> Expanded<T> {
    Err(ExpandError(why.into()))
}

/// Expands words; the switches say what it leaves as it is.
#[derive(Clone, Copy, Debug)]
pub struct Expander {
    escape: char,
    keep_quotes: bool,
    keep_escapes: bool,
    ignore_quotes: bool,
    pub(super) keep_unset: bool,
    join_heredocs: bool,
}

impl Expander {
    /// Makes one that expands everything, with the escape character of the Dockerfile.
    pub fn new(escape: char) -> Self {
        Self {
            escape,
            keep_quotes: false,
            keep_escapes: false,
            ignore_quotes: false,
            keep_unset: false,
            join_heredocs: false,
        }
    }

    /// Makes the one for heredocs: quotes are ordinary characters there, and the escape character
    /// is always the backslash.
    pub fn for_heredocs() -> Self {
        Self { ignore_quotes: true, ..Self::new('\\') }
    }

    pub(super) fn keep_quotes(self) -> Self {
        Self { keep_quotes: true, ..self }
    }

    pub(super) fn keep_escapes(self) -> Self {
        Self { keep_escapes: true, ..self }
    }

    pub(super) fn keep_unset(self) -> Self {
        Self { keep_unset: true, ..self }
    }

    /// Takes `<< word` for one word.
    pub(super) fn join_heredocs(self) -> Self {
        Self { join_heredocs: true, ..self }
    }

    /// Expands a text to one word; blanks stay as they are.
    ///
    /// # Errors
    /// An unclosed quote or brace, an unknown form of `${}`, or a variable that `:?` demands.
    pub fn word(&self, text: &str, lookup: Lookup<'_>) -> Expanded<String> {
        Ok(self.run(text, lookup)?.0)
    }

    /// Expands a text to several words, split at the blanks that are not quoted, also those that
    /// come out of variables.
    ///
    /// # Errors
    /// As [`Expander::word`].
    pub fn words(&self, text: &str, lookup: Lookup<'_>) -> Expanded<Vec<String>> {
        Ok(self.run(text, lookup)?.1)
    }

    fn run(&self, text: &str, lookup: Lookup<'_>) -> Expanded<(String, Vec<String>)> {
        let mut scanner = Scanner {
            rules: *self,
            keep_escapes: self.keep_escapes,
            characters: text.chars().collect(),
            at: 0,
            lookup,
        };
        scanner.until(None)
    }
}

/// Collects words while the whole is expanded.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
}

impl Words {
    fn add(&mut self, character: char) {
        if !character.is_whitespace() {
            self.current.push(character);
        } else if !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        self.done
    }
}

pub(super) struct Scanner<'a> {
    pub(super) rules: Expander,
    pub(super) keep_escapes: bool,
    pub(super) characters: Vec<char>,
    pub(super) at: usize,
    pub(super) lookup: Lookup<'a>,
}

impl Scanner<'_> {
    pub(super) fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let character = self.peek();
        self.at += usize::from(character.is_some());
        character
    }

    /// Expands up to `stop`, which is consumed, or to the end.
    pub(super) fn until(&mut self, stop: Option<char>) -> Expanded<(String, Vec<String>)> {
        let mut result = String::new();
        let mut words = Words::default();
        while let Some(character) = self.peek() {
            if Some(character) == stop {
                self.at += 1;
                return Ok((result, words.finish()));
            }
            match character {
                '$' => {
                    let value = self.dollar()?;
                    value.chars().for_each(|c| words.add(c));
                    result.push_str(&value);
                }
                '\'' | '"' if !self.rules.ignore_quotes => {
                    let value = if character == '"' { self.double_quote()? } else { self.single_quote()? };
                    words.current.push_str(&value);
                    result.push_str(&value);
                }
                '<' if self.rules.join_heredocs => {
                    let value = self.heredoc_opening();
                    words.current.push_str(&value);
                    result.push_str(&value);
                }
                _ => {
                    self.at += 1;
                    if character != self.rules.escape {
                        words.add(character);
                        result.push(character);
                        continue;
                    }
                    if self.keep_escapes {
                        words.current.push(character);
                        result.push(character);
                    }
                    // An escape character at the very end disappears.
                    let Some(escaped) = self.next() else { break };
                    words.current.push(escaped);
                    result.push(escaped);
                }
            }
        }
        match stop {
            Some(stop) => fail(format!("`{stop}` is missing at the end")),
            None => Ok((result, words.finish())),
        }
    }

    fn single_quote(&mut self) -> Expanded<String> {
        let mut result = String::new();
        let quote = self.next();
        result.extend(quote.filter(|_| self.rules.keep_quotes));
        loop {
            match self.next() {
                None => return fail("a single quote is not closed"),
                Some('\'') => {
                    result.extend(quote.filter(|_| self.rules.keep_quotes));
                    return Ok(result);
                }
                Some(character) => result.push(character),
            }
        }
    }

    fn double_quote(&mut self) -> Expanded<String> {
        let mut result = String::new();
        let quote = self.next();
        result.extend(quote.filter(|_| self.rules.keep_quotes));
        loop {
            match self.peek() {
                None => return fail("a double quote is not closed"),
                Some('"') => {
                    self.at += 1;
                    result.extend(quote.filter(|_| self.rules.keep_quotes));
                    return Ok(result);
                }
                Some('$') => result.push_str(&self.dollar()?),
                Some(character) => {
                    self.at += 1;
                    if character != self.rules.escape {
                        result.push(character);
                        continue;
                    }
                    if self.keep_escapes {
                        result.push(character);
                    }
                    match self.peek() {
                        None => {}
                        Some(next) if next == '"' || next == '$' || next == self.rules.escape => {
                            self.at += 1;
                            result.push(next);
                        }
                        Some(_) => result.push(character),
                    }
                }
            }
        }
    }

    /// `<<`, `<<-`, and the blanks before the word that follows.
    fn heredoc_opening(&mut self) -> String {
        self.at += 1;
        if self.peek() != Some('<') {
            return "<".to_owned();
        }
        self.at += 1;
        let mut opening = "<<".to_owned();
        if self.peek() == Some('-') {
            self.at += 1;
            opening.push('-');
        }
        let blanks = self.characters[self.at..].iter().take_while(|c| matches!(c, ' ' | '\t')).count();
        let starts_word = |c: &char| c.is_alphabetic() || matches!(c, '_' | '"' | '\'');
        if self.characters.get(self.at + blanks).is_some_and(starts_word) {
            self.at += blanks;
        }
        opening
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        let value = match name {
            "a" => "one",
            "b" => "two words",
            "empty" => "",
            "path" => "foo/bar/baz.tar.gz",
            "star" => "a*b",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn expands_every_form_of_buildkit() {
        for (text, expected) in [
            ("$a-${a}_x", "one-one_x"),
            ("$axe", ""),
            ("\\$a", "$a"),
            ("'$a'", "$a"),
            ("\"$a b\"", "one b"),
            ("\"\\$a\\\"\\x\"", "$a\"\\x"),
            ("a\\", "a"),
            ("a $ b", "a $ b"),
            ("${none:-x}", "x"),
            ("${empty:-x}", "x"),
            ("${empty-x}", ""),
            ("${none-$a}", "one"),
            ("${none:-${a:+y}}", "y"),
            ("${a:+y}", "y"),
            ("${empty:+y}", ""),
            ("${empty+y}", "y"),
            ("${a:?no}", "one"),
            ("${empty?no}", ""),
            ("${path#*/}", "bar/baz.tar.gz"),
            ("${path##*/}", "baz.tar.gz"),
            ("${path%.*}", "foo/bar/baz.tar"),
            ("${path%%.*}", "foo/bar/baz"),
            ("${path%x}", "foo/bar/baz.tar.gz"),
            ("${path/o/0}", "f0o/bar/baz.tar.gz"),
            ("${path//o/0}", "f00/bar/baz.tar.gz"),
            ("${path//ba?/X}", "foo/X/X.tar.gz"),
            ("${path/\\//-}", "foo-bar/baz.tar.gz"),
            ("${star/\\*/+}", "a+b"),
            ("${none/a/b}", ""),
        ] {
            assert_eq!(Expander::new('\\').word(text, &lookup).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_buildkit_does() {
        for text in
            ["'a", "\"a", "${a", "${}", "${:-x}", "${a!b}", "${none:?}", "${empty:?}", "${none?}", "${a/b"]
        {
            assert!(Expander::new('\\').word(text, &lookup).is_err(), "{text}");
        }
        let error = Expander::new('\\').word("${none:?must be given}", &lookup).expect_err("unset");
        assert_eq!(error.to_string(), "none: must be given");
    }

    #[test]
    fn splits_after_expansion_but_not_in_quotes() {
        let words = |text| Expander::new('\\').words(text, &lookup).expect(text);
        assert_eq!(words("$a $b \"$b\" x\\ y"), ["one", "two", "words", "two words", "x y"]);
    }

    #[test]
    fn the_escape_character_can_be_a_backtick() {
        let expander = Expander::new('`');
        assert_eq!(expander.word("c:\\x\\`$a", &lookup).as_deref(), Ok("c:\\x\\$a"));
    }

    #[test]
    fn heredocs_keep_their_quotes() {
        let expander = Expander::for_heredocs();
        assert_eq!(expander.word("\"$a\" 'x' \\$ \\\\\n", &lookup).as_deref(), Ok("\"one\" 'x' $ \\\n"));
    }
}

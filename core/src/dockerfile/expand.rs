//! Expansion of variables, quotes and escapes, as BuildKit's `frontend/dockerfile/shell` does it.

use std::fmt;

use super::pattern::Pattern;

/// Where the values of variables come from.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why a word cannot be expanded, in a few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpandError(String);

impl fmt::Display for ExpandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ExpandError {}

type Expanded<T> = Result<T, ExpandError>;

fn fail<T>(why: impl Into<String>) -> Expanded<T> {
    Err(ExpandError(why.into()))
}

/// Expands words; the switches say what it leaves as it is.
#[derive(Clone, Copy, Debug)]
pub struct Expander {
    escape: char,
    keep_quotes: bool,
    keep_escapes: bool,
    ignore_quotes: bool,
    keep_unset: bool,
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

struct Scanner<'a> {
    rules: Expander,
    keep_escapes: bool,
    characters: Vec<char>,
    at: usize,
    lookup: Lookup<'a>,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek();
        self.at += usize::from(character.is_some());
        character
    }

    /// Expands up to `stop`, which is consumed, or to the end.
    fn until(&mut self, stop: Option<char>) -> Expanded<(String, Vec<String>)> {
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

    fn dollar(&mut self) -> Expanded<String> {
        self.at += 1;
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            let value = (self.lookup)(&name);
            let unset = if self.rules.keep_unset { format!("${name}") } else { String::new() };
            return Ok(value.unwrap_or(unset));
        }
        self.at += 1;
        match self.peek() {
            None => return fail("`}` is missing"),
            Some('{' | '}' | ':') => return fail("bad substitution"),
            Some(_) => {}
        }
        let start = self.at;
        let name = self.name();
        let value = (self.lookup)(&name);
        let result = self.braces(&name, value.clone())?;
        if self.rules.keep_unset && value.is_none() {
            let inside: String = self.characters[start..self.at].iter().collect();
            return Ok(format!("${{{inside}"));
        }
        Ok(result)
    }

    /// What follows the name in `${name…}`, up to the brace.
    fn braces(&mut self, name: &str, value: Option<String>) -> Expanded<String> {
        let mut operator = self.next();
        let empty_is_unset = operator == Some(':');
        if empty_is_unset {
            operator = self.next();
        }
        match operator {
            Some('}') if !empty_is_unset => Ok(value.unwrap_or_default()),
            Some('/') if !empty_is_unset => self.replace(value.unwrap_or_default()),
            Some('-') => {
                let word = self.inner('}', false)?;
                Ok(value.filter(|v| !(empty_is_unset && v.is_empty())).unwrap_or(word))
            }
            Some('+') => {
                let word = self.inner('}', false)?;
                let set = value.is_some_and(|v| !(empty_is_unset && v.is_empty()));
                Ok(if set { word } else { String::new() })
            }
            Some('?') => {
                let word = self.inner('}', false)?;
                let why = |default: &str| if word.is_empty() { default.to_owned() } else { word.clone() };
                match value {
                    None if self.rules.keep_unset => Ok(String::new()),
                    None => fail(format!("{name}: {}", why("is not allowed to be unset"))),
                    Some(value) if empty_is_unset && value.is_empty() => {
                        fail(format!("{name}: {}", why("is not allowed to be empty")))
                    }
                    Some(value) => Ok(value),
                }
            }
            Some(side @ ('#' | '%')) => {
                let word = self.inner('}', true)?;
                let (longest, pattern) = match word.strip_prefix(side) {
                    Some(rest) => (true, rest),
                    None => (false, &word[..]),
                };
                let pattern = Pattern::parse(pattern).map_err(ExpandError)?;
                let value: Vec<char> = value.unwrap_or_default().chars().collect();
                let rest = if side == '#' {
                    &value[pattern.prefix_len(&value, longest).unwrap_or(0)..]
                } else {
                    &value[..value.len() - pattern.suffix_len(&value, longest).unwrap_or(0)]
                };
                Ok(rest.iter().collect())
            }
            None => fail("`}` is missing"),
            Some(other) => {
                let colon = if empty_is_unset { ":" } else { "" };
                fail(format!("unsupported modifier `{colon}{other}` in a substitution"))
            }
        }
    }

    /// `${name/pattern/replacement}` and `${name//pattern/replacement}`.
    fn replace(&mut self, value: String) -> Expanded<String> {
        let all = self.peek() == Some('/');
        self.at += usize::from(all);
        let pattern = Pattern::parse(&self.inner('/', true)?).map_err(ExpandError)?;
        let replacement = self.inner('}', true)?;
        let value: Vec<char> = value.chars().collect();
        let mut result = String::new();
        let mut at = 0;
        while at <= value.len() {
            match pattern.prefix_len(&value[at..], true) {
                Some(length) => {
                    result.push_str(&replacement);
                    at += length;
                    if !all {
                        break;
                    }
                    if length == 0 {
                        result.extend(value.get(at));
                        at += 1;
                    }
                }
                None => {
                    result.extend(value.get(at));
                    at += 1;
                }
            }
        }
        result.extend(value.get(at..).unwrap_or_default());
        Ok(result)
    }

    fn inner(&mut self, stop: char, keep_escapes: bool) -> Expanded<String> {
        let outer = std::mem::replace(&mut self.keep_escapes, keep_escapes);
        let result = self.until(Some(stop));
        self.keep_escapes = outer;
        Ok(result?.0)
    }

    /// A name after `$`: letters, digits and `_`; or digits alone; or one special parameter.
    fn name(&mut self) -> String {
        let Some(first) = self.peek() else { return String::new() };
        if matches!(first, '@' | '*' | '#' | '?' | '-' | '$' | '!') {
            self.at += 1;
            return first.to_string();
        }
        let digits = first.is_ascii_digit();
        let belongs = |c: char| if digits { c.is_ascii_digit() } else { c.is_alphanumeric() || c == '_' };
        let start = self.at;
        while self.peek().is_some_and(belongs) {
            self.at += 1;
        }
        self.characters[start..self.at].iter().collect()
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

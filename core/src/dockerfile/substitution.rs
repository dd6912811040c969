//! What follows a `$`: a name, or a form in braces.

use super::expand::{ExpandError, Expanded, Scanner, fail};
use super::pattern::Pattern;

impl Scanner<'_> {
    pub(super) fn dollar(&mut self) -> Expanded<String> {
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

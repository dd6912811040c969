//! How the arguments of an instruction are split: flags, words, JSON arrays, pairs.
//!
//! Quotes and escapes stay in the words; [`super::Expander`] takes them out. The rules are those of
//! BuildKit's `parser/line_parsers.go` and `split_command.go`.

/// The blanks that separate; the line end is none of them, it is gone already.
const BLANKS: [char; 5] = [' ', '\t', '\u{b}', '\u{c}', '\r'];

/// Splits off the name of an instruction; the rest is trimmed.
pub(super) fn split_name(text: &str) -> (&str, &str) {
    let text = text.trim();
    match text.find(BLANKS) {
        Some(end) => (&text[..end], text[end..].trim()),
        None => (text, ""),
    }
}

/// Splits the flags off the front: words that start with `--`, up to `--` alone. Quotes and
/// backslashes are taken out of them.
pub(super) fn split_flags(text: &str) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (flag, used) = flag_word(rest);
        rest = rest[used..].trim_start();
        if flag == "--" {
            break;
        }
        flags.push(flag);
    }
    (flags, rest.trim())
}

/// Reads one flag and returns it with the bytes it took.
fn flag_word(text: &str) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match (character, quote) {
            (blank, None) if blank.is_whitespace() => return (word, at),
            ('"' | '\'', None) => quote = Some(character),
            (_, Some(open)) if character == open => quote = None,
            ('\\', _) => word.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => word.push(character),
        }
    }
    (word, text.len())
}

/// Splits at blanks, without regard to quotes.
pub(super) fn plain(text: &str) -> Vec<String> {
    text.split(BLANKS).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Splits at blanks outside quotes; quotes and escapes stay.
pub(super) fn quoted(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == escape && quote != Some('\'') {
            // An escape character at the very end disappears.
            if let Some(escaped) = characters.next() {
                word.extend([character, escaped]);
            }
            continue;
        }
        match quote {
            None if character.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if matches!(character, '"' | '\'') => quote = Some(character),
            Some(open) if character == open => quote = None,
            _ => {}
        }
        word.push(character);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Why a text is no JSON array of strings.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoArray {
    /// It is something else, and is read as such.
    NotJson,
    /// It is an array, but of other things; BuildKit refuses that.
    NotStrings,
}

/// Reads `["a", "b"]`.
pub(super) fn json_array(text: &str) -> Result<Vec<String>, NoArray> {
    if !text.trim_start().starts_with('[') {
        return Err(NoArray::NotJson);
    }
    let values: Vec<serde_json::Value> = serde_json::from_str(text).map_err(|_| NoArray::NotJson)?;
    values
        .into_iter()
        .map(|value| match value {
            serde_json::Value::String(text) => Ok(text),
            _ => Err(NoArray::NotStrings),
        })
        .collect()
}

/// Why `NAME=value …` cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadPairs {
    /// `NAME` alone.
    ValueMissing,
    /// A word among pairs that has no `=`.
    WithoutEquals(String),
    /// `=value`.
    NameEmpty,
}

/// Reads `NAME=value …`, or the old form `NAME value`.
pub(super) fn pairs(text: &str, escape: char) -> Result<Vec<(String, String)>, BadPairs> {
    let words = quoted(text, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        let (name, value) = text.split_once(BLANKS).ok_or(BadPairs::ValueMissing)?;
        return Ok(vec![(name.to_owned(), value.trim_start_matches(BLANKS).to_owned())]);
    }
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(BadPairs::NameEmpty),
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(BadPairs::WithoutEquals(word)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_end_at_the_first_word_without_dashes() {
        let (flags, rest) = split_flags("--from=a --chown=\"x y\":z a --b c");
        assert_eq!(flags, ["--from=a", "--chown=x y:z"]);
        assert_eq!(rest, "a --b c");
        assert_eq!(split_flags("-- --x y"), (vec![], "--x y"));
    }

    #[test]
    fn pairs_keep_quotes_and_know_the_old_form() {
        let read = |text| pairs(text, '\\').expect(text);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read("a=1 b=\"x y\" c=x\\ y"), [pair("a", "1"), pair("b", "\"x y\""), pair("c", "x\\ y")]);
        assert_eq!(read("a  b c = d"), [pair("a", "b c = d")]);
        assert_eq!(pairs("a=1 b", '\\'), Err(BadPairs::WithoutEquals("b".to_owned())));
        assert_eq!(pairs("a", '\\'), Err(BadPairs::ValueMissing));
    }

    #[test]
    fn json_or_not() {
        assert_eq!(json_array(" [\"a\", \"b c\"]"), Ok(vec!["a".to_owned(), "b c".to_owned()]));
        assert_eq!(json_array("['a']"), Err(NoArray::NotJson));
        assert_eq!(json_array("[1]"), Err(NoArray::NotStrings));
        assert_eq!(json_array("[ -f x ] && y"), Err(NoArray::NotJson));
    }
}

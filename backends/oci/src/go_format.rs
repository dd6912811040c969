//! Texts as Go's `fmt` prints them, for history entries that are equal to BuildKit's.

/// A list of strings under `%q`: `["a" "b c"]`.
pub(crate) fn quoted_list(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("[{}]", quoted.join(" "))
}

/// A string under `%q`.
fn quoted(text: &str) -> String {
    let mut result = String::from("\"");
    for character in text.chars() {
        escape_into(&mut result, character, '"');
    }
    result.push('"');
    result
}

/// A number under `%q`: the character that it is the code of.
pub(crate) fn quoted_rune(number: u32) -> String {
    let mut result = String::from("'");
    escape_into(&mut result, char::from_u32(number).unwrap_or('\u{fffd}'), '\'');
    result.push('\'');
    result
}

fn escape_into(result: &mut String, character: char, quote: char) {
    match character {
        '\\' => result.push_str("\\\\"),
        _ if character == quote => result.extend(['\\', character]),
        '\u{7}' => result.push_str("\\a"),
        '\u{8}' => result.push_str("\\b"),
        '\u{c}' => result.push_str("\\f"),
        '\n' => result.push_str("\\n"),
        '\r' => result.push_str("\\r"),
        '\t' => result.push_str("\\t"),
        '\u{b}' => result.push_str("\\v"),
        '\0'..' ' | '\u{7f}' => result.push_str(&format!("\\x{:02x}", u32::from(character))),
        '\u{80}'..'\u{a1}' | '\u{ad}' => result.push_str(&format!("\\u{:04x}", u32::from(character))),
        _ => result.push(character),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        let words = ["a b".to_owned(), "\"\\\n\u{1}é".to_owned()];
        assert_eq!(quoted_list(&words), r#"["a b" "\"\\\n\x01é"]"#);
        assert_eq!(quoted_list(&[]), "[]");
        assert_eq!(
            (quoted_rune(0), quoted_rune(3), quoted_rune(39)),
            ("'\\x00'".into(), "'\\x03'".into(), "'\\''".into())
        );
    }
}

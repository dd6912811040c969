//! Makes foreign text safe to print: build logs and the words of servers may hold anything.

use std::iter::Peekable;
use std::str::Chars;

/// Removes escape sequences and control characters; keeps line ends and tabs. Of a line that
/// overwrites itself with carriage returns the last state is kept, as on a terminal.
pub(crate) fn clean(text: &str) -> String {
    if !text.chars().any(|c| c.is_control() && c != '\n') {
        return text.to_owned();
    }
    let mut clean = String::with_capacity(text.len());
    let mut line_start = 0;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\n' => {
                clean.push('\n');
                line_start = clean.len();
            }
            '\r' if characters.peek().is_some_and(|next| *next != '\n') => clean.truncate(line_start),
            '\t' => clean.push('\t'),
            '\x1b' => skip_escape(&mut characters),
            control if control.is_control() => {}
            other => clean.push(other),
        }
    }
    clean
}

/// Skips what belongs to an escape: `[…letter` (colours, cursor), `]…BEL` (title, links), or one character.
fn skip_escape(characters: &mut Peekable<Chars<'_>>) {
    match characters.next() {
        Some('[') => {
            characters.find(|c| ('\x40'..='\x7e').contains(c));
        }
        Some(']') => while !matches!(characters.next(), None | Some('\x07' | '\x1b' | '\n')) {},
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_text_and_drops_control() {
        for (text, expected) in [
            ("plain ä\ttext\nnext", "plain ä\ttext\nnext"),
            ("\x1b[1;31mred\x1b[0m", "red"),
            ("\x1b]0;title\x07after", "after"),
            ("10%\r50%\r100%", "100%"),
            ("dos\r\nline\r", "dos\nline"),
            ("bell\x07\x00", "bell"),
            ("cut \x1b[12", "cut "),
        ] {
            assert_eq!(clean(text), expected);
        }
    }
}

//! Makes foreign text safe to print: build logs and the words of servers may hold anything.

use std::borrow::Cow;
use std::iter::Peekable;
use std::str::Chars;

/// Removes escape sequences and control characters; keeps line ends and tabs. Of a line that
/// overwrites itself with carriage returns the last state is kept, as on a terminal.
pub(crate) fn clean(text: &str) -> String {
    cleaned(text).into_owned()
}

/// The same, copied only where something is removed.
pub(super) fn cleaned(text: &str) -> Cow<'_, str> {
    if !text.as_bytes().chunks(64).any(may_hold_control) {
        return Cow::Borrowed(text);
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
    Cow::Owned(clean)
}

/// Says whether there may be something to remove. Looks at all of them, which takes a processor less time than to stop
/// at the first.
fn may_hold_control(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |found, byte| {
        // 0xc2 begins the control characters beyond ASCII, among others.
        let plain = *byte >= b' ' && *byte != 0x7f && *byte != 0xc2;
        found | !(plain | (*byte == b'\n') | (*byte == b'\t'))
    })
}

/// Skips what belongs to an escape: `[…letter` (colours, cursor), `]…BEL` (title, links), or one character.
fn skip_escape(characters: &mut Peekable<Chars<'_>>) {
    match characters.next() {
        Some('[') => {
            // One that is cut off ends with its line.
            while characters.peek().is_some_and(|c| *c != '\n') {
                if characters.next().is_some_and(|c| ('\x40'..='\x7e').contains(&c)) {
                    break;
                }
            }
        }
        Some(']') => {
            while characters.peek().is_some_and(|c| *c != '\n')
                && !matches!(characters.next(), Some('\x07' | '\x1b'))
            {}
        }
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
            ("cut \x1b[12\nnext\x1b]title\nlast\x1b", "cut \nnext\nlast"),
            ("\u{85}a\u{a0}b\u{9b}c\x7f", "a\u{a0}bc"),
        ] {
            assert_eq!(clean(text), expected);
        }
    }
}

//! Go's `filepath.Match`, which decides what a wildcard of COPY means.

/// A pattern that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadPattern;

/// Says whether a word has wildcards in it.
pub(crate) fn has_wildcards(word: &[u8]) -> bool {
    let mut bytes = word.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => return true,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    false
}

/// Says whether a whole name matches: `*` any run without `/`, `?` one character but `/`, `[a-z]`
/// and `[^a-z]` classes, `\` escapes.
///
/// # Errors
/// [`BadPattern`], found wherever the pattern is read that far.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> Result<bool, BadPattern> {
    let (mut pattern, mut name) = (pattern, name);
    while !pattern.is_empty() {
        let (star, chunk, rest) = next_chunk(pattern);
        pattern = rest;
        if star && chunk.is_empty() {
            return Ok(!name.contains(&b'/'));
        }
        match match_chunk(chunk, name)? {
            // Only the last chunk has to end where the name ends.
            Some(left) if left.is_empty() || !pattern.is_empty() => {
                name = left;
                continue;
            }
            _ => {}
        }
        let mut later = None;
        if star {
            for at in 0..name.len() {
                if name[at] == b'/' {
                    break;
                }
                match match_chunk(chunk, &name[at + 1..])? {
                    Some(left) if pattern.is_empty() && !left.is_empty() => {}
                    Some(left) => {
                        later = Some(left);
                        break;
                    }
                    None => {}
                }
            }
        }
        match later {
            Some(left) => name = left,
            None => return check_rest(pattern).map(|()| false),
        }
    }
    Ok(name.is_empty())
}

/// Reads what is left of a pattern that has failed already, for its errors.
fn check_rest(mut pattern: &[u8]) -> Result<(), BadPattern> {
    while !pattern.is_empty() {
        let (_, chunk, rest) = next_chunk(pattern);
        pattern = rest;
        match_chunk(chunk, b"")?;
    }
    Ok(())
}

/// Splits off leading stars and what follows up to the next star.
fn next_chunk(pattern: &[u8]) -> (bool, &[u8], &[u8]) {
    let stars = pattern.iter().take_while(|byte| **byte == b'*').count();
    let pattern = &pattern[stars..];
    let mut in_class = false;
    let mut at = 0;
    while at < pattern.len() {
        match pattern[at] {
            b'\\' => at += 1,
            b'[' => in_class = true,
            b']' => in_class = false,
            b'*' if !in_class => break,
            _ => {}
        }
        at += 1;
    }
    let at = at.min(pattern.len());
    (stars > 0, &pattern[..at], &pattern[at..])
}

/// Matches a chunk without stars at the start of a name, and returns the rest of the name.
fn match_chunk<'a>(mut chunk: &[u8], mut name: &'a [u8]) -> Result<Option<&'a [u8]>, BadPattern> {
    // After a mismatch the chunk is still read to its end, for its errors.
    let mut failed = false;
    while let Some((first, rest)) = chunk.split_first() {
        failed |= name.is_empty();
        match first {
            b'[' => {
                let character = if failed { None } else { Some(take_character(&mut name)) };
                let (in_class, after) = match_class(rest, character)?;
                failed |= !in_class;
                chunk = after;
            }
            b'?' => {
                if !failed {
                    failed = name[0] == b'/';
                    take_character(&mut name);
                }
                chunk = rest;
            }
            _ => {
                let (literal, after) = match (first, rest) {
                    (b'\\', []) => return Err(BadPattern),
                    (b'\\', [escaped, after @ ..]) => (escaped, after),
                    _ => (first, rest),
                };
                if !failed {
                    failed = name[0] != *literal;
                    name = &name[1..];
                }
                chunk = after;
            }
        }
    }
    Ok((!failed).then_some(name))
}

/// Reads a class after its `[`; returns whether the character is in it, and what follows.
fn match_class(mut class: &[u8], character: Option<u32>) -> Result<(bool, &[u8]), BadPattern> {
    let negated = class.first() == Some(&b'^');
    class = &class[usize::from(negated)..];
    let mut found = false;
    let mut ranges = 0;
    loop {
        if class.first() == Some(&b']') && ranges > 0 {
            return Ok((found != negated, &class[1..]));
        }
        let low = class_character(&mut class)?;
        let mut high = low;
        if class.first() == Some(&b'-') {
            class = &class[1..];
            high = class_character(&mut class)?;
        }
        found |= character.is_some_and(|character| (low..=high).contains(&character));
        ranges += 1;
    }
}

fn class_character(class: &mut &[u8]) -> Result<u32, BadPattern> {
    match class.first() {
        None | Some(b'-' | b']') => return Err(BadPattern),
        Some(b'\\') => *class = &class[1..],
        Some(_) => {}
    }
    if class.is_empty() {
        return Err(BadPattern);
    }
    let character = take_character(class);
    // The class has to be closed by something.
    if class.is_empty() { Err(BadPattern) } else { Ok(character) }
}

/// Takes one character off a name; a byte that is not UTF-8 counts as one.
fn take_character(name: &mut &[u8]) -> u32 {
    let window = &name[..name.len().min(4)];
    let valid = match std::str::from_utf8(window) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&window[..error.valid_up_to()]).unwrap_or_default(),
    };
    match valid.chars().next() {
        Some(character) => {
            *name = &name[character.len_utf8()..];
            character.into()
        }
        None => {
            *name = &name[1..];
            u32::from(char::REPLACEMENT_CHARACTER)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of Go's own `match_test.go`.
    #[test]
    fn matches_as_go_does() {
        for (pattern, name, expected) in [
            ("abc", "abc", Ok(true)),
            ("*", "abc", Ok(true)),
            ("*c", "abc", Ok(true)),
            ("a*", "a", Ok(true)),
            ("a*", "abc", Ok(true)),
            ("a*", "ab/c", Ok(false)),
            ("a*/b", "abc/b", Ok(true)),
            ("a*/b", "a/c/b", Ok(false)),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", Ok(true)),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", Ok(true)),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", Ok(false)),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", Ok(false)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Ok(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Ok(false)),
            ("ab[c]", "abc", Ok(true)),
            ("ab[b-d]", "abc", Ok(true)),
            ("ab[e-g]", "abc", Ok(false)),
            ("ab[^c]", "abc", Ok(false)),
            ("ab[^b-d]", "abc", Ok(false)),
            ("ab[^e-g]", "abc", Ok(true)),
            ("a\\*b", "a*b", Ok(true)),
            ("a\\*b", "ab", Ok(false)),
            ("a?b", "a☺b", Ok(true)),
            ("a[^a]b", "a☺b", Ok(true)),
            ("a???b", "a☺b", Ok(false)),
            ("a[^a][^a][^a]b", "a☺b", Ok(false)),
            ("[a-ζ]*", "α", Ok(true)),
            ("*[a-ζ]", "A", Ok(false)),
            ("a?b", "a/b", Ok(false)),
            ("a*b", "a/b", Ok(false)),
            ("[\\]a]", "]", Ok(true)),
            ("[\\-]", "-", Ok(true)),
            ("[x\\-]", "z", Ok(false)),
            ("[\\-x]", "a", Ok(false)),
            ("[]a]", "]", Err(BadPattern)),
            ("[-]", "-", Err(BadPattern)),
            ("[x-]", "x", Err(BadPattern)),
            ("[-x]", "x", Err(BadPattern)),
            ("\\", "a", Err(BadPattern)),
            ("[a-b-c]", "a", Err(BadPattern)),
            ("[", "a", Err(BadPattern)),
            ("[^", "a", Err(BadPattern)),
            ("[^bc", "a", Err(BadPattern)),
            ("a[", "a", Err(BadPattern)),
            ("a[", "ab", Err(BadPattern)),
            ("*x", "xxx", Ok(true)),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}

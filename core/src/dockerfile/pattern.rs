//! The patterns of `${name#pattern}` and its relatives: `*`, `?`, and escapes; no classes.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Literal(char),
    Any,
    Star,
}

/// A shell pattern over characters; a line end is matched by no wildcard, as in BuildKit.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Vec<Part>);

impl Pattern {
    /// Reads a pattern. A backslash may stand before `*`, `?`, `\`, `/` and `}` only.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            parts.push(match character {
                '*' => Part::Star,
                '?' => Part::Any,
                '\\' => match characters.next() {
                    Some(escaped @ ('*' | '?' | '\\' | '/' | '}')) => Part::Literal(escaped),
                    other => {
                        let shown = other.map(String::from).unwrap_or_default();
                        return Err(format!("invalid escape `\\{shown}` in the pattern `{text}`"));
                    }
                },
                literal => Part::Literal(literal),
            });
        }
        Ok(Self(parts))
    }

    /// How many characters the pattern takes off the front of `value`.
    pub(super) fn prefix_len(&self, value: &[char], longest: bool) -> Option<usize> {
        pick(&ends(&self.0, value.iter()), longest)
    }

    /// How many characters the pattern takes off the end of `value`.
    pub(super) fn suffix_len(&self, value: &[char], longest: bool) -> Option<usize> {
        let reversed: Vec<Part> = self.0.iter().rev().copied().collect();
        pick(&ends(&reversed, value.iter().rev()), longest)
    }
}

fn pick(ends: &[usize], longest: bool) -> Option<usize> {
    if longest { ends.last().copied() } else { ends.first().copied() }
}

/// All lengths at which the pattern can end, ascending: a set of states is moved along the text,
/// so the time is the product of the two lengths whatever the pattern.
fn ends<'a>(parts: &[Part], value: impl Iterator<Item = &'a char>) -> Vec<usize> {
    let mut states = vec![false; parts.len() + 1];
    states[0] = true;
    skip_stars(parts, &mut states);
    let mut ends = Vec::new();
    let mut record = |states: &[bool], length: usize| {
        if states[parts.len()] {
            ends.push(length);
        }
    };
    record(&states, 0);
    for (index, character) in value.enumerate() {
        let mut next = vec![false; parts.len() + 1];
        for (state, part) in parts.iter().enumerate().filter(|(state, _)| states[*state]) {
            match part {
                Part::Literal(literal) => next[state + 1] |= literal == character,
                Part::Any => next[state + 1] |= *character != '\n',
                Part::Star => next[state] |= *character != '\n',
            }
        }
        skip_stars(parts, &mut next);
        states = next;
        record(&states, index + 1);
    }
    ends
}

fn skip_stars(parts: &[Part], states: &mut [bool]) {
    for (state, part) in parts.iter().enumerate() {
        if states[state] && *part == Part::Star {
            states[state + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_pattern_takes_no_time() {
        let pattern = Pattern::parse(&"*a".repeat(200)).expect("valid");
        let value = vec!['a'; 150];
        assert_eq!(pattern.prefix_len(&value, true), None);
    }
}

//! Permissions: `--chmod=755`, `--chmod=u=rwX,go=rX`.

use windlass_core::error::{Error, ErrorKind, Result};

/// What `--chmod` does to permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ModeChange {
    /// Sets them.
    Set(u32),
    /// Changes them, clause by clause.
    Clauses(Vec<Clause>),
}

/// One clause of a symbolic mode, such as `go-w`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clause {
    /// The bits of the classes it is about: `u` is 0o4700, `g` 0o2070, `o` 0o1007.
    who: u32,
    operator: char,
    /// The bits, as if for all classes.
    permissions: u32,
    /// `X`: execute, for directories and for what someone can execute already.
    conditional_execute: bool,
    /// Bits are copied from this class instead: `g=u`.
    copy_from: Option<char>,
}

impl ModeChange {
    /// Reads an octal number up to 7777, or clauses as of chmod(1).
    ///
    /// # Errors
    /// `InvalidDockerfile` for anything else.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let invalid = || {
            Error::new(ErrorKind::InvalidDockerfile, format!("invalid mode `{text}`"))
                .with_hint("a mode is an octal number such as `0755`, or clauses such as `u=rwX,go=rX`")
        };
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let number = u32::from_str_radix(text, 8).ok().filter(|number| *number <= 0o7777);
            return number.map(Self::Set).ok_or_else(invalid);
        }
        let clauses = text.split(',').map(parse_clause).collect::<Option<Vec<Vec<Clause>>>>();
        clauses.map(|clauses| Self::Clauses(clauses.concat())).ok_or_else(invalid)
    }

    /// Applies the change to the permissions of a file or directory.
    pub(crate) fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Self::Set(new) => *new,
            Self::Clauses(clauses) => {
                clauses.iter().fold(mode, |mode, clause| clause.apply(mode, is_directory))
            }
        }
    }
}

impl Clause {
    fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let mut bits = self.permissions;
        if self.conditional_execute && (is_directory || mode & 0o111 != 0) {
            bits |= 0o111;
        }
        if let Some(class) = self.copy_from {
            let shift = match class {
                'u' => 6,
                'g' => 3,
                _ => 0,
            };
            bits = (mode >> shift & 0o7) * 0o111;
        }
        bits &= self.who;
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => mode & !(self.who & 0o777) | bits,
        }
    }
}

/// Reads one clause: classes, then one or more operators with their permissions.
fn parse_clause(text: &str) -> Option<Vec<Clause>> {
    let classes = text.find(['+', '-', '=']).unwrap_or(text.len());
    let mut who = 0;
    for class in text[..classes].chars() {
        who |= match class {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o1007,
            'a' => 0o7777,
            _ => return None,
        };
    }
    if who == 0 {
        who = 0o7777;
    }
    let mut clauses = Vec::new();
    let mut rest = &text[classes..];
    while let Some(operator) = rest.chars().next() {
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
        let mut clause =
            Clause { who, operator, permissions: 0, conditional_execute: false, copy_from: None };
        let word = &rest[1..end];
        match word {
            "u" | "g" | "o" => clause.copy_from = word.chars().next(),
            _ => {
                for permission in word.chars() {
                    match permission {
                        'r' => clause.permissions |= 0o444,
                        'w' => clause.permissions |= 0o222,
                        'x' => clause.permissions |= 0o111,
                        's' => clause.permissions |= 0o6000,
                        't' => clause.permissions |= 0o1000,
                        'X' => clause.conditional_execute = true,
                        _ => return None,
                    }
                }
            }
        }
        clauses.push(clause);
        rest = &rest[end..];
    }
    (!clauses.is_empty()).then_some(clauses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_as_chmod_does() {
        for (text, before, directory, after) in [
            ("755", 0o600, false, 0o755),
            ("0640", 0o777, true, 0o640),
            ("4755", 0o600, false, 0o4755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o666, false, 0o444),
            ("go-rwx", 0o755, false, 0o700),
            ("g=u", 0o740, false, 0o770),
            ("u+s", 0o755, false, 0o4755),
            ("o+t", 0o777, true, 0o1777),
            ("u=rw,g+w-x", 0o751, false, 0o661),
        ] {
            assert_eq!(ModeChange::parse(text).expect(text).apply(before, directory), after, "{text}");
        }
        for text in ["", "8", "10000", "u", "u=q", "z+x", "0x7", "u+x,"] {
            assert!(ModeChange::parse(text).is_err(), "{text}");
        }
    }
}

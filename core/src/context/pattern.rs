//! One pattern of an ignore file, with the meaning that docker gives it.
//!
//! Docker checks a pattern with Go's `filepath.Match`, then turns it into a regular expression,
//! or into a plain comparison where it can. The translation has edges (`*` inside a class, `^`,
//! letters after a backslash) that follow from the text of that expression, so this module makes
//! the same text and reads it as Go's `regexp` does, as far as such texts go.
//!
//! Source: github.com/moby/patternmatcher, `patternmatcher.go`.

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    cleaned: Vec<u8>,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// The path is the pattern.
    Exact,
    /// `x**`: the path starts with `x`.
    Prefix,
    /// `**x`: the path ends with `x`.
    Suffix,
    /// The path matches an expression.
    Expression {
        program: Vec<Instruction>,
        /// Plain text at the start, at the end, and the longest anywhere: without these it cannot
        /// match, and most paths lack them.
        start: Vec<u8>,
        end: Vec<u8>,
        inside: Vec<u8>,
    },
}

/// What is wrong with a pattern.
pub(super) type BadPattern = &'static str;

impl Pattern {
    /// Compiles a pattern that has been cleaned and has lost its `!`.
    pub(super) fn compile(cleaned: &[u8]) -> Result<Self, BadPattern> {
        check_syntax(cleaned)?;
        let (expression, shape) = translate(&decode(cleaned));
        let kind = match shape {
            Shape::Exact => Kind::Exact,
            Shape::Prefix => Kind::Prefix,
            Shape::Suffix => Kind::Suffix,
            Shape::Expression => {
                let program = Parser::new(&expression).parse()?;
                let literals = literals(&program);
                let start = literals.first().cloned().unwrap_or_default();
                let end = literals.last().cloned().unwrap_or_default();
                let inside = literals.into_iter().max_by_key(Vec::len).unwrap_or_default();
                Kind::Expression { program, start, end, inside }
            }
        };
        Ok(Self { cleaned: cleaned.to_vec(), kind })
    }

    /// Says whether it matches a path, not looking at the directories above.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match &self.kind {
            Kind::Exact => path == self.cleaned,
            Kind::Prefix => path.starts_with(&self.cleaned[..self.cleaned.len() - 2]),
            Kind::Suffix => {
                let suffix = &self.cleaned[2..];
                ends_with(path, suffix) || suffix.strip_prefix(b"/") == Some(path)
            }
            Kind::Expression { program, start, end, inside } => {
                starts_with(path, start)
                    && ends_with(path, end)
                    && contains(path, inside)
                    && run(program, path)
            }
        }
    }

    /// Says whether it may match something below a directory; when in doubt, yes.
    pub(super) fn may_match_below(&self, directory: &[u8]) -> bool {
        let start = match &self.kind {
            Kind::Exact => {
                let rest = self.cleaned.strip_prefix(directory);
                return rest.is_some_and(|rest| rest.starts_with(b"/"));
            }
            Kind::Prefix => &self.cleaned[..self.cleaned.len() - 2],
            Kind::Suffix => return true,
            Kind::Expression { start, .. } => start.as_slice(),
        };
        let common = start.len().min(directory.len());
        start[..common] == directory[..common] && (start.len() <= common || start[common] == b'/')
    }
}

/// The plain text between the other instructions of a program, one piece more than there are
/// others.
fn literals(program: &[Instruction]) -> Vec<Vec<u8>> {
    let mut literals = vec![String::new()];
    for instruction in program {
        match (instruction, literals.last_mut()) {
            // A byte that is not UTF-8 has no one spelling.
            (Instruction::One(Matcher::Literal(c)), Some(last)) if *c != char::REPLACEMENT_CHARACTER => {
                last.push(*c)
            }
            _ => literals.push(String::new()),
        }
    }
    literals.into_iter().map(String::into_bytes).collect()
}

/// `starts_with`, which looks at the first byte first: it rules most paths out without a call. An
/// empty text must not reach the call either: comparing nothing takes some processors very long.
fn starts_with(path: &[u8], text: &[u8]) -> bool {
    text.is_empty() || (path.first() == text.first() && path.starts_with(text))
}

/// The same at the other end.
fn ends_with(path: &[u8], text: &[u8]) -> bool {
    text.is_empty() || (path.last() == text.last() && path.ends_with(text))
}

fn contains(path: &[u8], text: &[u8]) -> bool {
    let Some(first) = text.first() else { return true };
    // Most positions are ruled out by their first byte, without a call.
    path.windows(text.len()).any(|window| window[0] == *first && window == text)
}

/// The characters of a text as Go sees them: a byte that is not UTF-8 counts as U+FFFD.
fn decode(text: &[u8]) -> Vec<char> {
    let mut chars = Vec::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        chars.extend(chunk.valid().chars());
        chars.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    chars
}

/// The checks of `filepath.Match`: classes must be closed and well formed, a backslash must
/// escape something.
fn check_syntax(pattern: &[u8]) -> Result<(), BadPattern> {
    let chars = decode(pattern);
    let mut rest = chars.as_slice();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            '\\' => rest = rest.get(1..).ok_or("a `\\` at the end escapes nothing")?,
            '[' => rest = check_class(rest)?,
            _ => {}
        }
    }
    Ok(())
}

fn check_class(mut rest: &[char]) -> Result<&[char], BadPattern> {
    if let ['^', tail @ ..] = rest {
        rest = tail;
    }
    let mut ranges = 0;
    loop {
        if let [']', tail @ ..] = rest
            && ranges > 0
        {
            return Ok(tail);
        }
        rest = check_class_character(rest)?;
        if let ['-', tail @ ..] = rest {
            rest = check_class_character(tail)?;
        }
        ranges += 1;
    }
}

fn check_class_character(rest: &[char]) -> Result<&[char], BadPattern> {
    const OPEN: BadPattern = "the class after `[` is not closed";
    let rest = match rest {
        [] => return Err(OPEN),
        ['-', ..] => return Err("`-` in a class needs a character before it"),
        [']', ..] => return Err("a class after `[` must not be empty, and a range needs both ends"),
        ['\\', tail @ ..] => tail,
        rest => rest,
    };
    match rest {
        [] | [_] => Err(OPEN),
        [char::REPLACEMENT_CHARACTER, ..] => Err("a class must be valid UTF-8"),
        [_, tail @ ..] => Ok(tail),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Exact,
    Prefix,
    Suffix,
    Expression,
}

/// The function `compile` of moby, up to the point where it calls `regexp.Compile`.
fn translate(pattern: &[char]) -> (Vec<char>, Shape) {
    let mut expression = vec!['^'];
    let mut shape = Shape::Exact;
    let mut rest = pattern.iter().copied().peekable();
    let mut first = true;
    while let Some(c) = rest.next() {
        match c {
            '*' if rest.next_if_eq(&'*').is_some() => {
                // `**/` is the same as `**`.
                let _ = rest.next_if_eq(&'/');
                if rest.peek().is_some() {
                    expression.extend("(.*/)?".chars());
                    shape = Shape::Expression;
                } else if shape == Shape::Exact {
                    shape = Shape::Prefix;
                } else {
                    expression.extend(".*".chars());
                    shape = Shape::Expression;
                }
                if first {
                    shape = Shape::Suffix;
                }
            }
            '*' => {
                expression.extend("[^/]*".chars());
                shape = Shape::Expression;
            }
            '?' => {
                expression.extend("[^/]".chars());
                shape = Shape::Expression;
            }
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => expression.extend(['\\', c]),
            '\\' => {
                expression.push('\\');
                if let Some(escaped) = rest.next() {
                    expression.push(escaped);
                    shape = Shape::Expression;
                }
            }
            '[' | ']' => {
                expression.push(c);
                shape = Shape::Expression;
            }
            c => expression.push(c),
        }
        first = false;
    }
    (expression, shape)
}

/// A step of a compiled expression. The steps are run side by side, so that no pattern takes
/// longer than its length times that of the path.
#[derive(Clone, Debug)]
enum Instruction {
    /// Takes one character.
    One(Matcher),
    /// Takes any number of characters.
    Many(Matcher),
    /// `(.*/)?`: takes nothing, or goes on with the next instruction, [`Instruction::Inside`].
    Directories,
    /// Takes characters up to some `/`.
    Inside,
    /// `^` in the middle: true only where the path starts.
    Start,
}

#[derive(Clone, Debug)]
enum Matcher {
    Literal(char),
    /// `.`: all but a line feed.
    Any,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Matcher {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Literal(literal) => *literal == c,
            Self::Any => c != '\n',
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}

/// Reads the expressions that [`translate`] makes, as Go's `regexp/syntax` does.
struct Parser<'a> {
    rest: &'a [char],
}

impl<'a> Parser<'a> {
    fn new(expression: &'a [char]) -> Self {
        // The `^` in front is there for every pattern; `run` starts at the start anyway.
        Self { rest: &expression[1..] }
    }

    fn next(&mut self) -> Option<char> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take(&mut self, text: &str) -> bool {
        let length = text.chars().count();
        let found = self.rest.len() >= length && text.chars().eq(self.rest[..length].iter().copied());
        if found {
            self.rest = &self.rest[length..];
        }
        found
    }

    fn parse(mut self) -> Result<Vec<Instruction>, BadPattern> {
        let mut program = Vec::new();
        loop {
            if self.take("(.*/)?") {
                program.extend([Instruction::Directories, Instruction::Inside]);
                continue;
            }
            let matcher = match self.next() {
                None => return Ok(program),
                Some('^') => {
                    program.push(Instruction::Start);
                    continue;
                }
                Some('.') => Matcher::Any,
                Some('[') => self.class()?,
                Some('\\') => self.escape()?,
                Some(c) => Matcher::Literal(c),
            };
            program.push(if self.take("*") { Instruction::Many(matcher) } else { Instruction::One(matcher) });
        }
    }

    /// What follows a backslash. Docker passes letters on to the expression, where they mean
    /// something else than themselves: `\d` is a digit.
    fn escape(&mut self) -> Result<Matcher, BadPattern> {
        let class = |ranges: &[(char, char)], negated| Matcher::Class { negated, ranges: ranges.to_vec() };
        const WORD: &[(char, char)] = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];
        const SPACE: &[(char, char)] = &[('\t', '\n'), ('\u{c}', '\r'), (' ', ' ')];
        match self.next() {
            Some('d') => Ok(class(&[('0', '9')], false)),
            Some('D') => Ok(class(&[('0', '9')], true)),
            Some('s') => Ok(class(SPACE, false)),
            Some('S') => Ok(class(SPACE, true)),
            Some('w') => Ok(class(WORD, false)),
            Some('W') => Ok(class(WORD, true)),
            Some(c) => plain_escape(c).map(Matcher::Literal),
            None => Err("a `\\` at the end escapes nothing"),
        }
    }

    fn class(&mut self) -> Result<Matcher, BadPattern> {
        const OPEN: BadPattern = "the class after `[` is not closed";
        let negated = self.take("^");
        let mut ranges = Vec::new();
        let mut first = true;
        while first || !self.take("]") {
            first = false;
            if self.take("[:") {
                return Err("named classes such as `[:alpha:]` are not supported");
            }
            if let ['\\', 'd' | 'D' | 's' | 'S' | 'w' | 'W', ..] = self.rest {
                self.rest = &self.rest[1..];
                match self.escape()? {
                    Matcher::Class { negated: false, ranges: more } => ranges.extend(more),
                    _ => return Err("`\\D`, `\\S` and `\\W` inside a class are not supported"),
                }
                continue;
            }
            let low = self.class_character()?.ok_or(OPEN)?;
            let range = matches!(self.rest, ['-', next, ..] if *next != ']');
            let high = if range {
                self.rest = &self.rest[1..];
                self.class_character()?.ok_or(OPEN)?
            } else {
                low
            };
            if high < low {
                return Err("the ends of a range in a class are in the wrong order");
            }
            ranges.push((low, high));
        }
        Ok(Matcher::Class { negated, ranges })
    }

    fn class_character(&mut self) -> Result<Option<char>, BadPattern> {
        match self.next() {
            Some('\\') => match self.next() {
                Some(c) => plain_escape(c).map(Some),
                None => Ok(None),
            },
            c => Ok(c),
        }
    }
}

fn plain_escape(c: char) -> Result<char, BadPattern> {
    match c {
        'a' => Ok('\u{7}'),
        'f' => Ok('\u{c}'),
        'n' => Ok('\n'),
        'r' => Ok('\r'),
        't' => Ok('\t'),
        'v' => Ok('\u{b}'),
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => Ok(c),
        _ => Err("only punctuation can be escaped with `\\`"),
    }
}

/// Runs all the ways through an expression side by side.
fn run(program: &[Instruction], path: &[u8]) -> bool {
    let mut now = vec![false; program.len() + 1];
    let mut next = vec![false; program.len() + 1];
    enter(program, &mut now, 0, true);
    for c in decode(path) {
        next.fill(false);
        let mut alive = false;
        for (at, instruction) in program.iter().enumerate().filter(|(at, _)| now[*at]) {
            match instruction {
                Instruction::One(matcher) if matcher.takes(c) => enter(program, &mut next, at + 1, false),
                Instruction::Many(matcher) if matcher.takes(c) => enter(program, &mut next, at, false),
                Instruction::Inside if c != '\n' => {
                    enter(program, &mut next, at, false);
                    if c == '/' {
                        enter(program, &mut next, at + 1, false);
                    }
                }
                _ => continue,
            }
            alive = true;
        }
        if !alive {
            return false;
        }
        std::mem::swap(&mut now, &mut next);
    }
    now[program.len()]
}

/// Marks an instruction as reached, and those that can be reached from it without a character.
fn enter(program: &[Instruction], states: &mut [bool], mut at: usize, at_start: bool) {
    loop {
        match program.get(at) {
            Some(Instruction::Directories) => {
                states[at + 1] = true;
                at += 2;
            }
            Some(Instruction::Many(_)) => {
                states[at] = true;
                at += 1;
            }
            Some(Instruction::Start) if at_start => at += 1,
            Some(Instruction::Start) => return,
            _ => {
                states[at] = true;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::compile(pattern.as_bytes()).expect(pattern).matches(path.as_bytes())
    }

    /// The table of moby's own tests (`TestMatches`, `TestMatch`), without parent directories.
    #[test]
    fn matches_what_moby_matches() {
        for (pattern, path, expected) in [
            ("**", "file", true),
            ("**", "file/", true),
            ("**", "dir/file", true),
            ("**/**", "dir/file", true),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir/dir2/file", true),
            ("dir/**", "dirfile", false),
            ("**/dir", "dir", true),
            ("**/dir", "dir/file", false),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/*", "dir/dir2/dir2/file", true),
            ("**/dir2/**", "dir/dir2/dir2/file", true),
            ("**file", "file", true),
            ("**file", "dir/file", true),
            ("**/file", "dir/file", true),
            ("**/file", "dir/dir/file", true),
            ("**file", "dir/dir/file", true),
            ("**/file*", "dir/dir/file.txt", true),
            ("**/file*txt", "dir/dir/file.txt", true),
            ("**/file*.txt", "dir/dir/file.txt", true),
            ("**/file*.txt*", "dir/dir/file.txt", true),
            ("**/**/*.txt", "dir/dir/file.txt", true),
            ("**/**/*.txt2", "dir/dir/file.txt", false),
            ("**/*.txt", "file.txt", true),
            ("**/**/*.txt", "file.txt", true),
            ("a**/*.txt", "a/file.txt", true),
            ("a**/*.txt", "a/dir/file.txt", true),
            ("a**/*.txt", "a/dir/dir/file.txt", true),
            ("a/*.txt", "a/dir/file.txt", false),
            ("a/*.txt", "a/file.txt", true),
            ("a/*.txt**", "a/file.txt", true),
            ("a[b-d]e", "ae", false),
            ("a[b-d]e", "ace", true),
            ("a[b-d]e", "aae", false),
            ("a[^b-d]e", "aze", true),
            (".*", ".foo", true),
            (".*", "foo", false),
            ("abc.def", "abcdef", false),
            ("abc.def", "abc.def", true),
            ("abc.def", "abcZdef", false),
            ("abc?def", "abcZdef", true),
            ("abc?def", "abcdef", false),
            ("a\\\\", "a\\", true),
            ("**/foo/bar", "foo/bar", true),
            ("**/foo/bar", "dir/foo/bar", true),
            ("**/foo/bar", "dir/dir2/foo/bar", true),
            ("abc/**", "abc", false),
            ("abc/**", "abc/def", true),
            ("abc/**", "abc/def/ghi", true),
            ("**/.foo", ".foo", true),
            ("**/.foo", "bar.foo", false),
            ("a(b)c/def", "a(b)c/def", true),
            ("a(b)c/def", "a(b)c/xyz", false),
            ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
            (
                "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
                "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
                true,
            ),
            ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", true),
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("a[^a][^a][^a]b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "x", true),
            ("[x\\-]", "z", false),
            ("[\\-x]", "a", false),
            ("*x", "xxx", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn keeps_the_edges_of_the_translation() {
        // `!` is no negation in a class, and a negated class takes a slash.
        assert!(matches("[!a]x", "!x"));
        assert!(!matches("[!a]x", "bx"));
        assert!(matches("a[^b]c", "a/c"));
        // `^` is an anchor as soon as the pattern is an expression, and plain if it is not.
        assert!(matches("^a", "^a"));
        assert!(!matches("x^a*", "x^ab"));
        assert!(matches("^a*", "ab"));
        assert!(matches("x\\^a*", "x^ab"));
        // A star in a class ends up as `[[^/]*]`.
        assert!(matches("[*]", "^]"));
        assert!(!matches("[*]", "*"));
        assert!(matches("\\d", "7"));
        assert!(!matches("\\d", "d"));
    }

    #[test]
    fn a_byte_that_is_not_text_is_one_character() {
        let pattern = Pattern::compile(b"a?c").expect("valid");
        assert!(pattern.matches(b"a\xffc"));
        assert!(!pattern.matches(b"a\xff\xffc"));
        assert!(Pattern::compile(b"a\xffc").expect("valid").matches(b"a\xffc"));
        assert!(Pattern::compile(b"\xff*").expect("valid").matches(b"\xff"));
    }

    #[test]
    fn refuses_what_go_refuses() {
        for pattern in [
            "[", "[^", "[^bc", "[]a]", "[-]", "[x-]", "[-x]", "a[", "a\\", "[a-b-c]", "[]", "[^]", "[b-a]",
            "ab\\", "\\q", "\\é",
        ] {
            assert!(Pattern::compile(pattern.as_bytes()).is_err(), "{pattern}");
        }
    }

    #[test]
    fn knows_where_it_cannot_match() {
        for (pattern, directory, may) in [
            ("keep.log", "node_modules", false),
            ("a/b", "a", true),
            ("a/b", "a/b", false),
            ("a/b", "ab", false),
            ("a/**", "a", true),
            ("a/**", "b", false),
            ("a/**", "a/x", true),
            ("a/*.txt", "a", true),
            ("a/*.txt", "b", false),
            ("**/x", "b", true),
            ("*/x", "b", true),
            ("a?/x", "ab", true),
            ("ab/c*", "a", false),
        ] {
            let pattern_ = Pattern::compile(pattern.as_bytes()).expect(pattern);
            assert_eq!(pattern_.may_match_below(directory.as_bytes()), may, "{pattern} {directory}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_longer() {
        let pattern = "*a".repeat(200);
        assert!(!matches(&pattern, &"a".repeat(2000).replace("aa", "ab")));
    }
}

//! The lines of a log on their way to the user: passed on together where they come together.

use std::collections::VecDeque;

use windlass_core::service::ServiceKey;

/// So many last lines are shown of a build that failed.
const TAIL_LINES: usize = 20;
/// A line of those is no longer than this.
const TAIL_LINE_CHARACTERS: usize = 2_000;
/// No more than this, and one event, is collected.
const COLLECTED_BYTES: usize = 64 * 1024;

/// Takes lines: one, or several with `\n` between them and none at the end.
pub(crate) type Sink<'a> = dyn for<'b> FnMut(&'b str) + Send + 'a;

/// Lines that were not passed on yet, and the last that were. Who prints the key prints it for itself.
#[derive(Debug)]
pub(crate) struct Lines {
    key: ServiceKey,
    collected: String,
    holds_some: bool,
    tail: VecDeque<String>,
}

impl Lines {
    /// None yet. The key will not be in them.
    pub(crate) fn without(key: ServiceKey) -> Self {
        Self { key, collected: String::new(), holds_some: false, tail: VecDeque::new() }
    }

    /// Takes the data of an event: a line, or several.
    pub(crate) fn add(&mut self, data: &str, sink: &mut Sink<'_>) {
        if std::mem::replace(&mut self.holds_some, true) {
            self.collected.push('\n');
        }
        self.collected.push_str(data);
        if self.collected.len() >= COLLECTED_BYTES {
            self.pass_on(sink);
        }
    }

    /// Passes on what was collected.
    pub(crate) fn pass_on(&mut self, sink: &mut Sink<'_>) {
        if !std::mem::take(&mut self.holds_some) {
            return;
        }
        let shown = self.key.hide(&self.collected);
        sink(&shown);
        let last = shown.rsplit('\n').take(TAIL_LINES).collect::<Vec<_>>();
        let kept = (TAIL_LINES - last.len()).min(self.tail.len());
        self.tail.drain(..self.tail.len() - kept);
        self.tail.extend(last.into_iter().rev().map(shortened));
        self.collected.clear();
    }

    /// The last lines that were passed on, the oldest first.
    pub(crate) fn into_tail(self) -> Vec<String> {
        self.tail.into()
    }
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(TAIL_LINE_CHARACTERS) {
        Some((end, _)) => line[..end].to_owned(),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::service::KeyHeader;

    use super::*;

    fn key() -> ServiceKey {
        ServiceKey::new(&"secret-key".into(), KeyHeader::Bearer, "KEY").expect("a key")
    }

    #[test]
    fn a_service_that_prints_the_key_prints_it_for_itself() {
        let (mut lines, mut seen) = (Lines::without(key()), Vec::new());
        lines.add("with secret-key", &mut |_: &str| {});
        lines.pass_on(&mut |text: &str| seen.push(text.to_owned()));
        assert_eq!(
            (seen, lines.into_tail()),
            (vec!["with (hidden)".to_owned()], vec!["with (hidden)".to_owned()])
        );
    }

    #[test]
    fn lines_are_passed_on_together_and_the_last_are_kept() {
        let (mut lines, mut seen) = (Lines::without(key()), Vec::new());
        let mut sink = |text: &str| seen.push(text.to_owned());
        lines.pass_on(&mut sink);
        for number in 0..30 {
            lines.add(&format!("{number}\n"), &mut sink);
            if number % 7 == 0 {
                lines.pass_on(&mut sink);
            }
        }
        lines.add("", &mut sink);
        lines.pass_on(&mut sink);
        let tail = lines.into_tail();
        assert_eq!(seen[..2], ["0\n", "1\n\n2\n\n3\n\n4\n\n5\n\n6\n\n7\n"]);
        assert_eq!(seen.last().map(String::as_str), Some("29\n\n"));
        assert_eq!(
            (tail.len(), &tail[16..]),
            (TAIL_LINES, &["".into(), "29".into(), "".into(), "".into()][..])
        );
    }

    #[test]
    fn what_is_collected_has_an_end() {
        let (mut lines, mut passed) = (Lines::without(key()), 0);
        let mut sink = |_: &str| passed += 1;
        for _ in 0..10 {
            lines.add(&"x".repeat(COLLECTED_BYTES), &mut sink);
        }
        assert_eq!((passed, lines.tail.len()), (10, 10));
        assert!(lines.tail.iter().all(|line| line.len() == TAIL_LINE_CHARACTERS));
    }
}

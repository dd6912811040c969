//! `--progress=plain`: lines `#<number> <text>`, as buildx before 0.13 gives nothing better.
//!
//! The first line of a number is the step's name; `CACHED`, `DONE 0.1s`, `ERROR: …` and `CANCELED`
//! end it; `0.123 text` is a line of its log; the rest are counters and activities. When the
//! output changes from one step to another, the name is repeated.

use std::collections::HashMap;

use super::graph::{Graph, VertexUpdate};

/// Remembers the names of the steps.
#[derive(Debug, Default)]
pub(super) struct Reader {
    names: HashMap<String, String>,
}

impl Reader {
    /// Takes one line; gives it back if it is text.
    pub(super) fn line(&mut self, line: &str, graph: &mut Graph) -> Vec<String> {
        let Some((number, text)) = split(line) else {
            return if line.is_empty() { Vec::new() } else { vec![line.to_owned()] };
        };
        // Step 0 only names the builder, and never ends.
        if number == "0" || text.is_empty() || text == "..." {
            return Vec::new();
        }
        if !graph.knows(number) {
            self.names.insert(number.to_owned(), text.to_owned());
            update(graph, number, text, End::Started);
        } else if text == "CACHED" {
            update(graph, number, "", End::Cached);
        } else if text.strip_prefix("DONE ").is_some_and(|time| seconds(time).is_some()) {
            update(graph, number, "", End::Done);
        } else if let Some(error) = text.strip_prefix("ERROR: ").or((text == "CANCELED").then_some(text)) {
            update(graph, number, "", End::Error(error));
        } else if self.names.get(number).is_some_and(|name| name == text) {
            // The name, repeated.
        } else if let Some(line) = log_line(text) {
            graph.log_line(number, line);
        } else {
            let text = without_time(text);
            let (item, current, total) = counter(text).unwrap_or((text, 0, None));
            graph.status(number, item, current, total);
        }
        Vec::new()
    }
}

enum End<'a> {
    Started,
    Cached,
    Done,
    Error(&'a str),
}

fn update(graph: &mut Graph, id: &str, name: &str, end: End<'_>) {
    graph.message([id]);
    graph.vertex(&VertexUpdate {
        id,
        name,
        started: true,
        completed: !matches!(end, End::Started),
        cached: matches!(end, End::Cached),
        error: if let End::Error(error) = end { error } else { "" },
    });
}

/// `#12 text` → (`12`, `text`)
fn split(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix('#')?;
    let (number, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some((number, text))
}

/// `0.1s` → 0.1
fn seconds(text: &str) -> Option<f64> {
    text.strip_suffix('s')?.parse().ok()
}

/// `0.108 text` → `text`; the time since the step began has one to three decimals.
fn log_line(text: &str) -> Option<&str> {
    let (time, line) = text.split_once(' ').unwrap_or((text, ""));
    let (whole, decimals) = time.split_once('.')?;
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    (digits(whole) && digits(decimals) && decimals.len() <= 3).then_some(line)
}

/// `exporting layers 0.1s done` → `exporting layers`
fn without_time(text: &str) -> &str {
    let text = text.strip_suffix(" done").unwrap_or(text);
    match text.rsplit_once(' ') {
        Some((rest, time)) if seconds(time).is_some() => rest,
        _ => text,
    }
}

/// `sha256:1234 2.10MB / 3.62MB` → (`sha256:1234`, 2100000, 3620000)
fn counter(text: &str) -> Option<(&str, u64, Option<u64>)> {
    let (rest, last) = text.rsplit_once(' ')?;
    match rest.strip_suffix(" /").and_then(|rest| rest.rsplit_once(' ')) {
        Some((item, current)) => Some((item, size(current)?, Some(size(last)?))),
        None => Some((rest, size(last)?, None)),
    }
}

/// `2.10MB` → 2100000; the units are those of Go's `units.HumanSize` and `units.Bytes`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes are positive and far below 2^53"
)]
fn size(text: &str) -> Option<u64> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[number.len()..] {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        _ => return None,
    };
    let value: f64 = number.parse().ok()?;
    (value >= 0.0).then_some((value * factor) as u64)
}

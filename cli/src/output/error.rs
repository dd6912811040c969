//! Errors as the user meets them: what happened, why, what to do next.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::io;

use serde_json::{Map, Value, json};
use windlass_core::Error;

use super::clean::clean;
use super::style::Style;
use crate::exit_code::ExitCode;

/// The error as text: message, causes, source line, log, and after a blank line the hints.
pub(crate) fn as_text(error: &Error, style: Style) -> String {
    as_text_after("error:", error, style)
}

/// The same where something else says that it is an error.
pub(crate) fn as_text_after(prefix: &str, error: &Error, style: Style) -> String {
    let mut text = format!("{} {}", style.failure(prefix), indent(error.message()));
    for cause in causes(error) {
        append(&mut text, &format!("\n  {} {}", style.bold("cause:"), indent(&cause)));
    }
    for (name, value) in error.details() {
        append(&mut text, &format!("\n  {name}: {}", indent(value)));
    }
    if let Some(line) = error.source_line() {
        let (file, number) = (line.file.display().to_string(), line.line);
        let quoted = clean(line.text.trim_end());
        append(&mut text, &format!("\n\n  {}:{number}\n  {number:>4} | {quoted}", clean(&file)));
    }
    if !error.log_tail().is_empty() {
        append(&mut text, &format!("\n\n  {}", style.dim("last lines of the log:")));
        for line in error.log_tail() {
            append(&mut text, &format!("\n  | {}", clean(line)));
        }
    }
    let mut separator = "\n\n";
    for hint in hints(error) {
        append(&mut text, &format!("{separator}{} {}", style.hint("hint:"), indent(&hint)));
        separator = "\n";
    }
    text
}

/// Message and causes in one line, for tables.
pub(crate) fn in_one_line(error: &Error) -> String {
    std::iter::once(error.message().to_owned()).chain(causes(error)).collect::<Vec<_>>().join(": ")
}

/// The error as one line of JSON, with the code that the program ends with.
pub(crate) fn as_json(error: &Error, code: ExitCode) -> String {
    let details: Map<String, Value> =
        error.details().iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect();
    json!({
        "error": {
            "kind": error.kind(),
            "message": error.message(),
            "causes": causes(error),
            "details": details,
            "source_line": error.source_line(),
            "log_tail": error.log_tail(),
            "hints": hints(error),
            "exit_code": code as u8,
        }
    })
    .to_string()
}

/// The chain of sources. A cause whose words are part of the line above is left out: many crates
/// repeat their source in their own text.
fn causes(error: &Error) -> Vec<String> {
    let mut causes: Vec<String> = Vec::new();
    let mut above = error.message().to_owned();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string().trim().trim_end_matches('.').to_owned();
        if !text.is_empty() && !above.contains(&text) {
            causes.push(text.clone());
            above = text;
        }
        next = cause.source();
    }
    causes
}

/// What to do next. That a disk is full is met in a hundred places, and the way out is always the same.
fn hints(error: &Error) -> Vec<String> {
    let chain = std::iter::successors(error.source(), |cause| (*cause).source());
    let is_full = |cause: &(dyn StdError + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::StorageFull)
    };
    let mut hints = error.hints().to_vec();
    if hints.is_empty() && chain.into_iter().any(is_full) {
        hints.push("free some space; `windlass image prune` removes what no image needs".to_owned());
    }
    hints
}

/// A message of several lines stays under its first word.
fn indent(text: &str) -> String {
    clean(text.trim_end()).replace('\n', "\n    ")
}

fn append(text: &mut String, more: &str) {
    // Writing to a string cannot fail.
    let _ = text.write_str(more);
}

#[cfg(test)]
mod tests {
    use windlass_core::ErrorKind;
    use windlass_core::error::SourceLine;

    use super::*;

    fn example() -> Error {
        let refused = Error::new(ErrorKind::Denied, "`ghcr.io` answered 401")
            .with_source(std::io::Error::other("`ghcr.io` answered 401"));
        Error::new(ErrorKind::Denied, "could not push `ghcr.io/acme/agent:1.4`")
            .with_source(refused)
            .with_detail("attempt", "3")
            .with_source_line(SourceLine { file: "Dockerfile".into(), line: 3, text: "RUN x\x1b[2J".into() })
            .with_log_tail(vec!["a".into(), "b".into()])
            .with_hint("run `docker login ghcr.io`")
            .with_hint("then build again")
    }

    #[test]
    fn a_full_disk_says_how_to_get_room() {
        let full = Error::new(ErrorKind::LocalIo, "could not write `x`")
            .with_source(io::Error::from(io::ErrorKind::StorageFull));
        assert!(as_text(&full, Style::new(false)).contains("`windlass image prune`"));
        assert!(!as_text(&example(), Style::new(false)).contains("prune"));
    }

    #[test]
    fn text_has_every_part_once() {
        assert_eq!(
            as_text(&example(), Style::new(false)),
            "error: could not push `ghcr.io/acme/agent:1.4`\n  cause: `ghcr.io` answered 401\n  attempt: 3\n\n  \
             Dockerfile:3\n     3 | RUN x\n\n  last lines of the log:\n  | a\n  | b\n\n\
             hint: run `docker login ghcr.io`\nhint: then build again"
        );
    }

    #[test]
    fn json_is_one_line_with_the_same() {
        let text = as_json(&example(), ExitCode::of(example().kind()));
        assert!(!text.contains('\n'));
        let value: Value = serde_json::from_str(&text).expect("valid JSON");
        assert_eq!(value["error"]["kind"], "denied");
        assert_eq!(value["error"]["exit_code"], 3);
        assert_eq!(value["error"]["causes"], json!(["`ghcr.io` answered 401"]));
        assert_eq!(value["error"]["source_line"]["line"], 3);
    }
}

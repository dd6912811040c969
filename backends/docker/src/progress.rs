//! What a build says while it runs, turned into events.
//!
//! [`graph`] keeps the steps and emits the events; [`rawjson`] and [`plain`] read the two forms in
//! which buildx speaks. What is neither (warnings of the docker CLI, the final `ERROR:` with its
//! excerpt of the Dockerfile) is kept as text for the error message.

mod graph;
mod plain;
mod rawjson;

use std::collections::VecDeque;

use windlass_core::events::Events;

pub(crate) use graph::{FailedStep, Graph, VertexUpdate};

/// How many lines of plain text are kept: buildx's error with its excerpt has some twenty.
const TEXT_LINES: usize = 200;
/// Longest line that is looked at as a whole; what is longer comes in pieces.
const LINE_BYTES: usize = 1024 * 1024;

/// The form in which buildx writes its progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `--progress=rawjson`, from buildx 0.13.
    RawJson,
    /// `--progress=plain`.
    Plain,
}

impl Format {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RawJson => "rawjson",
            Self::Plain => "plain",
        }
    }
}

/// Reads the standard error of buildx as it comes.
#[derive(Debug)]
pub(crate) struct Progress {
    reader: Reader,
    graph: Graph,
    line: Vec<u8>,
    text: VecDeque<String>,
}

#[derive(Debug)]
enum Reader {
    RawJson(rawjson::Reader),
    Plain(plain::Reader),
}

/// What is left when buildx has ended.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The step that failed, if one did.
    pub(crate) failed: Option<FailedStep>,
    /// The last lines that were not progress.
    pub(crate) text: Vec<String>,
}

impl Progress {
    pub(crate) fn new(format: Format, events: Events) -> Self {
        let reader = match format {
            Format::RawJson => Reader::RawJson(rawjson::Reader::default()),
            Format::Plain => Reader::Plain(plain::Reader::default()),
        };
        Self { reader, graph: Graph::new(events), line: Vec::new(), text: VecDeque::new() }
    }

    /// Takes the next bytes, cut anywhere.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.line.len() >= LINE_BYTES {
                self.take_line();
            }
        }
    }

    /// Ends all steps: those still open were stopped.
    pub(crate) fn finish(mut self) -> Told {
        if !self.line.is_empty() {
            self.take_line();
        }
        if let Reader::RawJson(reader) = &mut self.reader {
            for line in reader.rest() {
                keep(&mut self.text, line);
            }
        }
        Told { failed: self.graph.finish(), text: self.text.into() }
    }

    fn take_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        let line = line.trim_end_matches(['\n', '\r']);
        let text = match &mut self.reader {
            Reader::RawJson(reader) => reader.line(line, &mut self.graph),
            Reader::Plain(reader) => reader.line(line, &mut self.graph),
        };
        for line in text {
            keep(&mut self.text, line);
        }
        self.line.clear();
    }
}

fn keep(text: &mut VecDeque<String>, line: String) {
    if text.len() == TEXT_LINES {
        text.pop_front();
    }
    text.push_back(line);
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use windlass_core::events::{Event, EventSink, StepOutcome};

    use super::*;

    const RAWJSON: &str = include_str!("progress/fixtures/rawjson-0.13.txt");
    const PLAIN: &str = include_str!("progress/fixtures/plain-0.13.txt");

    /// Events in one line each, with the names of the steps instead of their numbers.
    #[derive(Default)]
    struct Recorder(Mutex<Recorded>);

    #[derive(Default)]
    struct Recorded {
        lines: Vec<String>,
        names: Vec<(u64, String)>,
    }

    impl EventSink for Recorder {
        fn emit(&self, event: Event) {
            let Recorded { lines, names } = &mut *self.0.lock().expect("not poisoned");
            let name = |step: u64, names: &[(u64, String)]| {
                names.iter().find(|(id, _)| *id == step).expect("a step that was started").1.clone()
            };
            lines.push(match event {
                Event::StepStarted { step, name } => {
                    names.push((step.0, name.clone()));
                    format!("start {name}")
                }
                Event::StepProgressed { step, item, current, total, .. } => {
                    format!("count {}: {item} {current} {total:?}", name(step.0, names))
                }
                Event::StepLogged { step, line } => format!("log {}: {line}", name(step.0, names)),
                Event::StepFinished { step, outcome } => format!(
                    "{} {}",
                    match outcome {
                        StepOutcome::Done => "done",
                        StepOutcome::Cached => "cached",
                        StepOutcome::Failed(_) => "failed",
                        StepOutcome::Cancelled => "cancelled",
                    },
                    name(step.0, names)
                ),
                Event::Warned { message } => format!("warn {message}"),
            });
        }
    }

    /// Reads an output in pieces of the given size.
    fn read(format: Format, output: &str, piece: usize) -> (Vec<String>, Told) {
        let recorder = Arc::new(Recorder::default());
        let mut progress = Progress::new(format, Events::new(recorder.clone()));
        for piece in output.as_bytes().chunks(piece) {
            progress.feed(piece);
        }
        let told = progress.finish();
        let lines = recorder.0.lock().expect("not poisoned").lines.clone();
        (lines, told)
    }

    fn failed_step() -> FailedStep {
        FailedStep {
            name: "[last 2/2] RUN echo one && echo two && exit 3".to_owned(),
            error: "process \"/bin/sh -c echo one && echo two && exit 3\" did not complete successfully: \
                    exit code: 3"
                .to_owned(),
            log_tail: vec!["one".to_owned(), "two".to_owned()],
        }
    }

    const ERROR: &str = "ERROR: failed to solve: process \"/bin/sh -c echo one && echo two && exit 3\" \
                         did not complete successfully: exit code: 3";

    #[test]
    fn rawjson_becomes_events() {
        let (lines, told) = read(Format::RawJson, RAWJSON, usize::MAX);
        let expected = [
            "start [internal] load .dockerignore",
            "count [internal] load .dockerignore: transferring context: 2 None",
            "done [internal] load .dockerignore",
            "start [base 1/2] FROM 127.0.0.1:5591/base/busybox:1",
            "start [internal] load build context",
            "done [base 1/2] FROM 127.0.0.1:5591/base/busybox:1",
            "start [base 2/2] RUN echo hello; echo err >&2; printf partial",
            "count [internal] load build context: transferring context: 24 None",
            "count [internal] load build context: transferring context: 34 None",
            "done [internal] load build context",
            "log [base 2/2] RUN echo hello; echo err >&2; printf partial: hello",
            "log [base 2/2] RUN echo hello; echo err >&2; printf partial: err",
            "log [base 2/2] RUN echo hello; echo err >&2; printf partial: partial",
            "done [base 2/2] RUN echo hello; echo err >&2; printf partial",
            "start [last 1/2] COPY a.txt /a.txt",
            "done [last 1/2] COPY a.txt /a.txt",
            "start [last 2/2] RUN echo one && echo two && exit 3",
            "log [last 2/2] RUN echo one && echo two && exit 3: one",
            "log [last 2/2] RUN echo one && echo two && exit 3: two",
            "failed [last 2/2] RUN echo one && echo two && exit 3",
        ];
        assert_eq!(lines, expected);
        assert_eq!(told.failed, Some(failed_step()));
        assert_eq!(told.text.first().map(String::as_str), Some("Dockerfile:5"));
        assert_eq!(told.text.last().map(String::as_str), Some(ERROR));
    }

    #[test]
    fn where_the_pipe_cuts_does_not_matter() {
        let whole = read(Format::RawJson, RAWJSON, usize::MAX).0;
        assert_eq!(read(Format::RawJson, RAWJSON, 7).0, whole);
        let whole = read(Format::Plain, PLAIN, usize::MAX).0;
        assert_eq!(read(Format::Plain, PLAIN, 7).0, whole);
    }

    #[test]
    fn later_versions_write_one_document_a_line() {
        let (documents, rest) = RAWJSON.split_at(RAWJSON.find("Dockerfile:5").expect("in the fixture"));
        let mut compact = String::new();
        for document in serde_json::Deserializer::from_str(documents).into_iter::<serde_json::Value>() {
            compact.push_str(&document.expect("valid").to_string());
            compact.push('\n');
        }
        compact.push_str(rest);
        assert_eq!(read(Format::RawJson, &compact, usize::MAX).0, read(Format::RawJson, RAWJSON, 100).0);
    }

    #[test]
    fn plain_text_becomes_events() {
        let (lines, told) = read(Format::Plain, PLAIN, usize::MAX);
        for expected in [
            "count [internal] load build definition from Dockerfile: transferring dockerfile: 198 None",
            "done [internal] load .dockerignore",
            "cached [base 2/2] RUN echo hello; echo err >&2; printf partial",
            "log [last 2/2] RUN echo one && echo two && exit 3: one",
            "failed [last 2/2] RUN echo one && echo two && exit 3",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{expected}\n{lines:#?}");
        }
        assert_eq!(lines.iter().filter(|line| line.starts_with("start ")).count(), 8, "{lines:#?}");
        assert_eq!(told.failed, Some(failed_step()));
        assert_eq!(told.text.last().map(String::as_str), Some(ERROR));
    }

    #[test]
    fn plain_counters_and_activities() {
        let output = "#6 exporting to image\n#6 exporting layers 0.1s done\n#6 naming to x:1 done\n#6 DONE 0.2s\n\
                      #7 [1/1] FROM x\n#7 sha256:12 2.10MB / 3.62MB 0.2s\n#7 ...\n\n#7 [1/1] FROM x\n#7 CANCELED\n";
        let (lines, told) = read(Format::Plain, output, usize::MAX);
        let expected = [
            "start exporting to image",
            "log exporting to image: exporting layers",
            "log exporting to image: naming to x:1",
            "done exporting to image",
            "start [1/1] FROM x",
            "count [1/1] FROM x: sha256:12 2100000 Some(3620000)",
            "cancelled [1/1] FROM x",
        ];
        assert_eq!(lines, expected);
        assert_eq!(told.failed, None);
    }

    #[test]
    fn what_is_no_progress_is_text() {
        let output = "WARNING: something\n{\n  \"vertexes\": 3\n}\n{ cut";
        let (lines, told) = read(Format::RawJson, output, usize::MAX);
        assert!(lines.is_empty(), "{lines:?}");
        assert_eq!(told.text, ["WARNING: something", "{", "  \"vertexes\": 3", "}", "{ cut"]);
    }

    #[test]
    fn a_progress_bar_shows_its_last_state_and_steps_left_open_were_cancelled() {
        let output = r#"{"vertexes":[{"digest":"a","name":"RUN x","started":"t"}],
"logs":[{"vertex":"a","stream":1,"data":"MTAlDTIwJQ0zMCUK"}]}"#;
        let (lines, told) = read(Format::RawJson, &output.replace('\n', ""), usize::MAX);
        assert_eq!(lines, ["start RUN x", "log RUN x: 30%", "cancelled RUN x"]);
        assert_eq!(told.failed, None);
    }
}

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

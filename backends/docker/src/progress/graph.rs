//! The steps of a build: their state, and the events that follow from its changes.

use std::collections::{HashMap, HashSet, VecDeque};

use windlass_core::dockerfile::without_credentials;
use windlass_core::events::{Events, Step, Unit};

/// How many of the last lines of each step are kept for the error message.
const TAIL_LINES: usize = 20;
/// An unfinished line longer than this is reported as it is.
const LINE_BYTES: usize = 64 * 1024;

/// The steps of one build.
#[derive(Debug)]
pub(crate) struct Graph {
    events: Events,
    vertices: HashMap<String, Vertex>,
    /// Steps that were completed by the message before.
    ending: Vec<String>,
    failed: Option<String>,
}

#[derive(Debug, Default)]
struct Vertex {
    name: String,
    step: Option<Step>,
    cached: bool,
    error: String,
    tail: VecDeque<String>,
    /// Unfinished lines, by stream.
    partial: [Vec<u8>; 2],
    activities: Vec<String>,
}

/// What is new about a step.
#[derive(Debug)]
pub(crate) struct VertexUpdate<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) started: bool,
    pub(crate) completed: bool,
    pub(crate) cached: bool,
    pub(crate) error: &'a str,
}

/// The step that made a build fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailedStep {
    /// As BuildKit names it: `[build 2/3] RUN make`.
    pub(crate) name: String,
    /// Why, in BuildKit's words.
    pub(crate) error: String,
    /// The last lines it printed.
    pub(crate) log_tail: Vec<String>,
}

impl Graph {
    pub(crate) fn new(events: Events) -> Self {
        Self { events, vertices: HashMap::new(), ending: Vec::new(), failed: None }
    }

    /// Takes the new state of a step.
    pub(crate) fn vertex(&mut self, update: &VertexUpdate<'_>) {
        let vertex = self.vertices.entry(update.id.to_owned()).or_default();
        if !update.name.is_empty() {
            // It quotes the Dockerfile, and BuildKit leaves passwords in what RUN runs.
            vertex.name = without_credentials(update.name);
        }
        if !update.started && !update.completed {
            return;
        }
        if vertex.step.is_none() {
            vertex.step = Some(self.events.step(vertex.name.clone()));
            vertex.activities.clear();
        }
        self.ending.retain(|id| id != update.id);
        vertex.cached = update.cached;
        update.error.clone_into(&mut vertex.error);
        if !update.error.is_empty() {
            // When one step fails, its siblings end as cancelled: they are not the cause.
            if self.failed.is_none() && !is_cancelled(update.error) {
                self.failed = Some(update.id.to_owned());
            }
            vertex.end();
        } else if update.completed {
            self.ending.push(update.id.to_owned());
        }
    }

    /// Begins a message about these steps. BuildKit often reports a step as completed and at once
    /// started again: a step is over when the next message does not take it up again.
    pub(crate) fn message<'a>(&mut self, steps: impl IntoIterator<Item = &'a str>) {
        let again: HashSet<&str> = steps.into_iter().collect();
        for id in std::mem::take(&mut self.ending) {
            if again.contains(id.as_str()) {
                self.ending.push(id);
            } else if let Some(vertex) = self.vertices.get_mut(&id) {
                vertex.end();
            }
        }
    }

    /// Takes the state of a counter. One that counts nothing names an activity, such as
    /// `naming to docker.io/library/x:1`; it becomes a line of the log.
    pub(crate) fn status(&mut self, id: &str, item: &str, current: u64, total: Option<u64>) {
        let Some(vertex) = self.vertices.get_mut(id) else { return };
        let Some(step) = &vertex.step else { return };
        if current > 0 || total.is_some() {
            step.progress_of(item, current, total, Unit::Bytes);
        } else if !item.ends_with(':') && !vertex.activities.iter().any(|known| known == item) {
            step.log(item);
            vertex.activities.push(item.to_owned());
        }
    }

    /// Takes bytes that a step printed, cut anywhere.
    pub(crate) fn log(&mut self, id: &str, stream: usize, bytes: &[u8]) {
        let Some(vertex) = self.vertices.get_mut(id) else { return };
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let partial = &mut vertex.partial[stream];
            partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || partial.len() >= LINE_BYTES {
                let line = std::mem::take(partial);
                vertex.print(&line);
            }
        }
    }

    /// Takes a whole line that a step printed.
    pub(crate) fn log_line(&mut self, id: &str, line: &str) {
        if let Some(vertex) = self.vertices.get_mut(id) {
            vertex.print(line.as_bytes());
        }
    }

    /// Takes a warning of the builder.
    pub(crate) fn warning(&self, short: &str, url: &str) {
        if url.is_empty() {
            self.events.warn(short);
        } else {
            self.events.warn(format!("{short} ({url})"));
        }
    }

    /// Says whether a step is known.
    pub(crate) fn knows(&self, id: &str) -> bool {
        self.vertices.contains_key(id)
    }

    /// Ends the build: steps that are still open were stopped.
    pub(crate) fn finish(mut self) -> Option<FailedStep> {
        self.message([]);
        let vertex = self.vertices.get_mut(&self.failed?)?;
        vertex.flush();
        Some(FailedStep {
            name: std::mem::take(&mut vertex.name),
            error: std::mem::take(&mut vertex.error),
            log_tail: std::mem::take(&mut vertex.tail).into(),
        })
    }
}

impl Vertex {
    fn end(&mut self) {
        self.flush();
        let Some(step) = self.step.take() else { return };
        match () {
            () if is_cancelled(&self.error) => drop(step),
            () if !self.error.is_empty() => step.failed(&self.error),
            () if self.cached => step.cached(),
            () => step.done(),
        }
    }

    fn flush(&mut self) {
        for stream in 0..self.partial.len() {
            let line = std::mem::take(&mut self.partial[stream]);
            if !line.is_empty() {
                self.print(&line);
            }
        }
    }

    fn print(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches(['\n', '\r']);
        // What a program overwrites with carriage returns, such as a progress bar, is seen last.
        let line = line.rsplit('\r').next().unwrap_or(line);
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line.to_owned());
        if let Some(step) = &self.step {
            step.log(line);
        }
    }
}

fn is_cancelled(error: &str) -> bool {
    error.contains("context canceled") || error == "CANCELED"
}

//! What happens during a build, as records: a step, its counters, its log, its warnings.
//!
//! The engine only emits; who shows it, and how, is decided by the [`EventSink`]. Four records
//! carry the output of any builder, as in BuildKit's `client/graph.go`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Names a step within one process; numbers are given in the order in which steps start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct StepId(pub u64);

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepOutcome {
    /// The work was done.
    Done,
    /// The result was already there.
    Cached,
    /// It failed, in one line.
    Failed(String),
    /// It was stopped before it ended.
    Cancelled,
}

/// What a step counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Files, or other entries of a tree.
    Entries,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A step began.
    StepStarted {
        /// Which step.
        step: StepId,
        /// What it does, as a short phrase: `[build 2/5] COPY . /src`.
        name: String,
    },
    /// A step got on.
    StepProgressed {
        /// Which step.
        step: StepId,
        /// What of the step is counted, where it counts several things: a layer's digest.
        /// Empty where it counts one.
        item: String,
        /// How far it is.
        current: u64,
        /// How far it will go, when that is known.
        total: Option<u64>,
        /// What is counted.
        unit: Unit,
    },
    /// A step printed something.
    StepLogged {
        /// Which step.
        step: StepId,
        /// What was printed: one line, or several that came together, with `\n` between them and none at
        /// the end.
        line: String,
    },
    /// A step ended.
    StepFinished {
        /// Which step.
        step: StepId,
        /// How.
        outcome: StepOutcome,
    },
    /// Something that does not stop the build but that the user should know.
    Warned {
        /// What, in one line.
        message: String,
    },
}

/// Takes the events of a build. Must return quickly: builders call it from their hot paths.
pub trait EventSink: Send + Sync {
    /// Takes one event.
    fn emit(&self, event: Event);
}

/// Forgets every event.
#[derive(Debug, Default)]
pub struct Silent;

impl EventSink for Silent {
    fn emit(&self, _: Event) {}
}

/// Where a build reports to: a cheap handle on an [`EventSink`].
#[derive(Clone)]
pub struct Events(Arc<dyn EventSink>);

impl Events {
    /// Makes a handle on a sink.
    pub fn new(sink: Arc<dyn EventSink>) -> Self {
        Self(sink)
    }

    /// Makes a handle that forgets everything.
    pub fn silent() -> Self {
        Self(Arc::new(Silent))
    }

    /// Passes one event on.
    pub fn emit(&self, event: Event) {
        self.0.emit(event);
    }

    /// Warns the user.
    pub fn warn(&self, message: impl Into<String>) {
        self.emit(Event::Warned { message: message.into() });
    }

    /// Starts a step. It ends when [`Step::done`] or a sibling is called; a step that is dropped
    /// before that counts as cancelled.
    pub fn step(&self, name: impl Into<String>) -> Step {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = StepId(NEXT.fetch_add(1, Ordering::Relaxed));
        self.emit(Event::StepStarted { step: id, name: name.into() });
        Step { id, events: self.clone(), open: true }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

/// A step that is under way.
#[derive(Debug)]
pub struct Step {
    id: StepId,
    events: Events,
    open: bool,
}

impl Step {
    /// The number of this step.
    pub fn id(&self) -> StepId {
        self.id
    }

    /// Reports a line of output, or several with `\n` between them, which costs less than one by one.
    pub fn log(&self, line: impl Into<String>) {
        self.events.emit(Event::StepLogged { step: self.id, line: line.into() });
    }

    /// Reports how far the step is, where it counts one thing.
    pub fn progress(&self, current: u64, total: Option<u64>, unit: Unit) {
        self.progress_of("", current, total, unit);
    }

    /// Reports how far one item of the step is, such as a layer.
    pub fn progress_of(&self, item: &str, current: u64, total: Option<u64>, unit: Unit) {
        let item = item.to_owned();
        self.events.emit(Event::StepProgressed { step: self.id, item, current, total, unit });
    }

    /// Ends the step: the work was done.
    pub fn done(self) {
        self.finish(StepOutcome::Done);
    }

    /// Ends the step: the result was already there.
    pub fn cached(self) {
        self.finish(StepOutcome::Cached);
    }

    /// Ends the step: it failed.
    pub fn failed(self, why: impl fmt::Display) {
        self.finish(StepOutcome::Failed(why.to_string()));
    }

    /// Ends the step as its result says, and hands the result on.
    ///
    /// # Errors
    /// The error of `result`, unchanged.
    pub fn end<T>(self, result: crate::Result<T>) -> crate::Result<T> {
        match &result {
            Ok(_) => self.done(),
            Err(error) if error.kind() == crate::ErrorKind::Cancelled => drop(self),
            Err(error) => self.failed(error),
        }
        result
    }

    fn finish(mut self, outcome: StepOutcome) {
        self.open = false;
        self.events.emit(Event::StepFinished { step: self.id, outcome });
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if self.open {
            let outcome = StepOutcome::Cancelled;
            self.events.emit(Event::StepFinished { step: self.id, outcome });
        }
    }
}

//! The log of one image: everything that happens while it is built, with its time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use jiff::Timestamp;

use super::manifest::compact;
use crate::error::{ErrorKind, Result, ResultExt};
use crate::events::{Event, EventSink, StepId, StepOutcome};

/// Is told the name of a step that began, and every warning.
pub(super) trait Listener: Send + Sync {
    fn step(&self, name: &str);
    fn warning(&self, message: &str);
}

/// Writes events as lines, and passes on what a table shows.
pub(super) struct ImageLog {
    path: PathBuf,
    state: Mutex<State>,
    listener: Arc<dyn Listener>,
}

struct State {
    writer: BufWriter<File>,
    started: Instant,
    steps: HashMap<StepId, Instant>,
}

impl ImageLog {
    /// Begins `DIRECTORY/build-TIME.log`; one that is there is never written over. Blocking.
    pub(super) fn create(directory: &Path, now: Timestamp, listener: Arc<dyn Listener>) -> Result<Self> {
        let failed = || format!("could not write a log to `{}`", directory.display());
        std::fs::create_dir_all(directory).or_error(ErrorKind::LocalIo, failed)?;
        let time = compact(now);
        for number in 1_u32.. {
            let suffix = if number == 1 { String::new() } else { format!("-{number}") };
            let path = directory.join(format!("build-{time}{suffix}.log"));
            match File::create_new(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                file => {
                    let writer = BufWriter::new(file.or_error(ErrorKind::LocalIo, failed)?);
                    let state = State { writer, started: Instant::now(), steps: HashMap::new() };
                    return Ok(Self { path, state: Mutex::new(state), listener });
                }
            }
        }
        Err(crate::Error::new(ErrorKind::LocalIo, failed()))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line of our own.
    pub(super) fn say(&self, text: &str) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).line(text);
    }

    /// Hands everything to the system. A log that cannot be written costs no image.
    pub(super) fn flush(&self) {
        let _ = self.state.lock().unwrap_or_else(PoisonError::into_inner).writer.flush();
    }
}

impl State {
    fn line(&mut self, text: &str) {
        let since = self.started.elapsed();
        let before = format!("{:>5}.{:03} ", since.as_secs(), since.subsec_millis());
        for line in text.split('\n') {
            let _ = writeln!(self.writer, "{before}{line}");
        }
    }
}

impl EventSink for ImageLog {
    fn emit(&self, event: Event) {
        if let Event::StepStarted { name, .. } = &event {
            self.listener.step(name);
        }
        if let Event::Warned { message } = &event {
            self.listener.warning(message);
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::StepStarted { step, name } => {
                state.steps.insert(step, Instant::now());
                state.line(&format!("#{} {name}", step.0));
            }
            Event::StepLogged { step, line } => {
                let text: Vec<String> =
                    line.split('\n').map(|line| format!("#{} | {line}", step.0)).collect();
                state.line(&text.join("\n"));
            }
            Event::StepFinished { step, outcome } => {
                let seconds = state.steps.remove(&step).map_or(0.0, |began| began.elapsed().as_secs_f64());
                let text = match outcome {
                    StepOutcome::Done => format!("done, {seconds:.1}s"),
                    StepOutcome::Cached => "cached".to_owned(),
                    StepOutcome::Failed(why) => format!("failed: {why}"),
                    StepOutcome::Cancelled => "cancelled".to_owned(),
                };
                state.line(&format!("#{} {text}", step.0));
            }
            Event::Warned { message } => state.line(&format!("warning: {message}")),
            Event::StepProgressed { .. } => {}
        }
    }
}

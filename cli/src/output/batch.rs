//! The progress of a batch: a table that moves on a terminal, lines that stay elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use windlass_core::batch::{BatchEvent, BatchSink, Record, Status};

use super::style::Style;
use super::table::duration;
use super::{clean, to_stderr};

/// Shows the events of a batch.
pub(crate) trait BatchDisplay: BatchSink {
    /// Takes down what moves.
    fn finish(&self);
    /// The same for who only has events to tell.
    fn as_sink(self: Arc<Self>) -> Arc<dyn BatchSink>;
}

/// What has been counted so far.
#[derive(Debug, Default)]
struct Counts {
    total: usize,
    done: usize,
    built: usize,
    skipped: usize,
    failed: usize,
    /// Warnings that were shown: the same about three hundred images is said once.
    warned: BTreeSet<String>,
}

impl Counts {
    fn begin(&mut self, total: usize, finished_before: usize) {
        (self.total, self.done) = (total, finished_before);
    }

    fn add(&mut self, record: &Record) {
        self.done += 1;
        match record.status {
            Status::Built => self.built += 1,
            Status::SkippedRemoteExists => self.skipped += 1,
            Status::Failed => self.failed += 1,
        }
    }

    /// `[ 12/300] built    name  0.3s`
    fn line(&self, record: &Record, style: Style) -> String {
        let width = self.total.to_string().len();
        let word = format!("{:<7}", record.status.label());
        let word = match record.status {
            Status::Built => style.good(&word),
            Status::SkippedRemoteExists => style.dim(&word),
            Status::Failed => style.failure(&word),
        };
        let took = duration(Duration::from_secs_f64(record.duration_seconds.max(0.0)));
        let mut line =
            format!("[{:>width$}/{}] {word} {}  {took}", self.done, self.total, clean(&record.name));
        if let Some(error) = &record.error {
            line += &format!("\n  {}", clean(error).replace('\n', "\n  "));
        }
        line
    }

    /// What an event says in lines that stay.
    fn words(&mut self, event: &BatchEvent<'_>, style: Style) -> Option<String> {
        Some(match event {
            BatchEvent::Began { total, finished_before } => {
                self.begin(*total, *finished_before);
                let images = if *total == 1 { "image" } else { "images" };
                match finished_before {
                    0 => format!("{total} {images}"),
                    before => format!("{total} {images}, {before} finished by an earlier run"),
                }
            }
            BatchEvent::Finished { record } => {
                self.add(record);
                self.line(record, style)
            }
            BatchEvent::Warned { name, message } => {
                if !self.warned.insert((*message).to_owned()) {
                    return None;
                }
                format!("{} {}: {}", style.warning("warning:"), clean(name), clean(message))
            }
            BatchEvent::Retrying { name, attempt, wait_seconds, error } => {
                let (name, error) = (clean(name), clean(error));
                let word = style.warning("warning:");
                format!("{word} {name}: {error}; attempt {attempt} in {wait_seconds:.0} s")
            }
            BatchEvent::Stopped { reason } => format!("{} {}", style.warning("stopping:"), clean(reason)),
            BatchEvent::StillRunning { names } => {
                format!("[{}/{}] under way: {}", self.done, self.total, clean(&names.join(", ")))
            }
            BatchEvent::Started { .. } | BatchEvent::Step { .. } => return None,
        })
    }
}

/// Lines that stay.
#[derive(Debug)]
pub(super) struct BatchLines {
    style: Style,
    counts: Mutex<Counts>,
}

impl BatchLines {
    pub(super) fn new(style: Style) -> Self {
        Self { style, counts: Mutex::default() }
    }
}

impl BatchSink for BatchLines {
    fn emit(&self, event: BatchEvent<'_>) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(words) = counts.words(&event, self.style) {
            to_stderr(&words);
        }
    }
}

impl BatchDisplay for BatchLines {
    fn finish(&self) {}
    fn as_sink(self: Arc<Self>) -> Arc<dyn BatchSink> {
        self
    }
}

/// One JSON object a line.
#[derive(Debug)]
pub(super) struct BatchJson;

impl BatchSink for BatchJson {
    fn emit(&self, event: BatchEvent<'_>) {
        let Ok(Value::Object(mut fields)) = serde_json::to_value(&event) else { return };
        fields.insert("time".to_owned(), jiff::Timestamp::now().to_string().into());
        to_stderr(&Value::Object(fields).to_string());
    }
}

impl BatchDisplay for BatchJson {
    fn finish(&self) {}
    fn as_sink(self: Arc<Self>) -> Arc<dyn BatchSink> {
        self
    }
}

/// Nothing.
#[derive(Debug)]
pub(super) struct BatchSilent;

impl BatchSink for BatchSilent {
    fn emit(&self, _: BatchEvent<'_>) {}
}

impl BatchDisplay for BatchSilent {
    fn finish(&self) {}
    fn as_sink(self: Arc<Self>) -> Arc<dyn BatchSink> {
        self
    }
}

/// A line for each image that is under way, and one for the whole; what has ended stands above.
pub(super) struct BatchTable {
    style: Style,
    bars: MultiProgress,
    state: Mutex<TableState>,
}

#[derive(Default)]
struct TableState {
    counts: Counts,
    whole: Option<ProgressBar>,
    rows: BTreeMap<String, Row>,
}

struct Row {
    bar: ProgressBar,
    step: String,
}

impl BatchTable {
    pub(super) fn new(style: Style) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(12));
        Self { style, bars, state: Mutex::default() }
    }

    fn bar(&self, template: &str, first: bool) -> ProgressBar {
        let bar = ProgressBar::new_spinner();
        let bar = if first { self.bars.insert(0, bar) } else { self.bars.add(bar) };
        let style = ProgressStyle::with_template(template);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }
}

impl TableState {
    fn show(&self, began: Instant) {
        let Some(whole) = &self.whole else { return };
        let counts = &self.counts;
        let mut text = format!("{}/{}  {} built", counts.done, counts.total, counts.built);
        for (count, word) in [(counts.skipped, "there already"), (counts.failed, "failed")] {
            if count > 0 {
                text += &format!(", {count} {word}");
            }
        }
        let made = counts.built + counts.skipped + counts.failed;
        let left = counts.total - counts.done;
        if made > 0 && left > 0 {
            let seconds = began.elapsed().as_secs_f64() / made as f64 * left as f64;
            text += &format!(", about {} left", duration(Duration::from_secs_f64(seconds)));
        }
        whole.set_message(text);
    }
}

impl BatchSink for BatchTable {
    fn emit(&self, event: BatchEvent<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &event {
            BatchEvent::Started { name } => {
                let row =
                    Row { bar: self.bar("  {spinner} {wide_msg} {elapsed}", false), step: String::new() };
                row.bar.set_message(clean(name));
                state.rows.insert((*name).to_owned(), row);
            }
            BatchEvent::Step { name, step } => {
                if let Some(row) = state.rows.get_mut(*name) {
                    row.step = clean(step).replace(['\n', '\t'], " ");
                    row.bar.set_message(format!("{}  {}", clean(name), self.style.dim(&row.step)));
                }
            }
            BatchEvent::Finished { record } => {
                if let Some(row) = state.rows.remove(&record.name) {
                    row.bar.finish_and_clear();
                    self.bars.remove(&row.bar);
                }
            }
            // The table shows it.
            BatchEvent::StillRunning { .. } => return,
            _ => {}
        }
        if let Some(words) = state.counts.words(&event, self.style) {
            self.bars.suspend(|| to_stderr(&words));
        }
        if matches!(event, BatchEvent::Began { .. }) {
            state.whole = Some(self.bar("{spinner} {wide_msg} {elapsed}", true));
        }
        if let Some(whole) = &state.whole {
            let began = Instant::now() - whole.elapsed();
            state.show(began);
        }
    }
}

impl BatchDisplay for BatchTable {
    fn finish(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, row) in std::mem::take(&mut state.rows) {
            row.bar.finish_and_clear();
        }
        if let Some(whole) = state.whole.take() {
            whole.finish_and_clear();
        }
    }

    fn as_sink(self: Arc<Self>) -> Arc<dyn BatchSink> {
        self
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn record(status: Status) -> Record {
        Record {
            name: "app".to_owned(),
            entry: String::new(),
            base_image: None,
            target: None,
            tags: Vec::new(),
            status,
            digest: None,
            backend: None,
            error: (status == Status::Failed).then(|| "why\x1b[2J".to_owned()),
            log_path: None,
            attempt_count: 1,
            started_at: Timestamp::UNIX_EPOCH,
            finished_at: Timestamp::UNIX_EPOCH,
            duration_seconds: 0.34,
        }
    }

    #[test]
    fn lines_say_how_far_it_is() {
        let (mut counts, style) = (Counts::default(), Style::new(false));
        let mut words = |event| counts.words(&event, style);
        assert_eq!(
            words(BatchEvent::Began { total: 12, finished_before: 3 }).as_deref(),
            Some("12 images, 3 finished by an earlier run")
        );
        let one = BatchEvent::Began { total: 1, finished_before: 0 };
        assert_eq!(Counts::default().words(&one, style).as_deref(), Some("1 image"));
        let built = record(Status::Built);
        assert_eq!(
            words(BatchEvent::Finished { record: &built }).as_deref(),
            Some("[ 4/12] built   app  0.3s")
        );
        let failed = record(Status::Failed);
        assert_eq!(
            words(BatchEvent::Finished { record: &failed }).as_deref(),
            Some("[ 5/12] failed  app  0.3s\n  why")
        );
        let warned = BatchEvent::Warned { name: "a", message: "m" };
        assert_eq!(words(warned.clone()).as_deref(), Some("warning: a: m"));
        assert_eq!(words(warned), None);
    }
}

//! Progress as lines that move: one a running step, its last log line beside it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use windlass_core::events::{Event, EventSink, StepId, StepOutcome, Unit};

use super::plain::amount;
use super::style::Style;
use super::{Display, clean, to_stderr};

/// Draws on the terminal.
pub(crate) struct Tty {
    style: Style,
    bars: MultiProgress,
    steps: Mutex<BTreeMap<StepId, Running>>,
}

struct Running {
    bar: ProgressBar,
    name: String,
    started: Instant,
    items: BTreeMap<String, (u64, Option<u64>)>,
    amount: String,
    /// The last line of its log.
    last_line: String,
}

impl Tty {
    pub(crate) fn new(style: Style) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(12));
        Self { style, bars, steps: Mutex::default() }
    }

    fn start(&self, name: &str) -> Running {
        let name = clean(name);
        let bar = self.bars.add(ProgressBar::new_spinner());
        let template = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}");
        bar.set_style(template.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_message(name.clone());
        bar.enable_steady_tick(Duration::from_millis(100));
        Running {
            bar,
            name,
            started: Instant::now(),
            items: BTreeMap::new(),
            amount: String::new(),
            last_line: String::new(),
        }
    }

    fn end(&self, running: Running, outcome: &StepOutcome) {
        running.bar.finish_and_clear();
        let seconds = running.started.elapsed().as_secs_f64();
        let name = if running.amount.is_empty() {
            running.name
        } else {
            format!("{} {}", running.name, self.style.dim(&running.amount))
        };
        match outcome {
            StepOutcome::Done => self.line(&format!("{} {name} {seconds:.1}s", self.style.good("✓"))),
            StepOutcome::Cached => self.line(&format!("{} CACHED {name}", self.style.good("✓"))),
            StepOutcome::Cancelled => self.line(&format!("{} {name} cancelled", self.style.warning("-"))),
            // Why, and the end of its log, are in the error that follows.
            StepOutcome::Failed(_) => self.line(&format!("{} {name} failed", self.style.failure("✗"))),
        }
    }

    /// Prints a line that stays, above those that move.
    fn line(&self, text: &str) {
        self.bars.suspend(|| to_stderr(text));
    }
}

impl Running {
    fn show(&self) {
        let mut message = self.name.clone();
        for more in [&self.amount, &self.last_line].into_iter().filter(|more| !more.is_empty()) {
            message += "  ";
            message += more;
        }
        self.bar.set_message(message);
    }

    fn progressed(&mut self, item: String, current: u64, total: Option<u64>, unit: Unit) {
        self.items.insert(item, (current, total));
        self.amount = amount(&self.items, unit);
        self.show();
    }

    fn logged(&mut self, line: &str) {
        if let Some(last) = clean(line).lines().rfind(|line| !line.trim().is_empty()) {
            self.last_line = last.replace('\t', " ");
            self.show();
        }
    }
}

impl EventSink for Tty {
    fn emit(&self, event: Event) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::StepStarted { step, name } => {
                steps.insert(step, self.start(&name));
            }
            Event::StepProgressed { step, item, current, total, unit } => {
                if let Some(running) = steps.get_mut(&step) {
                    running.progressed(item, current, total, unit);
                }
            }
            Event::StepLogged { step, line } => {
                if let Some(running) = steps.get_mut(&step) {
                    running.logged(&line);
                }
            }
            Event::StepFinished { step, outcome } => {
                if let Some(running) = steps.remove(&step) {
                    self.end(running, &outcome);
                }
            }
            Event::Warned { message } => {
                self.line(&format!("{} {}", self.style.warning("warning:"), clean(&message)));
            }
        }
    }
}

impl Display for Tty {
    fn finish(&self) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, running) in std::mem::take(&mut *steps) {
            running.bar.finish_and_clear();
        }
    }
}

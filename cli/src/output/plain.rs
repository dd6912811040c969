//! Progress as lines that stay, in the form of BuildKit's plain output: `#1 [1/3] FROM …`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use windlass_core::events::{Event, EventSink, StepId, StepOutcome, Unit};

use super::clean::cleaned;
use super::style::Style;
use super::table::bytes;
use super::{Display, clean, lines_to_stderr};

/// A step that takes long says every so often how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Prints lines.
#[derive(Debug)]
pub(crate) struct Plain {
    style: Style,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    steps: BTreeMap<StepId, Running>,
    /// The step of the line above: a line of another one is set apart.
    last: Option<StepId>,
    /// What this event makes of lines: they are written in one go.
    out: String,
}

#[derive(Debug)]
struct Running {
    started: Instant,
    said: Instant,
    /// How far each item is.
    items: BTreeMap<String, (u64, Option<u64>)>,
}

impl Plain {
    pub(crate) fn new(style: Style) -> Self {
        Self { style, state: Mutex::default() }
    }
}

impl State {
    /// Adds the lines of a text, each with the number of its step and what else stands before it.
    fn add(&mut self, step: StepId, before: &str, text: &str) {
        self.set_apart(step);
        let before = format!("#{} {before}", step.0);
        for line in cleaned(text).split('\n') {
            for part in [&before, line, "\n"] {
                self.out.push_str(part);
            }
        }
    }

    fn set_apart(&mut self, step: StepId) {
        if self.last.replace(step).is_some_and(|last| last != step) {
            self.out.push('\n');
        }
    }

    fn print(&mut self) {
        lines_to_stderr(&self.out);
        self.out.clear();
    }

    fn progressed(&mut self, step: StepId, item: String, current: u64, total: Option<u64>, unit: Unit) {
        let Some(running) = self.steps.get_mut(&step) else { return };
        running.items.insert(item, (current, total));
        if running.said.elapsed() < PROGRESS_EVERY {
            return;
        }
        running.said = Instant::now();
        let amount = amount(&running.items, unit);
        self.add(step, "", &amount);
    }
}

/// `12.3 MB of 45 MB`, over all items of a step.
pub(super) fn amount(items: &BTreeMap<String, (u64, Option<u64>)>, unit: Unit) -> String {
    let show = |count| match unit {
        Unit::Bytes => bytes(count),
        Unit::Entries => count.to_string(),
    };
    let current = items.values().map(|(current, _)| current).sum();
    match items.values().map(|(_, total)| *total).sum::<Option<u64>>() {
        Some(total) => format!("{} of {}", show(current), show(total)),
        None => show(current),
    }
}

/// `[internal] load: ERROR: why`: how the end of a step is spelled, apart from its time.
fn spell(outcome: &StepOutcome, seconds: f64, style: Style) -> String {
    match outcome {
        StepOutcome::Done => format!("DONE {seconds:.1}s"),
        StepOutcome::Cached => "CACHED".to_owned(),
        StepOutcome::Failed(why) => format!("{} {why}", style.failure("ERROR:")),
        StepOutcome::Cancelled => "CANCELED".to_owned(),
    }
}

impl EventSink for Plain {
    fn emit(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::StepStarted { step, name } => {
                let now = Instant::now();
                state.steps.insert(step, Running { started: now, said: now, items: BTreeMap::new() });
                state.add(step, "", &name);
            }
            Event::StepProgressed { step, item, current, total, unit } => {
                state.progressed(step, item, current, total, unit);
            }
            Event::StepLogged { step, line } => {
                let since =
                    state.steps.get(&step).map_or(Duration::ZERO, |running| running.started.elapsed());
                state.add(step, &format!("{}.{:03} ", since.as_secs(), since.subsec_millis()), &line);
            }
            Event::StepFinished { step, outcome } => {
                let Some(running) = state.steps.remove(&step) else { return };
                // Colours are ours: they must not go through `clean` with the rest.
                state.set_apart(step);
                let outcome = match outcome {
                    StepOutcome::Failed(why) => StepOutcome::Failed(clean(&why)),
                    other => other,
                };
                let spelled = spell(&outcome, running.started.elapsed().as_secs_f64(), self.style);
                state.out += &format!("#{} {spelled}\n", step.0);
            }
            Event::Warned { message } => {
                state.last = None;
                state.out += &format!("{} {}\n", self.style.warning("warning:"), clean(&message));
            }
        }
        state.print();
    }
}

impl Display for Plain {
    fn finish(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_summed_over_items() {
        let items = BTreeMap::from([("a".into(), (1_000, Some(4_000))), ("b".into(), (500, Some(500)))]);
        assert_eq!(amount(&items, Unit::Bytes), "1.5 kB of 4.5 kB");
        let open = BTreeMap::from([("a".into(), (3, None)), ("b".into(), (4, Some(9)))]);
        assert_eq!(amount(&open, Unit::Entries), "7");
    }

    #[test]
    fn outcomes_are_spelled_as_buildkit_does() {
        let style = Style::new(false);
        for (outcome, text) in [
            (StepOutcome::Done, "DONE 1.2s"),
            (StepOutcome::Cached, "CACHED"),
            (StepOutcome::Failed("no".into()), "ERROR: no"),
            (StepOutcome::Cancelled, "CANCELED"),
        ] {
            assert_eq!(spell(&outcome, 1.23, style), text);
        }
    }
}

//! Progress for programs: one JSON object a line on stderr, each with its time.

use jiff::Timestamp;
use serde_json::Value;
use windlass_core::events::{Event, EventSink};

use super::{Display, to_stderr};

/// Prints every event as it is, each line of a log by itself.
#[derive(Debug, Default)]
pub(crate) struct RawJson {}

impl EventSink for RawJson {
    fn emit(&self, event: Event) {
        match event {
            Event::StepLogged { step, line } if line.contains('\n') => {
                line.split('\n').for_each(|line| print(&Event::StepLogged { step, line: line.to_owned() }));
            }
            event => print(&event),
        }
    }
}

fn print(event: &Event) {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(event) else { return };
    fields.insert("time".to_owned(), Timestamp::now().to_string().into());
    to_stderr(&Value::Object(fields).to_string());
}

impl Display for RawJson {
    fn finish(&self) {}
}

/// A warning that belongs to no display, in the form of an event.
pub(crate) fn warn(message: &str) {
    RawJson::default().emit(Event::Warned { message: message.to_owned() });
}

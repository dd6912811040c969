//! HEALTHCHECK: its flags are durations, and its test has three forms.

use super::duration::parse_duration;
use super::flags::{Flags, Takes};
use super::instruction::Healthcheck;
use super::parse::Reader;
use super::words;
use crate::Result;

/// No healthcheck waits shorter than this: 1 ms, as the engine demands.
const SHORTEST_WAIT: i64 = 1_000_000;

impl Reader<'_> {
    pub(super) fn healthcheck(&self) -> Result<Healthcheck> {
        let (word, rest) = words::split_name(self.rest);
        let kind = word.to_ascii_uppercase();
        let mut check = Healthcheck {
            test: vec![kind.clone()],
            interval: 0,
            timeout: 0,
            start_period: 0,
            start_interval: 0,
            retries: 0,
        };
        match kind.as_str() {
            "" => return Err(self.needs_argument()),
            "NONE" if rest.is_empty() => return Ok(check),
            "NONE" => return Err(self.error("HEALTHCHECK NONE takes no arguments")),
            "CMD" => {}
            _ => {
                return Err(self
                    .error(format!("unknown type `{word}` of HEALTHCHECK"))
                    .with_hint("write `HEALTHCHECK CMD command` or `HEALTHCHECK NONE`"));
            }
        }
        let names = ["interval", "timeout", "start-period", "start-interval", "retries"];
        let flags = self.flags(&names.map(|name| (name, Takes::Value)))?;
        check.test = match self.array(rest)? {
            Some(array) if !array.is_empty() => ["CMD".to_owned()].into_iter().chain(array).collect(),
            None if !rest.is_empty() => vec!["CMD-SHELL".to_owned(), rest.to_owned()],
            _ => return Err(self.error("a command is missing after HEALTHCHECK CMD")),
        };
        check.interval = self.wait(&flags, "interval")?;
        check.timeout = self.wait(&flags, "timeout")?;
        check.start_period = self.wait(&flags, "start-period")?;
        check.start_interval = self.wait(&flags, "start-interval")?;
        if let Some(retries) = flags.value("retries") {
            check.retries = retries
                .parse::<i32>()
                .ok()
                .and_then(|count| u32::try_from(count).ok())
                .ok_or_else(|| self.error(format!("`--retries` is a count, not `{retries}`")))?;
        }
        Ok(check)
    }

    fn wait(&self, flags: &Flags, name: &str) -> Result<i64> {
        let Some(text) = flags.value(name) else { return Ok(0) };
        match parse_duration(&text) {
            Some(0) => Ok(0),
            Some(wait) if wait >= SHORTEST_WAIT => Ok(wait),
            Some(_) => Err(self.error(format!("`--{name}` cannot be less than 1ms"))),
            None => Err(self
                .error(format!("`--{name}` is a duration, not `{text}`"))
                .with_hint("a duration is a number with a unit: `500ms`, `30s`, `1m30s`")),
        }
    }
}

//! The `image-builder` backend against a service of ours. What is sent is in `image_builder/forms.rs`, what the service
//! may do while it is sent in `sending.rs`, what may happen to the log in `logs.rs` and to the result in `ends.rs`, and
//! who leaves early in `leaving.rs`, who comes back in `coming_back.rs`.

mod coming_back;
mod ends;
mod forms;
mod leaving;
mod logs;
mod sending;

use libtest_mimic::{Failed, Trial};
use serde_json::json;
use windlass_tests::place::{Background, Outcome, Place};
use windlass_tests::service::image_builder::{API_KEY, Asked, Call, Habits, LogPart, Reaction, event};
use windlass_tests::service::runtime_api::document;
use windlass_tests::service::{Answer, ImageBuilder};

use crate::rig::{Rig, same};

/// Waits are short, so that a test is; their order is what is tested.
const QUICK: &[&str] = &[
    "retry-first-wait=10ms",
    "retry-longest-wait=50ms",
    "reconnect-first-wait=10ms",
    "reconnect-longest-wait=20ms",
    "connect-timeout=5s",
    "build-timeout=30s",
];
/// What the service calls the image of a build under the name `agent:1`.
const IMAGE: &str = "registry.example.com/project/agent:1";
const OTHER_HOST: &str = "http://elsewhere.invalid/builds?token=secret";

pub(crate) fn trials(rig: &Rig) -> Vec<Trial> {
    let parts = [
        forms::trials(rig),
        sending::trials(rig),
        logs::trials(rig),
        ends::trials(rig),
        leaving::trials(rig),
        coming_back::trials(rig),
    ];
    parts.into_iter().flatten().collect()
}

/// A test with a service of its own.
fn trial(
    rig: &Rig,
    name: impl std::fmt::Display,
    habits: impl FnOnce() -> Habits + Send + 'static,
    test: impl FnOnce(&Case) -> Result<(), Failed> + Send + 'static,
) -> Trial {
    let program = rig.program().clone();
    Trial::test(format!("image_builder::{name}"), move || {
        let case = Case { service: ImageBuilder::start(habits())?, place: Place::new(&program)? };
        case.place.write("app/Dockerfile", "FROM scratch\nCOPY hello.txt /\n")?;
        case.place.write("app/hello.txt", "hello\n")?;
        test(&case)
    })
}

/// A service and a place with a small context.
#[derive(Debug)]
struct Case {
    service: ImageBuilder,
    place: Place,
}

impl Case {
    /// Runs the program on the service, with waits that are short and these options of the backend.
    fn run(&self, line: &[&str], options: &[&str]) -> Result<Outcome, Failed> {
        let line = with_options(line, options);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let outcome = self.place.run_with(&line, &self.variables())?;
        shows_no_secret(&outcome)?;
        Ok(outcome)
    }

    /// The same in the background.
    fn start(&self, line: &[&str], options: &[&str]) -> Result<Background, Failed> {
        let line = with_options(line, options);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        self.place.start_with(&line, &self.variables())
    }

    /// A build of the context under the name `agent:1`.
    fn build(&self, options: &[&str]) -> Result<Outcome, Failed> {
        self.run(&["build", "app", "-t", "agent:1"], options)
    }

    fn variables(&self) -> [(&'static str, &str); 2] {
        [("TOGETHER_BASE_URL", self.service.url()), ("TOGETHER_API_KEY", API_KEY)]
    }

    fn count(&self, call: Call) -> usize {
        self.service.calls(call).len()
    }
}

fn with_options(line: &[&str], options: &[&str]) -> Vec<String> {
    let mut line: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
    for option in QUICK.iter().chain(options) {
        line.push("--set".to_owned());
        line.push(format!("backends.image-builder.{option}"));
    }
    line
}

fn shows_no_secret(outcome: &Outcome) -> Result<(), Failed> {
    let shown = format!("{}{}", outcome.stdout, outcome.stderr);
    match shown.contains(API_KEY) || shown.contains("token=secret") {
        true => Err(format!("a secret is shown: {outcome:#?}").into()),
        false => Ok(()),
    }
}

/// The lines of the build's log, as plain progress shows them.
fn log_lines(outcome: &Outcome) -> Vec<String> {
    let step = outcome.stderr.lines().find_map(|line| {
        let (number, rest) = line.split_once(' ')?;
        rest.starts_with("building on ").then(|| format!("{number} "))
    });
    let Some(step) = step else { return Vec::new() };
    let lines = outcome.stderr.lines().filter_map(|line| line.strip_prefix(&step));
    let logged = lines.filter_map(|line| {
        let (seconds, text) = line.split_once(' ').unwrap_or((line, ""));
        seconds.parse::<f64>().is_ok().then(|| text.to_owned())
    });
    logged.collect()
}

/// Reacts to the first requests of a call, in order.
fn first(asked: &Asked, call: Call, reactions: &[Reaction]) -> Reaction {
    match reactions.get(asked.before) {
        Some(reaction) if asked.call == call => reaction.clone(),
        _ => Reaction::Normal,
    }
}

/// Reacts to every request of a call.
fn every(asked: &Asked, call: Call, reaction: Reaction) -> Reaction {
    if asked.call == call { reaction } else { Reaction::Normal }
}

fn refusal(status: u16, text: &str) -> Reaction {
    Reaction::Answer(document(status, json!({ "error": text })))
}

fn later(status: u16, retry_after: &str) -> Reaction {
    Reaction::Answer(document(status, json!({ "error": "busy" })).header("Retry-After", retry_after))
}

fn page() -> Reaction {
    Reaction::Answer(Answer::new(200).header("Content-Type", "text/html").body("<title>Welcome</title>"))
}

fn elsewhere(status: u16) -> Reaction {
    Reaction::Answer(Answer::new(status).header("Location", OTHER_HOST))
}

fn status(document: serde_json::Value) -> Reaction {
    Reaction::Answer(self::document(200, document))
}

fn running() -> Reaction {
    status(json!({ "status": "building" }))
}

/// A log of these lines, then what comes after them.
fn log(lines: &[&str], then: &[LogPart]) -> Reaction {
    let lines = lines.iter().map(|line| LogPart::from(event(line).as_str()));
    Reaction::Log(lines.chain(then.iter().cloned()).collect())
}

/// The event that ends a good build.
fn done() -> LogPart {
    LogPart::from("data: {\"done\": true}\n\n")
}

/// How a scenario ends.
struct End {
    code: i32,
    says: &'static [&'static str],
    /// The lines of the log that are shown; `None` where that is not told.
    lines: Option<&'static [&'static str]>,
    /// So many times each call is made; `None` where that depends on the moment.
    submits: usize,
    logs: Option<usize>,
    statuses: Option<usize>,
}

/// A good build whose log is read once and confirmed once.
const GOOD: End = End { code: 0, says: &[], lines: None, submits: 1, logs: Some(1), statuses: Some(1) };

struct Scenario {
    name: &'static str,
    options: &'static [&'static str],
    script: fn(&Asked) -> Reaction,
    end: End,
}

fn table(rig: &Rig, part: &str, scenarios: &'static [Scenario]) -> Vec<Trial> {
    let trials = scenarios.iter().map(|scenario| {
        let habits = || Habits { script: Box::new(scenario.script), ..Habits::default() };
        trial(rig, format!("{part}::{}", scenario.name), habits, |case| check(case, scenario))
    });
    trials.collect()
}

fn check(case: &Case, scenario: &Scenario) -> Result<(), Failed> {
    let outcome = case.build(scenario.options)?;
    let End { code, says, lines, submits, logs, statuses } = &scenario.end;
    let missing: Vec<_> = says.iter().filter(|part| !outcome.stderr.contains(**part)).collect();
    if outcome.code != Some(*code) || !missing.is_empty() || (*code == 0) == outcome.stdout.is_empty() {
        let lines = case.service.lines();
        return Err(format!("expected code {code} and {missing:?} in {outcome:#?} after {lines:#?}").into());
    }
    if let Some(lines) = lines {
        same("lines", log_lines(&outcome), lines.iter().map(|line| (*line).to_owned()).collect())?;
    }
    same("submissions", case.count(Call::Submit), *submits)?;
    for (what, call, expected) in [("logs", Call::Logs, logs), ("statuses", Call::Status, statuses)] {
        if let Some(expected) = expected {
            same(what, case.count(call), *expected)?;
        }
    }
    same("nothing is stopped", case.count(Call::Cancel), 0)
}

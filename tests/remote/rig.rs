//! What a test has at hand: a service, a place to work in, and the program.

use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use windlass_tests::place::{Background, Outcome, Place, Program};
use windlass_tests::service::RuntimeApi;
use windlass_tests::service::runtime_api::{API_KEY, Habits};

/// Waits are short, so that a test is; their order is what is tested.
const QUICK: &[&str] = &[
    "poll-first=10ms",
    "poll-longest=20ms",
    "retry-first-wait=10ms",
    "retry-longest-wait=50ms",
    "connect-timeout=5s",
];

/// What all tests share.
#[derive(Debug, Default, Clone)]
pub(crate) struct Rig {
    program: Arc<Program>,
}

impl Rig {
    /// The program.
    pub(crate) fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// A test with a service of its own.
    pub(crate) fn trial(
        &self,
        name: impl Into<String>,
        habits: impl FnOnce() -> Habits + Send + 'static,
        test: impl FnOnce(&Case) -> Result<(), Failed> + Send + 'static,
    ) -> Trial {
        let program = self.program.clone();
        Trial::test(name, move || {
            let case = Case { service: RuntimeApi::start(habits())?, place: Place::new(&program)? };
            case.place.write("Dockerfile", "FROM scratch\nCOPY hello.txt /\n")?;
            case.place.write("hello.txt", "hello\n")?;
            test(&case)
        })
    }
}

/// A service and a place with a small context.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) service: RuntimeApi,
    pub(crate) place: Place,
}

impl Case {
    /// Runs the program on the service, with waits that are short.
    pub(crate) fn run(&self, line: &[&str]) -> Result<Outcome, Failed> {
        self.run_set(line, &[])
    }

    /// The same with options of the backend.
    pub(crate) fn run_set(&self, line: &[&str], options: &[&str]) -> Result<Outcome, Failed> {
        let line = with_options(line, options);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        self.place.run_with(&line, &self.variables())
    }

    /// The same in the background.
    pub(crate) fn start(&self, line: &[&str], options: &[&str]) -> Result<Background, Failed> {
        let line = with_options(line, options);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        self.place.start_with(&line, &self.variables())
    }

    /// The same, with further variables.
    pub(crate) fn start_in(&self, line: &[&str], variables: &[(&str, &str)]) -> Result<Background, Failed> {
        let line = with_options(line, &[]);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        self.place.start_with(&line, &[&self.variables()[..], variables].concat())
    }

    /// A build of the context under the name `agent:1`.
    pub(crate) fn build(&self, options: &[&str]) -> Result<Outcome, Failed> {
        self.run_set(&["build", "-t", "agent:1"], options)
    }

    /// The variables that offer the service.
    pub(crate) fn variables(&self) -> [(&'static str, &str); 2] {
        [("RUNTIME_API_URL", self.service.url()), ("RUNTIME_API_KEY", API_KEY)]
    }
}

fn with_options(line: &[&str], options: &[&str]) -> Vec<String> {
    let mut line: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
    for option in QUICK.iter().chain(options) {
        line.push("--set".to_owned());
        line.push(format!("backends.runtime-api.{option}"));
    }
    line
}

/// Fails unless both are the same.
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(what: &str, seen: T, expected: T) -> Result<(), Failed> {
    if seen == expected { Ok(()) } else { Err(format!("{what}: {seen:?}, expected {expected:?}").into()) }
}

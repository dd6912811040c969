//! `windlass snapshot` against a service of ours, on good days and on bad ones. What builds on this machine is in
//! `snapshots/local.rs`, what the service builds in `snapshots/remote.rs`, what it may do to us in `snapshots/faults.rs`.

mod commands;
mod faults;
mod local;
mod remote;

use std::path::Path;

use libtest_mimic::{Failed, Trial};
use windlass_tests::place::{Outcome, Place};
use windlass_tests::service::Together;
use windlass_tests::service::together::{API_KEY, Habits};

use crate::rig::Rig;

/// Waits are short, so that a test is; their order is what is tested.
const QUICK: &[&str] = &["retry-first-wait=10ms", "retry-after-limit=5s"];

pub(crate) fn trials(rig: &Rig) -> Vec<Trial> {
    let parts = [commands::trials(rig), faults::trials(rig), local::trials(rig), remote::trials(rig)];
    parts.into_iter().flatten().collect()
}

/// A service and a place with a small context.
#[derive(Debug)]
struct Case {
    service: Together,
    place: Place,
    /// What must not be seen anywhere.
    secrets: Vec<String>,
}

impl Case {
    fn new(rig: &Rig, habits: Habits) -> Result<Self, Failed> {
        let password = habits.issued.as_ref().map(|issued| issued.password.clone());
        let secrets = [API_KEY.to_owned()].into_iter().chain(password).collect();
        let case = Self { service: Together::start(habits)?, place: Place::new(rig.program())?, secrets };
        case.place.write("app/Dockerfile", "FROM scratch\nCOPY hello.txt /\n")?;
        case.place.write("app/hello.txt", "hello\n")?;
        Ok(case)
    }

    /// Runs `windlass snapshot`, and makes sure that it tells no secret.
    fn run(&self, line: &[&str]) -> Result<Outcome, Failed> {
        self.run_with(line, &[])
    }

    /// The same with these variables besides.
    fn run_with(&self, line: &[&str], variables: &[(&str, &str)]) -> Result<Outcome, Failed> {
        let settings: Vec<String> =
            QUICK.iter().map(|option| format!("backends.image-builder.{option}")).collect();
        let mut whole = vec!["snapshot"];
        whole.extend(line);
        for setting in &settings {
            whole.extend(["--set", setting.as_str()]);
        }
        // The logins of a run of all tests are not those of this place.
        let config = self.place.home(".docker").to_string_lossy().into_owned();
        let ours = [
            ("TOGETHER_BASE_URL", self.service.url()),
            ("TOGETHER_API_KEY", API_KEY),
            ("DOCKER_CONFIG", config.as_str()),
        ];
        let outcome = self.place.run_with(&whole, &[&ours[..], variables].concat())?;
        self.tells_nothing(&outcome)?;
        Ok(outcome)
    }

    fn tells_nothing(&self, outcome: &Outcome) -> Result<(), Failed> {
        for secret in &self.secrets {
            if outcome.stdout.contains(secret) || outcome.stderr.contains(secret) {
                return Err(format!("`{secret}` is told: {outcome:#?}").into());
            }
            if let Some(file) = holds(&self.place.home(""), secret)? {
                return Err(format!("`{secret}` is in `{file}`").into());
            }
        }
        Ok(())
    }
}

/// The first file below a directory that holds a text.
fn holds(directory: &Path, text: &str) -> Result<Option<String>, Failed> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = holds(&path, text)? {
                return Ok(Some(found));
            }
        } else if path.is_file() {
            let content = std::fs::read(&path)?;
            if content.windows(text.len()).any(|window| window == text.as_bytes()) {
                return Ok(Some(path.display().to_string()));
            }
        }
    }
    Ok(None)
}

/// A test with a service of its own.
fn trial(
    rig: &Rig,
    name: impl Into<String>,
    habits: impl FnOnce() -> Habits + Send + 'static,
    test: impl FnOnce(&Case) -> Result<(), Failed> + Send + 'static,
) -> Trial {
    let rig = rig.clone();
    Trial::test(format!("snapshots::{}", name.into()), move || test(&Case::new(&rig, habits())?))
}

/// `image-UUID:UUID`
fn is_name(name: &str) -> bool {
    let uuid = |text: &str| {
        text.len() == 36 && text.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && text == text.to_lowercase()
    };
    name.strip_prefix("image-").and_then(|rest| rest.split_once(':')).is_some_and(|(a, b)| uuid(a) && uuid(b))
}

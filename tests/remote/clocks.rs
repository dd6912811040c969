//! A clock that jumps while a build is followed: waits and limits are counted by one that does not.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use libtest_mimic::{Failed, Trial};
use serde_json::json;
use windlass_tests::place::wait_until;
use windlass_tests::service::runtime_api::{Habits, Reaction, document};

use crate::rig::{Case, Rig, same};

/// Sixty years, which no limit is longer than, and back beyond the beginning.
const JUMPS: [&str; 2] = ["+21900d", "-10950d"];

pub(crate) fn trials(rig: &Rig) -> Vec<Trial> {
    let done = Arc::new(AtomicBool::new(false));
    let asked = done.clone();
    let habits = move || Habits {
        script: Box::new(move |request| match request.call.as_str() {
            "build_status" if !asked.load(Ordering::Relaxed) => {
                Reaction::Answer(document(200, json!({ "status": "RUNNING" })))
            }
            _ => Reaction::Normal,
        }),
        ..Habits::default()
    };
    let trial =
        rig.trial("clocks::a_clock_that_jumps_changes_nothing", habits, move |case| jumps(case, &done));
    // Under CI a missing program is a failure.
    let may_be_absent = std::env::var_os("CI").is_none() && preloaded().is_err();
    vec![trial.with_ignored_flag(may_be_absent)]
}

/// The library that changes a program's clock.
fn preloaded() -> Result<String, Failed> {
    let output = Command::new("faketime").args(["-f", "+0", "printenv", "LD_PRELOAD"]).output();
    let output = output.map_err(|error| format!("`faketime` cannot be run: {error}"))?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn jumps(case: &Case, done: &AtomicBool) -> Result<(), Failed> {
    let (library, clock) = (preloaded()?, case.place.path("clock"));
    std::fs::write(&clock, "+0d")?;
    let clock_text = clock.display().to_string();
    let surroundings = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", &clock_text),
        ("FAKETIME_NO_CACHE", "1"),
        // That one does not jump on a real machine either.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
        ("NO_FAKE_STAT", "1"),
    ];
    let questions = || case.service.calls("build_status").len();
    let program = case.start_in(&["build", "-t", "agent:1", "--timeout", "10m"], &surroundings)?;
    wait_until("it is followed", || questions() > 1)?;
    for jump in JUMPS {
        std::fs::write(&clock, jump)?;
        let before = questions();
        wait_until("it is followed on", || questions() > before + 2)?;
    }
    done.store(true, Ordering::Relaxed);
    let outcome = program.wait()?;
    same("result", outcome.line()?, "registry.example.com/team/agent:1")?;
    same("one upload", case.service.calls("build").len(), 1)?;
    let listed = case.run(&["builds", "--format", "json"])?;
    let listed: serde_json::Value = serde_json::from_str(listed.good()?)?;
    same("in the ledger", &listed[0]["state"], &json!("succeeded"))?;
    let [began, ended] = ["started_at", "updated_at"].map(|time| listed[0][time].as_str());
    same("the program saw the jump", ended < began, true)
}

//! Ids that are not lost, and what `windlass builds` does with them.

use std::thread;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use serde_json::json;
use windlass_tests::place::{interrupt, wait_until};
use windlass_tests::service::image_builder::{API_KEY, Asked, Call, Habits, Reaction};

use super::leaving::{going_on, normal, search, state};
use super::{Case, IMAGE, Rig, every, first, log, refusal, same, status, trial};

const BUILD: &[&str] = &["build", "app", "-t", "agent:1"];
/// A limit of the user.
const LIMIT: &str = "2500ms";
const ATTEMPTS: usize = 5;
const DETACHED: &[&str] = &["build", "app", "-t", "agent:1", "--detach"];

pub(super) fn trials(rig: &Rig) -> Vec<Trial> {
    leaving_before_the_id(rig).into_iter().chain(by_id(rig)).chain(ends(rig)).collect()
}

/// A build that goes on, and a service that reacts so to the submission.
fn submitted(reaction: fn(Duration) -> Reaction) -> impl FnOnce() -> Habits + Send + 'static {
    move || {
        let script = move |asked: &Asked| every(asked, Call::Submit, reaction(Duration::from_millis(1500)));
        Habits { script: Box::new(script), ..going_on(normal) }
    }
}

/// Answers an upload so long after it has it as the limit is: never before the limit has passed, and however late
/// the upload came, soon enough to be waited for.
fn later_than_the_limit() -> Habits {
    let script = |asked: &Asked| every(asked, Call::Submit, Reaction::Late(Duration::from_millis(2500)));
    Habits { script: Box::new(script), ..going_on(normal) }
}

/// The service has the whole upload.
fn taken(case: &Case) -> Result<(), Failed> {
    wait_until("it is taken", || taken_at_all(case))
}

fn taken_at_all(case: &Case) -> bool {
    case.service.calls(Call::Submit).iter().any(|asked| asked.submission.is_some())
}

fn leaving_before_the_id(rig: &Rig) -> Vec<Trial> {
    let stopped = |case: &Case| {
        let program = case.start(BUILD, &[])?;
        taken(case)?;
        interrupt(program)?.refused(130, &["error: cancelled", "build id: build-1"])?;
        same("stopped", case.service.was_cancelled("build-1"), true)?;
        same("state", state(case)?.as_str(), "cancelled")
    };
    vec![
        trial(
            rig,
            "coming_back::ctrl_c_before_the_answer_waits_for_the_id",
            submitted(Reaction::Late),
            stopped,
        ),
        trial(
            rig,
            "coming_back::ctrl_c_in_the_answer_waits_for_the_id",
            submitted(Reaction::Halting),
            stopped,
        ),
        trial(rig, "coming_back::so_does_a_second_one", submitted(Reaction::Late), |case| {
            let program = case.start(BUILD, &[])?;
            taken(case)?;
            program.send("-INT")?;
            program.signal("-INT")?.refused(130, &["build id: build-1"])?;
            same("stopped", case.service.was_cancelled("build-1"), true)
        }),
        trial(rig, "coming_back::a_limit_of_the_user_waits_for_the_id", later_than_the_limit, |case| {
            // On a busy machine the limit may pass before the service has the upload: that is another test.
            for _ in 0..ATTEMPTS {
                let outcome = case.run(&[BUILD, &["--timeout", LIMIT]].concat(), &[])?;
                if taken_at_all(case) {
                    outcome.refused(4, &["build id: build-", "was stopped on http://127.0.0.1"])?;
                    let id = outcome.stderr.split("build id: ").nth(1).and_then(|rest| rest.lines().next());
                    return same("stopped", case.service.was_cancelled(id.unwrap_or_default()), true);
                }
            }
            Err(format!("no upload was taken within {LIMIT}, {ATTEMPTS} times").into())
        }),
        trial(rig, "coming_back::detached_it_goes_on_also_after_ctrl_c", submitted(Reaction::Late), |case| {
            let program = case.start(DETACHED, &[])?;
            taken(case)?;
            let outcome = interrupt(program)?;
            let shown = format!("{}{}", outcome.stdout, outcome.stderr);
            same("the id is shown", shown.contains("build-1"), true)?;
            same("stopped", case.count(Call::Cancel), 0)?;
            same("state", state(case)?.as_str(), "running")
        }),
    ]
}

fn by_id(rig: &Rig) -> Vec<Trial> {
    let not_there_yet = || Habits {
        script: Box::new(|asked| match asked.call {
            Call::Logs | Call::Status => first(asked, asked.call, &vec![refusal(404, "not yet"); 2]),
            _ => Reaction::Normal,
        }),
        ..Habits::default()
    };
    let talkative = || Habits {
        builder: Box::new(|_, cancel, log| {
            while !cancel.is_cancelled() {
                log("it goes on");
                thread::sleep(Duration::from_millis(5));
            }
            Err("stopped".to_owned())
        }),
        ..Habits::default()
    };
    vec![
        trial(rig, "coming_back::another_process_waits_for_a_young_build_too", not_there_yet, |case| {
            case.run(DETACHED, &[])?.good()?;
            same("image", case.run(&["builds", "attach", "build-1"], &[])?.line()?, IMAGE)
        }),
        trial(
            rig,
            "coming_back::the_beginning_of_an_id_stops_nothing",
            || going_on(normal),
            |case| {
                case.run(DETACHED, &[])?.good()?;
                case.run(&["builds", "status", "build"], &[])?.good()?;
                case.run(&["builds", "cancel", "build"], &[])?
                    .refused(1, &["no build `build`", "the whole id is needed"])?;
                same("nothing is asked for", case.count(Call::Cancel), 0)?;
                let elsewhere = case.run(&["builds", "cancel", "build", "-b", "image-builder"], &[])?;
                elsewhere.refused(1, &["knows no build `build`"])?;
                same("stopped", case.service.was_cancelled("build-1"), false)
            },
        ),
        trial(rig, "coming_back::what_is_no_id", Habits::default, |case| {
            for id in [".", "..", ""] {
                let outcome = case.run(&["builds", "cancel", id, "-b", "image-builder"], &[])?;
                outcome.refused(2, &["is no id of a build"])?;
            }
            same("nothing is asked for", case.service.lines(), Vec::new())
        }),
        trial(rig, "coming_back::a_log_that_nobody_reads_on", talkative, |case| {
            case.run(DETACHED, &[])?.good()?;
            let mut program = case.start(&["builds", "logs", "build-1"], &[])?;
            same("line", program.read_line_and_leave()?.as_str(), "it goes on\n")?;
            same("code", program.wait()?.code, Some(0))?;
            same("stopped", case.count(Call::Cancel), 0)
        }),
    ]
}

/// Builds whose status document is always this.
fn saying(document: serde_json::Value) -> Habits {
    let script = move |asked: &Asked| match asked.call {
        Call::Logs => log(&["a"], &[]),
        _ => every(asked, Call::Status, status(document.clone())),
    };
    Habits { script: Box::new(script), ..Habits::default() }
}

fn ends(rig: &Rig) -> Vec<Trial> {
    vec![
        trial(
            rig,
            "coming_back::cancelled_there_is_not_failed",
            || saying(json!({ "status": "CANCELLED" })),
            |case| {
                case.build(&[])?.refused(1, &["was cancelled on"])?;
                same("state", state(case)?.as_str(), "cancelled")
            },
        ),
        trial(
            rig,
            "coming_back::a_build_without_a_name_for_its_image_has_ended",
            || saying(json!({ "status": "success" })),
            |case| {
                let outcome = case.build(&[])?;
                outcome.refused(1, &["no image_ref in status"])?;
                same("it goes on", outcome.stderr.contains("go on without us"), false)?;
                same("state", state(case)?.as_str(), "succeeded")?;
                case.run(&["builds", "attach", "build-1"], &[])?
                    .refused(1, &["its image cannot be found", "no image_ref"])
            },
        ),
        trial(
            rig,
            "coming_back::stopped_too_late",
            || saying(json!({ "status": "success", "image_ref": IMAGE })),
            |case| {
                case.run(DETACHED, &[])?.good()?;
                let says = ["the build `build-1` has succeeded already", IMAGE];
                case.run(&["builds", "cancel", "build-1"], &[])?.refused(1, &says)?;
                same("state", state(case)?.as_str(), "succeeded")
            },
        ),
        trial(
            rig,
            "coming_back::stopping_a_build_that_was_forgotten_changes_nothing",
            || going_on(|_| refusal(404, "gone")),
            |case| {
                case.run(DETACHED, &[])?.good()?;
                let outcome = case.run(&["builds", "cancel", "build-1"], &["not-found-timeout=0"])?;
                outcome.refused(1, &["knows no build `build-1`"])?;
                same("state", state(case)?.as_str(), "running")
            },
        ),
        trial(
            rig,
            "coming_back::the_key_is_not_written_into_the_ledger",
            || saying(json!({ "status": "failed", "error": format!("bad key {API_KEY}") })),
            |case| {
                case.run(DETACHED, &[])?.good()?;
                let shown = case.run(&["builds", "status", "build-1"], &[])?;
                same("hidden", shown.good()?.contains("bad key (hidden)"), true)?;
                same("files", search(&case.place.home(""))? > 0, true)
            },
        ),
    ]
}

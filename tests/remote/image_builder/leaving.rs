//! Who leaves before a build has ended, and who comes back to one.

use std::thread;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use serde_json::json;
use windlass_tests::place::{interrupt, wait_until};
use windlass_tests::service::image_builder::{API_KEY, Asked, Call, Habits, LogPart, Reaction};

use super::{Case, IMAGE, Rig, every, log, refusal, running, same, status, trial};

const BUILD: &[&str] = &["build", "app", "-t", "agent:1"];

/// A build that goes on until it is stopped; `of_cancel` is what stopping it meets.
pub(super) fn going_on(of_cancel: fn(&Asked) -> Reaction) -> Habits {
    Habits {
        builder: Box::new(|_, cancel, log| {
            log("it goes on");
            while !cancel.is_cancelled() {
                thread::sleep(Duration::from_millis(5));
            }
            Err("stopped".to_owned())
        }),
        script: Box::new(
            move |asked| if asked.call == Call::Cancel { of_cancel(asked) } else { Reaction::Normal },
        ),
        ..Habits::default()
    }
}

pub(super) fn normal(_: &Asked) -> Reaction {
    Reaction::Normal
}

/// Takes its time, so that whoever leaves twice has to wait.
fn slowly(_: &Asked) -> Reaction {
    thread::sleep(Duration::from_millis(1500));
    Reaction::Normal
}

fn followed(case: &Case) -> Result<(), Failed> {
    wait_until("the log is read", || case.count(Call::Logs) > 0)
}

pub(super) fn state(case: &Case) -> Result<String, Failed> {
    let listed = case.run(&["builds", "list", "--format", "json"], &[])?;
    let listed: serde_json::Value = serde_json::from_str(listed.good()?)?;
    Ok(listed[0]["state"].as_str().unwrap_or_default().to_owned())
}

pub(super) fn trials(rig: &Rig) -> Vec<Trial> {
    early(rig).into_iter().chain(later(rig)).collect()
}

fn early(rig: &Rig) -> Vec<Trial> {
    let succeeds_first = || {
        let mut habits = going_on(normal);
        let script = |asked: &Asked| match asked.call {
            Call::Logs => log(&["a"], &[LogPart::Hang]),
            _ => every(asked, Call::Status, status(json!({ "status": "success", "image_ref": IMAGE }))),
        };
        habits.script = Box::new(script);
        habits
    };
    let stalled = || Habits {
        script: Box::new(|asked| every(asked, Call::Submit, Reaction::Stall(1000))),
        ..Habits::default()
    };
    vec![
        trial(
            rig,
            "leaving::ctrl_c_stops_the_build",
            || going_on(normal),
            |case| {
                let program = case.start(BUILD, &[])?;
                followed(case)?;
                let words =
                    ["error: cancelled", "build id: build-1", "the build: was stopped on http://127.0.0.1:"];
                interrupt(program)?.refused(130, &words)?;
                same(
                    "stopped",
                    (case.count(Call::Cancel), case.service.was_cancelled("build-1")),
                    (1, true),
                )?;
                same("state", state(case)?.as_str(), "cancelled")
            },
        ),
        trial(
            rig,
            "leaving::a_second_ctrl_c_waits_until_it_is_stopped",
            || going_on(slowly),
            |case| {
                let program = case.start(BUILD, &[])?;
                followed(case)?;
                program.send("-INT")?;
                wait_until("it is being stopped", || case.count(Call::Cancel) > 0)?;
                program.send("-INT")?;
                let outcome = program.signal("-INT")?;
                outcome.refused(130, &["stopping the build first"])?;
                same("stopped", case.service.was_cancelled("build-1"), true)
            },
        ),
        trial(
            rig,
            "leaving::two_at_once_stop_it_too",
            || going_on(normal),
            |case| {
                let program = case.start(BUILD, &[])?;
                followed(case)?;
                program.send("-INT")?;
                program.signal("-INT")?.refused(130, &[])?;
                same("stopped", case.service.was_cancelled("build-1"), true)
            },
        ),
        trial(
            rig,
            "leaving::a_build_that_cannot_be_stopped",
            || going_on(|_| refusal(500, "no")),
            |case| {
                let program = case.start(BUILD, &[])?;
                followed(case)?;
                let says = [
                    "the build `build-1` could not be cancelled",
                    "`windlass builds cancel build-1 --backend image-builder` tries again",
                ];
                interrupt(program)?.refused(130, &says)
            },
        ),
        trial(
            rig,
            "leaving::a_build_that_is_gone_is_not_stopped_by_us",
            || going_on(|_| refusal(404, "gone")),
            |case| {
                let program = case.start(BUILD, &["not-found-timeout=0"])?;
                followed(case)?;
                let outcome = interrupt(program)?;
                outcome.refused(
                    130,
                    &["error: cancelled", "knows no build `build-1`: it was not stopped by us"],
                )?;
                same("no warning", outcome.stderr.contains("could not be cancelled"), false)?;
                same("state", state(case)?.as_str(), "running")
            },
        ),
        trial(
            rig,
            "leaving::a_young_build_is_stopped_once_it_is_known",
            || going_on(|asked| if asked.before < 2 { refusal(404, "not yet") } else { Reaction::Normal }),
            |case| {
                let program = case.start(BUILD, &[])?;
                followed(case)?;
                interrupt(program)?.refused(130, &["error: cancelled"])?;
                same("stopped", case.service.was_cancelled("build-1"), true)?;
                same("state", state(case)?.as_str(), "cancelled")
            },
        ),
        trial(
            rig,
            "leaving::a_young_build_that_stays_unknown_may_begin",
            || going_on(|_| refusal(404, "not yet")),
            |case| {
                let program = case.start(BUILD, &["cancel-timeout=200ms"])?;
                followed(case)?;
                let says = [
                    "could not be cancelled",
                    "does not know the build `build-1` yet: it may begin",
                    "`windlass builds cancel build-1 --backend image-builder` tries again",
                ];
                interrupt(program)?.refused(130, &says)?;
                same("asked again", case.count(Call::Cancel) > 1, true)?;
                same("state", state(case)?.as_str(), "running")
            },
        ),
        trial(
            rig,
            "leaving::a_service_that_does_not_answer",
            || going_on(|_| Reaction::Silent),
            |case| {
                let program = case.start(BUILD, &["cancel-timeout=300ms"])?;
                followed(case)?;
                interrupt(program)?.refused(130, &["could not be cancelled: `127.0.0.1:", "did not answer"])
            },
        ),
        trial(rig, "leaving::a_build_that_was_done_first", succeeds_first, |case| {
            let program = case.start(BUILD, &[])?;
            followed(case)?;
            interrupt(program)?.refused(130, &["the build `build-1` has succeeded already"])
        }),
        trial(rig, "leaving::ctrl_c_while_it_is_sent", stalled, |case| {
            case.place.write("app/large", vec![7; 64 << 20])?;
            let program = case.start(BUILD, &["upload=chunked"])?;
            wait_until("it is sent", || case.count(Call::Submit) > 0)?;
            let outcome = interrupt(program)?;
            outcome.refused(130, &["error: cancelled"])?;
            same(
                "there is no build",
                (outcome.stderr.contains("build id"), case.count(Call::Cancel)),
                (false, 0),
            )
        }),
        trial(
            rig,
            "leaving::a_limit_of_the_user_stops_the_build",
            || going_on(normal),
            |case| {
                let line = [BUILD, &["--timeout", "1s"]].concat();
                case.run(&line, &[])?.refused(4, &["stopped after 1"])?;
                same("stopped", case.service.was_cancelled("build-1"), true)
            },
        ),
    ]
}

fn later(rig: &Rig) -> Vec<Trial> {
    let ends_when_asked = || Habits {
        script: Box::new(|asked| match asked.call {
            Call::Status if asked.before == 0 => running(),
            _ => Reaction::Normal,
        }),
        ..Habits::default()
    };
    vec![
        trial(rig, "leaving::detached_it_goes_on_and_can_be_come_back_to", ends_when_asked, |case| {
            let detached = case.run(&["build", "app", "-t", "agent:1", "--detach"], &[])?;
            same("id", detached.line()?, "build-1")?;
            same("nothing is followed", (case.count(Call::Logs), case.count(Call::Cancel)), (0, 0))?;
            let running = case.run(&["builds", "status", "build-1"], &[])?;
            same("running", running.good()?.contains("running"), true)?;
            let logs = case.run(&["builds", "logs", "build-1"], &[])?;
            same("log", logs.good()?, "step 1/2 : FROM scratch\nstep 2/2 : COPY hello.txt /\n")?;
            same("image", case.run(&["builds", "attach", "build-1"], &[])?.line()?, IMAGE)?;
            same("state", state(case)?.as_str(), "succeeded")
        }),
        trial(
            rig,
            "leaving::who_came_back_leaves_it_running",
            || going_on(normal),
            |case| {
                case.run(&["build", "app", "-t", "agent:1", "--detach"], &[])?.good()?;
                let program = case.start(&["builds", "attach", "build-1"], &[])?;
                followed(case)?;
                let says = ["error: cancelled", "the build goes on without us"];
                interrupt(program)?.refused(130, &says)?;
                same("stopped", case.count(Call::Cancel), 0)?;
                case.run(&["builds", "cancel", "build-1"], &[])?.good()?;
                same("stopped", case.service.was_cancelled("build-1"), true)?;
                same("state", state(case)?.as_str(), "cancelled")
            },
        ),
        trial(rig, "leaving::builds_that_nobody_knows", Habits::default, |case| {
            for command in ["status", "attach", "logs"] {
                let outcome = case.run(&["builds", command, "build-9", "-b", "image-builder"], &[])?;
                outcome.refused(1, &["knows no build `build-9`"])?;
            }
            Ok(())
        }),
        trial(rig, "leaving::nothing_secret_is_written", Habits::default, |case| {
            case.build(&[])?.good()?;
            same("files", search(&case.place.home(""))? > 0, true)
        }),
    ]
}

/// How many files there are; fails if the key is in one.
pub(super) fn search(directory: &std::path::Path) -> Result<usize, Failed> {
    let mut files = 0;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files += search(&path)?;
            continue;
        }
        files += 1;
        let content = std::fs::read(&path)?;
        let found = content.windows(API_KEY.len()).any(|part| part == API_KEY.as_bytes());
        same(&format!("the key is in {}", path.display()), found, false)?;
    }
    Ok(files)
}

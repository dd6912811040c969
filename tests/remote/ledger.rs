//! `windlass builds`: coming back to builds.

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use windlass_tests::place::wait_until;
use windlass_tests::service::runtime_api::{API_KEY, Habits};

use crate::rig::{Case, Rig, same};

fn json(case: &Case, line: &[&str]) -> Result<Value, Failed> {
    let outcome = case.run(&[line, &["--format", "json"]].concat())?;
    Ok(serde_json::from_str(outcome.good()?)?)
}

pub(crate) fn trials(rig: &Rig) -> Vec<Trial> {
    vec![
        rig.trial("ledger::detach_status_attach", Habits::default, |case| {
            let outcome = case.run(&["build", "-t", "agent:1", "--detach"])?;
            same("id", outcome.line()?, "build-1")?;
            same("status is not asked", case.service.calls("build_status").len(), 0)?;
            let listed = json(case, &["builds"])?;
            same("state", &listed[0]["state"], &"running".into())?;
            same("backend", &listed[0]["backend"], &"runtime-api".into())?;
            same("status", &json(case, &["builds", "status", "bui"])?["state"], &"waiting".into())?;
            let attached = case.run(&["builds", "attach", "build"])?;
            same("image", attached.line()?, "registry.example.com/team/agent:1")?;
            same("state", &json(case, &["builds", "list"])?[0]["state"], &"succeeded".into())?;
            // What has ended is known: the service may forget it.
            let before = case.service.lines().len();
            same(
                "image",
                case.run(&["builds", "attach", "build-1"])?.line()?,
                "registry.example.com/team/agent:1",
            )?;
            same("questions", case.service.lines().len(), before)?;
            let text = case.run(&["builds"])?;
            same("table", text.good()?.contains("succeeded"), true)
        }),
        rig.trial(
            "ledger::a_killed_program_can_be_come_back_to",
            || Habits { words: vec!["RUNNING"; 40], ..Habits::default() },
            |case| {
                let program = case.start(&["build", "-t", "agent:1"], &[])?;
                wait_until("it is followed", || case.service.calls("build_status").len() > 1)?;
                program.kill()?;
                same(
                    "image",
                    case.run(&["builds", "attach", "build-1"])?.line()?,
                    "registry.example.com/team/agent:1",
                )
            },
        ),
        rig.trial(
            "ledger::a_build_that_failed",
            || Habits { builder: Box::new(|_| Err("no room".to_owned())), ..Habits::default() },
            |case| {
                case.build(&[])?.refused(1, &["no room"])?;
                let status = json(case, &["builds", "status", "build-1"])?;
                same("state", (&status["state"], &status["error"]), (&"failed".into(), &"no room".into()))?;
                case.run(&["builds", "attach", "build-1"])?.refused(1, &["has failed", "no room"])?;
                case.run(&["builds", "cancel", "build-1"])?.refused(2, &["has failed already"])
            },
        ),
        rig.trial(
            "ledger::logs_where_the_service_keeps_them",
            || Habits { logs: Some("one\ntwo \u{1b}[31mred\u{1b}[0m\n".to_owned()), ..Habits::default() },
            |case| {
                case.run(&["build", "-t", "agent:1", "--detach"])?.good()?;
                same("log", case.run(&["builds", "logs", "build-1"])?.good()?, "one\ntwo red\n")
            },
        ),
        rig.trial("ledger::what_the_service_cannot_do", Habits::default, |case| {
            case.run(&["build", "-t", "agent:1", "--detach"])?.good()?;
            case.run(&["builds", "logs", "build-1"])?.refused(2, &["keeps no log"])?;
            case.run(&["builds", "cancel", "build-1"])?.refused(2, &["no call that cancels"])
        }),
        rig.trial("ledger::builds_from_elsewhere_and_of_another_service", Habits::default, |case| {
            case.run(&["builds", "status", "build-1"])?
                .refused(1, &["no build `build-1` was submitted from here"])?;
            case.run(&["builds", "status", "build-1", "-b", "runtime-api"])?
                .refused(1, &["knows no build `build-1`"])?;
            case.run(&["builds", "status", "build-1", "-b", "oci"])?.refused(2, &["end with the program"])?;
            case.run(&["build", "-t", "agent:1", "--detach"])?.good()?;
            let elsewhere = [("RUNTIME_API_URL", "http://127.0.0.1:1"), ("RUNTIME_API_KEY", "x")];
            let moved = case.place.run_with(&["builds", "status", "build-1"], &elsewhere)?;
            moved.refused(
                2,
                &["is not on the service that the backend `runtime-api` means now", case.service.url()],
            )
        }),
        rig.trial("ledger::nothing_secret_is_written", Habits::default, |case| {
            case.build(&[])?.good()?;
            fn search(directory: &std::path::Path) -> Result<usize, Failed> {
                let mut files = 0;
                for entry in std::fs::read_dir(directory)? {
                    let path = entry?.path();
                    if path.is_dir() {
                        files += search(&path)?;
                    } else {
                        files += 1;
                        let content = std::fs::read(&path)?;
                        let found = content.windows(API_KEY.len()).any(|part| part == API_KEY.as_bytes());
                        same(&format!("the key is in {}", path.display()), found, false)?;
                    }
                }
                Ok(files)
            }
            same("files", search(&case.place.home(""))? > 0, true)
        }),
    ]
}

//! `windlass builds`: coming back to builds.

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use windlass_tests::place::{Outcome, wait_until};
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
            "ledger::a_build_that_was_cancelled_there",
            || Habits {
                builder: Box::new(|_| Err("by an operator".to_owned())),
                ends: ["SUCCESS", "CANCELLED"],
                ..Habits::default()
            },
            |case| {
                let says = ["the build of `registry.example.com/team/agent:1` was cancelled on", "operator"];
                case.build(&[])?.refused(1, &says)?;
                let status = json(case, &["builds", "status", "build-1"])?;
                same("state", (&status["state"], &status["error"]), (&"cancelled".into(), &Value::Null))?;
                let attached = case.run(&["builds", "attach", "build-1"])?;
                attached.refused(1, &["the build `build-1` was cancelled"])
            },
        ),
        rig.trial(
            "ledger::a_build_that_failed_names_its_dockerfile",
            || Habits { builder: Box::new(|_| Err("Dockerfile:2: no".to_owned())), ..Habits::default() },
            |case| {
                case.place.write("Df.bad", "FROM scratch\nNO\n")?;
                let outcome = case.run(&["build", "-t", "agent:1", "-f", "Df.bad"])?;
                outcome.refused(1, &["Dockerfile:2: no", "dockerfile: Df.bad"])
            },
        ),
        rig.trial(
            "ledger::a_limit_of_0_is_none",
            || Habits { words: vec!["RUNNING"; 10], ..Habits::default() },
            |case| {
                let line = ["build", "-t", "agent:1", "--timeout"];
                let options = ["build-timeout=1ms"];
                case.run_set(&[&line[..], &["0"]].concat(), &options)?.good()?;
                case.run_set(&[&line[..], &["soon"]].concat(), &options)?.refused(2, &["0 is for ever"])
            },
        ),
        rig.trial("ledger::the_id_is_not_lost_with_stdout", Habits::default, |case| {
            let mut command = case.place.command(&["build", "-t", "agent:1", "--detach", "-q"])?;
            let full = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
            let outcome = Outcome::of(command.envs(case.variables()).stdout(full).output()?);
            outcome.refused(1, &["could not write to stdout", "build id: build-1"])
        }),
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
            case.run(&["builds", "logs", "build-1"])?
                .refused(1, &["keeps no log", "builds status build-1"])?;
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
        rig.trial("ledger::a_backend_that_is_gone", Habits::default, |case| {
            let address = format!("backends.staging.url={}", case.service.url());
            let line = ["build", "-t", "agent:1", "-b", "staging", "--detach"];
            let set = ["--set", "backends.staging.type=runtime-api", "--set", &address];
            case.run(&[&line[..], &set].concat())?.good()?;
            let gone = [
                "`build-1` was submitted through the backend `staging`, which cannot be used now",
                "unknown backend `staging`",
                "submitted to: http://127.0.0.1:",
                "name another backend of that service with `--backend`",
            ];
            case.run(&["builds", "status", "build-1"])?.refused(2, &gone)?;
            same("listed", &json(case, &["builds"])?[0]["backend"], &"staging".into())?;
            let attached = case.run(&["builds", "attach", "build-1", "-b", "runtime-api"])?;
            same("image", attached.line()?, "registry.example.com/team/agent:1")?;
            // The one build is one entry, whatever its backend is called, and its end is known.
            let listed = json(case, &["builds"])?;
            same("entries", listed.as_array().map(Vec::len), Some(1))?;
            let nothing = case.place.run(&["builds", "attach", "build-1"])?;
            same("image", nothing.line()?, "registry.example.com/team/agent:1")?;
            case.place.run(&["builds", "logs", "build-1"])?.refused(2, &["cannot be used now"])
        }),
        rig.trial("ledger::detach_goes_to_the_next_backend", Habits::default, |case| {
            let set =
                ["--set", "backends.away.type=runtime-api", "--set", "backends.away.url=http://127.0.0.1:1"];
            let line = ["build", "-t", "agent:1", "-b", "away,runtime-api", "--detach", "--format", "json"];
            let outcome = case.run(&[&line[..], &set].concat())?;
            let started: Value = serde_json::from_str(outcome.good()?)?;
            same("backend", &started["backend"], &"runtime-api".into())?;
            same("passed over", &started["passed_over"][0]["backend"], &"away".into())?;
            same("said", outcome.stderr.contains("backend `away` is unavailable, trying the next"), true)
        }),
        rig.trial("ledger::many_at_once_and_killed_in_the_middle", Habits::default, |case| {
            let start = |_| case.start(&["build", "-t", "agent:1", "--detach"], &[]);
            let killed: Vec<_> = (0..6).map(start).collect::<Result<_, _>>()?;
            let kept: Vec<_> = (0..6).map(start).collect::<Result<_, _>>()?;
            // Each of them somewhere else in its work.
            for (number, program) in killed.into_iter().enumerate() {
                wait_until("some are sent", || case.service.calls("build").len() >= number)?;
                program.kill()?;
            }
            let mut ids = Vec::new();
            for program in kept {
                ids.push(program.wait()?.line()?.to_owned());
            }
            let outcome = case.run(&["builds", "--format", "json"])?;
            let listed: Vec<Value> = serde_json::from_str(outcome.good()?)?;
            same("damaged", outcome.stderr.contains("cannot be read"), false)?;
            for id in &ids {
                same(id, listed.iter().filter(|entry| entry["id"] == id.as_str()).count(), 1)?;
            }
            Ok(())
        }),
        rig.trial("ledger::damage_and_wrong_clocks_harm_nobody", Habits::default, |case| {
            case.run(&["build", "-t", "agent:1", "--detach"])?.good()?;
            let directory = case.place.home(".local/state/windlass/builds");
            let entry = std::fs::read_dir(&directory)?.next().ok_or("an entry")??.path();
            let text = std::fs::read_to_string(&entry)?;
            let field = |name: &str| text.split(&format!("\"{name}\": \"")).nth(1)?.split('"').next();
            let started = field("started_at").ok_or("a time")?;
            std::fs::write(&entry, text.replace(started, "2999-01-01T00:00:00Z"))?;
            std::fs::write(directory.join("cut.json"), &text[..text.len() / 2])?;
            let outcome = case.run(&["builds"])?;
            same("listed", outcome.good()?.contains("build-1"), true)?;
            same("said", outcome.stderr.contains("cut.json`: it is damaged"), true)?;
            same("id", case.run(&["build", "-t", "agent:2", "--detach"])?.line()?, "build-2")?;
            case.run(&["builds", "attach", "build-1"])?.good().map(drop)
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

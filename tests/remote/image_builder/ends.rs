//! How builds end, and what is made of it.

use libtest_mimic::Trial;
use serde_json::json;
use windlass_tests::service::image_builder::{API_KEY, Call, Habits, LogPart, Reaction};

use super::{
    End, GOOD, IMAGE, Rig, Scenario, done, every, first, later, log, page, refusal, running, same, status,
    table, trial,
};

const FAILED: End = End { code: 1, ..GOOD };

#[rustfmt::skip]
const SCENARIOS: &[Scenario] = &[
    Scenario { name: "no_image_in_the_status", options: &[],
        script: |asked| every(asked, Call::Status, status(json!({"status": "success"}))),
        end: End { says: &["has succeeded, but its image cannot be found", "Build succeeded but no image_ref in status: {\"status\":\"success\"}", "build id: build-1"], ..FAILED } },
    Scenario { name: "an_image_that_is_no_reference", options: &[],
        script: |asked| every(asked, Call::Status, status(json!({"status": "success", "image_ref": "UP/../x"}))),
        end: End { says: &["calls the image `UP/../x`, which is no reference"], ..FAILED } },
    Scenario { name: "a_status_that_is_silent_leaves_it_to_the_log", options: &[],
        script: |asked| every(asked, Call::Status, status(json!({"image_ref": "r.example.com/x:1"}))),
        end: GOOD },
    Scenario { name: "a_status_that_is_silent_about_a_failure", options: &[],
        script: |asked| match asked.call {
            Call::Logs => log(&["a"], &["data: {\"error\": \"no space\"}\n\n".into()]),
            _ => every(asked, Call::Status, status(json!({}))),
        },
        end: End { says: &["Build build-1 failed: no space", "| a"], lines: Some(&["a"]), ..FAILED } },
    Scenario { name: "capital_words", options: &[],
        script: |asked| every(asked, Call::Status, status(json!({"status": "SUCCESS", "image_ref": "r.example.com/x:1"}))),
        end: GOOD },
    Scenario { name: "other_words", options: &[],
        script: |asked| every(asked, Call::Status, status(json!({"status": "Completed", "image_ref": "r.example.com/x:1"}))),
        end: GOOD },
    Scenario { name: "an_unknown_word_is_waited_on", options: &[],
        script: |asked| match asked.call {
            Call::Logs => first(asked, Call::Logs, &[log(&[], &[]), log(&[], &[])]),
            _ => first(asked, Call::Status, &[status(json!({"status": "BREWING"})), status(json!({"status": "BREWING"}))]),
        },
        end: End { says: &["`BREWING`, which means nothing"], logs: Some(3), statuses: Some(3), ..GOOD } },
    Scenario { name: "a_done_that_is_none", options: &[],
        script: |asked| match asked.call {
            Call::Logs => log(&["a"], &[done()]),
            _ => every(asked, Call::Status, status(json!({"status": "FAILURE"}))),
        },
        end: End { says: &["the build of `agent:1` failed on `127.0.0.1:", "Build failed with status: FAILURE. Build ID: build-1", "status: FAILURE"], ..FAILED } },
    Scenario { name: "an_error_that_is_none", options: &[],
        script: |asked| every(asked, Call::Logs, log(&["a"], &["data: {\"error\": \"x\"}\n\n".into()])),
        end: End { lines: Some(&["a"]), ..GOOD } },
    Scenario { name: "is_cancelled_there", options: &[],
        script: |asked| every(asked, Call::Status, status(json!({"status": "CANCELED"}))),
        end: End { says: &["the build of `agent:1` was cancelled on", "status: CANCELED"], ..FAILED } },
    Scenario { name: "fails_before_there_is_a_log", options: &[],
        script: |asked| match asked.call {
            Call::Logs => refusal(404, "no pod"),
            _ => first(asked, Call::Status, &[running(), status(json!({"status": "failed", "error": "no room for the pod"}))]),
        },
        end: End { says: &["Build build-1 failed: no room for the pod"], lines: Some(&[]), logs: Some(2), statuses: Some(2), ..FAILED } },
    Scenario { name: "pending_for_ever", options: &["build-timeout=400ms"],
        script: |asked| match asked.call {
            Call::Logs => log(&["a"], &[LogPart::Hang]),
            _ => every(asked, Call::Status, status(json!({"status": "PENDING"}))),
        },
        end: End { code: 4, says: &["the build `build-1` has not ended after 0 s", "build-timeout", "builds attach build-1"], statuses: Some(0), ..FAILED } },
    Scenario { name: "log_after_log_for_ever", options: &["build-timeout=400ms"],
        script: |asked| match asked.call {
            Call::Logs => log(&["a"], &[]),
            _ => every(asked, Call::Status, running()),
        },
        end: End { code: 4, says: &["has not ended"], lines: Some(&["a"]), logs: None, statuses: None, ..FAILED } },
    Scenario { name: "status_troubles_heal", options: &[],
        script: |asked| first(asked, Call::Status, &[refusal(500, "x"), Reaction::CutWithoutAnswer]),
        end: End { statuses: Some(3), ..GOOD } },
    Scenario { name: "status_is_silent_once", options: &["call-timeout=300ms"],
        script: |asked| first(asked, Call::Status, &[Reaction::Silent]),
        end: End { statuses: Some(2), ..GOOD } },
    Scenario { name: "status_is_no_json_once", options: &[],
        script: |asked| first(asked, Call::Status, &[page()]),
        end: End { says: &["no status of a build"], statuses: Some(2), ..GOOD } },
    Scenario { name: "status_is_never_json", options: &["status-attempts=3", "log-attempts=2"],
        script: |asked| every(asked, Call::Status, page()),
        end: End { code: 3, says: &["connection lost, build still running: `build-1`", "no status of a build"], logs: Some(2), statuses: None, ..FAILED } },
    Scenario { name: "busy_when_it_is_done_for_longer_than_our_own_waits", options: &["retry-after-limit=200ms"],
        script: |asked| first(asked, Call::Status, &[later(429, "3600")]),
        end: End { statuses: Some(2), ..GOOD } },
    Scenario { name: "no_status_when_it_is_done_for_longer_than_the_attempts", options: &["status-attempts=5"],
        script: |asked| match asked.call {
            Call::Logs => log(&["a"], &[done(), LogPart::Hang]),
            _ => first(asked, Call::Status, &vec![refusal(503, "x"); 7]),
        },
        end: End { lines: Some(&["a", "{\"done\": true}"]), statuses: Some(8), ..GOOD } },
    Scenario { name: "the_key_in_a_failure", options: &[],
        script: |asked| every(asked, Call::Status, status(json!({"status": "failed", "error": format!("bad key {API_KEY}")}))),
        end: End { says: &["Build build-1 failed: bad key (hidden)"], ..FAILED } },
    Scenario { name: "the_key_in_a_document_without_image", options: &[],
        script: |asked| every(asked, Call::Status, status(json!({"status": "success", "x": format!("{}{API_KEY}", "x".repeat(265))}))),
        end: End { says: &["Build succeeded but no image_ref in status: "], ..FAILED } },
    Scenario { name: "status_refused", options: &[],
        script: |asked| every(asked, Call::Status, refusal(401, "expired")),
        end: End { code: 3, says: &["answered 401 expired", "builds attach build-1"], ..FAILED } },
];

pub(super) fn trials(rig: &Rig) -> Vec<Trial> {
    let fails = || Habits {
        builder: Box::new(|_, _, log| {
            (0..30).for_each(|number| log(&format!("line {number}")));
            Err("step 3: exit code 1".to_owned())
        }),
        ..Habits::default()
    };
    let cut_off = move || Habits {
        script: Box::new(|asked| {
            first(asked, Call::Logs, &[log(&["line 0"], &[LogPart::UntilTheEnd, LogPart::Cut])])
        }),
        ..fails()
    };
    let says_why = |case: &super::Case| {
        let outcome = case.build(&[])?;
        outcome.refused(
            1,
            &[
                "the build of `agent:1` failed on `127.0.0.1:",
                "cause: Build build-1 failed: step 3: exit code 1",
                "status: failed",
                "build id: build-1",
                "| line 10\n",
                "| line 29\n",
            ],
        )?;
        same("only the last lines", outcome.stderr.contains("| line 9\n"), false)
    };
    let alone = [
        trial(rig, "ends::a_failed_build_says_why_with_its_last_lines", fails, says_why),
        trial(rig, "ends::also_where_its_log_was_cut_off", cut_off, says_why),
        trial(rig, "ends::the_image_is_what_the_service_says", Habits::default, |case| {
            same("image", case.build(&[])?.line()?, IMAGE)
        }),
    ];
    table(rig, "ends", SCENARIOS).into_iter().chain(alone).collect()
}

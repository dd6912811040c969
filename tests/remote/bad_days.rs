//! What a service may do to us, one scenario each, and what comes of it.

use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use serde_json::json;
use windlass_tests::place::wait_until;
use windlass_tests::service::Answer;
use windlass_tests::service::runtime_api::{API_KEY, Asked, Habits, Reaction, document};

use crate::rig::{Case, Rig, same};

/// How a scenario ends: the exit code, and what is said.
struct End {
    code: i32,
    says: &'static [&'static str],
    /// So many times the build was sent, and its status asked for; `None` where that does not matter.
    posts: usize,
    polls: Option<usize>,
}

const GOOD: End = End { code: 0, says: &[], posts: 1, polls: Some(3) };

struct Scenario {
    name: &'static str,
    options: &'static [&'static str],
    script: fn(&Asked) -> Reaction,
    end: End,
}

fn answer(status: u16, text: &str) -> Reaction {
    Reaction::Answer(document(status, json!({ "error": text })))
}

fn later(status: u16, retry_after: &str) -> Reaction {
    Reaction::Answer(document(status, json!({ "error": "busy" })).header("Retry-After", retry_after))
}

fn status(document: serde_json::Value) -> Reaction {
    Reaction::Answer(self::document(200, document))
}

/// Reacts to the first requests of a call, in order.
fn first(asked: &Asked, call: &str, reactions: &[Reaction]) -> Reaction {
    match reactions.get(asked.before) {
        Some(reaction) if asked.call == call => reaction.clone(),
        _ => Reaction::Normal,
    }
}

/// Reacts to every request of a call.
fn every(asked: &Asked, call: &str, reaction: Reaction) -> Reaction {
    if asked.call == call { reaction } else { Reaction::Normal }
}

const OTHER_HOST: &str = "http://elsewhere.invalid/build?token=secret";

#[rustfmt::skip]
const SCENARIOS: &[Scenario] = &[
    // Sending.
    Scenario { name: "busy_for_seconds", options: &[],
        script: |asked| first(asked, "build", &[later(429, "0"), later(429, "0")]),
        end: End { posts: 3, says: &["trying again in 0.0 s (retry 2 of 7)"], ..GOOD } },
    Scenario { name: "busy_until_a_date", options: &[],
        script: |asked| first(asked, "build", &[later(429, "Thu, 01 Jan 2026 00:00:00 GMT")]),
        end: End { posts: 2, ..GOOD } },
    Scenario { name: "busy_until_a_date_far_away", options: &["retry-after-limit=30ms"],
        script: |asked| first(asked, "build", &[later(429, "Fri, 01 Jan 2100 00:00:00 GMT")]),
        end: End { posts: 2, says: &["trying again in 0.0 s"], ..GOOD } },
    Scenario { name: "busy_for_longer_than_we_wait", options: &["retry-after-limit=30ms"],
        script: |asked| first(asked, "build", &[later(503, "3600")]),
        end: End { posts: 2, ..GOOD } },
    Scenario { name: "busy_for_ever", options: &["attempts=3"],
        script: |asked| every(asked, "build", later(429, "0")),
        end: End { code: 3, says: &["could not build `registry.example.com/team/agent:1`", "answered 429 busy", "attempts: 3"], posts: 3, polls: Some(0) } },
    Scenario { name: "an_error_of_the_service_is_not_repeated", options: &[],
        script: |asked| every(asked, "build", answer(500, "out of luck")),
        end: End { code: 1, says: &["may or may not have taken the build", "answered 500 out of luck", "repeat-uploads"], posts: 1, polls: Some(0) } },
    Scenario { name: "an_error_that_heals_where_repeating_is_allowed", options: &["repeat-uploads=true"],
        script: |asked| first(asked, "build", &[answer(500, "x"), answer(502, "x")]),
        end: End { posts: 3, ..GOOD } },
    Scenario { name: "busy_without_a_word_on_when", options: &[],
        script: |asked| every(asked, "build", answer(503, "upstream reset")),
        end: End { code: 1, says: &["may or may not have taken the build", "answered 503 upstream reset"], posts: 1, polls: Some(0) } },
    Scenario { name: "busy_without_a_word_on_when_where_repeating_is_allowed", options: &["repeat-uploads=true"],
        script: |asked| first(asked, "build", &[answer(503, "x"), answer(408, "x")]),
        end: End { posts: 3, ..GOOD } },
    Scenario { name: "an_image_with_a_word_of_its_own", options: &[],
        script: |asked| every(asked, "build", status(json!({"image": "registry.example.com/team/agent:1", "status": "built"}))),
        end: End { polls: Some(0), ..GOOD } },
    Scenario { name: "cut_while_uploading", options: &[],
        script: |asked| first(asked, "build", &[Reaction::CutAfter(100)]),
        end: End { code: 1, says: &["may or may not have taken"], posts: 1, polls: Some(0) } },
    Scenario { name: "cut_after_the_body", options: &[],
        script: |asked| first(asked, "build", &[Reaction::CutWithoutAnswer]),
        end: End { code: 1, says: &["may or may not have taken", "it is not sent again by itself"], posts: 1, polls: Some(0) } },
    Scenario { name: "cut_after_the_body_of_a_build_that_was_taken", options: &["repeat-uploads=true", "registry-prefix=none"],
        script: |asked| first(asked, "build", &[Reaction::CutWithoutAnswer]),
        end: End { code: 1, says: &["may or may not have taken"], posts: 1, polls: Some(0) } },
    Scenario { name: "no_answer_to_an_upload", options: &["answer-timeout=1s"],
        script: |asked| every(asked, "build", Reaction::Silent),
        end: End { code: 4, says: &["may or may not have taken", "did not answer for 1 s"], posts: 1, polls: Some(0) } },
    Scenario { name: "an_answer_that_breaks_off", options: &[],
        script: |asked| every(asked, "build", Reaction::CutAnswerAfter(document(202, json!({"build_id": "build-1"})), 5)),
        end: End { code: 1, says: &["was lost", "it gave no id"], posts: 1, polls: Some(0) } },
    Scenario { name: "refused_before_the_body_is_read", options: &[],
        script: |asked| every(asked, "build", Reaction::Early(document(401, json!({"error": "no"})))),
        end: End { code: 3, says: &["answered 401 no", "X-API-Key"], posts: 1, polls: Some(0) } },
    Scenario { name: "forbidden", options: &[],
        script: |asked| every(asked, "build", answer(403, "not yours")),
        end: End { code: 3, says: &["answered 403 not yours"], posts: 1, polls: Some(0) } },
    Scenario { name: "the_key_is_not_repeated", options: &[],
        script: |asked| every(asked, "build", answer(403, "key-of-the-tests may not build")),
        end: End { code: 3, says: &["answered 403 (hidden) may not build"], posts: 1, polls: Some(0) } },
    Scenario { name: "the_key_is_not_repeated_by_a_failed_build", options: &[],
        script: |asked| every(asked, "build_status", status(json!({"status": "FAILED", "error": "no quota for key-of-the-tests"}))),
        end: End { code: 1, says: &["no quota for (hidden)"], posts: 1, polls: Some(1) } },
    Scenario { name: "too_large", options: &[],
        script: |asked| every(asked, "build", answer(413, "too much")),
        end: End { code: 2, says: &["answered 413", ".dockerignore"], posts: 1, polls: Some(0) } },
    Scenario { name: "both_forms_are_refused", options: &[],
        script: |asked| every(asked, "build", answer(400, "bad name")),
        end: End { code: 1, says: &["answered 400 bad name"], posts: 2, polls: Some(0) } },
    Scenario { name: "a_redirect_to_another_host", options: &[],
        script: |asked| every(asked, "build", Reaction::Answer(Answer::new(307).header("Location", OTHER_HOST))),
        end: End { code: 1, says: &["points to `http://elsewhere.invalid`", "the key goes nowhere else"], posts: 1, polls: Some(0) } },
    Scenario { name: "no_build_id", options: &[],
        script: |asked| every(asked, "build", status(json!({"status": "PENDING"}))),
        end: End { code: 1, says: &["answered no build id", "it gave no id to come back to"], posts: 1, polls: Some(0) } },
    Scenario { name: "an_answer_that_is_no_json", options: &[],
        script: |asked| every(asked, "build", Reaction::Answer(Answer::new(202).header("Content-Type", "text/html").body("<title>Welcome</title>"))),
        end: End { code: 1, says: &["no document with a build id", "it said: Welcome"], posts: 1, polls: Some(0) } },
    Scenario { name: "json_by_another_name", options: &[],
        script: |asked| first(asked, "build_status", &[Reaction::Answer(Answer::new(200).header("Content-Type", "text/html").body(r#"{"status":"SUCCESS"}"#))]),
        end: End { polls: Some(1), ..GOOD } },
    Scenario { name: "an_answer_of_201", options: &[],
        script: |asked| every(asked, "build", Reaction::Answer(document(201, json!({"build_id": "other"})))),
        end: End { code: 1, says: &["knows no build `other`"], posts: 1, polls: None } },
    // The other calls before it.
    Scenario { name: "the_prefix_heals", options: &[],
        script: |asked| first(asked, "registry_prefix", &[answer(503, "x")]),
        end: GOOD },
    Scenario { name: "the_key_is_not_known", options: &[],
        script: |asked| every(asked, "registry_prefix", answer(401, "who are you")),
        end: End { code: 3, says: &["answered 401 who are you"], posts: 0, polls: Some(0) } },
    // Waiting.
    Scenario { name: "status_troubles_heal", options: &[],
        script: |asked| first(asked, "build_status", &[answer(500, "x"), answer(429, "x"), answer(408, "x"), answer(502, "x"), answer(501, "x"), Reaction::CutWithoutAnswer]),
        end: End { says: &["asking on", "answers again"], polls: Some(7), ..GOOD } },
    Scenario { name: "status_busy_for_longer_than_we_wait", options: &["retry-after-limit=30ms"],
        script: |asked| first(asked, "build_status", &[later(429, "3600"), later(503, "Fri, 01 Jan 2100 00:00:00 GMT")]),
        end: End { says: &["asking on"], polls: Some(3), ..GOOD } },
    Scenario { name: "status_not_found_now_and_then", options: &[],
        script: |asked| match asked.before { 0..4 | 6..10 => every(asked, "build_status", answer(404, "x")), 4 | 5 => every(asked, "build_status", status(json!({"status": "RUNNING"}))), _ => Reaction::Normal },
        end: End { polls: None, ..GOOD } },
    Scenario { name: "a_front_end_refuses_paths_it_does_not_know", options: &[],
        script: |asked| match asked.line.contains('?') {
            false => every(asked, "build_status", answer(403, "no such path")),
            true => first(asked, "build_status", &[answer(404, "x"), Reaction::Normal, answer(404, "x")]),
        },
        end: End { polls: None, ..GOOD } },
    Scenario { name: "status_is_silent_once", options: &["call-timeout=1s"],
        script: |asked| first(asked, "build_status", &[Reaction::Silent]),
        end: End { says: &["did not answer for 1 s", "asking on"], polls: None, ..GOOD } },
    Scenario { name: "status_breaks_off_in_the_middle", options: &[],
        script: |asked| first(asked, "build_status", &[Reaction::CutAnswerAfter(document(200, json!({"status": "FAILURE"})), 8)]),
        end: GOOD },
    Scenario { name: "status_troubles_do_not_heal", options: &["build-timeout=300ms"],
        script: |asked| every(asked, "build_status", answer(500, "out of luck")),
        end: End { code: 4, says: &["has not ended", "builds attach build-1", "build-timeout"], posts: 1, polls: None } },
    Scenario { name: "not_visible_at_first", options: &[],
        script: |asked| first(asked, "build_status", &[answer(404, "x"), answer(404, "x"), answer(404, "x"), answer(404, "x")]),
        end: End { polls: Some(5), ..GOOD } },
    Scenario { name: "never_visible", options: &[],
        script: |asked| every(asked, "build_status", answer(404, "no such build")),
        end: End { code: 1, says: &["knows no build `build-1`"], posts: 1, polls: Some(6) } },
    Scenario { name: "status_refused", options: &[],
        script: |asked| every(asked, "build_status", answer(401, "expired")),
        end: End { code: 3, says: &["answered 401 expired", "builds attach build-1"], posts: 1, polls: Some(1) } },
    Scenario { name: "status_forbidden", options: &[],
        script: |asked| every(asked, "build_status", answer(403, "no")),
        end: End { code: 3, says: &["answered 403"], posts: 1, polls: Some(1) } },
    Scenario { name: "status_is_no_json_once", options: &[],
        script: |asked| first(asked, "build_status", &[Reaction::Answer(Answer::new(200).body("<html>"))]),
        end: GOOD },
    Scenario { name: "status_is_never_json", options: &[],
        script: |asked| every(asked, "build_status", Reaction::Answer(Answer::new(200).body("[1,"))),
        end: End { code: 1, says: &["no status of a build", "[1,"], posts: 1, polls: Some(3) } },
    Scenario { name: "status_redirects_to_another_host", options: &[],
        script: |asked| every(asked, "build_status", Reaction::Answer(Answer::new(302).header("Location", OTHER_HOST))),
        end: End { code: 1, says: &["points to `http://elsewhere.invalid`"], posts: 1, polls: Some(1) } },
    Scenario { name: "status_redirects_inside", options: &[],
        script: |asked| first(asked, "build_status", &[Reaction::Answer(Answer::new(302).header("Location", "/build_status?build_id=build-1"))]),
        end: GOOD },
    Scenario { name: "an_unknown_word_is_waited_on", options: &[],
        script: |asked| first(asked, "build_status", &[status(json!({"status": "BREWING"})), status(json!({"status": "BREWING"})), status(json!({}))]),
        end: End { says: &["`BREWING`, which means nothing", "`no status`"], polls: Some(4), ..GOOD } },
    Scenario { name: "lower_case_words", options: &[],
        script: |asked| first(asked, "build_status", &[status(json!({"status": "in_progress"})), status(json!({"status": "completed", "image": "r.io/x:1"}))]),
        end: End { polls: Some(2), ..GOOD } },
    Scenario { name: "no_image_in_the_status", options: &[],
        script: |asked| first(asked, "build_status", &[status(json!({"status": "SUCCESS"}))]),
        end: End { polls: Some(1), ..GOOD } },
    Scenario { name: "no_error", options: &[],
        script: |asked| every(asked, "build_status", status(json!({"status": "RUNNING_AWAY", "error": null}))),
        end: End { code: 4, says: &["has not ended after"], posts: 1, polls: None } },
    Scenario { name: "pending_for_ever", options: &["build-timeout=200ms"],
        script: |asked| every(asked, "build_status", status(json!({"status": "PENDING"}))),
        end: End { code: 4, says: &["has not ended after 0 s", "builds attach build-1"], posts: 1, polls: None } },
    Scenario { name: "fails_without_a_reason", options: &[],
        script: |asked| first(asked, "build_status", &[status(json!({"status": "INTERNAL_ERROR"}))]),
        end: End { code: 1, says: &["Build failed with status: INTERNAL_ERROR. Build ID: build-1"], posts: 1, polls: Some(1) } },
    Scenario { name: "is_cancelled_there", options: &[],
        script: |asked| first(asked, "build_status", &[status(json!({"status": "CANCELED"}))]),
        end: End { code: 1, says: &["status: CANCELED"], posts: 1, polls: Some(1) } },
];

pub(crate) fn trials(rig: &Rig) -> Vec<Trial> {
    let of_table = SCENARIOS.iter().map(|scenario| {
        let habits = || Habits { script: Box::new(scenario.script), ..Habits::default() };
        rig.trial(format!("bad_days::{}", scenario.name), habits, |case| check(case, scenario))
    });
    of_table.chain(alone(rig)).collect()
}

fn check(case: &Case, scenario: &Scenario) -> Result<(), Failed> {
    let mut options = scenario.options.to_vec();
    if !options.iter().any(|option| option.starts_with("build-timeout")) {
        options.push(if scenario.name == "no_error" { "build-timeout=200ms" } else { "build-timeout=30s" });
    }
    let outcome = case.build(&options)?;
    let End { code, says, posts, polls } = &scenario.end;
    let missing: Vec<_> = says.iter().filter(|part| !outcome.stderr.contains(**part)).collect();
    if outcome.code != Some(*code) || !missing.is_empty() || (*code == 0) == outcome.stdout.is_empty() {
        return Err(format!("expected code {code} and {missing:?} in {outcome:#?}").into());
    }
    if outcome.stderr.contains("secret") || outcome.stderr.contains(API_KEY) {
        return Err(format!("a secret is shown: {outcome:#?}").into());
    }
    same("uploads", case.service.calls("build").len(), *posts)?;
    match polls {
        Some(polls) => same("questions", case.service.calls("build_status").len(), *polls),
        None => Ok(()),
    }
}

/// What does not fit into the table.
fn alone(rig: &Rig) -> Vec<Trial> {
    let slow = || Habits {
        script: Box::new(|asked| every(asked, "build", Reaction::Slow(Duration::from_millis(20)))),
        ..Habits::default()
    };
    let stalled = || Habits {
        script: Box::new(|asked| every(asked, "build", Reaction::Stall(10_000))),
        ..Habits::default()
    };
    let fails = || Habits {
        builder: Box::new(|_| Err("step 3: exit code 1".to_owned())),
        logs: Some("line 1\r\nline 2\nlast".to_owned()),
        ..Habits::default()
    };
    let waits = || Habits {
        script: Box::new(|asked| every(asked, "build_status", status(json!({ "status": "RUNNING" })))),
        ..Habits::default()
    };
    let never_answers =
        || Habits { script: Box::new(|asked| every(asked, "build", Reaction::Silent)), ..Habits::default() };
    vec![
        rig.trial("bad_days::a_slow_reader_is_waited_for", slow, |case| {
            case.place.write("large", vec![b'x'; 64 << 20])?;
            case.place.write("noise", noise(4 << 20))?;
            // A piece takes longer than nothing, but never as long as the limit.
            case.build(&["stall-timeout=5s"])?.good().map(drop)
        }),
        rig.trial("bad_days::a_reader_that_stops_is_given_up", stalled, |case| {
            case.place.write("noise", noise(40 << 20))?;
            let outcome = case.build(&["stall-timeout=1s", "attempts=2"])?;
            outcome.refused(3, &["took nothing for 1 s", "attempts: 2"])?;
            same("uploads", case.service.calls("build").len(), 2)
        }),
        rig.trial("bad_days::a_large_upload_that_is_cut_is_sent_again", cut_once, |case| {
            case.place.write("noise", noise(40 << 20))?;
            case.build(&[])?.good()?;
            same("uploads", case.service.calls("build").len(), 2)
        }),
        rig.trial("bad_days::a_failed_build_says_why", fails, |case| {
            let outcome = case.build(&[])?;
            outcome.refused(
                1,
                &[
                    "the build of `registry.example.com/team/agent:1` failed on `127.0.0.1:",
                    "cause: step 3: exit code 1",
                    "status: FAILURE",
                    "build id: build-1",
                    "ERROR: the build of",
                    "| line 2",
                    "| last",
                ],
            )
        }),
        rig.trial("bad_days::ctrl_c_leaves_the_build_and_says_how_to_come_back", waits, |case| {
            let program = case.start(&["build", "-t", "agent:1"], &[])?;
            wait_until("it is followed", || case.service.calls("build_status").len() > 1)?;
            let outcome = windlass_tests::place::interrupt(program)?;
            outcome.refused(
                130,
                &[
                    "error: cancelled",
                    "build id: build-1",
                    "`windlass builds attach build-1 --backend runtime-api`",
                ],
            )
        }),
        rig.trial("bad_days::ctrl_c_while_uploading_just_stops", stalled, |case| {
            case.place.write("noise", noise(40 << 20))?;
            let program = case.start(&["build", "-t", "agent:1"], &[])?;
            wait_until("it is sent", || !case.service.calls("build").is_empty())?;
            let outcome = windlass_tests::place::interrupt(program)?;
            outcome.refused(130, &["error: cancelled"])?;
            same("a hint", outcome.stderr.contains("hint:"), false)?;
            same("builds", case.run(&["builds", "--format", "json"])?.good()?.trim(), "[]")
        }),
        rig.trial("bad_days::ctrl_c_before_the_answer_says_what_is_not_known", never_answers, |case| {
            let program = case.start(&["build", "-t", "agent:1"], &[])?;
            let has_all = || case.service.calls("build").iter().any(|asked| asked.upload.is_some());
            wait_until("it is sent", has_all)?;
            let outcome = windlass_tests::place::interrupt(program)?;
            outcome.refused(130, &["error: cancelled", "the service had the whole upload already"])
        }),
        rig.trial("bad_days::the_users_limit_goes_before_that_of_the_backend", Habits::default, |case| {
            let outcome =
                case.run_set(&["build", "-t", "agent:1", "--timeout", "60m"], &["build-timeout=1ms"])?;
            same("built", outcome.line()?, "registry.example.com/team/agent:1")?;
            case.run(&["build", "-t", "agent:2", "--detach"])?.good()?;
            let line = ["builds", "attach", "build-2", "--timeout", "60m"];
            case.run_set(&line, &["build-timeout=1ms"])?.good().map(drop)
        }),
        rig.trial("bad_days::the_users_limit_stops_the_waiting", waits, |case| {
            let outcome = case.run(&["build", "-t", "agent:1", "--timeout", "500ms"])?;
            outcome.refused(
                4,
                &[
                    "stopped after",
                    "build id: build-1",
                    "`windlass builds attach build-1 --backend runtime-api`",
                ],
            )?;
            same("sent", case.service.calls("build").len(), 1)
        }),
        rig.trial("bad_days::nobody_listens", Habits::default, |case| {
            let outcome = case.place.run_with(
                &["build", "-t", "agent:1"],
                &[("RUNTIME_API_URL", "http://127.0.0.1:1"), ("RUNTIME_API_KEY", "x")],
            )?;
            outcome.refused(3, &["could not reach `127.0.0.1:1`", "hint: check the address"])
        }),
    ]
}

/// The first upload is cut in the middle.
fn cut_once() -> Habits {
    let script = |asked: &Asked| first(asked, "build", &[Reaction::CutAfter(1 << 20)]);
    Habits { script: Box::new(script), ..Habits::default() }
}

/// Bytes that do not get smaller.
pub(crate) fn noise(size: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}

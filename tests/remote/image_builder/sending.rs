//! What the service may do while a build is sent.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::json;
use windlass_tests::service::image_builder::{API_KEY, Asked, Call, Habits, Reaction};
use windlass_tests::service::runtime_api::document;

use super::{
    End, GOOD, Rig, Scenario, elsewhere, every, first, later, page, refusal, same, status, table, trial,
};

/// Nothing comes of it.
const LOST: End = End { code: 1, says: &[], lines: Some(&[]), submits: 1, logs: Some(0), statuses: Some(0) };

#[rustfmt::skip]
const SCENARIOS: &[Scenario] = &[
    Scenario { name: "busy_for_seconds", options: &[],
        script: |asked| first(asked, Call::Submit, &[later(429, "0"), later(429, "0")]),
        end: End { submits: 3, says: &["trying again in 0.0 s (retry 2 of 2)"], ..GOOD } },
    Scenario { name: "busy_until_a_date", options: &[],
        script: |asked| first(asked, Call::Submit, &[later(429, "Thu, 01 Jan 2026 00:00:00 GMT")]),
        end: End { submits: 2, ..GOOD } },
    Scenario { name: "busy_for_longer_than_we_wait", options: &["retry-after-limit=30ms"],
        script: |asked| first(asked, Call::Submit, &[later(503, "3600")]),
        end: End { submits: 2, ..GOOD } },
    Scenario { name: "the_clock_of_the_service_is_years_ahead", options: &["retry-after-limit=60ms"],
        script: |asked| first(asked, Call::Submit, &[later(429, "Fri, 31 Dec 2049 00:00:00 GMT")]),
        end: End { submits: 2, says: &["asks for patience"], ..GOOD } },
    Scenario { name: "busy_for_ever", options: &[],
        script: |asked| every(asked, Call::Submit, later(429, "0")),
        end: End { code: 3, says: &["could not build `agent:1`", "answered 429 busy", "attempts: 3"], submits: 3, ..LOST } },
    Scenario { name: "an_error_that_heals", options: &[],
        script: |asked| first(asked, Call::Submit, &[refusal(500, "x"), refusal(502, "x")]),
        end: End { submits: 3, ..GOOD } },
    Scenario { name: "an_error_that_does_not_heal", options: &["attempts=2"],
        script: |asked| every(asked, Call::Submit, refusal(500, "out of luck")),
        end: End { code: 3, says: &["answered 500 out of luck", "attempts: 2"], submits: 2, ..LOST } },
    Scenario { name: "no_such_call", options: &[],
        script: |asked| every(asked, Call::Submit, refusal(501, "not here")),
        end: End { says: &["answered 501 not here"], ..LOST } },
    Scenario { name: "cut_while_uploading_what_was_on_its_way", options: &[],
        script: |asked| first(asked, Call::Submit, &[Reaction::CutAfter(100)]),
        end: End { says: &["may or may not have taken the build of `agent:1`"], ..LOST } },
    Scenario { name: "cut_after_the_body", options: &[],
        script: |asked| first(asked, Call::Submit, &[Reaction::CutWithoutAnswer]),
        end: End { says: &["may or may not have taken", "it is not sent again by itself"], ..LOST } },
    Scenario { name: "no_answer", options: &["answer-timeout=1s"],
        script: |asked| every(asked, Call::Submit, Reaction::Silent),
        end: End { code: 4, says: &["may or may not have taken", "did not answer for 1 s"], ..LOST } },
    Scenario { name: "refused_before_the_body_is_read", options: &[],
        script: |asked| every(asked, Call::Submit, Reaction::Early(document(401, json!({"error": "no"})))),
        end: End { code: 3, says: &["answered 401 no", "Authorization: Bearer"], ..LOST } },
    Scenario { name: "forbidden", options: &[],
        script: |asked| every(asked, Call::Submit, refusal(403, "not yours")),
        end: End { code: 3, says: &["answered 403 not yours"], ..LOST } },
    Scenario { name: "too_large", options: &[],
        script: |asked| every(asked, Call::Submit, refusal(413, "too much")),
        end: End { code: 2, says: &["answered 413", ".dockerignore"], ..LOST } },
    Scenario { name: "refused", options: &[],
        script: |asked| every(asked, Call::Submit, refusal(422, "bad name")),
        end: End { says: &["could not build `agent:1`", "answered 422 bad name"], ..LOST } },
    Scenario { name: "a_redirect_to_another_host", options: &[],
        script: |asked| every(asked, Call::Submit, elsewhere(307)),
        end: End { says: &["points to `http://elsewhere.invalid`", "the key goes nowhere else"], ..LOST } },
    Scenario { name: "no_build_id", options: &[],
        script: |asked| every(asked, Call::Submit, status(json!({"status": "PENDING"}))),
        end: End { says: &["the build of `agent:1` was lost", "No build_id in response: {\"status\":\"PENDING\"}", "it gave no id"], ..LOST } },
    Scenario { name: "the_key_instead_of_a_build_id", options: &[],
        script: |asked| every(asked, Call::Submit, status(json!({"token": API_KEY}))),
        end: End { says: &["No build_id in response: {\"token\":\"(hidden)\"}"], ..LOST } },
    Scenario { name: "an_answer_that_is_no_json", options: &[],
        script: |asked| every(asked, Call::Submit, page()),
        end: End { says: &["no document with a build id", "it said: Welcome"], ..LOST } },
    Scenario { name: "an_id_that_nobody_knows", options: &["not-found-timeout=100ms"],
        script: |asked| every(asked, Call::Submit, Reaction::Answer(document(201, json!({"build_id": "other"})))),
        end: End { says: &["knows no build `other`"], logs: None, statuses: None, ..LOST } },
];

pub(super) fn trials(rig: &Rig) -> Vec<Trial> {
    table(rig, "sending", SCENARIOS).into_iter().chain(alone(rig)).collect()
}

/// What does not fit into the table.
fn alone(rig: &Rig) -> Vec<Trial> {
    fn reacting(script: impl Fn(&Asked) -> Reaction + Send + Sync + 'static) -> Habits {
        Habits { script: Box::new(script), ..Habits::default() }
    }
    let slow = || reacting(|asked| every(asked, Call::Submit, Reaction::Slow(Duration::from_millis(20))));
    let stalled = || reacting(|asked| every(asked, Call::Submit, Reaction::Stall(10_000)));
    let cut = || reacting(|asked| first(asked, Call::Submit, &[Reaction::CutAfter(1 << 20)]));
    vec![
        trial(rig, "sending::a_slow_reader_is_waited_for", slow, |case| {
            case.place.write("app/noise", noise(4 << 20))?;
            // A piece takes longer than nothing, but never as long as the limit.
            case.build(&["stall-timeout=5s"])?.good().map(drop)
        }),
        trial(rig, "sending::a_reader_that_stops_is_given_up", stalled, |case| {
            case.place.write("app/noise", noise(40 << 20))?;
            let outcome = case.build(&["stall-timeout=1s", "attempts=2"])?;
            outcome.refused(3, &["took nothing for 1 s", "attempts: 2"])?;
            same("submissions", case.count(Call::Submit), 2)
        }),
        trial(rig, "sending::a_large_upload_that_is_cut_is_sent_again", cut, |case| {
            case.place.write("app/noise", noise(40 << 20))?;
            case.build(&[])?.good()?;
            let sent = case.service.calls(Call::Submit);
            same("submissions", sent.len(), 2)?;
            same("the second is whole", sent[1].submission.is_some(), true)
        }),
        trial(rig, "sending::nobody_listens", Habits::default, |case| {
            let nobody = [("TOGETHER_BASE_URL", "http://127.0.0.1:1"), ("TOGETHER_API_KEY", "x")];
            let outcome = case.place.run_with(
                &["build", "app", "--set", "backends.image-builder.retry-first-wait=10ms"],
                &nobody,
            )?;
            outcome.refused(3, &["could not reach `127.0.0.1:1`"])
        }),
    ]
}

/// Bytes that do not get smaller.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}

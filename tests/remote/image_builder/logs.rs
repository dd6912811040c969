//! What may happen to the log. Nothing of it changes the result; no line is lost, and none is shown twice.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::json;
use windlass_tests::service::image_builder::{Asked, Call, Habits, LogPart, Reaction, event};

use super::{
    End, GOOD, IMAGE, Rig, Scenario, done, elsewhere, every, first, later, log, log_lines, page, refusal,
    running, same, status, table, trial,
};

/// The log breaks off once, the build goes on, the log is read again to its end.
const TWICE: End = End { lines: Some(&["a", "b", "c"]), logs: Some(2), statuses: Some(2), ..GOOD };
const REFUSED: End = End { code: 1, lines: Some(&[]), ..GOOD };
/// No claim is asked about a second time while the test runs.
const PATIENT: &[&str] = &["reconnect-first-wait=20s", "reconnect-longest-wait=20s"];

/// Two readings of the log, and a build that runs when it is asked for between them.
fn twice(asked: &Asked, one: Reaction, two: Reaction) -> Reaction {
    match asked.call {
        Call::Logs => first(asked, Call::Logs, &[one, two]),
        _ => first(asked, Call::Status, &[running()]),
    }
}

fn whole() -> Reaction {
    log(&["a", "b", "c"], &[done()])
}

/// A log in single bytes.
fn in_bytes(text: &[u8]) -> Reaction {
    Reaction::Log(text.iter().map(|byte| LogPart::Send(vec![*byte])).collect())
}

#[rustfmt::skip]
const SCENARIOS: &[Scenario] = &[
    Scenario { name: "cut_in_the_middle_of_an_event", options: &[],
        script: |asked| twice(asked, log(&["a"], &["data: b".into(), LogPart::Cut]), whole()),
        end: End { says: &["broke off"], ..TWICE } },
    Scenario { name: "cut_between_events", options: &[],
        script: |asked| twice(asked, log(&["a", "b"], &[LogPart::Cut]), whole()),
        end: TWICE },
    Scenario { name: "cut_and_its_ids_are_new_with_each_connection", options: &[],
        script: |asked| twice(asked,
            Reaction::Log(vec!["id: x1\ndata: a\n\nid: x2\ndata: b\n\n".into(), LogPart::Cut]),
            Reaction::Log(vec!["id: y1\ndata: a\n\nid: y2\ndata: b\n\nid: y3\ndata: c\n\n".into(), done()])),
        end: TWICE },
    Scenario { name: "cut_before_the_first_event", options: &[],
        script: |asked| twice(asked, log(&[], &[": hello\n\n".into(), LogPart::Cut]), whole()),
        end: TWICE },
    Scenario { name: "ends_while_the_build_goes_on", options: &[],
        script: |asked| twice(asked, log(&["a", "b"], &[]), whole()),
        end: TWICE },
    Scenario { name: "ends_in_the_middle_of_an_event", options: &[],
        script: |asked| twice(asked, log(&["a"], &["data: half".into()]), whole()),
        end: TWICE },
    Scenario { name: "ends_with_the_build_and_without_a_word", options: &[],
        script: |asked| every(asked, Call::Logs, log(&["a"], &[])),
        end: End { lines: Some(&["a"]), ..GOOD } },
    Scenario { name: "cut_when_the_build_has_ended", options: &[],
        script: |asked| first(asked, Call::Logs, &[log(&["a"], &[LogPart::Cut]), whole()]),
        end: TWICE },
    Scenario { name: "silent_for_longer_than_the_limit", options: &["log-stall-timeout=300ms"],
        script: |asked| twice(asked, log(&["a"], &[LogPart::Hang]), whole()),
        end: End { says: &["sent nothing for 0 s"], ..TWICE } },
    Scenario { name: "silent_before_the_head", options: &["log-stall-timeout=300ms"],
        script: |asked| first(asked, Call::Logs, &[Reaction::Silent, whole()]),
        end: End { statuses: Some(1), ..TWICE } },
    Scenario { name: "slow_but_not_silent", options: &["log-stall-timeout=5s"],
        script: |asked| every(asked, Call::Logs, Reaction::Log(vec![
            LogPart::Pause(Duration::from_millis(200)), event("a").as_str().into(), LogPart::Pause(Duration::from_millis(200)), done()])),
        end: End { lines: Some(&["a"]), ..GOOD } },
    Scenario { name: "not_there_before_the_builder", options: &[],
        script: |asked| match asked.call {
            Call::Logs => first(asked, Call::Logs, &[refusal(404, "x"), refusal(404, "x"), refusal(404, "x")]),
            _ => first(asked, Call::Status, &[refusal(404, "x"), refusal(404, "x"), running()]),
        },
        end: End { says: &["the log is not there yet"], logs: Some(4), statuses: Some(4), ..GOOD } },
    Scenario { name: "never_there", options: &["not-found-timeout=0", "log-attempts=2"],
        script: |asked| match asked.call {
            Call::Logs => refusal(404, "x"),
            _ => first(asked, Call::Status, &[running(), running(), running()]),
        },
        end: End { lines: Some(&[]), logs: Some(4), statuses: Some(4), ..GOOD } },
    Scenario { name: "another_log_after_a_restart_is_shown_from_where_it_differs", options: &[],
        script: |asked| twice(asked, log(&["a", "b"], &[LogPart::Cut]), log(&["a", "x", "y"], &[done()])),
        end: End { lines: Some(&["a", "b", "x", "y"]), ..TWICE } },
    Scenario { name: "troubles_heal", options: &[],
        script: |asked| first(asked, Call::Logs, &[refusal(500, "x"), later(429, "0"), refusal(408, "x"), refusal(503, "x"), Reaction::CutWithoutAnswer, whole()]),
        end: End { lines: Some(&["a", "b", "c"]), logs: Some(6), ..GOOD } },
    Scenario { name: "troubles_do_not_heal_but_the_build_is_good", options: &["log-attempts=3"],
        script: |asked| match asked.call {
            Call::Logs => refusal(500, "out of luck"),
            _ => first(asked, Call::Status, &[running(), running()]),
        },
        end: End { says: &["answered 500 out of luck"], lines: Some(&[]), logs: Some(5), statuses: Some(3), ..GOOD } },
    Scenario { name: "neither_log_nor_status", options: &["log-attempts=3", "status-attempts=2", "attempts=1"],
        script: |asked| match asked.call {
            Call::Logs | Call::Status => refusal(500, "out of luck"),
            _ => Reaction::Normal,
        },
        end: End { code: 3, says: &["connection lost, build still running: `build-1`", "answered 500 out of luck", "build id: build-1", "`windlass builds attach build-1 --backend image-builder`"],
            lines: Some(&[]), logs: Some(3), statuses: Some(2), ..GOOD } },
    Scenario { name: "refused_401", options: &[],
        script: |asked| every(asked, Call::Logs, refusal(401, "expired")),
        end: End { code: 3, says: &["could not read the log of the build `build-1`", "answered 401 expired", "builds attach build-1"], statuses: Some(0), ..REFUSED } },
    Scenario { name: "refused_403", options: &[],
        script: |asked| every(asked, Call::Logs, refusal(403, "not yours")),
        end: End { code: 3, says: &["answered 403 not yours"], statuses: Some(0), ..REFUSED } },
    Scenario { name: "refused_410", options: &[],
        script: |asked| every(asked, Call::Logs, refusal(410, "gone")),
        end: End { says: &["answered 410 gone"], statuses: Some(0), ..REFUSED } },
    Scenario { name: "a_redirect_to_another_host", options: &[],
        script: |asked| every(asked, Call::Logs, elsewhere(302)),
        end: End { says: &["points to `http://elsewhere.invalid`", "the key goes nowhere else"], statuses: Some(0), ..REFUSED } },
    Scenario { name: "no_log_but_a_page", options: &[],
        script: |asked| first(asked, Call::Logs, &[page(), whole()]),
        end: End { says: &["`text/html`, which is no log"], statuses: Some(1), ..TWICE } },
    Scenario { name: "look_alikes_are_lines", options: PATIENT,
        script: |asked| match asked.call {
            Call::Logs => log(&["{\"done\": true}", "{\"error\":\"of a step\"}", "c"], &[done()]),
            _ => first(asked, Call::Status, &[running(), running()]),
        },
        end: End { lines: Some(&["{\"done\": true}", "{\"error\":\"of a step\"}", "c"]), statuses: Some(3), ..GOOD } },
    Scenario { name: "what_cannot_be_a_claim_is_not_asked_about", options: &[],
        script: |asked| every(asked, Call::Logs, log(
            &["{\"error\":null}", "{\"error\":\"\"}", "{\"done\":false}", "{\"done\": tru", "{}", " {\"done\":true}", "[true]"], &[done()])),
        end: End { lines: Some(&["{\"error\":null}", "{\"error\":\"\"}", "{\"done\":false}", "{\"done\": tru", "{}", " {\"done\":true}", "[true]"]), ..GOOD } },
    Scenario { name: "a_flood_of_claims_is_no_flood_of_questions", options: PATIENT,
        script: |asked| match asked.call {
            Call::Logs => log(&["{\"error\":\"x\"}"; 50], &[done()]),
            _ => first(asked, Call::Status, &[running(), running(), running()]),
        },
        // Three doubts, and one question when the log has ended.
        end: End { lines: None, statuses: Some(4), ..GOOD } },
    Scenario { name: "a_status_that_lags_behind_is_asked_again", options: &[],
        script: |asked| match asked.call {
            Call::Logs => log(&["a"], &[done(), LogPart::Hang]),
            _ => first(asked, Call::Status, &[running()]),
        },
        end: End { lines: Some(&["a", "{\"done\": true}"]), statuses: Some(2), ..GOOD } },
    Scenario { name: "a_status_that_lags_far_behind_is_asked_again_and_again", options: &[],
        script: |asked| match asked.call {
            Call::Logs => log(&["a"], &[done(), LogPart::Hang]),
            _ => first(asked, Call::Status, &vec![running(); 5]),
        },
        end: End { lines: Some(&["a", "{\"done\": true}"]), statuses: Some(6), ..GOOD } },
    Scenario { name: "silent_while_the_status_is_asked", options: &["log-stall-timeout=300ms"],
        script: |asked| match asked.call {
            Call::Logs => first(asked, Call::Logs, &[log(&["a"], &[done(), LogPart::Hang]), whole()]),
            _ => first(asked, Call::Status, &vec![running(); 60]),
        },
        end: End { says: &["sent nothing for 0 s"], logs: None, statuses: None, ..GOOD } },
    Scenario { name: "every_form_of_events_in_single_bytes", options: &[],
        script: |asked| every(asked, Call::Logs, in_bytes(
            "\u{feff}: hello\r\n\r\nretry: 10\rid: 1\rdata: ä€𝄞\r\revent: log\ndata: two\ndata:lines\n\r\ndata\n\ndata: x\r\n\r\ndata: {\"done\": true}\n\n".as_bytes())),
        end: End { lines: Some(&["ä€𝄞", "two", "lines", "", "x"]), ..GOOD } },
    Scenario { name: "what_is_no_utf8_is_replaced", options: &[],
        script: |asked| every(asked, Call::Logs, Reaction::Log(vec![LogPart::Send(b"data: a\xff\xe2\x82b\n\n".to_vec()), done()])),
        end: End { lines: Some(&["a\u{fffd}\u{fffd}b"]), ..GOOD } },
];

pub(super) fn trials(rig: &Rig) -> Vec<Trial> {
    table(rig, "logs", SCENARIOS).into_iter().chain(alone(rig)).collect()
}

/// The lines of a build in the order of its log.
fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("line {number}")).collect()
}

/// A service whose builds say so many lines.
fn saying(count: usize) -> Habits {
    Habits {
        builder: Box::new(move |_, _, log| {
            numbers(count).iter().for_each(|line| log(line));
            Ok(IMAGE.to_owned())
        }),
        ..Habits::default()
    }
}

/// What does not fit into the table.
fn alone(rig: &Rig) -> Vec<Trial> {
    let cut_often = || {
        let lines = numbers(5_000);
        let script = move |asked: &Asked| match asked.call {
            Call::Logs if asked.before < 5 => {
                let text: String = lines[..900 * (asked.before + 1)].iter().map(|line| event(line)).collect();
                Reaction::Log(vec![text.as_str().into(), LogPart::Cut])
            }
            _ => first(asked, Call::Status, &[running(), running(), running(), running(), running()]),
        };
        Habits { script: Box::new(script), ..saying(5_000) }
    };
    let with_ids = || Habits {
        ids: true,
        resumes: true,
        script: Box::new(|asked| {
            let cut =
                Reaction::Log(vec!["id: 1\ndata: line 0\n\nid: 2\ndata: line 1\n\n".into(), LogPart::Cut]);
            match asked.call {
                Call::Logs => first(asked, Call::Logs, &[cut]),
                _ => first(asked, Call::Status, &[running()]),
            }
        }),
        ..saying(4)
    };
    let long_line = || {
        let script = |asked: &Asked| {
            let long = format!("data: {}\n\ndata: next\n\n", "x".repeat(5 << 20));
            every(asked, Call::Logs, Reaction::Log(vec![long.as_str().into(), done()]))
        };
        Habits { script: Box::new(script), ..Habits::default() }
    };
    let done_elsewhere = || {
        let script = |asked: &Asked| match asked.call {
            Call::Logs => first(asked, Call::Logs, &[log(&["a"], &[LogPart::Hang])]),
            _ => first(asked, Call::Status, &[status(json!({ "status": "success", "image_ref": IMAGE }))]),
        };
        Habits { script: Box::new(script), ..Habits::default() }
    };
    vec![
        trial(rig, "logs::read_again_and_again_no_line_is_lost_or_repeated", cut_often, |case| {
            let outcome = case.build(&[])?;
            outcome.good()?;
            same("readings", case.count(Call::Logs), 6)?;
            same("all lines, once", log_lines(&outcome) == numbers(5_000), true)
        }),
        trial(rig, "logs::a_server_that_goes_on_after_the_last_event_is_told_which", with_ids, |case| {
            let outcome = case.build(&[])?;
            outcome.good()?;
            same("lines", log_lines(&outcome), numbers(4))?;
            let ids: Vec<Option<String>> = case
                .service
                .calls(Call::Logs)
                .iter()
                .map(|asked| asked.head.header("last-event-id").map(str::to_owned))
                .collect();
            same("last ids", ids, vec![None, Some("2".to_owned())])
        }),
        trial(rig, "logs::a_line_that_is_too_long_is_cut", long_line, |case| {
            let outcome = case.build(&[])?;
            outcome.good()?;
            let lines = log_lines(&outcome);
            same("lines", (lines.len(), lines.last().map(String::as_str)), (2, Some("next")))?;
            same("the first is cut", lines[0].len() < 2 << 20, true)
        }),
        trial(rig, "logs::a_log_that_hangs_does_not_keep_a_build_that_is_done", done_elsewhere, |case| {
            let outcome = case.build(&["log-stall-timeout=300ms"])?;
            same("image", outcome.line()?, IMAGE)?;
            same("what was left of the log is read", case.count(Call::Logs), 2)
        }),
    ]
}

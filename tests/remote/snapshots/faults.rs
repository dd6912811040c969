//! What the management API may do to us, call by call, and what comes of it.

use libtest_mimic::{Failed, Trial};
use serde_json::json;
use windlass_tests::service::Answer;
use windlass_tests::service::runtime_api::{Reaction, document};
use windlass_tests::service::together::{API_KEY, Asked, Call, Habits, id, refusal};

use super::{Case, trial};
use crate::rig::{Rig, same};

const OTHER_HOST: &str = "http://elsewhere.invalid/v1/snapshots?token=of-nobody";
const BUILT: &str = "127.0.0.1:1/project/a:1";

/// A command, the call that it makes, and what it is called in errors.
struct Asking {
    name: &'static str,
    line: &'static [&'static str],
    call: Call,
    operation: &'static str,
    /// It is not made again once it was sent.
    once: bool,
}

const ID: &str = "00000000-0000-4000-8000-000000000001";

const CALLS: &[Asking] = &[
    Asking { name: "list", line: &["list"], call: Call::List, operation: "list snapshots", once: false },
    Asking {
        name: "get",
        line: &["get", ID],
        call: Call::Get,
        operation: "get snapshot `00000000-0000-4000-8000-000000000001`",
        once: false,
    },
    Asking {
        name: "batch",
        line: &["get", ID, "00000000-0000-4000-8000-000000000002"],
        call: Call::Batch,
        operation: "get snapshots",
        once: false,
    },
    Asking {
        name: "alias",
        line: &["alias", ID, "a@b"],
        call: Call::SetAlias,
        operation: "set alias `a@b`",
        once: false,
    },
    Asking {
        name: "aliases",
        line: &["aliases", ID],
        call: Call::Aliases,
        operation: "list aliases of `00000000-0000-4000-8000-000000000001`",
        once: false,
    },
    Asking {
        name: "unalias",
        line: &["unalias", "a@b"],
        call: Call::RemoveAlias,
        operation: "remove alias `a@b`",
        once: false,
    },
    Asking {
        name: "retire",
        line: &["retire", ID],
        call: Call::Retire,
        operation: "retire snapshot `00000000-0000-4000-8000-000000000001`",
        once: true,
    },
    Asking {
        name: "create",
        line: &["create", "--built", BUILT],
        call: Call::Create,
        operation: "create snapshot",
        once: true,
    },
];

/// What the service does, to the first requests, and what comes of it.
struct Fault {
    name: &'static str,
    reactions: fn() -> Vec<Reaction>,
    /// Exit code and number of requests of a call that may be made again, and of one that may not.
    repeated: (i32, usize),
    once: (i32, usize),
    /// After `Failed to <operation>: `; and further on.
    says: &'static [&'static str],
}

fn busy(status: u16, retry_after: &str) -> Reaction {
    Reaction::Answer(refusal(status, "busy", "later").header("Retry-After", retry_after))
}

fn answer(answer: Answer) -> Vec<Reaction> {
    vec![Reaction::Answer(answer); 5]
}

#[rustfmt::skip]
const FAULTS: &[Fault] = &[
    Fault { name: "429_seconds", reactions: || vec![busy(429, "0"), busy(429, "0")], repeated: (0, 3), once: (0, 3), says: &[] },
    Fault { name: "429_date", reactions: || vec![busy(429, "Thu, 01 Jan 2026 00:00:00 GMT")], repeated: (0, 2), once: (0, 2), says: &[] },
    Fault { name: "429_for_ever", reactions: || vec![busy(429, "0"); 5], repeated: (3, 3), once: (3, 3), says: &["later (code: busy)", "wait a little"] },
    Fault { name: "429_too_long", reactions: || vec![busy(429, "3600"); 5], repeated: (3, 1), once: (3, 1), says: &["later (code: busy)", "wait for 3600 s"] },
    Fault { name: "503_that_heals", reactions: || vec![busy(503, "0"), busy(500, "0")], repeated: (0, 3), once: (3, 1), says: &["later (code: busy)", "all the same"] },
    Fault { name: "503_that_does_not", reactions: || vec![busy(503, "0"); 5], repeated: (3, 3), once: (3, 1), says: &["later (code: busy)", "try again later"] },
    Fault { name: "408", reactions: || vec![busy(408, "0")], repeated: (0, 2), once: (3, 1), says: &["later (code: busy)"] },
    Fault { name: "cut_before_the_answer", reactions: || vec![Reaction::CutWithoutAnswer], repeated: (0, 2), once: (3, 1), says: &["broke off", "all the same", "TOGETHER_BASE_URL"] },
    Fault { name: "cut_in_the_answer", reactions: || vec![Reaction::CutAnswerAfter(document(200, json!({ "id": "x" })), 3)], repeated: (0, 2), once: (3, 1), says: &["broke off", "all the same"] },
    Fault { name: "401", reactions: || answer(refusal(401, "unauthorized", "no such key")), repeated: (3, 1), once: (3, 1), says: &["no such key (code: unauthorized)", "check the key in TOGETHER_API_KEY"] },
    Fault { name: "403", reactions: || answer(refusal(403, "forbidden", "not yours")), repeated: (3, 1), once: (3, 1), says: &["not yours (code: forbidden)", "project or scope"] },
    Fault { name: "404", reactions: || answer(refusal(404, "not_found", "gone")), repeated: (1, 1), once: (1, 1), says: &["gone (code: not_found)", "windlass snapshot list"] },
    Fault { name: "fields", reactions: || answer(fields()), repeated: (2, 1), once: (2, 1), says: &["invalid (code: validation)", "field: `ttl`: too small (code: min): {\"min\":1}", "field: `tags`: too many (code: max)"] },
    Fault { name: "message_alone", reactions: || answer(document(400, json!({ "message": "just words" }))), repeated: (2, 1), once: (2, 1), says: &["just words (code: 400)"] },
    Fault { name: "error_alone", reactions: || answer(document(418, json!({ "error": "a teapot" }))), repeated: (1, 1), once: (1, 1), says: &["a teapot (code: 418)"] },
    Fault { name: "empty_body", reactions: || answer(Answer::new(403)), repeated: (3, 1), once: (3, 1), says: &["answered 403 Forbidden (code: 403)"] },
    Fault { name: "page", reactions: || answer(Answer::new(404).body("<html><title>Not here</title>").header("Content-Type", "text/html")), repeated: (1, 1), once: (1, 1), says: &["answered 404 Not here (code: 404)"] },
    Fault { name: "no_text", reactions: || answer(Answer::new(400).body(vec![0xff, 0xfe, 0x1b, b'[', b'2', b'J'])), repeated: (2, 1), once: (2, 1), says: &["answered 400", "(code: 400)"] },
    Fault { name: "key_repeated", reactions: || answer(key_repeated()), repeated: (3, 1), once: (3, 1), says: &["unknown key (hidden) (code: no_(hidden))", "field: `(hidden)`: {\"(hidden)\":1}"] },
    Fault { name: "another_host", reactions: || answer(Answer::new(307).header("Location", OTHER_HOST)), repeated: (1, 1), once: (1, 1), says: &["answered 307", "elsewhere: check the address"] },
];

fn fields() -> Answer {
    document(
        422,
        json!({
            "code": "validation",
            "message": "invalid",
            "errors": [
                { "parameter": "ttl", "code": "min", "message": "too small", "details": { "min": 1 } },
                { "parameter": "tags", "code": "max", "message": "too many", "details": null },
            ],
        }),
    )
}

/// Every run looks for the key in what we say.
fn key_repeated() -> Answer {
    let field = json!({ "parameter": API_KEY, "details": { API_KEY: 1 } });
    let (message, code) = (format!("unknown key {API_KEY}"), format!("no_{API_KEY}"));
    document(401, json!({ "code": code, "message": message, "errors": [field] }))
}

pub(super) fn trials(rig: &Rig) -> Vec<Trial> {
    let mut trials: Vec<Trial> = CALLS.iter().map(|asking| every_fault(rig, asking)).collect();
    trials.extend([nonsense(rig), credentials(rig), silence(rig), nobody(rig), aliases(rig), circles(rig)]);
    trials
}

/// The same fault for one call: one place after the other, so that no request is counted twice.
fn every_fault(rig: &Rig, asking: &'static Asking) -> Trial {
    let rig_of = rig.clone();
    Trial::test(format!("snapshots::faults_of_{}", asking.name), move || {
        for fault in FAULTS {
            let reactions = (fault.reactions)();
            let call = asking.call;
            let script = move |asked: &Asked| match reactions.get(asked.before) {
                Some(reaction) if asked.call == Some(call) => reaction.clone(),
                _ => Reaction::Normal,
            };
            let case =
                Case::new(&rig_of, Habits { snapshots: 2, script: Box::new(script), ..Habits::default() })?;
            one_fault(&case, asking, fault)
                .map_err(|failed| format!("{}: {}", fault.name, failed.message().unwrap_or_default()))?;
        }
        Ok(())
    })
}

fn one_fault(case: &Case, asking: &Asking, fault: &Fault) -> Result<(), Failed> {
    let outcome = case.run(asking.line)?;
    let (code, requests) = if asking.once { fault.once } else { fault.repeated };
    same("requests", case.service.calls(asking.call).len(), requests)?;
    // What is not repeated may have happened, and is said so; what is, is not in doubt.
    let in_doubt = |says: &&&str| asking.once || **says != "all the same";
    match code {
        0 => outcome.good().map(drop),
        code => {
            let failed = format!("Failed to {}: ", asking.operation);
            let mut says: Vec<&str> = fault.says.iter().filter(in_doubt).copied().collect();
            says.push(&failed);
            outcome.refused(code, &says)?;
            same(
                "no escape",
                outcome.stderr.contains('\u{1b}') || outcome.stderr.contains("of-nobody"),
                false,
            )
        }
    }
}

fn nonsense(rig: &Rig) -> Trial {
    let script = |asked: &Asked| match asked.call {
        Some(Call::SetAlias | Call::RemoveAlias) => Reaction::Normal,
        _ => Reaction::Answer(Answer::new(200).body("{\"id\": 7")),
    };
    let habits = move || Habits { script: Box::new(script), ..Habits::default() };
    trial(rig, "answers_that_are_none", habits, |case| {
        for asking in CALLS.iter().filter(|asking| !matches!(asking.call, Call::SetAlias | Call::RemoveAlias))
        {
            let failed = format!("Failed to {}: `", asking.operation);
            case.run(asking.line)?.refused(1, &[&failed, "answered no", "it said: {\"id\": 7"])?;
            same(asking.name, case.service.calls(asking.call).len(), 1)?;
        }
        Ok(())
    })
}

/// What comes in the place of a credential may hold one all the same.
fn credentials(rig: &Rig) -> Trial {
    let script = |asked: &Asked| match (asked.call, asked.before) {
        (Some(Call::Credential), 0) => busy(503, "0"),
        (Some(Call::Credential), 1) => Reaction::Answer(document(
            201,
            json!({ "username": "u", "password": "p-of-nobody", "registry_url": "nonsense" }),
        )),
        (Some(Call::Credential), 2) => {
            Reaction::Answer(document(201, json!({ "password": ["p-of-nobody"] })))
        }
        (Some(Call::Credential), _) => Reaction::Answer(refusal(403, "forbidden", "not yours")),
        _ => Reaction::Normal,
    };
    let habits = move || Habits { script: Box::new(script), ..Habits::default() };
    trial(rig, "credentials_that_are_none", habits, |case| {
        let line = ["create", "--context", "app", "--backend", "oci"];
        let failed = "Failed to issue a registry credential: ";
        let registry = case.run(&line)?;
        registry.refused(1, &[failed, "answered without a registry that can be used"])?;
        let other = case.run(&line)?;
        other.refused(1, &[failed, "answered without a credential that can be used"])?;
        same("nothing is told", (registry.stderr + &other.stderr).contains("p-of-nobody"), false)?;
        case.run(&line)?.refused(3, &[failed, "not yours (code: forbidden)", "project or scope"])?;
        same("requests", case.service.lines().len(), 4)
    })
}

fn silence(rig: &Rig) -> Trial {
    let habits = || Habits { script: Box::new(|_| Reaction::Silent), ..Habits::default() };
    trial(rig, "silence", habits, |case| {
        let quick = ["--set", "backends.image-builder.call-timeout=100ms"];
        case.run(&[&["list"][..], &quick].concat())?
            .refused(4, &["Failed to list snapshots: ", "did not answer"])?;
        case.run(&[&["create", "--built", BUILT][..], &quick].concat())?
            .refused(4, &["Failed to create snapshot: ", "all the same"])?;
        same(
            "requests",
            (case.service.calls(Call::List).len(), case.service.calls(Call::Create).len()),
            (3, 1),
        )
    })
}

/// Nobody listens: then nothing was sent, and even what must not be repeated is.
fn nobody(rig: &Rig) -> Trial {
    trial(rig, "nobody_listens", Habits::default, |case| {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let elsewhere = format!("http://127.0.0.1:{port}");
        let outcome = case.run_with(&["create", "--built", BUILT], &[("TOGETHER_BASE_URL", &elsewhere)])?;
        outcome
            .refused(3, &["Failed to create snapshot: could not reach", "refused", "TOGETHER_BASE_URL"])?;
        same("nothing is in doubt", outcome.stderr.contains("all the same"), false)?;
        same("tried again", outcome.stderr.contains("retry 2 of 2"), true)
    })
}

/// The snapshot is there, its alias is not: both are said.
fn aliases(rig: &Rig) -> Trial {
    let script = |asked: &Asked| match (asked.call, asked.before) {
        (Some(Call::SetAlias), 1) => Reaction::Answer(refusal(403, "forbidden", "taken")),
        _ => Reaction::Normal,
    };
    let habits = move || Habits { script: Box::new(script), ..Habits::default() };
    trial(rig, "alias_after_create", habits, |case| {
        let outcome = case.run(&["create", "--built", BUILT, "--alias", "good", "--alias", "bad", "--ci"])?;
        let again = format!("windlass snapshot alias {} 'bad'", id(1));
        outcome
            .refused(3, &["Failed to set alias `bad`: taken", &format!("snapshot id: {}", id(1)), &again])?;
        same("the first", case.service.aliases().len(), 1)
    })
}

fn circles(rig: &Rig) -> Trial {
    let page = || document(200, json!({ "data": [], "next_cursor": "x" }));
    let script = move |_: &Asked| Reaction::Answer(page());
    let habits = move || Habits { script: Box::new(script), ..Habits::default() };
    trial(rig, "pages_in_circles", habits, |case| {
        case.run(&["list", "--all"])?.refused(1, &["gives the same page again and again"])
    })
}

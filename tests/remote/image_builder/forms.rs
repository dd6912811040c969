//! What is sent, and in which form.

use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use serde_json::json;
use windlass_tests::service::image_builder::{API_KEY, Asked, Call, Habits, Reaction, Submission};
use windlass_tests::service::runtime_api::document;

use super::{Case, IMAGE, Rig, log_lines, same, trial};

/// What was submitted, where that was one build.
fn only(case: &Case) -> Result<Arc<Submission>, Failed> {
    let mut all: Vec<_> =
        case.service.calls(Call::Submit).into_iter().filter_map(|asked| asked.submission).collect();
    match (all.pop(), all.len()) {
        (Some(one), 0) => Ok(one),
        (_, more) => Err(format!("{more} submissions beside the last").into()),
    }
}

fn field(case: &Case, name: &str) -> Result<Option<String>, Failed> {
    let all = case.service.calls(Call::Submit);
    let last = all.last().and_then(|asked| asked.submission.clone()).ok_or("nothing was submitted")?;
    Ok(last.field(name).map(str::to_owned))
}

pub(super) fn trials(rig: &Rig) -> Vec<Trial> {
    names(rig).into_iter().chain(contents(rig)).collect()
}

fn names(rig: &Rig) -> Vec<Trial> {
    let plain = Habits::default;
    vec![
        trial(rig, "forms::a_build_from_start_to_end", plain, |case| {
            let line = ["build", "app", "-t", "agent:1", "--build-arg", "B=x \"y\"", "--build-arg", "A=1"];
            let outcome = case.run(&line, &[])?;
            same("result", outcome.line()?, IMAGE)?;
            let submission = only(case)?;
            let fields: Vec<(&str, &str)> =
                submission.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            same(
                "fields",
                fields,
                vec![
                    ("image_name", "agent:1"),
                    ("dockerfile", "Dockerfile"),
                    ("build_args", r#"{"A":"1","B":"x \"y\""}"#),
                    ("nydus_convert", "true"),
                    ("cache_key", "agent"),
                ],
            )?;
            let members = submission.members();
            let expected = [("Dockerfile".to_owned(), 0o644, 30), ("hello.txt".to_owned(), 0o644, 6)];
            same("members", members, expected.to_vec())?;
            same(
                "lines",
                log_lines(&outcome),
                vec!["step 1/2 : FROM scratch".to_owned(), "step 2/2 : COPY hello.txt /".to_owned()],
            )?;
            let calls = ["POST /builds", "GET /builds/build-1/logs", "GET /builds/build-1"];
            same("calls", case.service.lines(), calls.map(str::to_owned).to_vec())
        }),
        trial(rig, "forms::a_name_of_our_own_is_made_each_time", plain, |case| {
            let mut made = Vec::new();
            for _ in 0..2 {
                let outcome = case.run(&["build", "app"], &[])?;
                outcome.good()?;
                // Nobody can be asked for it.
                same("step", outcome.stderr.contains("looking for"), false)?;
                made.push(field(case, "image_name")?.unwrap_or_default());
                same("key", field(case, "cache_key")?.as_deref(), Some("app"))?;
            }
            same("differ", made[0] != made[1], true)?;
            same("form", made.iter().all(|name| name.starts_with("image-") && name.len() == 79), true)
        }),
        trial(rig, "forms::arguments_of_the_service", plain, |case| {
            case.run(&["build", "app", "--cache-key", "my/app", "--no-nydus"], &[])?.good()?;
            same("key", field(case, "cache_key")?.as_deref(), Some("my/app"))?;
            same("nydus", field(case, "nydus_convert")?.as_deref(), Some("false"))?;
            case.run(&["build", "app", "--cache-key="], &["nydus=true"])?.good()?;
            same("no key", field(case, "cache_key")?, None)?;
            case.run(&["build", "app", "--no-cache", "--cache-key", "my/app"], &[])?.good()?;
            let fresh = field(case, "cache_key")?.unwrap_or_default();
            same("a key that nobody has", fresh.starts_with("image-") && fresh.len() == 42, true)?;
            case.run(&["build", "app", "--cache-key", "My/App:1"], &[])?
                .refused(2, &["`my/app-1` would do"])?;
            case.run(&["build", "app", "-b", "oci", "--cache-key", "x"], &[])?
                .refused(2, &["`--cache-key` cannot be used with the backend `oci`", "image-builder"])
        }),
        trial(rig, "forms::names_that_the_service_cannot_give", plain, |case| {
            for (tags, says) in [
                (&["a:1", "a:2"][..], "gives an image one name"),
                (&["ghcr.io/a/b:1"], "its own registry"),
                (&["a:V1"], "no capital letters"),
            ] {
                let tags: Vec<&str> = tags.iter().flat_map(|tag| ["-t", *tag]).collect();
                case.run(&[&["build", "app"], &tags[..]].concat(), &[])?.refused(2, &[says])?;
            }
            same("requests", case.service.lines().len(), 0)
        }),
        trial(rig, "forms::options_are_refused_by_name", plain, |case| {
            for (option, value) in [
                ("--platform", "linux/arm64"),
                ("--label", "a=1"),
                ("--target", "x"),
                ("--secret", "id=x"),
                ("--annotation", "a=1"),
                ("--build-context", "a=docker-image://b"),
            ] {
                let outcome = case.run(&["build", "app", "-t", "agent:1", option, value], &[])?;
                let says = format!("`{option}` cannot be used with the backend `image-builder`");
                outcome.refused(2, &[&says, "--backend"])?;
            }
            same("requests", case.service.lines().len(), 0)
        }),
        trial(rig, "forms::a_dry_run_sends_nothing", plain, |case| {
            let outcome = case.run(&["build", "app", "--dry-run", "--build-arg", "A=1"], &[])?;
            let plan = outcome.good()?;
            for part in [
                "/builds ",
                "image-{uuid}:{uuid}",
                "Authorization: Bearer (hidden)",
                r#"{"A":"1"}"#,
                "hello.txt",
                "/builds/{build_id}/logs",
                "TOGETHER_API_KEY",
            ] {
                same(part, plan.contains(part), true)?;
            }
            same("secret", plan.contains(API_KEY), false)?;
            same("requests", case.service.lines().len(), 0)
        }),
        trial(rig, "forms::the_doctor_asks_the_service", plain, |case| {
            let outcome = case.run(&["backends", "check", "image-builder"], &[])?;
            let text = outcome.good()?;
            same("key", text.contains("TOGETHER_API_KEY is set"), true)?;
            same("service", text.contains("answers, and takes the key"), true)?;
            let wrong = [("TOGETHER_BASE_URL", case.service.url()), ("TOGETHER_API_KEY", "wrong")];
            let outcome = case.place.run_with(&["backends", "check", "image-builder"], &wrong)?;
            same("code", outcome.code, Some(3))?;
            same("refused", outcome.stdout.contains("answered 401"), true)
        }),
    ]
}

fn contents(rig: &Rig) -> Vec<Trial> {
    let plain = Habits::default;
    let wants_length = || {
        let script = |asked: &Asked| match asked.call {
            Call::Submit if asked.head.length().is_none() => {
                Reaction::Answer(document(411, json!({ "error": "how long is it" })))
            }
            _ => Reaction::Normal,
        };
        Habits { script: Box::new(script), ..Habits::default() }
    };
    vec![
        trial(rig, "forms::a_dockerfile_inside_is_named_by_its_path", plain, |case| {
            case.place.write("app/deploy/Other", "FROM scratch\n")?;
            case.place.write("app/.dockerignore", "deploy\n*.log\n")?;
            case.place.write("app/x.log", "")?;
            case.run(&["build", "app", "-f", "app/deploy/Other", "-t", "agent:1"], &[])?.good()?;
            let submission = only(case)?;
            same("path", submission.field("dockerfile"), Some("deploy/Other"))?;
            let members: Vec<String> = submission.members().into_iter().map(|(path, ..)| path).collect();
            let expected = [".dockerignore", "Dockerfile", "deploy/", "deploy/Other", "hello.txt"];
            same("members", members, expected.map(str::to_owned).to_vec())
        }),
        trial(rig, "forms::a_dockerfile_outside_is_put_inside", plain, |case| {
            case.place.write("Outside", "FROM scratch\nCOPY . /\n")?;
            case.run(&["build", "app", "-f", "Outside", "-t", "agent:1"], &[])?.good()?;
            let submission = only(case)?;
            same("path", submission.field("dockerfile"), Some("windlass.Dockerfile"))?;
            let text = submission.text("windlass.Dockerfile");
            same("content", text.as_deref(), Some("FROM scratch\nCOPY . /\n"))?;
            let hidden = submission.text("windlass.Dockerfile.dockerignore").unwrap_or_default();
            same("hidden from COPY", hidden.contains("\nwindlass.Dockerfile\n"), true)
        }),
        trial(rig, "forms::a_large_context_is_chunked_or_spooled", plain, |case| {
            let noise: Vec<u8> =
                (0..3_000_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
            case.place.write("app/large", noise)?;
            for options in [&[][..], &["upload=chunked"], &["upload=spool"]] {
                case.build(options)?.good()?;
            }
            let all = case.service.calls(Call::Submit);
            let all: Vec<_> = all.iter().filter_map(|asked| asked.submission.as_ref()).collect();
            same("the same bytes", all.iter().all(|one| one.archive == all[0].archive), true)?;
            let with_length: Vec<bool> = all.iter().map(|one| one.has_length).collect();
            same("with a length", with_length, vec![false, false, true])
        }),
        trial(rig, "forms::a_service_that_wants_a_length_gets_one", wants_length, |case| {
            let noise: Vec<u8> =
                (0..1_000_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
            case.place.write("app/large", noise)?;
            case.build(&[])?.good()?;
            same("chunked, then with a length", case.count(Call::Submit), 2)
        }),
    ]
}

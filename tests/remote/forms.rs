//! What is sent, and in which form.

use libtest_mimic::{Failed, Trial};
use windlass_tests::service::runtime_api::{Asked, Field, Habits, Reaction, document};

use crate::rig::{Case, Rig, same};

/// The uploads that arrived whole.
fn uploads(case: &Case) -> Vec<Asked> {
    let mut uploads = case.service.calls("build");
    uploads.retain(|asked| asked.upload.is_some());
    uploads
}

fn only(case: &Case) -> Result<Asked, Failed> {
    let mut all = uploads(case);
    match (all.pop(), all.len()) {
        (Some(one), 0) => Ok(one),
        (_, more) => Err(format!("{more} uploads beside the last").into()),
    }
}

pub(crate) fn trials(rig: &Rig) -> Vec<Trial> {
    let plain = Habits::default;
    vec![
        rig.trial("forms::a_build_from_start_to_end", plain, |case| {
            let outcome = case.build(&[])?;
            same("result", outcome.line()?, "registry.example.com/team/agent:1")?;
            let asked = only(case)?;
            let upload = asked.upload.as_ref().ok_or("an upload")?;
            same("form", (upload.is_json, upload.is_raw), (true, false))?;
            same("target", upload.target.as_str(), "registry.example.com/team/agent:1")?;
            same(
                "members",
                upload.members(),
                vec![("Dockerfile".to_owned(), 0o644, 30), ("hello.txt".to_owned(), 0o644, 6)],
            )?;
            same("length is said", asked.head.length().is_some(), true)?;
            let lines = case.service.lines();
            same(
                "calls",
                lines.iter().map(String::as_str).collect::<Vec<_>>(),
                vec![
                    "GET /registry_prefix",
                    "POST /build",
                    "GET /build_status?build_id=build-1",
                    "GET /build_status?build_id=build-1",
                    "GET /build_status?build_id=build-1",
                ],
            )?;
            let without_key =
                case.service.asked().iter().any(|asked| asked.head.header("x-api-key").is_none());
            same("a call without the key", without_key, false)
        }),
        rig.trial("forms::several_tags_are_a_form_at_once", plain, |case| {
            case.run(&["build", "-t", "agent:1", "-t", "agent:latest", "-t", "ghcr.io/a/b:2"])?.good()?;
            let asked = only(case)?;
            let upload = asked.upload.as_ref().ok_or("an upload")?;
            let field = |name: &str| Field { name: name.to_owned(), ..Field::default() };
            let context = Field {
                name: "context".to_owned(),
                file_name: Some("context.tar.gz".to_owned()),
                content_type: Some("application/x-tar".to_owned()),
            };
            same(
                "fields",
                &upload.fields,
                &vec![context, field("target_image"), field("tags"), field("tags")],
            )?;
            same(
                "tags",
                upload.tags.clone(),
                vec!["registry.example.com/team/agent:latest".to_owned(), "ghcr.io/a/b:2".to_owned()],
            )?;
            same("is raw", upload.is_raw, false)
        }),
        rig.trial(
            "forms::what_a_service_takes_is_remembered",
            || Habits { multipart_only: true, ..Habits::default() },
            |case| {
                case.build(&[])?.good()?;
                same("JSON, then a form", uploads(case).len(), 2)?;
                case.build(&[])?.good()?;
                same("a form at once", uploads(case).len(), 3)
            },
        ),
        rig.trial(
            "forms::a_service_that_takes_json_no_more_gets_a_form",
            || {
                let script = |asked: &Asked| match asked.head.header("content-type") {
                    Some("application/json") if asked.before > 0 => {
                        Reaction::Answer(document(415, serde_json::json!({ "error": "a form is wanted" })))
                    }
                    _ => Reaction::Normal,
                };
                Habits { script: Box::new(script), ..Habits::default() }
            },
            |case| {
                case.build(&[])?.good()?;
                same("JSON", uploads(case).len(), 1)?;
                case.build(&[])?.good()?;
                same("JSON, then a form", uploads(case).len(), 3)?;
                case.build(&[])?.good()?;
                same("a form at once", uploads(case).len(), 4)
            },
        ),
        rig.trial("forms::json_with_tags_only_where_that_is_set", plain, |case| {
            let line = ["build", "-t", "agent:1", "-t", "agent:2"];
            case.run_set(&line, &["encoding=json"])?.refused(2, &["several tags", "json-tags = true"])?;
            same("nothing is sent", uploads(case).len(), 0)?;
            case.run_set(&line, &["encoding=json", "json-tags=true"])?.good()?;
            let asked = only(case)?;
            let upload = asked.upload.as_ref().ok_or("an upload")?;
            same("JSON with tags", (upload.is_json, upload.tags.len()), (true, 1))
        }),
        rig.trial("forms::a_large_context_is_chunked_or_spooled", plain, |case| {
            case.place.write("large", noise(3 << 20))?;
            case.build(&[])?.good()?;
            case.build(&["upload=chunked"])?.good()?;
            case.build(&["upload=spool"])?.good()?;
            let all = uploads(case);
            let archives: Vec<_> =
                all.iter().filter_map(|asked| asked.upload.as_ref()).map(|u| &u.archive).collect();
            same("the same bytes", archives.iter().all(|archive| **archive == *archives[0]), true)?;
            let chunked: Vec<bool> = all.iter().map(|asked| asked.head.length().is_none()).collect();
            same("chunked", chunked, vec![true, true, false])
        }),
        rig.trial(
            "forms::a_service_that_wants_a_length_gets_one",
            || {
                let script = |asked: &Asked| match asked.call.as_str() {
                    "build" if asked.head.length().is_none() => {
                        Reaction::Answer(document(411, serde_json::json!({ "error": "how long is it" })))
                    }
                    _ => Reaction::Normal,
                };
                Habits { script: Box::new(script), ..Habits::default() }
            },
            |case| {
                case.place.write("large", noise(3 << 20))?;
                case.build(&[])?.good()?;
                same("chunked, then with a length", uploads(case).len(), 2)?;
                case.build(&[])?.good()?;
                same("with a length at once", uploads(case).len(), 3)
            },
        ),
        rig.trial("forms::a_dockerfile_of_another_name_is_in_its_place", plain, |case| {
            case.place.write("deploy/Other", "FROM scratch\nCOPY . /\n")?;
            case.run(&["build", "-t", "agent:1", "-f", "deploy/Other", "--set", "context.ignore=true"])?
                .good()?;
            let asked = only(case)?;
            let upload = asked.upload.as_ref().ok_or("an upload")?;
            same("Dockerfile", upload.text("Dockerfile").as_deref(), Some("FROM scratch\nCOPY . /\n"))
        }),
        rig.trial(
            "forms::a_service_without_a_prefix_gets_names_as_they_are",
            || Habits { registry_prefix: None, ..Habits::default() },
            |case| {
                same("result", case.build(&[])?.line()?, "docker.io/library/agent:1")?;
                let asked = only(case)?;
                same("target", asked.upload.as_ref().map(|upload| upload.target.as_str()), Some("agent:1"))
            },
        ),
        rig.trial("forms::an_image_that_exists_is_found", plain, |case| {
            let first = case.run(&["build"])?;
            let again = case.run(&["build", "--format", "json"])?;
            let json: serde_json::Value = serde_json::from_str(again.good()?)?;
            same("reused", &json["reused"], &true.into())?;
            same("one build", uploads(case).len(), 1)?;
            same("named by its content", first.line()?.contains("/work:fp-"), true)?;
            same("the same name", case.run(&["build"])?.line()?, first.line()?)
        }),
        rig.trial("forms::what_is_found_and_cannot_get_its_tags_is_built", plain, |case| {
            for (number, tag) in [(1, "agent:1"), (2, "agent:2")] {
                let outcome = case.run(&["build", "--reuse", "-t", tag])?;
                same("image", outcome.line()?.to_owned(), format!("registry.example.com/team/{tag}"))?;
                same("builds", uploads(case).len(), number)?;
                same("said", outcome.stderr.contains("it is built again"), number == 2)?;
            }
            Ok(())
        }),
        rig.trial("forms::the_choice_of_the_surroundings_is_said", plain, |case| {
            let [(url, address), (key, secret)] = case.variables();
            let others = ["SANDBOX_REMOTE_RUNTIME_API_URL", "SANDBOX_API_KEY"];
            for (url, key) in [(url, key), (others[0], key), (url, others[1]), (others[0], others[1])] {
                let outcome = case
                    .place
                    .run_with(&["build", "-t", "agent:1", "--detach"], &[(url, address), (key, secret)])?;
                outcome.good()?;
                let said = format!("using the backend `runtime-api`: the environment has {url} and {key}");
                same(&said, outcome.stderr.contains(&said), true)?;
            }
            same("builds", uploads(case).len(), 4)
        }),
        rig.trial(
            "forms::an_answer_may_come_when_all_is_done",
            || Habits { synchronous: true, ..Habits::default() },
            |case| {
                same("result", case.build(&[])?.line()?, "registry.example.com/team/agent:1")?;
                same("status", case.service.calls("build_status").len(), 0)
            },
        ),
        rig.trial(
            "forms::status_by_the_path",
            || Habits { status_by_path: true, ends: ["completed", "failed"], ..Habits::default() },
            |case| {
                case.build(&[])?.good()?;
                let lines = case.service.lines();
                let by_path = lines.iter().filter(|line| *line == "GET /build_status/build-1").count();
                same("by the path", by_path > 0, true)
            },
        ),
        rig.trial("forms::a_dry_run_sends_nothing", plain, |case| {
            let outcome = case.run(&["build", "--dry-run"])?;
            let plan = outcome.good()?;
            for part in [
                "/build ",
                "{registry_prefix}/work:fp-",
                "X-API-Key: (hidden)",
                "hello.txt",
                "RUNTIME_API_URL",
            ] {
                same(part, plan.contains(part), true)?;
            }
            same("secret", plan.contains(windlass_tests::service::runtime_api::API_KEY), false)?;
            same("requests", case.service.lines().len(), 0)
        }),
        rig.trial("forms::a_dry_run_asks_for_the_image_where_the_build_would", plain, |case| {
            let paths = |line: &[&str]| {
                let outcome = case.run(&[&["build", "--dry-run"][..], line].concat())?;
                let calls =
                    outcome.good()?.split_whitespace().filter(|word| word.starts_with(case.service.url()));
                let path = |call: &str| call[case.service.url().len()..].split('?').next().map(str::to_owned);
                Ok::<_, Failed>(calls.filter_map(path).collect::<Vec<_>>().join(" "))
            };
            let asks = "/registry_prefix /image_exists /build /build_status";
            same("untagged", paths(&[])?.as_str(), asks)?;
            same("reuse", paths(&["-t", "agent:1", "--reuse"])?.as_str(), asks)?;
            let sends = "/registry_prefix /build /build_status";
            same("tagged", paths(&["-t", "agent:1"])?.as_str(), sends)?;
            same("anew", paths(&["--force-rebuild"])?.as_str(), sends)?;
            same("requests", case.service.lines().len(), 0)?;
            // It is what a build does.
            case.run(&["build"])?.good()?;
            let first: Vec<String> = case.service.lines().into_iter().take(3).collect();
            for (line, call) in first.iter().zip(["GET /registry_prefix", "GET /image_exists", "POST /build"])
            {
                same(call, line.starts_with(call), true)?;
            }
            Ok(())
        }),
        rig.trial("forms::a_dry_run_shows_what_would_be_sent", plain, |case| {
            let line = ["build", "--dry-run", "-t", "agent:1", "-t", "agent:2"];
            let outcome = case.run_set(&line, &["registry-prefix=r.example.com/x", "upload=spool"])?;
            let plan = outcome.good()?;
            for part in [
                "Content-Type: multipart/form-data; boundary={boundary}",
                "name=\"context\"; filename=\"context.tar.gz\"",
                "name=\"target_image\"\\r\\n\\r\\nr.example.com/x/agent:1",
                "name=\"tags\"\\r\\n\\r\\nr.example.com/x/agent:2",
                "Content-Length, from a temporary file",
                "[0644] [6 bytes]",
                "/build_status?build_id={build_id}",
            ] {
                same(part, plan.contains(part), true)?;
            }
            same("prefix", plan.contains("registry_prefix"), false)?;
            same("requests", case.service.lines().len(), 0)
        }),
        rig.trial("forms::the_doctor_asks_the_service", plain, |case| {
            let outcome = case.run(&["backends", "check", "runtime-api"])?;
            let text = outcome.good()?;
            same("registry", text.contains("registry.example.com/team"), true)?;
            same("key", text.contains("RUNTIME_API_KEY is set"), true)
        }),
    ]
}

/// Bytes that do not get smaller.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}

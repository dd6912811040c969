//! Every command once, and what it asks.

use libtest_mimic::Trial;
use serde_json::{Value, json};
use windlass_tests::place::Outcome;
use windlass_tests::service::together::{API_KEY, Call, Habits, Issued, id};

use super::trial;
use crate::rig::{Rig, same};

/// The image of snapshots for which nothing is built.
const BUILT: &str = "127.0.0.1:1/project/a:1";

fn having(snapshots: usize) -> impl FnOnce() -> Habits + Send + 'static {
    move || Habits { snapshots, ..Habits::default() }
}

pub(super) fn trials(rig: &Rig) -> Vec<Trial> {
    vec![
        listing(rig),
        pages(rig),
        getting(rig),
        batches(rig),
        aliases(rig),
        retiring(rig),
        registering(rig),
        registering_what_is_elsewhere(rig),
        full_stdout(rig),
        usage(rig),
        settings(rig),
    ]
}

fn listing(rig: &Rig) -> Trial {
    trial(rig, "list", having(3), |case| {
        let table = case.run(&["list"])?.good()?.to_owned();
        let lines: Vec<&str> = table.lines().collect();
        same("rows", lines.len(), 4)?;
        same(
            "head",
            lines[0].split_whitespace().collect::<Vec<_>>().join(" ").as_str(),
            "ID CREATED SIZE STATE TAGS",
        )?;
        same(
            "first",
            lines[1].split("  ").collect::<Vec<_>>(),
            vec![&id(1), "2026-01-01T00:00:00.000Z", "12.3 MB", "active", "n=1"],
        )?;
        let listed: Value = serde_json::from_str(case.run(&["list", "-o", "json"])?.good()?)?;
        same("as the service says it", &listed["data"], &Value::Array(case.service.snapshots()))?;
        same("no more", &listed["next_cursor"], &Value::Null)?;
        let by_format: Value = serde_json::from_str(case.run(&["list", "--format", "json"])?.good()?)?;
        same("the same by --format", &by_format, &listed)?;
        let filtered = ["ls", "--tag", "n=2", "--tag", "client=a b&c", "--exclude-retired", "--limit", "7"];
        same("no match", case.run(&filtered)?.good()?.lines().count(), 1)?;
        same(
            "requests",
            case.service.lines().pop().as_deref(),
            Some("GET /v1/snapshots?limit=7&exclude_retired=true&tags%5Bclient%5D=a%20b%26c&tags%5Bn%5D=2"),
        )?;
        same("first request", case.service.lines().first().map(String::as_str), Some("GET /v1/snapshots"))
    })
}

fn pages(rig: &Rig) -> Trial {
    trial(rig, "list_of_many_pages", having(250), |case| {
        let first = case.run(&["list"])?;
        same("20 and a head", first.good()?.lines().count(), 21)?;
        same("says how to go on", first.stderr.contains("--cursor 20"), true)?;
        let quiet = case.run(&["list", "--ci", "--cursor", "240"])?;
        same("the rest", (quiet.good()?.lines().count(), quiet.stderr.as_str()), (11, ""))?;
        let all: Value = serde_json::from_str(case.run(&["list", "--all", "-o", "json"])?.good()?)?;
        same("all", all["data"].as_array().map(Vec::len), Some(250))?;
        let some: Value = serde_json::from_str(case.run(&["list", "--limit", "130", "-o", "json"])?.good()?)?;
        same(
            "some",
            (some["data"].as_array().map(Vec::len), &some["next_cursor"]),
            (Some(130), &json!("130")),
        )?;
        same(
            "requests",
            case.service.lines().split_off(2),
            [
                "GET /v1/snapshots?limit=100",
                "GET /v1/snapshots?limit=100&cursor=100",
                "GET /v1/snapshots?limit=100&cursor=200",
                "GET /v1/snapshots?limit=100",
                "GET /v1/snapshots?limit=30&cursor=100",
            ]
            .map(str::to_owned)
            .to_vec(),
        )
    })
}

fn getting(rig: &Rig) -> Trial {
    trial(rig, "get", having(2), |case| {
        let text = case.run(&["get", &id(1)])?.good()?.to_owned();
        for line in [
            "id            00000000-0000-4000-8000-000000000001",
            "state         active",
            "memory        2048",
        ] {
            let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            same(line, text.lines().any(|seen| squeezed(seen) == squeezed(line)), true)?;
        }
        let one: Value = serde_json::from_str(case.run(&["get", &id(2), "-o", "json"])?.good()?)?;
        same("as the service says it", &one, &case.service.snapshots()[1])?;
        case.run(&["alias", &id(2), "ns@my/app v1"])?.good()?;
        let by_alias: Value =
            serde_json::from_str(case.run(&["get", "@ns@my/app v1", "-o", "json"])?.good()?)?;
        same("by alias", &by_alias, &one)?;
        same(
            "verbatim and encoded",
            case.service.lines().pop().as_deref(),
            Some("GET /v1/snapshots/@ns%40my%2Fapp%20v1"),
        )?;
        let absent = "Failed to get snapshot `@none`: no such snapshot (code: not_found)";
        case.run(&["get", "@none"])?.refused(1, &[absent, "windlass snapshot list"])
    })
}

fn batches(rig: &Rig) -> Trial {
    trial(rig, "get_several", having(150), |case| {
        let (one, two) = (id(1), id(2));
        let got: Value = serde_json::from_str(case.run(&["get", &two, &one, &two, "-o", "json"])?.good()?)?;
        let ids: Vec<&str> =
            got.as_array().ok_or("a list")?.iter().filter_map(|s| s["id"].as_str()).collect();
        same("in the order asked for", ids, vec![two.as_str(), &one, &two])?;
        same(
            "at once",
            case.service.lines(),
            vec![format!("GET /v1/snapshots/batch?ids%5B%5D={two}&ids%5B%5D={one}")],
        )?;
        let missing = case.run(&["get", &one, &id(777), "@none", "-o", "json"])?;
        same("what is there is given", (missing.code, missing.stdout.contains(&one)), (Some(1), true))?;
        same("what is not is named", missing.stderr.contains(&format!("`{}`, `@none`", id(777))), true)?;
        let many: Vec<String> = (1..=120).map(id).collect();
        let mut line = vec!["get", "-o", "json"];
        line.extend(many.iter().map(String::as_str));
        let got: Value = serde_json::from_str(case.run(&line)?.good()?)?;
        same("all", got.as_array().map(Vec::len), Some(120))?;
        let sizes: Vec<usize> =
            case.service.calls(Call::Batch).iter().map(|asked| asked.query.len()).collect();
        same("in batches", sizes, vec![2, 2, 100, 20])
    })
}

fn aliases(rig: &Rig) -> Trial {
    trial(rig, "aliases", having(2), |case| {
        let (one, two) = (id(1), id(2));
        same("said", case.run(&["alias", &one, "v1", "team@app"])?.good()?, "v1\nteam@app\n")?;
        case.run(&["alias", "@v1", "v0"])?.line()?;
        case.run(&["alias", &two, "v1"])?.line()?;
        let pointing = |alias: &str| case.service.aliases().get(alias).cloned();
        same("moved", (pointing("v1"), pointing("v0")), (Some(two.clone()), Some(one.clone())))?;
        let table = case.run(&["aliases", &one])?.good()?.to_owned();
        let names: Vec<&str> = table.lines().filter_map(|line| line.split_whitespace().next()).collect();
        same("names", names, vec!["ALIAS", "team@app", "v0"])?;
        let listed: Value = serde_json::from_str(case.run(&["aliases", "@v1", "--format", "json"])?.good()?)?;
        same(
            "one",
            (listed[0]["alias"].as_str(), listed[0]["snapshot_id"].as_str()),
            (Some("v1"), Some(two.as_str())),
        )?;
        same("quiet", case.run(&["unalias", "team@app", "v0"])?.good()?, "")?;
        same("gone", case.service.aliases().len(), 1)?;
        let odd = case.run(&["unalias", "@v1"])?;
        same("verbatim", (odd.code, case.service.aliases().len()), (Some(0), 1))?;
        same("and said", odd.stderr.contains("with the `@` in front"), true)?;
        let removed: Vec<String> =
            case.service.calls(Call::RemoveAlias).into_iter().map(|asked| asked.line).collect();
        same(
            "requests",
            removed,
            vec![
                "DELETE /v1/snapshot-aliases/team%40app".to_owned(),
                "DELETE /v1/snapshot-aliases/v0".to_owned(),
                "DELETE /v1/snapshot-aliases/%40v1".to_owned(),
            ],
        )?;
        let bare = case.run(&["aliases", "v1"])?;
        same("taken as an id", bare.stderr.contains("where it is an alias, it is written `@v1`"), true)?;
        case.run(&["unalias", ".."])?.refused(2, &["`..` cannot be an alias"])
    })
}

fn retiring(rig: &Rig) -> Trial {
    trial(rig, "retire", having(3), |case| {
        case.run(&["alias", &id(3), "old"])?.good()?;
        same("ids", case.run(&["retire", &id(1), "@old"])?.good()?, &format!("{}\n{}\n", id(1), id(3)))?;
        let kept = case.run(&["list", "--exclude-retired"])?.good()?.to_owned();
        same("one is left", (kept.lines().count(), kept.contains(&id(2))), (2, true))?;
        let table = case.run(&["list"])?.good()?.to_owned();
        same("two are retired", table.matches("retired").count(), 2)
    })
}

fn registering(rig: &Rig) -> Trial {
    trial(rig, "create_of_what_is_built", Habits::default, |case| {
        let line = [
            "create", "--built", BUILT, "--alias", "a@v1", "--alias", "b", "--ttl", "24h", "--tag", "team=x",
        ];
        let outcome = case.run(&line)?;
        same("the id alone", outcome.line()?, id(1).as_str())?;
        same(
            "lines",
            case.service.lines(),
            [
                "POST /v1/container-registries/default/credentials".to_owned(),
                "POST /v1/snapshots".to_owned(),
                format!("POST /v1/snapshots/{}/aliases", id(1)),
                format!("POST /v1/snapshots/{}/aliases", id(1)),
            ]
            .to_vec(),
        )?;
        let sent = &case.service.calls(Call::Create)[0];
        same(
            "the whole document",
            String::from_utf8_lossy(&sent.body).as_ref(),
            &format!(
                r#"{{"image":"{BUILT}","architecture":"amd64","ttl":86400,"tags":{{"client":"windlass","team":"x"}}}}"#
            ),
        )?;
        let said: Value = serde_json::from_str(
            case.run(&["create", "--built", BUILT, "--tag", "client=ci", "--format", "json"])?.good()?,
        )?;
        same(
            "as data",
            (&said["snapshot"]["id"], &said["image"], &said["snapshot"]["tags"]),
            (&json!(id(2)), &json!(BUILT), &json!({"client": "ci"})),
        )?;
        let ci = case.run(&["create", "--built", BUILT, "--ci", "--format", "json"])?;
        same("--ci is the id alone", ci.stdout.as_str(), &format!("{}\n", id(3)))?;
        let arm = [("TOGETHER_REMOTE_ARCHITECTURE", "arm64")];
        case.run_with(&["create", "--built", BUILT], &arm)?.line()?;
        case.run_with(&["create", "--built", BUILT, "--platform", "linux/amd64"], &arm)?.line()?;
        let labels: Vec<String> = case
            .service
            .calls(Call::Create)
            .iter()
            .filter_map(|asked| Some(asked.document.as_ref()?["architecture"].as_str()?.to_owned()))
            .collect();
        same("labels", labels, ["amd64", "amd64", "amd64", "arm64", "amd64"].map(str::to_owned).to_vec())
    })
}

/// An image that is in another registry, or in none, would be registered and never found.
fn registering_what_is_elsewhere(rig: &Rig) -> Trial {
    let issued = || Issued {
        registry_url: "127.0.0.1:1/project".to_owned(),
        username: "user".to_owned(),
        password: "password-of-the-tests".to_owned(),
        expired_at: Box::new(|_| None),
    };
    let habits = move || Habits { issued: Some(issued()), ..Habits::default() };
    trial(rig, "create_of_what_is_elsewhere", habits, |case| {
        for image in ["agent:1", "ghcr.io/acme/agent:1"] {
            let says = [
                &format!("`{image}` is not in Together's registry, which is `127.0.0.1:1`"),
                "`127.0.0.1:1/project/name:tag`",
                &format!("`--image {image}`"),
                "`--force`",
            ];
            case.run(&["create", "--built", image])?.refused(2, &says)?;
        }
        same("nothing was registered", case.service.calls(Call::Create).len(), 0)?;
        same(
            "forced",
            case.run(&["create", "--built", "127.0.0.1:2/a:1", "--force"])?.line()?,
            id(1).as_str(),
        )?;
        same("there", case.run(&["create", "--built", BUILT])?.line()?, id(2).as_str())
    })
}

/// What was made has an id, also where nobody can read the result.
fn full_stdout(rig: &Rig) -> Trial {
    trial(rig, "create_and_stdout_is_full", Habits::default, |case| {
        for format in ["text", "json"] {
            let line = ["snapshot", "create", "--built", BUILT, "-q"];
            let mut command = case.place.command(&[&line[..], &["--format", format]].concat())?;
            command.env("TOGETHER_BASE_URL", case.service.url()).env("TOGETHER_API_KEY", API_KEY);
            let full = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
            let outcome = Outcome::of(command.stdout(full).output()?);
            let made = case.service.calls(Call::Create).len();
            outcome.refused(1, &["could not write to stdout", &id(made)])?;
            same("no store is full", outcome.stderr.contains("prune"), false)?;
        }
        Ok(())
    })
}

fn usage(rig: &Rig) -> Trial {
    trial(rig, "usage", Habits::default, |case| {
        for (line, says) in [
            (&["create"][..], "required"),
            (&["create", "--context", "app", "--image", "node:22"], "cannot be used with"),
            (&["create", "--image", "node:22", "--dockerfile", "Dockerfile"], "cannot be used with"),
            (&["create", "--image", "node:22", "--cache-key", "a"], "cannot be used with"),
            (&["create", "--image", "Not A Reference"], "Not A Reference"),
            (&["create", "--context", "app", "--ttl", "0"], "--ttl 0"),
            (&["create", "--context", "app", "--ttl", "1.5"], "--ttl 1.5"),
            (&["create", "--context", "app", "--ttl", "-1"], "--ttl -1"),
            (&["create", "--context", "app", "--force"], "cannot be used with"),
            (&["create", "--context", "app", "--dockerfile", "nosuch"], "`--dockerfile app/Dockerfile`"),
            (&["create", "--context", "app", "--tag", "team"], "--tag NAME=VALUE"),
            (&["create", "--context", "app", "--platform", "linux/riscv64"], "snapshots do not run on that"),
            (&["create", "--context", "app", "--backend", "runtime-api"], "RUNTIME_API"),
            (&["create", "--image", "node:22", "--backend", "oci"], "always built by the service"),
            (&["create", "--context", "absent"], "absent"),
            (&["create", "--context", "app", "--alias", "a", "--alias", "."], "`.` cannot be an alias"),
            (&["create", "--context", "app", "--alias", "..", "--dry-run"], "`..` cannot be an alias"),
            (&["create", "--built", BUILT, "--alias", ".."], "`..` cannot be an alias"),
            (&["create", "--built", BUILT, "--alias", ""], "`` cannot be an alias"),
            (&["list", "--limit", "0"], "0"),
            (&["list", "--tag", "team"], "--tag NAME=VALUE"),
            (&["list", "-o", "yaml"], "yaml"),
            (&["get"], "required"),
        ] {
            case.run(line)?.refused(2, &[says])?;
        }
        let arm = [("TOGETHER_REMOTE_ARCHITECTURE", "arm")];
        let words = r#"Invalid TOGETHER_REMOTE_ARCHITECTURE="arm"; expected one of: ["amd64","arm64"]"#;
        case.run_with(&["create", "--context", "app"], &arm)?.refused(2, &[words])?;
        same("nothing was asked", case.service.lines().len(), 0)
    })
}

fn settings(rig: &Rig) -> Trial {
    trial(rig, "key_and_address", having(1), |case| {
        let without = case.run_with(&["list"], &[("TOGETHER_API_KEY", "")])?;
        without.refused(2, &["TOGETHER_API_KEY"])?;
        let odd = case.run_with(&["list"], &[("TOGETHER_BASE_URL", "nonsense")])?;
        odd.refused(2, &["TOGETHER_BASE_URL"])?;
        let slashes = format!("{}//", case.service.url());
        case.run_with(&["list"], &[("TOGETHER_BASE_URL", &slashes)])?.good()?;
        same("slashes do not count", case.service.lines(), vec!["GET /v1/snapshots".to_owned()])?;
        let wrong = case.run_with(&["list"], &[("TOGETHER_API_KEY", "another")])?;
        wrong.refused(
            3,
            &[
                "Failed to list snapshots: who are you (code: unauthorized)",
                "check the key in TOGETHER_API_KEY",
            ],
        )
    })
}

//! `windlass image push --to`: finished images.

use std::io::Write;
use std::process::Command;

use flate2::write::GzEncoder;
use libtest_mimic::{Failed, Trial};
use serde_json::json;
use windlass_tests::place::Outcome;
use windlass_tests::service::runtime_api::{Asked, Field, Habits, Reaction, Upload, document};
use windlass_tests::service::{from_environment, variables};

use crate::rig::{Rig, same};

fn the_second_never_ends() -> Habits {
    let script = |asked: &Asked| match asked.line.ends_with("build_id=build-2") {
        true => Reaction::Answer(document(200, json!({ "status": "RUNNING" }))),
        false => Reaction::Normal,
    };
    Habits { script: Box::new(script), ..Habits::default() }
}

/// It refuses the first, and takes the second for a context.
fn takes_no_images() -> Habits {
    let script = |asked: &Asked| match (asked.call.as_str(), asked.before) {
        ("build", 0) => Reaction::Answer(document(415, json!({ "error": "no images here" }))),
        _ => Reaction::Normal,
    };
    let builder = Box::new(|_: &Upload| Err("no Dockerfile".to_owned()));
    Habits { script: Box::new(script), builder, ..Habits::default() }
}

fn no_prefix() -> Habits {
    Habits { registry_prefix: None, ..Habits::default() }
}

/// Pushes to the real registry, and the service is asked for the image.
fn by_registry(rig: &Rig) -> Trial {
    let registry = match from_environment(variables::REGISTRY) {
        Ok(registry) => registry,
        Err(absent) => return absent.trial(),
    };
    let prefix = format!("{registry}/pushed/by-registry");
    let target = prefix.clone();
    let habits = move || {
        // It sees the first, and not the second.
        let script = |asked: &Asked| match (asked.call.as_str(), asked.line.contains("absent")) {
            ("image_exists", absent) => Reaction::Answer(document(200, json!({ "exists": !absent }))),
            _ => Reaction::Normal,
        };
        Habits { script: Box::new(script), registry_prefix: Some(prefix), ..Habits::default() }
    };
    rig.trial("images::by_the_registry", habits, move |case| {
        case.run(&["build", "-b", "oci", "-t", "app:1"])?.good()?;
        let push =
            ["image", "push", "app:1", "agent:1", "agent:2", "--to", "runtime-api", "--via", "registry"];
        let outcome = case.run(&push)?;
        let line = outcome.line()?;
        same("image", line.starts_with(&format!("{target}/agent:1@sha256:")), true)?;
        case.run(&["image", "pull", &format!("{target}/agent:2")])?.good()?;
        same("uploads", case.service.calls("build").len(), 0)?;
        same("questions", case.service.calls("image_exists").len(), 2)?;
        let push = ["image", "push", "app:1", "absent:1", "--to", "runtime-api", "--via", "registry"];
        case.run(&push)?.refused(1, &["was pushed, but", "says that it does not exist"])
    })
}

/// Images of the real engine, by upload and by the registry; what it lacks is pulled if that is asked for.
fn from_the_engine(rig: &Rig) -> Trial {
    let found = from_environment(variables::REGISTRY)
        .and_then(|registry| from_environment(variables::DOCKER_HOST).map(|engine| (registry, engine)));
    let (registry, engine) = match found {
        Ok(found) => found,
        Err(absent) => return absent.trial(),
    };
    let prefix = format!("{registry}/pushed/from-the-engine");
    let (of_habits, name) = (prefix.clone(), "windlass-remote-upload:1");
    let habits = move || {
        let script = |asked: &Asked| match asked.call.as_str() {
            "image_exists" => Reaction::Answer(document(200, json!({ "exists": true }))),
            _ => Reaction::Normal,
        };
        Habits { script: Box::new(script), registry_prefix: Some(of_habits), ..Habits::default() }
    };
    rig.trial("images::from_the_docker_engine", habits, move |case| {
        let to = ["--to", "runtime-api"];
        let run = |line: &[&str]| {
            let mut command = case.place.command(&[line, &to].concat())?;
            Ok::<_, Failed>(Outcome::of(command.envs(case.variables()).env("DOCKER_HOST", &engine).output()?))
        };
        let docker = |line: &[&str]| {
            let status = Command::new("docker").args(["--host", &engine]).args(line).output()?.status;
            same(&line.join(" "), status.success(), true)
        };
        let absent = format!("docker-daemon:{name}");
        run(&["image", "push", &absent])?.refused(1, &["is not in the docker engine", "`--pull`"])?;
        case.run(&["build", "-b", "oci", "-t", name, "-o", "type=docker,dest=loaded.tar"])?.good()?;
        docker(&["load", "--input", &case.place.path("loaded.tar").display().to_string()])?;
        let outcomes = [
            run(&["image", "push", &absent]),
            run(&["image", "push", name, "agent:1"]),
            run(&["image", "push", name, "agent:2", "--via", "registry"]),
            run(&["image", "push", &format!("docker-daemon:{registry}/base/busybox:1"), "agent:3", "--pull"]),
        ];
        docker(&["image", "rm", name])?;
        let expected = [name, "agent:1", "agent:2@sha256:", "agent:3"];
        for (outcome, expected) in outcomes.into_iter().zip(expected) {
            let outcome = outcome?;
            let start = format!("{prefix}/{expected}");
            same(&start, outcome.line()?.starts_with(&start), true)?;
        }
        case.run(&["image", "pull", &format!("{prefix}/agent:2")])?.good()?;
        same("uploads", case.service.calls("build").len(), 3)?;
        let left = std::fs::read_dir(case.place.home("cache/windlass/images/incoming"))?.count();
        same("left behind", left, 0)
    })
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>, Failed> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

pub(crate) fn trials(rig: &Rig) -> Vec<Trial> {
    vec![
        rig.trial("images::from_the_store_and_from_archives", Habits::default, |case| {
            case.run(&["build", "-b", "oci", "-t", "app:1"])?.good()?;
            for (file, form) in [("oci.tar", "oci"), ("docker.tar", "docker")] {
                case.run(&["image", "save", "app:1", "-o", file, "--type", form])?.good()?;
            }
            for source in ["app:1", "oci.tar", "docker.tar"] {
                let line = [
                    "image",
                    "push",
                    source,
                    "agent:1",
                    "agent:2",
                    "--to",
                    "runtime-api",
                    "--timeout",
                    "60m",
                ];
                let outcome = case.run(&line)?;
                same(source, outcome.line()?, "registry.example.com/team/agent:1")?;
            }
            let asked = case.service.calls("build");
            same("uploads", asked.len(), 3)?;
            for asked in &asked {
                let upload = asked.upload.as_ref().ok_or("an upload")?;
                same("raw", (upload.is_raw, upload.is_json), (true, false))?;
                let image = Field {
                    name: "context".to_owned(),
                    file_name: Some("image.tar.gz".to_owned()),
                    content_type: Some("application/gzip".to_owned()),
                };
                let field = |name: &str| Field { name: name.to_owned(), ..Field::default() };
                same("fields", &upload.fields, &vec![image, field("target_image"), field("tags_0")])?;
                let members = upload.members();
                for name in ["manifest.json", "index.json", "oci-layout"] {
                    same(name, members.iter().any(|(path, ..)| path == name), true)?;
                }
            }
            let state = case.run(&["builds", "--format", "json"])?;
            let listed: serde_json::Value = serde_json::from_str(state.good()?)?;
            same("in the ledger", listed.as_array().map(Vec::len), Some(3))
        }),
        rig.trial("images::archives_of_every_form", Habits::default, |case| {
            case.run(&["build", "-b", "oci", "-t", "app:1"])?.good()?;
            let mut sources = Vec::new();
            for form in ["oci", "docker"] {
                let plain = format!("{form}.tar");
                case.run(&["image", "save", "app:1", "-o", &plain, "--type", form])?.good()?;
                let bytes = std::fs::read(case.place.path(&plain))?;
                for (end, compressed) in
                    [("gz", gzip(&bytes)?), ("zst", zstd::encode_all(bytes.as_slice(), 1)?)]
                {
                    case.place.write(&format!("{plain}.{end}"), compressed)?;
                    sources.push(format!("{plain}.{end}"));
                }
                sources.push(plain);
            }
            for source in &sources {
                case.run(&["image", "push", source, "agent:1", "--to", "runtime-api"])?.good()?;
            }
            let asked = case.service.calls("build");
            same("uploads", asked.len(), sources.len())?;
            let archives: Vec<_> =
                asked.iter().filter_map(|a| a.upload.as_ref()).map(|u| &u.archive).collect();
            same("the same image", archives.iter().all(|archive| **archive == *archives[0]), true)
        }),
        rig.trial("images::the_users_limit_counts", the_second_never_ends, |case| {
            case.run(&["build", "-b", "oci", "-t", "app:1"])?.good()?;
            let line = ["image", "push", "app:1", "agent:1", "--to", "runtime-api"];
            case.run_set(&[&line[..], &["--timeout", "60m"]].concat(), &["build-timeout=1ms"])?.good()?;
            let outcome = case.run_set(&line, &["build-timeout=1ms"])?;
            outcome.refused(
                4,
                &[
                    "the build `build-2` has not ended",
                    "`windlass builds attach build-2 --backend runtime-api`",
                ],
            )
        }),
        rig.trial("images::by_the_registry_needs_one", no_prefix, |case| {
            case.run(&["build", "-b", "oci", "-t", "app:1"])?.good()?;
            let line = ["image", "push", "app:1", "agent:1", "--to", "runtime-api", "--via", "registry"];
            case.run(&line)?.refused(2, &["does not say which registry is its own", "registry-prefix"])?;
            case.run(&["image", "push", "app:1", "--via", "registry"])?.refused(2, &["--to"])?;
            same("uploads", case.service.calls("build").len(), 0)
        }),
        by_registry(rig),
        from_the_engine(rig),
        rig.trial("images::a_service_that_takes_none", takes_no_images, |case| {
            case.run(&["build", "-b", "oci", "-t", "app:1"])?.good()?;
            let line = ["image", "push", "app:1", "agent:1", "--to", "runtime-api"];
            for says in ["no images here", "no Dockerfile"] {
                case.run(&line)?.refused(1, &[says, "`--via registry`"])?;
            }
            Ok(())
        }),
        rig.trial("images::what_is_not_there", Habits::default, |case| {
            let to = ["--to", "runtime-api"];
            let nobody = case.run(&["image", "push", "absent:1", "--to", "nosuch"])?;
            nobody.refused(2, &["unknown backend `nosuch`", "chosen by: `--to` says so"])?;
            case.run(&[&["image", "push", "absent:1"][..], &to].concat())?
                .refused(1, &["is not in the local store"])?;
            case.run(&["image", "push", "absent:1", "--to", "oci"])?
                .refused(2, &["no service that takes images"])?;
            same("requests", case.service.lines().len(), 0)
        }),
    ]
}

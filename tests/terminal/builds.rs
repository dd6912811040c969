//! Builds that work.

use std::process::Command;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use windlass_tests::image_check::{Image, Platform};

use crate::place::{Place, Services};

/// The tests of this file.
pub(crate) fn trials(services: &Arc<Services>) -> Vec<Trial> {
    vec![
        services.trial("build_without_a_daemon", build_without_a_daemon),
        services.trial("build_with_docker_and_load", build_with_docker),
        services.trial("build_and_push_is_the_same_with_both", build_and_push),
        services.trial("files_beside_the_result", files_beside_the_result),
        services.trial("dry_run_of_docker_does_nothing", dry_run),
        services.trial("backends_check", backends_check),
        services.trial("a_list_of_backends_moves_on_where_one_is_not_there", fallback),
    ]
}

/// The context of the first build of the README.
fn hello(place: &Place) -> Result<(), Failed> {
    place.dockerfile("FROM {busybox}\nCOPY site /srv/site\nENV PORT=8080\nCMD [\"httpd\", \"-f\"]\n")?;
    place.write("site/index.html", "<h1>hello</h1>\n")?;
    place.write("notes.log", "not for the image\n")?;
    place.write(".dockerignore", "*.log\n")
}

fn docker(place: &Place, arguments: &[&str]) -> Result<String, Failed> {
    let output = Command::new("docker").args(["--host", &place.services.classic]).args(arguments).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn build_without_a_daemon(place: &Place) -> Result<(), Failed> {
    hello(place)?;
    // No engine is there, and none is missed.
    let nowhere = [("DOCKER_HOST", "unix:///nowhere.sock")];
    let first = place.run_with(&["build", "."], &nowhere)?;
    let line = first.line()?;
    let (reference, digest) = line.split_once('@').ok_or("no digest")?;
    assert!(reference.starts_with("localhost/work:fp-") && digest.starts_with("sha256:"), "{line}");

    let again = place.run_with(&["build", "."], &nowhere)?;
    assert_eq!(again.line()?, line, "nothing changed, so the image was found");
    let listed = place.run(&["image", "ls"])?;
    assert!(listed.stdout.contains("localhost/work"), "{listed:?}");
    let inspected = place.run(&["image", "inspect", reference])?;
    assert!(inspected.stdout.contains("PORT=8080"), "{inspected:?}");
    Ok(())
}

fn build_with_docker(place: &Place) -> Result<(), Failed> {
    hello(place)?;
    let outcome =
        place.run(&["build", ".", "-b", "docker", "--load", "-t", "windlass.test/terminal/hello:1"])?;
    let line = outcome.line()?.to_owned();
    assert!(line.contains("windlass.test/terminal/hello:1"), "{line}");
    let inspected: Value =
        serde_json::from_str(&docker(place, &["image", "inspect", "windlass.test/terminal/hello:1"])?)?;
    assert_eq!(inspected[0]["Config"]["Cmd"][0], "httpd");
    docker(place, &["image", "rm", "windlass.test/terminal/hello:1"])?;
    Ok(())
}

fn build_and_push(place: &Place) -> Result<(), Failed> {
    hello(place)?;
    for backend in ["oci", "docker"] {
        let tag = format!("{}/terminal/hello:{backend}", place.services.registry);
        let outcome = place.run(&["build", ".", "-b", backend, "-t", &tag, "--push"])?;
        let image = Image::from_registry(&tag, &Platform::amd64())?;
        assert_eq!(outcome.line()?, format!("{tag}@{}", image.root_digest));
        assert!(image.files.get("/srv/site/index.html").is_some());
    }
    Ok(())
}

fn files_beside_the_result(place: &Place) -> Result<(), Failed> {
    hello(place)?;
    for backend in ["oci", "docker"] {
        let tag = format!("{}/terminal/files:{backend}", place.services.registry);
        let line = [
            "build",
            ".",
            "-b",
            backend,
            "-t",
            &tag,
            "--push",
            "--metadata-file",
            "m.json",
            "--iidfile",
            "id",
        ];
        assert_eq!(place.run(&line)?.code, Some(0));
        let image = Image::from_registry(&tag, &Platform::amd64())?;
        let metadata: Value = serde_json::from_slice(&std::fs::read(place.path("m.json"))?)?;
        assert_eq!(metadata["containerimage.digest"], image.root_digest, "{backend}");
        let id = std::fs::read_to_string(place.path("id"))?;
        assert!(
            [&image.root_digest, image.manifest["config"]["digest"].as_str().unwrap_or_default()]
                .contains(&id.trim()),
            "{backend}: {id}"
        );
    }
    Ok(())
}

fn dry_run(place: &Place) -> Result<(), Failed> {
    hello(place)?;
    let tag = format!("{}/terminal/dry:1", place.services.registry);
    for backend in ["oci", "docker"] {
        let outcome = place.run(&[
            "build",
            ".",
            "-b",
            backend,
            "-t",
            &tag,
            "--push",
            "--dry-run",
            "--format",
            "json",
        ])?;
        let plan: Value = serde_json::from_str(&outcome.stdout)?;
        assert!(plan.to_string().contains(&tag), "{plan}");
        assert!(Image::from_registry(&tag, &Platform::amd64()).is_err(), "{backend} pushed");
    }
    Ok(())
}

fn backends_check(place: &Place) -> Result<(), Failed> {
    let good = place.run(&["backends", "check"])?;
    assert_eq!(good.code, Some(0), "{good:#?}");
    let bad = place.run_with(&["backends", "check", "docker"], &[("DOCKER_HOST", "unix:///nowhere.sock")])?;
    assert_eq!(bad.code, Some(3), "{bad:#?}");
    assert!(format!("{}{}", bad.stdout, bad.stderr).contains("start docker"), "{bad:#?}");
    Ok(())
}

fn fallback(place: &Place) -> Result<(), Failed> {
    hello(place)?;
    place.write("windlass.toml", "default-backend = [\"docker\", \"oci\"]\n")?;
    let outcome =
        place.run_with(&["build", ".", "--format", "json"], &[("DOCKER_HOST", "unix:///nowhere.sock")])?;
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let report: Value = serde_json::from_str(&outcome.stdout)?;
    assert_eq!(
        (&report["backend"], &report["passed_over"][0]["backend"]),
        (&"oci".into(), &"docker".into()),
        "{report}"
    );
    assert!(outcome.stderr.contains("docker") && outcome.stderr.contains("unavailable"), "{outcome:#?}");

    // A build that fails is no reason to try another backend.
    place.dockerfile("FROM {busybox}\nRUN exit 3\n")?;
    place.run(&["build", "."])?.refused(1, &["RUN exit 3"])
}

//! The built-in recipe `openhands-runtime` in all its modes, on a Debian without network: what it would install is a
//! command that leaves a trace.

use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use windlass_tests::image_check::{Ignoring, Image, compare};

use crate::report::{Report, TAGS};
use crate::rig::{Case, On, command, lines, same};
use crate::world::World;

/// The tests of this file.
pub(crate) fn trials(world: &Arc<World>) -> Vec<Trial> {
    vec![
        world.trial("builtin::the_modes_of_openhands_runtime", modes),
        world.trial("builtin::oci_refuses_what_needs_run_before_any_work", refused_by_oci),
        world.trial("builtin::image-builder_builds_anew_and_says_so", refused_by_the_service),
    ]
}

/// The built-in recipe with other defaults: the dependencies are the lock file itself, and nothing is fetched.
const REDUCED: &str = r#"
extends = "openhands-runtime"

[variables]
system_packages = []
package_manager_command = ""
dependency_command = "cp poetry.lock /openhands/installed"
"#;

/// Without the browser, for which there is nothing to install it with.
const OPTIONS: [&str; 3] = ["--recipe", "reduced.toml", "--no-browser"];

fn write_platform(case: &Case) -> Result<(), Failed> {
    case.write("reduced.toml", REDUCED)?;
    case.write("pyproject.toml", "[tool.poetry]\nname = \"demo\"\nversion = \"1.0.0\"\n")?;
    case.write("poetry.lock", "first\n")?;
    case.write("openhands/__init__.py", "")?;
    case.write("openhands/core/main.py", "print(1)\n")?;
    case.write("openhands/core/gone.py", "print('gone')\n")?;
    case.write("openhands/old/module.py", "print('old')\n")?;
    case.write("openhands/old/deeper/data.json", "{}\n")?;
    case.write("skills/docker.md", "# how to\n")?;
    case.write("skills/vanishing.md", "# nothing\n")
}

/// Files and directories vanish, a file becomes a directory, and what is not copied changes, too.
fn change_sources(case: &Case) -> Result<(), Failed> {
    std::fs::remove_dir_all(case.path("openhands/old"))?;
    std::fs::remove_file(case.path("openhands/core/gone.py"))?;
    std::fs::remove_file(case.path("skills/vanishing.md"))?;
    case.write("openhands/core/gone.py/now_a_directory.py", "")?;
    case.write("openhands/core/main.py", "print(2)\n")?;
    case.write("openhands/core/.env", "HIDDEN=1\n")?;
    case.write("openhands/new/here.py", "print('new')\n")?;
    for not_copied in
        ["core/notes.md", "core/__pycache__/main.cpython-312.pyc", "core/old.pyc", ".git/config"]
    {
        case.write(&format!("openhands/{not_copied}"), "not for the image\n")?;
    }
    Ok(())
}

fn build(on: &On<'_>, more: &[&str]) -> Result<Report, Failed> {
    let base = on.case.base("debian:bookworm");
    let push: &[&str] = if on.service.is_some() { &[] } else { &["--push"] };
    let line = [&["--base-image", &base, "--format", "json"], &OPTIONS[..], push, more].concat();
    Report::read(&on.runtime("build", &line)?)
}

fn modes(case: &Case) -> Result<(), Failed> {
    write_platform(case)?;
    let (docker, oci, service) = (case.on("docker")?, case.on("oci")?, case.on("runtime-api")?);
    let scratch = build(&docker, &[])?;
    same("mode", (scratch.mode(), scratch.set()), ("scratch", TAGS.to_vec()))?;
    let image = case.image(scratch.result())?;
    same("dependencies", content_is(&image, "openhands/installed", "first\n"), true)?;
    same("what goes", has(&image, "openhands/code/openhands/old/deeper/data.json"), true)?;

    // The others go on from the very same image.
    let lock = scratch.tag("lock").to_owned();
    for on in [&oci, &service] {
        let to = format!("docker://{}:{lock}", on.repository());
        let from = format!("docker://{}", scratch.reference("lock"));
        command(
            "skopeo",
            &["copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false", &from, &to],
        )?;
    }
    change_sources(case)?;
    let mut images = Vec::new();
    for on in [&docker, &oci, &service] {
        let report = build(on, &[])?;
        same(
            on.backend,
            (report.mode(), report.set(), report.kept()),
            ("lock", vec!["source"], vec!["lock"]),
        )?;
        same(on.backend, report.base_image(), report.reference("lock"))?;
        let built = case.image(report.result())?;
        same(on.backend, code(&built), code_expected())?;
        images.push(built);
    }
    let differs = Ignoring {
        config: [Ignoring::between_builders().config, vec!["history"]].concat(),
        ..Ignoring::between_builders()
    };
    let differences = compare(&images[0], &images[1], &differs);
    assert!(differences.is_empty(), "docker and oci: {}", differences.join("\n"));
    let differences = compare(&images[1], &images[2], &Ignoring::default());
    assert!(differences.is_empty(), "oci and the service: {}", differences.join("\n"));
    same("new layers of oci", images[1].layers.len(), image.layers.len() + 1)?;

    case.write("poetry.lock", "second\n")?;
    let versioned = build(&docker, &[])?;
    same("mode", (versioned.mode(), versioned.set()), ("versioned", vec!["source", "lock"]))?;
    same("base image", versioned.base_image(), versioned.reference("versioned"))?;
    let image = case.image(versioned.result())?;
    same("dependencies", content_is(&image, "openhands/installed", "second\n"), true)?;
    same("sources", code(&image), code_expected())
}

fn has(image: &Image, path: &str) -> bool {
    image.files.get(path).is_some()
}

fn content_is(image: &Image, path: &str, content: &str) -> bool {
    let digest = crate::registry::digest_of(content.as_bytes());
    let entry = image.files.get(path).and_then(|entry| entry.sha256.as_deref());
    entry == digest.strip_prefix("sha256:")
}

/// What lies below the directory of the code.
fn code(image: &Image) -> Vec<String> {
    let paths = image.files.iter().filter_map(|(path, _)| path.strip_prefix("openhands/code").ok());
    paths.map(|path| path.display().to_string()).filter(|path| !path.is_empty()).collect()
}

fn code_expected() -> Vec<String> {
    let paths = [
        "openhands",
        "openhands/__init__.py",
        "openhands/core",
        "openhands/core/.env",
        "openhands/core/gone.py",
        "openhands/core/gone.py/now_a_directory.py",
        "openhands/core/main.py",
        "openhands/new",
        "openhands/new/here.py",
        "poetry.lock",
        "pyproject.toml",
        "skills",
        "skills/docker.md",
    ];
    paths.map(str::to_owned).to_vec()
}

fn refused_by_oci(case: &Case) -> Result<(), Failed> {
    write_platform(case)?;
    let proxy = case.proxy(Vec::new())?;
    let on = case.on("oci")?;
    let (base, repository) = (
        format!("{}/base/debian:bookworm", proxy.address()),
        format!("{}/{}", proxy.address(), on.repository),
    );
    let line = ["runtime", "build", "--base-image", &base, "--repository", &repository, "--push"];
    let outcome = on.run(&[&line, &OPTIONS[..]].concat())?;
    outcome.refused(2, &["`oci` cannot", "in the mode `scratch`", "RUN", "docker"])?;
    // The three questions, whether there is such a base image, and nothing else.
    let seen = lines(&proxy.seen("", ""));
    assert!(
        seen.iter().all(|line| line.starts_with("HEAD /v2/") && line.contains("/manifests/")),
        "{seen:#?}"
    );
    assert!(seen.len() <= 4, "{seen:#?}");
    let stored = std::fs::read_dir(case.store().join("blobs/sha256")).map_or(0, Iterator::count);
    same("blobs in the store", stored, 0)?;
    Ok(())
}

fn refused_by_the_service(case: &Case) -> Result<(), Failed> {
    write_platform(case)?;
    let on = case.on("image-builder")?;
    let base = case.base("debian:bookworm");
    let outcome = on.runtime("build", &[&["--base-image", &base], &OPTIONS[..]].concat())?;
    // It would build from scratch, and what builds for the service of the tests has no RUN.
    outcome.refused(1, &["cannot be asked whether an image exists", "RUN"])?;
    same("builds", on.builds(), 1)
}

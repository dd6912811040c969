//! The context generator: the archive holds exactly what it should, byte for byte the same every time, and a service
//! builds an image of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use flate2::read::GzDecoder;
use libtest_mimic::{Failed, Trial};
use windlass_tests::image_check::{Kind, Listing};
use windlass_tests::place::Outcome;

use crate::registry::digest_of;
use crate::rig::{Case, On, Service, same};
use crate::world::World;

/// The commit that scripts say.
const COMMIT: &str = "abc1234567890abcdef";
const ARCHIVE: &str = "runtime-build/agent-server-abc1234-python.tar.gz";

/// The tests of this file.
pub(crate) fn trials(world: &Arc<World>) -> Vec<Trial> {
    vec![
        world.trial("generator::the_archive_is_the_context", archive),
        world.trial("generator::a_service_builds_what_is_uploaded", upload),
        world.trial("generator::a_build_that_fails_is_told", upload_that_fails),
        world.trial("generator::directories_that_are_not_ours_stay", guarded),
    ]
}

/// What belongs into the context.
const FILES: [(&str, &str); 8] = [
    ("pyproject.toml", "[project]\nname = \"demo\"\nversion = \"1.2.3\"\n"),
    ("uv.lock", "# lock\n"),
    ("README.mdx", "# Demo\n"),
    ("openhands/sdk/__init__.py", "sdk = 1\n"),
    ("openhands/sdk/deep/er/module.py", "deep = 1\n"),
    ("openhands/tools/tool.py", "tool = 1\n"),
    ("openhands/workspace/.github/kept.yml", "kept: 1\n"),
    ("openhands/agent_server/__main__.py", "main = 1\n"),
];
/// What does not.
const IGNORED: [&str; 6] = [
    "openhands/sdk/__pycache__/module.cpython-312.pyc",
    "openhands/sdk/module.pyo",
    "openhands/tools/node_modules/left/pad.js",
    "openhands/workspace/.gitignore",
    "openhands/agent_server/demo.egg-info/PKG-INFO",
    "openhands/notes.txt",
];

fn write_sources(case: &Case) -> Result<(), Failed> {
    FILES.iter().try_for_each(|(path, content)| case.write(path, content))?;
    IGNORED.iter().try_for_each(|path| case.write(path, "not for the image\n"))
}

fn generate(on: &On<'_>, more: &[&str], variables: &[(&str, &str)]) -> Result<Outcome, Failed> {
    let set = [("GITHUB_SHA", COMMIT), ("TARGET", "source"), ("CUSTOM_TAGS", "python, java")];
    on.run_bare(&[&["context", "generate"], more].concat(), &[&set, variables].concat())
}

/// Files of a packed context by their path.
fn unpacked(case: &Case) -> Result<Listing, Failed> {
    let archive = GzDecoder::new(File::open(case.path(ARCHIVE))?);
    Ok(Listing::of_tar(archive, ARCHIVE)?)
}

fn archive(case: &Case) -> Result<(), Failed> {
    write_sources(case)?;
    let on = case.on("oci")?;
    let outcome = generate(&on, &["--no-upload"], &[])?;
    let said = outcome.good()?;
    for line in ["Creating build context for target: source", "Git SHA: abc1234", ARCHIVE, "File size: "] {
        assert!(said.contains(line), "`{line}`: {said}");
    }
    let listing = unpacked(case)?;
    let files = listing.iter().filter(|(_, entry)| entry.kind == Kind::File).filter_map(|(path, entry)| {
        Some((path.display().to_string(), format!("sha256:{}", entry.sha256.as_deref()?)))
    });
    let mut files: BTreeMap<String, String> = files.collect();
    assert!(files.remove("Dockerfile").is_some(), "no Dockerfile: {files:?}");
    let expected = FILES.map(|(path, content)| (path.to_owned(), digest_of(content.as_bytes())));
    same("files", files, expected.into())?;

    // The same sources, touched: the same bytes. The folder is ours by now.
    let first = std::fs::read(case.path(ARCHIVE))?;
    write_sources(case)?;
    generate(&on, &["--no-upload"], &[])?.good()?;
    same("the archive", std::fs::read(case.path(ARCHIVE))? == first, true)
}

/// A recipe whose images need no RUN, with the layout of the built-in one.
const RECIPE: &str = r#"
extends = "agent-server"
template-text = """
FROM {{ base_image }}
LABEL acme.target={{ target }}
COPY pyproject.toml uv.lock README.mdx* /agent-server/
COPY openhands/ /agent-server/openhands/
"""
"#;

fn upload(case: &Case) -> Result<(), Failed> {
    write_sources(case)?;
    case.write("plain.toml", RECIPE)?;
    let (on, base) = (case.on("runtime-api")?, case.base("busybox:1"));
    let outcome = generate(&on, &["--recipe", "plain.toml"], &[("BASE_IMAGE", &base)])?;
    let said = outcome.good()?;
    assert!(said.contains("Build completed successfully"), "{said}");
    let Some(Service::RuntimeApi(service)) = &on.service else { return Err("no service".into()) };
    let uploads: Vec<_> = service.calls("build").into_iter().filter_map(|asked| asked.upload).collect();
    let [upload] = uploads.as_slice() else { return Err(format!("{} uploads", uploads.len()).into()) };
    // What was uploaded is what lies there.
    same("the archive", upload.archive == std::fs::read(case.path(ARCHIVE))?, true)?;
    let prefix = on.repository();
    let name = format!("{}/agent-server:abc1234-python", prefix.trim_end_matches("/runtime"));
    assert_eq!(upload.target, name);
    let image = case.image(&name)?;
    let label = &image.config["config"]["Labels"]["acme.target"];
    same("label", label.as_str(), Some("source"))?;
    for (path, content) in FILES {
        let entry = image.files.get(format!("agent-server/{path}")).ok_or(path)?;
        same(path, entry.sha256.as_deref(), digest_of(content.as_bytes()).strip_prefix("sha256:"))?;
    }
    Ok(())
}

fn upload_that_fails(case: &Case) -> Result<(), Failed> {
    write_sources(case)?;
    let on = case.on("runtime-api")?;
    // The built-in template needs RUN, which the service of the tests does not have.
    let outcome = generate(&on, &[], &[("BASE_IMAGE", &case.base("busybox:1"))])?;
    same("code", outcome.code, Some(1))?;
    assert!(outcome.stderr.contains("Build failed") && outcome.stderr.contains("RUN"), "{outcome:#?}");
    same("builds", on.builds(), 1)?;
    unpacked(case).map(drop)
}

fn guarded(case: &Case) -> Result<(), Failed> {
    write_sources(case)?;
    case.write("precious/thesis.txt", "three years\n")?;
    let on = case.on("oci")?;
    for directory in ["precious", "openhands/sdk", ".", "/"] {
        let outcome = generate(&on, &["--no-upload", "--output-dir", directory], &[])?;
        same(directory, outcome.code, Some(1))?;
        assert!(outcome.stderr.contains("ERROR"), "{outcome:#?}");
    }
    same(
        "what is precious",
        std::fs::read_to_string(case.path("precious/thesis.txt"))?,
        "three years\n".to_owned(),
    )?;
    FILES
        .iter()
        .try_for_each(|(path, content)| same(path, &*std::fs::read_to_string(case.path(path))?, *content))
}

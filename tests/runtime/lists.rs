//! Lists of images: every form says the same, recipes may make the images, and Ctrl-C leaves a batch that goes on.

use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use windlass_tests::place::{interrupt, wait_until};

use crate::bases::{self, Base};
use crate::project::{self, RECIPE};
use crate::rig::{Case, On, same};
use crate::world::World;

const DOCKERFILE: &str = "\
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG EDITION
LABEL edition=${EDITION}
COPY --link code/ /srv/code/
";

/// The tests of this file.
pub(crate) fn trials(world: &Arc<World>) -> Vec<Trial> {
    vec![
        world.trial("lists::every_form_says_the_same", forms),
        world.trial("lists::images_of_a_recipe::oci", |case| recipe(case, "oci")),
        world.trial("lists::images_of_a_recipe::docker", |case| recipe(case, "docker")),
        world.trial("lists::stopped_by_ctrl_c_and_resumed", stopped),
    ]
}

fn make_bases(case: &Case, count: usize) -> Result<Vec<Base>, Failed> {
    let registry = &case.world.registry;
    (0..count).map(|number| bases::make(registry, &format!("{}/base-{number}", case.name), number)).collect()
}

/// Runs a list and gives its summary.
fn batch(on: &On<'_>, list: &str, more: &[&str]) -> Result<Value, Failed> {
    let report = on.case.home(&format!("report of {list}")).display().to_string();
    let line = ["batch", list, "--push", "--report", &report, "--format", "json"];
    Ok(serde_json::from_str(on.run(&[&line, more].concat())?.good()?)?)
}

fn forms(case: &Case) -> Result<(), Failed> {
    case.write("agent/Dockerfile", DOCKERFILE)?;
    case.write("agent/code/main.py", "print(1)\n")?;
    let (on, address) = (case.on("oci")?, case.world.registry.address().to_owned());
    let bases = make_bases(case, 2)?;
    let base = |number: usize| format!("{address}/{}", bases[number].reference);
    let tag = |form: &str, number: usize| format!("{address}/{}/{form}:{number}", case.name);
    let image = |form: &str, number: usize| (base(number), tag(form, number), format!("e{number}"));

    let mut toml = "context = \"agent\"\n".to_owned();
    let mut lines = "{\"defaults\": {\"context\": \"agent\"}}\n".to_owned();
    let mut targets = serde_json::Map::new();
    let mut hcl =
        "target \"common\" { context = \"agent\" }\ngroup \"default\" { targets = [\"i0\", \"i1\"] }\n"
            .to_owned();
    for number in 0..2 {
        let (base, tag, edition) = image("toml", number);
        toml += &format!(
            "[[image]]\nbase-image = \"{base}\"\ntags = [\"{tag}\"]\nbuild-args = {{ EDITION = \"{edition}\" }}\n"
        );
        let (base, tag, edition) = image("jsonl", number);
        let line = serde_json::json!({ "base": base, "tags": [tag], "build_args": { "EDITION": edition } });
        lines += &format!("{line}\n");
        let (base, tag, edition) = image("json", number);
        let args = serde_json::json!({ "BASE_IMAGE": base, "EDITION": edition });
        let target = serde_json::json!({ "context": "agent", "tags": [tag], "args": args });
        targets.insert(format!("i{number}"), target);
        let (base, tag, edition) = image("hcl", number);
        hcl += &format!(
            "target \"i{number}\" {{\n  inherits = [\"common\"]\n  tags = [\"{tag}\"]\n  args = {{ BASE_IMAGE = \"{base}\", EDITION = \"{edition}\" }}\n}}\n"
        );
    }
    let json = serde_json::json!({ "group": { "default": { "targets": ["i0", "i1"] } }, "target": targets });
    let lists = [("toml", toml), ("jsonl", lines), ("json", json.to_string()), ("hcl", hcl)];
    let mut first = None;
    for (form, text) in lists {
        let list = format!("images.{form}");
        case.write(&list, text)?;
        same(form, batch(&on, &list, &[])?["built"].as_u64(), Some(2))?;
        let digests: Vec<String> =
            case.world.registry.tags(&format!("{}/{form}", case.name))?.into_values().collect();
        same("images", digests.len(), 2)?;
        same(form, &digests, first.get_or_insert_with(|| digests.clone()))?;
    }
    Ok(())
}

fn recipe(case: &Case, backend: &'static str) -> Result<(), Failed> {
    project::write(case, &case.base("busybox:1"))?;
    let (on, address) = (case.on(backend)?, case.world.registry.address());
    let make =
        |number| bases::make_with_rm(&case.world.registry, &format!("{}/base-{number}", case.name), number);
    let bases: Vec<Base> = (0..3).map(make).collect::<Result<_, _>>()?;
    let mut list = format!("recipe = \"{RECIPE}\"\nsource = \"app\"\nrepository = \"{}\"\n", on.repository());
    for base in &bases {
        list += &format!("[[image]]\nbase-image = \"{address}/{}\"\n", base.reference);
    }
    case.write("images.toml", list)?;
    same("built", batch(&on, "images.toml", &[])?["built"].as_u64(), Some(3))?;
    let tags = case.world.registry.tags(&on.repository)?;
    same("tags: source, lock and versioned of each", tags.len(), 9)?;

    // The same again, by somebody who knows nothing of the first time.
    let again = batch(&on, "images.toml", &[])?;
    same("built", again["built"].as_u64(), Some(0))?;
    same("there already", again["skipped"].as_u64(), Some(3))?;
    same("tags", case.world.registry.tags(&on.repository)?, tags.clone())?;

    // Other sources: each upon its own lock image.
    project::change_sources(case)?;
    same("built", batch(&on, "images.toml", &[])?["built"].as_u64(), Some(3))?;
    let after = case.world.registry.tags(&on.repository)?;
    same("new tags: source of each", after.len(), tags.len() + 3)?;
    let stay = tags.iter().all(|(tag, digest)| after.get(tag) == Some(digest));
    same("the others stay", stay, true)?;
    let new = after.keys().filter(|tag| !tags.contains_key(*tag));
    let mut found = Vec::new();
    for tag in new {
        let image = case.image(&format!("{}:{tag}", on.repository()))?;
        same("mode", image.config["config"]["Labels"]["acme.mode"].as_str(), Some("lock"))?;
        same("what is new", image.files.get("srv/code/new/here.py").is_some(), true)?;
        same("what vanished", image.files.get("srv/code/old").is_some(), false)?;
        found.push(image.config["config"]["Labels"]["base"].as_str().map(str::to_owned));
    }
    found.sort();
    same("bases", found, ["0", "1", "2"].map(|base| Some(base.to_owned())).to_vec())
}

fn stopped(case: &Case) -> Result<(), Failed> {
    const IMAGES: usize = 120;
    case.write("agent/Dockerfile", DOCKERFILE)?;
    case.write("agent/code/main.py", "print(1)\n")?;
    let (on, address) = (case.on("oci")?, case.world.registry.address());
    let base = &make_bases(case, 1)?[0].reference;
    let mut list = format!("context = \"agent\"\nbase-image = \"{address}/{base}\"\n");
    for number in 0..IMAGES {
        list += &format!(
            "[[image]]\ntags = [\"{address}/{}/agent:{number}\"]\nbuild-args = {{ EDITION = \"{number}\" }}\n",
            case.name
        );
    }
    case.write("images.toml", list)?;
    let report = case.home("report");
    let shown = report.display().to_string();
    let line = ["batch", "images.toml", "--push", "--report", &shown, "--format", "json"];
    let program = on.start(&line)?;
    let text = || std::fs::read_to_string(report.join("manifest.jsonl")).unwrap_or_default();
    wait_until("some images", || text().lines().count() >= 10)?;
    let outcome = interrupt(program)?;
    same("code", outcome.code, Some(130))?;
    let finished = text().lines().count();
    assert!(finished < IMAGES, "there is nothing left to do");
    let failed = text().lines().filter(|line| line.contains("\"failed\"")).count();
    same("images that were stopped do not count as failed", failed, 0)?;

    let summary: Value = serde_json::from_str(on.run(&[&line[..], &["--resume"]].concat())?.good()?)?;
    let count = |name: &str| summary[name].as_u64().unwrap_or(u64::MAX);
    same("finished before", count("finished_before"), finished as u64)?;
    same("all", count("finished_before") + count("built") + count("skipped"), IMAGES as u64)?;
    same("tags", case.world.registry.tags(&format!("{}/agent", case.name))?.len(), IMAGES)
}

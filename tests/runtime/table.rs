//! The decision table, row by row, on every backend: what is decided, which tags are set, and which stay as they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::project::{self, RECIPE};
use crate::report::{Report, TAGS};
use crate::rig::{BACKENDS, Case, On, command, same};
use crate::world::World;

/// The tests of this file.
pub(crate) fn trials(world: &Arc<World>) -> Vec<Trial> {
    let asked = BACKENDS.into_iter().filter(|backend| *backend != "image-builder").map(|backend| {
        world.trial(format!("table::registry::{backend}"), move |case| rows(case, backend, Place::Registry))
    });
    let stores = ["oci", "docker"].into_iter().map(|backend| {
        world.trial(format!("table::store::{backend}"), move |case| rows(case, backend, Place::Store))
    });
    let one = world.trial("table::registry::image-builder", not_asked);
    let more = [
        one,
        world.trial("table::inputs_that_the_hashes_leave_out", extended),
        world.trial("table::a_base_image_that_is_not_there", no_base),
    ];
    asked.chain(stores).chain(more).collect()
}

/// Where the images go, and are looked for.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Registry,
    Store,
}

/// A row of the table, as it must come out.
struct Row<'a> {
    mode: &'a str,
    /// A tag, or else the base image of the recipe.
    built_on: Option<&'static str>,
    set: &'a [&'static str],
    kept: &'a [&'static str],
}

fn rows(case: &Case, backend: &'static str, place: Place) -> Result<(), Failed> {
    project::write(case, &case.base("busybox:1"))?;
    let walk = Walk { case, on: case.on(backend)?, place };
    // Row 5: there is nothing yet.
    walk.step(&[], &Row { mode: "scratch", built_on: None, set: &TAGS, kept: &[] })?;
    // Row 2: nothing changed.
    walk.step(&[], &Row { mode: "reuse", built_on: None, set: &[], kept: &[] })?;
    // Row 3: other sources.
    project::change_sources(case)?;
    let lock = Row { mode: "lock", built_on: Some("lock"), set: &["source"], kept: &["lock"] };
    let report = walk.step(&[], &lock)?;
    walk.holds_the_new_sources(&report)?;
    walk.step(&[], &Row { mode: "reuse", built_on: None, set: &[], kept: &[] })?;
    // Row 4: other dependencies.
    project::change_lock(case)?;
    let set = &["source", "lock"];
    let report = walk.step(&[], &Row { mode: "versioned", built_on: Some("versioned"), set, kept: &[] })?;
    walk.holds_the_new_sources(&report)?;
    // Row 1: tags that exist stay, ...
    case.write("app/more.py", "print(3)\n")?;
    let kept = &["lock", "versioned"];
    walk.step(&["--force-rebuild"], &Row { mode: "scratch", built_on: None, set: &["source"], kept })?;
    // ... unless that leaves none.
    case.write("app/more.py", "print(4)\n")?;
    walk.step(&[], &lock)?;
    walk.step(&["--force-rebuild"], &Row { mode: "scratch", built_on: None, set: &TAGS, kept: &[] })?;
    walk.step(&[], &Row { mode: "reuse", built_on: None, set: &[], kept: &[] }).map(drop)
}

/// Builds one after the other.
struct Walk<'a> {
    case: &'a Case,
    on: On<'a>,
    place: Place,
}

impl Walk<'_> {
    /// Builds, and holds everything against the row.
    fn step(&self, more: &[&str], row: &Row<'_>) -> Result<Report, Failed> {
        let output = match (self.place, self.on.backend) {
            (Place::Registry, "runtime-api") => &[][..],
            (Place::Registry, _) => &["--push"],
            (Place::Store, "docker") => &["--load"],
            (Place::Store, _) => &[],
        };
        let (before, builds) = (self.tags()?, self.on.builds());
        let line = [&["--recipe", RECIPE, "--format", "json"], output, more].concat();
        // A plan says the same and does nothing.
        let plan = Report::read(&self.on.runtime("plan", &line)?)?;
        same("a plan leaves the tags alone", self.tags()?, before.clone())?;
        same("a plan builds nothing", self.on.builds(), builds)?;
        let report = Report::read(&self.on.runtime("build", &line)?)?;
        for said in [&plan, &report] {
            same("mode", said.mode(), row.mode)?;
            same("tags that are set", said.set(), row.set.to_vec())?;
            same("tags that are kept", said.kept(), row.kept.to_vec())?;
            same("result", said.result(), said.reference("source"))?;
            if row.mode != "reuse" {
                let base = self.case.base("busybox:1");
                same(
                    "base image",
                    said.base_image(),
                    row.built_on.map_or(&*base, |tag| said.reference(tag)),
                )?;
            }
        }
        if self.on.service.is_some() {
            let one = usize::from(row.mode != "reuse");
            same("builds", self.on.builds() - builds, one)?;
        }
        self.moved(&report, row, &before)?;
        Ok(report)
    }

    /// The tags of the row name the image now, and no other tag moved.
    fn moved(&self, report: &Report, row: &Row<'_>, before: &BTreeMap<String, String>) -> Result<(), Failed> {
        let after = self.tags()?;
        let source = after.get(report.tag("source")).ok_or("the result has no tag")?;
        let mut expected = before.clone();
        for tag in row.set {
            expected.insert(report.tag(tag).to_owned(), source.clone());
        }
        same("tags", &after, &expected)?;
        if self.place == Place::Store {
            return Ok(());
        }
        if !report.digest().is_empty() {
            same("digest", report.digest(), source)?;
        }
        if row.mode != "reuse" {
            let manifest = self.case.world.registry.manifest(&self.on.repository, report.tag("source"))?;
            let config = manifest["config"]["digest"].as_str().unwrap_or_default();
            let config = self.case.world.registry.document(&self.on.repository, config)?;
            same("label", &config["config"]["Labels"]["acme.mode"], &Value::from(row.mode))?;
        }
        Ok(())
    }

    /// The tags of the repository, and what each names.
    fn tags(&self) -> Result<BTreeMap<String, String>, Failed> {
        let repository = self.on.repository();
        match (self.place, self.on.backend) {
            (Place::Registry, _) => self.case.world.registry.tags(&self.on.repository),
            (Place::Store, "docker") => {
                let format = "{{.Tag}} {{.ID}}";
                let engine = &self.case.world.engine;
                let line = ["--host", engine, "image", "ls", "--no-trunc", "--format", format, &repository];
                let listed = command("docker", &line)?;
                let lines = listed.lines().filter_map(|line| line.split_once(' '));
                Ok(lines.map(|(tag, id)| (tag.to_owned(), id.to_owned())).collect())
            }
            (Place::Store, _) => {
                let listed = self.case.run(&["image", "ls", "--format", "json"])?;
                let images: Value = serde_json::from_str(listed.good()?)?;
                let tag = |image: &Value| {
                    let reference = image["reference"].as_str()?;
                    let tag = reference.strip_prefix(&repository)?.strip_prefix(':')?;
                    Some((tag.to_owned(), image["digest"].as_str()?.to_owned()))
                };
                Ok(images.as_array().into_iter().flatten().filter_map(tag).collect())
            }
        }
    }

    /// What vanished is gone, and what is new is there.
    fn holds_the_new_sources(&self, report: &Report) -> Result<(), Failed> {
        if self.place == Place::Store {
            return Ok(());
        }
        let image = self.case.image(report.result())?;
        let has = |path: &str| image.files.get(path).is_some();
        same("what vanished", [has("srv/code/old/gone.py"), has("srv/code/old")], [false, false])?;
        let new = image.files.get("srv/code/new/here.py").ok_or("what is new is not there")?;
        same("owner of what is new", (new.uid, new.gid), (1000, 1000))
    }
}

/// A service that cannot be asked builds everything anew, and gives its image one name.
fn not_asked(case: &Case) -> Result<(), Failed> {
    project::write(case, &case.base("busybox:1"))?;
    let on = case.on("image-builder")?;
    for builds in 1..=2 {
        let outcome = on.runtime("build", &["--recipe", RECIPE, "--format", "json"])?;
        let report = Report::read(&outcome)?;
        same("mode", report.mode(), "scratch")?;
        same("builds", on.builds(), builds)?;
        for said in ["cannot be asked whether an image exists", "one name"] {
            assert!(outcome.stderr.contains(said), "`{said}`: {outcome:#?}");
        }
    }
    Ok(())
}

/// What the hashes leave out stands in the tags, and images with and without it do not meet.
fn extended(case: &Case) -> Result<(), Failed> {
    project::write(case, &case.base("busybox:1"))?;
    let on = case.on("oci")?;
    let build = |more: &[&str]| {
        let line = [&["--recipe", RECIPE, "--format", "json", "--push"], more].concat();
        Report::read(&on.runtime("build", &line)?)
    };
    let label = &["--label", "team=agents"];
    let (plain, labelled) = (build(&[])?, build(label)?);
    same("mode", (plain.mode(), plain.set()), ("scratch", TAGS.to_vec()))?;
    let extension = labelled.tag("lock").strip_prefix(plain.tag("lock")).unwrap_or_default();
    let hash = extension.strip_prefix("_x").unwrap_or_default();
    assert!(hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{extension}");
    assert!(labelled.tag("source").starts_with(labelled.tag("lock")), "{labelled:?}");
    // The versioned image is of no labels: it is neither built upon nor replaced.
    same("mode", (labelled.mode(), labelled.set()), ("scratch", vec!["source", "lock"]))?;
    let tags = case.world.registry.tags(&on.repository)?;
    same("versioned", tags.get(plain.tag("versioned")).map(String::as_str), Some(plain.digest()))?;

    project::change_sources(case)?;
    let changed = build(label)?;
    same("mode", (changed.mode(), changed.base_image()), ("lock", labelled.reference("lock")))?;
    let image = case.image(changed.result())?;
    same("label", image.config["config"]["Labels"]["team"].as_str(), Some("agents"))
}

/// It is named, and no tag is set.
fn no_base(case: &Case) -> Result<(), Failed> {
    project::write(case, &case.base("busybox:1"))?;
    let missing = case.base("nobody-has:this");
    for backend in ["oci", "docker"] {
        let on = case.on(backend)?;
        let outcome = on.runtime("build", &["--recipe", RECIPE, "--base-image", &missing, "--push"])?;
        outcome.refused(1, &[&missing])?;
        same("tags", case.world.registry.tags(&on.repository)?.len(), 0)?;
    }
    Ok(())
}

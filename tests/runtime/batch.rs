//! Batches: hundreds of images that share a layer, a batch that is killed, registries that do not take layers over, and
//! lists that cannot work.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use windlass_tests::place::wait_until;
use windlass_tests::service::{Act, Answer, Fault, FaultProxy};

use crate::bases::{self, Base, noise};
use crate::registry::MANIFEST;
use crate::rig::{Case, On, same, sent_bytes};
use crate::world::World;

/// 30 bases with 10 tags each.
const BASES: usize = 30;
const TAGS: usize = 10;
/// The batch is killed when so many images are finished.
const KILLED_AFTER: usize = 70;
/// The shared sources: what cannot be compressed of them, and how many files there are besides.
const NOISE_BYTES: usize = 2 << 20;
const FILES: usize = 200;
/// What an image may cost beside the shared layer.
const BYTES_AN_IMAGE: u64 = 20 << 10;

const DOCKERFILE: &str = r#"
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
USER root
RUN ["rm", "-rf", "--", "/srv/code"]
COPY --link --chown=1000:1000 code/ /srv/code/
"#;

/// The tests of this file.
pub(crate) fn trials(world: &Arc<World>) -> Vec<Trial> {
    vec![
        world.trial("batch::three_hundred_images_killed_and_resumed", three_hundred),
        world.trial("batch::a_registry_that_forbids_mounts", mounts_forbidden),
        world.trial("batch::an_image_that_fails_is_alone", one_fails),
        world.trial("batch::lists_that_cannot_work_start_nothing", bad_lists),
    ]
}

/// The images of a batch.
struct Images<'a> {
    on: On<'a>,
    proxy: FaultProxy,
    bases: Vec<Base>,
    tags: usize,
}

impl<'a> Images<'a> {
    /// Makes the bases, the sources and the list `images.toml`.
    fn write(case: &'a Case, bases: usize, tags: usize, faults: Vec<Fault>) -> Result<Self, Failed> {
        let (on, proxy) = (case.on("oci")?, case.proxy(faults)?);
        let make =
            |number| bases::make(&case.world.registry, &format!("{}/base-{number}", case.name), number);
        let bases = (0..bases).map(make).collect::<Result<_, _>>()?;
        case.write("agent/Dockerfile", DOCKERFILE)?;
        case.write("agent/code/model.bin", noise(1_000, NOISE_BYTES))?;
        for number in 0..FILES {
            case.write(
                &format!("agent/code/package{}/module{number}.py", number % 10),
                format!("x = {number}\n"),
            )?;
        }
        let images = Self { on, proxy, bases, tags };
        case.write("images.toml", images.list())?;
        Ok(images)
    }

    fn list(&self) -> String {
        let mut list = "context = \"agent\"\n\n".to_owned();
        for (number, tag) in self.all() {
            let base = format!("{}/{}", self.proxy.address(), self.bases[number].reference);
            let name = format!("{}/{}:{}", self.proxy.address(), self.repository(number), tag_name(tag));
            let _ = write!(
                list,
                "[[image]]\nbase-image = \"{base}\"\ntags = [\"{name}\"]\nlabels = {{ image = \"{number}-{tag}\" }}\n\n"
            );
        }
        list
    }

    /// Base and tag of every image.
    fn all(&self) -> impl Iterator<Item = (usize, usize)> {
        let tags = self.tags;
        (0..self.bases.len()).flat_map(move |base| (0..tags).map(move |tag| (base, tag)))
    }

    /// Where the images of a base go.
    fn repository(&self, base: usize) -> String {
        format!("{}/agent-{base}", self.on.case.name)
    }

    /// Every image is its base with the shared layer on top, and its own label. Gives the shared layer.
    fn are_right(&self) -> Result<Value, Failed> {
        let registry = &self.on.case.world.registry;
        let mut shared: Option<Value> = None;
        for (number, tag) in self.all() {
            let repository = self.repository(number);
            let manifest = registry.manifest(&repository, &tag_name(tag))?;
            same("kind", manifest["mediaType"].as_str(), Some(MANIFEST))?;
            let [below, layer] = manifest["layers"].as_array().map_or(&[][..], Vec::as_slice) else {
                return Err(format!("not two layers: {manifest}").into());
            };
            same("layer of the base", below["digest"].as_str(), Some(&*self.bases[number].layer))?;
            same("shared layer", layer, shared.get_or_insert_with(|| layer.clone()))?;
            let config = manifest["config"]["digest"].as_str().unwrap_or_default();
            let config = registry.document(&repository, config)?;
            let labels = &config["config"]["Labels"];
            same("label", labels["image"].as_str(), Some(&*format!("{number}-{tag}")))?;
            same("label of the base", labels["base"].as_str(), Some(&*number.to_string()))?;
        }
        shared.ok_or_else(|| "no images".into())
    }

    /// Everything in one image.
    fn is_right_in_depth(&self, number: usize, tag: usize) -> Result<(), Failed> {
        let case = self.on.case;
        let reference =
            format!("{}/{}:{}", case.world.registry.address(), self.repository(number), tag_name(tag));
        let image = case.image(&reference)?;
        let file = |path: &str| image.files.get(path).and_then(|entry| entry.sha256.clone());
        let hex = |bytes: &[u8]| crate::registry::digest_of(bytes).strip_prefix("sha256:").map(str::to_owned);
        same("base", file("etc/base"), hex(number.to_string().as_bytes()))?;
        same("model", file("srv/code/model.bin"), hex(&noise(1_000, NOISE_BYTES)))?;
        for number in 0..FILES {
            let path = format!("srv/code/package{}/module{number}.py", number % 10);
            same(&path, file(&path), hex(format!("x = {number}\n").as_bytes()))?;
        }
        Ok(())
    }

    /// How often a blob was sent, whole or in pieces.
    fn times_sent(&self, digest: &str) -> usize {
        let hex = digest.trim_start_matches("sha256:");
        self.proxy
            .seen("PUT", "/blobs/uploads/")
            .iter()
            .filter(|seen| seen.path().contains(hex) && seen.status == 201)
            .count()
    }

    fn run(&self, more: &[&str]) -> Result<windlass_tests::place::Outcome, Failed> {
        self.on.run(&[&LINE, more].concat())
    }
}

const LINE: [&str; 7] = ["batch", "images.toml", "--push", "--report", "report", "--format", "json"];

fn tag_name(tag: usize) -> String {
    format!("t{tag}")
}

fn three_hundred(case: &Case) -> Result<(), Failed> {
    let images = Images::write(case, BASES, TAGS, Vec::new())?;
    let manifest = case.path("report/manifest.jsonl");
    let program = images.on.start(&LINE)?;
    let lines = || std::fs::read_to_string(&manifest).unwrap_or_default().matches('\n').count();
    wait_until("a quarter of the images", || lines() >= KILLED_AFTER)?;
    assert!(program.kill()?, "it had ended before it could be killed");

    let finished: BTreeSet<String> = records(case)?
        .iter()
        .filter(|record| record["status"] == "built")
        .filter_map(|record| record["tags"][0].as_str().map(str::to_owned))
        .collect();
    assert!(finished.len() < BASES * TAGS, "there is nothing left to do");
    // Half a line, as a machine that lost its power may leave it.
    OpenOptions::new().append(true).open(&manifest)?.write_all(b"{\"name\":\"torn")?;

    let before = images.proxy.seen("PUT", "/manifests/").len();
    let outcome = images.run(&["--resume"])?;
    let summary: Value = serde_json::from_str(outcome.good()?)?;
    let count = |name: &str| summary[name].as_u64().unwrap_or(u64::MAX);
    same("failed", count("failed"), 0)?;
    same("finished before", count("finished_before"), finished.len() as u64)?;
    // What was pushed and not yet written down when the batch was killed is there already.
    same("all", count("finished_before") + count("built") + count("skipped"), (BASES * TAGS) as u64)?;
    for seen in &images.proxy.seen("PUT", "/manifests/")[before..] {
        let reference =
            seen.path().replace("/v2/", &format!("{}/", images.proxy.address())).replace("/manifests/", ":");
        assert!(!finished.contains(&reference), "{reference} was pushed once more");
    }

    let shared = images.are_right()?;
    for (number, tag) in [(0, 0), (BASES / 2, 3), (BASES - 1, TAGS - 1)] {
        images.is_right_in_depth(number, tag)?;
    }
    let digest = shared["digest"].as_str().unwrap_or_default();
    same("times that the shared layer was sent", images.times_sent(digest), 1)?;
    let layers: Vec<&str> = images.bases.iter().map(|base| &*base.layer).collect();
    let fetched = images.proxy.seen("GET", "/blobs/");
    let is_layer = |path: &str| layers.iter().any(|layer| path.contains(layer));
    assert!(!fetched.iter().any(|seen| is_layer(seen.path())), "a layer of a base was fetched");
    let manifests: u64 = images.bases.iter().map(|base| base.manifest_bytes).sum();
    let limit = shared["size"].as_u64().unwrap_or(0) + (BASES * TAGS) as u64 * BYTES_AN_IMAGE + manifests;
    let sent = sent_bytes(&images.proxy.seen("", ""));
    assert!(sent <= limit, "{sent} bytes were sent, and {limit} are enough");

    // A batch that is finished asks for nothing.
    let before = images.proxy.seen("", "").len();
    let again: Value = serde_json::from_str(images.run(&["--resume"])?.good()?)?;
    same("finished before", again["finished_before"].as_u64(), Some(300))?;
    same("requests", images.proxy.seen("", "").len() - before, 0)
}

/// What is known of each image.
fn records(case: &Case) -> Result<Vec<Value>, Failed> {
    let text = std::fs::read_to_string(case.path("report/manifest.jsonl"))?;
    // The last line may be torn.
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn mounts_forbidden(case: &Case) -> Result<(), Failed> {
    let no = Answer::error(403, "DENIED", "not yours");
    let images = Images::write(case, 3, 2, vec![Fault::on("POST", "mount=").then(Act::Answer(no))])?;
    let summary: Value = serde_json::from_str(images.run(&[])?.good()?)?;
    same("built", summary["built"].as_u64(), Some(6))?;
    let shared = images.are_right()?;
    let digest = shared["digest"].as_str().unwrap_or_default();
    same("times that the shared layer was sent", images.times_sent(digest), images.bases.len())?;
    images.is_right_in_depth(2, 1)
}

fn one_fails(case: &Case) -> Result<(), Failed> {
    let images = Images::write(case, 2, 2, Vec::new())?;
    let list = std::fs::read_to_string(case.path("images.toml"))?;
    let missing = format!("{}/nobody/has:this", images.proxy.address());
    let name = format!("{}/{}/lost:1", images.proxy.address(), case.name);
    let lost = format!("[[image]]\nname = \"lost\"\nbase-image = \"{missing}\"\ntags = [\"{name}\"]\n\n");
    case.write("images.toml", list + &lost)?;
    let outcome = images.run(&[])?;
    same("code", outcome.code, Some(1))?;
    let summary: Value = serde_json::from_str(&outcome.stdout)?;
    same("built", summary["built"].as_u64(), Some(4))?;
    same("failed", summary["failed"].as_u64(), Some(1))?;
    let failure = &summary["failures"][0];
    same("name", failure["name"].as_str(), Some("lost"))?;
    assert!(failure["error"].as_str().is_some_and(|why| why.contains(&missing)), "{failure}");
    images.are_right().map(drop)
}

fn bad_lists(case: &Case) -> Result<(), Failed> {
    let images = Images::write(case, 2, 2, Vec::new())?;
    let list = std::fs::read_to_string(case.path("images.toml"))?;
    let first = format!("{}/{}:t0", images.proxy.address(), images.repository(0));
    let twice = format!("{list}[[image]]\nbase-image = \"{first}\"\ntags = [\"{first}\"]\n");
    let bad = format!("{list}[[image]]\ntgas = [\"a:1\"]\n\n[[image]]\ntags = [\"UPPER:1\"]\n");
    let whole: [(String, &[&str]); 2] = [
        (twice, &["images.toml", &first, "nothing was started"]),
        (bad, &["nothing was started", "tgas", "did you mean `tags`", "UPPER"]),
    ];
    for (list, says) in whole {
        case.write("images.toml", list)?;
        let line = ["batch", "images.toml", "--push", "--report", "report"];
        images.on.run(&line)?.refused(2, says)?;
        same("requests", images.proxy.seen("", "").len(), 0)?;
    }
    Ok(())
}

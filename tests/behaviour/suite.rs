//! How scenarios become tests: built on each backend, held against what they say, compared with each other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use libtest_mimic::{Completion, Failed, Trial};
use windlass_core::backend::Feature;
use windlass_core::output::{Destination, Output, OutputKind};
use windlass_core::request::BuildRequest;
use windlass_core::{Error, Result};
use windlass_tests::image_check::{Ignoring, Image, Platform, compare};
use windlass_tests::scenario::{Difference, NamedContext, Scenario};

use crate::left_over;
use crate::rig::{Rig, Setup, shown};
use crate::world::World;

/// The backends, by their type names.
pub(crate) const BACKENDS: [&str; 2] = ["oci", "docker"];

/// What became of a scenario on a backend.
enum Built {
    /// An image for each platform, and the warnings on the way.
    Images(Vec<Image>, Vec<String>),
    /// The error, and what was left behind.
    Refused(Error, Vec<String>),
    /// The backend lacks this.
    Lacks(Feature),
    /// The test itself could not do its work.
    Broken(String),
}

/// One scenario with the results that several tests look at; each is made once, by the first that asks.
pub(crate) struct Case {
    world: Arc<World>,
    scenario: Scenario,
    built: BTreeMap<&'static str, OnceLock<Built>>,
}

/// Makes the tests of all scenarios.
pub(crate) fn trials(world: &Arc<World>, scenarios: Vec<Scenario>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for scenario in scenarios {
        let name = scenario.name;
        let comparable = BACKENDS.iter().all(|backend| scenario.failure(backend).is_none());
        let case = Arc::new(Case::new(world, scenario));
        for backend in BACKENDS {
            let case = case.clone();
            trials.push(Trial::ignorable_test(format!("{backend}::{name}"), move || case.check(backend)));
        }
        if comparable {
            trials.push(Trial::ignorable_test(format!("same::{name}"), move || case.compare()));
        }
    }
    trials
}

impl Case {
    /// Nothing is built before it is asked for.
    pub(crate) fn new(world: &Arc<World>, scenario: Scenario) -> Self {
        let built = BACKENDS.iter().map(|backend| (*backend, OnceLock::new())).collect();
        Self { world: world.clone(), scenario, built }
    }

    /// Holds what each of these backends makes against what the scenario says, and compares.
    pub(crate) fn check_on(&self, backends: &[&'static str]) -> Result<Completion, Failed> {
        let mut wrong = Vec::new();
        for backend in backends {
            match self.check(backend) {
                Ok(Completion::Completed) => {}
                Ok(ignored) => return Ok(ignored),
                Err(failed) => wrong.push(format!("{backend}: {}", failed.message().unwrap_or_default())),
            }
        }
        if backends.len() > 1
            && let Err(failed) = self.compare()
        {
            wrong.push(failed.message().unwrap_or_default().to_owned());
        }
        if wrong.is_empty() { Ok(Completion::Completed) } else { Err(wrong.join("\n").into()) }
    }

    fn built(&self, backend: &'static str) -> &Built {
        self.built[backend].get_or_init(|| build(&self.world, &self.scenario, backend))
    }

    /// Holds what a backend made against what the scenario says.
    fn check(&self, backend: &'static str) -> Result<Completion, Failed> {
        let objections = match (self.built(backend), self.scenario.failure(backend)) {
            (Built::Lacks(feature), _) => return Ok(lacks(backend, *feature)),
            (Built::Broken(reason), _) => vec![reason.clone()],
            (Built::Images(images, warnings), None) => self.objections(backend, images, warnings),
            (Built::Images(..), Some(_)) => vec!["it made an image, but it should fail".to_owned()],
            (Built::Refused(error, _), None) => vec![format!("it failed: {}", shown(error))],
            (Built::Refused(error, left), Some(failure)) => {
                let text = shown(error);
                let missing = failure.says.iter().filter(|part| !text.contains(**part));
                let missing = missing.map(|part| format!("it does not say `{part}`"));
                let kind = (error.kind() != failure.kind)
                    .then(|| format!("it is {:?}, expected {:?}", error.kind(), failure.kind));
                let mut objections: Vec<String> = missing.chain(kind).collect();
                if !objections.is_empty() {
                    objections.push(text);
                }
                objections.extend(left.iter().map(|left| format!("left behind: {left}")));
                objections
            }
        };
        if objections.is_empty() { Ok(Completion::Completed) } else { Err(objections.join("\n").into()) }
    }

    fn objections(&self, backend: &str, images: &[Image], warnings: &[String]) -> Vec<String> {
        let ours = |only: &Option<&str>| only.is_none_or(|only| only == backend);
        let expectations = self.scenario.expectations.iter().filter(|(only, _)| ours(only));
        let wrong = expectations
            .flat_map(|(_, expectation)| images.iter().filter_map(|image| expectation.objection(image)));
        let silent = self.scenario.warnings.iter().filter(|(only, text)| {
            *only == backend && !warnings.iter().any(|warning| warning.contains(text))
        });
        wrong
            .chain(silent.map(|(_, text)| format!("no warning says `{text}`, but these: {warnings:?}")))
            .collect()
    }

    /// Compares what the two backends made, platform by platform, or how they failed. A difference that the scenario
    /// names but that is not there speaks against it as well.
    fn compare(&self) -> Result<Completion, Failed> {
        for backend in BACKENDS {
            if let Built::Lacks(feature) = self.built(backend) {
                return Ok(lacks(backend, *feature));
            }
        }
        let named = &self.scenario.differs;
        let mut wrong = Vec::new();
        match BACKENDS.map(|backend| self.built(backend)) {
            [Built::Images(left, _), Built::Images(right, _)] => {
                let differences = |named: &[Difference]| -> Vec<String> {
                    let ignoring = self.ignoring(named);
                    left.iter().zip(right).flat_map(|(left, right)| compare(left, right, &ignoring)).collect()
                };
                wrong.extend(differences(named));
                for index in 0..named.len() {
                    let mut others = named.clone();
                    let one = others.remove(index);
                    if differences(&others).is_empty() {
                        wrong.push(format!("there is no difference at `{}`", one.place));
                    }
                }
            }
            [Built::Refused(left, _), Built::Refused(right, _)] => {
                wrong.extend(different_errors(left, right, named));
            }
            [Built::Broken(_), _] | [_, Built::Broken(_)] => {}
            _ if named.iter().any(|one| one.place.is_empty()) => {}
            _ => wrong.push("only one of them makes an image".to_owned()),
        }
        if wrong.is_empty() { Ok(Completion::Completed) } else { Err(wrong.join("\n").into()) }
    }

    fn ignoring(&self, named: &[Difference]) -> Ignoring {
        let mut ignoring = Ignoring::between_builders();
        if self.scenario.options.source_date_epoch.is_some() {
            // Then every time is the same; layers still differ in how a tar header may be written.
            ignoring =
                Ignoring { config: vec!["history/*/comment", "rootfs/diff_ids"], ..Ignoring::default() };
        }
        for difference in named {
            match difference.place {
                path if path.starts_with('/') => ignoring.paths.push(path),
                place => ignoring.config.push(place),
            }
        }
        ignoring
    }
}

/// The kinds must be equal, and where BuildKit tells the line, so must ours be.
fn different_errors(left: &Error, right: &Error, named: &[Difference]) -> Vec<String> {
    let line = |error: &Error| error.source_line().map(|line| line.line);
    let places = [
        ("error/kind", left.kind() != right.kind()),
        ("error/line", line(right).is_some() && line(left) != line(right)),
    ];
    let wrong = places.into_iter().filter_map(|(place, differs)| {
        match (differs, named.iter().any(|one| one.place == place)) {
            (true, false) => Some(format!("{place}\n  left:  {}\n  right: {}", shown(left), shown(right))),
            (false, true) => Some(format!("there is no difference at `{place}`")),
            _ => None,
        }
    });
    wrong.collect()
}

fn lacks(backend: &str, feature: Feature) -> Completion {
    Completion::ignored_with(format!("{backend} lacks `{}`", feature.label()))
}

fn build(world: &World, scenario: &Scenario, backend: &'static str) -> Built {
    let root = world.directory(&format!("{backend}/{}", scenario.name));
    let setup = Setup {
        source_date_epoch: scenario.options.source_date_epoch,
        ..setup(world, scenario, backend, &root)
    };
    let rig = match Rig::new(&root, setup) {
        Ok(rig) => rig,
        Err(error) => return Built::Broken(shown(&error)),
    };
    let result = rig.request(world, scenario).map(|request| place(world, scenario, backend, &root, request));
    let result = match result {
        Ok((request, place)) => {
            let lacking =
                scenario.needs.iter().copied().chain(request.needs().into_iter().map(|(feature, _)| feature));
            if let Some(feature) =
                lacking.into_iter().find(|feature| !rig.backend.capabilities().has(*feature))
            {
                return Built::Lacks(feature);
            }
            rig.build(world, request).map(|_| place)
        }
        Err(error) => Err(error),
    };
    match result {
        Ok(place) => match place.open(&scenario.options.platforms) {
            Ok(images) => Built::Images(images, rig.recorder.warnings()),
            Err(error) => Built::Broken(format!("the image cannot be read: {error}")),
        },
        Err(error) => {
            let left = left_over::after_failure(&rig);
            Built::Refused(error, left)
        }
    }
}

fn setup(world: &World, scenario: &Scenario, backend: &str, root: &Path) -> Setup {
    match backend {
        "oci" if scenario.failure(backend).is_some() => Setup::oci(root),
        // Base images are downloaded once for all.
        "oci" => Setup { cache_dir: world.directory("oci-cache"), ..Setup::oci(root) },
        _ if wants_containerd(scenario) => Setup::docker(root, &world.containerd),
        _ => Setup::docker(root, &world.classic),
    }
}

/// The classic image store, docker's default, can do neither several platforms, nor layouts as bases, nor rewritten
/// times.
fn wants_containerd(scenario: &Scenario) -> bool {
    scenario.options.on_containerd
        || scenario.options.platforms.len() > 1
        || scenario.options.source_date_epoch.is_some()
        || scenario.options.contexts.iter().any(|(_, context)| matches!(context, NamedContext::Layout(..)))
}

/// Where the image of a test goes.
enum Place {
    Archive(PathBuf),
    Registry(String),
}

/// Says where the image shall go: into an archive where the backend can, else into the registry.
fn place(
    world: &World,
    scenario: &Scenario,
    backend: &str,
    root: &Path,
    mut request: BuildRequest,
) -> (BuildRequest, Place) {
    if backend == "oci" || wants_containerd(scenario) {
        let archive = root.join("out").join("image.tar");
        let _ = std::fs::create_dir(root.join("out"));
        let mut output = Output {
            kind: OutputKind::Oci,
            destination: Some(Destination::Path(archive.clone())),
            attributes: BTreeMap::new(),
        };
        if scenario.options.source_date_epoch.is_some() && backend == "docker" {
            output.attributes.insert("rewrite-timestamp".to_owned(), "true".to_owned());
        }
        request.outputs = vec![output];
        return (request, Place::Archive(archive));
    }
    let reference = format!("{}/suite/{}:{backend}", world.registry, scenario.name);
    request.tags = vec![reference.parse().expect("a reference")];
    request.outputs = vec![Output::push()];
    (request, Place::Registry(reference))
}

impl Place {
    fn open(&self, platforms: &[&str]) -> Result<Vec<Image>, windlass_tests::image_check::Error> {
        let platforms: Vec<Platform> = platforms.iter().map(|platform| read_platform(platform)).collect();
        let platforms = if platforms.is_empty() { vec![Platform::amd64()] } else { platforms };
        let open = |platform: &Platform| match self {
            Self::Archive(archive) => Image::from_archive(archive, None, platform),
            Self::Registry(reference) => Image::from_registry(reference, platform),
        };
        platforms.iter().map(open).collect()
    }
}

fn read_platform(text: &str) -> Platform {
    let mut parts = text.split('/').map(str::to_owned);
    let (os, architecture) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    Platform { os, architecture, variant: parts.next() }
}

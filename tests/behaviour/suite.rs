//! How scenarios become tests: built on each backend, held against what they say, compared with each other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use libtest_mimic::{Completion, Failed, Trial};
use windlass_core::backend::Feature;
use windlass_core::output::{Destination, Output, OutputKind};
use windlass_core::request::BuildRequest;
use windlass_core::{Error, ErrorKind, Result};
use windlass_tests::image_check::{Ignoring, Image, Platform, compare};
use windlass_tests::scenario::{Difference, Failure, NamedContext, Scenario};

use crate::left_over;
use crate::rig::{Rig, Setup, shown};
use crate::world::World;

/// The backends, by their type names.
pub(crate) const BACKENDS: [&str; 4] = ["oci", "docker", "runtime-api", "image-builder"];
/// Those that build here.
pub(crate) const LOCAL: [&str; 2] = ["oci", "docker"];
/// Those that build on a service. The services of the tests build with `oci`.
pub(crate) const REMOTE: [&str; 2] = ["runtime-api", "image-builder"];

/// What a scenario calls all of these together.
pub(crate) const ANY_REMOTE: &str = "remote";
/// What the services of the tests build with.
const BUILDER: &str = "oci";

/// What became of a scenario on a backend.
enum Built {
    /// An image for each platform, and the warnings on the way.
    Images(Vec<Image>, Vec<String>),
    /// The error, and what was left behind.
    Refused(Error, Vec<String>),
    /// The backend lacks something; in words.
    Lacks(String),
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
            trials.push(Trial::ignorable_test(format!("same::{name}"), move || case.compare(&REMOTE)));
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
                // What a service cannot be told is no reason not to look at the others.
                Ok(_) if REMOTE.contains(backend) => {}
                Ok(ignored) => return Ok(ignored),
                Err(failed) => wrong.push(format!("{backend}: {}", failed.message().unwrap_or_default())),
            }
        }
        let remote: Vec<_> = REMOTE.into_iter().filter(|backend| backends.contains(backend)).collect();
        if backends.len() > 1
            && let Err(failed) = self.compare(&remote)
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
        let objections = match (self.built(backend), self.failure(backend)) {
            (Built::Lacks(what), _) => return Ok(Completion::ignored_with(what.clone())),
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

    /// How this backend must fail. What a service could not build has failed, whatever the reason was there, and says
    /// what its builder said; what is wrong with the request itself never gets there.
    fn failure(&self, backend: &str) -> Option<Failure> {
        let of = |name| self.scenario.failures.iter().find(|failure| failure.backend == Some(name));
        let remote = REMOTE.contains(&backend);
        if remote && let Some(own) = of(backend).or_else(|| of(ANY_REMOTE)) {
            return Some(own.clone());
        }
        let failure = self.scenario.failure(if remote { BUILDER } else { backend })?;
        let there = remote && failure.kind != ErrorKind::InvalidInput;
        Some(Failure { kind: if there { ErrorKind::BuildFailed } else { failure.kind }, ..failure.clone() })
    }

    fn objections(&self, backend: &str, images: &[Image], warnings: &[String]) -> Vec<String> {
        let builder = if REMOTE.contains(&backend) { BUILDER } else { backend };
        let ours = |only: &Option<&str>| only.is_none_or(|only| only == backend || only == builder);
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

    /// Compares what the backends made that build here, and these that do not: platform by platform, or how they failed.
    fn compare(&self, remote: &[&'static str]) -> Result<Completion, Failed> {
        let mut wrong: Vec<String> = remote.iter().flat_map(|backend| self.compare_remote(backend)).collect();
        for backend in LOCAL {
            if let (Built::Lacks(what), true) = (self.built(backend), wrong.is_empty()) {
                return Ok(Completion::ignored_with(what.clone()));
            }
        }
        wrong.extend(self.compare_local());
        if wrong.is_empty() { Ok(Completion::Completed) } else { Err(wrong.join("\n").into()) }
    }

    /// What a service built from what it was sent must be what its builder makes here, to the second.
    fn compare_remote(&self, backend: &'static str) -> Vec<String> {
        let (Built::Images(here, _), Built::Images(there, _)) = (self.built(BUILDER), self.built(backend))
        else {
            // How a backend fails, or why it cannot, is a test of its own.
            return Vec::new();
        };
        let pairs = here.iter().zip(there);
        let differences = pairs.flat_map(|(here, there)| compare(here, there, &Ignoring::default()));
        differences.map(|difference| format!("{backend}: {difference}")).collect()
    }

    /// Compares two builders that have nothing in common. A difference that the scenario names but that is not there
    /// speaks against it as well.
    fn compare_local(&self) -> Vec<String> {
        let named = &self.scenario.differs;
        let mut wrong = Vec::new();
        match LOCAL.map(|backend| self.built(backend)) {
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
        wrong
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

/// The first thing that a backend lacks for this, or the service behind it.
fn lacking(rig: &Rig, scenario: &Scenario, request: &BuildRequest) -> Option<String> {
    let backend = rig.backend.name();
    let asked = request.needs().into_iter().map(|(feature, _)| feature);
    let needed: Vec<Feature> = scenario.needs.iter().copied().chain(asked).collect();
    if let Some(feature) = needed.iter().find(|feature| !rig.backend.capabilities().has(**feature)) {
        return Some(format!("{backend} lacks `{}`", feature.label()));
    }
    if REMOTE.contains(&backend) && scenario.options.source_date_epoch.is_some() {
        return Some(format!("{backend} lacks a word for `SOURCE_DATE_EPOCH`"));
    }
    let of_builder = (windlass_oci::backend_type().capabilities)();
    let feature =
        needed.into_iter().filter(|_| REMOTE.contains(&backend)).find(|feature| !of_builder.has(*feature))?;
    Some(format!("the service of the tests behind {backend} lacks `{}`", feature.label()))
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
    let result = match rig.request(world, scenario) {
        Ok(request) => match lacking(&rig, scenario, &request) {
            Some(what) => return Built::Lacks(what),
            None => make(world, scenario, &rig, request),
        },
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

fn setup(world: &World, scenario: &Scenario, backend: &'static str, root: &Path) -> Setup {
    match backend {
        "oci" if scenario.failure(backend).is_some() => Setup::oci(root),
        // Base images are downloaded once for all.
        "oci" => Setup { cache_dir: world.directory("oci-cache"), ..Setup::oci(root) },
        remote if REMOTE.contains(&remote) => Setup::remote(world, root, remote),
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

/// Builds into an archive where the backend can, else into the registry.
fn make(world: &World, scenario: &Scenario, rig: &Rig, mut request: BuildRequest) -> Result<Place> {
    let backend = rig.backend.name();
    if backend == "oci" || backend == "docker" && wants_containerd(scenario) {
        let archive = rig.root.join("out").join("image.tar");
        let _ = std::fs::create_dir(rig.root.join("out"));
        let mut output = Output {
            kind: OutputKind::Oci,
            destination: Some(Destination::Path(archive.clone())),
            attributes: BTreeMap::new(),
        };
        if scenario.options.source_date_epoch.is_some() && backend == "docker" {
            output.attributes.insert("rewrite-timestamp".to_owned(), "true".to_owned());
        }
        request.outputs = vec![output];
        return rig.build(world, request).map(|_| Place::Archive(archive));
    }
    rig.push(world, request, &format!("suite/{}", scenario.name)).map(Place::Registry)
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

//! What a test has at hand: a place, repositories of its own, and the program on each backend.

use std::ops::Deref;
use std::process::Command;
use std::sync::Arc;

use libtest_mimic::Failed;
use windlass_tests::image_check::{Image, Platform};
use windlass_tests::place::{Background, Outcome, Place};
use windlass_tests::service::{
    Fault, FaultProxy, ImageBuilder, RuntimeApi, Seen, image_builder, runtime_api,
};

use crate::world::World;

/// The four backends.
pub(crate) const BACKENDS: [&str; 4] = ["oci", "docker", "runtime-api", "image-builder"];

/// One test.
pub(crate) struct Case {
    pub(crate) world: Arc<World>,
    /// What its repositories begin with: `table/registry/oci/run123`.
    pub(crate) name: String,
    place: Place,
}

impl Deref for Case {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Case {
    pub(crate) fn new(world: Arc<World>, name: &str) -> Result<Self, Failed> {
        let place = Place::new(&world.program)?;
        // Repositories have no double colons; those of another run on the same registry are others.
        let name = format!("{}/run{}", name.replace("::", "/"), std::process::id());
        Ok(Self { world, name, place })
    }

    /// The program on this backend; a service is one of this test alone.
    pub(crate) fn on(&self, backend: &'static str) -> Result<On<'_>, Failed> {
        let address = self.world.registry.address();
        let mut on = On {
            case: self,
            backend,
            repository: format!("{}/{backend}/runtime", self.name),
            named: format!("{address}/{}/{backend}/runtime", self.name),
            variables: Vec::new(),
            options: Vec::new(),
            service: None,
        };
        let mut variable = |name, value: &str| on.variables.push((name, value.to_owned()));
        match backend {
            "runtime-api" => {
                let mut habits = runtime_api::Habits::building(self.world.builder(), address);
                habits.registry_prefix = Some(format!("{address}/{}/{backend}", self.name));
                let service = RuntimeApi::start(habits)?;
                variable("RUNTIME_API_URL", service.url());
                variable("RUNTIME_API_KEY", runtime_api::API_KEY);
                on.options = vec!["poll-first=10ms", "poll-longest=40ms"];
                // The service says where its images belong.
                on.named.clear();
                on.service = Some(Service::RuntimeApi(service));
            }
            "image-builder" => {
                let habits = image_builder::Habits::building(self.world.builder(), address);
                let service = ImageBuilder::start(habits)?;
                variable("TOGETHER_BASE_URL", service.url());
                variable("TOGETHER_API_KEY", image_builder::API_KEY);
                // It puts them all into its own registry.
                on.named = "acme-runtime".to_owned();
                on.options = vec!["reconnect-first-wait=10ms", "reconnect-longest-wait=40ms"];
                on.service = Some(Service::ImageBuilder(service));
            }
            _ => {}
        }
        Ok(on)
    }

    /// `REGISTRY/base/NAME`
    pub(crate) fn base(&self, name: &str) -> String {
        format!("{}/base/{name}", self.world.registry.address())
    }

    /// Forgets all that the program kept: what it knows of registries, files and images.
    pub(crate) fn forget(&self) -> Result<(), Failed> {
        Ok(std::fs::remove_dir_all(self.home("cache"))?)
    }

    /// A proxy in front of the registry, which counts.
    pub(crate) fn proxy(&self, faults: Vec<Fault>) -> Result<FaultProxy, Failed> {
        Ok(FaultProxy::start(self.world.registry.address(), faults)?)
    }

    /// An image of the registry, with everything in it checked.
    pub(crate) fn image(&self, reference: &str) -> Result<Image, Failed> {
        Ok(Image::from_registry(reference, &Platform::amd64())?)
    }
}

/// A build service.
#[derive(Debug)]
pub(crate) enum Service {
    RuntimeApi(RuntimeApi),
    ImageBuilder(ImageBuilder),
}

/// The program on one backend.
pub(crate) struct On<'a> {
    pub(crate) case: &'a Case,
    pub(crate) backend: &'static str,
    /// In the registry; without its address.
    pub(crate) repository: String,
    /// What is typed as repository, if anything.
    named: String,
    variables: Vec<(&'static str, String)>,
    options: Vec<&'static str>,
    pub(crate) service: Option<Service>,
}

impl On<'_> {
    /// `REGISTRY/REPOSITORY`
    pub(crate) fn repository(&self) -> String {
        format!("{}/{}", self.case.world.registry.address(), self.repository)
    }

    /// Runs `windlass runtime COMMAND`.
    pub(crate) fn runtime(&self, command: &str, more: &[&str]) -> Result<Outcome, Failed> {
        let mut line = vec!["runtime", command];
        if !self.named.is_empty() {
            line.extend(["--repository", &self.named]);
        }
        line.extend(more);
        self.run(&line)
    }

    /// Runs the program.
    pub(crate) fn run(&self, line: &[&str]) -> Result<Outcome, Failed> {
        let line = self.line(line);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        self.case.run_with(&line, &self.variables())
    }

    /// Runs the program as a script does: only variables say where things go.
    pub(crate) fn run_bare(&self, line: &[&str], variables: &[(&str, &str)]) -> Result<Outcome, Failed> {
        let options = self.options();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        self.case.run_with(&[line, &options].concat(), &[&self.variables()[..], variables].concat())
    }

    /// Starts the program in the background.
    pub(crate) fn start(&self, line: &[&str]) -> Result<Background, Failed> {
        let line = self.line(line);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        self.case.start_with(&line, &self.variables())
    }

    fn line(&self, line: &[&str]) -> Vec<String> {
        let mut line: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        line.extend(["-b".to_owned(), self.backend.to_owned()]);
        line.extend(self.options());
        line
    }

    fn options(&self) -> Vec<String> {
        let set = |option| ["--set".to_owned(), format!("backends.{}.{option}", self.backend)];
        self.options.iter().flat_map(set).collect()
    }

    /// Nothing of the machine decides where images go.
    fn variables(&self) -> Vec<(&str, &str)> {
        let own = self.variables.iter().map(|(name, value)| (*name, value.as_str()));
        own.chain([("OH_RUNTIME_RUNTIME_IMAGE_REPO", ""), ("NO_COLOR", "1")]).collect()
    }

    /// How many builds a service was asked for.
    pub(crate) fn builds(&self) -> usize {
        match &self.service {
            Some(Service::RuntimeApi(service)) => service.calls("build").len(),
            Some(Service::ImageBuilder(service)) => service.calls(image_builder::Call::Submit).len(),
            None => 0,
        }
    }
}

/// Runs another program to its good end and gives what it printed.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Result<String, Failed> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{program} {}`: {stderr}", arguments.join(" ")).into())
}

/// `HEAD /v2/…`, a line each.
pub(crate) fn lines(seen: &[Seen]) -> Vec<String> {
    seen.iter().map(|seen| format!("{} {} {}", seen.method(), seen.path(), seen.status)).collect()
}

/// Bytes of the bodies of requests.
pub(crate) fn sent_bytes(seen: &[Seen]) -> u64 {
    seen.iter().map(|seen| seen.body_bytes).sum()
}

/// Fails unless both are the same.
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(what: &str, seen: T, expected: T) -> Result<(), Failed> {
    if seen == expected { Ok(()) } else { Err(format!("{what}: {seen:?}, expected {expected:?}").into()) }
}

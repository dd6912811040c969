//! One backend, set up for one test: its own directories, its own record of what happened.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;
use windlass_core::archive::ArchiveSettings;
use windlass_core::backend::{Backend, Job};
use windlass_core::backend_registry::{BackendOptions, BackendRegistry, BackendSetup, Host};
use windlass_core::context::{Context, ContextSettings};
use windlass_core::credentials::CredentialSettings;
use windlass_core::events::{Event, EventSink, Events};
use windlass_core::output::Output;
use windlass_core::pipeline::{BuildReport, Pipeline, PipelineOptions};
use windlass_core::registry::{RegistryClient, RegistrySettings};
use windlass_core::request::{BuildRequest, DockerfileSource, NamedContext as CoreContext};
use windlass_core::{Error, ErrorKind, Result, ResultExt as _};
use windlass_tests::scenario::{NamedContext, Scenario};
use windlass_tests::service::{image_builder, runtime_api};

use crate::suite::REMOTE;
use crate::world::World;

/// A backend with everything around it that a program would give it.
#[derive(Debug)]
pub(crate) struct Rig {
    /// The directory of the test: the scenario is written into it.
    pub(crate) root: PathBuf,
    /// The machine as the library sees it.
    pub(crate) host: Arc<Host>,
    /// The backend itself.
    pub(crate) backend: Arc<dyn Backend>,
    /// What the test does to stop it, and what it said.
    pub(crate) job: Job,
    /// What happened.
    pub(crate) recorder: Arc<Recorder>,
    pipeline: Pipeline,
}

/// What a rig is made of.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// The type name of the backend.
    pub(crate) backend: &'static str,
    /// Its options.
    pub(crate) options: Vec<(&'static str, toml::Value)>,
    /// The directory of its cache, in which `oci` keeps base images.
    pub(crate) cache_dir: PathBuf,
    /// Environment variables that differ from ours.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// `SOURCE_DATE_EPOCH`.
    pub(crate) source_date_epoch: Option<i64>,
}

impl Setup {
    /// The embedded builder, with a cache in the test's directory.
    pub(crate) fn oci(root: &Path) -> Self {
        let (options, environment) = (Vec::new(), Vec::new());
        Self { backend: "oci", options, cache_dir: root.join("cache"), environment, source_date_epoch: None }
    }

    /// Docker, on the engine at this address.
    pub(crate) fn docker(root: &Path, docker_host: &str) -> Self {
        Self { backend: "docker", ..Self::oci(root) }.option("docker-host", docker_host)
    }

    /// A backend of a build service, on the service that is up; waits are short.
    pub(crate) fn remote(world: &World, root: &Path, backend: &'static str) -> Self {
        let services = world.remote();
        let (environment, options): (Vec<_>, &[_]) = match backend {
            "runtime-api" => (
                vec![
                    ("RUNTIME_API_URL", services.runtime_api.url().to_owned()),
                    ("RUNTIME_API_KEY", runtime_api::API_KEY.to_owned()),
                ],
                &[("poll-first", "10ms"), ("poll-longest", "40ms")],
            ),
            _ => (
                vec![
                    ("TOGETHER_BASE_URL", services.image_builder.url().to_owned()),
                    ("TOGETHER_API_KEY", image_builder::API_KEY.to_owned()),
                ],
                &[("reconnect-first-wait", "10ms"), ("reconnect-longest-wait", "40ms")],
            ),
        };
        let setup = Self { backend, environment, ..Self::oci(root) };
        options.iter().fold(setup, |setup, (name, value)| setup.option(name, *value))
    }

    /// The backend of this type, on what is up for it.
    pub(crate) fn of(world: &World, root: &Path, backend: &'static str) -> Self {
        match backend {
            "oci" => Self::oci(root),
            "docker" => Self::docker(root, &world.classic),
            remote => Self::remote(world, root, remote),
        }
    }

    /// Sets one option of the backend.
    pub(crate) fn option(mut self, name: &'static str, value: impl Into<toml::Value>) -> Self {
        self.options.push((name, value.into()));
        self
    }
}

impl Rig {
    /// Sets the backend up. Nothing is reached for yet.
    pub(crate) fn new(root: &Path, setup: Setup) -> Result<Self> {
        let host = Arc::new(host(root, &setup)?);
        let registry = BackendRegistry::new()
            .with(windlass_oci::backend_type())
            .with(windlass_docker::backend_type())
            .with(windlass_runtime_api::backend_type())
            .with(windlass_image_builder::backend_type());
        let table = setup.options.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let backend = registry.create(
            setup.backend,
            BackendSetup {
                name: setup.backend.to_owned(),
                options: BackendOptions::new(table.collect(), BTreeMap::new()),
                host: host.clone(),
            },
        )?;
        let pipeline = Pipeline::new(registry, vec![backend.clone()], host.clone())?;
        let recorder = Arc::new(Recorder::default());
        let job = Job::new(Events::new(recorder.clone()), CancellationToken::new());
        Ok(Self { root: root.to_owned(), host, backend, job, recorder, pipeline })
    }

    /// Builds.
    pub(crate) fn build(&self, world: &World, request: BuildRequest) -> Result<BuildReport> {
        self.build_with(world, request, &PipelineOptions::default())
    }

    /// Builds, with what the pipeline may be told.
    pub(crate) fn build_with(
        &self,
        world: &World,
        request: BuildRequest,
        options: &PipelineOptions,
    ) -> Result<BuildReport> {
        world.runtime.block_on(self.pipeline.build(request, options, &self.job))
    }

    /// Names the image, builds it into the registry, and gives its reference there. A service has a place of its own
    /// for its images.
    pub(crate) fn push(&self, world: &World, mut request: BuildRequest, name: &str) -> Result<String> {
        let backend = self.backend.name();
        let tag = match REMOTE.contains(&backend) {
            true => format!("{}:suite", name.replace(['/', ':'], "-")),
            false => format!("{}/{name}:{backend}", world.registry),
        };
        request.tags = vec![tag.parse()?];
        request.outputs = vec![Output::push()];
        let image = self.build(world, request)?.image;
        Ok(image.references.first().map(ToString::to_string).unwrap_or_default())
    }

    /// Writes the files of a scenario and makes the request that it is, with outputs still to be said.
    pub(crate) fn request(&self, world: &World, scenario: &Scenario) -> Result<BuildRequest> {
        let places = world.places(&self.root);
        scenario.write(&places).or_error(ErrorKind::LocalIo, || "could not write the scenario")?;
        self.read(world, scenario)
    }

    /// The request over files that were written already.
    pub(crate) fn read(&self, world: &World, scenario: &Scenario) -> Result<BuildRequest> {
        let places = world.places(&self.root);
        let root = self.root.join("context");
        let path = root.join(scenario.dockerfile_path);
        let context = Context::from_dir(&root, Some(&path), &ContextSettings::default())?;
        let content = std::fs::read(&path)
            .or_error(ErrorKind::InvalidInput, || format!("no Dockerfile at `{}`", path.display()))?;
        let dockerfile = DockerfileSource {
            shown: scenario.dockerfile_path.into(),
            in_context: context.place_of(&path),
            path: Some(path),
            content: content.into(),
        };
        let options = &scenario.options;
        let text = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let named = options.contexts.iter().map(|(name, context)| {
            let context = match context {
                NamedContext::Image(reference) => CoreContext::Image(places.fill(reference).parse()?),
                NamedContext::Directory(directory) => CoreContext::Directory(places.fill(directory).into()),
                NamedContext::Layout(directory, tag) => CoreContext::OciLayout {
                    directory: places.fill(directory).into(),
                    tag: Some((*tag).to_owned()),
                    digest: None,
                },
            };
            Ok(((*name).to_owned(), context))
        });
        Ok(BuildRequest {
            target: options.target.map(str::to_owned),
            platforms: options.platforms.iter().map(|platform| platform.parse()).collect::<Result<_>>()?,
            build_args: text(&options.build_args),
            labels: text(&options.labels),
            annotations: text(&options.annotations),
            build_contexts: named.collect::<Result<_>>()?,
            source_date_epoch: options.source_date_epoch,
            ..BuildRequest::new(context, dockerfile)
        })
    }
}

fn host(root: &Path, setup: &Setup) -> Result<Host> {
    let mut environment: BTreeMap<String, String> = std::env::vars().collect();
    environment.extend(setup.environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    let variable = |name: &str| environment.get(name).map(String::as_str);
    let credentials = CredentialSettings::from_variables(variable, None);
    Ok(Host {
        home_dir: Some(root.join("home")),
        current_dir: root.to_owned(),
        cache_dir: setup.cache_dir.clone(),
        state_dir: root.join("state"),
        registry_client: RegistryClient::new(RegistrySettings {
            credentials,
            ..RegistrySettings::default()
        })?,
        archive: ArchiveSettings { source_date_epoch: setup.source_date_epoch, ..ArchiveSettings::default() },
        environment,
    })
}

/// Everything that the user would see of an error, in one text.
pub(crate) fn shown(error: &Error) -> String {
    let mut text = format!("{:?}: {error}", error.kind());
    let mut next = error.source();
    while let Some(cause) = next {
        let _ = write!(text, "\n  cause: {cause}");
        next = cause.source();
    }
    for (name, value) in error.details() {
        let _ = write!(text, "\n  {name}: {value}");
    }
    if let Some(line) = error.source_line() {
        let _ = write!(text, "\n  {}:{} | {}", line.file.display(), line.line, line.text);
    }
    for line in error.log_tail() {
        let _ = write!(text, "\n  log: {line}");
    }
    for hint in error.hints() {
        let _ = write!(text, "\n  hint: {hint}");
    }
    text
}

/// Keeps the events of a job.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    events: Mutex<Vec<Event>>,
}

impl Recorder {
    /// Everything so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().expect("no test panics while it holds this").clone()
    }

    /// The warnings so far.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let warning = |event| match event {
            Event::Warned { message } => Some(message),
            _ => None,
        };
        self.events().into_iter().filter_map(warning).collect()
    }
}

impl EventSink for Recorder {
    fn emit(&self, event: Event) {
        self.events.lock().expect("no test panics while it holds this").push(event);
    }
}

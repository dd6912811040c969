//! What build services of the tests build with: the `oci` backend, as a library, and the real registry.
//!
//! A context is unpacked as it came, built under the Dockerfile and the build arguments that were sent, and pushed under
//! the names that were asked for. There is no RUN: `oci` has none.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use windlass_core::archive::ArchiveSettings;
use windlass_core::backend::{Backend, Job};
use windlass_core::backend_registry::{BackendOptions, BackendRegistry, BackendSetup, Host};
use windlass_core::context::{Context, ContextSettings};
use windlass_core::credentials::CredentialSettings;
use windlass_core::events::{Event, EventSink, Events};
use windlass_core::output::Output;
use windlass_core::registry::{RegistryClient, RegistrySettings};
use windlass_core::request::{BuildRequest, DockerfileSource};
use windlass_core::{Error, ErrorKind, ResultExt as _};

/// Builds what services receive. Cloning is cheap, and clones share the cache of base images.
#[derive(Debug, Clone)]
pub struct Builder(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    runtime: Runtime,
    backend: Arc<dyn Backend>,
    directory: PathBuf,
}

/// A context as a service received it, and what is asked of it.
#[derive(Debug, Clone, Default)]
pub struct Received<'a> {
    /// The archive: a gzip-compressed tar.
    pub archive: &'a [u8],
    /// Path of the Dockerfile within the context.
    pub dockerfile: &'a str,
    /// Build arguments.
    pub build_args: BTreeMap<String, String>,
    /// The names of the image, each with its registry; the main one first.
    pub names: Vec<String>,
    /// Triggered to stop the build.
    pub cancel: CancellationToken,
}

/// Who is told the lines of a build's log.
pub type LogLine = Arc<dyn Fn(&str) + Send + Sync>;

impl Builder {
    /// Sets the backend up, with a cache of its own in this directory, which is the caller's to remove: services
    /// are never dropped. Reaches for nothing.
    ///
    /// # Errors
    /// If there is no room, or no thread can be had.
    pub fn new(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let backend = backend(directory).map_err(|error| io::Error::other(whole(&error)))?;
        Ok(Self(Arc::new(Shared { runtime, backend, directory: directory.to_owned() })))
    }

    /// Builds, pushes under all names, and gives the main one. Waits until it is done.
    ///
    /// # Errors
    /// The text of what went wrong, as a service would pass it on.
    pub fn build(&self, received: &Received<'_>, log: LogLine) -> Result<String, String> {
        self.made(received, log).map_err(|error| whole(&error))
    }

    fn made(&self, received: &Received<'_>, log: LogLine) -> Result<String, Error> {
        let message = || "could not unpack the context";
        let root = tempfile::tempdir_in(&self.0.directory).or_error(ErrorKind::LocalIo, message)?;
        unpack(received.archive, root.path()).or_error(ErrorKind::InvalidInput, message)?;
        let request = request(root.path(), received)?;
        let job = Job::new(Events::new(Arc::new(Lines(log))), received.cancel.clone());
        self.0.runtime.block_on(self.0.backend.build(&request, &job))?;
        received
            .names
            .first()
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "nothing says what the image shall be called"))
    }
}

fn backend(root: &Path) -> Result<Arc<dyn Backend>, Error> {
    // Neither home nor environment: the service is a machine of its own.
    let credentials = CredentialSettings::from_variables(|_| None, None);
    let host = Host {
        home_dir: None,
        current_dir: root.to_owned(),
        cache_dir: root.join("cache"),
        state_dir: root.join("state"),
        registry_client: RegistryClient::new(RegistrySettings {
            credentials,
            ..RegistrySettings::default()
        })?,
        archive: ArchiveSettings::default(),
        environment: BTreeMap::new(),
    };
    let setup = BackendSetup {
        name: windlass_oci::TYPE.to_owned(),
        options: BackendOptions::new(toml::Table::new(), BTreeMap::new()),
        host: Arc::new(host),
    };
    BackendRegistry::new().with(windlass_oci::backend_type()).create(windlass_oci::TYPE, setup)
}

/// Unpacks a context with every mode, link and name that is in it. What would lie outside is refused.
fn unpack(archive: &[u8], root: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    archive.unpack(root)
}

fn request(root: &Path, received: &Received<'_>) -> Result<BuildRequest, Error> {
    let path = root.join(received.dockerfile);
    let context = Context::from_dir(root, Some(&path), &ContextSettings::default())?;
    let content = fs::read(&path)
        .or_error(ErrorKind::InvalidInput, || format!("no `{}` in the context", received.dockerfile))?;
    let dockerfile = DockerfileSource {
        shown: received.dockerfile.into(),
        in_context: context.place_of(&path),
        path: Some(path),
        content: content.into(),
    };
    let mut request = BuildRequest::new(context, dockerfile);
    request.build_args = received.build_args.clone().into_iter().collect();
    request.tags = received.names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
    request.outputs = vec![Output::push()];
    Ok(request)
}

/// Everything that an error says, in one line: the causes, what the Dockerfile says there, what may help.
fn whole(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    if let Some(line) = error.source_line() {
        text = format!("{text} ({}:{}: {})", line.file.display(), line.line, line.text);
    }
    error.hints().iter().fold(text, |text, hint| format!("{text}; {hint}"))
}

/// Passes on what happens as lines.
struct Lines(LogLine);

impl EventSink for Lines {
    fn emit(&self, event: Event) {
        match event {
            Event::StepStarted { name, .. } => self.0(&name),
            Event::StepLogged { line, .. } => self.0(&line),
            Event::Warned { message } => self.0(&format!("warning: {message}")),
            Event::StepProgressed { .. } | Event::StepFinished { .. } => {}
        }
    }
}

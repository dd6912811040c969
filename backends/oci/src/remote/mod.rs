//! What ADD takes from elsewhere: files at addresses, and git repositories.
//!
//! It is fetched into a directory beside the image store, which then is a context like any other and
//! lives as long as the build. One source is fetched once in a build.

mod address;
mod git;
mod git_address;
mod git_output;
mod git_program;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use windlass_core::backend::Job;
use windlass_core::backend_registry::Host;
use windlass_core::context::{Context, ContextSettings};
use windlass_core::dockerfile::RemoteSource;
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::image::{ImageStore, ScratchDir};
use windlass_core::registry::RegistrySettings;

use crate::schedule::OnceEach;
use crate::sources::Sources;

/// Something that was fetched.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    /// The number of the context that it is in.
    pub(crate) context: usize,
    /// Its path there.
    pub(crate) path: Vec<u8>,
    /// The server said how old it is; the files of a checkout are as old as the checkout.
    pub(crate) has_time: bool,
}

/// How something is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// From where.
    pub(crate) source: RemoteSource,
    /// `--checksum`
    pub(crate) checksum: Option<String>,
    /// `--keep-git-dir`
    pub(crate) keep_git_dir: bool,
}

/// Fetches. Clones share what was fetched.
#[derive(Clone, Debug)]
pub(crate) struct Remotes {
    store: ImageStore,
    environment: Arc<BTreeMap<String, String>>,
    current_dir: PathBuf,
    /// How patient we are, and certificates: the same as with registries.
    network: Arc<RegistrySettings>,
    fetched: Arc<OnceEach<String, Fetched>>,
    /// Removed at the end of the build.
    directories: Arc<Mutex<Vec<ScratchDir>>>,
}

impl Remotes {
    /// Makes one that has fetched nothing yet.
    pub(crate) fn new(store: ImageStore, host: &Host) -> Self {
        let (environment, current_dir) = (Arc::new(host.environment.clone()), host.current_dir.clone());
        let network = Arc::new(host.registry_client.settings().clone());
        let (fetched, directories) = Default::default();
        Self { store, environment, current_dir, network, fetched, directories }
    }

    /// Fetches something, or gives what was fetched before.
    ///
    /// # Errors
    /// Where it cannot be had, as the server says; `BuildFailed` for another checksum; `Unavailable`
    /// if git is needed and not there; `LocalIo`; `Cancelled`.
    pub(crate) async fn fetch(&self, wanted: &Wanted, sources: &Sources, job: &Job) -> Result<Fetched> {
        self.fetched.get(format!("{wanted:?}"), Box::pin(self.fetch_now(wanted, sources, job))).await
    }

    async fn fetch_now(&self, wanted: &Wanted, sources: &Sources, job: &Job) -> Result<Fetched> {
        job.check()?;
        let directory = self.store.scratch_dir()?;
        let step = job.events.step(format!("fetching {}", wanted.source.shown()));
        let checksum = wanted.checksum.as_deref();
        let done = match &wanted.source {
            RemoteSource::Address { url, file_name } => {
                let to = directory.path().join(file_name);
                let done = address::download(
                    url,
                    &to,
                    checksum,
                    &self.network,
                    self.store.unpack_limit(),
                    &step,
                    job,
                );
                done.await.map(|()| (file_name.clone().into_bytes(), true))
            }
            RemoteSource::Git(source) => {
                let git = git_program::Git::locate(
                    &self.environment,
                    &self.current_dir,
                    self.network.silence_timeout,
                );
                let checkout = async {
                    let git = git?.at(directory.path());
                    let keep = wanted.keep_git_dir;
                    git::check_out(&git, source, checksum, keep, self.network.retry, job).await
                };
                checkout.await.map(|()| (source.directory.clone().into_bytes(), false))
            }
        };
        let named = |error: Error| match error.kind() {
            ErrorKind::Cancelled => error,
            _ => error.with_detail("source", wanted.source.shown()),
        };
        let (path, has_time) = step.end(done).map_err(named)?;
        // What was fetched is taken as it is: the files of a repository have no say about us.
        let settings = ContextSettings { ignore: false, ..ContextSettings::default() };
        let context = Context::from_dir(directory.path(), None, &settings)?;
        let sources = sources.clone();
        let context = job.blocking(move |job| sources.add_context(context, job)).await?;
        self.directories.lock().unwrap_or_else(PoisonError::into_inner).push(directory);
        Ok(Fetched { context, path, has_time })
    }
}

//! Builds that outlive the client: submit, ledger, attach.

use std::path::PathBuf;

use serde::Serialize;

use super::{BuildReport, PassedOver, Pipeline, PipelineOptions, Wanted};
use crate::Result;
use crate::backend::{Backend, Job};
use crate::backend_registry::Host;
use crate::error::{Error, ErrorKind};
use crate::ledger::{Ledger, LedgerEntry};
use crate::remote::{RemoteBuild, RemoteBuilds, RemoteState, RemoteStatus, Submitted};
use crate::request::{BuildRequest, BuiltImage};
use crate::shield::SHIELD_LIMIT;

/// What became of a build that nobody waits for.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "detached", rename_all = "kebab-case")]
pub enum Detached {
    /// It runs.
    Started(StartedBuild),
    /// There was nothing to wait for: the image existed, or the service was done when it answered.
    Finished(Box<BuildReport>),
}

/// A build that runs elsewhere.
#[derive(Clone, Debug, Serialize)]
pub struct StartedBuild {
    /// What is needed to come back to it.
    #[serde(flatten)]
    pub build: RemoteBuild,
    /// The configured name of the backend.
    pub backend: String,
    /// The service, without credentials.
    pub server: String,
    /// The backends of the list that were unavailable, and why.
    pub passed_over: Vec<PassedOver>,
}

impl Detached {
    /// The same after some backends of the list were unavailable.
    fn after(self, passed_over: Vec<PassedOver>) -> Self {
        match self {
            Self::Started(build) => Self::Started(StartedBuild { passed_over, ..build }),
            Self::Finished(report) => Self::Finished(Box::new(BuildReport { passed_over, ..*report })),
        }
    }
}

impl Pipeline {
    /// Submits a build to the first backend of the list that is available, or finds the image, and does not
    /// wait.
    ///
    /// # Errors
    /// `Unsupported` if builds of this backend end with the client; else as [`Pipeline::build`] until
    /// the build is submitted.
    pub async fn submit(
        &self,
        request: BuildRequest,
        options: &PipelineOptions,
        job: &Job,
    ) -> Result<Detached> {
        let (detached, passed_over) = self
            .first_available(job, |backend| {
                let request = request.clone();
                async move { self.submit_to(backend.as_ref(), request, options, job).await }
            })
            .await?;
        Ok(detached.after(passed_over))
    }

    async fn submit_to(
        &self,
        backend: &dyn Backend,
        request: BuildRequest,
        options: &PipelineOptions,
        job: &Job,
    ) -> Result<Detached> {
        let Some(remote) = backend.remote() else { return Err(ends_with_client(backend)) };
        let wanted = self.prepare(backend, request, options, job).await?;
        let report = |image| {
            let fingerprint = wanted.fingerprint.as_ref().map(super::Fingerprint::tag);
            let changes = self.changes(&wanted, options);
            let passed_over = Vec::new();
            Detached::Finished(Box::new(BuildReport { image, fingerprint, passed_over, changes }))
        };
        if let Some(image) = super::find(backend, &wanted, options, job).await? {
            return Ok(report(image));
        }
        // Whoever leaves twice in a hurry must not leave a build behind that nobody knows.
        let until_it_is_written_down = job.shield.hold();
        let submitted =
            remote.submit(&wanted.request, job).await.map_err(|error| self.name_able(error, backend))?;
        match submitted {
            Submitted::Finished(image) => Ok(report(*image)),
            Submitted::Started(build) => {
                let mut work =
                    UnderWay::begin(backend, remote, build, &subject(&wanted.request), &self.host, job);
                drop(until_it_is_written_down);
                // It was to go on without us from the beginning.
                work.stops_with_us = false;
                // The whole context is sent by now: it must have been what its fingerprint says.
                if let Err(error) = self.check_unchanged(&wanted, job).await {
                    return Err(work.explain(error, job).await);
                }
                self.remember(&wanted, job);
                let (backend, server) = (backend.name().to_owned(), remote.server().to_owned());
                let passed_over = Vec::new();
                Ok(Detached::Started(StartedBuild { build: work.entry.build, backend, server, passed_over }))
            }
        }
    }

    /// Lets a backend build: in one go, or where builds outlive us, with an entry in the ledger.
    pub(super) async fn make(&self, backend: &dyn Backend, wanted: &Wanted, job: &Job) -> Result<BuiltImage> {
        let Some(remote) = backend.remote() else { return backend.build(&wanted.request, job).await };
        // Whoever leaves twice in a hurry must not leave a build behind.
        let _until_it_is_stopped = remote.stops_with_client().then(|| job.shield.hold());
        let submitted = remote.submit(&wanted.request, job).await?;
        let image = follow(backend, remote, submitted, &subject(&wanted.request), &self.host, job).await;
        image.map_err(|error| with_dockerfile(error, &wanted.request))
    }
}

/// Follows what was submitted to its end, and keeps the ledger on the way. `subject` is what it was
/// made of, for the ledger.
///
/// # Errors
/// What the build meets. Where it goes on without us, the hints say how to come back to it.
pub async fn follow(
    backend: &dyn Backend,
    remote: &dyn RemoteBuilds,
    submitted: Submitted,
    subject: &str,
    host: &Host,
    job: &Job,
) -> Result<BuiltImage> {
    match submitted {
        Submitted::Finished(image) => Ok(*image),
        Submitted::Started(build) => {
            UnderWay::begin(backend, remote, build, subject, host, job).attach(job).await
        }
    }
}

/// Comes back to a build of the ledger, follows it to its end, and keeps the ledger on the way.
///
/// # Errors
/// As [`follow`].
pub async fn resume(
    remote: &dyn RemoteBuilds,
    entry: LedgerEntry,
    host: &Host,
    job: &Job,
) -> Result<BuiltImage> {
    let ledger = Ledger::new(&host.state_dir);
    UnderWay { remote, entry, ledger, stops_with_us: false }.attach(job).await
}

/// The error for a backend whose builds end with the client.
pub(super) fn ends_with_client(backend: &dyn Backend) -> Error {
    let message = format!("`--detach` cannot be used with the backend `{}`", backend.name());
    Error::new(ErrorKind::Unsupported, message)
        .with_hint("its builds end with the program; choose a backend of a build service")
}

/// What a build is made of, as the user would name it.
fn subject(request: &BuildRequest) -> String {
    match request.context.root() {
        // Without what says nothing: `/app/.` is `/app`.
        Some(root) => root.components().collect::<PathBuf>().display().to_string(),
        None => request.dockerfile.shown.display().to_string(),
    }
}

/// Names the Dockerfile of a build that failed where the service may call it otherwise.
fn with_dockerfile(error: Error, request: &BuildRequest) -> Error {
    let shown = &request.dockerfile.shown;
    let is_usual = shown.file_name().is_some_and(|name| name == "Dockerfile");
    match error.kind() {
        ErrorKind::BuildFailed if !is_usual => error.with_detail("dockerfile", shown.display().to_string()),
        _ => error,
    }
}

/// A build that runs elsewhere and is in the ledger.
struct UnderWay<'a> {
    remote: &'a dyn RemoteBuilds,
    entry: LedgerEntry,
    ledger: Ledger,
    /// It is stopped when the user stops us. One that somebody came back to is not: it went on without us
    /// before.
    stops_with_us: bool,
}

impl<'a> UnderWay<'a> {
    /// Writes a build down as soon as its id is known.
    fn begin(
        backend: &dyn Backend,
        remote: &'a dyn RemoteBuilds,
        build: RemoteBuild,
        subject: &str,
        host: &Host,
        job: &Job,
    ) -> Self {
        let entry = LedgerEntry::started(build, backend.name(), remote.server(), subject);
        let ledger = Ledger::new(&host.state_dir);
        let under_way = Self { remote, entry, ledger, stops_with_us: remote.stops_with_client() };
        under_way.record(job);
        under_way
    }

    /// A ledger that cannot be written costs `windlass builds` an entry, never the build.
    fn record(&self, job: &Job) {
        if let Err(error) = self.ledger.record(&self.entry) {
            job.events.warn(format!("{error}; it can be found by its id alone"));
        }
    }

    async fn attach(mut self, job: &Job) -> Result<BuiltImage> {
        // Whoever leaves twice in a hurry must not leave a build behind.
        let _until_it_is_stopped = self.stops_with_us.then(|| job.shield.hold());
        match self.remote.attach(&self.entry.build, job).await {
            Ok(image) => {
                let name = image.references.first().map(ToString::to_string);
                self.entry.update(RemoteState::Succeeded, name, None);
                self.record(job);
                Ok(image)
            }
            Err(error) => Err(self.explain(error, job).await),
        }
    }

    /// Notes what an error means for the build, and tells the user.
    async fn explain(&mut self, error: Error, job: &Job) -> Error {
        let id = self.entry.build.id.clone();
        let error = error.with_build(&id);
        let failed = (error.kind() == ErrorKind::BuildFailed).then_some(RemoteState::Failed);
        if let Some(state) = error.end().or(failed) {
            let why =
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            // Who cancelled it knows why.
            self.entry.update(state, None, Some(why).filter(|_| state != RemoteState::Cancelled));
            self.record(job);
            return error;
        }
        if error.kind() == ErrorKind::Cancelled && self.stops_with_us {
            return self.stop(error, job).await;
        }
        let goes_on = match error.kind() {
            ErrorKind::NotFound => return error,
            ErrorKind::Cancelled | ErrorKind::TimedOut => "the build goes on without us",
            _ => "the build may go on without us",
        };
        error.with_hint(format!("{goes_on}: `{}` comes back to it", self.command("attach")))
    }

    /// What the user types to come back to the build. Two services may use the same id.
    fn command(&self, verb: &str) -> String {
        let LedgerEntry { build, backend, .. } = &self.entry;
        format!("windlass builds {verb} {} --backend {backend}", build.id)
    }

    /// Stops the build because the user stopped us. The user's own token is spent.
    async fn stop(&mut self, error: Error, job: &Job) -> Error {
        let last = job.unstopped();
        let cancel = tokio::time::timeout(SHIELD_LIMIT, self.remote.cancel(&self.entry.build, &last)).await;
        let why = match cancel {
            Ok(Ok(())) => {
                self.entry.update(RemoteState::Cancelled, None, None);
                self.record(job);
                return error.with_detail("the build", format!("was stopped on {}", self.remote.server()));
            }
            // Nothing is left to stop, and nothing is known of its end.
            Ok(Err(why)) if why.kind() == ErrorKind::NotFound => {
                return error.with_hint(format!("{why}: it was not stopped by us"));
            }
            Ok(Err(why)) => why.to_string(),
            Err(_) => format!("no answer for {} s", SHIELD_LIMIT.as_secs()),
        };
        let id = self.entry.build.id.clone();
        job.events.warn(format!("the build `{id}` could not be cancelled: {why}"));
        // It may have ended in the very moment.
        let status = tokio::time::timeout(SHIELD_LIMIT, self.remote.status(&self.entry.build, &last)).await;
        match status {
            Ok(Ok(status)) if status.state.is_final() => {
                note_status(&mut self.entry, &status);
                self.record(job);
                error.with_hint(format!(
                    "it {} meanwhile: `{}`",
                    status.state.in_words(),
                    self.command("status")
                ))
            }
            _ => error.with_hint(format!("it may go on: `{}` tries again", self.command("cancel"))),
        }
    }
}

/// Takes over into an entry what the service said.
pub fn note_status(entry: &mut LedgerEntry, status: &RemoteStatus) {
    entry.update(status.state, status.image.clone(), status.error.clone());
}

#[cfg(test)]
mod tests;

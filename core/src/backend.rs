//! What every backend promises.
//!
//! To write one, start with `docs/writing-a-backend.md`; `examples/outside-backend` is a complete
//! one that lives outside this workspace.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::Result;
use crate::digest::Digest;
use crate::error::Error;
use crate::events::Events;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::remote::RemoteBuilds;
use crate::request::{BuildRequest, BuiltImage};
use crate::shield::Shield;

/// Something that builds images.
///
/// No method has a default body: a wrapper around a backend must decide about each one.
#[async_trait]
pub trait Backend: Send + Sync + fmt::Debug {
    /// The name that the configuration gives it; the type name where it gives none.
    fn name(&self) -> &str;

    /// What it can do. The pipeline refuses the rest before any work.
    fn capabilities(&self) -> &Capabilities;

    /// Reaches everything that a build would need and says what is wrong. Changes nothing.
    ///
    /// What is wrong is in the report; this itself does not fail.
    async fn check(&self, job: &Job) -> CheckReport;

    /// Asks whether an image exists. Downloads nothing of it.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`, `TimedOut` where the answer cannot be had: that is not "absent".
    async fn find(&self, reference: &Reference, scope: FindScope, job: &Job) -> Result<Option<FoundImage>>;

    /// Gives an image that [`Backend::find`] found further references, in the scope it was found in.
    ///
    /// # Errors
    /// `Unsupported` where there is no way to: the image is then built with them. Else as the store or
    /// registry says.
    async fn tag(&self, image: &FoundImage, references: &[Reference], job: &Job) -> Result<()>;

    /// Says what [`Backend::build`] would do, and refuses what it would refuse; reads, sends
    /// and writes nothing beyond this machine.
    ///
    /// # Errors
    /// What `build` would refuse before it starts.
    async fn plan(&self, request: &BuildRequest, job: &Job) -> Result<Vec<PlannedAction>>;

    /// Builds the image and puts it where the outputs say. Nothing half-written stays behind when
    /// it fails or is cancelled.
    ///
    /// # Errors
    /// `BuildFailed` with the failing instruction and the last log lines; `Cancelled`; and what
    /// the outputs meet.
    async fn build(&self, request: &BuildRequest, job: &Job) -> Result<BuiltImage>;

    /// What this backend offers if its builds outlive the client; `None` if they end with it.
    fn remote(&self) -> Option<&dyn RemoteBuilds>;
}

/// What accompanies one piece of work: where it reports to, and how it is stopped.
#[derive(Clone, Debug)]
pub struct Job {
    /// Where progress goes.
    pub events: Events,
    /// Triggered when the user stops the work.
    pub cancel: CancellationToken,
    /// How long the whole may take, where the user said so. Who started the job sees to it; a limit that
    /// a backend has by default does not count then.
    pub limit: Option<Duration>,
    /// Held by work that is let come to its end although the user leaves.
    pub shield: Shield,
}

impl Job {
    /// A job without a limit.
    pub fn new(events: Events, cancel: CancellationToken) -> Self {
        Self { events, cancel, limit: None, shield: Shield::default() }
    }

    /// A job that reports to nobody and is never stopped.
    pub fn silent() -> Self {
        Self::new(Events::silent(), CancellationToken::new())
    }

    /// A part of this job that can be stopped alone.
    pub fn child(&self) -> Self {
        Self { cancel: self.cancel.child_token(), ..self.clone() }
    }

    /// Work of this job that stopping it does not stop.
    pub fn unstopped(&self) -> Self {
        Self { cancel: CancellationToken::new(), ..self.clone() }
    }

    /// Fails if the user has stopped the work; blocking loops call it between two pieces.
    ///
    /// # Errors
    /// `Cancelled`.
    pub fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Waits for a future, or for the user to stop the work, whichever is first.
    ///
    /// # Errors
    /// `Cancelled`, or the error of the future.
    pub async fn run<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::cancelled()),
            result = work => result,
        }
    }

    /// Runs blocking work on a thread of its own and waits for its end, also when the user stops
    /// it: the work asks [`Job::check`] and ends by itself, so nothing goes on behind our back.
    ///
    /// # Errors
    /// The error of the work.
    ///
    /// # Panics
    /// Where the work does.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Job) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let job = self.clone();
        match tokio::task::spawn_blocking(move || work(&job)).await {
            Ok(result) => result,
            Err(join) if join.is_panic() => std::panic::resume_unwind(join.into_panic()),
            Err(_) => Err(Error::cancelled()),
        }
    }
}

/// Something that a request may need and a backend may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Feature {
    /// RUN instructions.
    Run,
    /// ADD of an address or of a git repository.
    RemoteAdd,
    /// A platform other than its own default.
    Platform,
    /// Several platforms in one index.
    MultiPlatform,
    /// Values for ARG.
    BuildArguments,
    /// A stage other than the last.
    Target,
    /// Labels beyond those of the Dockerfile.
    Labels,
    /// Annotations of the manifest or index.
    Annotations,
    /// Named contexts.
    NamedContexts,
    /// The result in its own image store.
    Store,
    /// The result in a registry.
    Push,
    /// The result in a docker engine.
    Load,
    /// The result as an OCI layout.
    OciArchive,
    /// The result as an archive for `docker load`.
    DockerArchive,
    /// The result as a root file system.
    RootFilesystem,
    /// No result but a warm cache.
    CacheOnly,
    /// Everything only BuildKit has: secrets, SSH, cache import and export, attestations, ulimits.
    EngineOptions,
}

impl Feature {
    /// All of them, in the order they are shown.
    pub const ALL: &[Self] = &[
        Self::Run,
        Self::RemoteAdd,
        Self::Platform,
        Self::MultiPlatform,
        Self::BuildArguments,
        Self::Target,
        Self::Labels,
        Self::Annotations,
        Self::NamedContexts,
        Self::Store,
        Self::Push,
        Self::Load,
        Self::OciArchive,
        Self::DockerArchive,
        Self::RootFilesystem,
        Self::CacheOnly,
        Self::EngineOptions,
    ];

    /// Its name in tables and messages.
    pub fn label(self) -> &'static str {
        match self {
            Self::Run => "RUN",
            Self::RemoteAdd => "ADD of addresses",
            Self::Platform => "platform",
            Self::MultiPlatform => "several platforms",
            Self::BuildArguments => "build arguments",
            Self::Target => "target stage",
            Self::Labels => "labels",
            Self::Annotations => "annotations",
            Self::NamedContexts => "named contexts",
            Self::Store => "image store",
            Self::Push => "push",
            Self::Load => "load",
            Self::OciArchive => "OCI archive",
            Self::DockerArchive => "docker archive",
            Self::RootFilesystem => "root file system",
            Self::CacheOnly => "cache only",
            Self::EngineOptions => "BuildKit options",
        }
    }
}

/// What a backend can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// The features it has.
    pub features: BTreeSet<Feature>,
    /// See [`Capabilities::building_what_is_listed`].
    #[serde(skip)]
    pub builds_what_is_listed: bool,
    /// See [`Capabilities::finding_nothing`].
    #[serde(skip)]
    pub finds_nothing: bool,
    /// See [`Capabilities::giving_one_name`].
    #[serde(skip)]
    pub one_name: bool,
}

impl Capabilities {
    /// Makes the set of these features.
    pub fn of(features: impl IntoIterator<Item = Feature>) -> Self {
        Self {
            features: features.into_iter().collect(),
            builds_what_is_listed: false,
            finds_nothing: false,
            one_name: false,
        }
    }

    /// Promises that a build has the entries that [`crate::context::Context::list_once`] gives for the
    /// context, and fails where a file is no longer as it was listed. Then what was found out from
    /// that listing, such as a fingerprint, holds for the image, whatever happens to the files meanwhile.
    #[must_use]
    pub fn building_what_is_listed(self) -> Self {
        Self { builds_what_is_listed: true, ..self }
    }

    /// Says that nobody can ask the backend whether an image exists: [`Backend::find`] finds none, and who
    /// waits for a build need not hear that it was looked for.
    #[must_use]
    pub fn finding_nothing(self) -> Self {
        Self { finds_nothing: true, ..self }
    }

    /// Says that a build gives its image one name: a request with several is refused.
    #[must_use]
    pub fn giving_one_name(self) -> Self {
        Self { one_name: true, ..self }
    }

    /// Says whether the backend has a feature.
    pub fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }
}

/// Where an image is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindScope {
    /// Only in the backend's own store: quick, and no network.
    Store,
    /// In its store, then in the registry that the reference names.
    StoreThenRegistry,
    /// Only in the registry that the reference names.
    Registry,
}

/// An image that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FoundImage {
    /// The reference that was asked for, or as the service spells it.
    pub reference: Reference,
    /// The digest of its manifest or index; `None` for an image of a docker engine that was
    /// never pushed and so has none.
    pub digest: Option<Digest>,
    /// The digest of its image config, where it is known without a download.
    pub image_id: Option<Digest>,
    /// The platforms it is for, where that is known without a download.
    pub platforms: Vec<Platform>,
    /// It was found in the registry, not in the store.
    pub in_registry: bool,
}

/// One thing that a build would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedAction {
    /// What kind of thing, in a word: `pull`, `layer`, `config`, `run`, `push`, `write`.
    pub verb: String,
    /// On what, as the user would name it: `COPY . /app`, `127.0.0.1:5000/team/app:1`.
    pub subject: String,
    /// More about it; empty if there is nothing to say.
    pub details: Vec<String>,
}

/// How one point of [`Backend::check`] came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckStatus {
    /// It works.
    Good,
    /// Builds work, but something is amiss.
    Warning,
    /// Builds will fail.
    Bad,
}

/// One point of [`Backend::check`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckItem {
    /// What was looked at: `docker engine`.
    pub what: String,
    /// How it came out.
    pub status: CheckStatus,
    /// What was seen: a version, an address, an error with its causes.
    pub seen: String,
    /// What to do next, if there is something to do.
    pub hint: Option<String>,
}

/// What [`Backend::check`] saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// The points, in the order in which a build would meet them.
    pub items: Vec<CheckItem>,
}

impl CheckReport {
    /// Says whether a build would get past all points.
    pub fn is_good(&self) -> bool {
        self.items.iter().all(|item| item.status != CheckStatus::Bad)
    }

    /// Adds a point that works.
    pub fn good(&mut self, what: impl Into<String>, seen: impl Into<String>) {
        self.push(CheckStatus::Good, what.into(), seen.into(), None);
    }

    /// Adds a point that is amiss but does not stop a build.
    pub fn warning(&mut self, what: impl Into<String>, seen: impl Into<String>, hint: impl Into<String>) {
        self.push(CheckStatus::Warning, what.into(), seen.into(), Some(hint.into()));
    }

    /// Adds a point that stops a build.
    pub fn bad(&mut self, what: impl Into<String>, seen: impl Into<String>, hint: impl Into<String>) {
        self.push(CheckStatus::Bad, what.into(), seen.into(), Some(hint.into()));
    }

    fn push(&mut self, status: CheckStatus, what: String, seen: String, hint: Option<String>) {
        self.items.push(CheckItem { what, status, seen, hint });
    }
}

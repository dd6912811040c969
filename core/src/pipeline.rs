//! What a build is: check, fingerprint, find, build.
//!
//! The pipeline knows backends only by their trait. It asks what they can do before any work,
//! asks whether the image already exists, and moves on to the next backend of a list only when
//! one is unavailable, never when a build failed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::Result;
use crate::backend::{Backend, FindScope, Job};
use crate::backend_registry::{BackendRegistry, Host};
use crate::context::{Context, Entry};
use crate::digest::Digest;
use crate::dockerfile;
use crate::error::{Error, ErrorKind};
use crate::fingerprint::{self, Change, Fingerprint, Record, StatCache};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::request::BuildRequest;

mod first_available;
mod naming;
mod remote;
mod report;
mod reuse;

use naming::{check_outputs, keeps_image, local_repository, named_by_outputs};
pub use remote::{Detached, StartedBuild, follow, note_status, resume};
pub use report::{BuildPlan, BuildReport, ContextSummary, PassedOver};
use reuse::{find, is_findable, is_listed_once, may_reuse};

/// Whether an image that exists already is taken instead of building one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reuse {
    /// Where windlass chooses the tag: that tag is the fingerprint, so the image is the same.
    #[default]
    WhenUntagged,
    /// Also where the user gave tags: the fingerprint's tag is looked for beside them.
    Always,
    /// Never.
    Never,
}

/// How a build is run, apart from what is built.
#[derive(Clone, Debug, Default)]
pub struct PipelineOptions {
    /// Whether an image that exists already is taken.
    pub reuse: Reuse,
    /// Says which inputs changed since the last build of this context.
    pub explain: bool,
}

/// Builds through the first backend of a list that is available.
#[derive(Debug)]
pub struct Pipeline {
    registry: BackendRegistry,
    backends: Vec<Arc<dyn Backend>>,
    host: Arc<Host>,
}

impl Pipeline {
    /// Makes a pipeline over backends in the order in which they are tried.
    ///
    /// The registry is asked only for which types could do what these cannot.
    ///
    /// # Errors
    /// `InvalidConfig` if the list is empty.
    pub fn new(registry: BackendRegistry, backends: Vec<Arc<dyn Backend>>, host: Arc<Host>) -> Result<Self> {
        if backends.is_empty() {
            return Err(Error::new(ErrorKind::InvalidConfig, "no backend is configured"));
        }
        Ok(Self { registry, backends, host })
    }

    /// Builds an image, or finds it.
    ///
    /// # Errors
    /// `Unsupported` before any work where the first backend cannot do what is asked; the error of
    /// the last backend where all are unavailable; else that of the backend that built.
    pub async fn build(
        &self,
        request: BuildRequest,
        options: &PipelineOptions,
        job: &Job,
    ) -> Result<BuildReport> {
        let (report, passed_over) = self
            .first_available(job, |backend| {
                let request = request.clone();
                async move { self.build_on(backend.as_ref(), request, options, job).await }
            })
            .await?;
        Ok(BuildReport { passed_over, ..report })
    }

    /// Whether the next backend of the list is tried after this error, of which the user is told.
    async fn passes_over(&self, index: usize, error: &Error, job: &Job) -> bool {
        let backend = self.backends[index].as_ref();
        let goes_on = index + 1 < self.backends.len() && is_missing(backend, error, job).await;
        if goes_on {
            let name = backend.name();
            job.events.warn(format!("backend `{name}` is unavailable, trying the next: {error}"));
        }
        goes_on
    }

    async fn build_on(
        &self,
        backend: &dyn Backend,
        request: BuildRequest,
        options: &PipelineOptions,
        job: &Job,
    ) -> Result<BuildReport> {
        let wanted = self.prepare(backend, request, options, job).await?;
        let changes = self.changes(&wanted, options);
        let fingerprint = wanted.fingerprint.as_ref().map(Fingerprint::tag);
        let report =
            |image| BuildReport { image, fingerprint, passed_over: Vec::new(), changes: changes.clone() };

        if let Some(image) = find(backend, &wanted, options, job).await? {
            self.remember(&wanted, job);
            return Ok(report(image));
        }
        let image = self.make(backend, &wanted, job).await.map_err(|e| self.name_able(e, backend))?;
        if !(backend.capabilities().builds_what_is_listed && is_listed_once(&wanted.request)) {
            self.check_unchanged(&wanted, job).await?;
        }
        self.remember(&wanted, job);
        Ok(report(image))
    }

    /// Says what [`Pipeline::build`] would do on the first backend that is available. Nothing is
    /// sent or written.
    ///
    /// # Errors
    /// What `build` would refuse before it starts.
    pub async fn plan(
        &self,
        request: BuildRequest,
        options: &PipelineOptions,
        job: &Job,
    ) -> Result<BuildPlan> {
        let (plan, passed_over) = self
            .first_available(job, |backend| {
                let request = request.clone();
                async move { self.plan_on(backend.as_ref(), request, options, job).await }
            })
            .await?;
        Ok(BuildPlan { passed_over, ..plan })
    }

    async fn plan_on(
        &self,
        backend: &dyn Backend,
        request: BuildRequest,
        options: &PipelineOptions,
        job: &Job,
    ) -> Result<BuildPlan> {
        let wanted = self.prepare(backend, request, options, job).await?;
        // A service would have to be asked, and a plan asks nobody.
        let looked_for = may_reuse(&wanted.request, options) && backend.remote().is_none();
        let found = match &wanted.fingerprint_reference {
            Some(reference) if looked_for => backend.find(reference, FindScope::Store, job).await?,
            _ => None,
        };
        let mut actions = match (backend.remote(), &wanted.fingerprint_reference) {
            (Some(remote), Some(reference))
                if is_findable(&wanted.request) && may_reuse(&wanted.request, options) =>
            {
                remote.planned_find(reference)?
            }
            _ => Vec::new(),
        };
        let build = backend.plan(&wanted.request, job).await.map_err(|e| self.name_able(e, backend))?;
        // What is asked for only once.
        let new: Vec<_> = build.into_iter().filter(|action| !actions.contains(action)).collect();
        actions.extend(new);
        Ok(BuildPlan {
            backend: backend.name().to_owned(),
            passed_over: Vec::new(),
            references: wanted.request.tags.clone(),
            fingerprint: wanted.fingerprint.as_ref().map(Fingerprint::tag),
            found,
            looked_for,
            stages: dockerfile::plan(&wanted.request)?,
            context: summarise(&wanted.request, job).await?,
            actions,
        })
    }

    /// Refuses what cannot work, then settles on the references that the image gets.
    async fn prepare(
        &self,
        backend: &dyn Backend,
        request: BuildRequest,
        options: &PipelineOptions,
        job: &Job,
    ) -> Result<Wanted> {
        self.refuse_options(backend, &request)?;
        check_outputs(&request)?;
        let request = named_by_outputs(request)?;
        let mut wanted = Wanted { request, fingerprint: None, fingerprint_reference: None };
        let untagged = wanted.request.tags.is_empty() && keeps_image(&wanted.request);
        if untagged || options.reuse == Reuse::Always || options.explain {
            let list = |context: &Context, job: &Job| context.list_once(job);
            let fingerprint = self.fingerprint(&wanted.request, list, job).await?;
            let repository = match wanted.request.tags.first() {
                Some(tag) => tag.clone(),
                None => local_repository(&wanted.request)?,
            };
            if untagged || options.reuse == Reuse::Always {
                let reference = repository.with_tag(&fingerprint.tag())?;
                wanted.request.tags.push(reference.clone());
                wanted.fingerprint_reference = Some(reference);
            }
            wanted.fingerprint = Some(fingerprint);
        }
        Ok(wanted)
    }

    /// The backend reads the context after the fingerprint was computed. An image of something else
    /// must not be found under it later.
    async fn check_unchanged(&self, wanted: &Wanted, job: &Job) -> Result<()> {
        let (Some(before), Some(reference)) = (&wanted.fingerprint, &wanted.fingerprint_reference) else {
            return Ok(());
        };
        // Files that the build writes may lie in the context; such builds are not looked for.
        if !is_findable(&wanted.request) {
            return Ok(());
        }
        let list = |context: &Context, job: &Job| context.list(job).map(Into::into);
        if self.fingerprint(&wanted.request, list, job).await?.digest() == before.digest() {
            return Ok(());
        }
        let message = "the build context changed while it was built";
        Err(Error::new(ErrorKind::ContextUnreadable, message)
            .with_detail("image", reference.familiar())
            .with_hint("build again with `--force-rebuild`: the image may not be what its tag says"))
    }

    async fn fingerprint(
        &self,
        request: &BuildRequest,
        list: fn(&Context, &Job) -> Result<Arc<[Entry]>>,
        job: &Job,
    ) -> Result<Fingerprint> {
        let mut base_digests = BTreeMap::new();
        // A Dockerfile that this reader refuses is the backend's to refuse, in its own words.
        for base in dockerfile::base_images(request).unwrap_or_default() {
            if let Some(digest) = self.base_digest(&base, request.pull, job).await? {
                base_digests.insert(base.to_string(), digest);
            }
        }
        let (mut request, cache) = (request.clone(), StatCache::open(&self.host.cache_dir));
        // Two machines of different architectures do not mean the same by "no platform".
        if request.platforms.is_empty() {
            request.platforms.push(Platform::host());
        }
        job.blocking(move |job| {
            let entries = list(&request.context, job)?;
            fingerprint::fingerprint(&request, &entries, &base_digests, &cache, job)
        })
        .await
    }

    /// The digest of a base counts where it is known for certain: it is in the reference, or
    /// `--pull` asks the registry. What happens to be in the local store must not count: the
    /// fingerprint is the same on every machine.
    async fn base_digest(&self, base: &Reference, pull: bool, job: &Job) -> Result<Option<Digest>> {
        match base.digest() {
            None if pull => {
                let head = self.host.registry_client.head_manifest(base, job).await?;
                Ok(head.map(|descriptor| descriptor.digest))
            }
            known => Ok(known),
        }
    }

    /// Names the backends that have the feature which this one lacks.
    fn name_able(&self, error: Error, backend: &dyn Backend) -> Error {
        let Some(feature) = error.feature() else { return error };
        let able = self.registry.types_with(feature);
        let lacks = !backend.capabilities().has(feature);
        let listed = self.backends.iter().find(|other| lacks && other.capabilities().has(feature));
        if let Some(other) = listed.map(|other| other.name()) {
            return error.with_hint(format!(
                "the backend `{other}` of your list can: choose it with `--backend {other}`, or put it first"
            ));
        }
        match able.first() {
            Some(first) if lacks => error.with_hint(format!(
                "backends that can: {}; choose one with `--backend {first}`",
                able.join(", ")
            )),
            _ => error,
        }
    }

    /// `None` where nobody asked, or there is no record of an earlier build.
    fn changes(&self, wanted: &Wanted, options: &PipelineOptions) -> Option<Vec<Change>> {
        let fingerprint = wanted.fingerprint.as_ref().filter(|_| options.explain)?;
        let root = wanted.request.context.root()?;
        let last = Record::load(&self.host.state_dir, root, &wanted.request.dockerfile.shown)?;
        Some(Record::of(fingerprint).changes_since(&last))
    }

    /// A record that cannot be written costs an explanation later, not this build.
    fn remember(&self, wanted: &Wanted, job: &Job) {
        let request = &wanted.request;
        let (Some(fingerprint), Some(root)) = (&wanted.fingerprint, request.context.root()) else { return };
        let kept = Record::keep(fingerprint, &self.host.state_dir, root, &request.dockerfile.shown);
        if let Err(error) = kept {
            job.events.warn(format!("this build is not recorded for `--explain`: {error}"));
        }
    }
}

/// Tells a backend that is not there from one whose registry is not: another backend would meet
/// the same registry. The backend's own check knows.
async fn is_missing(backend: &dyn Backend, error: &Error, job: &Job) -> bool {
    error.kind().is_unavailable() && error.build().is_none() && !backend.check(job).await.is_good()
}

/// A request whose references are settled.
struct Wanted {
    request: BuildRequest,
    fingerprint: Option<Fingerprint>,
    /// The reference whose tag is the fingerprint, where the image gets one.
    fingerprint_reference: Option<Reference>,
}

async fn summarise(request: &BuildRequest, job: &Job) -> Result<ContextSummary> {
    let context = request.context.clone();
    job.blocking(move |job| {
        let entries = context.list_to_send(job)?;
        let size_bytes = entries.iter().map(|entry| entry.size_bytes()).sum();
        Ok(ContextSummary { entries: entries.len(), size_bytes })
    })
    .await
}

#[cfg(test)]
mod tests;

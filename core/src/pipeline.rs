//! What a build is: check, fingerprint, find, build.
//!
//! The pipeline knows backends only by their trait. It asks what they can do before any work,
//! asks whether the image already exists, and moves on to the next backend of a list only when
//! one is unavailable, never when a build failed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::Result;
use crate::backend::{Backend, FindScope, FoundImage, Job, PlannedAction};
use crate::backend_registry::{BackendRegistry, Host};
use crate::digest::Digest;
use crate::dockerfile::{self, PlannedStage};
use crate::error::{Error, ErrorKind};
use crate::fingerprint::{self, Change, Fingerprint, Record, StatCache};
use crate::output::OutputKind;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::request::{BuildRequest, BuiltImage};

/// The registry part of references that windlass chooses itself: never pulled, never pushed.
const LOCAL_REGISTRY: &str = "localhost";

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

/// What a build gave, and how it came about.
#[derive(Clone, Debug, Serialize)]
pub struct BuildReport {
    /// The image.
    #[serde(flatten)]
    pub image: BuiltImage,
    /// The tag form of the fingerprint; `None` where nobody needed one.
    pub fingerprint: Option<String>,
    /// The backends of the list that were unavailable, and why.
    pub passed_over: Vec<PassedOver>,
    /// Which inputs changed since the last build of this context, where that was asked for and
    /// there was one.
    pub changes: Option<Vec<Change>>,
}

/// A backend of the list that was not there.
#[derive(Clone, Debug, Serialize)]
pub struct PassedOver {
    /// Its name.
    pub backend: String,
    /// Why it was unavailable.
    pub reason: String,
}

/// What a build would do.
#[derive(Clone, Debug, Serialize)]
pub struct BuildPlan {
    /// The backend that would be asked first.
    pub backend: String,
    /// The references the image would get.
    pub references: Vec<Reference>,
    /// The tag form of the fingerprint; `None` where nobody needs one.
    pub fingerprint: Option<String>,
    /// An image of this fingerprint that would be taken instead of a build.
    pub found: Option<FoundImage>,
    /// The stages of the Dockerfile, and which of them the target needs.
    pub stages: Vec<PlannedStage>,
    /// What the context holds.
    pub context: ContextSummary,
    /// What the backend would do, in order.
    pub actions: Vec<PlannedAction>,
}

/// What a context holds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ContextSummary {
    /// The number of files, links and directories.
    pub entries: usize,
    /// The size of all files together, in bytes.
    pub size_bytes: u64,
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
        let mut passed_over = Vec::new();
        for (index, backend) in self.backends.iter().enumerate() {
            let last = index + 1 == self.backends.len();
            match self.build_on(backend.as_ref(), request.clone(), options, job).await {
                Err(error) if !last && is_missing(backend.as_ref(), &error, job).await => {
                    let reason = error.to_string();
                    let name = backend.name().to_owned();
                    job.events.warn(format!("backend `{name}` is unavailable, trying the next: {reason}"));
                    passed_over.push(PassedOver { backend: name, reason });
                }
                result => return result.map(|report| BuildReport { passed_over, ..report }),
            }
        }
        Err(Error::new(ErrorKind::InvalidConfig, "no backend is configured"))
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

        if let Some(found) = find(backend, &wanted, options, job).await? {
            let image = take(backend, found, &wanted, job).await?;
            self.remember(&wanted, job);
            return Ok(report(image));
        }
        let image = backend.build(&wanted.request, job).await.map_err(|e| self.name_able(e, backend))?;
        self.remember(&wanted, job);
        Ok(report(image))
    }

    /// Says what [`Pipeline::build`] would do on the first backend. Nothing is sent or written.
    ///
    /// # Errors
    /// What `build` would refuse before it starts.
    pub async fn plan(
        &self,
        request: BuildRequest,
        options: &PipelineOptions,
        job: &Job,
    ) -> Result<BuildPlan> {
        let backend = self.backends[0].as_ref();
        let wanted = self.prepare(backend, request, options, job).await?;
        let found = match &wanted.fingerprint_reference {
            Some(reference) if options.reuse != Reuse::Never => {
                backend.find(reference, FindScope::Store, job).await?
            }
            _ => None,
        };
        let actions = backend.plan(&wanted.request, job).await.map_err(|e| self.name_able(e, backend))?;
        Ok(BuildPlan {
            backend: backend.name().to_owned(),
            references: wanted.request.tags.clone(),
            fingerprint: wanted.fingerprint.as_ref().map(Fingerprint::tag),
            found,
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
        for (feature, option) in request.needs() {
            if !backend.capabilities().has(feature) {
                let message = format!("`{option}` cannot be used with the backend `{}`", backend.name());
                return Err(self.name_able(Error::unsupported(feature, message), backend));
            }
        }
        check_outputs(&request)?;
        let mut wanted = Wanted { request, fingerprint: None, fingerprint_reference: None };
        let untagged = wanted.request.tags.is_empty() && keeps_image(&wanted.request);
        if untagged || options.reuse == Reuse::Always || options.explain {
            let fingerprint = self.fingerprint(&wanted.request, job).await?;
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

    async fn fingerprint(&self, request: &BuildRequest, job: &Job) -> Result<Fingerprint> {
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
            let entries = request.context.list(job)?;
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
        let record = Record::of(fingerprint);
        if let Err(error) = record.save(&self.host.state_dir, root, &request.dockerfile.shown) {
            job.events.warn(format!("this build is not recorded for `--explain`: {error}"));
        }
    }
}

/// Tells a backend that is not there from one whose registry is not: another backend would meet
/// the same registry. The backend's own check knows.
async fn is_missing(backend: &dyn Backend, error: &Error, job: &Job) -> bool {
    error.kind().is_unavailable() && !backend.check(job).await.is_good()
}

/// A request whose references are settled.
struct Wanted {
    request: BuildRequest,
    fingerprint: Option<Fingerprint>,
    /// The reference whose tag is the fingerprint, where the image gets one.
    fingerprint_reference: Option<Reference>,
}

/// Only an image that stays in a store or a registry can be found there again.
fn keeps_image(request: &BuildRequest) -> bool {
    request.outputs.iter().any(|output| output.kind == OutputKind::Image || output.loads())
}

fn check_outputs(request: &BuildRequest) -> Result<()> {
    let named = |name: &str| request.outputs.iter().any(|output| output.attributes.contains_key(name));
    if request.pushes() && request.tags.is_empty() && !named("name") {
        return Err(Error::new(ErrorKind::InvalidInput, "nothing says where to push the image")
            .with_hint("name it: `--tag registry/repository:tag`"));
    }
    Ok(())
}

/// `localhost/<name of the context directory>`, in the letters that a repository may have.
fn local_repository(request: &BuildRequest) -> Result<Reference> {
    let name = request.context.root().and_then(|root| root.file_name()).unwrap_or_default();
    let lower = name.to_string_lossy().to_ascii_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let slug = words.collect::<Vec<_>>().join("-");
    let slug = if slug.is_empty() { "image" } else { &slug[..slug.len().min(100)] };
    format!("{LOCAL_REGISTRY}/{}", slug.trim_end_matches('-')).parse()
}

/// Looks for an image of this fingerprint where the outputs want it to be.
async fn find(
    backend: &dyn Backend,
    wanted: &Wanted,
    options: &PipelineOptions,
    job: &Job,
) -> Result<Option<FoundImage>> {
    let findable = |kind| matches!(kind, OutputKind::Image | OutputKind::Registry);
    let all = wanted.request.outputs.iter().all(|output| findable(output.kind) || output.loads());
    match &wanted.fingerprint_reference {
        Some(reference) if all && options.reuse != Reuse::Never && !wanted.request.no_cache => {
            let scope = if wanted.request.pushes() { FindScope::Registry } else { FindScope::Store };
            let step = job.events.step(format!("looking for {}", reference.familiar()));
            let found = job.run(backend.find(reference, scope, job)).await;
            match &found {
                Ok(Some(_)) => step.cached(),
                Ok(None) => step.done(),
                Err(error) => step.failed(error),
            }
            found
        }
        _ => Ok(None),
    }
}

/// Gives a found image the references that a built one would have got.
async fn take(backend: &dyn Backend, found: FoundImage, wanted: &Wanted, job: &Job) -> Result<BuiltImage> {
    let references = wanted.request.tags.clone();
    let missing: Vec<Reference> =
        references.iter().filter(|reference| **reference != found.reference).cloned().collect();
    if !missing.is_empty() {
        backend.tag(&found, &missing, job).await?;
    }
    Ok(BuiltImage {
        references,
        digest: found.digest,
        image_id: found.image_id,
        platforms: found.platforms,
        backend: backend.name().to_owned(),
        reused: true,
        written: Vec::new(),
        metadata: serde_json::Map::new(),
    })
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

//! A runtime image from its recipe: name it, ask what exists, decide, build.
//!
//! The pipeline builds, so lists of backends, progress and reports are those of every build. Each backend
//! of a list is asked itself: what exists for one does not for another.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::Recipe;
use super::decide::Decision;
use super::inputs::{Hashes, Inputs};
use super::names::RuntimeNames;
use super::options::RuntimeOptions;
use super::prepare::{Decided, Purpose, Work};
use crate::backend::{Backend, Job};
use crate::backend_registry::Host;
use crate::context;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{BuildPlan, BuildReport, PassedOver, Pipeline};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::request::{BuildRequest, BuiltImage};

/// What [`build_runtime`] would do.
#[derive(Clone, Debug, Serialize)]
pub struct RuntimePlan {
    /// The recipe, whole.
    #[serde(serialize_with = "whole")]
    pub recipe: Arc<Recipe>,
    /// Every name of the image.
    pub names: RuntimeNames,
    /// What would be done, and why.
    pub decision: Decision,
    /// The reference of the result.
    pub result: Reference,
    /// The Dockerfile that would be built: rendered for the mode. `None` where nothing would be built.
    pub dockerfile: Option<String>,
    /// What the backend would do; `None` where nothing would be built, or the backend cannot.
    pub build: Option<BuildPlan>,
    /// Why the backend cannot build the Dockerfile, and who can: what [`build_runtime`] would fail with.
    #[serde(serialize_with = "message")]
    pub refusal: Option<Error>,
    /// The configured name of the backend that was asked.
    pub backend: String,
    /// The backends of the list that are unavailable, and why.
    pub passed_over: Vec<PassedOver>,
    /// Where the build folder was written, if that was asked for.
    pub build_folder: Option<PathBuf>,
}

fn whole<S: Serializer>(recipe: &Arc<Recipe>, serializer: S) -> Result<S::Ok, S::Error> {
    recipe.as_ref().serialize(serializer)
}

fn message<S: Serializer>(error: &Option<Error>, serializer: S) -> Result<S::Ok, S::Error> {
    error.as_ref().map(ToString::to_string).serialize(serializer)
}

/// What became of a runtime image.
#[derive(Clone, Debug, Serialize)]
pub struct RuntimeReport {
    /// Every name of the image.
    pub names: RuntimeNames,
    /// What was done, and why.
    pub decision: Decision,
    /// The reference of the result, which exists now.
    pub result: Reference,
    /// The digest of the result, where it is known.
    pub digest: Option<Digest>,
    /// What was built or found.
    pub build: BuildReport,
    /// Where the build folder was written, if that was asked for.
    pub build_folder: Option<PathBuf>,
}

/// Says what [`build_runtime`] would do: asks which images exist, and builds nothing.
///
/// # Errors
/// As [`build_runtime`] until it builds; but a Dockerfile that the backend cannot build is told in the plan.
pub async fn plan_runtime(
    pipeline: &Pipeline,
    options: &RuntimeOptions,
    host: &Host,
    job: &Job,
) -> Result<RuntimePlan> {
    let inputs = Inputs::read(options, host, job).await?;
    let work = Work { pipeline, options, inputs, host, job };
    let (plan, passed_over) = pipeline.first_available(job, |backend| work.plan(backend)).await?;
    Ok(RuntimePlan { passed_over, ..plan })
}

/// Makes a runtime image, or finds it: see [`super::decide()`].
///
/// # Errors
/// `InvalidInput` for what is missing or cannot be a name, before anything is hashed or asked; `Unsupported`
/// where the backend cannot build what the mode needs, before anything is packed; `NotFound` for a base image
/// that does not exist; `ContextUnreadable` where the sources changed meanwhile; what the questions and the
/// build meet.
pub async fn build_runtime(
    pipeline: &Pipeline,
    options: &RuntimeOptions,
    host: &Host,
    job: &Job,
) -> Result<RuntimeReport> {
    let inputs = Inputs::read(options, host, job).await?;
    let work = Work { pipeline, options, inputs, host, job };
    let (report, passed_over) = pipeline.first_available(job, |backend| work.build(backend)).await?;
    Ok(RuntimeReport { build: BuildReport { passed_over, ..report.build }, ..report })
}

impl Work<'_> {
    async fn plan(&self, backend: Arc<dyn Backend>) -> Result<RuntimePlan> {
        let backend = backend.as_ref();
        let decided = self.decide(backend, Purpose::Plan).await?;
        let result = decided.result();
        let Decided { names, decision, request, refusal, build_folder, .. } = decided;
        let dockerfile = request.as_ref().map(text_of);
        let build = match request {
            Some(request) if refusal.is_none() => {
                Some(self.pipeline.plan_with(backend, request, self.job).await?)
            }
            _ => None,
        };
        Ok(RuntimePlan {
            recipe: self.options.recipe.clone(),
            names,
            decision,
            result,
            dockerfile,
            build,
            backend: backend.name().to_owned(),
            passed_over: Vec::new(),
            refusal,
            build_folder,
        })
    }

    async fn build(&self, backend: Arc<dyn Backend>) -> Result<RuntimeReport> {
        let backend = backend.as_ref();
        let decided = self.decide(backend, Purpose::Build).await?;
        let mut result = decided.result();
        let Decided { names, hashes, decision, request, build_folder, .. } = decided;
        let build = match request {
            None => self.reuse(backend, &decision).await?,
            Some(request) => {
                self.list(&request).await?;
                // The questions took their time. Nothing may be published under a tag that it is not.
                self.check_unchanged(&hashes).await.map_err(|error| error.with_hint("build again"))?;
                let built = self.pipeline.build_with(backend, request, self.job).await?;
                self.check_unchanged(&hashes).await.map_err(|error| {
                    error.with_detail("image", result.familiar()).with_hint(
                        "build again with `--force-rebuild`: the image may not be what its tag says",
                    )
                })?;
                built
            }
        };
        let mut digest = build.image.digest;
        match &decision {
            // A service may spell it otherwise.
            Decision::Build { tags, .. } if tags.contains(&result) => {
                if let Some(first) = build.image.references.first() {
                    result.clone_from(first);
                }
            }
            Decision::Build { .. } => {
                let kept = decision.answers().iter().find(|answer| answer.reference == result);
                digest = kept.and_then(|answer| answer.found()?.digest);
                let name = result.familiar();
                self.job
                    .events
                    .warn(format!("`{name}` exists and stays as it is: what was built has the other tags"));
            }
            Decision::Reuse { image, .. } => result.clone_from(&image.reference),
        }
        Ok(RuntimeReport { names, decision, result, digest, build, build_folder })
    }

    /// The image that exists, with the further references that a built one would have got.
    async fn reuse(&self, backend: &dyn Backend, decision: &Decision) -> Result<BuildReport> {
        let Decision::Reuse { image, .. } = decision else {
            return Err(Error::new(ErrorKind::NotFound, "there is nothing to reuse"));
        };
        let wanted = Platform::host();
        let fits = |platform: &Platform| wanted.accepts(platform);
        if self.options.platforms.is_empty()
            && !image.platforms.is_empty()
            && !image.platforms.iter().any(fits)
        {
            let name = image.reference.familiar();
            let offered: Vec<String> = image.platforms.iter().map(ToString::to_string).collect();
            self.job
                .events
                .warn(format!("`{name}` is for {}, and this machine is {wanted}", offered.join(", ")));
        }
        let further = &self.options.further_tags;
        if !further.is_empty() {
            backend.tag(image, further, self.job).await?;
        }
        let references = [image.reference.clone()].into_iter().chain(further.iter().cloned()).collect();
        Ok(BuildReport {
            image: BuiltImage::found(image.clone(), references, backend.name()),
            fingerprint: None,
            passed_over: Vec::new(),
            changes: None,
        })
    }

    /// Lists the sources, so that what is built is what is there now, and says what the user should know about
    /// them, such as keys among them.
    async fn list(&self, request: &BuildRequest) -> Result<()> {
        let context = request.context.clone();
        let list = move |job: &Job| context::warnings(&context, &context.list_once(job)?, job);
        self.job.blocking(list).await
    }

    /// What the tags say must be what is built: the sources are hashed before they are listed, and read even
    /// later.
    async fn check_unchanged(&self, before: &Hashes) -> Result<()> {
        if self.inputs.hashes(self.job).await? == *before {
            return Ok(());
        }
        let message =
            format!("the sources `{}` changed after they were hashed", self.options.source.display());
        Err(Error::new(ErrorKind::ContextUnreadable, message))
    }
}

fn text_of(request: &BuildRequest) -> String {
    String::from_utf8_lossy(&request.dockerfile.content).into_owned()
}

#[cfg(test)]
mod tests;

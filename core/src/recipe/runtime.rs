//! A runtime image from its recipe: name it, ask what exists, decide, build.
//!
//! The pipeline builds, so lists of backends, progress and reports are those of every build. Each backend
//! of a list is asked itself: what exists for one does not for another.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::decide::{Decision, Inquiry, decide};
use super::inputs::{Hashes, Inputs};
use super::names::{RuntimeNames, RuntimeTags, names, repository};
use super::options::RuntimeOptions;
use super::{BuildFolder, Mode, Recipe};
use crate::backend::{Backend, Feature, FindScope, FoundImage, Job};
use crate::backend_registry::Host;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{BuildPlan, BuildReport, PassedOver, Pipeline};
use crate::reference::Reference;
use crate::request::{BuildRequest, BuiltImage};

/// What [`build_runtime`] would do.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
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
    /// What the backend would do; `None` where nothing would be built.
    pub build: Option<BuildPlan>,
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

/// What became of a runtime image.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
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
/// As [`build_runtime`] until it builds.
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

/// Makes a runtime image, or finds it: see [`super::decide`].
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
    let (report, passed_over) =
        pipeline.first_available(job, |backend| work.build(backend)).await?;
    Ok(RuntimeReport { build: BuildReport { passed_over, ..report.build }, ..report })
}

/// One image on its way.
struct Work<'a> {
    pipeline: &'a Pipeline,
    options: &'a RuntimeOptions,
    inputs: Inputs,
    host: &'a Host,
    job: &'a Job,
}

/// What is known before anything is built.
struct Decided {
    names: RuntimeNames,
    hashes: Hashes,
    decision: Decision,
    /// What is built; `None` where nothing is.
    request: Option<BuildRequest>,
    build_folder: Option<PathBuf>,
}

impl Work<'_> {
    async fn plan(&self, backend: Arc<dyn Backend>) -> Result<RuntimePlan> {
        let backend = backend.as_ref();
        let decided = self.decide(backend).await?;
        let result = decided.result();
        let Decided { names, decision, request, build_folder, .. } = decided;
        let dockerfile = request.as_ref().map(|request| text_of(request));
        let build = match request {
            Some(request) => Some(self.pipeline.plan_with(backend, request, self.job).await?),
            None => None,
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
            build_folder,
        })
    }

    async fn build(&self, backend: Arc<dyn Backend>) -> Result<RuntimeReport> {
        let backend = backend.as_ref();
        let decided = self.decide(backend).await?;
        let mut result = decided.result();
        let Decided { names, hashes, decision, request, build_folder } = decided;
        let build = match request {
            None => self.reuse(backend, &decision).await?,
            Some(request) => {
                let built = self.pipeline.build_with(backend, request, self.job).await?;
                self.check_unchanged(&hashes, &result).await?;
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
                digest = decision
                    .answers()
                    .iter()
                    .find_map(|answer| answer.found())
                    .filter(|found| found.reference == result)
                    .and_then(|found| found.digest);
                let name = result.familiar();
                self.job
                    .events
                    .warn(format!("`{name}` exists and stays as it is: what was built has the other tags"));
            }
            Decision::Reuse { image, .. } => result.clone_from(&image.reference),
        }
        Ok(RuntimeReport { names, decision, result, digest, build, build_folder })
    }

    /// Everything up to the build.
    async fn decide(&self, backend: &dyn Backend) -> Result<Decided> {
        self.refuse_early(backend).await?;
        let (options, job) = (self.options, self.job);
        let (repository, from) = repository(options, Some(backend), self.host, job).await?;
        let hashes = self.inputs.hashes(job).await?;
        let names = names(options, &self.inputs, &hashes, repository, from)?;
        let mut decision = self.ask(backend, &names).await?;
        if let Decision::Build { mode, base_image, tags, .. } = &mut decision {
            self.keep_one_name(backend, tags);
            tags.extend(options.further_tags.iter().cloned());
            if *mode == Mode::Scratch {
                self.check_base(backend, base_image).await?;
            }
        }
        let request = match &decision {
            Decision::Reuse { .. } => None,
            Decision::Build { mode, base_image, tags, .. } => {
                let mut request = self.request(*mode, base_image).await?;
                request.tags.clone_from(tags);
                if !backend.capabilities().has(Feature::Run) {
                    self.refuse_unsupported(backend, *mode, &request).await?;
                }
                Some(request)
            }
        };
        let build_folder = self.write_folder(&names, &decision, request.as_ref()).await?;
        Ok(Decided { names, hashes, decision, request, build_folder })
    }

    /// Refuses what this backend can never build, before anything is hashed or asked.
    async fn refuse_early(&self, backend: &dyn Backend) -> Result<()> {
        let decided = self.options.force_rebuild || self.options.recipe.scheme().is_some();
        if !decided || backend.capabilities().has(Feature::Run) {
            return Ok(());
        }
        let request = self.request(Mode::Scratch, &self.options.base_image).await?;
        self.refuse_unsupported(backend, Mode::Scratch, &request).await
    }

    async fn refuse_unsupported(
        &self,
        backend: &dyn Backend,
        mode: Mode,
        request: &BuildRequest,
    ) -> Result<()> {
        let refusal = self.pipeline.refuse_unsupported(backend, request, self.job).await;
        refusal.map_err(|error| self.refused(backend, mode, error))
    }

    /// The error of a backend that cannot build the Dockerfile of a mode.
    fn refused(&self, backend: &dyn Backend, mode: Mode, error: Error) -> Error {
        let Some(feature) = error.feature().filter(|feature| *feature == Feature::Run) else { return error };
        let (recipe, name) = (&self.options.recipe, backend.name());
        let message = match recipe.scheme() {
            Some(_) => format!("the backend `{name}` cannot build the recipe `{}`", recipe.name),
            None => {
                format!("the backend `{name}` cannot build the recipe `{}` in the mode `{mode}`", recipe.name)
            }
        };
        let refused = Error::unsupported(feature, message).with_source(error);
        match mode != Mode::Lock && recipe.has_mode(Mode::Lock) && self.options.extra_deps.is_empty() {
            true => refused.with_hint(format!(
                "build it once where that works: `{name}` can go on from its lock image, as only the sources are new then"
            )),
            false => refused,
        }
    }

    async fn ask(&self, backend: &dyn Backend, names: &RuntimeNames) -> Result<Decision> {
        let options = self.options;
        match &names.tags {
            RuntimeTags::Hashes { source, lock, versioned, .. } => {
                let inquiry = Inquiry {
                    base_image: &options.base_image,
                    source,
                    lock: lock.as_ref(),
                    versioned: versioned.as_ref(),
                    modes: &options.recipe.modes,
                    force_rebuild: options.force_rebuild,
                    pushes: options.pushes(),
                    writes_files: options.writes_files(),
                };
                decide(backend, &inquiry, self.job).await
            }
            RuntimeTags::AgentServer { all, .. } => Ok(Decision::Build {
                mode: Mode::Scratch,
                base_image: options.base_image.clone(),
                tags: all.clone(),
                kept: Vec::new(),
                why: "the recipe has no images to build on".to_owned(),
                answers: Vec::new(),
            }),
        }
    }

    /// A backend that gives its images one name gives them the first.
    fn keep_one_name(&self, backend: &dyn Backend, tags: &mut Vec<Reference>) {
        if !backend.capabilities().one_name || tags.len() < 2 {
            return;
        }
        let others: Vec<String> =
            tags.split_off(1).iter().map(|tag| format!("`{}`", tag.familiar())).collect();
        self.job.events.warn(format!(
            "the backend `{}` gives an image one name: {} will not exist, and nothing can be built on it",
            backend.name(),
            others.join(" and ")
        ));
    }

    /// A base image that does not exist is named before an hour of work ends in it. A service looks for
    /// names in its own registry, and so cannot be asked.
    async fn check_base(&self, backend: &dyn Backend, base_image: &str) -> Result<()> {
        if backend.remote().is_some() || base_image == "scratch" {
            return Ok(());
        }
        let reference: Reference = base_image.parse()?;
        match self.job.run(backend.find(&reference, FindScope::StoreThenRegistry, self.job)).await {
            Ok(None) => {
                let message = format!("there is no base image `{base_image}`");
                Err(Error::new(ErrorKind::NotFound, message)
                    .with_source("it is neither here nor in its registry".to_owned())
                    .with_hint("name another: `--base-image IMAGE`"))
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            // The build says it in its own words, if it needs it.
            Ok(Some(_)) | Err(_) => Ok(()),
        }
    }

    /// Renders the Dockerfile and puts the build folder together.
    async fn request(&self, mode: Mode, base_image: &str) -> Result<BuildRequest> {
        let folder = self.folder(mode, base_image).await?;
        Ok(self.options.apply(BuildRequest::new(folder.context, folder.dockerfile)))
    }

    async fn folder(&self, mode: Mode, base_image: &str) -> Result<BuildFolder> {
        let options = self.options;
        let dockerfile = options.recipe.render(&options.render_input(mode, base_image))?;
        let (recipe, settings) = (options.recipe.clone(), options.context.clone());
        let source = self.inputs.source().to_owned();
        self.job.blocking(move |job| recipe.build_folder(&source, dockerfile, &settings, job)).await
    }

    /// Writes the build folder where the user wants to see it; of an image that exists, the one that it
    /// would be built from.
    async fn write_folder(
        &self,
        names: &RuntimeNames,
        decision: &Decision,
        request: Option<&BuildRequest>,
    ) -> Result<Option<PathBuf>> {
        let Some(directory) = &self.options.build_folder else { return Ok(None) };
        let folder = match request {
            Some(request) => {
                BuildFolder { context: request.context.clone(), dockerfile: request.dockerfile.clone() }
            }
            None => {
                let (mode, base_image) = decision.start(&self.options.base_image);
                self.folder(mode, &base_image).await?
            }
        };
        let added = match (names.hashed(), &names.tags) {
            (Some(tags), RuntimeTags::Hashes { generic, .. }) => {
                let generic = generic.as_deref().unwrap_or_default();
                let tag = generic.rsplit_once([':', '@']).map_or(generic, |(_, tag)| tag);
                self.options.recipe.config_lines(&names.repository, tag, &tags)?
            }
            _ => None,
        };
        let (at, shown) = (self.host.current_dir.clone(), directory.clone());
        let written = shown.clone();
        self.job.blocking(move |job| folder.write(&written, &at, added.as_ref(), job)).await?;
        Ok(Some(shown))
    }

    /// The image that exists, with the further references that a built one would have got.
    async fn reuse(&self, backend: &dyn Backend, decision: &Decision) -> Result<BuildReport> {
        let Decision::Reuse { image, .. } = decision else {
            return Err(Error::new(ErrorKind::NotFound, "there is nothing to reuse"));
        };
        let further = &self.options.further_tags;
        if !further.is_empty() {
            backend.tag(image, further, self.job).await?;
        }
        let references = [image.reference.clone()].into_iter().chain(further.iter().cloned()).collect();
        Ok(BuildReport {
            image: found_image(backend, image, references),
            fingerprint: None,
            passed_over: Vec::new(),
            changes: None,
        })
    }

    /// The sources are read by the build after they were hashed. What their tag says must be what is in
    /// the image.
    async fn check_unchanged(&self, before: &Hashes, result: &Reference) -> Result<()> {
        if self.inputs.hashes(self.job).await? == *before {
            return Ok(());
        }
        Err(Error::new(ErrorKind::ContextUnreadable, "the sources changed while the image was built")
            .with_detail("image", result.familiar())
            .with_hint("build again with `--force-rebuild`: the image may not be what its tag says"))
    }
}

impl Decided {
    /// The reference of the result, as it is named here.
    fn result(&self) -> Reference {
        match &self.names.tags {
            RuntimeTags::Hashes { source, .. } => source.clone(),
            RuntimeTags::AgentServer { all, .. } => all[0].clone(),
        }
    }
}

fn text_of(request: &BuildRequest) -> String {
    String::from_utf8_lossy(&request.dockerfile.content).into_owned()
}

fn found_image(backend: &dyn Backend, found: &FoundImage, references: Vec<Reference>) -> BuiltImage {
    BuiltImage {
        references,
        digest: found.digest,
        image_id: found.image_id,
        platforms: found.platforms.clone(),
        backend: backend.name().to_owned(),
        reused: true,
        written: Vec::new(),
        metadata: serde_json::Map::new(),
    }
}

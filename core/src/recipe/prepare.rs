//! Everything about a runtime image up to its build: names, questions, decision, build folder.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::agent_server::Target;
use super::decide::{Decision, Inquiry, decide};
use super::inputs::{Hashes, Inputs};
use super::names::{RuntimeNames, RuntimeTags, names, repository};
use super::options::RuntimeOptions;
use super::owned_folder::FolderGuard;
use super::{BuildFolder, Mode, RenderInput};
use crate::backend::{Backend, Feature, FindScope, Job};
use crate::backend_registry::Host;
use crate::dockerfile;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Pipeline;
use crate::reference::Reference;
use crate::request::BuildRequest;

/// One image on its way.
pub(super) struct Work<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) options: &'a RuntimeOptions,
    pub(super) inputs: Inputs,
    pub(super) host: &'a Host,
    pub(super) job: &'a Job,
}

/// What is known before anything is built.
pub(super) struct Decided {
    pub(super) names: RuntimeNames,
    pub(super) hashes: Hashes,
    pub(super) decision: Decision,
    /// What is built; `None` where nothing is.
    pub(super) request: Option<BuildRequest>,
    /// Why the backend cannot build the Dockerfile. Only of a plan: a build has ended in it.
    pub(super) refusal: Option<Error>,
    pub(super) build_folder: Option<PathBuf>,
}

/// What is decided for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Only to be told.
    Plan,
    Build,
}

impl Work<'_> {
    /// Everything up to the build, or what a build would refuse.
    pub(super) async fn decide(&self, backend: &dyn Backend, purpose: Purpose) -> Result<Decided> {
        self.refuse_options(backend)?;
        if purpose == Purpose::Build {
            self.refuse_early(backend).await?;
        }
        let (options, job) = (self.options, self.job);
        let (repository, from) = repository(options, Some(backend), self.host, job).await?;
        let hashes = self.inputs.hashes(job).await?;
        let names = names(options, &self.inputs, &hashes, repository, from)?;
        let mut decision = self.ask(backend, &names).await?;
        if let Decision::Build { tags, .. } = &mut decision {
            tags.extend(options.further_tags.iter().cloned());
            self.keep_one_name(backend, tags);
        }
        let mut refusal = None;
        let request = match &decision {
            Decision::Reuse { .. } => None,
            Decision::Build { mode, base_image, tags, .. } => {
                let mut request = self.request(*mode, base_image).await?;
                request.tags.clone_from(tags);
                if !backend.capabilities().has(Feature::Run) {
                    match (self.refuse_dockerfile(backend, *mode, &request).await, purpose) {
                        (Err(error), Purpose::Plan) if error.kind() == ErrorKind::Unsupported => {
                            refusal = Some(error);
                        }
                        (checked, _) => checked?,
                    }
                }
                if *mode == Mode::Scratch && refusal.is_none() {
                    self.check_base(backend, base_image).await?;
                }
                Some(request)
            }
        };
        let build_folder = self.write_folder(&names, &decision, request.as_ref()).await?;
        Ok(Decided { names, hashes, decision, request, refusal, build_folder })
    }

    /// Refuses options that this backend does not have.
    fn refuse_options(&self, backend: &dyn Backend) -> Result<()> {
        let nothing = self.options.recipe.bare_folder(String::new(), &self.options.context);
        let options = self.options.apply(BuildRequest::new(nothing.context, nothing.dockerfile));
        self.pipeline.refuse_options(backend, &options)
    }

    /// Refuses what this backend can never build, before anything is hashed or asked.
    async fn refuse_early(&self, backend: &dyn Backend) -> Result<()> {
        let decided = self.options.force_rebuild || self.options.recipe.scheme().is_some();
        if !decided || backend.capabilities().has(Feature::Run) {
            return Ok(());
        }
        let request = self.request(Mode::Scratch, &self.options.base_image).await?;
        self.refuse_dockerfile(backend, Mode::Scratch, &request).await
    }

    async fn refuse_dockerfile(
        &self,
        backend: &dyn Backend,
        mode: Mode,
        request: &BuildRequest,
    ) -> Result<()> {
        let refusal = self.pipeline.refuse_dockerfile(backend, request, self.job).await;
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
            RuntimeTags::Hashes { source, lock, versioned, extension, .. } => {
                let inquiry = Inquiry {
                    base_image: &options.base_image,
                    source,
                    lock: lock.as_ref(),
                    versioned: versioned.as_ref(),
                    modes: &options.recipe.modes,
                    extended: !extension.is_empty(),
                    force_rebuild: options.force_rebuild,
                    pushes: options.pushes(),
                    stays_here_too: options.stays_here_too(),
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
        let request = self.options.apply(BuildRequest::new(folder.context, folder.dockerfile));
        Ok(if self.options.recipe.scheme().is_some() { self.fit(request) } else { request })
    }

    /// What agent-server gives a Dockerfile that asks for it, as one does that is not written for windlass: a
    /// stage for each target, and the facts about the sources as ARG.
    fn fit(&self, mut request: BuildRequest) -> BuildRequest {
        let target = self.options.target.unwrap_or(Target::Binary).name();
        // A Dockerfile that this reader refuses is the backend's to refuse, in its own words.
        let stages = dockerfile::plan(&request).unwrap_or_default();
        let names: Vec<_> = stages.iter().map(|stage| stage.name.as_deref()).collect();
        if names.contains(&Some(target)) && names.last() != Some(&Some(target)) {
            request.target = Some(target.to_owned());
        }
        let inputs = &self.inputs;
        let text = String::from_utf8_lossy(&request.dockerfile.content).into_owned();
        for (name, value) in [
            ("BASE_IMAGE", Some(self.options.base_image.as_str())),
            ("OPENHANDS_BUILD_GIT_SHA", inputs.commit.as_deref()),
            ("OPENHANDS_BUILD_GIT_REF", inputs.git_reference.as_deref()),
        ] {
            if declares(&text, name) {
                let given = request.build_args.entry(name.to_owned());
                given.or_insert_with(|| value.unwrap_or("unknown").to_owned());
            }
        }
        request
    }

    /// The variables that were set, and what is known of the commit, for recipes whose images say where they
    /// come from.
    fn variables(&self) -> BTreeMap<String, Value> {
        let recipe = &self.options.recipe;
        // It is text of a Dockerfile there: what is no name of a commit must not end its line.
        let is_name = |text: &String| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b));
        let known = [("git_sha", &self.inputs.commit), ("git_ref", &self.inputs.git_reference)];
        let takes =
            |name| recipe.scheme().is_some() && recipe.variables.get(name).is_some_and(Value::is_string);
        let known = known.into_iter().filter(|(name, _)| takes(*name)).filter_map(|(name, value)| {
            let value = value.clone().filter(is_name)?;
            Some((name.to_owned(), Value::from(value)))
        });
        known.chain(self.options.variables.clone()).collect()
    }

    async fn folder(&self, mode: Mode, base_image: &str) -> Result<BuildFolder> {
        let options = self.options;
        let variables = self.variables();
        let input = options.render_input(mode, base_image);
        let dockerfile = options.recipe.render(&RenderInput { variables: &variables, ..input })?;
        let (recipe, settings) = (options.recipe.clone(), options.context.clone());
        let target = options.target.unwrap_or(Target::Binary);
        if recipe.scheme().is_some() && !target.needs_sources() {
            return Ok(recipe.bare_folder(dockerfile, &settings));
        }
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
                // A digest has a colon of its own.
                let parts = generic.split_once('@').or_else(|| generic.rsplit_once(':'));
                let tag = parts.map_or(generic, |(_, tag)| tag);
                self.options.recipe.config_lines(&names.repository, tag, &tags)?
            }
            _ => None,
        };
        let (shown, written) = (directory.clone(), directory.clone());
        let (current_dir, home_dir) = (self.host.current_dir.clone(), self.host.home_dir.clone());
        let write = move |job: &Job| {
            let guard = FolderGuard { home_dir: home_dir.as_deref(), ..FolderGuard::new(&current_dir) };
            folder.write(&written, guard, added.as_ref(), job)
        };
        self.job.blocking(write).await?;
        Ok(Some(shown))
    }
}

/// Says whether a Dockerfile has an ARG of this name.
fn declares(dockerfile: &str, name: &str) -> bool {
    let argument = |line: &str| {
        let (word, rest) = line.trim().split_once(char::is_whitespace)?;
        let declared = rest.split_whitespace().any(|word| word.split('=').next() == Some(name));
        Some(word.eq_ignore_ascii_case("ARG") && declared)
    };
    dockerfile.lines().any(|line| argument(line) == Some(true))
}

impl Decided {
    /// The reference of the result, as it is named here.
    pub(super) fn result(&self) -> Reference {
        match &self.names.tags {
            RuntimeTags::Hashes { source, .. } => source.clone(),
            RuntimeTags::AgentServer { all, .. } => all[0].clone(),
        }
    }
}

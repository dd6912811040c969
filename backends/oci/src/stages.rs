//! Interpreting stages: only those that the target needs, each once, and at the same time.

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use windlass_core::backend::Job;
use windlass_core::digest::Digest;
use windlass_core::dockerfile::{
    self, Base, Dockerfile, Expander, Instruction, InstructionKind, Location, PlanInput, StagePlan,
};
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::platform::Platform;
use windlass_core::request::{BuildRequest, NamedContext};

use crate::base::Bases;
use crate::instructions::{self, Expanded, Origin};
use crate::layer::Change;
use crate::owner::{Owner, OwnerSpec};
use crate::preflight;
use crate::schedule::{self, OnceEach, Waits};
use crate::stage::{Layer, Stage};
use crate::tree::{Content, NodeKind, Stream, Tree};
use crate::workshop::Workshop;

/// Larger than any `passwd` of an image.
const PASSWD_LIMIT_BYTES: u64 = 16 << 20;

/// Interprets the stages of a Dockerfile for one platform: all that do not need each other at the
/// same time.
pub(crate) struct Interpreter<'a> {
    dockerfile: &'a Dockerfile,
    request: &'a BuildRequest,
    plan: StagePlan,
    platform: Platform,
    created: String,
    bases: &'a Bases,
    workshop: &'a Workshop,
    /// One for each stage.
    jobs: Vec<Job>,
    stages: OnceEach<usize, Arc<Stage>>,
    waits: Waits,
    /// The stages whose layers become those of the image.
    exported: BTreeSet<usize>,
}

impl<'a> Interpreter<'a> {
    /// Prepares to build one platform.
    ///
    /// # Errors
    /// As [`StagePlan::new`].
    pub(crate) fn new(
        dockerfile: &'a Dockerfile,
        request: &'a BuildRequest,
        platform: Platform,
        created: String,
        bases: &'a Bases,
        workshop: &'a Workshop,
        job: &Job,
    ) -> Result<Self> {
        let host = Platform::host();
        let plan = StagePlan::new(dockerfile, &PlanInput::of(request, &platform, &host))?;
        let jobs = schedule::jobs(job, plan.stages.len());
        let (stages, waits) = Default::default();
        let mut exported = BTreeSet::from([plan.target]);
        let mut stage = plan.target;
        while let Base::Stage(base) = plan.stages[stage].base
            && exported.insert(base)
        {
            stage = base;
        }
        let interpreter = Self {
            dockerfile,
            request,
            plan,
            platform,
            created,
            bases,
            workshop,
            jobs,
            stages,
            waits,
            exported,
        };
        interpreter.note_what_is_written();
        Ok(interpreter)
    }

    /// Builds the target stage, and all that it needs.
    ///
    /// # Errors
    /// Those of the instructions, with the line; those of base images and contexts. Where several
    /// stages fail, that of the first in the Dockerfile.
    pub(crate) async fn target(&self) -> Result<Arc<Stage>> {
        let needed = |index: &usize| self.plan.stages[*index].needed;
        let works = (0..self.plan.stages.len()).filter(needed);
        schedule::together(works.map(|index| (&self.jobs[index], self.stage(index)))).await?;
        self.stage(self.plan.target).await
    }

    /// Notes which stages need which, as far as the Dockerfile says so. A circle can then only be
    /// closed by the trigger of a base image, and that is the one that is refused.
    fn note_what_is_written(&self) {
        for (index, resolved) in self.plan.stages.iter().enumerate() {
            if let Base::Stage(base) = resolved.base {
                self.waits.note(index, base);
            }
            let written = self.dockerfile.stages[index].instructions.iter();
            for instruction in written.filter(|_| resolved.needed && !resolved.replaced) {
                if let Some(Ok(Base::Stage(source))) = self.copy_source(instruction) {
                    self.waits.note(index, source);
                }
            }
        }
    }

    /// What a COPY or ADD with `--from` copies from.
    fn copy_source(&self, instruction: &Instruction) -> Option<Result<Base>> {
        let (InstructionKind::Copy(copy) | InstructionKind::Add(copy)) = &instruction.kind else {
            return None;
        };
        let (from, contexts) = (copy.from.as_deref()?, &self.request.build_contexts);
        Some(StagePlan::copy_source(self.dockerfile, from, instruction.location, contexts))
    }

    /// Builds a stage, or gives the one that was built before. Boxed, because stages need stages.
    fn stage(&self, index: usize) -> Pin<Box<dyn Future<Output = Result<Arc<Stage>>> + Send + '_>> {
        Box::pin(async move {
            let job = &self.jobs[index];
            let build = async {
                job.check()?;
                schedule::beside(job, self.build(index), self.fetch_ahead(index)).await.map(Arc::new)
            };
            self.stages.get(index, Box::pin(build)).await
        })
    }

    /// A stage that another one needs.
    async fn needed_stage(&self, index: usize, needs: usize) -> Result<Arc<Stage>> {
        // Only an ONBUILD trigger of a base image can ask for this: the plan knows all else.
        if !self.waits.note(index, needs) {
            return Err(schedule::needs_itself(&self.dockerfile.stages[needs].label()));
        }
        self.stage(needs).await
    }

    /// Lists the contexts and fetches the images that a stage copies from, while its base is on the
    /// way. What fails here, fails again when the instruction comes that needs it.
    async fn fetch_ahead(&self, index: usize) {
        let resolved = &self.plan.stages[index];
        let mut wanted = Vec::new();
        for instruction in self.dockerfile.stages[index].instructions.iter().filter(|_| !resolved.replaced) {
            match (&instruction.kind, self.copy_source(instruction)) {
                (_, Some(Ok(Base::Stage(_)) | Err(_))) => {}
                (InstructionKind::Copy(copy) | InstructionKind::Add(copy), _) => {
                    wanted.push((copy.from.as_deref(), instruction.location));
                }
                _ => {}
            }
        }
        let platform = self.platform_of(index);
        let origins = wanted.into_iter().map(|(from, location)| self.origin(index, from, platform, location));
        futures_util::future::join_all(origins).await;
    }

    /// The platform that a stage is for.
    fn platform_of(&self, index: usize) -> &Platform {
        let resolved = &self.plan.stages[index];
        match (&resolved.platform, &resolved.base) {
            (Some(platform), _) => platform,
            (None, Base::Stage(base)) => self.platform_of(*base),
            _ => &self.platform,
        }
    }

    async fn build(&self, index: usize) -> Result<Stage> {
        let dockerfile = self.dockerfile;
        let written = &dockerfile.stages[index];
        let resolved = self.plan.stages[index].clone();
        let located = |error: Error| locate(dockerfile, written.location, error);
        let platform = resolved.platform.clone().unwrap_or_else(|| self.platform.clone());
        let (mut stage, triggers) = match resolved.base {
            Base::Stage(base) => {
                let base = self.needed_stage(index, base).await?;
                (base.child(), base.config.config.on_build.clone())
            }
            base => {
                let start = async {
                    match self.directory_of(&base) {
                        Some((name, directory)) => self.on_directory(index, name, directory, &platform).await,
                        None => self.base(&base, &platform, &self.jobs[index]).await,
                    }
                };
                let mut stage = start.await.map_err(located)?;
                if let Some(ahead) = self.workshop.ahead.as_ref().filter(|_| self.exported.contains(&index)) {
                    ahead.send(stage.layers.iter().map(|layer| layer.descriptor.clone()));
                }
                let triggers = std::mem::take(&mut stage.config.config.on_build);
                (stage, triggers)
            }
        };
        if resolved.replaced {
            stage.config.config.on_build = triggers;
            return Ok(stage);
        }
        let mut instructions: Vec<Instruction> = Vec::new();
        for trigger in &triggers {
            let instruction = dockerfile.parse_trigger(trigger, written.location)?;
            preflight::check_instruction(dockerfile, &instruction)?;
            instructions.push(instruction);
        }
        let triggered = instructions.len();
        instructions.extend(written.instructions.iter().cloned());
        let total = instructions.iter().filter(|instruction| makes_files(&instruction.kind)).count();
        let label = match self.request.platforms.len() {
            0 | 1 => written.label(),
            _ => format!("{} {}", self.platform, written.label()),
        };
        let mut number = 0;
        for (position, instruction) in instructions.iter().enumerate() {
            number += usize::from(makes_files(&instruction.kind));
            let onbuild = if position < triggered { "ONBUILD " } else { "" };
            let name = format!("[{label} {number}/{total}] {onbuild}{}", instruction.text);
            stage = Box::pin(self.instruction(index, stage, instruction, name))
                .await
                .map_err(|error| locate(dockerfile, instruction.location, error))?;
        }
        Ok(stage)
    }

    /// The directory that a base is, if it is a named context of that kind.
    fn directory_of<'b>(&'b self, base: &'b Base) -> Option<(&'b str, &'b Path)> {
        let Base::Context(name) = base else { return None };
        match &self.request.build_contexts[name] {
            NamedContext::Directory(directory) => Some((name, directory)),
            _ => None,
        }
    }

    /// A stage that begins with the files of a directory: one layer, which is nobody's instruction, and
    /// the config of `scratch`.
    async fn on_directory(
        &self,
        index: usize,
        name: &str,
        directory: &Path,
        platform: &Platform,
    ) -> Result<Stage> {
        let job = &self.jobs[index];
        let context = self.workshop.named_context(name, directory, &self.request.context, job).await?;
        let tree = self.workshop.sources.context(context).tree.clone();
        let origin = Origin { tree, context: Some(context), from: Some(name.to_owned()) };
        let stage = Stage::on_scratch(platform.clone(), self.created.clone());
        let (mut from, workshop) = (stage.clone(), self.workshop.clone());
        let everything = Expanded::everything();
        let copy = move |job: &Job| instructions::copy(&mut from, &everything, &origin, None, &workshop, job);
        let change = job.blocking(copy).await?;
        let step = Arc::new(job.events.step(format!("[context {name}]")));
        let made = self.workshop.layer(change, self.exported.contains(&index), &step, job).await;
        let made = match Arc::into_inner(step) {
            Some(step) => step.end(made)?,
            None => made?,
        };
        self.workshop.sources.add_layer(made.layer.diff_id, made.layer.descriptor.clone());
        Ok(Stage { tree: Some(made.tree), layers: vec![made.layer], ..stage })
    }

    /// A stage as its base begins it.
    async fn base(&self, base: &Base, platform: &Platform, job: &Job) -> Result<Stage> {
        let image = match base {
            Base::Scratch => return Ok(Stage::on_scratch(platform.clone(), self.created.clone())),
            Base::Image(reference) => self.bases.image(reference, platform, job).await?,
            Base::Context(name) => match &self.request.build_contexts[name] {
                NamedContext::Image(reference) => self.bases.image(reference, platform, job).await?,
                NamedContext::OciLayout { directory, tag, digest } => {
                    self.bases.layout(directory, tag.clone(), *digest, platform, job).await?
                }
                other => return Err(preflight::no_image(name, other)),
            },
            Base::Stage(_) => {
                return Err(Error::new(ErrorKind::InvalidDockerfile, "a stage is no image"));
            }
        };
        for layer in &image.layers {
            self.workshop.sources.add_layer(layer.diff_id, layer.descriptor.clone());
        }
        Ok(Stage::on_image(image.config, image.layers, platform.clone(), self.created.clone()))
    }

    async fn instruction(
        &self,
        index: usize,
        mut stage: Stage,
        instruction: &Instruction,
        name: String,
    ) -> Result<Stage> {
        self.jobs[index].check()?;
        let expander = Expander::new(self.dockerfile.escape);
        let (build_args, global) = (&self.request.build_args, &self.plan.global);
        if instructions::apply_to_config(&mut stage, &instruction.kind, build_args, global, expander)? {
            return Ok(stage);
        }
        let layers = stage.layers.len();
        let stage = match &instruction.kind {
            InstructionKind::Copy(copy) => {
                self.copy(index, stage, copy, false, instruction.location, name).await?
            }
            InstructionKind::Add(copy) => {
                self.copy(index, stage, copy, true, instruction.location, name).await?
            }
            InstructionKind::Workdir(path) => self.workdir(index, stage, path, name).await?,
            _ => return Err(instructions::run_refusal(&self.dockerfile.source, instruction)),
        };
        for layer in &stage.layers[layers..] {
            self.workshop.sources.add_layer(layer.diff_id, layer.descriptor.clone());
        }
        Ok(stage)
    }

    async fn copy(
        &self,
        index: usize,
        mut stage: Stage,
        copy: &dockerfile::Copy,
        add: bool,
        location: Location,
        name: String,
    ) -> Result<Stage> {
        let mut expanded = Expanded::new(&stage, copy, add, Expander::new(self.dockerfile.escape))?;
        let job = &self.jobs[index];
        for (source, wanted) in &expanded.wanted {
            let fetched = self.workshop.remotes.fetch(wanted, &self.workshop.sources, job).await?;
            expanded.fetched.insert(source.clone(), fetched);
        }
        let origin = match expanded.has_paths() {
            true => self.origin(index, copy.from.as_deref(), &stage.platform, location).await?,
            false => Origin::nothing(),
        };
        if !expanded.link {
            self.read_tree(&mut stage, job).await?;
        }
        let owner = match &expanded.chown {
            Some(text) => Some(self.owner(&mut stage, text, job).await?),
            None => None,
        };
        let workshop = self.workshop.clone();
        let work = move |job: &Job| {
            let change = instructions::copy(&mut stage, &expanded, &origin, owner, &workshop, job)?;
            Ok((stage, Some(change)))
        };
        self.change(index, name, work).await
    }

    async fn workdir(&self, index: usize, mut stage: Stage, path: &str, name: String) -> Result<Stage> {
        let job = &self.jobs[index];
        let path = stage.expand(Expander::new(self.dockerfile.escape), path)?;
        self.read_tree(&mut stage, job).await?;
        let user = stage.config.config.user.clone();
        let owner = if user.is_empty() { None } else { Some(self.owner(&mut stage, &user, job).await?) };
        let workshop = self.workshop.clone();
        let work = move |job: &Job| {
            let change = instructions::workdir(&mut stage, &path, owner, &workshop, job)?;
            Ok((stage, change))
        };
        self.change(index, name, work).await
    }

    /// Changes the files of a stage, and adds the layer of it: one step of the build.
    async fn change(
        &self,
        index: usize,
        name: String,
        work: impl FnOnce(&Job) -> Result<(Stage, Option<Change>)> + Send + 'static,
    ) -> Result<Stage> {
        let job = &self.jobs[index];
        let step = Arc::new(job.events.step(name));
        let make = async {
            let (mut stage, change) = job.blocking(work).await?;
            let Some(change) = change else { return Ok((stage, false)) };
            self.fetch(change.layers_read(), job).await?;
            let (created_by, whole) = (change.created_by.clone(), change.whole);
            let made = self.workshop.layer(change, self.exported.contains(&index), &step, job).await?;
            stage.tree = Some(made.tree).filter(|_| whole);
            stage.record_layer(created_by, made.layer);
            Ok((stage, made.reused))
        };
        let result = make.await;
        // Nobody else has the step any more.
        match (Arc::into_inner(step), &result) {
            (Some(step), Ok((_, true))) => step.cached(),
            (Some(step), _) => return step.end(result).map(|(stage, _)| stage),
            (None, _) => {}
        }
        result.map(|(stage, _)| stage)
    }

    /// The files that a COPY takes from.
    async fn origin(
        &self,
        index: usize,
        from: Option<&str>,
        platform: &Platform,
        location: Location,
    ) -> Result<Origin> {
        let job = &self.jobs[index];
        let Some(from) = from else {
            let context = self.workshop.main_context(&self.request.context, job).await?;
            let tree = self.workshop.sources.context(context).tree.clone();
            return Ok(Origin { tree, context: Some(context), from: None });
        };
        let base = StagePlan::copy_source(self.dockerfile, from, location, &self.request.build_contexts)?;
        let (tree, context) = match &base {
            Base::Stage(source) => {
                let mut stage = (*self.needed_stage(index, *source).await?).clone();
                self.read_tree(&mut stage, job).await?;
                (stage.tree.unwrap_or_default(), None)
            }
            Base::Context(name) => match &self.request.build_contexts[name] {
                NamedContext::Directory(directory) => {
                    let context =
                        self.workshop.named_context(name, directory, &self.request.context, job).await?;
                    (self.workshop.sources.context(context).tree.clone(), Some(context))
                }
                _ => (self.files_of(&base, platform, job).await?, None),
            },
            _ => (self.files_of(&base, platform, job).await?, None),
        };
        Ok(Origin { tree, context, from: Some(from.to_owned()) })
    }

    /// The files of an image that is only copied from.
    async fn files_of(&self, base: &Base, platform: &Platform, job: &Job) -> Result<Arc<Tree>> {
        let mut stage = self.base(base, platform, job).await?;
        self.read_tree(&mut stage, job).await?;
        Ok(stage.tree.unwrap_or_default())
    }

    /// Makes sure that the files of a stage are known.
    async fn read_tree(&self, stage: &mut Stage, job: &Job) -> Result<()> {
        if stage.tree.is_none() {
            stage.tree = Some(self.bases.tree(&stage.layers, job).await?);
        }
        Ok(())
    }

    /// Makes sure that layers are here to be read.
    async fn fetch(&self, layers: impl IntoIterator<Item = Digest>, job: &Job) -> Result<()> {
        let known = |diff_id| {
            let descriptor = self.workshop.sources.layer(diff_id)?;
            Some(Layer { descriptor, diff_id })
        };
        let layers: Vec<Layer> = layers.into_iter().filter_map(known).collect();
        self.bases.fetch(&layers, job).await
    }

    /// Finds the numbers of an owner, with the files of the stage where it is given by name.
    async fn owner(&self, stage: &mut Stage, text: &str, job: &Job) -> Result<Owner> {
        let spec = OwnerSpec::parse(text)?;
        if !spec.needs_files() {
            return Ok(spec.find(b"", b"").0);
        }
        self.read_tree(stage, job).await?;
        let tree = stage.tree.clone().unwrap_or_default();
        if stage.layers.is_empty() {
            let message = format!("the owner `{text}` is a name, and an empty image has no names");
            let error = Error::new(ErrorKind::InvalidDockerfile, message);
            return Err(error.with_hint("give its number, such as `1000:1000`"));
        }
        let passwd = self.read_file(&tree, "etc/passwd", job).await?;
        let group = self.read_file(&tree, "etc/group", job).await?;
        let (owner, unknown) = spec.find(&passwd, &group);
        for name in unknown {
            job.events.warn(format!("`{name}` is unknown in the image: its files belong to 0"));
        }
        Ok(owner)
    }

    /// Reads a small file of a stage; one that is not there is empty: as for BuildKit, nobody is
    /// known then.
    async fn read_file(&self, tree: &Tree, path: &str, job: &Job) -> Result<Vec<u8>> {
        let content = match tree.get(&tree.resolve(path.as_bytes())?).map(|node| &node.kind) {
            Some(NodeKind::File { content, .. }) => *content,
            _ => return Ok(Vec::new()),
        };
        let (sources, store) = (self.workshop.sources.clone(), self.workshop.store.clone());
        let mut place = None;
        if let Content::Member { stream: Stream::Layer(diff_id), member } = content
            && let Some(layer) = sources.layer(diff_id)
        {
            if let Some(kept) = store.kept_file(&layer.digest, member) {
                return Ok(kept);
            }
            self.fetch([diff_id], job).await?;
            place = Some((layer.digest, member));
        }
        let read = move |_: &Job| {
            let content = sources.read_small(content, PASSWD_LIMIT_BYTES)?;
            if let Some((layer, member)) = place {
                // What is not kept is read again.
                let _ = store.keep_file(&layer, member, &content);
            }
            Ok(content)
        };
        job.blocking(read).await
    }
}

/// Says whether an instruction makes files, and so counts as a step.
fn makes_files(instruction: &InstructionKind) -> bool {
    matches!(
        instruction,
        InstructionKind::Add(_)
            | InstructionKind::Copy(_)
            | InstructionKind::Run(_)
            | InstructionKind::Workdir(_)
    )
}

/// Adds the line to an error that has none.
fn locate(dockerfile: &Dockerfile, location: Location, error: Error) -> Error {
    if error.source_line().is_some() || error.kind() == ErrorKind::Cancelled {
        return error;
    }
    error.with_source_line(dockerfile.source.line(location))
}

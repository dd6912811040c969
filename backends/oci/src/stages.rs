//! Interpreting stages: only those that the target needs, each once, and at the same time.

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use windlass_core::backend::Job;
use windlass_core::dockerfile::{
    Base, Dockerfile, Expander, Instruction, InstructionKind, Location, PlanInput, StagePlan,
    without_credentials,
};
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::platform::Platform;
use windlass_core::request::{BuildRequest, NamedContext};

use crate::ahead::Ahead;
use crate::base::Bases;
use crate::instructions::{self, Expanded, Origin};
use crate::preflight;
use crate::removal::{Removal, is_root};
use crate::schedule::{self, OnceEach, Waits};
use crate::stage::Stage;
use crate::workshop::Workshop;

/// Interprets the stages of a Dockerfile for one platform: all that do not need each other at the
/// same time.
pub(crate) struct Interpreter<'a> {
    pub(super) dockerfile: &'a Dockerfile,
    pub(super) request: &'a BuildRequest,
    pub(super) plan: StagePlan,
    platform: Platform,
    created: String,
    pub(super) bases: &'a Bases,
    pub(super) workshop: &'a Workshop,
    /// One for each stage.
    pub(super) jobs: Vec<Job>,
    stages: OnceEach<usize, Arc<Stage>>,
    waits: Waits,
    /// The stages whose layers become those of the image.
    pub(super) exported: BTreeSet<usize>,
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
    pub(super) fn copy_source(&self, instruction: &Instruction) -> Option<Result<Base>> {
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
    pub(super) async fn needed_stage(&self, index: usize, needs: usize) -> Result<Arc<Stage>> {
        // Only an ONBUILD trigger of a base image can ask for this: the plan knows all else.
        if !self.waits.note(index, needs) {
            return Err(schedule::needs_itself(&self.dockerfile.stages[needs].label()));
        }
        self.stage(needs).await
    }

    /// The platform that a stage is for.
    pub(super) fn platform_of(&self, index: usize) -> &Platform {
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
                if let Some(ahead) = self.ahead_of(index) {
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
            let name =
                format!("[{label} {number}/{total}] {onbuild}{}", without_credentials(&instruction.text));
            let below = &instructions[position + 1..];
            stage = Box::pin(self.instruction(index, stage, instruction, below, name))
                .await
                .map_err(|error| locate(dockerfile, instruction.location, error))?;
        }
        Ok(stage)
    }

    /// Where the layers that are made for a stage go ahead.
    pub(super) fn ahead_of_layers(&self, index: usize) -> Option<&Ahead> {
        self.workshop.ahead.as_deref().filter(|_| self.exported.contains(&index))
    }

    /// Where the layers of the base of a stage go ahead, if they stay as they are.
    fn ahead_of(&self, index: usize) -> Option<&Ahead> {
        let stays = self.exported.contains(&index) && !self.workshop.force_compression;
        self.workshop.ahead.as_deref().filter(|_| stays)
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
        let exported = self.exported.contains(&index);
        let made = self.workshop.layer(change, exported, self.bases, &step, job).await;
        let made = match Arc::into_inner(step) {
            Some(step) => step.end(made)?,
            None => made?,
        };
        self.workshop.sources.add_layer(made.layer.diff_id, made.layer.descriptor.clone());
        Ok(Stage { tree: Some(made.tree), layers: vec![made.layer], ..stage })
    }

    /// A stage as its base begins it.
    pub(super) async fn base(&self, base: &Base, platform: &Platform, job: &Job) -> Result<Stage> {
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
        below: &[Instruction],
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
            InstructionKind::Run(run) => match Removal::parse(run) {
                // Who programs run as may come from the base.
                Some(removal) if is_root(&stage.config.config.user) => {
                    self.remove(index, stage, removal, is_before_a_linked_copy(below), name).await?
                }
                _ => return Err(instructions::run_refusal(&self.dockerfile.source, instruction)),
            },
            _ => return Err(instructions::run_refusal(&self.dockerfile.source, instruction)),
        };
        for layer in &stage.layers[layers..] {
            self.workshop.sources.add_layer(layer.diff_id, layer.descriptor.clone());
        }
        Ok(stage)
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

/// Says whether the next instruction that makes files, removals aside, is a COPY whose layer knows nothing of
/// those below.
fn is_before_a_linked_copy(below: &[Instruction]) -> bool {
    let makes = |instruction: &&Instruction| {
        makes_files(&instruction.kind) && !matches!(instruction.kind, InstructionKind::Run(_))
    };
    match below.iter().find(makes).map(|instruction| &instruction.kind) {
        Some(InstructionKind::Copy(copy) | InstructionKind::Add(copy)) => instructions::is_linked(copy),
        _ => false,
    }
}

/// Adds the line to an error that has none.
fn locate(dockerfile: &Dockerfile, location: Location, error: Error) -> Error {
    if error.source_line().is_some() || error.kind() == ErrorKind::Cancelled {
        return error;
    }
    error.with_source_line(dockerfile.source.line(location))
}

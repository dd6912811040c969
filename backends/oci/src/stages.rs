//! Interpreting stages: only those that the target needs, each once.

use std::collections::BTreeMap;
use std::future::Future;
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
use crate::owner::{Owner, OwnerSpec};
use crate::preflight;
use crate::stage::{Layer, Stage};
use crate::tree::{Content, NodeKind, Stream, Tree};
use crate::workshop::Workshop;

/// Larger than any `passwd` of an image.
const PASSWD_LIMIT_BYTES: u64 = 16 << 20;

/// Interprets the stages of a Dockerfile for one platform.
pub(crate) struct Interpreter<'a> {
    dockerfile: &'a Dockerfile,
    request: &'a BuildRequest,
    plan: StagePlan,
    platform: Platform,
    created: String,
    bases: &'a Bases,
    workshop: &'a mut Workshop,
    job: &'a Job,
    done: BTreeMap<usize, Stage>,
    /// The stages that are being built, outermost first.
    running: Vec<usize>,
    /// The files of images that were copied from, by the name of the image.
    images: BTreeMap<String, Arc<Tree>>,
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
        workshop: &'a mut Workshop,
        job: &'a Job,
    ) -> Result<Self> {
        let host = Platform::host();
        let plan = StagePlan::new(dockerfile, &PlanInput::of(request, &platform, &host))?;
        let (done, running, images) = Default::default();
        Ok(Self { dockerfile, request, plan, platform, created, bases, workshop, job, done, running, images })
    }

    /// Builds the target stage.
    ///
    /// # Errors
    /// Those of the instructions, with the line; those of base images and contexts.
    pub(crate) async fn target(&mut self) -> Result<Stage> {
        self.stage(self.plan.target).await
    }

    /// Builds a stage, or gives the one that was built before. Boxed, because stages need stages.
    fn stage(&mut self, index: usize) -> Pin<Box<dyn Future<Output = Result<Stage>> + Send + '_>> {
        Box::pin(async move {
            if let Some(done) = self.done.get(&index) {
                return Ok(done.clone());
            }
            // Only an ONBUILD trigger of a base image can ask for this: the plan knows all else.
            if self.running.contains(&index) {
                let label = self.dockerfile.stages[index].label();
                return Err(Error::new(
                    ErrorKind::InvalidDockerfile,
                    format!("the stage `{label}` needs itself"),
                ));
            }
            self.running.push(index);
            let stage = self.build(index).await?;
            self.running.pop();
            self.done.insert(index, stage.clone());
            Ok(stage)
        })
    }

    async fn build(&mut self, index: usize) -> Result<Stage> {
        let dockerfile = self.dockerfile;
        let written = &dockerfile.stages[index];
        let resolved = self.plan.stages[index].clone();
        let located = |error: Error| locate(dockerfile, written.location, error);
        let platform = resolved.platform.clone().unwrap_or_else(|| self.platform.clone());
        let (mut stage, triggers) = match resolved.base {
            Base::Stage(base) => {
                let base = self.stage(base).await?;
                (base.child(), base.config.config.on_build.clone())
            }
            base => {
                let mut stage = self.base(&base, &platform).await.map_err(located)?;
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
        let mut number = 0;
        for (position, instruction) in instructions.iter().enumerate() {
            number += usize::from(makes_files(&instruction.kind));
            let onbuild = if position < triggered { "ONBUILD " } else { "" };
            let name = format!("[{} {number}/{total}] {onbuild}{}", written.label(), instruction.text);
            stage = self
                .instruction(stage, instruction, name)
                .await
                .map_err(|error| locate(dockerfile, instruction.location, error))?;
        }
        Ok(stage)
    }

    /// A stage as its base begins it.
    async fn base(&mut self, base: &Base, platform: &Platform) -> Result<Stage> {
        let image = match base {
            Base::Scratch => return Ok(Stage::on_scratch(platform.clone(), self.created.clone())),
            Base::Image(reference) => self.bases.image(reference, platform, self.job).await?,
            Base::Context(name) => match &self.request.build_contexts[name] {
                NamedContext::Image(reference) => self.bases.image(reference, platform, self.job).await?,
                NamedContext::OciLayout { directory, tag, digest } => {
                    self.bases.layout(directory, tag.clone(), *digest, platform, self.job).await?
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
        &mut self,
        mut stage: Stage,
        instruction: &Instruction,
        name: String,
    ) -> Result<Stage> {
        self.job.check()?;
        let expander = Expander::new(self.dockerfile.escape);
        let (build_args, global) = (&self.request.build_args, &self.plan.global);
        if instructions::apply_to_config(&mut stage, &instruction.kind, build_args, global, expander)? {
            return Ok(stage);
        }
        let layers = stage.layers.len();
        let stage = match &instruction.kind {
            InstructionKind::Copy(copy) => self.copy(stage, copy, false, instruction.location, name).await?,
            InstructionKind::Add(copy) => self.copy(stage, copy, true, instruction.location, name).await?,
            InstructionKind::Workdir(path) => self.workdir(stage, path, name).await?,
            _ => return Err(instructions::run_refusal(&self.dockerfile.source, instruction)),
        };
        for layer in &stage.layers[layers..] {
            self.workshop.sources.add_layer(layer.diff_id, layer.descriptor.clone());
        }
        Ok(stage)
    }

    async fn copy(
        &mut self,
        mut stage: Stage,
        copy: &dockerfile::Copy,
        add: bool,
        location: Location,
        name: String,
    ) -> Result<Stage> {
        let expanded = Expanded::new(&stage, copy, add, Expander::new(self.dockerfile.escape))?;
        let origin = self.origin(copy.from.as_deref(), &stage.platform, location).await?;
        if origin.context.is_none() {
            self.fetch(instructions::layers_read(&expanded, &origin.tree)?).await?;
        }
        if !expanded.link {
            self.read_tree(&mut stage).await?;
        }
        let owner = match &expanded.chown {
            Some(text) => Some(self.owner(&mut stage, text).await?),
            None => None,
        };
        let mut workshop = self.workshop.clone();
        let step = self.job.events.step(name);
        let work = move |job: &Job| {
            let result = instructions::copy(&mut stage, &expanded, &origin, owner, &mut workshop, &step, job);
            step.end(result).map(|()| stage)
        };
        self.job.blocking(work).await
    }

    async fn workdir(&mut self, mut stage: Stage, path: &str, name: String) -> Result<Stage> {
        let path = stage.expand(Expander::new(self.dockerfile.escape), path)?;
        self.read_tree(&mut stage).await?;
        let user = stage.config.config.user.clone();
        let owner = if user.is_empty() { None } else { Some(self.owner(&mut stage, &user).await?) };
        let workshop = self.workshop.clone();
        let step = self.job.events.step(name);
        let work = move |job: &Job| {
            let result = instructions::workdir(&mut stage, &path, owner, &workshop, &step, job);
            step.end(result).map(|()| stage)
        };
        self.job.blocking(work).await
    }

    /// The files that a COPY takes from.
    async fn origin(
        &mut self,
        from: Option<&str>,
        platform: &Platform,
        location: Location,
    ) -> Result<Origin> {
        let Some(from) = from else {
            let context = self.workshop.main_context(&self.request.context, self.job).await?;
            let tree = self.workshop.sources.context(context).tree.clone();
            return Ok(Origin { tree, context: Some(context), from: None });
        };
        let base = StagePlan::copy_source(self.dockerfile, from, location, &self.request.build_contexts)?;
        let (tree, context) = match &base {
            Base::Stage(index) => {
                let mut stage = self.stage(*index).await?;
                self.read_tree(&mut stage).await?;
                let tree = stage.tree.clone().unwrap_or_default();
                self.done.insert(*index, stage);
                (tree, None)
            }
            Base::Context(name) => match &self.request.build_contexts[name] {
                NamedContext::Directory(directory) => {
                    let context =
                        self.workshop.named_context(name, directory, &self.request.context, self.job).await?;
                    (self.workshop.sources.context(context).tree.clone(), Some(context))
                }
                _ => (self.files_of(&base, from, platform).await?, None),
            },
            _ => (self.files_of(&base, from, platform).await?, None),
        };
        Ok(Origin { tree, context, from: Some(from.to_owned()) })
    }

    /// The files of an image that is only copied from.
    async fn files_of(&mut self, base: &Base, name: &str, platform: &Platform) -> Result<Arc<Tree>> {
        let key = format!("{platform} {name}");
        if let Some(tree) = self.images.get(&key) {
            return Ok(tree.clone());
        }
        let mut stage = self.base(base, platform).await?;
        self.read_tree(&mut stage).await?;
        let tree = stage.tree.unwrap_or_default();
        self.images.insert(key, tree.clone());
        Ok(tree)
    }

    /// Makes sure that the files of a stage are known.
    async fn read_tree(&self, stage: &mut Stage) -> Result<()> {
        if stage.tree.is_none() {
            stage.tree = Some(self.bases.tree(&stage.layers, self.job).await?);
        }
        Ok(())
    }

    /// Makes sure that layers are here to be read.
    async fn fetch(&self, layers: impl IntoIterator<Item = Digest>) -> Result<()> {
        let known = |diff_id| {
            let descriptor = self.workshop.sources.layer(diff_id)?.clone();
            Some(Layer { descriptor, diff_id })
        };
        let layers: Vec<Layer> = layers.into_iter().filter_map(known).collect();
        self.bases.fetch(&layers, self.job).await
    }

    /// Finds the numbers of an owner, with the files of the stage where it is given by name.
    async fn owner(&self, stage: &mut Stage, text: &str) -> Result<Owner> {
        let spec = OwnerSpec::parse(text)?;
        if !spec.needs_files() {
            return Ok(spec.find(b"", b"").0);
        }
        self.read_tree(stage).await?;
        let tree = stage.tree.clone().unwrap_or_default();
        if stage.layers.is_empty() {
            let message = format!("the owner `{text}` is a name, and an empty image has no names");
            let error = Error::new(ErrorKind::InvalidDockerfile, message);
            return Err(error.with_hint("give its number, such as `1000:1000`"));
        }
        let passwd = self.read_file(&tree, "etc/passwd").await?;
        let group = self.read_file(&tree, "etc/group").await?;
        let (owner, unknown) = spec.find(&passwd, &group);
        for name in unknown {
            self.job.events.warn(format!("`{name}` is unknown in the image: its files belong to 0"));
        }
        Ok(owner)
    }

    /// Reads a small file of a stage; one that is not there is empty: as for BuildKit, nobody is
    /// known then.
    async fn read_file(&self, tree: &Tree, path: &str) -> Result<Vec<u8>> {
        let content = match tree.get(&tree.resolve(path.as_bytes())?).map(|node| &node.kind) {
            Some(NodeKind::File { content, .. }) => *content,
            _ => return Ok(Vec::new()),
        };
        if let Content::Member { stream: Stream::Layer(diff_id), .. } = content {
            self.fetch([diff_id]).await?;
        }
        let sources = self.workshop.sources.clone();
        self.job.blocking(move |_| sources.read_small(content, PASSWD_LIMIT_BYTES)).await
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

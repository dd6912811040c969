//! The instructions that need files: where those come from, and what becomes of them.

use std::sync::Arc;

use windlass_core::backend::Job;
use windlass_core::dockerfile::{
    self, Base, Expander, InstructionKind, Location, RemoteSource, StagePlan, with_stage_hint,
};
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::platform::Platform;
use windlass_core::request::NamedContext;

use crate::change::Change;
use crate::instructions::{self, Expanded, Origin};
use crate::owner::{Owner, OwnerSpec};
use crate::stage::Stage;
use crate::stages::Interpreter;
use crate::tree::{Content, NodeKind, Stream, Tree};

/// Larger than any `passwd` of an image.
const PASSWD_LIMIT_BYTES: u64 = 16 << 20;

impl Interpreter<'_> {
    /// Lists the contexts and fetches the images that a stage copies from, while its base is on the
    /// way. What fails here, fails again when the instruction comes that needs it.
    pub(super) async fn fetch_ahead(&self, index: usize) {
        let resolved = &self.plan.stages[index];
        let mut wanted = Vec::new();
        for instruction in self.dockerfile.stages[index].instructions.iter().filter(|_| !resolved.replaced) {
            match (&instruction.kind, self.copy_source(instruction)) {
                (_, Some(Ok(Base::Stage(_)) | Err(_))) => {}
                (InstructionKind::Copy(copy) | InstructionKind::Add(copy), _) if has_paths(copy) => {
                    wanted.push((copy, instruction.location));
                }
                _ => {}
            }
        }
        let platform = self.platform_of(index);
        let origins = wanted.into_iter().map(async |(copy, location)| {
            let shared = copy.from.is_none() && instructions::is_linked(copy);
            // What another build has made need not be laid out again.
            if !shared || !self.workshop.linked.has_any() {
                let _ = self.origin(index, copy.from.as_deref(), platform, location).await;
            }
        });
        futures_util::future::join_all(origins).await;
    }

    pub(super) async fn copy(
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
        let (remotes, sources) = (&self.workshop.remotes, &self.workshop.sources);
        let fetches = expanded.wanted.iter().map(|(_, wanted)| remotes.fetch(wanted, sources, job));
        // All end before an error is told, so that none goes on behind our back.
        let fetched = futures_util::future::join_all(fetches).await;
        for ((source, _), fetched) in expanded.wanted.iter().zip(fetched) {
            expanded.fetched.insert(source.clone(), fetched?);
        }
        let mut place = self.place_of_layer(index, &stage, copy, &expanded).await?;
        let known = place.as_deref().cloned().flatten();
        if let Some(layer) = known
            && self.workshop.is_usable(&layer.descriptor, self.ahead_of_layers(index)).await
        {
            job.events.step(name).cached();
            (stage.tree, stage.waiting) = (None, Vec::new());
            stage.record_layer(expanded.created_by(), layer);
            return Ok(stage);
        }
        let origin = match expanded.has_paths() {
            true => self.origin(index, copy.from.as_deref(), &stage.platform, location).await?,
            false => Origin::nothing(),
        };
        if !expanded.link {
            self.read_tree(&mut stage, job).await?;
        }
        let owner = match &expanded.chown {
            // Such a layer knows nothing of the stage, not even who lives there.
            Some(text) if expanded.link => {
                let spec = OwnerSpec::parse(text)?;
                if spec.needs_files() {
                    return Err(no_names(text, "a layer made with `--link`"));
                }
                Some(spec.find(b"", b"").0)
            }
            Some(text) => Some(self.owner(&mut stage, text, job).await?),
            None => None,
        };
        let (workshop, layers) = (self.workshop.clone(), stage.layers.len());
        let work = move |job: &Job| {
            let change = instructions::copy(&mut stage, &expanded, &origin, owner, &workshop, job)?;
            Ok((stage, Some(change)))
        };
        let stage = self.change(index, name, work).await?;
        if let Some(place) = &mut place
            && let [layer] = &stage.layers[layers..]
        {
            **place = Some(layer.clone());
        }
        Ok(stage)
    }

    pub(super) async fn workdir(
        &self,
        index: usize,
        mut stage: Stage,
        path: &str,
        name: String,
    ) -> Result<Stage> {
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
    pub(super) async fn change(
        &self,
        index: usize,
        name: String,
        work: impl FnOnce(&Job) -> Result<(Stage, Option<Change>)> + Send + 'static,
    ) -> Result<Stage> {
        let job = &self.jobs[index];
        let step = Arc::new(job.events.step(name));
        let make = async {
            let (mut stage, change) = job.blocking(work).await?;
            let Some(mut change) = change else { return Ok((stage, false)) };
            if !stage.waiting.is_empty() {
                match change.hiding(&stage.waiting, self.workshop.epoch()) {
                    Some(touched) => change.touched = touched,
                    None => stage = self.remove_what_waits(index, stage).await?,
                }
                stage.waiting.clear();
            }
            let (created_by, whole) = (change.created_by.clone(), change.whole);
            let exported = self.exported.contains(&index);
            let made = self.workshop.layer(change, exported, self.bases, &step, job).await?;
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
    pub(super) async fn origin(
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
                (self.read_tree(&mut stage, job).await?, None)
            }
            Base::Context(name) => match &self.request.build_contexts[name] {
                NamedContext::Directory(directory) => {
                    let context =
                        self.workshop.named_context(name, directory, &self.request.context, job).await?;
                    (self.workshop.sources.context(context).tree.clone(), Some(context))
                }
                _ => (self.files_of(&base, platform, job).await?, None),
            },
            _ => {
                let files = self.files_of(&base, platform, job).await;
                (files.map_err(|error| with_stage_hint(self.dockerfile, from, error))?, None)
            }
        };
        Ok(Origin { tree, context, from: Some(from.to_owned()) })
    }

    /// The files of an image that is only copied from.
    async fn files_of(&self, base: &Base, platform: &Platform, job: &Job) -> Result<Arc<Tree>> {
        let mut stage = self.base(base, platform, job).await?;
        self.read_tree(&mut stage, job).await
    }

    /// The files of a stage, which it knows from then on.
    pub(super) async fn read_tree(&self, stage: &mut Stage, job: &Job) -> Result<Arc<Tree>> {
        if let Some(tree) = &stage.tree {
            return Ok(tree.clone());
        }
        let tree = self.bases.tree(&stage.layers, job).await?;
        Ok(stage.tree.insert(tree).clone())
    }

    /// Finds the numbers of an owner, with the files of the stage where it is given by name.
    pub(super) async fn owner(&self, stage: &mut Stage, text: &str, job: &Job) -> Result<Owner> {
        let spec = OwnerSpec::parse(text)?;
        if !spec.needs_files() {
            return Ok(spec.find(b"", b"").0);
        }
        let tree = self.read_tree(stage, job).await?;
        if stage.layers.is_empty() {
            return Err(no_names(text, "an empty image"));
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
            self.workshop.fetch([diff_id], self.bases, job).await?;
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

/// Says whether a COPY takes anything from files that it does not bring along or fetch by itself.
fn has_paths(copy: &dockerfile::Copy) -> bool {
    copy.sources.iter().any(|source| matches!(RemoteSource::parse(source), Ok(None)))
}

/// The refusal of an owner by name where no file says who that is.
fn no_names(owner: &str, place: &str) -> Error {
    let message = format!("the owner `{owner}` is a name, and {place} has no names");
    Error::new(ErrorKind::InvalidDockerfile, message).with_hint("give its number, such as `1000:1000`")
}

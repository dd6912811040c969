//! Which stages a target needs, and what each is built on.

use std::collections::BTreeMap;

use serde::Serialize;

use super::graph::{Source, add_sources, refuse_cycles, refuse_later, triggers};
use super::instruction::{InstructionKind, Stage};
use super::named_context::find_context;
use super::predefined::platform_arguments;
use super::{Dockerfile, Expander, Location};
use crate::Result;
use crate::error::{Error, ErrorKind, nearest};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::request::{BuildRequest, NamedContext};

/// The base that is no image.
const SCRATCH: &str = "scratch";

/// What the plan of a Dockerfile depends on besides the file.
#[derive(Clone, Copy, Debug)]
pub struct PlanInput<'a> {
    /// The stage that is asked for; the last one if `None`.
    pub target: Option<&'a str>,
    /// The values for ARG.
    pub build_args: &'a BTreeMap<String, String>,
    /// The platform that is built for.
    pub platform: &'a Platform,
    /// The platform that is built on.
    pub build_platform: &'a Platform,
    /// What names mean instead of stages and images.
    pub contexts: &'a BTreeMap<String, NamedContext>,
}

impl<'a> PlanInput<'a> {
    /// The input for one platform of a request.
    pub fn of(request: &'a BuildRequest, platform: &'a Platform, build_platform: &'a Platform) -> Self {
        Self {
            target: request.target.as_deref(),
            build_args: &request.build_args,
            platform,
            build_platform,
            contexts: &request.build_contexts,
        }
    }
}

/// What a stage starts from, or what `COPY --from` copies from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// Another stage, by its index.
    Stage(usize),
    /// An image.
    Image(Reference),
    /// A named context, by its name as given to `--build-context`.
    Context(String),
}

/// A stage, with everything in its FROM expanded.
#[derive(Clone, Debug)]
pub struct ResolvedStage {
    /// What it starts from.
    pub base: Base,
    /// The base in words.
    pub base_name: String,
    /// `--platform` of the FROM; the platform of the base stage or the requested one if `None`.
    pub platform: Option<Platform>,
    /// A named context has the name of the stage: it is taken instead, and no instruction runs.
    pub replaced: bool,
    /// The target needs it.
    pub needed: bool,
}

/// A Dockerfile whose stages are tied together.
#[derive(Clone, Debug)]
pub struct StagePlan {
    /// The stages, in the order of the file.
    pub stages: Vec<ResolvedStage>,
    /// The index of the target.
    pub target: usize,
    /// The global scope: what an ARG without default in a stage takes.
    pub global: BTreeMap<String, String>,
}

impl StagePlan {
    /// Ties the stages of a Dockerfile together.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown target; `InvalidDockerfile` with the line for bases and
    /// platforms that expand to nothing good, and for stages that need each other or a later one.
    pub fn new(dockerfile: &Dockerfile, input: &PlanInput<'_>) -> Result<Self> {
        let global = global_scope(dockerfile, input)?;
        let mut stages: Vec<ResolvedStage> = Vec::new();
        for stage in &dockerfile.stages {
            let resolved = resolve(dockerfile, stage, &global, input)?;
            stages.push(resolved);
        }
        let target = find_target(dockerfile, input.target)?;
        let mut plan = Self { stages, target, global };
        let sources = plan.all_sources(dockerfile, input)?;
        refuse_cycles(dockerfile, &sources)?;
        plan.mark_needed(target, &sources);
        for (index, sources) in sources.iter().enumerate().filter(|(index, _)| plan.stages[*index].needed) {
            refuse_later(dockerfile, index, sources)?;
        }
        Ok(plan)
    }

    /// What `COPY --from` means.
    ///
    /// # Errors
    /// `InvalidDockerfile` for a variable in it, an index that no stage has, or a name that is
    /// neither a stage nor an image reference.
    pub fn copy_source(
        dockerfile: &Dockerfile,
        from: &str,
        location: Location,
        contexts: &BTreeMap<String, NamedContext>,
    ) -> Result<Base> {
        let error = |message: String| dockerfile.source.error(location, message);
        // A named context takes the place of the stage that has its name.
        let stage = |index: usize| {
            let name = dockerfile.stages[index].name.as_deref();
            let context = name.and_then(|name| find_context(contexts, name));
            context.map_or(Base::Stage(index), |(name, _)| Base::Context(name.to_owned()))
        };
        if Expander::new(dockerfile.escape).word(from, &|_| None).as_deref() != Ok(from) {
            return Err(error("variables are not expanded in `--from`".to_owned())
                .with_hint("give the base a name: `ARG X` before the first FROM, then `FROM $X AS name`"));
        }
        if let Ok(index) = from.parse::<i64>() {
            return usize::try_from(index)
                .ok()
                .filter(|index| *index < dockerfile.stages.len())
                .map(stage)
                .ok_or_else(|| error(format!("there is no stage with the index {index}")));
        }
        if let Some(index) = stage_by_name(dockerfile, from) {
            return Ok(stage(index));
        }
        external(dockerfile, from, location, contexts)
    }

    /// The stages that a stage copies from or mounts, each with the place that says so.
    fn all_sources(&self, dockerfile: &Dockerfile, input: &PlanInput<'_>) -> Result<Vec<Vec<Source>>> {
        let mut all: Vec<Vec<Source>> = Vec::new();
        for (stage, resolved) in dockerfile.stages.iter().zip(&self.stages) {
            let mut sources = Vec::new();
            if let Base::Stage(base) = resolved.base {
                sources.push(Source { base: Base::Stage(base), location: stage.location, is_base: true });
                for trigger in triggers(dockerfile, base, stage.location)? {
                    add_sources(dockerfile, &trigger, input, &mut sources)?;
                }
            }
            if !resolved.replaced {
                for instruction in &stage.instructions {
                    add_sources(dockerfile, instruction, input, &mut sources)?;
                }
            }
            all.push(sources);
        }
        Ok(all)
    }

    fn mark_needed(&mut self, index: usize, sources: &[Vec<Source>]) {
        if std::mem::replace(&mut self.stages[index].needed, true) {
            return;
        }
        for source in &sources[index] {
            if let Base::Stage(next) = source.base {
                self.mark_needed(next, sources);
            }
        }
    }
}

fn global_scope(dockerfile: &Dockerfile, input: &PlanInput<'_>) -> Result<BTreeMap<String, String>> {
    let last = dockerfile.stages.last().and_then(|stage| stage.name.as_deref());
    let target = input.target.or(last).unwrap_or_default();
    let mut scope = platform_arguments(input.platform, input.build_platform, target, input.build_args);
    let expander = Expander::new(dockerfile.escape);
    for instruction in &dockerfile.global_arguments {
        let InstructionKind::Arg(arguments) = &instruction.kind else { continue };
        for argument in arguments {
            let value = match (input.build_args.get(&argument.name), &argument.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => {
                    Some(expander.word(default, &|name| scope.get(name).cloned()).map_err(|why| {
                        cannot_expand(dockerfile, instruction.location, default).with_source(why)
                    })?)
                }
                (None, None) => None,
            };
            if let Some(value) = value {
                scope.insert(argument.name.clone(), value);
            }
        }
    }
    Ok(scope)
}

fn cannot_expand(dockerfile: &Dockerfile, location: Location, text: &str) -> Error {
    dockerfile.source.error(location, format!("could not expand `{text}`"))
}

fn resolve(
    dockerfile: &Dockerfile,
    stage: &Stage,
    global: &BTreeMap<String, String>,
    input: &PlanInput<'_>,
) -> Result<ResolvedStage> {
    let expand = |text: &str| {
        Expander::new(dockerfile.escape)
            .word(text, &|name| global.get(name).cloned())
            .map_err(|why| cannot_expand(dockerfile, stage.location, text).with_source(why))
    };
    let base_name = expand(&stage.base)?;
    if base_name.is_empty() {
        let message = format!("the base `{}` expands to nothing", stage.base);
        return Err(dockerfile.source.error(stage.location, message).with_hint(
            "a variable in FROM needs an ARG with a value before the first FROM, or a `--build-arg`",
        ));
    }
    let platform = stage.platform.as_deref().map(|written| {
        let text = expand(written)?;
        text.parse::<Platform>().map_err(|why| {
            let message = format!("the platform `{written}` cannot be used");
            dockerfile.source.error(stage.location, message).with_source(why)
        })
    });
    let platform = platform.transpose()?;
    let named = stage.name.as_deref().and_then(|name| find_context(input.contexts, name));
    let resolved = ResolvedStage { base: Base::Scratch, base_name, platform, replaced: false, needed: false };
    if let Some((name, _)) = named {
        return Ok(ResolvedStage { base: Base::Context(name.to_owned()), replaced: true, ..resolved });
    }
    // Only a stage above can be a base; of two with one name, the later one is meant.
    let above = dockerfile.stages[..stage.index].iter().rev();
    let earlier = above.into_iter().find(|above| above.name.as_deref() == Some(&resolved.base_name));
    let base = match earlier {
        Some(above) => Base::Stage(above.index),
        None => external(dockerfile, &resolved.base_name, stage.location, input.contexts)?,
    };
    Ok(ResolvedStage { base, ..resolved })
}

/// A base that is no stage.
fn external(
    dockerfile: &Dockerfile,
    name: &str,
    location: Location,
    contexts: &BTreeMap<String, NamedContext>,
) -> Result<Base> {
    if name == SCRATCH {
        return Ok(Base::Scratch);
    }
    if let Some((name, _)) = find_context(contexts, name) {
        return Ok(Base::Context(name.to_owned()));
    }
    name.parse().map(Base::Image).map_err(|why: Error| {
        let names = dockerfile.stages.iter().filter_map(|stage| stage.name.as_deref());
        let error = dockerfile.source.error(location, format!("`{name}` is neither a stage nor an image"));
        let error = error.with_source(why);
        match nearest(name, names) {
            Some(near) => error.with_hint(format!("did you mean the stage `{near}`?")),
            None => error,
        }
    })
}

/// Adds to the error of an image that cannot be had what it may have been meant to be: a stage whose name
/// is written almost so.
pub fn with_stage_hint(dockerfile: &Dockerfile, name: &str, error: Error) -> Error {
    let names = dockerfile.stages.iter().filter_map(|stage| stage.name.as_deref());
    match nearest(&name.to_ascii_lowercase(), names) {
        Some(near) if error.kind() != ErrorKind::Cancelled => error.with_hint(format!(
            "no stage is called `{name}`, so it is taken for an image; did you mean the stage `{near}`?"
        )),
        _ => error,
    }
}

fn stage_by_name(dockerfile: &Dockerfile, name: &str) -> Option<usize> {
    let lower = name.to_ascii_lowercase();
    dockerfile
        .stages
        .iter()
        .rev()
        .find(|stage| stage.name.as_deref() == Some(&lower))
        .map(|stage| stage.index)
}

fn find_target(dockerfile: &Dockerfile, target: Option<&str>) -> Result<usize> {
    let Some(target) = target else { return Ok(dockerfile.stages.len() - 1) };
    stage_by_name(dockerfile, target).ok_or_else(|| {
        let names = || dockerfile.stages.iter().filter_map(|stage| stage.name.as_deref());
        let shown = dockerfile.source.shown().display();
        let error = Error::new(ErrorKind::InvalidInput, format!("there is no stage `{target}` in `{shown}`"));
        match nearest(target, names()) {
            Some(near) => error.with_hint(format!("did you mean `{near}`?")),
            None if names().next().is_none() => {
                error.with_hint("no stage has a name; give it one: `FROM image AS name`")
            }
            None => error.with_hint(format!("its stages: {}", names().collect::<Vec<_>>().join(", "))),
        }
    })
}

/// One stage, as a plan shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedStage {
    /// Its place in the file, from 0.
    pub index: usize,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// What it starts from, expanded.
    pub base: String,
    /// `--platform` of its FROM.
    pub platform: Option<Platform>,
    /// The target needs it.
    pub needed: bool,
    /// How many instructions it has, without its FROM.
    pub instructions: usize,
}

/// Says which stages a request builds. Where it asks for several platforms, the first one counts.
///
/// A Dockerfile for another frontend ([`Dockerfile::is_foreign`]) gives no stages.
///
/// # Errors
/// As [`Dockerfile::parse`] and [`StagePlan::new`].
pub fn plan(request: &BuildRequest) -> Result<Vec<PlannedStage>> {
    let Some(dockerfile) = read(request)? else { return Ok(Vec::new()) };
    let host = Platform::host();
    let platform = request.platforms.first().unwrap_or(&host);
    let plan = StagePlan::new(&dockerfile, &PlanInput::of(request, platform, &host))?;
    let stages = dockerfile.stages.iter().zip(plan.stages);
    Ok(stages
        .map(|(stage, resolved)| PlannedStage {
            index: stage.index,
            name: stage.name.clone(),
            base: resolved.base_name,
            platform: resolved.platform,
            needed: resolved.needed,
            instructions: stage.instructions.len(),
        })
        .collect())
}

/// The images that the target of a request is made from, on any of its platforms: variables are
/// expanded, named contexts are put in, stages and `scratch` are left out.
///
/// # Errors
/// As [`plan`].
pub fn base_images(request: &BuildRequest) -> Result<Vec<Reference>> {
    let Some(dockerfile) = read(request)? else { return Ok(Vec::new()) };
    let host = Platform::host();
    let mut platforms: Vec<&Platform> = request.platforms.iter().collect();
    if platforms.is_empty() {
        platforms.push(&host);
    }
    let mut images: Vec<Reference> = Vec::new();
    for platform in platforms {
        let input = PlanInput::of(request, platform, &host);
        let plan = StagePlan::new(&dockerfile, &input)?;
        let sources = plan.all_sources(&dockerfile, &input)?;
        let needed = plan.stages.iter().zip(&sources).filter(|(stage, _)| stage.needed);
        for (stage, sources) in needed {
            let bases = std::iter::once(&stage.base).chain(sources.iter().map(|source| &source.base));
            for base in bases {
                let image = match base {
                    Base::Image(reference) => Some(reference),
                    Base::Context(name) => match request.build_contexts.get(name) {
                        Some(NamedContext::Image(reference)) => Some(reference),
                        _ => None,
                    },
                    Base::Scratch | Base::Stage(_) => None,
                };
                images.extend(image.filter(|image| !images.contains(image)).cloned());
            }
        }
    }
    Ok(images)
}

pub(super) fn read(request: &BuildRequest) -> Result<Option<Dockerfile>> {
    let (content, shown) = (&request.dockerfile.content, &request.dockerfile.shown);
    if Dockerfile::is_foreign(content, shown)? {
        return Ok(None);
    }
    Dockerfile::parse(content, shown).map(Some)
}

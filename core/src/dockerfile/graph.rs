//! How stages hang together: what each takes from which, and what must not be.

use std::collections::BTreeSet;

use super::instruction::{Instruction, InstructionKind};
use super::plan::{Base, PlanInput, StagePlan};
use super::{Dockerfile, Location};
use crate::Result;
use crate::request::BuildRequest;

/// Something that a stage takes from elsewhere.
pub(super) struct Source {
    pub(super) base: Base,
    pub(super) location: Location,
    pub(super) is_base: bool,
}

/// The instructions that a stage records with ONBUILD.
pub(super) fn triggers(
    dockerfile: &Dockerfile,
    stage: usize,
    location: Location,
) -> Result<Vec<Instruction>> {
    let recorded = dockerfile.stages[stage].instructions.iter();
    recorded
        .filter_map(|instruction| match &instruction.kind {
            InstructionKind::Onbuild(trigger) => Some(dockerfile.parse_trigger(trigger, location)),
            _ => None,
        })
        .collect()
}

pub(super) fn add_sources(
    dockerfile: &Dockerfile,
    instruction: &Instruction,
    input: &PlanInput<'_>,
    sources: &mut Vec<Source>,
) -> Result<()> {
    let location = instruction.location;
    let add = |from: &str| {
        let base = StagePlan::copy_source(dockerfile, from, location, input.contexts)?;
        sources.push(Source { base, location, is_base: false });
        Ok(())
    };
    match &instruction.kind {
        InstructionKind::Copy(copy) => copy.from.as_deref().map_or(Ok(()), add),
        InstructionKind::Run(run) => run
            .flags
            .iter()
            .filter_map(|flag| flag.strip_prefix("--mount="))
            .filter_map(|mount| mount.split(',').find_map(|field| field.strip_prefix("from=")))
            // Variables are expanded here, in the scope of the stage: only the interpreter knows.
            .filter(|from| !from.contains('$'))
            .try_for_each(add),
        _ => Ok(()),
    }
}

/// All texts that a variable of some stage may have: what was given, and every default and ENV as it is
/// written.
pub(super) fn expandable_values<'a>(dockerfile: &'a Dockerfile, request: &'a BuildRequest) -> Vec<&'a str> {
    let mut values: Vec<&str> = request.build_args.values().map(String::as_str).collect();
    let stages = dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
    for instruction in dockerfile.global_arguments.iter().chain(stages) {
        match &instruction.kind {
            InstructionKind::Arg(arguments) => {
                values.extend(arguments.iter().filter_map(|argument| argument.default.as_deref()));
            }
            InstructionKind::Env(pairs) => values.extend(pairs.iter().map(|(_, value)| value.as_str())),
            _ => {}
        }
    }
    values
}

/// Refuses stages that need each other, as BuildKit does even where the target needs neither.
pub(super) fn refuse_cycles(dockerfile: &Dockerfile, sources: &[Vec<Source>]) -> Result<()> {
    fn visit(
        index: usize,
        sources: &[Vec<Source>],
        path: &mut Vec<usize>,
        good: &mut BTreeSet<usize>,
    ) -> bool {
        if good.contains(&index) {
            return false;
        }
        path.push(index);
        for source in &sources[index] {
            let Base::Stage(next) = source.base else { continue };
            if path.contains(&next) {
                path.push(next);
                return true;
            }
            if visit(next, sources, path, good) {
                return true;
            }
        }
        path.pop();
        good.insert(index);
        false
    }
    let mut good = BTreeSet::new();
    for index in 0..sources.len() {
        let mut path = Vec::new();
        if visit(index, sources, &mut path, &mut good) {
            let start = path.iter().position(|stage| Some(stage) == path.last()).unwrap_or_default();
            let cycle = &path[start..];
            let names: Vec<String> = cycle.iter().map(|stage| dockerfile.stages[*stage].label()).collect();
            // The first of its links is the one that is named, as BuildKit does.
            let leads_on = |source: &&Source| matches!(source.base, Base::Stage(next) if next == cycle[1]);
            let link = sources[cycle[0]].iter().find(leads_on);
            let location = link.map_or_else(|| dockerfile.stages[cycle[0]].location, |link| link.location);
            let message = match &names[..] {
                [name, _] => format!("the stage `{name}` copies from itself"),
                _ => format!("stages need each other: {}", names.join(" → ")),
            };
            return Err(dockerfile.source.error(location, message));
        }
    }
    Ok(())
}

pub(super) fn refuse_later(dockerfile: &Dockerfile, index: usize, sources: &[Source]) -> Result<()> {
    let later = sources.iter().find_map(|source| match source.base {
        Base::Stage(other) if other > index && !source.is_base => Some((other, source.location)),
        _ => None,
    });
    let Some((other, location)) = later else { return Ok(()) };
    let (this, other) = (dockerfile.stages[index].label(), dockerfile.stages[other].label());
    let message = format!("the stage `{this}` cannot copy from `{other}`, which comes after it");
    Err(dockerfile.source.error(location, message).with_hint(format!("move the stage `{other}` up")))
}

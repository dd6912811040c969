//! What `windlass runtime` prints.

use serde::Serialize;
use windlass_core::backend::FindScope;
use windlass_core::config::{Reason, Selection};
use windlass_core::error::ResultExt;
use windlass_core::recipe::{
    Answer, Decision, Existence, Recipe, RepositoryFrom, RuntimeNames, RuntimeOptions, RuntimePlan,
    RuntimeReport, RuntimeTags,
};
use windlass_core::reference::Reference;
use windlass_core::{ErrorKind, Result};

use super::super::plan::actions;
use crate::args::Format;
use crate::output::{Output, Table, bytes, clean};

#[derive(Serialize)]
struct Plan<'a> {
    #[serde(flatten)]
    plan: &'a RuntimePlan,
    /// Why this backend.
    reason: &'a Reason,
    /// The backends that are tried if it is unavailable.
    then: Vec<&'a str>,
}

/// Prints a plan.
pub(super) fn plan(
    plan: &RuntimePlan,
    options: &RuntimeOptions,
    selection: &Selection,
    output: &Output,
) -> Result<()> {
    let backends = selection.backends.iter().map(|backend| backend.name.as_str());
    let then: Vec<&str> = backends.skip(1 + plan.passed_over.len()).collect();
    match output.format {
        Format::Json => output.json(&Plan { plan, reason: &selection.reason, then }),
        Format::Text | Format::Paths => {
            let parts = [
                facts(plan, options, selection, &then),
                existing(&plan.names, &plan.decision),
                decision(plan),
                steps(plan),
            ];
            let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            output.result(&parts.join("\n"))
        }
    }
}

fn facts(plan: &RuntimePlan, options: &RuntimeOptions, selection: &Selection, then: &[&str]) -> String {
    let (recipe, names) = (&*plan.recipe, &plan.names);
    let mut facts = Table::default();
    facts.row(["recipe".to_owned(), format!("{} ({})", recipe.name, origin(recipe))]);
    if let Some(version) = &names.version {
        facts.row(["version", &clean(version)]);
    }
    facts.row(["base image", &clean(&names.base_image)]);
    facts.row(["sources", &clean(&options.source.display().to_string())]);
    facts.row(["repository".to_owned(), repository(names)]);
    facts.row(["backend".to_owned(), format!("{} ({})", plan.backend, selection.reason)]);
    for passed in &plan.passed_over {
        facts.row(["not".to_owned(), format!("{} ({})", passed.backend, clean(&passed.reason))]);
    }
    if !then.is_empty() {
        facts.row(["then".to_owned(), format!("{} (if unavailable)", then.join(", "))]);
    }
    facts.render()
}

fn origin(recipe: &Recipe) -> String {
    match &recipe.file {
        Some(file) => clean(&file.display().to_string()),
        None => "built in".to_owned(),
    }
}

fn repository(names: &RuntimeNames) -> String {
    let from = match &names.repository_from {
        RepositoryFrom::Argument => "`--repository` says so".to_owned(),
        RepositoryFrom::Service { backend } => format!("that of the service of `{backend}`"),
        RepositoryFrom::Variable { name } => format!("the environment variable {name} says so"),
        RepositoryFrom::Recipe => "the recipe says so".to_owned(),
    };
    clean(&format!("{} ({from})", names.repository))
}

/// Which images exist, one a line.
fn existing(names: &RuntimeNames, decision: &Decision) -> String {
    if decision.answers().is_empty() {
        return String::new();
    }
    let mut table = Table::new(["IMAGE", "TAG", "EXISTS"]);
    for answer in decision.answers() {
        let tag = answer.reference.tag().unwrap_or_default().to_owned();
        table.row([answer.question.to_string(), tag, clean(&existence(answer))]);
    }
    table.render() + &extended(names)
}

fn existence(answer: &Answer) -> String {
    let looked_for = match answer.scope {
        FindScope::Store => "here",
        FindScope::Registry => "in the registry",
        FindScope::StoreThenRegistry => "here and in the registry",
    };
    match &answer.existence {
        Existence::Exists { image } if image.in_registry => "yes, in the registry".to_owned(),
        Existence::Exists { .. } => "yes, here".to_owned(),
        Existence::Absent => format!("no (looked for {looked_for})"),
        Existence::NotAsked { why } => format!("not asked: {why}"),
        Existence::Unknown { why } => format!("not known: {why}"),
    }
}

/// Says which inputs are told in the tags alone.
fn extended(names: &RuntimeNames) -> String {
    match &names.tags {
        RuntimeTags::Hashes { extension, extended_by, .. } if !extension.is_empty() => {
            let options: Vec<String> = extended_by.keys().map(|name| format!("`--{name}`")).collect();
            let (those, count) = (options.join(", "), if options.len() == 1 { "counts" } else { "count" });
            format!("{those}, which the hashes leave out, {count} as `{extension}`\n")
        }
        _ => String::new(),
    }
}

/// What would be done, and why.
fn decision(plan: &RuntimePlan) -> String {
    let folder =
        plan.build_folder.as_ref().map(|folder| ["wrote".to_owned(), clean(&folder.display().to_string())]);
    let mut facts = Table::default();
    match &plan.decision {
        Decision::Reuse { image, why, .. } => {
            facts.row(["builds", "nothing"]);
            facts.row(["why", why]);
            facts.row([
                "result".to_owned(),
                shown(&image.reference, image.digest.map(|digest| digest.to_string())),
            ]);
        }
        Decision::Build { mode, base_image, tags, kept, why, .. } => {
            facts.row(["builds".to_owned(), format!("in the mode {mode}")]);
            facts.row(["why", why]);
            facts.row(["from", &clean(base_image)]);
            for tag in tags {
                facts.row(["sets", &clean(&tag.familiar())]);
            }
            for tag in kept {
                facts.row(["keeps", &clean(&tag.familiar())]);
            }
            facts.row(["result", &clean(&plan.result.familiar())]);
        }
    }
    folder.into_iter().for_each(|row| facts.row(row));
    facts.render()
}

fn shown(reference: &Reference, digest: Option<String>) -> String {
    let name = reference.familiar();
    clean(&match digest {
        Some(digest) if reference.digest().is_none() => format!("{name}@{digest}"),
        _ => name,
    })
}

/// The Dockerfile, and what the backend makes of it.
fn steps(plan: &RuntimePlan) -> String {
    let Some(dockerfile) = &plan.dockerfile else { return String::new() };
    let lines: Vec<String> = dockerfile
        .lines()
        .map(|line| if line.is_empty() { String::new() } else { format!("  {}", clean(line)) })
        .collect();
    let dockerfile = lines.join("\n");
    let Some(build) = &plan.build else { return format!("Dockerfile:\n{dockerfile}\n") };
    let entries = if build.context.entries == 1 { "entry" } else { "entries" };
    format!(
        "Dockerfile, over {} {entries} of {}:\n{dockerfile}\n\n{}",
        build.context.entries,
        bytes(build.context.size_bytes),
        actions(&build.actions)
    )
}

/// Every name, one a line.
pub(super) fn names(names: &RuntimeNames) -> String {
    let mut table = Table::default();
    table.row(["recipe", &clean(&names.recipe)]);
    table.row(["base image", &clean(&names.base_image)]);
    if let Some(version) = &names.version {
        table.row(["version", &clean(version)]);
    }
    table.row(["repository".to_owned(), repository(names)]);
    match &names.tags {
        RuntimeTags::Hashes { lock_hash, source_hash, source, lock, versioned, generic, .. } => {
            table.row(["lock hash", lock_hash]);
            table.row(["source hash", source_hash]);
            table.row(["source", &source.familiar()]);
            for (name, reference) in [("lock", lock), ("versioned", versioned)] {
                if let Some(reference) = reference {
                    table.row([name, &reference.familiar()]);
                }
            }
            if let Some(generic) = generic {
                table.row(["generic", &clean(generic)]);
            }
        }
        RuntimeTags::AgentServer { commit, git_reference, target, all, cache_tag, main_cache_tag } => {
            table.row(["target", target]);
            table.row(["commit", &clean(commit.as_deref().unwrap_or("unknown"))]);
            table.row(["branch", &clean(git_reference.as_deref().unwrap_or("unknown"))]);
            all.iter().for_each(|reference| table.row(["tag", &reference.familiar()]));
            table.row(["cache tag", cache_tag]);
            table.row(["", main_cache_tag]);
        }
    }
    table.render() + &extended(names)
}

/// The recipe as a file that can be changed.
pub(super) fn recipe(recipe: &Recipe) -> Result<String> {
    toml::to_string_pretty(recipe).or_error(ErrorKind::InvalidConfig, || {
        format!("the recipe `{}` cannot be written as TOML", recipe.name)
    })
}

/// What the user should know of a result, beside it.
pub(super) fn notes(report: &RuntimeReport, output: &Output) {
    let said = extended(&report.names);
    if !said.is_empty() {
        output.note(said.trim_end());
    }
    match &report.decision {
        Decision::Reuse { why, .. } => output.note(&format!("nothing is built: {why}")),
        Decision::Build { mode, base_image, why, .. } => {
            output.note(&format!("built in the mode {mode} from {}: {why}", clean(base_image)));
        }
    }
    if let Some(folder) = &report.build_folder {
        output.note(&format!("the build folder is in `{}`", clean(&folder.display().to_string())));
    }
}

/// One line that names the result: `reference@digest`, as of `windlass build`.
pub(super) fn line(report: &RuntimeReport) -> String {
    match report.digest {
        Some(digest) => report.result.with_digest(digest).to_string() + "\n",
        None => report.result.to_string() + "\n",
    }
}

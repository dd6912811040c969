//! What `--dry-run` and `--explain` show.

use serde::Serialize;
use windlass_core::Result;
use windlass_core::backend::PlannedAction;
use windlass_core::config::{Reason, Selection};
use windlass_core::fingerprint::Change;
use windlass_core::pipeline::{BuildPlan, PassedOver};

use crate::args::Format;
use crate::output::{Output, Table, bytes, clean};

#[derive(Serialize)]
struct Plan<'a> {
    #[serde(flatten)]
    plan: &'a BuildPlan,
    /// Why this backend.
    reason: &'a Reason,
    /// The backends that are tried if it is unavailable.
    then: Vec<&'a str>,
}

/// Prints a plan.
pub(super) fn show(plan: &BuildPlan, selection: &Selection, output: &Output) -> Result<()> {
    let names = selection.backends.iter().map(|backend| backend.name.as_str());
    let then = names.skip(1 + plan.passed_over.len()).collect();
    let whole = Plan { plan, reason: &selection.reason, then };
    match output.format {
        Format::Json => output.json(&whole),
        Format::Text | Format::Paths => output.result(&as_text(&whole)),
    }
}

fn as_text(whole: &Plan<'_>) -> String {
    let plan = whole.plan;
    let mut facts = Table::default();
    facts.row(["backend", &format!("{} ({})", plan.backend, whole.reason)]);
    for PassedOver { backend, reason } in &plan.passed_over {
        facts.row(["not", &format!("{backend} ({reason})")]);
    }
    if !whole.then.is_empty() {
        facts.row(["then", &format!("{} (if unavailable)", whole.then.join(", "))]);
    }
    for reference in &plan.references {
        facts.row(["reference", &reference.familiar()]);
    }
    if let Some(fingerprint) = &plan.fingerprint {
        let found = match (&plan.found, plan.looked_for) {
            (Some(_), _) => "exists: nothing would be built",
            (None, true) => "not found",
            (None, false) => "not looked for",
        };
        facts.row(["fingerprint", &format!("{fingerprint} ({found})")]);
    }
    let entries = if plan.context.entries == 1 { "entry" } else { "entries" };
    let context = format!("{} {entries}, {}", plan.context.entries, bytes(plan.context.size_bytes));
    facts.row(["context", &context]);
    format!("{}\n{}\n{}", facts.render(), stages(plan), actions(&plan.actions))
}

fn stages(plan: &BuildPlan) -> String {
    let mut table = Table::new(["STAGE", "FROM", "INSTRUCTIONS", "NEEDED"]).align_right(2);
    for stage in &plan.stages {
        let name = stage.name.clone().unwrap_or_else(|| stage.index.to_string());
        let base = match &stage.platform {
            Some(platform) => format!("{} ({platform})", stage.base),
            None => stage.base.clone(),
        };
        let needed = if stage.needed { "yes" } else { "no" };
        table.row([clean(&name), clean(&base), stage.instructions.to_string(), needed.to_owned()]);
    }
    table.render()
}

/// The actions of a plan, one a line.
pub(super) fn actions(actions: &[PlannedAction]) -> String {
    let mut table = Table::new(["ACTION", "ON"]);
    for action in actions {
        let details = action.details.iter().map(|detail| format!(" [{detail}]"));
        table
            .row([clean(&action.verb), clean(&format!("{}{}", action.subject, details.collect::<String>()))]);
    }
    table.render()
}

/// What changed since the last build, one input a line.
pub(super) fn changes(changes: &[Change]) -> String {
    if changes.is_empty() {
        return "nothing changed since the last build of this context".to_owned();
    }
    let lines = changes.iter().map(|change| format!("  {change}"));
    format!("changed since the last build of this context:\n{}", lines.collect::<Vec<_>>().join("\n"))
}

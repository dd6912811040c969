//! `windlass backends`: what each can do, and the doctor.

use std::sync::Arc;

use serde::Serialize;
use windlass_core::Result;
use windlass_core::backend::{Backend, CheckReport, CheckStatus, Feature};
use windlass_core::backend_registry::BackendSetup;
use windlass_core::config::{Asked, SelectedBackend, Selection, select};

use crate::args::{BackendsCommand, Format};
use crate::backends::RULES;
use crate::exit_code::ExitCode;
use crate::output::{Style, Table, clean};
use crate::session::{Program, Session};

pub(super) async fn run(command: Option<BackendsCommand>, program: &Program) -> Result<ExitCode> {
    match command.unwrap_or(BackendsCommand::List) {
        BackendsCommand::List => list(program).map(|()| ExitCode::Done),
        BackendsCommand::Check { names } => check(&names, program).await,
    }
}

/// Chooses the backends, as a build would.
pub(super) fn choose(names: &[String], session: &Session<'_>) -> Result<Selection> {
    let program = session.program;
    let asked = Asked { backends: names, environment: program.global.environment.as_deref() };
    let selection =
        select(&session.settings, &program.registry, &RULES, &asked, &program.surroundings.environment)?;
    selection.warnings.iter().for_each(|warning| session.output.warn(warning));
    Ok(selection)
}

/// Makes a chosen backend.
pub(super) fn create(chosen: &SelectedBackend, session: &Session<'_>) -> Result<Arc<dyn Backend>> {
    let setup = BackendSetup {
        name: chosen.name.clone(),
        options: chosen.options.clone(),
        host: session.host.clone(),
    };
    session.program.registry.create(&chosen.type_name, setup)
}

/// Every backend that has a name: the types, and the configured ones.
fn names(session: &Session<'_>) -> Vec<String> {
    let types = session.program.registry.types().iter().map(|known| known.name.to_owned());
    let mut names: Vec<String> = types.collect();
    let configured = session.settings.backends.keys().filter(|name| !names.contains(name)).cloned();
    let configured: Vec<String> = configured.collect();
    names.extend(configured);
    names
}

#[derive(Serialize)]
struct Listed {
    name: String,
    #[serde(rename = "type")]
    type_name: String,
    summary: &'static str,
    chosen: bool,
    features: Vec<Feature>,
}

fn list(program: &Program) -> Result<()> {
    let session = program.session(None)?;
    session.output.refuse_paths()?;
    let selection = choose(&[], &session)?;
    let mut listed = Vec::new();
    for name in names(&session) {
        let found = choose(std::slice::from_ref(&name), &session)?;
        let type_name = found.backends[0].type_name.clone();
        let known = program.registry.types().iter().find(|known| known.name == type_name);
        listed.push(Listed {
            chosen: selection.backends.iter().any(|chosen| chosen.name == name),
            summary: known.map_or("unknown type", |known| known.summary),
            features: known
                .map_or_else(Vec::new, |known| (known.capabilities)().features.into_iter().collect()),
            type_name,
            name,
        });
    }
    match session.output.format {
        Format::Json => session.output.json(&serde_json::json!({
            "backends": listed,
            "reason": selection.reason,
            "reason_text": selection.reason.to_string(),
        })),
        Format::Text | Format::Paths => session.output.result(&as_table(&listed, &selection)),
    }
}

/// Backends as columns: there are few of them and many features.
fn as_table(listed: &[Listed], selection: &Selection) -> String {
    let mut summaries = Table::default();
    for backend in listed {
        let mark = if backend.chosen { "*" } else { " " };
        let name = if backend.name == backend.type_name {
            backend.name.clone()
        } else {
            format!("{} ({})", backend.name, backend.type_name)
        };
        summaries.row([mark.to_owned(), name, backend.summary.to_owned()]);
    }
    let width = Feature::ALL.iter().map(|feature| feature.label().len()).max().unwrap_or(0);
    let mut text = summaries.render() + &format!("\n* builds here: {}\n\n", selection.reason);
    let row = |label: &str, cells: Vec<String>| {
        let cells =
            cells.iter().zip(listed).map(|(cell, backend)| format!("  {cell:<0$}", backend.name.len()));
        format!("{label:<width$}{}", cells.collect::<String>()).trim_end().to_owned() + "\n"
    };
    text += &row("", listed.iter().map(|backend| backend.name.clone()).collect());
    for feature in Feature::ALL {
        let cells = listed.iter().map(|backend| if backend.features.contains(feature) { "yes" } else { "-" });
        text += &row(feature.label(), cells.map(str::to_owned).collect());
    }
    text
}

#[derive(Serialize)]
struct Checked {
    name: String,
    good: bool,
    #[serde(flatten)]
    report: CheckReport,
}

async fn check(typed: &[String], program: &Program) -> Result<ExitCode> {
    let session = program.session(None)?;
    session.output.refuse_paths()?;
    let wanted = choose(typed, &session)?;
    let all = if typed.is_empty() { Some(choose(&names(&session), &session)?) } else { None };
    let mut checked = Vec::new();
    for chosen in &all.as_ref().unwrap_or(&wanted).backends {
        let report = match create(chosen, &session) {
            Ok(backend) => {
                session.work(None, async |job| job.run(async { Ok(backend.check(job).await) }).await).await?
            }
            Err(error) => {
                let mut report = CheckReport::default();
                report.bad("configuration", crate::output::in_one_line(&error), error.hints().join("; "));
                report
            }
        };
        checked.push(Checked { name: chosen.name.clone(), good: report.is_good(), report });
    }
    match session.output.format {
        Format::Json => session.output.json(&checked)?,
        Format::Text | Format::Paths => {
            let reports: Vec<String> =
                checked.iter().map(|checked| as_text(checked, session.output.result_style())).collect();
            session.output.result(&reports.join("\n"))?;
        }
    }
    // A backend that nobody asked for may be missing on this machine.
    let is_wanted = |name: &str| wanted.backends.iter().any(|wanted| wanted.name == name);
    let good = checked.iter().all(|checked| checked.good || !is_wanted(&checked.name));
    Ok(if good { ExitCode::Done } else { ExitCode::Unavailable })
}

fn as_text(checked: &Checked, style: Style) -> String {
    let verdict =
        if checked.good { style.good("builds will work") } else { style.failure("builds will fail") };
    let mut text = format!("{}: {verdict}\n", style.bold(&checked.name));
    let width = checked.report.items.iter().map(|item| item.what.chars().count()).max().unwrap_or(0);
    for item in &checked.report.items {
        let mark = match item.status {
            CheckStatus::Good => style.good("ok     "),
            CheckStatus::Warning => style.warning("warning"),
            CheckStatus::Bad => style.failure("FAILED "),
        };
        text += &format!("  {mark}  {:<width$}  {}\n", clean(&item.what), clean(&item.seen));
        if let Some(hint) = item.hint.as_ref().filter(|hint| !hint.is_empty()) {
            text += &format!("  {}{} {}\n", " ".repeat(9), style.hint("hint:"), clean(hint));
        }
    }
    text
}

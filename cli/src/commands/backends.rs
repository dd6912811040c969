//! `windlass backends`: what each can do, and the doctor.

use std::sync::Arc;

use serde::Serialize;
use windlass_core::Result;
use windlass_core::backend::{Backend, CheckReport, CheckStatus, Feature};
use windlass_core::backend_registry::BackendSetup;
use windlass_core::config::{Asked, SelectedBackend, Selection, select};
use windlass_core::reference::Reference;
use windlass_core::registry::PushCheck;

use super::preflight;
use crate::args::{BackendsCommand, Format};
use crate::backends::RULES;
use crate::exit_code::ExitCode;
use crate::output::{Style, Table, clean};
use crate::session::{Program, Session};

pub(super) async fn run(command: Option<BackendsCommand>, program: &Program) -> Result<ExitCode> {
    match command.unwrap_or(BackendsCommand::List) {
        BackendsCommand::List => list(program).map(|()| ExitCode::Done),
        BackendsCommand::Check { names, push } => check(&names, &push, program).await,
    }
}

/// Chooses the backends, as a build would.
pub(super) fn choose(names: &[String], session: &Session<'_>) -> Result<Selection> {
    choose_by(None, names, session)
}

/// The same where the names were typed with another option than `--backend`.
pub(super) fn choose_by(option: Option<&str>, names: &[String], session: &Session<'_>) -> Result<Selection> {
    let program = session.program;
    let environment = program.global.environment.as_deref();
    let asked = Asked { backends: names, environment, option };
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
    /// What a push found out, in fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    push: Option<PushCheck>,
}

async fn check(typed: &[String], push: &[String], program: &Program) -> Result<ExitCode> {
    let session = program.session(None)?;
    session.output.refuse_paths()?;
    let repositories = push.iter().map(|text| text.parse()).collect::<Result<Vec<Reference>>>()?;
    let mut results = match typed.is_empty() && !repositories.is_empty() {
        true => Vec::new(),
        false => check_backends(typed, &session).await?,
    };
    for repository in &repositories {
        let check = session.work(None, async |job| preflight::ask(repository, &session, job).await).await?;
        let report = preflight::report(&check);
        let name = format!("push to {}", check.repository);
        results.push((Checked { name, good: report.is_good(), report, push: Some(check) }, true));
    }
    let good = results.iter().all(|(checked, counts)| checked.good || !counts);
    let checked: Vec<Checked> = results.into_iter().map(|(checked, _)| checked).collect();
    match session.output.format {
        Format::Json => session.output.json(&checked)?,
        Format::Text | Format::Paths => {
            let style = session.output.result_style();
            let reports: Vec<String> = checked.iter().map(|checked| as_text(checked, style)).collect();
            session.output.result(&reports.join("\n"))?;
        }
    }
    Ok(if good { ExitCode::Done } else { ExitCode::Unavailable })
}

/// Checks the backends; with each, whether it decides the exit code: one that nobody asked for may
/// be missing on this machine.
async fn check_backends(typed: &[String], session: &Session<'_>) -> Result<Vec<(Checked, bool)>> {
    let wanted = choose(typed, session)?;
    let all = if typed.is_empty() { Some(choose(&names(session), session)?) } else { None };
    let mut checked = Vec::new();
    for chosen in &all.as_ref().unwrap_or(&wanted).backends {
        let report = match create(chosen, session) {
            Ok(backend) => {
                session.work(None, async |job| job.run(async { Ok(backend.check(job).await) }).await).await?
            }
            Err(error) => {
                let mut report = CheckReport::default();
                report.bad("configuration", crate::output::in_one_line(&error), error.hints().join("; "));
                report
            }
        };
        let counts = wanted.backends.iter().any(|wanted| wanted.name == chosen.name);
        let checked_one = Checked { name: chosen.name.clone(), good: report.is_good(), report, push: None };
        checked.push((checked_one, counts));
    }
    Ok(checked)
}

fn as_text(checked: &Checked, style: Style) -> String {
    let what = if checked.push.is_some() { "pushes" } else { "builds" };
    let verdict = match checked.good {
        true => style.good(&format!("{what} will work")),
        false => style.failure(&format!("{what} will fail")),
    };
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

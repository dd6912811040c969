//! `windlass runtime`

mod options;
mod show;

use std::sync::Arc;

use serde::Serialize;
use windlass_core::Result;
use windlass_core::backend::{Backend, Job};
use windlass_core::config::{Reason, Selection};
use windlass_core::output::{Destination, Output};
use windlass_core::recipe::{RuntimeOptions, RuntimeReport, build_runtime, plan_runtime, runtime_names};

pub(super) use options::recipe;

use super::backends::choose;
use super::build::{limit, pipeline, say_if_offered};
use super::context::refuse_json;
use crate::args::{Format, RuntimeBuildArgs, RuntimeCommand, RuntimeImageArgs, RuntimePlanArgs};
use crate::output::refuse_terminal;
use crate::session::{Program, Session};

/// What was done, as data.
#[derive(Serialize)]
struct RuntimeResult<'a> {
    #[serde(flatten)]
    report: &'a RuntimeReport,
    /// Why this backend.
    reason: &'a Reason,
}

pub(super) async fn run(command: RuntimeCommand, program: &Program) -> Result<()> {
    let session = program.session(None)?;
    session.output.refuse_paths()?;
    match command {
        RuntimeCommand::Build(args) => build(&args, &session).await,
        RuntimeCommand::Plan(args) => plan(&args, &session).await,
        RuntimeCommand::Tags(args) => tags(&args.image, &session).await,
    }
}

async fn build(args: &RuntimeBuildArgs, session: &Session<'_>) -> Result<()> {
    let selection = choose(&args.image.backends, session)?;
    let mut options = options::read(&args.image, Some(&args.output), &selection, session)?;
    options.build_folder.clone_from(&args.build_folder);
    if args.dry_run {
        return show_plan(&args.image, &options, &selection, session).await;
    }
    let limit = limit(args.image.timeout.as_deref(), session)?;
    let archive_on_stdout = options.outputs.iter().any(is_stdout);
    if archive_on_stdout {
        refuse_terminal("an archive")?;
        refuse_json(&session.output)?;
    }
    say_if_offered(&selection, session);
    let pipeline = pipeline(&selection, session)?;
    let work = async |job: &Job| build_runtime(&pipeline, &options, &session.host, job).await;
    let report = session.work(limit, work).await?;
    show::notes(&report, &session.output);
    if archive_on_stdout {
        session.output.note(show::line(&report).trim_end());
        return Ok(());
    }
    match session.output.format {
        Format::Json => session.output.json(&RuntimeResult { report: &report, reason: &selection.reason }),
        Format::Text | Format::Paths => session.output.result(&show::line(&report)),
    }
}

fn is_stdout(output: &Output) -> bool {
    output.destination == Some(Destination::Stdout)
}

async fn plan(args: &RuntimePlanArgs, session: &Session<'_>) -> Result<()> {
    if args.show_recipe {
        let recipe = options::recipe(&args.image.recipe, session)?;
        return match session.output.format {
            Format::Json => session.output.json(&*recipe),
            Format::Text | Format::Paths => session.output.result(&show::recipe(&recipe)?),
        };
    }
    let selection = choose(&args.image.backends, session)?;
    let options = options::read(&args.image, Some(&args.output), &selection, session)?;
    show_plan(&args.image, &options, &selection, session).await
}

async fn show_plan(
    args: &RuntimeImageArgs,
    options: &RuntimeOptions,
    selection: &Selection,
    session: &Session<'_>,
) -> Result<()> {
    let limit = limit(args.timeout.as_deref(), session)?;
    let pipeline = pipeline(selection, session)?;
    let work = async |job: &Job| plan_runtime(&pipeline, options, &session.host, job).await;
    let plan = session.work(limit, work).await?;
    show::plan(&plan, options, selection, &session.output)?;
    match plan.refusal {
        None => Ok(()),
        // What was asked for is there.
        Some(refusal) if plan.build_folder.is_some() => {
            session.output.warn(&refusal.to_string());
            Ok(())
        }
        Some(refusal) => Err(refusal),
    }
}

async fn tags(args: &RuntimeImageArgs, session: &Session<'_>) -> Result<()> {
    let selection = choose(&args.backends, session)?;
    let options = options::read(args, None, &selection, session)?;
    let limit = limit(args.timeout.as_deref(), session)?;
    let pipeline = pipeline(&selection, session)?;
    let (options, host) = (&options, &session.host);
    let work = async |job: &Job| {
        let named = |backend: Arc<dyn Backend>| async move {
            runtime_names(options, Some(&*backend), host, job).await
        };
        pipeline.first_available(job, named).await
    };
    let (names, _) = session.work(limit, work).await?;
    match session.output.format {
        Format::Json => session.output.json(&names),
        Format::Text | Format::Paths => session.output.result(&show::names(&names)),
    }
}

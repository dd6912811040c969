//! `windlass batch`

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use windlass_core::backend::Job;
use windlass_core::backend_registry::Host;
use windlass_core::batch::{
    BatchOptions, DiskGuard, Entry, FailedImage, List, ListOptions, Manifest, PipelineBuilder, Summary, Work,
    check, check_backend,
};
use windlass_core::config::parse_bytes;
use windlass_core::context::warnings;
use windlass_core::digest::Digest;
use windlass_core::output::Output;
use windlass_core::pipeline::Pipeline;
use windlass_core::recipe::Recipes;
use windlass_core::registry::{RegistryClient, RegistrySettings};
use windlass_core::{Error, ErrorKind, Result};

use super::backends::choose;
use super::build::{limit, pipeline, say_if_offered};
use crate::args::{BatchArgs, Format};
use crate::exit_code::ExitCode;
use crate::output::{Table, clean, duration};
use crate::session::{Program, Session};
use crate::settings::{context_settings, source_date_epoch};

pub(super) async fn run(args: &BatchArgs, program: &Program) -> Result<ExitCode> {
    let mut session = program.session(args.file.parent())?;
    session.output.refuse_paths()?;
    if let Some(requests) = args.requests_per_minute {
        session.host = with_budget(&session.host, requests)?;
    }
    let current_dir = &program.surroundings.current_dir;
    let report = match &args.report {
        Some(report) => current_dir.join(report),
        None => default_report(&args.file, &session.host),
    };
    let options = BatchOptions {
        concurrency: args.jobs.into(),
        retries: args.retries,
        limit: limit(args.timeout.as_deref(), &session)?,
        fail_fast: args.fail_fast,
        disk: DiskGuard::new(min_free(&args.min_free)?, vec![session.host.cache_dir.clone(), report.clone()]),
        ..BatchOptions::new(report.clone())
    };
    let selection = choose(&args.backends, &session)?;
    let pipeline = Arc::new(pipeline(&selection, &session)?);
    let backends: Vec<String> = selection.backends.iter().map(|chosen| chosen.name.clone()).collect();
    let prepared = async |job: &Job| prepare(args, &session, &pipeline, backends, &report, job).await;
    let list = session.work(None, prepared).await?;
    if args.dry_run {
        return show_list(&list, args, &report, &session).map(|()| ExitCode::Done);
    }
    say_if_offered(&selection, &session);
    let builder = PipelineBuilder { pipeline, host: session.host.clone(), force: args.force_rebuild };
    let display = session.output.batch_display();
    let sink = display.clone().as_sink();
    let work = async |job: &Job| {
        let resume = args.resume;
        let manifest = job.blocking(move |_| Manifest::open(&report, resume)).await?;
        windlass_core::batch::run(&list, Arc::new(builder), Arc::new(manifest), &options, sink, job).await
    };
    // A limit is that of each image.
    let ended = session.work(None, work).await;
    display.finish();
    let summary = ended?;
    show(&summary, &session)?;
    Ok(match (summary.cancelled, summary.is_good()) {
        (true, _) => ExitCode::Cancelled,
        (false, true) => ExitCode::Done,
        (false, false) => ExitCode::Failed,
    })
}

/// Reads the list, and refuses what cannot work.
async fn prepare(
    args: &BatchArgs,
    session: &Session<'_>,
    pipeline: &Pipeline,
    backends: Vec<String>,
    report: &Path,
    job: &Job,
) -> Result<List> {
    let mut list = read(args, session, backends, job).await?;
    check(&mut list, pipeline, &session.host, report, job).await?;
    if !args.dry_run {
        warn(&list, job).await?;
        check_backend(pipeline, job).await?;
    }
    Ok(list)
}

async fn read(args: &BatchArgs, session: &Session<'_>, backends: Vec<String>, job: &Job) -> Result<List> {
    let surroundings = session.program.surroundings.clone();
    let recipes = Recipes::of(&session.settings)?;
    let context = context_settings(&session.settings.context);
    let epoch = source_date_epoch(surroundings.variable("SOURCE_DATE_EPOCH"))?;
    let outputs: Option<Vec<Output>> = match (args.push, args.load) {
        (false, false) => None,
        (push, load) => Some(push.then(Output::push).into_iter().chain(load.then(Output::load)).collect()),
    };
    let (file, names) = (args.file.clone(), args.names.clone());
    job.blocking(move |_| {
        let options = ListOptions {
            current_dir: &surroundings.current_dir,
            environment: &surroundings.environment,
            context: &context,
            recipes: &recipes,
            outputs: outputs.as_deref(),
            only: &names,
            backends: &backends,
            source_date_epoch: epoch,
        };
        List::read(&file, &options)
    })
    .await
}

/// Says what the user should know about the contexts, once for each.
async fn warn(list: &List, job: &Job) -> Result<()> {
    let mut contexts = BTreeMap::new();
    for entry in &list.entries {
        if let Work::Dockerfile(request) = &entry.work {
            contexts.entry(request.context.root().map(Path::to_owned)).or_insert(request.context.clone());
        }
    }
    job.blocking(move |job| {
        contexts.values().try_for_each(|context| warnings(context, &context.list_once(job)?, job))
    })
    .await
}

/// The same host with a client that asks each registry no more often.
fn with_budget(host: &Host, requests: u32) -> Result<Arc<Host>> {
    let settings = host.registry_client.settings().clone();
    let settings = RegistrySettings { requests_per_minute: Some(requests), ..settings };
    Ok(Arc::new(Host { registry_client: RegistryClient::new(settings)?, ..host.clone() }))
}

/// Where what becomes of a list is kept that nobody says it of: no two lists have the same place.
fn default_report(file: &Path, host: &Host) -> PathBuf {
    let path = host.current_dir.join(file);
    let path = path.canonicalize().unwrap_or(path);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let hash = Digest::of(path.as_os_str().as_encoded_bytes()).hex();
    host.state_dir.join("batches").join(format!("{stem}-{}", &hash[..8]))
}

fn min_free(text: &str) -> Result<u64> {
    parse_bytes(text).and_then(|bytes| u64::try_from(bytes).ok()).ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, format!("invalid `--min-free {text}`"))
            .with_hint("it is a size such as `20GB` or `512MiB`")
    })
}

/// An image of a list, as data.
#[derive(Serialize)]
struct ListedImage<'a> {
    name: &'a str,
    line: usize,
    made_by: String,
    base_image: Option<&'a str>,
    target: Option<&'a str>,
    tags: Vec<String>,
    outputs: Vec<String>,
    /// An earlier run has finished it.
    finished: bool,
}

fn show_list(list: &List, args: &BatchArgs, report: &Path, session: &Session<'_>) -> Result<()> {
    let finished = if args.resume { Manifest::look(report)? } else { HashSet::new() };
    let listed = |entry| listed(entry, &finished);
    let images: Vec<ListedImage<'_>> = list.entries.iter().map(listed).collect();
    if session.output.format == Format::Json {
        return session.output.json(&images);
    }
    let mut table = Table::new(["NAME", "MADE BY", "BASE IMAGE", "TAGS", "WOULD BE"]);
    for image in &images {
        let place = image.outputs.join(" ");
        let would_be = if image.finished { "left: finished before" } else { &format!("built, {place}") };
        let tags = match &image.tags[..] {
            [] => "-".to_owned(),
            [tag] => tag.clone(),
            [tag, more @ ..] => format!("{tag} and {} more", more.len()),
        };
        let base = image.base_image.unwrap_or("-");
        table.row([image.name, &image.made_by, base, &tags, would_be].map(clean));
    }
    session.output.result(&table.render())
}

fn listed<'a>(entry: &'a Entry, finished: &HashSet<String>) -> ListedImage<'a> {
    ListedImage {
        name: &entry.name,
        line: entry.line,
        made_by: entry.made_by(),
        base_image: entry.base_image.as_deref(),
        target: entry.target.as_deref(),
        tags: entry.tags.iter().map(|tag| tag.familiar()).collect(),
        outputs: entry.outputs().iter().map(ToString::to_string).collect(),
        finished: finished.contains(&entry.hash),
    }
}

fn show(summary: &Summary, session: &Session<'_>) -> Result<()> {
    match session.output.format {
        Format::Json => session.output.json(summary),
        Format::Text | Format::Paths => session.output.result(&as_text(summary)),
    }
}

fn as_text(summary: &Summary) -> String {
    let counts = [
        (summary.built, "built"),
        (summary.skipped, "there already"),
        (summary.finished_before, "finished by an earlier run"),
        (summary.failed, "failed"),
        (summary.not_finished, "not finished"),
    ];
    let counts: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    let images = if summary.total == 1 { "image" } else { "images" };
    let took = duration(Duration::from_secs_f64(summary.duration_seconds.max(0.0)));
    let mut text = format!("{} {images}: {}; {took}", summary.total, counts.join(", "));
    if let Some(seconds) = summary.seconds_per_built_image {
        text += &format!(", {seconds:.3} s an image built");
    }
    text.push('\n');
    // Three hundred images may have failed for one reason.
    let mut reasons: Vec<(&str, Vec<&FailedImage>)> = Vec::new();
    for failure in &summary.failures {
        match reasons.iter_mut().find(|(reason, _)| *reason == failure.error) {
            Some((_, images)) => images.push(failure),
            None => reasons.push((&failure.error, vec![failure])),
        }
    }
    for (reason, images) in reasons {
        let names: Vec<String> = images.iter().map(|image| clean(&image.name)).collect();
        text += &format!("\nfailed: {}\n  {}\n", names.join(", "), clean(reason));
        if let Some(log) = &images[0].log_path {
            text += &format!("  log: {}\n", log.display());
        }
    }
    if let Some(reason) = &summary.stopped {
        text += &format!("\nstopped: {}\n", clean(reason));
    }
    if summary.not_finished > 0 {
        text += "\nthe same command with `--resume` goes on\n";
    }
    text + &format!("\nmanifest: {}\n", summary.manifest.display())
}

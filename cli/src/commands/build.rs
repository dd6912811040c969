//! `windlass build`

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};
use windlass_core::backend::Job;
use windlass_core::config::{Reason, SelectedBackend, Selection, parse_duration};
use windlass_core::output::Destination;
use windlass_core::pipeline::{BuildReport, Detached, Pipeline, PipelineOptions, Reuse};
use windlass_core::request::{BuildRequest, BuiltImage};
use windlass_core::{Error, ErrorKind, Result};

use super::backends::{choose, create};
use super::context::refuse_json;
use super::plan;
use crate::args::{BuildArgs, Format, ServiceArgs};
use crate::output::refuse_terminal;
use crate::request::build_request;
use crate::session::{Program, Session};
use crate::written_file;

/// What a build is, as data.
#[derive(Serialize)]
struct BuildResult<'a> {
    #[serde(flatten)]
    report: &'a BuildReport,
    /// Why this backend.
    reason: &'a Reason,
}

pub(super) async fn run(args: &BuildArgs, program: &Program) -> Result<()> {
    let session = program.session(Some(&args.context))?;
    session.output.refuse_paths()?;
    let limit = limit(args.timeout.as_deref(), &session)?;
    let selection = with_service_options(choose(&args.backends, &session)?, &args.service)?;
    let request = build_request(args, &session).await?;
    let pipeline = pipeline(&selection, &session)?;
    let options = PipelineOptions { reuse: reuse(args), explain: args.explain };
    if args.dry_run {
        let plan = session.work(limit, async |job| pipeline.plan(request, &options, job).await).await?;
        return plan::show(&plan, &selection, &session.output);
    }
    let archive_on_stdout = goes_to_stdout(&request);
    if archive_on_stdout {
        refuse_terminal("an archive")?;
        refuse_json(&session.output)?;
    }
    prepare_files(args)?;
    tracing::info!(backend = %selection.backends[0].name, reason = %selection.reason, "chosen");
    say_if_offered(&selection, &session);
    if args.detach {
        let work = async |job: &Job| {
            warn(&request, job).await?;
            pipeline.submit(request, &options, job).await
        };
        return show_detached(&session.work(limit, work).await?, &selection, &session);
    }
    let report = session
        .work(limit, async |job: &Job| {
            warn(&request, job).await?;
            pipeline.build(request, &options, job).await
        })
        .await?;
    write_files(args, &report, &selection)?;
    if archive_on_stdout {
        session.output.note(result_line(&report.image).trim_end());
        return Ok(());
    }
    show(&report, &selection, &session)
}

/// Says what the user should know about the context.
async fn warn(request: &BuildRequest, job: &Job) -> Result<()> {
    let context = request.context.clone();
    job.blocking(move |job| {
        let entries = context.list_once(job)?;
        windlass_core::context::warnings(&context, &entries, job)
    })
    .await
}

/// How long work may take: as typed, else as set. Zero is for ever, which also goes before the own limit of a
/// backend.
pub(super) fn limit(typed: Option<&str>, session: &Session<'_>) -> Result<Option<Duration>> {
    let limit = match typed {
        None => session.settings.timeouts.build,
        Some(text) => Some(parse_duration(text).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, format!("invalid `--timeout {text}`"))
                .with_hint("it is a time span such as `90s` or `1h30m`; 0 is for ever")
        })?),
    };
    Ok(limit.map(|limit| if limit.is_zero() { Duration::MAX } else { limit }))
}

/// Hands arguments over that are options of a type of backend.
fn with_service_options(mut selection: Selection, args: &ServiceArgs) -> Result<Selection> {
    let typed = [("--cache-key", args.cache_key.is_some()), ("--no-nydus", args.no_nydus)];
    let Some((argument, _)) = typed.iter().find(|(_, typed)| *typed) else { return Ok(selection) };
    let takes = |chosen: &SelectedBackend| chosen.type_name == windlass_image_builder::TYPE;
    if !selection.backends.iter().any(takes) {
        let name = &selection.backends[0].name;
        let message = format!("`{argument}` cannot be used with the backend `{name}`");
        return Err(Error::new(ErrorKind::Unsupported, message).with_hint(format!(
            "backends that can: {0}; choose one with `--backend {0}`",
            windlass_image_builder::TYPE
        )));
    }
    for chosen in selection.backends.iter_mut().filter(|chosen| takes(chosen)) {
        let mut options = std::mem::take(&mut chosen.options);
        if let Some(key) = &args.cache_key {
            options = options.with("cache-key", key.as_str(), "--cache-key");
        }
        if args.no_nydus {
            options = options.with("nydus", false, "--no-nydus");
        }
        chosen.options = options;
    }
    Ok(selection)
}

/// Who said nothing about backends should see that the surroundings did.
pub(super) fn say_if_offered(selection: &Selection, session: &Session<'_>) {
    let offered = matches!(
        selection.reason,
        Reason::Offered { .. } | Reason::Variable { name: "TOGETHER_LOCAL_BUILD" }
    );
    if offered {
        let name = &selection.backends[0].name;
        session.output.note(&format!("using the backend `{name}`: {}", selection.reason));
    }
}

fn reuse(args: &BuildArgs) -> Reuse {
    match (args.force_rebuild || args.no_cache, args.reuse) {
        (true, _) => Reuse::Never,
        (false, true) => Reuse::Always,
        (false, false) => Reuse::WhenUntagged,
    }
}

pub(super) fn pipeline(selection: &Selection, session: &Session<'_>) -> Result<Pipeline> {
    let backends = selection.backends.iter().map(|chosen| create(chosen, session)).collect::<Result<_>>()?;
    Pipeline::new(session.program.registry.clone(), backends, session.host.clone())
}

fn goes_to_stdout(request: &BuildRequest) -> bool {
    request.outputs.iter().any(|output| output.destination == Some(Destination::Stdout))
}

/// A build of an hour must not end in a file that cannot be written. And an id of an earlier build
/// must not be taken for that of one that failed: buildx too removes the file first.
fn prepare_files(args: &BuildArgs) -> Result<()> {
    for path in args.iidfile.iter().chain(&args.metadata_file) {
        written_file::check_writable(path)?;
    }
    let earlier = args.iidfile.as_ref().filter(|path| !written_file::is_special(path));
    match earlier.map(std::fs::remove_file) {
        Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
            let path = args.iidfile.as_deref().unwrap_or(Path::new(""));
            Err(Error::new(ErrorKind::LocalIo, format!("could not replace `{}`", path.display()))
                .with_source(error))
        }
        _ => Ok(()),
    }
}

fn write_files(args: &BuildArgs, report: &BuildReport, selection: &Selection) -> Result<()> {
    if let Some(path) = &args.iidfile {
        // As buildx: the id is that of the config, and that of the index where there are several.
        let id = report.image.image_id.or(report.image.digest);
        written_file::write(path, id.map(|id| id.to_string()).unwrap_or_default().as_bytes())?;
    }
    if let Some(path) = &args.metadata_file {
        let text = serde_json::to_string_pretty(&metadata(report, selection)).unwrap_or_default();
        written_file::write(path, (text + "\n").as_bytes())?;
    }
    Ok(())
}

/// The keys of buildx, and one of our own.
fn metadata(report: &BuildReport, selection: &Selection) -> Map<String, Value> {
    let image = &report.image;
    let mut metadata = image.metadata.clone();
    let mut add = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            metadata.entry(key).or_insert(value);
        }
    };
    add("containerimage.digest", image.digest.map(|digest| digest.to_string().into()));
    add("containerimage.config.digest", image.image_id.map(|id| id.to_string().into()));
    let names: Vec<String> = image.references.iter().map(ToString::to_string).collect();
    add("image.name", Some(names.join(",").into()).filter(|_| !names.is_empty()));
    add(
        "windlass",
        Some(json!({
            "backend": image.backend,
            "reason": selection.reason,
            "reused": image.reused,
            "fingerprint": report.fingerprint,
            "platforms": image.platforms,
            "written": image.written,
            "passed_over": report.passed_over,
        })),
    );
    metadata
}

fn show(report: &BuildReport, selection: &Selection, session: &Session<'_>) -> Result<()> {
    if let Some(changes) = &report.changes {
        session.output.note(&plan::changes(changes));
    }
    match session.output.format {
        Format::Json => session.output.json(&BuildResult { report, reason: &selection.reason }),
        Format::Text | Format::Paths => session.output.result(&result_line(&report.image)),
    }
}

/// The id of a build that nobody waits for; the image where there was nothing to wait for.
fn show_detached(detached: &Detached, selection: &Selection, session: &Session<'_>) -> Result<()> {
    match detached {
        Detached::Finished(report) => show(report, selection, session),
        Detached::Started(_) if session.output.format == Format::Json => session.output.json(detached),
        Detached::Started(started) => {
            let id = &started.build.id;
            session.output.note(&format!(
                "submitted to {}: `windlass builds attach {id} --backend {}` waits for it",
                started.server, started.backend
            ));
            // It runs: whoever cannot read stdout must still be able to come back to it.
            session.output.result(&format!("{id}\n")).map_err(|error| error.with_build(id))
        }
    }
}

/// One line that names the result: `reference@digest`, else the digest, else what was written.
pub(super) fn result_line(image: &BuiltImage) -> String {
    let line = match (image.references.first(), image.digest) {
        (Some(reference), Some(digest)) => reference.with_digest(digest).to_string(),
        (Some(reference), None) => reference.to_string(),
        (None, Some(digest)) => digest.to_string(),
        (None, None) => match image.written.first() {
            Some(written) => written.display().to_string(),
            None => return String::new(),
        },
    };
    line + "\n"
}

#[cfg(test)]
mod tests {
    use windlass_core::digest::Digest;

    use super::*;

    fn image(references: &[&str], digest: Option<Digest>, written: &[&str]) -> BuiltImage {
        BuiltImage {
            references: references.iter().map(|reference| reference.parse().expect("valid")).collect(),
            digest,
            image_id: None,
            platforms: Vec::new(),
            backend: "oci".to_owned(),
            reused: false,
            written: written.iter().map(Into::into).collect(),
            metadata: Map::new(),
        }
    }

    #[test]
    fn the_result_is_one_line() {
        let digest = Digest::of(b"x");
        for (image, line) in [
            (image(&["localhost/a:1", "b"], Some(digest), &[]), format!("localhost/a:1@{digest}\n")),
            (image(&["b:2"], None, &[]), "docker.io/library/b:2\n".to_owned()),
            (image(&[], Some(digest), &["a.tar"]), format!("{digest}\n")),
            (image(&[], None, &["out"]), "out\n".to_owned()),
            (image(&[], None, &[]), String::new()),
        ] {
            assert_eq!(result_line(&image), line);
        }
    }
}

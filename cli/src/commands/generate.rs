//! `windlass context generate`: stands for a script that pipelines call, with its messages on stdout and its
//! exit codes. What happens meanwhile is shown on stderr, as by any command.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use windlass_core::backend::Job;
use windlass_core::config::Selection;
use windlass_core::ledger::{Ledger, LedgerEntry};
use windlass_core::pipeline::{Detached, Pipeline, PipelineOptions, Reuse, StartedBuild, resume};
use windlass_core::recipe::{GenerateOptions, GeneratedContext, Generation, Recipe, size_text};
use windlass_core::request::BuiltImage;
use windlass_core::{Error, ErrorKind, Result};

use super::backends::{choose, create};
use super::build::{limit, pipeline};
use super::runtime::recipe;
use crate::args::{Format, GenerateArgs};
use crate::backends::RULES;
use crate::exit_code::ExitCode;
use crate::output::{Output, clean, to_stderr};
use crate::session::{Program, Session};
use crate::settings::context_settings;

/// The type of backends that generated contexts are uploaded to.
const SERVICE: &str = windlass_runtime_api::TYPE;

/// What was generated, as data.
#[derive(Serialize)]
struct Generated<'a> {
    archive: String,
    digest: String,
    size_bytes: u64,
    size: String,
    files: u64,
    content_bytes: u64,
    target: String,
    base_image: &'a str,
    commit: &'a str,
    tags: &'a [String],
    /// Without the prefix that a service puts before it.
    image: String,
    /// The image on the service; `None` where nothing was uploaded.
    built: Option<&'a BuiltImage>,
    backend: Option<&'a str>,
    build: Option<&'a str>,
}

/// What the service made.
struct Uploaded {
    image: BuiltImage,
    backend: String,
    build: Option<String>,
}

/// A failure, with what the script calls it.
struct Failure {
    called: &'static str,
    /// It was in the upload, or in the build.
    remote: bool,
    error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { called: "Build failed", remote: false, error }
    }
}

pub(super) async fn run(args: &GenerateArgs, program: &Program) -> Result<ExitCode> {
    let session = program.session(Some(&args.source))?;
    session.output.refuse_paths()?;
    // What is typed wrong is wrong usage, and none of the failures that the script has words for.
    let limit = limit(args.timeout.as_deref(), &session)?;
    let recipe = recipe(&args.recipe, &session)?;
    let log = Log { output: &session.output };
    let failure = match generate(args, recipe, limit, &session, &log).await {
        Ok(()) => return Ok(ExitCode::Done),
        Err(failure) if failure.error.kind() == ErrorKind::Cancelled => return Err(failure.error),
        Err(failure) => failure,
    };
    log.failed(&failure);
    Ok(ExitCode::Failed)
}

async fn generate(
    args: &GenerateArgs,
    recipe: Arc<Recipe>,
    limit: Option<Duration>,
    session: &Session<'_>,
    log: &Log<'_>,
) -> Result<(), Failure> {
    let options = GenerateOptions {
        recipe,
        source: args.source.clone(),
        target: args.target.clone(),
        output_dir: args.output_dir.clone(),
        forced: args.force,
        force_option: "--force",
    };
    // A service that cannot be used is one before the work.
    let service = if args.no_upload { None } else { service(session)? };
    let pipeline = service.as_ref().map(|selection| pipeline(selection, session)).transpose()?;
    let (generation, generated) = write(options, session, log).await?;
    let uploaded = match pipeline {
        Some(pipeline) => {
            let work = async |job: &Job| upload(&pipeline, &generation, &generated, session, log, job).await;
            Some(session.work(limit, work).await.map_err(in_upload)?)
        }
        None if args.no_upload => None,
        None => {
            say_what_is_missing(session);
            log.say("Runtime API credentials not provided, skipping upload")?;
            None
        }
    };
    log.say("✅ Build context generation completed successfully!")?;
    show(&generation, &generated, uploaded.as_ref(), session)?;
    Ok(())
}

/// Settles what is generated, tells it, and writes it.
async fn write(
    options: GenerateOptions,
    session: &Session<'_>,
    log: &Log<'_>,
) -> Result<(Generation, GeneratedContext)> {
    let (host, recipe) = (session.host.clone(), options.recipe.clone());
    let settled =
        session.work(None, async |job| job.blocking(move |_| Generation::settle(&options, &host)).await);
    let generation = settled.await?;
    log.say(&format!("Creating build context for target: {}", generation.target))?;
    log.say(&format!("Base image: {}", generation.base_image))?;
    log.say(&format!("Git SHA: {}", generation.commit))?;
    let archive = generation.archive();
    let cleans = generation.clean && session.host.current_dir.join(&generation.output_dir).exists();
    let (host, settings) = (session.host.clone(), context_settings(&session.settings.context));
    let (generation, generated) = session
        .work(None, async |job| {
            job.blocking(move |job| {
                let generated = generation.write(&settings, &host, job)?;
                Ok((generation, generated))
            })
            .await
        })
        .await?;
    if cleans {
        let directory = archive.parent().unwrap_or(&generation.output_dir).display();
        log.say(&format!("Cleaning output directory: {directory}"))?;
    }
    log.say("Generated Dockerfile")?;
    log.say("Copying source code...")?;
    for directory in generated.folder.context.mounts() {
        log.say(&format!("Copying {}...", directory.at))?;
    }
    let files = recipe.lock_files.iter().map(|file| &file.destination);
    let others = recipe.sources.iter().map(|tree| &tree.destination);
    let is_file = |name: &String| {
        let mut entries = generated.folder.context.in_memory();
        entries.any(|entry| entry.is_file() && entry.path.as_bytes() == name.as_bytes())
    };
    for file in files.chain(others).filter(|name| is_file(name)) {
        log.say(&format!("Copied {file}"))?;
    }
    let shown = archive.display();
    log.say(&format!("Creating tarball: {shown}"))?;
    log.say(&format!("Build context created: {shown}"))?;
    log.say(&format!("File size: {}", size_text(generated.summary.packed_bytes)))?;
    Ok((generation, generated))
}

/// The service that the surroundings name: the backend that builds would go to if it is one, one by the
/// variables, or the one of the configuration that has an address and a key. `None` without any.
fn service(session: &Session<'_>) -> Result<Option<Selection>> {
    let mut selection = choose(&[], session)?;
    selection.backends.retain(|chosen| chosen.type_name == SERVICE);
    if !selection.backends.is_empty() {
        return Ok(Some(selection));
    }
    let is_set = |name: &&str| session.host.variable(name).is_some();
    let mut offers = RULES.offers.iter().filter(|offer| offer.type_name == SERVICE);
    if offers.any(|offer| offer.variables.iter().all(is_set)) {
        return choose(&[SERVICE.to_owned()], session).map(Some);
    }
    for name in session.settings.backends.keys() {
        let selection = choose(std::slice::from_ref(name), session)?;
        let chosen = &selection.backends[0];
        if chosen.type_name == SERVICE && create(chosen, session).is_ok() {
            return Ok(Some(selection));
        }
    }
    Ok(None)
}

/// Half a credential is mostly a mistake.
fn say_what_is_missing(session: &Session<'_>) {
    let variable = |name| session.host.variable(name).is_some();
    match (variable("RUNTIME_API_URL"), variable("RUNTIME_API_KEY")) {
        (true, false) => session.output.warn("RUNTIME_API_URL is set, and RUNTIME_API_KEY is not"),
        (false, true) => session.output.warn("RUNTIME_API_KEY is set, and RUNTIME_API_URL is not"),
        _ => {}
    }
}

/// Has the service build what was generated, and waits for it.
async fn upload(
    pipeline: &Pipeline,
    generation: &Generation,
    generated: &GeneratedContext,
    session: &Session<'_>,
    log: &Log<'_>,
    job: &Job,
) -> Result<Uploaded> {
    log.say("📤 Uploading build context to Runtime API...")?;
    let options = PipelineOptions { reuse: Reuse::Never, ..PipelineOptions::default() };
    match pipeline.submit(generation.request(generated), &options, job).await? {
        Detached::Finished(report) => {
            log.say("✅ Build completed successfully!")?;
            let image = report.image;
            Ok(Uploaded { backend: image.backend.clone(), image, build: None })
        }
        Detached::Started(started) => {
            let id = started.build.id.to_string();
            log.say(&format!("🛠️  Build started with ID: {id}"))?;
            if let Some(target) = started.build.targets.first() {
                log.say(&format!("🎯 Target image: {target}"))?;
            }
            log.say("Monitoring build progress...")?;
            let image = wait(&started, session, job).await?;
            log.say("✅ Build completed successfully!")?;
            Ok(Uploaded { image, backend: started.backend, build: Some(id) })
        }
    }
}

async fn wait(started: &StartedBuild, session: &Session<'_>, job: &Job) -> Result<BuiltImage> {
    let selection = choose(std::slice::from_ref(&started.backend), session)?;
    let backend = create(&selection.backends[0], session)?;
    let Some(remote) = backend.remote() else {
        let message = format!("builds of the backend `{}` end with the program", started.backend);
        return Err(Error::new(ErrorKind::Unsupported, message).with_build(&started.build.id));
    };
    let known = Ledger::new(&session.host.state_dir).find_at(started.build.id.as_str(), &started.server);
    let entry = known.ok().flatten().unwrap_or_else(|| {
        // A ledger that cannot be read costs the build its entry there, and nothing else.
        LedgerEntry::started(started.build.clone(), &started.backend, &started.server, "agent-server")
    });
    resume(remote, entry, &session.host, job).await
}

fn in_upload(error: Error) -> Failure {
    let called = match error.kind() {
        ErrorKind::BuildFailed => "❌ Build failed",
        ErrorKind::TimedOut => "⏰ Build monitoring timed out",
        ErrorKind::Unavailable => "Failed to upload to Runtime API",
        ErrorKind::Denied | ErrorKind::UnexpectedAnswer | ErrorKind::NotFound => {
            "HTTP error from Runtime API"
        }
        _ => "Build failed",
    };
    Failure { called, remote: true, error }
}

fn show(
    generation: &Generation,
    generated: &GeneratedContext,
    uploaded: Option<&Uploaded>,
    session: &Session<'_>,
) -> Result<()> {
    match session.output.format {
        Format::Json => session.output.json(&Generated {
            archive: generated.archive.display().to_string(),
            digest: generated.digest.to_string(),
            size_bytes: generated.summary.packed_bytes,
            size: size_text(generated.summary.packed_bytes),
            files: generated.summary.files,
            content_bytes: generated.summary.content_bytes,
            target: generation.target.to_string(),
            base_image: &generation.base_image,
            commit: &generation.commit,
            tags: &generation.tags,
            image: generation.image.familiar().to_string(),
            built: uploaded.map(|uploaded| &uploaded.image),
            backend: uploaded.map(|uploaded| uploaded.backend.as_str()),
            build: uploaded.and_then(|uploaded| uploaded.build.as_deref()),
        }),
        Format::Text | Format::Paths if session.output.is_quiet() => {
            session.output.result(&format!("{}\n", generated.archive.display()))
        }
        Format::Text | Format::Paths => Ok(()),
    }
}

/// The messages of the script, each with the time (UTC) and the name that it gives itself.
struct Log<'a> {
    output: &'a Output,
}

impl Log<'_> {
    fn prefix() -> String {
        format!("[{}] [runtime-build]", Timestamp::now().strftime("%Y-%m-%d %H:%M:%S"))
    }

    /// They are results of this command: scripts read them.
    fn say(&self, message: &str) -> Result<()> {
        match self.output.format {
            Format::Text if !self.output.is_quiet() => {
                self.output.result(&format!("{} {}\n", Self::prefix(), clean(message)))
            }
            _ => Ok(()),
        }
    }

    fn failed(&self, failure: &Failure) {
        let prefix = format!("{} ERROR:", Self::prefix());
        let first = format!("{prefix} {}:", failure.called);
        self.output.error_after(&first, &failure.error, ExitCode::Failed);
        if failure.remote && self.output.format == Format::Text {
            to_stderr(&format!("{prefix} Runtime API upload/build failed"));
        }
    }
}

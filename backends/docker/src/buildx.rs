//! `docker buildx build` as a child process.
//!
//! The command line is made in `command`, the child is watched over in `process`.

use std::io::{PipeWriter, Write};
use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::Command;
use windlass_core::Result;
use windlass_core::archive::ArchiveSettings;
use windlass_core::backend::Job;
use windlass_core::error::{Error, ErrorKind, ResultExt};
use windlass_core::output::Destination;
use windlass_core::request::BuildRequest;

use crate::command;
use crate::config::Config;
use crate::input::Input;
use crate::outputs::Placed;
use crate::process::{Ended, Group};
use crate::program::Buildx;
use crate::progress::Progress;

/// Options that make buildx print a result of its own to the standard output.
const PRINTING_OPTIONS: &[&str] = &["--call", "--check", "--print"];

/// What a successful build left.
#[derive(Debug)]
pub(crate) struct Built {
    /// The content of the metadata file.
    pub(crate) metadata: serde_json::Map<String, serde_json::Value>,
    /// The outputs that are in their place now.
    pub(crate) written: Vec<PathBuf>,
}

/// Builds. Gives back how the child ended where it failed.
///
/// # Errors
/// `Cancelled`; `ContextUnreadable`; `LocalIo` where an output cannot be written.
pub(crate) async fn build(
    buildx: &Buildx,
    request: &BuildRequest,
    config: &Config,
    archive: ArchiveSettings,
    job: &Job,
) -> Result<std::result::Result<Built, Ended>> {
    let input = Input::of(request);
    if let Input::Archive(archive) = &input {
        archive.warn(request, job);
    }
    let outputs = Placed::new(&request.outputs, buildx.program.surroundings().current_dir())?;
    let temporary = TempDir::with_prefix("windlass-docker.")
        .or_error(ErrorKind::LocalIo, || "could not make a temporary directory")?;
    let metadata_file = temporary.path().join("metadata.json");
    let arguments =
        command::arguments(request, config, buildx, &input, outputs.for_buildx(), Some(&metadata_file));
    tracing::debug!(program = %buildx.program.path().display(), arguments = %command::shown(&arguments), "build");
    let mut command = buildx.program.command(arguments);
    // buildx copies a Dockerfile that comes from stdin to a temporary file, which it may leave there.
    command.env("TMPDIR", temporary.path());
    let ended = run(buildx, command, input, request, config, archive, job).await?;
    if !ended.status.success() {
        return Ok(Err(ended));
    }
    let metadata = match std::fs::read(&metadata_file) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .or_error(ErrorKind::UnexpectedAnswer, || "the metadata that buildx wrote is damaged")?,
        // A build that only checks or prints something writes none.
        Err(_) => serde_json::Map::new(),
    };
    let written = job.blocking(move |_| outputs.commit()).await?;
    Ok(Ok(Built { metadata, written }))
}

async fn run(
    buildx: &Buildx,
    mut command: Command,
    input: Input,
    request: &BuildRequest,
    config: &Config,
    archive: ArchiveSettings,
    job: &Job,
) -> Result<Ended> {
    command.stderr(Stdio::piped()).stdout(stdout(request)).process_group(0);
    let pipe = match &input {
        Input::Directory { .. } => None,
        Input::DockerfileStream { .. } | Input::Archive(_) => {
            let (reader, writer) =
                std::io::pipe().or_error(ErrorKind::LocalIo, || "could not make a pipe")?;
            command.stdin(reader);
            Some(writer)
        }
    };
    let group = Group::start(command).or_error(ErrorKind::Unavailable, || {
        format!("could not run `{}`", buildx.program.path().display())
    })?;
    let progress = Progress::new(buildx.format(), job.events.clone());
    let feeding = feed(pipe, input, request, archive, job);
    group.attend(feeding, progress, config.stop_within(), job).await
}

/// Only a result that the user asked to have there goes to the standard output.
fn stdout(request: &BuildRequest) -> Stdio {
    let to_stdout = request.outputs.iter().any(|output| output.destination == Some(Destination::Stdout))
        || request.engine_options.iter().any(|option| PRINTING_OPTIONS.contains(&option.name.as_str()));
    if to_stdout { Stdio::inherit() } else { Stdio::null() }
}

/// Fills the child's standard input.
///
/// A context that cannot be read must stop the child before its pipe closes: to the child the end
/// of the pipe would be the end of the context. So the pipe comes back with the error.
async fn feed(
    pipe: Option<PipeWriter>,
    input: Input,
    request: &BuildRequest,
    archive: ArchiveSettings,
    job: &Job,
) -> std::result::Result<(), (Error, PipeWriter)> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    let request = request.clone();
    let write = move |job: &Job| {
        let result = match &input {
            Input::Archive(input) => input.write(&request, &archive, job, &mut pipe),
            _ => pipe
                .write_all(&request.dockerfile.content)
                .or_error(ErrorKind::LocalIo, || "buildx stopped reading the Dockerfile"),
        };
        Ok(result.map_err(|error| (error, pipe)))
    };
    // The job's own result is always `Ok`; the inner one carries the pipe.
    job.blocking(write).await.unwrap_or(Ok(()))
}

//! What is done, one file a command.

mod backends;
mod batch;
mod build;
mod builds;
mod completions;
mod config;
mod context;
mod generate;
mod image;
mod plan;
mod preflight;
mod runtime;
mod snapshot;

use windlass_core::Result;

use crate::args::Command;
use crate::exit_code::ExitCode;
use crate::session::Program;

/// Does what the command line says.
///
/// # Errors
/// Whatever the command meets.
pub(crate) async fn run(command: Command, program: &Program) -> Result<ExitCode> {
    match command {
        Command::Build(args) => build::run(&args, program).await.map(|()| ExitCode::Done),
        Command::Runtime(args) => runtime::run(args.command, program).await.map(|()| ExitCode::Done),
        Command::Context(args) => context::run(args.command, program).await,
        Command::Image(args) => image::run(args.command, program).await.map(|()| ExitCode::Done),
        Command::Batch(args) => batch::run(&args, program).await,
        Command::Backends(args) => backends::run(args.command, program).await,
        Command::Builds(args) => builds::run(args.command, program).await.map(|()| ExitCode::Done),
        Command::Snapshot(args) => snapshot::run(args.command, program).await.map(|()| ExitCode::Done),
        Command::Config(args) => config::run(args.command, program).map(|()| ExitCode::Done),
        Command::Completions { shell } => completions::run(shell, program).map(|()| ExitCode::Done),
    }
}

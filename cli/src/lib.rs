//! The `windlass` program as a library: everything but the choice of backends.
//!
//! The program itself is `run(backends())`. Who has a backend of their own makes a program that adds it:
//! see `examples/outside-backend`. In reading order: `args` is what a user may type, `settings` what the
//! surroundings say, `request` what a build means, `commands` what is done, `output` what is shown.

mod args;
mod backends;
mod commands;
mod dockerfile;
mod exit_code;
mod interrupt;
mod output;
mod request;
mod session;
mod settings;
mod trace;
mod written_file;

use std::sync::Arc;

use clap::Parser;
use windlass_core::backend_registry::BackendRegistry;

pub use backends::backends;

use args::{Cli, Format};
use exit_code::ExitCode;
use output::Output;
use session::Program;
use settings::Surroundings;

/// The stack of a thread, as large as that of the first one: the work is a chain of many calls, and without
/// optimisation each takes a lot of room.
const STACK_BYTES: usize = 8 << 20;

/// Runs the program over these backends: reads the command line, does what it says, and gives the
/// exit code.
pub fn run(registry: BackendRegistry) -> std::process::ExitCode {
    match Cli::try_parse() {
        Ok(cli) => run_command(cli, registry).into(),
        Err(error) => refuse(&error).into(),
    }
}

fn run_command(cli: Cli, registry: BackendRegistry) -> ExitCode {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let early = Output::new(&cli.global, None, no_color);
    let program = match Surroundings::gather() {
        Ok(surroundings) => Arc::new(Program::new(cli.global, surroundings, registry, no_color)),
        Err(error) => {
            early.error(&error);
            return ExitCode::of(error.kind());
        }
    };
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build()
        {
            Ok(runtime) => runtime,
            Err(error) => {
                output::to_stderr(&format!("error: could not start: {error}"));
                return ExitCode::Failed;
            }
        };
    let working = program.clone();
    let result = runtime.block_on(async {
        // Not from within the work: what waits for signals must not lie on the thread that the work blocks.
        interrupt::watch(program.cancel.clone(), program.shield.clone())?;
        let work = tokio::spawn(async move { commands::run(cli.command, &working).await });
        match work.await {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    });
    // A thread that waits for a terminal or a network share must not keep us.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) => {
            program.output().unwrap_or(&early).error(&error);
            ExitCode::of(error.kind())
        }
    }
}

/// Help and version are results; everything else is wrong usage, in JSON where that was asked for.
fn refuse(error: &clap::Error) -> ExitCode {
    let typed: Vec<String> =
        std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let json = typed.iter().any(|argument| argument == "--format=json")
        || typed.windows(2).any(|pair| pair == ["--format", "json"]);
    if error.use_stderr() && json {
        let shown = error.render().to_string();
        let message = shown.trim().trim_start_matches("error: ").to_owned();
        let global = args::GlobalArgs { format: Some(Format::Json), ..Default::default() };
        Output::new(&global, None, true)
            .error(&windlass_core::Error::new(windlass_core::ErrorKind::InvalidInput, message));
    } else {
        // A reader that is gone has nobody to tell.
        let _ = error.print();
    }
    if error.use_stderr() { ExitCode::WrongUsage } else { ExitCode::Done }
}

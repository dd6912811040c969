//! `windlass completions`

use clap::CommandFactory;
use clap_complete::{Shell, generate};
use windlass_core::Result;

use crate::args::Cli;
use crate::session::Program;

pub(super) fn run(shell: Shell, program: &Program) -> Result<()> {
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "windlass", &mut script);
    program.speak(None).result(&String::from_utf8_lossy(&script))
}

//! The instructions, one file each. [`apply_to_config`] does those that change nothing but the image
//! config; COPY, ADD and WORKDIR need files, and so does a RUN that removes some; any other RUN needs a
//! container.

mod arg;
mod command;
mod copy;
mod env;
mod expose;
mod healthcheck;
mod label;
mod maintainer;
mod onbuild;
mod run;
mod stopsignal;
mod user;
mod volume;
mod workdir;

use std::collections::BTreeMap;

use windlass_core::dockerfile::{Expander, InstructionKind};
use windlass_core::error::Result;

pub(crate) use copy::{Expanded, Origin, apply as copy, is_linked, remote_sources};
pub(crate) use run::refusal as run_refusal;
pub(crate) use workdir::{absolute, apply as workdir};

use crate::stage::Stage;

/// Applies an instruction that changes the image config alone, and says whether it was one.
///
/// # Errors
/// `InvalidDockerfile` for what cannot be expanded or means nothing.
pub(crate) fn apply_to_config(
    stage: &mut Stage,
    instruction: &InstructionKind,
    build_args: &BTreeMap<String, String>,
    global: &BTreeMap<String, String>,
    expander: Expander,
) -> Result<bool> {
    match instruction {
        InstructionKind::Arg(arguments) => arg::apply(stage, arguments, build_args, global, expander)?,
        InstructionKind::Cmd(command) => command::cmd(stage, command),
        InstructionKind::Entrypoint(command) => command::entrypoint(stage, command),
        InstructionKind::Env(pairs) => env::apply(stage, pairs, expander)?,
        InstructionKind::Expose(ports) => expose::apply(stage, ports, expander)?,
        InstructionKind::Healthcheck(check) => healthcheck::apply(stage, check),
        InstructionKind::Label(pairs) => label::apply(stage, pairs, expander)?,
        InstructionKind::Maintainer(name) => maintainer::apply(stage, name),
        InstructionKind::Onbuild(trigger) => onbuild::apply(stage, trigger),
        InstructionKind::Shell(shell) => command::shell(stage, shell),
        InstructionKind::Stopsignal(signal) => stopsignal::apply(stage, signal, expander)?,
        InstructionKind::User(user) => user::apply(stage, user, expander)?,
        InstructionKind::Volume(volumes) => volume::apply(stage, volumes, expander)?,
        InstructionKind::Add(_)
        | InstructionKind::Copy(_)
        | InstructionKind::Run(_)
        | InstructionKind::Workdir(_) => {
            return Ok(false);
        }
    }
    Ok(true)
}

//! What is refused before any work: what this backend cannot do, with the line.

use windlass_core::backend::Feature;
use windlass_core::dockerfile::{Base, Copy, Dockerfile, Instruction, InstructionKind, StagePlan};
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::request::{BuildRequest, NamedContext};

use crate::instructions;
use crate::mode::ModeChange;
use crate::removal::{Removal, is_root};

/// Checks everything that the target needs, as far as the Dockerfile alone says it.
///
/// # Errors
/// `Unsupported` for a RUN that needs a process, and for flags this backend does not know; `InvalidDockerfile`
/// for what no backend would build.
pub(crate) fn check(dockerfile: &Dockerfile, plan: &StagePlan, request: &BuildRequest) -> Result<()> {
    for (stage, resolved) in dockerfile.stages.iter().zip(&plan.stages) {
        if !resolved.needed {
            continue;
        }
        if let Base::Context(name) = &resolved.base
            && let other @ NamedContext::Other(_) = &request.build_contexts[name]
        {
            return Err(no_image(name, other).with_source_line(dockerfile.source.line(stage.location)));
        }
        if !resolved.replaced {
            let mut user = None;
            for instruction in &stage.instructions {
                check_instruction(dockerfile, instruction)?;
                match &instruction.kind {
                    InstructionKind::User(name) => user = Some(name).filter(|name| !name.contains('$')),
                    InstructionKind::Run(_) if user.is_some_and(|user| !is_root(user)) => {
                        return Err(instructions::run_refusal(&dockerfile.source, instruction));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// Checks one instruction.
///
/// # Errors
/// As [`check`].
pub(crate) fn check_instruction(dockerfile: &Dockerfile, instruction: &Instruction) -> Result<()> {
    let refusal = match &instruction.kind {
        InstructionKind::Run(run) if Removal::parse(run).is_none() => {
            return Err(instructions::run_refusal(&dockerfile.source, instruction));
        }
        InstructionKind::Copy(copy) => check_copy(copy, false),
        InstructionKind::Add(copy) => check_copy(copy, true),
        _ => None,
    };
    match refusal {
        Some(error) => Err(error.with_source_line(dockerfile.source.line(instruction.location))),
        None => Ok(()),
    }
}

fn check_copy(copy: &Copy, add: bool) -> Option<Error> {
    // What comes out of variables is seen when the instruction's turn comes.
    let plain = |text: &&String| !text.contains('$');
    let sources: Vec<String> = copy.sources.iter().filter(plain).cloned().collect();
    let checksum = copy.checksum.clone().filter(|text| plain(&text) && sources.len() == copy.sources.len());
    if let Err(refusal) = instructions::remote_sources(&sources, checksum, copy.keep_git_dir, add) {
        return Some(refusal);
    }
    let mode = copy.chmod.as_deref().filter(|mode| !mode.contains('$'));
    mode.and_then(|mode| ModeChange::parse(mode).err())
}

/// The refusal of a named context where an image is needed.
pub(crate) fn no_image(name: &str, context: &NamedContext) -> Error {
    match context {
        NamedContext::Other(text) => {
            let message = format!("the backend `oci` cannot read the named context `{name}`: `{text}`");
            Error::unsupported(Feature::EngineOptions, message)
        }
        NamedContext::Directory(_) | NamedContext::Image(_) | NamedContext::OciLayout { .. } => {
            Error::new(ErrorKind::InvalidDockerfile, format!("the named context `{name}` cannot be a base"))
        }
    }
}

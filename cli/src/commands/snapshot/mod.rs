//! `windlass snapshot`: snapshots of Together.

mod aliases;
mod create;
mod engine;
mod list;

use windlass_core::Result;
use windlass_core::backend::Job;
use windlass_core::backend_registry::BackendOptions;
use windlass_core::config::SelectedBackend;
use windlass_image_builder::TYPE;
use windlass_image_builder::together::Management;

use super::backends::choose;
use crate::args::SnapshotCommand;
use crate::session::{Program, Session};

pub(super) async fn run(command: SnapshotCommand, program: &Program) -> Result<()> {
    if let SnapshotCommand::Create(args) = command {
        // The longest chain of calls of all commands.
        return Box::pin(create::run(&args, program)).await;
    }
    let session = program.session(None)?;
    session.output.refuse_paths()?;
    let management = management(None, &session)?;
    match command {
        SnapshotCommand::Create(_) => Ok(()),
        SnapshotCommand::List(args) => list::list(&args, &management, &session).await,
        SnapshotCommand::Get(args) => list::get(&args, &management, &session).await,
        SnapshotCommand::Alias { snapshot, aliases } => {
            aliases::set(&snapshot, &aliases, &management, &session).await
        }
        SnapshotCommand::Aliases { snapshot } => aliases::list(&snapshot, &management, &session).await,
        SnapshotCommand::Unalias { aliases } => aliases::remove(&aliases, &management, &session).await,
        SnapshotCommand::Retire { snapshots } => aliases::retire(&snapshots, &management, &session).await,
    }
}

/// The way to the service, with the options of the image-builder backend that was chosen, else of the one
/// that is called so.
fn management(chosen: Option<&SelectedBackend>, session: &Session<'_>) -> Result<Management> {
    let (options, name) = match chosen.filter(|chosen| chosen.type_name == TYPE) {
        Some(chosen) => (chosen.options.clone(), chosen.name.clone()),
        None if has_type(session) => {
            let chosen = choose(&[TYPE.to_owned()], session)?.backends.swap_remove(0);
            (chosen.options, chosen.name)
        }
        None => (BackendOptions::default(), TYPE.to_owned()),
    };
    Management::with_options(&session.host, options, &name)
}

/// Programs need not have all backends.
fn has_type(session: &Session<'_>) -> bool {
    session.program.registry.types().iter().any(|known| known.name == TYPE)
}

/// The id of a snapshot that is named by it, or by `@ALIAS`.
async fn id_of(typed: &str, management: &Management, job: &Job) -> Result<String> {
    match typed.starts_with('@') {
        true => Ok(management.get_snapshot(typed, job).await?.id),
        false => Ok(typed.to_owned()),
    }
}

//! `windlass image`: the local store, archives, registries.

mod archives;
mod inspect;
mod list;
mod prune;
mod source;
mod stdin;
mod transfer;
mod upload;
mod verify;

use windlass_core::error::nearest;
use windlass_core::image::{Descriptor, ImageStore};
use windlass_core::reference::Reference;
use windlass_core::{Error, ErrorKind, Result};

use crate::args::ImageCommand;
use crate::session::{Program, Session};

pub(super) async fn run(command: ImageCommand, program: &Program) -> Result<()> {
    let session = program.session(None)?;
    session.output.refuse_paths()?;
    match command {
        ImageCommand::Ls => list::list(&session),
        ImageCommand::Rm(args) => list::remove(&args, &session),
        ImageCommand::Prune => prune::run(&session).await,
        ImageCommand::Verify(args) => verify::run(&args, &session).await,
        ImageCommand::Inspect(args) => inspect::run(&args, &session).await,
        ImageCommand::Save(args) => archives::save(&args, &session).await,
        ImageCommand::Load(args) => archives::load(&args, &session).await,
        ImageCommand::Push(args) => match &args.to {
            Some(backend) => upload::push(&args, backend, &session).await,
            None => transfer::push(&args, &session).await,
        },
        ImageCommand::Pull(args) => transfer::pull(&args, &session).await,
    }
}

/// The local store.
fn store(session: &Session<'_>) -> Result<ImageStore> {
    let store = ImageStore::open(session.host.cache_dir.join("images"))?;
    Ok(store.with_unpack_limit(session.host.archive.unpack_limit))
}

/// An image of the local store by its name.
fn resolve(store: &ImageStore, reference: &Reference) -> Result<Descriptor> {
    match store.resolve(reference)? {
        Some(image) => Ok(image),
        None => Err(absent(store, reference)),
    }
}

fn absent(store: &ImageStore, reference: &Reference) -> Error {
    let message = format!("`{}` is not in the local store", reference.familiar());
    let error = Error::new(ErrorKind::NotFound, message);
    let known: Vec<String> = match store.list() {
        Ok(images) => images.iter().map(|image| image.reference.familiar()).collect(),
        Err(_) => Vec::new(),
    };
    match nearest(&reference.familiar(), known.iter().map(String::as_str)) {
        Some(name) => error.with_hint(format!("did you mean `{name}`?")),
        None => {
            error.with_hint("`windlass image ls` lists what is there; `windlass image pull` fetches an image")
        }
    }
}

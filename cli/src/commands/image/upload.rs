//! `windlass image push --to`: a finished image to a build service.

use std::path::PathBuf;
use std::sync::Arc;

use tempfile::NamedTempFile;
use windlass_core::backend::{Backend, Job};
use windlass_core::error::ResultExt;
use windlass_core::image::{FetchLayers, ImageStore, NamedImage, fetch_missing, pull};
use windlass_core::pipeline::follow;
use windlass_core::platform::Platform;
use windlass_core::reference::Reference;
use windlass_core::remote::{ImageUpload, UploadSource};
use windlass_core::{Error, ErrorKind, Result};
use windlass_docker::Engine;

use super::{source, store};
use crate::args::{Format, PushArgs};
use crate::commands::backends::{choose, create};
use crate::commands::build::{limit, result_line};
use crate::session::Session;

/// What says that an image is in the docker engine, as skopeo spells it.
const ENGINE: &str = "docker-daemon:";

/// Sends an image to the service of a backend, and follows it to its end.
pub(super) async fn push(args: &PushArgs, to: &str, session: &Session<'_>) -> Result<()> {
    let limit = limit(args.timeout.as_deref(), session)?;
    let backend = backend(to, session)?;
    let names: Vec<Reference> = args.destinations.iter().map(|name| name.parse()).collect::<Result<_>>()?;
    let (upload, _kept) = match args.source.strip_prefix(ENGINE) {
        Some(reference) => from_engine(&reference.parse()?, names, args, session).await?,
        None => (from_store(names, args, session).await?, None),
    };
    let image = session
        .work(limit, async |job| {
            let remote = backend.remote().ok_or_else(|| no_service(backend.as_ref()))?;
            let submitted = remote.upload(&upload, job).await?;
            follow(backend.as_ref(), remote, submitted, &args.source, &session.host, job).await
        })
        .await?;
    match session.output.format {
        Format::Json => session.output.json(&image),
        Format::Text | Format::Paths => session.output.result(&result_line(&image)),
    }
}

fn backend(name: &str, session: &Session<'_>) -> Result<Arc<dyn Backend>> {
    let selection = choose(&[name.to_owned()], session)?;
    let backend = create(&selection.backends[0], session)?;
    match backend.remote() {
        Some(_) => Ok(backend),
        None => Err(no_service(backend.as_ref())),
    }
}

fn no_service(backend: &dyn Backend) -> Error {
    let message = format!("the backend `{}` is no service that takes images", backend.name());
    Error::new(ErrorKind::Unsupported, message)
        .with_hint("without `--to` the image goes to a registry: `windlass image push SOURCE REFERENCE`")
}

/// The names of an upload: those that were typed, else those that the image has.
fn named(typed: Vec<Reference>, own: Vec<Reference>, args: &PushArgs) -> Result<Vec<Reference>> {
    let names = if typed.is_empty() { own } else { typed };
    if names.is_empty() {
        let message = format!("nothing says what the image of `{}` shall be called", args.source);
        return Err(Error::new(ErrorKind::InvalidInput, message)
            .with_hint("name it: `windlass image push SOURCE REFERENCE --to BACKEND`"));
    }
    Ok(names)
}

/// An image of the local store, of an archive in any of its forms, or of an OCI layout; or with `--pull`
/// one of a registry.
async fn from_store(typed: Vec<Reference>, args: &PushArgs, session: &Session<'_>) -> Result<ImageUpload> {
    let store = store(session)?;
    let found = match source::one(&args.source, &store, session).await {
        Err(error) if args.pull && error.kind() == ErrorKind::NotFound => {
            pulled(&args.source.parse()?, &store, session).await?
        }
        found => found?,
    };
    let wanted = match &args.platform {
        Some(platform) => platform.parse()?,
        None => Platform::host(),
    };
    let image = store.choose(&found.image, &wanted, &args.source)?;
    let client = &session.host.registry_client;
    session.work(None, async |job| fetch_missing(client, &store, &image, job).await).await?;
    let names = named(typed, found.references, args)?;
    Ok(ImageUpload { source: UploadSource::Store(store, image), names })
}

async fn pulled(reference: &Reference, store: &ImageStore, session: &Session<'_>) -> Result<NamedImage> {
    let client = &session.host.registry_client;
    let platform = Platform::host();
    let pulled = session
        .work(None, async |job| pull(client, store, reference, Some(&platform), FetchLayers::Now, job).await)
        .await?;
    Ok(NamedImage { image: pulled.image, references: vec![reference.clone()] })
}

/// An image of the docker engine, as the engine itself saves it; with `--pull` from its registry where
/// the engine does not have it.
async fn from_engine(
    reference: &Reference,
    typed: Vec<Reference>,
    args: &PushArgs,
    session: &Session<'_>,
) -> Result<(ImageUpload, Option<NamedTempFile>)> {
    let names = named(typed, vec![reference.clone()], args)?;
    let engine = Engine::of(&session.host)?;
    if session.work(None, async |job| engine.find(reference, job).await).await?.is_none() {
        if !args.pull {
            let message = format!("`{}` is not in the docker engine", reference.familiar());
            return Err(Error::new(ErrorKind::NotFound, message)
                .with_hint("`--pull` takes it from its registry instead"));
        }
        let from_registry = PushArgs { source: reference.to_string(), ..args.clone() };
        return Ok((from_store(names, &from_registry, session).await?, None));
    }
    let directory: PathBuf = session.host.cache_dir.join("uploads");
    let failed = || format!("could not write a temporary file in `{}`", directory.display());
    std::fs::create_dir_all(&directory).or_error(ErrorKind::LocalIo, failed)?;
    let file = tempfile::Builder::new()
        .prefix(".windlass-")
        .tempfile_in(&directory)
        .or_error(ErrorKind::LocalIo, failed)?;
    let out = file.reopen().or_error(ErrorKind::LocalIo, failed)?;
    session
        .work(None, async |job: &Job| {
            let step = job.events.step(format!("saving {} from the docker engine", reference.familiar()));
            let saved = engine.save(&[&reference.familiar()], tokio::fs::File::from_std(out), job).await;
            step.end(saved)
        })
        .await?;
    let source = UploadSource::Archive(file.path().to_owned());
    Ok((ImageUpload { source, names }, Some(file)))
}

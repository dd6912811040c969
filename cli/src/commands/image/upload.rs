//! `windlass image push --to`: a finished image to a build service, or into its registry.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use windlass_core::backend::{Backend, FindScope, Job};
use windlass_core::error::ResultExt;
use windlass_core::image::{
    FetchLayers, ImageSource, ImageStore, NamedImage, PushSummary, ScratchDir, fetch_missing, pull,
    push as push_image,
};
use windlass_core::pipeline::follow;
use windlass_core::platform::Platform;
use windlass_core::reference::Reference;
use windlass_core::remote::{ImageUpload, RemoteBuilds, UploadSource};
use windlass_core::request::BuiltImage;
use windlass_core::{Error, ErrorKind, Result};
use windlass_docker::Engine;

use super::{source, store, transfer};
use crate::args::{Format, PushArgs, Via};
use crate::commands::backends::{choose_by, create};
use crate::commands::build::{limit, result_line};
use crate::session::Session;

/// What says that an image is in the docker engine, as skopeo spells it.
const ENGINE: &str = "docker-daemon:";

/// Sends an image to the service of a backend, and follows it to its end.
pub(super) async fn push(args: &PushArgs, to: &str, session: &Session<'_>) -> Result<()> {
    let limit = limit(args.timeout.as_deref(), session)?;
    let backend = backend(to, session)?;
    let remote = backend.remote().ok_or_else(|| no_service(backend.as_ref()))?;
    let names: Vec<Reference> = args.destinations.iter().map(|name| name.parse()).collect::<Result<_>>()?;
    let found = find(args, session).await?;
    let names = named(names, found.references(), args)?;
    let image = match args.via {
        Via::Upload => {
            let (upload, _kept) = found.into_upload(names, args, session).await?;
            session
                .work(limit, async |job| {
                    let submitted = remote.upload(&upload, job).await?;
                    follow(backend.as_ref(), remote, submitted, &args.source, &session.host, job).await
                })
                .await
                .map_err(may_take_no_images)?
        }
        Via::Registry => {
            let named = found.into_store(session).await?;
            let (image, pushed) = session
                .work(limit, async |job| {
                    let way = (backend.as_ref(), remote);
                    by_registry(way, &named, &names, args, session, job).await
                })
                .await?;
            session.output.note(&transfer::summary(&pushed));
            image
        }
    };
    match session.output.format {
        Format::Json => session.output.json(&image),
        Format::Text | Format::Paths => session.output.result(&result_line(&image)),
    }
}

fn backend(name: &str, session: &Session<'_>) -> Result<Arc<dyn Backend>> {
    let selection = choose_by(Some("--to"), &[name.to_owned()], session)?;
    let backend = create(&selection.backends[0], session)?;
    match backend.remote() {
        Some(_) => Ok(backend),
        None => Err(no_service(backend.as_ref())),
    }
}

/// Whether a service takes images is its own affair, and what it says to one that it does not is too: a refusal,
/// or a build that fails for want of a Dockerfile.
fn may_take_no_images(error: Error) -> Error {
    match error.kind() {
        ErrorKind::BuildFailed
        | ErrorKind::UnexpectedAnswer
        | ErrorKind::NotFound
        | ErrorKind::InvalidInput => error.with_hint(
            "where the service takes no images, `--via registry` pushes into its registry instead",
        ),
        _ => error,
    }
}

fn no_service(backend: &dyn Backend) -> Error {
    let message = format!("the backend `{}` is no service that takes images", backend.name());
    Error::new(ErrorKind::Unsupported, message)
        .with_hint("without `--to` the image goes to a registry: `windlass image push SOURCE REFERENCE`")
}

/// The names of an image there: those that were typed, else those that it has.
fn named(typed: Vec<Reference>, own: Vec<Reference>, args: &PushArgs) -> Result<Vec<Reference>> {
    let names = if typed.is_empty() { own } else { typed };
    if names.is_empty() {
        let message = format!("nothing says what the image of `{}` shall be called", args.source);
        return Err(Error::new(ErrorKind::InvalidInput, message)
            .with_hint("name it: `windlass image push SOURCE REFERENCE --to BACKEND`"));
    }
    Ok(names)
}

/// Where an image was found.
enum Found {
    Store(NamedImage),
    /// It was in the docker engine, which saved it.
    Engine(Saved, Reference),
}

/// The file that the engine saved, for as long as this lives. What a killed process left goes with the next that
/// opens the store.
struct Saved(ScratchDir);

impl Saved {
    fn path(&self) -> PathBuf {
        self.0.path().join("image.tar")
    }
}

impl Found {
    fn references(&self) -> Vec<Reference> {
        match self {
            Self::Store(image) => image.references.clone(),
            Self::Engine(_, reference) => vec![reference.clone()],
        }
    }

    /// The image for one platform as it is uploaded. The file, if there is one, is needed until then.
    async fn into_upload(
        self,
        names: Vec<Reference>,
        args: &PushArgs,
        session: &Session<'_>,
    ) -> Result<(ImageUpload, Option<Saved>)> {
        match self {
            Self::Engine(file, _) => {
                let source = UploadSource::Archive(file.path());
                Ok((ImageUpload { source, names }, Some(file)))
            }
            Self::Store(found) => {
                let store = store(session)?;
                let image = store.choose(&found.image, &platform(args)?, &args.source)?;
                let client = &session.host.registry_client;
                session.work(None, async |job| fetch_missing(client, &store, &image, job).await).await?;
                Ok((ImageUpload { source: UploadSource::Store(store, Box::new(image)), names }, None))
            }
        }
    }

    /// The image in our store, with whatever platforms it is for.
    async fn into_store(self, session: &Session<'_>) -> Result<NamedImage> {
        match self {
            Self::Store(image) => Ok(image),
            Self::Engine(file, reference) => {
                let (store, saved) = (store(session)?, ImageSource::Archive(file.path()));
                let client = &session.host.registry_client;
                let mut images =
                    session.work(None, async |job| saved.import(client, &store, None, job).await).await?;
                let message = || format!("the docker engine saved no image of `{}`", reference.familiar());
                images.pop().ok_or_else(|| Error::new(ErrorKind::UnexpectedAnswer, message()))
            }
        }
    }
}

fn platform(args: &PushArgs) -> Result<Platform> {
    match &args.platform {
        Some(platform) => platform.parse(),
        None => Ok(Platform::host()),
    }
}

/// Finds an image: an archive in any of its forms, an OCI layout, or a name, which is looked for in the
/// local store, then in the docker engine, and with `--pull` in its registry.
async fn find(args: &PushArgs, session: &Session<'_>) -> Result<Found> {
    let store = store(session)?;
    if let Some(reference) = args.source.strip_prefix(ENGINE) {
        let reference: Reference = reference.parse()?;
        return match (in_engine(&reference, session).await?, args.pull) {
            (Some(file), _) => Ok(Found::Engine(file, reference)),
            (None, true) => pulled(&reference, args, &store, session).await.map(Found::Store),
            (None, false) => {
                let message = format!("`{}` is not in the docker engine", reference.familiar());
                Err(Error::new(ErrorKind::NotFound, message)
                    .with_hint("`--pull` takes it from its registry instead"))
            }
        };
    }
    let absent = match source::one(&args.source, &store, session).await {
        Err(error) if error.kind() == ErrorKind::NotFound => error,
        found => return found.map(Found::Store),
    };
    let Ok(reference) = args.source.parse::<Reference>() else { return Err(absent) };
    // There may be no engine, which is no reason to fail.
    if let Ok(Some(file)) = in_engine(&reference, session).await {
        return Ok(Found::Engine(file, reference));
    }
    match args.pull {
        true => pulled(&reference, args, &store, session).await.map(Found::Store),
        false => {
            Err(absent.with_hint("no docker engine here has it either; `--pull` takes it from its registry"))
        }
    }
}

async fn pulled(
    reference: &Reference,
    args: &PushArgs,
    store: &ImageStore,
    session: &Session<'_>,
) -> Result<NamedImage> {
    let client = &session.host.registry_client;
    let platform = platform(args)?;
    let pulled = session
        .work(None, async |job| pull(client, store, reference, Some(&platform), FetchLayers::Now, job).await)
        .await?;
    Ok(NamedImage { image: pulled.image, references: vec![reference.clone()] })
}

/// An image of the docker engine, as the engine itself saves it; `None` if it has none of this name.
async fn in_engine(reference: &Reference, session: &Session<'_>) -> Result<Option<Saved>> {
    let engine = Engine::of(&session.host)?;
    if session.work(None, async |job| engine.find(reference, job).await).await?.is_none() {
        return Ok(None);
    }
    let saved = Saved(store(session)?.scratch_dir()?);
    let file = File::create(saved.path())
        .or_error(ErrorKind::LocalIo, || format!("could not write `{}`", saved.path().display()))?;
    session
        .work(None, async |job: &Job| {
            let step = job.events.step(format!("saving {} from the docker engine", reference.familiar()));
            let end = engine.save(&[&reference.familiar()], tokio::fs::File::from_std(file), job).await;
            step.end(end)
        })
        .await?;
    Ok(Some(saved))
}

/// Pushes an image to the registry of the service, and asks the service for it.
async fn by_registry(
    (backend, remote): (&dyn Backend, &dyn RemoteBuilds),
    named: &NamedImage,
    names: &[Reference],
    args: &PushArgs,
    session: &Session<'_>,
    job: &Job,
) -> Result<(BuiltImage, PushSummary)> {
    let store = store(session)?;
    let image = match &args.platform {
        Some(platform) => source::platform_of(&store, &named.image, platform, &args.source)?,
        None => named.image.clone(),
    };
    let references = remote.registry_names(names, job).await?;
    let pushed = push_image(&session.host.registry_client, &store, &image, &references, job).await?;
    let step = job.events.step(format!("asking {} for the image", remote.server()));
    step.end(check_seen(backend, remote, &references, job).await)?;
    let image = BuiltImage {
        references,
        digest: Some(image.digest),
        image_id: None,
        platforms: Vec::new(),
        backend: backend.name().to_owned(),
        reused: false,
        written: Vec::new(),
        metadata: serde_json::Map::new(),
    };
    Ok((image, pushed))
}

/// # Errors
/// `UnexpectedAnswer` for an image that the service does not see.
async fn check_seen(
    backend: &dyn Backend,
    remote: &dyn RemoteBuilds,
    references: &[Reference],
    job: &Job,
) -> Result<()> {
    for reference in references {
        if backend.find(reference, FindScope::Registry, job).await?.is_none() {
            let message = format!(
                "`{}` was pushed, but `{}` says that it does not exist",
                reference.familiar(),
                remote.server()
            );
            return Err(Error::new(ErrorKind::UnexpectedAnswer, message)
                .with_hint("it may look into another registry: `windlass backends check` says into which"));
        }
    }
    Ok(())
}

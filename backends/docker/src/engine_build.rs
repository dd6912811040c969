//! A build through the BuildKit inside the engine, where docker buildx is missing.
//!
//! `POST /build` with a session: the context goes as a tar stream in the body, progress comes back
//! as BuildKit's own records. What that call has no words for is refused by name.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;

use bollard::moby::buildkit::v1::StatusResponse;
use bollard::models::{BuildInfoAux, ImageId};
use bollard::query_parameters::{BuildImageOptions, BuilderVersion};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use windlass_core::Result;
use windlass_core::backend::{Feature, Job};
use windlass_core::backend_registry::Host;
use windlass_core::error::{Error, ErrorKind, ResultExt};
use windlass_core::output::{Destination, Output, OutputKind};
use windlass_core::request::{BuildRequest, BuiltImage};

use crate::credentials;
use crate::engine::{self, Engine};
use crate::error::from_engine;
use crate::failure;
use crate::input::ArchiveInput;
use crate::outputs::Placed;
use crate::progress::{FailedStep, Graph, VertexUpdate};

/// How many chunks of the context wait for the network at most.
const CHUNKS: usize = 4;

/// Refuses what the engine's build call cannot do.
///
/// # Errors
/// `Unsupported`, naming the option.
pub(crate) fn refuse_unsupported(request: &BuildRequest) -> Result<()> {
    let refused = |feature: Feature, option: &str| {
        let message = format!("{option} needs docker buildx; the docker engine alone cannot do it");
        Err(Error::unsupported(feature, message).with_hint("install the buildx plugin of docker"))
    };
    for (feature, option) in request.needs() {
        if matches!(
            feature,
            Feature::MultiPlatform
                | Feature::Annotations
                | Feature::NamedContexts
                | Feature::OciArchive
                | Feature::RootFilesystem
                | Feature::CacheOnly
                | Feature::EngineOptions
        ) {
            return refused(feature, &format!("`{option}`"));
        }
    }
    let special = |output: &&Output| {
        let mut attributes = output.attributes.keys().filter(|name| *name != "push");
        attributes.next().is_some() || output.destination == Some(Destination::Stdout)
    };
    match request.outputs.iter().find(special) {
        Some(output) => refused(output.feature(), &format!("`--output {output}`")),
        None => Ok(()),
    }
}

/// Builds, and puts the image where the outputs say.
///
/// # Errors
/// As [`windlass_core::backend::Backend::build`].
pub(crate) async fn build(
    engine: &Engine,
    request: &BuildRequest,
    host: &Host,
    backend: &str,
    job: &Job,
) -> Result<BuiltImage> {
    refuse_unsupported(request)?;
    let outputs = Placed::new(&request.outputs, &host.current_dir)?;
    let id = solve(engine, request, host, job).await?;
    for tag in request.tags.iter().skip(1) {
        engine.tag(&id, tag, job).await?;
    }
    let mut digest = None;
    if request.pushes() {
        for tag in &request.tags {
            digest = engine.push(tag, &host.registry_client, job).await?.or(digest);
        }
    }
    for output in outputs.for_buildx() {
        if let (OutputKind::Docker, Some(Destination::Path(path))) = (output.kind, output.destination) {
            save(engine, request, &id, &path, job).await?;
        }
    }
    let written = job.blocking(move |_| outputs.commit()).await?;
    let image = engine.inspect(&id, job).await?;
    let platform = image.as_ref().and_then(engine::platform);
    Ok(BuiltImage {
        references: request.tags.clone(),
        digest,
        image_id: id.parse().ok(),
        platforms: platform.into_iter().collect(),
        backend: backend.to_owned(),
        reused: false,
        written,
        metadata: serde_json::Map::new(),
    })
}

/// Sends the context, follows the progress; gives back the image id.
async fn solve(engine: &Engine, request: &BuildRequest, host: &Host, job: &Job) -> Result<String> {
    let archive = ArchiveInput::of(request);
    archive.warn(request, job);
    let options = options(request, &archive);
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(CHUNKS);
    let body = bollard::body_try_stream(tokio_stream(receiver));
    let credentials = credentials::of_bases(&host.registry_client, request, job).await?;
    let docker = engine.for_work();
    let mut answers = docker.build_image(options, Some(credentials), Some(body));

    // Stops the writer when the engine is not interested any more.
    let feed_job = job.unstopped();
    let stop_feeding = feed_job.cancel.clone().drop_guard();
    let (source, settings) = (request.clone(), host.archive);
    let feeding = tokio::spawn(async move {
        feed_job.blocking(move |job| feed(&archive, &source, &settings, job, sender)).await
    });

    let mut graph = Graph::new(job.events.clone());
    let followed = job
        .run(async {
            let mut id = None;
            while let Some(info) = answers.next().await {
                match info.map(|info| info.aux) {
                    Ok(Some(BuildInfoAux::BuildKit(status))) => apply(&status, &mut graph),
                    Ok(Some(BuildInfoAux::Default(ImageId { id: Some(image) }))) => id = Some(image),
                    Ok(_) => {}
                    Err(error) => return Ok(Err(error)),
                }
            }
            Ok(Ok(id))
        })
        .await;
    drop(answers);
    drop(stop_feeding);
    let fed = feeding.await.or_error(ErrorKind::LocalIo, || "the context could not be sent")?;
    let failed = graph.finish();
    match (followed?, fed) {
        // The context's own trouble is the cause of whatever the engine says about it.
        (Err(_), Err(error)) if error.kind() == ErrorKind::ContextUnreadable => Err(error),
        (Err(bollard::errors::Error::DockerStreamError { error }), _) => {
            Err(refused(failed, &error, request))
        }
        (Err(error), _) => Err(from_engine("the docker engine could not build", error)),
        (Ok(Some(id)), _) => Ok(id),
        (Ok(None), _) => {
            Err(Error::new(ErrorKind::UnexpectedAnswer, "the docker engine built, but names no image"))
        }
    }
}

fn refused(failed: Option<FailedStep>, why: &str, request: &BuildRequest) -> Error {
    // Engines with the containerd image store do not find the context that the call has brought
    // (moby/moby#47717); they look for a host of an invented name instead.
    if why.contains("failed to read downloaded context") {
        let message = "this docker engine cannot build from a context sent through its API";
        return Error::new(ErrorKind::Unavailable, message).with_source(why.to_owned()).with_hint(
            "install the buildx plugin of docker, or turn the engine's containerd image store off",
        );
    }
    failure::from_parts(failed, why, &[], request)
}

fn options(request: &BuildRequest, archive: &ArchiveInput) -> BuildImageOptions {
    let mut build_args: HashMap<String, String> = request.build_args.clone().into_iter().collect();
    if let Some(epoch) = request.source_date_epoch {
        build_args.entry("SOURCE_DATE_EPOCH".to_owned()).or_insert_with(|| epoch.to_string());
    }
    BuildImageOptions {
        dockerfile: archive.dockerfile.to_string(),
        t: request.tags.first().map(ToString::to_string),
        nocache: request.no_cache,
        pull: request.pull.then(|| "true".to_owned()),
        buildargs: Some(build_args),
        labels: Some(request.labels.clone().into_iter().collect()),
        platform: request.platforms.first().map(ToString::to_string).unwrap_or_default(),
        target: request.target.clone().unwrap_or_default(),
        version: BuilderVersion::BuilderBuildKit,
        session: Some(session_name()),
        ..BuildImageOptions::default()
    }
}

/// A name that no other build of the engine has: the standard library's hash keys are random.
fn session_name() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("windlass-{:016x}{:016x}", random(), random())
}

async fn save(
    engine: &Engine,
    request: &BuildRequest,
    id: &str,
    path: &std::path::Path,
    job: &Job,
) -> Result<()> {
    let names: Vec<String> = request.tags.iter().map(ToString::to_string).collect();
    let names: Vec<&str> =
        if names.is_empty() { vec![id] } else { names.iter().map(String::as_str).collect() };
    let file = tokio::fs::File::create(path)
        .await
        .or_error(ErrorKind::LocalIo, || format!("could not write `{}`", path.display()))?;
    engine.save(&names, file, job).await.map(drop)
}

/// Writes the context into the body. An error in it goes into the body too, so that the engine
/// does not take its end for the end of the context.
fn feed(
    archive: &ArchiveInput,
    request: &BuildRequest,
    settings: &windlass_core::archive::ArchiveSettings,
    job: &Job,
    sender: mpsc::Sender<io::Result<Bytes>>,
) -> Result<()> {
    let result = archive.write(request, settings, job, ChannelWriter(&sender));
    if let Err(error) = &result {
        // A receiver that is gone has no interest in it.
        let _ = sender.blocking_send(Err(io::Error::other(error.to_string())));
    }
    result
}

struct ChannelWriter<'a>(&'a mpsc::Sender<io::Result<Bytes>>);

impl io::Write for ChannelWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe)).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tokio_stream<T: Send + 'static>(
    receiver: mpsc::Receiver<T>,
) -> impl futures_util::Stream<Item = T> + Send {
    futures_util::stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|item| (item, receiver))
    })
}

fn apply(status: &StatusResponse, graph: &mut Graph) {
    graph.message(status.vertexes.iter().map(|vertex| vertex.digest.as_str()));
    for vertex in &status.vertexes {
        graph.vertex(&VertexUpdate {
            id: &vertex.digest,
            name: &vertex.name,
            started: vertex.started.is_some(),
            completed: vertex.completed.is_some(),
            cached: vertex.cached,
            error: &vertex.error,
        });
    }
    for status in &status.statuses {
        let total = u64::try_from(status.total).ok().filter(|total| *total > 0);
        graph.status(&status.vertex, &status.id, u64::try_from(status.current).unwrap_or(0), total);
    }
    for log in &status.logs {
        graph.log(&log.vertex, usize::from(log.stream == 2), &log.msg);
    }
    for warning in &status.warnings {
        graph.warning(&String::from_utf8_lossy(&warning.short), &warning.url);
    }
}

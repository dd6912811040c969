//! The docker engine's API: is it there, which images does it have.
//!
//! Every call has a time limit and stops when the job is cancelled. bollard sends requests without
//! a version in their path, so each engine answers in its own newest one.

use std::path::Path;

use bollard::Docker;
use bollard::models::ImageInspect;
use bollard::query_parameters::{
    ImportImageOptions, PushImageOptionsBuilder, RemoveImageOptions, TagImageOptionsBuilder,
};
use futures_util::{StreamExt, TryStreamExt};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_util::io::ReaderStream;
use windlass_core::Result;
use windlass_core::backend::{FoundImage, Job};
use windlass_core::backend_registry::{BackendSetup, Host};
use windlass_core::digest::Digest;
use windlass_core::error::{Error, ErrorKind, ResultExt};
use windlass_core::events::Unit;
use windlass_core::platform::Platform;
use windlass_core::reference::Reference;
use windlass_core::registry::RegistryClient;

use crate::config::Config;
use crate::credentials;
use crate::endpoint::Endpoint;
use crate::error::from_engine;
use crate::surroundings::Surroundings;
use crate::version::Version;

/// The oldest engine with BuildKit.
pub(crate) const OLDEST_ENGINE: Version = Version(18, 9, 0);
/// How long the engine may take to begin an answer.
const ANSWER_WITHIN_SECONDS: u64 = 60;
/// The same for calls that build, push or load: an engine sends nothing until there is progress.
const WORK_WITHIN_SECONDS: u64 = 6 * 60 * 60;

/// A docker engine. Each call makes a connection of its own.
#[derive(Clone, Debug)]
pub struct Engine {
    docker: Docker,
    endpoint: Endpoint,
}

/// What an engine says of itself.
#[derive(Clone, Debug)]
pub struct EngineVersion {
    /// As it says: `27.5.1+dfsg1`.
    pub text: String,
    /// What we make of it.
    pub(crate) version: Option<Version>,
    /// Its components, such as `Podman Engine`.
    pub components: Vec<String>,
}

impl Engine {
    /// The engine that the docker CLI would choose on this machine: `DOCKER_HOST`, else the docker
    /// context, else the default socket. Sends nothing yet.
    ///
    /// # Errors
    /// `InvalidConfig` for a docker context that does not exist; `Unavailable` if the socket does
    /// not; `Unsupported` for `ssh://`.
    pub fn of(host: &Host) -> Result<Self> {
        Self::connect(Endpoint::resolve(&Surroundings::new(&Config::default(), host))?)
    }

    /// The engine of a backend of this type with these options.
    ///
    /// # Errors
    /// As for [`Engine::of`]; `InvalidConfig` for the options.
    pub fn of_backend(setup: &BackendSetup) -> Result<Self> {
        Self::connect(Endpoint::resolve(&Surroundings::new(&Config::read(setup)?, &setup.host))?)
    }

    /// Gets ready to talk to an engine; sends nothing yet.
    ///
    /// # Errors
    /// `Unavailable` if its socket does not exist; `InvalidConfig` if its certificates cannot be
    /// read; `Unsupported` for `ssh://`, which buildx can reach and we cannot.
    pub(crate) fn connect(endpoint: Endpoint) -> Result<Self> {
        // bollard takes the process's TLS provider. One that is already set is just as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let seconds = ANSWER_WITHIN_SECONDS;
        let version = bollard::API_DEFAULT_VERSION;
        let host = endpoint.host.as_str();
        let docker = match (host.split_once("://"), &endpoint.certificates) {
            (Some(("unix", path)), _) => Docker::connect_with_unix(path, seconds, version),
            (Some(("tcp" | "https", _)), Some(directory)) => {
                let file = |name: &str| directory.join(name);
                let (key, certificate, ca) = (file("key.pem"), file("cert.pem"), file("ca.pem"));
                Docker::connect_with_ssl(host, &key, &certificate, &ca, seconds, version)
            }
            (Some(("tcp" | "http", _)), None) => Docker::connect_with_http(host, seconds, version),
            _ => {
                let message = format!("cannot talk to the docker engine at `{endpoint}`");
                return Err(Error::new(ErrorKind::Unsupported, message)
                    .with_detail("chosen by", endpoint.origin.clone())
                    .with_source("only `unix://` and `tcp://` engines answer API calls".to_owned())
                    .with_hint("builds through buildx work all the same; set `via = \"buildx\"`"));
            }
        };
        let docker = docker.map_err(|source| unreachable(&endpoint, source))?;
        Ok(Self { docker, endpoint })
    }

    /// Where it is.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The client, for calls that work for a long time.
    pub(crate) fn for_work(&self) -> Docker {
        self.docker.clone().with_timeout(std::time::Duration::from_secs(WORK_WITHIN_SECONDS))
    }

    /// Says whether it answers.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`, `TimedOut`, `Cancelled`.
    pub async fn ping(&self, job: &Job) -> Result<()> {
        let ping = self.docker.ping();
        job.run(async { ping.await.map(drop).map_err(|source| unreachable(&self.endpoint, source)) }).await
    }

    /// Asks what it is.
    ///
    /// # Errors
    /// As for [`Engine::ping`].
    pub async fn version(&self, job: &Job) -> Result<EngineVersion> {
        let version = self.docker.version();
        let version =
            job.run(async { version.await.map_err(|source| unreachable(&self.endpoint, source)) }).await?;
        let text = version.version.unwrap_or_default();
        let components = version.components.unwrap_or_default();
        Ok(EngineVersion {
            version: Version::find(&text),
            text,
            components: components.into_iter().map(|component| component.name).collect(),
        })
    }

    /// Looks an image up in the engine's store, by reference or image id.
    ///
    /// # Errors
    /// As for [`Engine::ping`].
    pub(crate) async fn inspect(&self, name: &str, job: &Job) -> Result<Option<ImageInspect>> {
        let answer = self.docker.inspect_image(name);
        job.run(async {
            match answer.await {
                Ok(image) => Ok(Some(image)),
                Err(error) if is_absent(&error) => Ok(None),
                Err(error) => Err(from_engine(format!("could not look up `{name}` in the engine"), error)),
            }
        })
        .await
    }

    /// Looks an image up in the engine's store.
    ///
    /// # Errors
    /// As for [`Engine::ping`].
    pub async fn find(&self, reference: &Reference, job: &Job) -> Result<Option<FoundImage>> {
        let image = self.inspect(&reference.to_string(), job).await?;
        Ok(image.map(|image| found(reference, &image)))
    }

    /// Gives an image of the store one more reference.
    ///
    /// # Errors
    /// `NotFound` if the image is gone; as for [`Engine::ping`].
    pub async fn tag(&self, image: &str, reference: &Reference, job: &Job) -> Result<()> {
        let options = TagImageOptionsBuilder::default()
            .repo(&reference.name())
            .tag(reference.tag().unwrap_or("latest"))
            .build();
        let answer = self.docker.tag_image(image, Some(options));
        job.run(async {
            let failed = |source| from_engine(format!("could not tag `{image}` as `{reference}`"), source);
            answer.await.map_err(failed)
        })
        .await
    }

    /// Pushes an image of the store to its registry, as who the client's settings say we are, and
    /// says which digest it got there.
    ///
    /// # Errors
    /// `Denied`, `Unavailable` as the registry says; `NotFound` if the image is not in the store.
    pub async fn push(
        &self,
        reference: &Reference,
        client: &RegistryClient,
        job: &Job,
    ) -> Result<Option<Digest>> {
        let credentials = credentials::of(client, reference, job).await?;
        let tag = reference.tag().unwrap_or("latest");
        let options = PushImageOptionsBuilder::default().tag(tag).build();
        let step = job.events.step(format!("push {reference}"));
        let docker = self.for_work();
        let mut answers = docker.push_image(&reference.name(), Some(options), credentials);
        let pushed = job
            .run(async {
                while let Some(info) = answers.next().await {
                    let failed = |source| from_engine(format!("could not push `{reference}`"), source);
                    let info = info.map_err(failed)?;
                    let detail = info.progress_detail.unwrap_or_default();
                    match (detail.current, detail.total) {
                        (Some(current), Some(total)) => {
                            let (current, total) = (current.max(0) as u64, total.max(0) as u64);
                            step.progress(current, Some(total), Unit::Bytes);
                        }
                        _ => info.status.into_iter().for_each(|status| step.log(status)),
                    }
                }
                Ok(())
            })
            .await;
        step.end(pushed)?;
        let image = self.inspect(&reference.to_string(), job).await?;
        Ok(image.and_then(|image| repository_digest(reference, &image)))
    }

    /// Writes images of the store as an archive that [`Engine::load`] reads.
    ///
    /// # Errors
    /// `NotFound` if an image is not in the store; `LocalIo` from the writer.
    pub async fn save(
        &self,
        images: &[&str],
        mut archive: impl AsyncWrite + Unpin + Send,
        job: &Job,
    ) -> Result<u64> {
        let docker = self.for_work();
        let mut chunks = docker.export_images(images);
        job.run(async {
            let mut size_bytes = 0;
            while let Some(chunk) = chunks.next().await {
                let failed = |source| from_engine("could not save images from the engine", source);
                let chunk = chunk.map_err(failed)?;
                size_bytes += chunk.len() as u64;
                archive
                    .write_all(&chunk)
                    .await
                    .or_error(ErrorKind::LocalIo, || "could not write the image archive")?;
            }
            archive.flush().await.or_error(ErrorKind::LocalIo, || "could not write the image archive")?;
            Ok(size_bytes)
        })
        .await
    }

    /// Takes a reference off an image of the store; one that has no other goes. Says whether there was one.
    ///
    /// # Errors
    /// As for [`Engine::ping`].
    pub async fn remove(&self, reference: &Reference, job: &Job) -> Result<bool> {
        let name = reference.to_string();
        let answer = self.docker.remove_image(&name, None::<RemoveImageOptions>, None);
        job.run(async {
            match answer.await {
                Ok(_) => Ok(true),
                Err(error) if is_absent(&error) => Ok(false),
                Err(error) => Err(from_engine(format!("could not remove `{name}` from the engine"), error)),
            }
        })
        .await
    }

    /// Loads the images of an archive into the store; gives back what the engine says about it.
    ///
    /// # Errors
    /// `LocalIo` if the archive cannot be read; `Corrupt` if the engine does not understand it.
    pub async fn load(&self, archive: &Path, job: &Job) -> Result<Vec<String>> {
        let file = tokio::fs::File::open(archive)
            .await
            .or_error(ErrorKind::LocalIo, || format!("could not open `{}`", archive.display()))?;
        let docker = self.for_work();
        let answers =
            docker.import_image_stream(ImportImageOptions::default(), ReaderStream::new(file), None);
        let failed = |source| from_engine(format!("could not load `{}`", archive.display()), source);
        let said = answers.map_err(failed).try_filter_map(async |info| Ok(info.stream));
        job.run(said.map_ok(|line: String| line.trim_end().to_owned()).try_collect()).await
    }
}

/// What is known of an image of the store.
pub(crate) fn found(reference: &Reference, image: &ImageInspect) -> FoundImage {
    let id: Option<Digest> = image.id.as_deref().and_then(|id| id.parse().ok());
    let descriptor = image.descriptor.as_ref().and_then(|descriptor| descriptor.digest.as_deref());
    let descriptor: Option<Digest> = descriptor.and_then(|digest| digest.parse().ok());
    let registry_digest = repository_digest(reference, image);
    // In the containerd image store the "image id" is the digest of the manifest or index.
    // Engines from API 1.48 say so; older ones show it by listing it as repository digest.
    let id_is_manifest = id.is_some() && (descriptor == id || registry_digest == id);
    FoundImage {
        reference: reference.clone(),
        digest: descriptor.or(registry_digest),
        image_id: id.filter(|_| !id_is_manifest),
        platforms: platform(image).into_iter().collect(),
        in_registry: false,
    }
}

/// The platform that an image of the store is for.
pub(crate) fn platform(image: &ImageInspect) -> Option<Platform> {
    let (os, architecture) = (image.os.as_deref()?, image.architecture.as_deref()?);
    if os.is_empty() || architecture.is_empty() {
        return None;
    }
    Some(Platform::from_parts(os, architecture, image.variant.as_deref()))
}

/// The digest that the image has in the repository of a reference.
fn repository_digest(reference: &Reference, image: &ImageInspect) -> Option<Digest> {
    let digests = image.repo_digests.iter().flatten().filter_map(|text| text.parse::<Reference>().ok());
    digests.filter(|known| known.name() == reference.name()).find_map(|known| known.digest())
}

fn is_absent(error: &bollard::errors::Error) -> bool {
    matches!(error, bollard::errors::Error::DockerResponseServerError { status_code: 404, .. })
}

fn unreachable(endpoint: &Endpoint, source: bollard::errors::Error) -> Error {
    from_engine(format!("could not reach the docker engine at `{endpoint}`"), source)
        .with_detail("chosen by", endpoint.origin.clone())
}

#[cfg(test)]
mod tests {
    use bollard::models::OciDescriptor;

    use super::*;

    const ID: &str = "sha256:4943339ea2667dda86ea4d1fd1d79860c6f6edd40d6bac4ec85e1441fbbd19b3";
    const MANIFEST: &str = "sha256:3059b124e897594ed0a4775dbb7d2c720fb536e7c6211d5c2ff57893ec010cf1";

    fn inspect(id: &str, repository_digests: &[String]) -> FoundImage {
        let image = ImageInspect {
            id: Some(id.to_owned()),
            repo_digests: Some(repository_digests.to_vec()),
            os: Some("linux".to_owned()),
            architecture: Some("arm64".to_owned()),
            variant: Some("v8".to_owned()),
            ..ImageInspect::default()
        };
        found(&"acme/agent:1".parse().expect("a reference"), &image)
    }

    #[test]
    fn the_default_store_has_image_ids_and_a_digest_once_pushed() {
        let digest = |text: &str| text.parse::<Digest>().ok();
        let built = inspect(ID, &[]);
        assert_eq!((built.image_id, built.digest), (digest(ID), None));
        assert_eq!(built.platforms, ["linux/arm64".parse().expect("a platform")]);
        let pushed = inspect(ID, &[format!("other/agent@{ID}"), format!("acme/agent@{MANIFEST}")]);
        assert_eq!((pushed.image_id, pushed.digest), (digest(ID), digest(MANIFEST)));
    }

    #[test]
    fn in_the_containerd_store_the_id_is_the_manifest() {
        let older = inspect(MANIFEST, &[format!("acme/agent@{MANIFEST}")]);
        assert_eq!((older.image_id, older.digest), (None, MANIFEST.parse().ok()));
        let image = ImageInspect {
            id: Some(MANIFEST.to_owned()),
            descriptor: Some(OciDescriptor { digest: Some(MANIFEST.to_owned()), ..OciDescriptor::default() }),
            ..ImageInspect::default()
        };
        let newer = found(&"acme/agent:1".parse().expect("a reference"), &image);
        assert_eq!((newer.image_id, newer.digest), (None, MANIFEST.parse().ok()));
    }
}

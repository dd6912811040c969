//! The way by this machine: a credential is issued and tried, a backend builds, and our own registry client
//! pushes with that credential. The settings of the docker client are neither read for that nor changed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use windlass_core::backend::{Backend, Job};
use windlass_core::error::{Error, ErrorKind, Result, ResultExt};
use windlass_core::image::{Descriptor, Image, ImageStore, import_archive, push};
use windlass_core::output::{Destination, Output, OutputKind};
use windlass_core::pipeline::Pipeline;
use windlass_core::platform::Platform;
use windlass_core::reference::Reference;
use windlass_core::request::BuildRequest;

use super::architecture::{Architecture, not_for_snapshots};
use super::create::{CreatedSnapshot, Creation};
use super::credential::{IssuedCredential, does_not_work};
use super::management::Management;
use super::remote::BUILD_ANEW;
use super::uuid::image_name;

/// A credential that ends sooner than this is renewed before the push.
const MARGIN: Duration = Duration::from_secs(5 * 60);
/// Removing an image may take so long.
const REMOVE_LIMIT: Duration = Duration::from_secs(30);
/// The service of Together's developers, which runs on machines like theirs.
const LOCAL_ENVIRONMENT: &str = "api.codesandbox.dev";

/// Who keeps what a backend builds where that cannot write an archive itself: a docker engine.
#[async_trait]
pub trait ImageKeeper: Send + Sync {
    /// Writes an image into a file that `docker load` would read.
    ///
    /// # Errors
    /// As the keeper.
    async fn save(&self, image: &Reference, archive: &Path, job: &Job) -> Result<()>;

    /// Takes the name off an image, and removes what has no other. One that is not there is no error.
    ///
    /// # Errors
    /// As the keeper.
    async fn remove(&self, image: &Reference, job: &Job) -> Result<()>;
}

/// What an image is built for where nobody says: amd64, but what this machine is where the service is the
/// local environment.
pub fn local_platform(management: &Management, host: &Platform) -> Platform {
    let is_local = management.server().split(':').next() == Some(LOCAL_ENVIRONMENT);
    match Architecture::of(host) {
        Some(Architecture::Arm64) if is_local => Architecture::Arm64.platform(),
        _ => Architecture::Amd64.platform(),
    }
}

impl Creation<'_> {
    /// Builds on this machine, pushes, and makes a snapshot. The request must say one platform. With a
    /// `keeper` the backends build into it, and nothing of the image stays there; else they write archives.
    ///
    /// # Errors
    /// `Unavailable` before anything else if the first backend does not work; `Denied` before the build if the
    /// credential does not; as the build, the registry and the service say.
    pub async fn locally(
        &self,
        backends: &[Arc<dyn Backend>],
        pipeline: &Pipeline,
        keeper: Option<&dyn ImageKeeper>,
        request: BuildRequest,
    ) -> Result<CreatedSnapshot> {
        self.prepare(&request.context, backends).await?;
        let name = image_name();
        let credential = self.step("auth", async |_| self.tried_credential(&name).await).await?;
        // A second Ctrl-C waits until the engine and the disk are as they were. Dropped after the directory.
        let _until_all_is_gone = self.job.shield.hold();
        let (directory, store) = self.scratch().await?;
        let archive = directory.path().join("image.tar");
        let image = credential.image(&name)?;
        let platform = request.platforms.first().cloned().unwrap_or_else(|| Architecture::Amd64.platform());
        let output = match keeper {
            Some(_) => Output::load(),
            None => Output {
                kind: OutputKind::Docker,
                destination: Some(Destination::Path(archive.clone())),
                attributes: [].into(),
            },
        };
        let request = BuildRequest { tags: vec![image.clone()], outputs: vec![output], ..request };
        let (built, backend) = self
            .step("build", async |_| {
                let backend = self.build_into(&archive, pipeline, keeper, request, &image).await?;
                Ok((self.take_in(archive, &store, &platform, &image).await?, backend))
            })
            .await?;
        let architecture = architecture(&store, &built, &image)?;
        self.order.architecture.map_or(Ok(()), |asked| asked.accept(&image.to_string(), architecture))?;
        let image = self.push(&store, &built, credential, &name).await?;
        self.register(&image, architecture, Some(backend)).await
    }

    /// A credential that was tried: what can only fail at the end is a build for nothing.
    async fn tried_credential(&self, name: &str) -> Result<IssuedCredential> {
        let credential = self.management.issue_credential(self.job).await?;
        credential.verify(&credential.image(name)?, &credential.client(self.host)?, self.job).await?;
        Ok(credential)
    }

    /// Builds into an archive, by way of the keeper if there is one. Gives the name of the backend.
    async fn build_into(
        &self,
        archive: &Path,
        pipeline: &Pipeline,
        keeper: Option<&dyn ImageKeeper>,
        request: BuildRequest,
        image: &Reference,
    ) -> Result<String> {
        let build =
            Box::pin(async { Ok(pipeline.build(request, &BUILD_ANEW, self.job).await?.image.backend) });
        let Some(keeper) = keeper else { return build.await };
        let result = async {
            let backend = build.await?;
            keeper.save(image, archive, self.job).await?;
            Ok(backend)
        };
        let result = result.await;
        // Also where the build failed or was stopped: it may have come as far as the name.
        let last = self.job.unstopped();
        let removed = tokio::time::timeout(REMOVE_LIMIT, keeper.remove(image, &last)).await;
        if !matches!(removed, Ok(Ok(()))) {
            let why = removed.map_or_else(
                |_| "no answer".to_owned(),
                |r| r.map_or_else(|e| e.to_string(), |()| String::new()),
            );
            self.job.events.warn(format!("`{image}` may be left in the engine: {why}"));
        }
        result
    }

    /// Brings what was built into the store, and chooses the image for the platform.
    async fn take_in(
        &self,
        archive: PathBuf,
        store: &ImageStore,
        platform: &Platform,
        shown: &Reference,
    ) -> Result<Descriptor> {
        let (store, platform, shown) = (store.clone(), platform.clone(), shown.to_string());
        self.job
            .blocking(move |job| {
                let file = File::open(&archive)
                    .or_error(ErrorKind::LocalIo, || format!("could not open `{}`", archive.display()))?;
                let images = import_archive(&store, file, &shown, job)?;
                // It is as large as the image, and the image is in the store now.
                let _ = std::fs::remove_file(&archive);
                let Some(image) = images.first() else {
                    return Err(Error::new(
                        ErrorKind::NotFound,
                        format!("the build gave no image `{shown}`"),
                    ));
                };
                // With the platforms of an index comes what is no image, such as attestations.
                let manifests = store.manifests(&image.image)?;
                let fits = |manifest: &&Descriptor| {
                    Image::load(&store, manifest)
                        .is_ok_and(|image| platform.accepts(&image.config.platform()))
                };
                let chosen = manifests.iter().find(fits).or(manifests.first()).cloned();
                chosen.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("`{shown}` holds no image")))
            })
            .await
    }

    /// Pushes, with a new credential where the old one ends soon or has ended.
    async fn push(
        &self,
        store: &ImageStore,
        image: &Descriptor,
        credential: IssuedCredential,
        name: &str,
    ) -> Result<Reference> {
        let ends_soon = credential.ends_within(MARGIN, Timestamp::now());
        let credential = match ends_soon {
            false => credential,
            true => self.renewed("the credential ends soon: a new one").await?,
        };
        match self.push_with(store, image, &credential, name).await {
            // It may have ended, whatever was said about that.
            Err(error) if error.kind() == ErrorKind::Denied && !ends_soon => {
                let credential =
                    self.renewed("the registry does not take the credential any more: a new one");
                self.push_with(store, image, &credential.await?, name).await
            }
            result => result,
        }
    }

    async fn renewed(&self, why: &str) -> Result<IssuedCredential> {
        self.step("auth", async |step| {
            step.log(why);
            self.management.issue_credential(self.job).await
        })
        .await
    }

    async fn push_with(
        &self,
        store: &ImageStore,
        image: &Descriptor,
        credential: &IssuedCredential,
        name: &str,
    ) -> Result<Reference> {
        let target = credential.image(name)?;
        let client = credential.client(self.host)?;
        let pushed = self
            .step("push", async |_| {
                push(&client, store, image, std::slice::from_ref(&target), self.job).await
            })
            .await;
        match pushed {
            Ok(_) => Ok(target),
            Err(error) if error.kind() == ErrorKind::Denied => {
                Err(does_not_work(credential.registry(), &error))
            }
            Err(error) => Err(error),
        }
    }
}

fn architecture(store: &ImageStore, image: &Descriptor, shown: &Reference) -> Result<Architecture> {
    let platform = Image::load(store, image)?.config.platform();
    Architecture::of(&platform).ok_or_else(|| not_for_snapshots(&format!("`{shown}` is for {platform}")))
}

//! The way by this machine: a credential is issued and tried, a backend builds, and our own registry client
//! pushes with that credential. The settings of the docker client are neither read for that nor changed.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use windlass_core::backend::{Backend, CheckStatus};
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
/// The service of Together's developers, which runs on machines like theirs.
const LOCAL_ENVIRONMENT: &str = "api.codesandbox.dev";

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
    /// Builds on this machine, pushes, and makes a snapshot. The request must say one platform.
    ///
    /// # Errors
    /// `Unavailable` before anything else if the first backend does not work; `Denied` before the build if the
    /// credential does not; as the build, the registry and the service say.
    pub async fn locally(
        &self,
        backends: &[Arc<dyn Backend>],
        pipeline: &Pipeline,
        request: BuildRequest,
    ) -> Result<CreatedSnapshot> {
        self.prepare(&request.context).await?;
        if let [backend] = backends {
            self.step("prepare", async |_| works(backend.as_ref(), self).await).await?;
        }
        let name = image_name();
        let credential = self.step("auth", async |_| self.tried_credential(&name).await).await?;
        let (directory, store) = self.scratch()?;
        let archive = directory.path().join("image.tar");
        let image = credential.image(&name)?;
        let platform = request.platforms.first().cloned().unwrap_or_else(|| Architecture::Amd64.platform());
        let request = BuildRequest {
            tags: vec![image.clone()],
            outputs: vec![Output {
                kind: OutputKind::Docker,
                destination: Some(Destination::Path(archive.clone())),
                attributes: [].into(),
            }],
            ..request
        };
        let (built, backend) = self
            .step("build", async |_| {
                let report = pipeline.build(request, &BUILD_ANEW, self.job).await?;
                let built = self.take_in(archive, &store, &platform, &image).await?;
                Ok((built, report.image.backend))
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

/// Refuses a backend that cannot build, before anything is asked of the service.
async fn works(backend: &dyn Backend, creation: &Creation<'_>) -> Result<()> {
    let report = backend.check(creation.job).await;
    creation.job.check()?;
    match report.items.into_iter().find(|item| item.status == CheckStatus::Bad) {
        None => Ok(()),
        Some(item) => {
            let message = format!("the backend `{}` cannot build: {}", backend.name(), item.what);
            let error = Error::new(ErrorKind::Unavailable, message).with_source(item.seen);
            Err(item.hint.into_iter().fold(error, Error::with_hint))
        }
    }
}

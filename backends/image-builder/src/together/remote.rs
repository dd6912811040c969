//! The way by the service: the image-builder builds, and what it built is looked at.

use std::time::Duration;

use windlass_core::backend::Job;
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::events::Events;
use windlass_core::image::{FetchLayers, Image, ImageStore, ScratchDir, pull};
use windlass_core::pipeline::{Pipeline, PipelineOptions, Reuse};
use windlass_core::reference::Reference;
use windlass_core::registry::RegistryClient;
use windlass_core::request::BuildRequest;

use super::architecture::{Architecture, not_for_snapshots};
use super::create::{CreatedSnapshot, Creation};
use super::credential::IssuedCredential;
use super::uuid::image_name;

/// Looking at what was built may take so long: it is only a second opinion.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

/// A name of our own never exists before.
pub(super) const BUILD_ANEW: PipelineOptions = PipelineOptions { reuse: Reuse::Never, explain: false };

/// What is done with an image that is not in the registry which the service issues credentials for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// It is refused.
    Refused,
    /// It is taken as it is: the service named it, or the user knows.
    Accepted,
}

impl Creation<'_> {
    /// Lets the service behind a pipeline build, and makes a snapshot of what it built.
    ///
    /// # Errors
    /// As the build and the service say; `InvalidInput` if the image is for something else than asked for.
    pub async fn by_service(
        &self,
        pipeline: &Pipeline,
        mut request: BuildRequest,
    ) -> Result<CreatedSnapshot> {
        self.prepare(&request.context, &[]).await?;
        if request.tags.is_empty() {
            request.tags.push(image_name().parse()?);
        }
        let report = self
            .step("build", async |_| Box::pin(pipeline.build(request, &BUILD_ANEW, self.job)).await)
            .await?;
        let Some(image) = report.image.references.first() else {
            return Err(Error::new(ErrorKind::UnexpectedAnswer, "the service did not say what it built"));
        };
        let architecture = self.architecture_of(image, Elsewhere::Accepted).await?;
        self.register(image, architecture, Some(report.image.backend)).await
    }

    /// What an image in Together's registry is for, as its config says. One that cannot be read is taken for
    /// what was asked for, else for amd64.
    pub(super) async fn architecture_of(
        &self,
        image: &Reference,
        elsewhere: Elsewhere,
    ) -> Result<Architecture> {
        let asked = self.order.architecture;
        let assumed = asked.map_or(Architecture::Amd64, |asked| asked.architecture);
        let read = self
            .step("auth", async |step| {
                match tokio::time::timeout(LOOK_LIMIT, self.look(image, elsewhere)).await {
                    Ok(Ok(seen)) => Ok(Some(seen)),
                    Ok(Err(error)) if error.kind() == ErrorKind::Cancelled => Err(error),
                    Ok(Err(error))
                        if error.kind() == ErrorKind::InvalidInput && elsewhere == Elsewhere::Refused =>
                    {
                        Err(error)
                    }
                    Ok(Err(error)) => {
                        let why = std::error::Error::source(&error)
                            .map_or_else(String::new, |why| format!(": {why}"));
                        step.log(format!(
                            "the image could not be looked at, so it counts as {assumed}: {error}{why}"
                        ));
                        Ok(None)
                    }
                    Err(_) => {
                        let seconds = LOOK_LIMIT.as_secs();
                        step.log(format!("no answer for {seconds} s, so the image counts as {assumed}"));
                        Ok(None)
                    }
                }
            })
            .await?;
        let Some(seen) = read else { return Ok(assumed) };
        let Some(seen) = Architecture::of(&seen) else {
            return Err(not_for_snapshots(&format!("`{image}` is for {seen}")));
        };
        asked.map_or(Ok(()), |asked| asked.accept(&image.to_string(), seen))?;
        Ok(seen)
    }

    /// Reads the platform out of the config of an image. Nothing of it is kept.
    ///
    /// # Errors
    /// `InvalidInput` for an image that is elsewhere, where that is refused; what the registry meets.
    async fn look(
        &self,
        image: &Reference,
        elsewhere: Elsewhere,
    ) -> Result<windlass_core::platform::Platform> {
        // Nobody needs to hear of what is tried again for a second opinion.
        let quiet = Job { events: Events::silent(), ..self.job.clone() };
        let credential = self.management.issue_credential(&quiet).await?;
        let client: RegistryClient = match credential.registry() == image.registry() {
            true => credential.client(self.host)?,
            false if elsewhere == Elsewhere::Refused => return Err(not_there(image, &credential)),
            false => self.host.registry_client.clone(),
        };
        let (_directory, store) = self.scratch().await?;
        let pulled = pull(&client, &store, image, None, FetchLayers::WhenRead, &quiet).await?;
        let mut platforms = Vec::new();
        for manifest in &pulled.manifests {
            platforms.push(Image::load(&store, manifest)?.config.platform());
        }
        // Of several, the one that was asked for is what will run.
        let asked = self.order.architecture.map(|asked| asked.architecture);
        let wanted =
            platforms.iter().position(|platform| asked.is_some() && Architecture::of(platform) == asked);
        if platforms.is_empty() {
            return Err(Error::new(ErrorKind::Unsupported, format!("`{image}` is for no platform")));
        }
        Ok(platforms.swap_remove(wanted.unwrap_or(0)))
    }

    /// A store that is gone when its directory is dropped. What a killed process left there goes with the next
    /// that opens the store of images.
    pub(super) async fn scratch(&self) -> Result<(ScratchDir, ImageStore)> {
        let images = self.host.cache_dir.join("images");
        self.job
            .blocking(move |_| {
                let directory = ImageStore::open(images)?.scratch_dir()?;
                let store = ImageStore::open(directory.path().join("store"))?;
                Ok((directory, store))
            })
            .await
    }
}

/// The error for an image that the service would register and never find.
fn not_there(image: &Reference, credential: &IssuedCredential) -> Error {
    let (name, registry) = (image.familiar(), credential.registry());
    let there = credential.image("name:tag").map_or_else(|_| registry.to_owned(), |there| there.to_string());
    Error::new(
        ErrorKind::InvalidInput,
        format!("`{name}` is not in Together's registry, which is `{registry}`"),
    )
    .with_hint(format!("an image of your project is called `{there}`"))
    .with_hint(format!("a public image is taken over with `--image {name}`"))
    .with_hint("`--force` registers it all the same")
}

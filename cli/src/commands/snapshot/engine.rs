//! The docker engine as the keeper of an image on its way to a snapshot.

use std::path::Path;

use async_trait::async_trait;
use windlass_core::Result;
use windlass_core::backend::Job;
use windlass_core::backend_registry::BackendSetup;
use windlass_core::config::SelectedBackend;
use windlass_core::error::{ErrorKind, ResultExt};
use windlass_core::reference::Reference;
use windlass_docker::Engine;
use windlass_image_builder::together::ImageKeeper;

use crate::session::Session;

/// Not every builder of docker can write archives; each can load its image into the engine.
pub(super) struct InEngine(Engine);

impl InEngine {
    /// The engine of a backend, if it is one of docker.
    pub(super) fn of(chosen: &SelectedBackend, session: &Session<'_>) -> Result<Option<Self>> {
        if chosen.type_name != windlass_docker::TYPE {
            return Ok(None);
        }
        let setup = BackendSetup {
            name: chosen.name.clone(),
            options: chosen.options.clone(),
            host: session.host.clone(),
        };
        Engine::of_backend(&setup).map(Self).map(Some)
    }
}

#[async_trait]
impl ImageKeeper for InEngine {
    async fn save(&self, image: &Reference, archive: &Path, job: &Job) -> Result<()> {
        let file = tokio::fs::File::create(archive)
            .await
            .or_error(ErrorKind::LocalIo, || format!("could not write `{}`", archive.display()))?;
        self.0.save(&[&image.to_string()], file, job).await.map(drop)
    }

    async fn remove(&self, image: &Reference, job: &Job) -> Result<()> {
        self.0.remove(image, job).await.map(drop)
    }
}

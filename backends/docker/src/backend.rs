//! The backend itself: reads from top to bottom like a build.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OnceCell;
use windlass_core::Result;
use windlass_core::backend::{Backend, Capabilities, CheckReport, FindScope, FoundImage, Job, PlannedAction};
use windlass_core::backend_registry::{BackendSetup, Host};
use windlass_core::reference::Reference;
use windlass_core::remote::RemoteBuilds;
use windlass_core::request::{BuildRequest, BuiltImage};

use crate::config::{Config, Via};
use crate::endpoint::Endpoint;
use crate::engine::Engine;
use crate::failure::failure;
use crate::program::{Buildx, Program};
use crate::store::Store;
use crate::surroundings::Surroundings;
use crate::{buildx, check, engine_build, image, plan, tag};

/// Builds with docker.
#[derive(Debug)]
pub(crate) struct DockerBackend {
    name: String,
    config: Config,
    host: Arc<Host>,
    surroundings: Surroundings,
    capabilities: Capabilities,
    /// What was found to build with; asked once.
    route: OnceCell<Route>,
}

/// The way builds go.
#[derive(Clone, Debug)]
pub(crate) enum Route {
    Buildx(Buildx),
    Engine(Engine),
}

impl DockerBackend {
    /// Checks the options; reaches for nothing.
    pub(crate) fn new(setup: BackendSetup) -> Result<Self> {
        let config = Config::read(&setup)?;
        let surroundings = Surroundings::new(&config, &setup.host);
        let capabilities = crate::capabilities();
        let BackendSetup { name, host, .. } = setup;
        Ok(Self { name, config, host, surroundings, capabilities, route: OnceCell::new() })
    }

    fn engine(&self) -> Result<Engine> {
        Engine::connect(Endpoint::resolve(&self.surroundings)?)
    }

    fn program(&self) -> Result<Program> {
        Program::locate(&self.config.docker, &self.surroundings)
    }

    fn store(&self) -> Result<Store> {
        Store::of(self.engine(), || self.program())
    }

    async fn buildx(&self, job: &Job) -> Result<Buildx> {
        self.program()?.buildx(job).await
    }

    async fn route(&self, job: &Job) -> Result<&Route> {
        self.route
            .get_or_try_init(async || match self.config.via {
                Via::Buildx => Ok(Route::Buildx(self.buildx(job).await?)),
                Via::Engine => Ok(Route::Engine(self.engine()?)),
                Via::Auto => self.best_route(job).await,
            })
            .await
    }

    /// buildx, or where it is missing the engine, if that answers.
    async fn best_route(&self, job: &Job) -> Result<Route> {
        let missing = match self.buildx(job).await {
            Ok(buildx) => return Ok(Route::Buildx(buildx)),
            Err(error) if error.kind().is_unavailable() => error,
            Err(error) => return Err(error),
        };
        let Ok(engine) = self.engine() else { return Err(missing) };
        if engine.ping(job).await.is_err() {
            job.check()?;
            return Err(missing);
        }
        job.events.warn(format!("{missing}: building through the docker engine itself, with fewer options"));
        Ok(Route::Engine(engine))
    }
}

#[async_trait]
impl Backend for DockerBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn check(&self, job: &Job) -> CheckReport {
        check::check(&self.config, &self.surroundings, job).await
    }

    async fn find(&self, reference: &Reference, scope: FindScope, job: &Job) -> Result<Option<FoundImage>> {
        if scope != FindScope::Registry
            && let Some(found) = self.store()?.find(reference, job).await?
        {
            return Ok(Some(found));
        }
        if scope == FindScope::Store {
            return Ok(None);
        }
        let descriptor = self.host.registry_client.head_manifest(reference, job).await?;
        Ok(descriptor.map(|descriptor| FoundImage {
            reference: reference.clone(),
            digest: Some(descriptor.digest),
            image_id: None,
            platforms: Vec::new(),
            in_registry: true,
        }))
    }

    async fn tag(&self, image: &FoundImage, references: &[Reference], job: &Job) -> Result<()> {
        if image.in_registry {
            let buildx = self.buildx(job).await;
            return tag::in_registry(&self.host.registry_client, buildx, image, references, job).await;
        }
        let store = self.store()?;
        for reference in references {
            store.tag(&image.reference.to_string(), reference, job).await?;
        }
        Ok(())
    }

    async fn plan(&self, request: &BuildRequest, job: &Job) -> Result<Vec<PlannedAction>> {
        match self.route(job).await? {
            Route::Buildx(buildx) => Ok(plan::through_buildx(buildx, request, &self.config)),
            Route::Engine(engine) => {
                engine_build::refuse_unsupported(request)?;
                Ok(plan::through_engine(engine, request))
            }
        }
    }

    async fn build(&self, request: &BuildRequest, job: &Job) -> Result<BuiltImage> {
        match self.route(job).await? {
            Route::Buildx(buildx) => {
                let archive = self.host.archive;
                match buildx::build(buildx, request, &self.config, archive, job).await? {
                    Ok(built) => Ok(image::from_metadata(built, request, &self.name)),
                    Err(ended) => Err(failure(ended, request)),
                }
            }
            Route::Engine(engine) => engine_build::build(engine, request, &self.host, &self.name, job).await,
        }
    }

    fn remote(&self) -> Option<&dyn RemoteBuilds> {
        None
    }
}

//! The backend, as the protocol of core has it.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use windlass_core::Result;
use windlass_core::backend::{Backend, Capabilities, CheckReport, FindScope, FoundImage, Job, PlannedAction};
use windlass_core::backend_registry::{BackendSetup, Host};
use windlass_core::reference::Reference;
use windlass_core::remote::RemoteBuilds;
use windlass_core::request::{BuildRequest, BuiltImage};

use crate::base::BaseTurns;
use crate::linked::LinkedLayers;
use crate::{OciConfig, TYPE, build, capabilities, check, find};

/// The embedded builder.
#[derive(Debug)]
pub struct Oci {
    name: String,
    config: OciConfig,
    host: Arc<Host>,
    capabilities: Capabilities,
    linked: LinkedLayers,
    base_turns: BaseTurns,
}

/// Makes one from its options.
pub(crate) fn create(setup: BackendSetup) -> Result<Arc<dyn Backend>> {
    let config = setup.options.parse(TYPE, OciConfig::OPTIONS)?;
    Ok(Arc::new(Oci::new(setup.name, config, setup.host)))
}

impl Oci {
    /// Makes one that keeps its images where the options say.
    pub fn new(name: impl Into<String>, config: OciConfig, host: Arc<Host>) -> Self {
        Self {
            name: name.into(),
            config,
            host,
            capabilities: capabilities(),
            linked: LinkedLayers::default(),
            base_turns: BaseTurns::default(),
        }
    }

    /// The layers that its builds share.
    pub(crate) fn linked(&self) -> &LinkedLayers {
        &self.linked
    }

    /// The machine it runs on.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// The turns of its builds at bases.
    pub(crate) fn base_turns(&self) -> &BaseTurns {
        &self.base_turns
    }

    /// The directory of the image store.
    pub fn store_dir(&self) -> PathBuf {
        match &self.config.store {
            Some(dir) => self.host.current_dir.join(dir),
            None => self.host.cache_dir.join("images"),
        }
    }
}

#[async_trait]
impl Backend for Oci {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn check(&self, job: &Job) -> CheckReport {
        check::run(self, job).await
    }

    async fn find(&self, reference: &Reference, scope: FindScope, job: &Job) -> Result<Option<FoundImage>> {
        find::find(self, reference, scope, job).await
    }

    async fn tag(&self, image: &FoundImage, references: &[Reference], job: &Job) -> Result<()> {
        find::tag(self, image, references, job).await
    }

    async fn plan(&self, request: &BuildRequest, _: &Job) -> Result<Vec<PlannedAction>> {
        build::plan(self, request)
    }

    async fn build(&self, request: &BuildRequest, job: &Job) -> Result<BuiltImage> {
        build::build(self, request, job).await
    }

    fn remote(&self) -> Option<&dyn RemoteBuilds> {
        None
    }
}

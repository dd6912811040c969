//! The backend itself: reads from top to bottom like a build.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OnceCell;
use windlass_core::Result;
use windlass_core::backend::{Backend, Capabilities, CheckReport, FindScope, FoundImage, Job, PlannedAction};
use windlass_core::backend_registry::{BackendSetup, Host};
use windlass_core::error::{Error, ErrorKind};
use windlass_core::reference::Reference;
use windlass_core::remote::{ImageUpload, RemoteBuild, RemoteBuilds, RemoteStatus, Submitted};
use windlass_core::request::{BuildRequest, BuiltImage};
use windlass_core::service::{Payload, ServiceClient, Transfer, sent_context};

use crate::config::Config;
use crate::memory::Memory;
use crate::submit::{Taken, Upload};
use crate::{calls, check, logs, names, plan, poll, submit};

/// Builds on a service of the Runtime API.
#[derive(Debug)]
pub(crate) struct RuntimeApi {
    name: String,
    config: Config,
    host: Arc<Host>,
    capabilities: Capabilities,
    client: ServiceClient,
    /// What stands before names without a registry; asked once.
    prefix: OnceCell<Option<String>>,
}

impl RuntimeApi {
    /// Checks the options; reaches for nothing.
    pub(crate) fn new(setup: BackendSetup) -> Result<Self> {
        let config = Config::read(&setup)?;
        let client = config.client(&setup.name, &setup.host)?;
        let BackendSetup { name, host, .. } = setup;
        let (capabilities, prefix) = (crate::capabilities(), OnceCell::new());
        Ok(Self { name, config, host, capabilities, client, prefix })
    }

    pub(crate) fn client(&self) -> &ServiceClient {
        &self.client
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn memory(&self) -> Memory {
        Memory::of(&self.host.cache_dir, self.client.address().as_str())
    }

    /// The prefix if the configuration says it; `None` if the service must be asked.
    pub(crate) fn configured_prefix(&self) -> Option<Option<String>> {
        match self.config.registry_prefix.as_str() {
            "auto" => None,
            "none" => Some(None),
            prefix => Some(names::prefix(prefix)),
        }
    }

    /// What stands before names without a registry.
    async fn prefix(&self, job: &Job) -> Result<Option<&str>> {
        let prefix = self.prefix.get_or_try_init(async || match self.configured_prefix() {
            Some(prefix) => Ok(prefix),
            None => calls::registry_prefix(&self.client, job).await,
        });
        Ok(prefix.await?.as_deref())
    }

    async fn spell(&self, references: &[Reference], job: &Job) -> Result<Vec<String>> {
        let prefix = self.prefix(job).await?;
        references.iter().map(|reference| names::spell(reference, prefix)).collect()
    }

    /// Sends something, and gives what is needed to follow it.
    async fn send(
        &self,
        payload: Payload,
        is_context: bool,
        names: Vec<String>,
        job: &Job,
    ) -> Result<Submitted> {
        let Some((target, tags)) = names.split_first() else {
            return Err(Error::new(ErrorKind::InvalidInput, "nothing says what the image shall be called")
                .with_hint("name it: `--tag repository:tag`"));
        };
        let upload = Upload { payload, is_context, target: target.clone(), tags: tags.to_vec() };
        match submit::submit(self, upload, job).await? {
            Taken::Started(id) => {
                Ok(Submitted::Started(RemoteBuild { id, targets: names, submitted_at: None }))
            }
            Taken::Finished(image) => Ok(Submitted::Finished(Box::new(self.built(image, &names, job)?))),
        }
    }

    /// The image as the service calls it, and its further names.
    fn built(&self, image: Option<String>, targets: &[String], job: &Job) -> Result<BuiltImage> {
        let (target, others) = match targets.split_first() {
            Some((target, others)) => (Some(target), others),
            None => (None, targets),
        };
        let Some(main) = image.as_ref().or(target) else {
            let message = format!("`{}` does not say what the image is called", self.client.server());
            return Err(Error::new(ErrorKind::UnexpectedAnswer, message));
        };
        let main: Reference = match (main.parse(), target) {
            (Ok(reference), _) => reference,
            (Err(_), Some(target)) => {
                job.events.warn(format!("the service calls the image `{main}`, which is no reference"));
                target.parse()?
            }
            (Err(error), None) => return Err(error),
        };
        let mut references = vec![main];
        for other in others {
            let other: Reference = other.parse()?;
            if !references.contains(&other) {
                references.push(other);
            }
        }
        Ok(BuiltImage {
            references,
            digest: None,
            image_id: None,
            platforms: Vec::new(),
            backend: self.name.clone(),
            reused: false,
            written: Vec::new(),
            metadata: serde_json::Map::new(),
        })
    }
}

#[async_trait]
impl Backend for RuntimeApi {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn check(&self, job: &Job) -> CheckReport {
        check::check(self, job).await
    }

    /// The service's registry is its store: every scope is the same question.
    async fn find(&self, reference: &Reference, _: FindScope, job: &Job) -> Result<Option<FoundImage>> {
        let names = self.spell(std::slice::from_ref(reference), job).await?;
        let exists = calls::image_exists(&self.client, &names[0], job).await?;
        let spelled = || names[0].parse().unwrap_or_else(|_| reference.clone());
        Ok(exists.then(|| FoundImage {
            reference: spelled(),
            digest: None,
            image_id: None,
            platforms: Vec::new(),
            in_registry: true,
        }))
    }

    async fn tag(&self, image: &FoundImage, _: &[Reference], _: &Job) -> Result<()> {
        let message = format!(
            "`{}` exists, but the protocol of the backend `{}` cannot give it further names",
            image.reference.familiar(),
            self.name
        );
        Err(Error::new(ErrorKind::Unsupported, message))
    }

    async fn plan(&self, request: &BuildRequest, job: &Job) -> Result<Vec<PlannedAction>> {
        plan::plan(self, request, job).await
    }

    async fn build(&self, request: &BuildRequest, job: &Job) -> Result<BuiltImage> {
        match self.submit(request, job).await? {
            Submitted::Finished(image) => Ok(*image),
            Submitted::Started(build) => self.attach(&build, job).await,
        }
    }

    fn remote(&self) -> Option<&dyn RemoteBuilds> {
        Some(self)
    }
}

#[async_trait]
impl RemoteBuilds for RuntimeApi {
    fn server(&self) -> &str {
        self.client.address().as_str()
    }

    /// There is no call that cancels.
    fn stops_with_client(&self) -> bool {
        false
    }

    async fn submit(&self, request: &BuildRequest, job: &Job) -> Result<Submitted> {
        plan::refuse(request)?;
        plan::warn(request, job);
        let names = self.spell(&request.tags, job).await?;
        let archive = self.host.archive;
        let request = request.clone();
        let payload = job
            .blocking(move |job| {
                let context = sent_context(&request, &plan::dockerfile(), job)?;
                let entries = context.list_to_send(job)?;
                Ok(Payload::context(context, entries, archive, Transfer::Base64))
            })
            .await?;
        self.send(payload, true, names, job).await
    }

    async fn upload(&self, image: &ImageUpload, job: &Job) -> Result<Submitted> {
        let names = self.spell(&image.names, job).await?;
        self.send(Payload::image(image.clone(), self.host.archive.compression), false, names, job).await
    }

    async fn registry_names(&self, names: &[Reference], job: &Job) -> Result<Vec<Reference>> {
        let prefix = self.prefix(job).await?;
        let own = |reference: &Reference| {
            if prefix.is_none() && names::lacks_registry(reference) {
                let message = format!("`{}` does not say which registry is its own", self.client.server());
                return Err(Error::new(ErrorKind::InvalidInput, message)
                    .with_detail("image", reference.familiar())
                    .with_hint("name the image with its registry, or set `registry-prefix` of the backend"));
            }
            names::spell(reference, prefix)?.parse()
        };
        names.iter().map(own).collect()
    }

    fn planned_find(&self, reference: &Reference) -> Result<Vec<PlannedAction>> {
        plan::find(self, reference)
    }

    async fn status(&self, build: &RemoteBuild, job: &Job) -> Result<RemoteStatus> {
        poll::status(self, &build.id, job).await
    }

    async fn attach(&self, build: &RemoteBuild, job: &Job) -> Result<BuiltImage> {
        let image = poll::wait(self, build, job).await?;
        self.built(image, &build.targets, job)
    }

    async fn logs(
        &self,
        build: &RemoteBuild,
        line: &mut (dyn for<'a> FnMut(&'a str) + Send),
        job: &Job,
    ) -> Result<()> {
        job.run(logs::read(&self.client, &build.id, line, self.config.stall_timeout)).await
    }

    async fn cancel(&self, build: &RemoteBuild, _: &Job) -> Result<()> {
        let message = format!("`{}` has no call that cancels the build `{}`", self.client.server(), build.id);
        Err(Error::new(ErrorKind::Unsupported, message)
            .with_hint("it ends by itself, or by the service's own limit"))
    }
}

#[cfg(test)]
pub(crate) mod tests;

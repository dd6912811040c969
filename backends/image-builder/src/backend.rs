//! The backend itself: reads from top to bottom like a build.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use reqwest::{Method, StatusCode};
use tokio::time::Instant;
use windlass_core::Result;
use windlass_core::backend::{Backend, Capabilities, CheckReport, FindScope, FoundImage, Job, PlannedAction};
use windlass_core::backend_registry::{BackendSetup, Host};
use windlass_core::error::{Error, ErrorKind};
use windlass_core::http::Failure;
use windlass_core::reference::Reference;
use windlass_core::remote::{
    BuildId, ImageUpload, RemoteBuild, RemoteBuilds, RemoteState, RemoteStatus, Submitted,
};
use windlass_core::request::{BuildRequest, BuiltImage};
use windlass_core::service::{Payload, ServiceClient, Transfer};

use crate::config::Config;
use crate::follow::{Ending, Follower};
use crate::wire::BuildForm;
use crate::{check, names, plan, status, submit};

/// The registry of names that windlass makes itself.
const LOCAL: &str = "localhost";

/// Builds on Together's image-builder.
#[derive(Debug)]
pub(crate) struct ImageBuilder {
    name: String,
    config: Config,
    host: Arc<Host>,
    capabilities: Capabilities,
    client: ServiceClient,
    /// When each build was sent that is not followed yet: the service may not know it at once.
    submitted: Mutex<BTreeMap<BuildId, Instant>>,
}

impl ImageBuilder {
    /// Checks the options; reaches for nothing.
    pub(crate) fn new(setup: BackendSetup) -> Result<Self> {
        let config = Config::read(&setup)?;
        let client = config.client(&setup.name, &setup.host)?;
        let BackendSetup { name, host, .. } = setup;
        let (capabilities, submitted) = (crate::capabilities(), Mutex::default());
        Ok(Self { name, config, host, capabilities, client, submitted })
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

    fn submitted(&self) -> std::sync::MutexGuard<'_, BTreeMap<BuildId, Instant>> {
        self.submitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows a build to its end within the limit; gives the last lines of its log beside.
    async fn follow(
        &self,
        id: &BuildId,
        line: &mut (dyn for<'a> FnMut(&'a str) + Send),
        job: &Job,
    ) -> (Result<Ending>, Vec<String>) {
        let submitted = self.submitted().remove(id);
        let mut follower = Follower::new(self, id, submitted, line, job);
        let limit = self.config.build_timeout;
        // The user's own limit is seen to elsewhere.
        let result = match limit.is_zero() || job.limit.is_some() {
            true => follower.follow().await,
            false => match tokio::time::timeout(limit, follower.follow()).await {
                Ok(result) => result,
                Err(_) => {
                    let message = format!("the build `{id}` has not ended after {} s", limit.as_secs());
                    Err(Error::new(ErrorKind::TimedOut, message).with_hint(
                        "give it more time: the option `build-timeout` of the backend (0 is for ever)",
                    ))
                }
            },
        };
        (result, follower.tail())
    }

    /// What an end of a build means for who waits for it.
    fn image(&self, build: &RemoteBuild, ending: Ending, tail: Vec<String>) -> Result<BuiltImage> {
        let (id, seen) = (&build.id, ending.seen);
        if ending.state != RemoteState::Succeeded {
            return Err(self.failure(build, ending.state, ending.why.or(seen.error), &seen.word, tail));
        }
        let Some(image) = seen.image_ref else {
            let message = format!("the build `{id}` has succeeded, but its image cannot be found");
            let why = format!("Build succeeded but no image_ref in status: {}", seen.document);
            return Err(Error::new(ErrorKind::UnexpectedAnswer, message).with_source(why));
        };
        let reference: Reference = image.parse().map_err(|error: Error| {
            let message = format!("the service calls the image `{image}`, which is no reference");
            Error::new(ErrorKind::UnexpectedAnswer, message).with_source(error)
        })?;
        Ok(BuiltImage {
            digest: reference.digest(),
            references: vec![reference],
            image_id: None,
            platforms: Vec::new(),
            backend: self.name.clone(),
            reused: false,
            written: Vec::new(),
            metadata: serde_json::Map::new(),
        })
    }

    fn failure(
        &self,
        build: &RemoteBuild,
        state: RemoteState,
        why: Option<String>,
        word: &str,
        tail: Vec<String>,
    ) -> Error {
        let (id, server) = (&build.id, self.client.server());
        let what = build
            .targets
            .first()
            .map_or_else(|| format!("the build `{id}`"), |target| format!("the build of `{target}`"));
        let how = if state == RemoteState::Cancelled { "was cancelled" } else { "failed" };
        let why = match why {
            Some(why) => format!("Build {id} failed: {}", self.client.key().hide(&why)),
            None => format!("Build failed with status: {word}. Build ID: {id}"),
        };
        let error =
            Error::new(ErrorKind::BuildFailed, format!("{what} {how} on `{server}`")).with_source(why);
        let error = if word.is_empty() { error } else { error.with_detail("status", word) };
        error.with_log_tail(tail)
    }
}

#[async_trait]
impl Backend for ImageBuilder {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn check(&self, job: &Job) -> CheckReport {
        check::check(self, job).await
    }

    /// The protocol has no question for it: every build is a new one, and the service's own cache makes it
    /// short.
    async fn find(&self, reference: &Reference, _: FindScope, job: &Job) -> Result<Option<FoundImage>> {
        if reference.registry() != LOCAL {
            let name = reference.familiar();
            job.events.warn(format!("the service cannot be asked whether `{name}` exists: it is built"));
        }
        Ok(None)
    }

    async fn tag(&self, image: &FoundImage, _: &[Reference], _: &Job) -> Result<()> {
        let message = format!(
            "`{}` cannot be given further names by the backend `{}`",
            image.reference.familiar(),
            self.name
        );
        Err(Error::new(ErrorKind::Unsupported, message).with_hint("build it again: `--force-rebuild`"))
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
impl RemoteBuilds for ImageBuilder {
    fn server(&self) -> &str {
        self.client.address().as_str()
    }

    fn stops_with_client(&self) -> bool {
        true
    }

    async fn submit(&self, request: &BuildRequest, job: &Job) -> Result<Submitted> {
        plan::refuse(request)?;
        plan::warn(request, job);
        let wanted = names::wanted(&request.tags)?;
        let image_name = wanted.unwrap_or_else(names::made);
        let cache_key = names::cache_key(self.config.cache_key.as_deref(), request, Some(&image_name));
        let (archive, build_args) = (self.host.archive, &request.build_args);
        let of_context = request.clone();
        let (payload, dockerfile) = job
            .blocking(move |job| {
                let (context, entries, dockerfile) = plan::contents(&of_context, job)?;
                Ok((Payload::context(context, entries, archive, Transfer::Raw), dockerfile))
            })
            .await?;
        let form = BuildForm {
            image_name: &image_name,
            dockerfile: &dockerfile,
            build_args,
            nydus_convert: self.config.nydus,
            cache_key: cache_key.as_deref(),
        };
        let id = submit::submit(self, payload, &form, job).await?;
        self.submitted().insert(id.clone(), Instant::now());
        Ok(Submitted::Started(RemoteBuild { id, targets: vec![image_name] }))
    }

    async fn upload(&self, _: &ImageUpload, _: &Job) -> Result<Submitted> {
        let message = format!("`{}` takes build contexts, not finished images", self.client.server());
        Err(Error::new(ErrorKind::Unsupported, message)
            .with_hint("push the image to a registry that the service reads: `windlass image push`"))
    }

    async fn registry_names(&self, _: &[Reference], _: &Job) -> Result<Vec<Reference>> {
        let message = format!("images get into the registry of `{}` by builds", self.client.server());
        Err(Error::new(ErrorKind::Unsupported, message)
            .with_hint("build on it: a Dockerfile of one line, `FROM IMAGE`"))
    }

    async fn status(&self, build: &RemoteBuild, job: &Job) -> Result<RemoteStatus> {
        status::status(&self.client, &build.id, job).await
    }

    async fn attach(&self, build: &RemoteBuild, job: &Job) -> Result<BuiltImage> {
        let step = job.events.step(format!("building on {} as {}", self.client.server(), build.id));
        let (ending, tail) = self.follow(&build.id, &mut |line| step.log(line), job).await;
        let image = ending.and_then(|ending| self.image(build, ending, tail));
        step.end(image)
    }

    /// Follows the log to its end, which is that of the build.
    async fn logs(
        &self,
        build: &RemoteBuild,
        line: &mut (dyn for<'a> FnMut(&'a str) + Send),
        job: &Job,
    ) -> Result<()> {
        self.follow(&build.id, line, job).await.0.map(drop)
    }

    async fn cancel(&self, build: &RemoteBuild, job: &Job) -> Result<()> {
        let id = &build.id;
        let message = format!("could not cancel the build `{id}`");
        let url = self.client.url(&["builds", id.as_str()], &[]);
        let call = async { Ok(self.client.call::<()>(Method::DELETE, url, None).await) };
        let limit = self.config.cancel_timeout;
        let answer = match tokio::time::timeout(limit, job.run(call)).await {
            Ok(answer) => answer?.map_err(Failure::into_error)?,
            Err(_) => return Err(self.client.silent(limit)),
        };
        match answer {
            Ok(_) => {}
            // It is not there any more, which is what was wanted.
            Err(refusal) if refusal.status == StatusCode::NOT_FOUND => return Ok(()),
            Err(refusal) => return Err(refusal.into_error(&message)),
        }
        // It may have been done before it could be stopped.
        match status::look(&self.client, id, job).await {
            Ok(status::Look::Seen(seen)) if seen.state == Some(RemoteState::Succeeded) => {
                let error =
                    Error::new(ErrorKind::InvalidInput, format!("the build `{id}` has succeeded already"));
                Err(match seen.image_ref {
                    Some(image) => error.with_detail("image", image),
                    None => error,
                })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;

//! The backend itself: reads from top to bottom like a build.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
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
use windlass_core::service::{Answer, Payload, ServiceClient, Transfer};

use crate::config::Config;
use crate::follow::{Ending, Follower};
use crate::status::Seen;
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
}

impl ImageBuilder {
    /// Checks the options; reaches for nothing.
    pub(crate) fn new(setup: BackendSetup) -> Result<Self> {
        let config = Config::read(&setup)?;
        let client = config.client(&setup.name, &setup.host)?;
        let BackendSetup { name, host, .. } = setup;
        Ok(Self { name, config, host, capabilities: crate::capabilities(), client })
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

    /// Until when the service may not know a build yet: its builder has to start.
    pub(crate) fn new_until(&self, build: &RemoteBuild) -> Instant {
        let rest = build.age().map(|age| self.config.not_found_timeout.saturating_sub(age));
        Instant::now() + rest.unwrap_or_default()
    }

    /// Follows a build to its end within the limit; gives the last lines of its log beside.
    async fn follow(
        &self,
        build: &RemoteBuild,
        line: &mut (dyn for<'a> FnMut(&'a str) + Send),
        job: &Job,
    ) -> (Result<Ending>, Vec<String>) {
        let (id, mut follower) = (&build.id, Follower::new(self, build, line, job));
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
            let error = Error::new(ErrorKind::UnexpectedAnswer, message).with_source(why);
            return Err(error.with_end(RemoteState::Succeeded));
        };
        let reference: Reference = image.parse().map_err(|error: Error| {
            let message = format!("the service calls the image `{image}`, which is no reference");
            Error::new(ErrorKind::UnexpectedAnswer, message)
                .with_source(error)
                .with_end(RemoteState::Succeeded)
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
        error.with_log_tail(tail).with_end(state)
    }

    /// Asks the service once to stop a build.
    async fn delete(&self, id: &BuildId, until: Instant, job: &Job) -> Result<Answer> {
        let url = self.client.url(&["builds", id.as_str()], &[]);
        let call = async { Ok(self.client.call::<()>(Method::DELETE, url, None).await) };
        match tokio::time::timeout_at(until, job.run(call)).await {
            Ok(answer) => answer?.map_err(Failure::into_error),
            Err(_) => Err(self.client.silent(self.config.cancel_timeout)),
        }
    }

    /// How a build has ended, where the service says so at once.
    async fn end_of(&self, id: &BuildId, until: Instant, job: &Job) -> Option<Seen> {
        let look = tokio::time::timeout_at(until, status::look(&self.client, id, job)).await;
        match look {
            Ok(Ok(status::Look::Seen(seen))) => Some(seen).filter(Seen::is_final),
            _ => None,
        }
    }
}

/// The error of a build that has ended before it could be stopped.
fn ended_already(id: &BuildId, state: RemoteState, image: Option<String>) -> Error {
    let message = format!("the build `{id}` {} already", state.in_words());
    let error = Error::new(ErrorKind::UnexpectedAnswer, message).with_end(state);
    match image {
        Some(image) => error.with_detail("image", image),
        None => error,
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
        let submitted_at = Some(Timestamp::now());
        Ok(Submitted::Started(RemoteBuild { id, targets: vec![image_name], submitted_at }))
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

    /// There is no call for it.
    fn planned_find(&self, _: &Reference) -> Result<Vec<PlannedAction>> {
        Ok(Vec::new())
    }

    async fn status(&self, build: &RemoteBuild, job: &Job) -> Result<RemoteStatus> {
        status::status(&self.client, &build.id, job).await
    }

    async fn attach(&self, build: &RemoteBuild, job: &Job) -> Result<BuiltImage> {
        let step = job.events.step(format!("building on {} as {}", self.client.server(), build.id));
        let (ending, tail) = self.follow(build, &mut |line| step.log(line), job).await;
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
        self.follow(build, line, job).await.0.map(drop)
    }

    async fn cancel(&self, build: &RemoteBuild, job: &Job) -> Result<()> {
        let id = &build.id;
        let (until, new_until) = (Instant::now() + self.config.cancel_timeout, self.new_until(build));
        let wait = self.config.reconnect_first_wait;
        loop {
            let refusal = match self.delete(id, until, job).await? {
                Ok(_) => break,
                Err(refusal) if refusal.status == StatusCode::NOT_FOUND => refusal,
                Err(refusal) => return Err(refusal.into_error(&format!("could not cancel the build `{id}`"))),
            };
            // It is stopped only if it says so: a young one may begin yet.
            match self.end_of(id, until, job).await {
                Some(seen) if seen.state == Some(RemoteState::Cancelled) => return Ok(()),
                Some(seen) => {
                    return Err(ended_already(id, seen.state.unwrap_or(RemoteState::Failed), seen.image_ref));
                }
                None if Instant::now() >= new_until => {
                    return Err(status::unknown(&self.client, id, refusal));
                }
                None if Instant::now() + wait >= until => {
                    let message = format!(
                        "`{}` does not know the build `{id}` yet: it may begin",
                        self.client.server()
                    );
                    return Err(Error::new(ErrorKind::UnexpectedAnswer, message)
                        .with_source(refusal.in_words())
                        .with_hint(format!(
                            "try again in a while: `windlass builds cancel {id} --backend {}`",
                            self.name
                        )));
                }
                None => {
                    let pause = async {
                        tokio::time::sleep(wait).await;
                        Ok(())
                    };
                    job.run(pause).await?;
                }
            }
        }
        // It may have been done before it could be stopped.
        match self.end_of(id, until, job).await {
            Some(seen) if seen.state == Some(RemoteState::Succeeded) => {
                Err(ended_already(id, RemoteState::Succeeded, seen.image_ref))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;

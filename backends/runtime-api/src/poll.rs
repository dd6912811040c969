//! Waiting for a build: asks until it has ended.

use std::time::Duration;

use reqwest::StatusCode;
use tokio::time::Instant;
use windlass_core::backend::Job;
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::events::Step;
use windlass_core::http::Failure;
use windlass_core::remote::{BuildId, RemoteBuild, RemoteState, RemoteStatus};
use windlass_core::service::{Answer, Refusal, ServiceClient};

use crate::backend::RuntimeApi;
use crate::logs;
use crate::wire::StatusAnswer;

/// Each wait is so much longer than the one before.
const GROWTH: f64 = 1.5;

/// One look at a build.
enum Look {
    Seen(RemoteStatus),
    /// The service knows no such build, perhaps not yet.
    NotFound(Refusal),
    /// Something that may pass.
    Passing(Error, Option<Duration>),
    /// An answer that is no status.
    Unreadable(Error),
}

/// Asks once how a build is.
///
/// # Errors
/// `NotFound` if the service does not know it; what else it says.
pub(crate) async fn status(api: &RuntimeApi, id: &BuildId, job: &Job) -> Result<RemoteStatus> {
    let client = api.client();
    match job.run(look(client, id)).await? {
        Look::Seen(status) => Ok(status),
        Look::NotFound(refusal) => Err(unknown(client, id, refusal)),
        Look::Passing(error, _) | Look::Unreadable(error) => Err(error),
    }
}

/// Waits until a build has ended, and gives the name of its image if the service says one. `limit` is
/// counted by a clock that does not jump.
///
/// # Errors
/// `BuildFailed` in the service's words; `TimedOut`; `NotFound`; `Denied`.
pub(crate) async fn wait(api: &RuntimeApi, build: &RemoteBuild, job: &Job) -> Result<Option<String>> {
    let (client, config, id) = (api.client(), api.config(), &build.id);
    let step = job.events.step(format!("building on {} as {id}", client.server()));
    let waiting = follow(api, id, &step, job);
    let limit = config.build_timeout;
    // The user's own limit is seen to elsewhere.
    let result = match limit.is_zero() || job.limit.is_some() {
        true => waiting.await,
        false => match tokio::time::timeout(limit, waiting).await {
            Ok(result) => result,
            Err(_) => Err(too_long(id, limit)),
        },
    };
    let image = match result {
        Ok(status) if status.state == RemoteState::Succeeded => Ok(status.image),
        Ok(status) => Err(failed(api, build, status, job).await),
        Err(error) => Err(error),
    };
    step.end(image)
}

fn too_long(id: &BuildId, limit: Duration) -> Error {
    Error::new(ErrorKind::TimedOut, format!("the build `{id}` has not ended after {} s", limit.as_secs()))
        .with_hint("give it more time: the option `build-timeout` of the backend (0 is for ever)")
}

/// Looks until the build has ended.
async fn follow(api: &RuntimeApi, id: &BuildId, step: &Step, job: &Job) -> Result<RemoteStatus> {
    let (client, config) = (api.client(), api.config());
    let mut wait = config.poll_first;
    let (mut absent, mut unreadable) = (0, 0);
    let mut last_word = String::new();
    let mut trouble: Option<(String, Instant)> = None;
    loop {
        let mut asked = None;
        match job.run(look(client, id)).await? {
            Look::Seen(status) => {
                (absent, unreadable) = (0, 0);
                if let Some((_, since)) = trouble.take() {
                    step.log(format!(
                        "{} answers again after {} s",
                        client.server(),
                        since.elapsed().as_secs()
                    ));
                }
                if status.word != last_word {
                    say(&status, step, job);
                    last_word.clone_from(&status.word);
                }
                if status.state.is_final() {
                    return Ok(status);
                }
            }
            Look::NotFound(refusal) => {
                absent += 1;
                if absent >= config.not_found_limit {
                    return Err(unknown(client, id, refusal));
                }
            }
            Look::Unreadable(error) => {
                unreadable += 1;
                if unreadable >= config.unreadable_limit {
                    return Err(error);
                }
            }
            Look::Passing(error, retry_after) => {
                (absent, unreadable) = (0, 0);
                // A date that has passed here says nothing: clocks differ.
                asked = retry_after.map(|asked| asked.min(config.retry_after_limit).max(wait));
                let text = in_one_line(&error);
                if trouble.as_ref().is_none_or(|(known, _)| *known != text) {
                    job.events.warn(format!("the build `{id}` cannot be asked for, asking on: {text}"));
                    trouble = Some((text, trouble.map_or_else(Instant::now, |(_, since)| since)));
                }
            }
        }
        let pause = async {
            tokio::time::sleep(asked.unwrap_or(wait)).await;
            Ok(())
        };
        job.run(pause).await?;
        wait = wait.mul_f64(GROWTH).min(config.poll_longest);
    }
}

fn say(status: &RemoteStatus, step: &Step, job: &Job) {
    if RemoteState::of_word(&status.word).is_none() {
        let shown = if status.word.is_empty() { "no status" } else { &status.word };
        job.events.warn(format!("the service says `{shown}`, which means nothing to windlass: waiting on"));
    } else {
        step.log(format!("status: {}", status.word));
    }
}

fn in_one_line(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Asks once. One revision of the service has the id in the path: that is tried where the query form
/// finds nothing.
async fn look(client: &ServiceClient, id: &BuildId) -> Result<Look> {
    let by_query = client.url(&["build_status"], &[("build_id", id.as_str())]);
    let mut answer = client.ask(by_query).await;
    if let Ok(Err(refusal)) = &answer
        && refusal.status == StatusCode::NOT_FOUND
    {
        let by_path = client.ask(client.url(&["build_status", id.as_str()], &[])).await;
        // Front ends refuse paths that they do not know in many ways: that says nothing of the build.
        if matches!(&by_path, Ok(Ok(_)) | Err(_))
            || matches!(&by_path, Ok(Err(refusal)) if refusal.may_pass())
        {
            answer = by_path;
        }
    }
    understand(client, id, answer)
}

/// # Errors
/// What no later answer will change.
fn understand(client: &ServiceClient, id: &BuildId, answer: Result<Answer, Failure>) -> Result<Look> {
    let message = format!("could not ask how the build `{id}` is");
    match answer {
        Ok(Ok(body)) => Ok(match client.read::<StatusAnswer>(&body, "no status of a build") {
            Ok(answer) => Look::Seen(RemoteStatus {
                state: RemoteState::of_word(&answer.status()).unwrap_or(RemoteState::Running),
                word: answer.status(),
                image: answer.image(),
                error: answer.error().map(|error| client.key().hide(&error).into_owned()),
            }),
            Err(error) => Look::Unreadable(error),
        }),
        Ok(Err(refusal)) if refusal.status == StatusCode::NOT_FOUND => Ok(Look::NotFound(refusal)),
        Ok(Err(refusal)) if refusal.may_pass() || refusal.status.is_server_error() => {
            let retry_after = refusal.retry_after;
            Ok(Look::Passing(refusal.into_error(&message), retry_after))
        }
        Ok(Err(refusal)) => Err(refusal.into_error(&message)),
        Err(Failure::Transient { error, .. }) => Ok(Look::Passing(error, None)),
        Err(Failure::Final(error)) if error.kind() == ErrorKind::UnexpectedAnswer => {
            Ok(Look::Unreadable(error))
        }
        Err(Failure::Final(error)) => Err(error),
    }
}

fn unknown(client: &ServiceClient, id: &BuildId, refusal: Refusal) -> Error {
    Error::new(ErrorKind::NotFound, format!("`{}` knows no build `{id}`", client.server()))
        .with_source(refusal.into_error("it was asked for in both forms"))
}

/// The error of a build that ended without an image, in the service's words.
async fn failed(api: &RuntimeApi, build: &RemoteBuild, status: RemoteStatus, job: &Job) -> Error {
    let (client, limit, id) = (api.client(), api.config().log_timeout, &build.id);
    let why =
        status.error.unwrap_or_else(|| format!("Build failed with status: {}. Build ID: {id}", status.word));
    let what = match build.targets.first() {
        Some(target) => format!("the build of `{target}`"),
        None => format!("the build `{id}`"),
    };
    let how = if status.state == RemoteState::Cancelled { "was cancelled" } else { "failed" };
    let message = format!("{what} {how} on `{}`", client.server());
    Error::new(ErrorKind::BuildFailed, message)
        .with_source(why)
        .with_detail("status", status.word)
        .with_log_tail(logs::tail(client, id, limit, job).await)
        .with_end(status.state)
}

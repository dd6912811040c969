//! Sending a build: which attempts, and when none may follow.

use reqwest::{Response, StatusCode};
use windlass_core::backend::Job;
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::events::Step;
use windlass_core::http::{Attempts, Failure, RetryPolicy};
use windlass_core::remote::BuildId;
use windlass_core::service::{Payload, Refusal, SendLimits, Sent, boundary};

use crate::backend::ImageBuilder;
use crate::config::Upload;
use crate::status;
use crate::wire::{BuildAnswer, BuildForm};

/// Sends a build until the service takes it, it must not be repeated, or there is no use.
///
/// A service that says no has taken nothing, so it is asked again where that may help. One that says
/// nothing once it has everything may be building: that is never sent again.
///
/// # Errors
/// What the service refuses. Where it may have taken the build all the same the kind is neither
/// `Unavailable` nor `Denied`.
pub(crate) async fn submit(
    builder: &ImageBuilder,
    payload: Payload,
    form: &BuildForm<'_>,
    job: &Job,
) -> Result<BuildId> {
    let step = job.events.step(format!("sending the build to {}", builder.client().server()));
    let id = send(builder, payload, form, &step, job).await;
    step.end(id)
}

async fn send(
    builder: &ImageBuilder,
    mut payload: Payload,
    form: &BuildForm<'_>,
    step: &Step,
    job: &Job,
) -> Result<BuildId> {
    let (client, config) = (builder.client(), builder.config());
    let limits = SendLimits { stall: config.stall_timeout, answer: config.answer_timeout };
    let mut spool = config.upload == Upload::Spool;
    let policy = RetryPolicy { time_limit: config.submit_timeout, ..config.retry() };
    let mut attempts = policy.attempts(format!("`{}`", client.server()), job);
    loop {
        if spool && payload.size_bytes().is_none() {
            let directory = builder.host().cache_dir.join("image-builder");
            let original = payload.clone();
            payload = job.blocking(move |job| original.spool(&directory, job)).await?;
        }
        let (url, frame) = (client.url(&["builds"], &[]), form.frame(&boundary()));
        let chunked = config.upload == Upload::Chunked;
        match client.send(url, &payload, &frame, chunked, limits, (step, job)).await? {
            Sent::Answered { response, .. } if response.status().is_success() => {
                return taken(builder, response, form.image_name, job).await;
            }
            Sent::Answered { response, complete } => {
                let refusal = job.run(async { Ok(client.refusal(response).await) }).await?;
                if refusal.status == StatusCode::LENGTH_REQUIRED && config.upload == Upload::Auto && !spool {
                    spool = true;
                    step.log(format!("{} wants to know the length before", client.server()));
                    continue;
                }
                let message = format!("could not build `{}`", form.image_name);
                // A front end says these when it has lost the service behind it, which may have everything.
                let lost = complete
                    && matches!(refusal.status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT);
                let next = again(builder, refusal, &message, &mut attempts, job).await;
                next.map_err(|error| match error.kind() {
                    ErrorKind::Unavailable if lost => may_be_taken(builder, form, error),
                    _ => error,
                })?;
            }
            Sent::Failed { failure, maybe_taken: false } => attempts.again(failure).await?,
            Sent::Failed { failure, maybe_taken: true } => {
                return Err(may_be_taken(builder, form, failure.into_error()));
            }
        }
    }
}

/// Waits for the next attempt after a refusal, where there may be one.
async fn again(
    builder: &ImageBuilder,
    refusal: Refusal,
    message: &str,
    attempts: &mut Attempts<'_>,
    job: &Job,
) -> Result<()> {
    if !refusal.may_pass() {
        return Err(refusal.into_error(message));
    }
    let config = builder.config();
    let asked = refusal.retry_after.map(|asked| asked.min(config.retry_after_limit));
    let longest = config.retry().longest_wait;
    // What the policy would not wait for by itself.
    let beyond = asked.map(|asked| asked.saturating_sub(longest)).unwrap_or_default();
    if !beyond.is_zero() {
        job.events.warn(format!("`{}` is busy and asks for patience", builder.client().server()));
        let sleep = async {
            tokio::time::sleep(beyond).await;
            Ok(())
        };
        job.run(sleep).await?;
    }
    let retry_after = asked.map(|asked| asked.min(longest));
    let error = refusal.into_error(message);
    attempts.again(Failure::Transient { error, retry_after, refused: false }).await
}

fn may_be_taken(builder: &ImageBuilder, form: &BuildForm<'_>, error: Error) -> Error {
    // No other backend shall build the same beside it.
    let kind =
        if error.kind() == ErrorKind::TimedOut { ErrorKind::TimedOut } else { ErrorKind::UnexpectedAnswer };
    let server = builder.client().server();
    let message = format!("`{server}` may or may not have taken the build of `{}`", form.image_name);
    Error::new(kind, message)
        .with_source(error)
        .with_hint("it is not sent again by itself: build again if the image does not appear")
}

/// Reads what the service said to an upload that it took.
async fn taken(builder: &ImageBuilder, response: Response, name: &str, job: &Job) -> Result<BuildId> {
    let client = builder.client();
    let lost = |error: Error| {
        let kind = match error.kind() {
            ErrorKind::Cancelled => ErrorKind::Cancelled,
            _ => ErrorKind::UnexpectedAnswer,
        };
        Error::new(kind, format!("the build of `{name}` was lost"))
            .with_source(error)
            .with_hint("the service took the upload: it may build, but it gave no id to come back to")
    };
    let body = client.last_body(response, job).await.map_err(lost)?;
    let answer: BuildAnswer = client.read(&body, "no document with a build id").map_err(lost)?;
    match answer.id() {
        Some(id) => Ok(BuildId::new(id)),
        None => {
            let message = format!("No build_id in response: {}", status::excerpt(client.key(), &body));
            Err(lost(Error::new(ErrorKind::UnexpectedAnswer, message)))
        }
    }
}

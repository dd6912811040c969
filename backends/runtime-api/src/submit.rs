//! Sending: which form, which attempts, and when none may follow.

use reqwest::{Response, StatusCode};
use windlass_core::backend::Job;
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::events::Step;
use windlass_core::http::{Attempts, Failure, RetryPolicy};
use windlass_core::remote::{BuildId, RemoteState};
use windlass_core::service::{Frame, Payload, Refusal, SendLimits, Sent, boundary};

use crate::backend::RuntimeApi;
use crate::calls;
use crate::config::{Encoding, Upload as How};
use crate::memory::Remembered;
use crate::wire::{self, BuildAnswer, CONTEXT_PART, FilePart, IMAGE_PART};

/// What is sent.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    pub(crate) payload: Payload,
    /// It is a build context, not a finished image.
    pub(crate) is_context: bool,
    /// The main name, as the service spells it.
    pub(crate) target: String,
    /// The other names.
    pub(crate) tags: Vec<String>,
}

/// What the service said to it.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It builds.
    Started(BuildId),
    /// It has built, and the image is called so.
    Finished(Option<String>),
}

/// Which forms may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) json: bool,
    /// A refusal of JSON is answered with the multipart form.
    pub(crate) may_change: bool,
}

/// Decides how a build context is sent.
///
/// # Errors
/// `Unsupported` for further tags where only JSON may be sent.
pub(crate) fn form(encoding: Encoding, json_tags: bool, tags: usize, known: Remembered) -> Result<Form> {
    let fits = tags == 0 || json_tags;
    match encoding {
        Encoding::Multipart => Ok(Form { json: false, may_change: false }),
        Encoding::Json if fits => Ok(Form { json: true, may_change: false }),
        Encoding::Json => {
            let message = "several tags cannot be sent as JSON: the protocol has no field for them";
            Err(Error::new(ErrorKind::Unsupported, message).with_hint(
                "set `encoding = \"multipart\"`, or `json-tags = true` if the service takes `tags`",
            ))
        }
        Encoding::Auto if !fits => Ok(Form { json: false, may_change: false }),
        Encoding::Auto => match known.takes_json {
            // What a service took once it may refuse after an update.
            Some(true) | None => Ok(Form { json: true, may_change: true }),
            Some(false) => Ok(Form { json: false, may_change: false }),
        },
    }
}

/// Sends an upload until the service takes it, it must not be repeated, or there is no use.
///
/// # Errors
/// What the service refuses. Where it may have taken the build all the same the kind is neither
/// `Unavailable` nor `Denied`.
pub(crate) async fn submit(api: &RuntimeApi, upload: Upload, job: &Job) -> Result<Taken> {
    let step = job.events.step(format!("sending the build to {}", api.client().server()));
    let taken = send(api, upload, &step, job).await;
    step.end(taken)
}

async fn send(api: &RuntimeApi, upload: Upload, step: &Step, job: &Job) -> Result<Taken> {
    let (client, config) = (api.client(), api.config());
    let mut known = api.memory().load();
    let is_context = upload.is_context;
    let mut form = match is_context {
        true => form(config.encoding, config.json_tags, upload.tags.len(), known)?,
        false => Form { json: false, may_change: false },
    };
    let mut tried_json = false;
    let mut spool = config.upload == How::Spool || (config.upload == How::Auto && known.wants_length);
    let mut payload = upload.payload.clone();
    let limits = SendLimits { stall: config.stall_timeout, answer: config.answer_timeout };
    let mut attempts = policy(api).attempts(format!("`{}`", client.server()), job);
    loop {
        if spool && payload.size_bytes().is_none() {
            let directory = api.host().cache_dir.join("runtime-api");
            let original = payload.clone();
            payload = job.blocking(move |job| original.spool(&directory, job)).await?;
        }
        let frame = frame(form, if is_context { CONTEXT_PART } else { IMAGE_PART }, &upload);
        let (url, chunked) = (client.url(&["build"], &[]), config.upload == How::Chunked);
        match client.send(url, &payload, &frame, chunked, limits, (step, job)).await? {
            Sent::Answered { response, .. } if response.status().is_success() => {
                if is_context && config.encoding == Encoding::Auto && (form.json || tried_json) {
                    known.takes_json = Some(form.json);
                }
                known.wants_length |= spool && config.upload == How::Auto;
                // What is not remembered costs an upload next time.
                let _ = api.memory().keep(known);
                return taken(api, response, &upload, job).await;
            }
            Sent::Answered { response, complete } => {
                let refusal = job.run(async { Ok(client.refusal(response).await) }).await?;
                if form.json && form.may_change && refuses_form(refusal.status) {
                    form = Form { json: false, may_change: false };
                    tried_json = true;
                    step.log(format!("{} takes no JSON: sending a multipart form", client.server()));
                } else if refusal.status == StatusCode::LENGTH_REQUIRED
                    && config.upload == How::Auto
                    && !spool
                {
                    spool = true;
                    step.log(format!("{} wants to know the length before", client.server()));
                } else {
                    again(api, refusal, complete, &upload.target, &mut attempts, job).await?;
                }
            }
            Sent::Failed { failure, maybe_taken: false } => attempts.again(failure).await?,
            Sent::Failed { failure, maybe_taken: true } => {
                let error = failure.into_error();
                repeat_if_absent(api, error, &upload.target, &mut attempts, job).await?;
            }
        }
    }
}

fn policy(api: &RuntimeApi) -> RetryPolicy {
    let config = api.config();
    RetryPolicy {
        retries: config.attempts - 1,
        retries_when_refused: RetryPolicy::default().retries_when_refused.min(config.attempts - 1),
        first_wait: config.retry_first_wait,
        longest_wait: config.retry_longest_wait.max(config.retry_first_wait),
        time_limit: config.submit_timeout,
    }
}

/// What a service answers that does not understand the form of an upload.
fn refuses_form(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE | StatusCode::UNPROCESSABLE_ENTITY
    )
}

fn frame(form: Form, part: FilePart, upload: &Upload) -> Frame {
    if form.json {
        return wire::json(&upload.target, &upload.tags);
    }
    wire::multipart(&boundary(), part, &upload.target, &upload.tags)
}

/// Waits for the next attempt after a refusal, where there may be one.
async fn again(
    api: &RuntimeApi,
    refusal: Refusal,
    complete: bool,
    target: &str,
    attempts: &mut Attempts<'_>,
    job: &Job,
) -> Result<()> {
    let message = format!("could not build `{target}`");
    // These say that the build was not taken. Without a word on when to come again, a front end may say them
    // that has lost the service behind it after that had everything.
    let not_taken = match refusal.status {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::REQUEST_TIMEOUT | StatusCode::SERVICE_UNAVAILABLE => {
            !complete || refusal.retry_after.is_some()
        }
        _ => false,
    };
    match refusal.status {
        _ if not_taken => {
            let asked = refusal.retry_after.map(|asked| asked.min(api.config().retry_after_limit));
            let longest = policy(api).longest_wait;
            // What the policy would not wait for by itself.
            let beyond = asked.map(|asked| asked.saturating_sub(longest)).unwrap_or_default();
            if !beyond.is_zero() {
                let (server, wait) = (api.client().server(), asked.unwrap_or_default().as_secs());
                job.events.warn(format!("`{server}` is busy, waiting for {wait} s as it asks"));
                job.run(async {
                    tokio::time::sleep(beyond).await;
                    Ok(())
                })
                .await?;
            }
            let retry_after = asked.map(|asked| asked.min(longest));
            let error = refusal.into_error(&message);
            attempts.again(Failure::Transient { error, retry_after, refused: false }).await
        }
        StatusCode::NOT_IMPLEMENTED => Err(refusal.into_error(&message)),
        status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
            let error = refusal.into_error(&message);
            repeat_if_absent(api, error, target, attempts, job).await
        }
        _ => Err(refusal.into_error(&message)),
    }
}

/// The service may have taken the build. Another attempt follows only if the user wants that, and the
/// service says that the image does not exist.
async fn repeat_if_absent(
    api: &RuntimeApi,
    error: Error,
    target: &str,
    attempts: &mut Attempts<'_>,
    job: &Job,
) -> Result<()> {
    if api.config().repeat_uploads && !calls::image_exists(api.client(), target, job).await? {
        return attempts.again(Failure::transient(error)).await;
    }
    // No other backend shall build the same beside it.
    let kind =
        if error.kind() == ErrorKind::TimedOut { ErrorKind::TimedOut } else { ErrorKind::UnexpectedAnswer };
    let message = format!("`{}` may or may not have taken the build of `{target}`", api.client().server());
    Err(Error::new(kind, message)
        .with_source(error)
        .with_hint("it is not sent again by itself: see whether the image appears, then build again")
        .with_hint("`repeat-uploads = true` lets windlass do so where the service says that the image does not exist"))
}

/// Reads what the service said to an upload that it took.
async fn taken(api: &RuntimeApi, response: Response, upload: &Upload, job: &Job) -> Result<Taken> {
    let client = api.client();
    let lost = |error: Error| {
        let hint = "the service took the upload: it may build, but it gave no id to come back to";
        let kind = if error.kind() == ErrorKind::Cancelled {
            ErrorKind::Cancelled
        } else {
            ErrorKind::UnexpectedAnswer
        };
        Error::new(kind, format!("the build of `{}` was lost", upload.target))
            .with_source(error)
            .with_hint(hint)
    };
    let body = client.last_body(response, job).await.map_err(lost)?;
    let answer: BuildAnswer = client.read(&body, "no document with a build id").map_err(lost)?;
    if let Some(id) = answer.id() {
        return Ok(Taken::Started(BuildId::new(id)));
    }
    match answer.status().as_deref().and_then(RemoteState::of_word) {
        Some(RemoteState::Succeeded) => Ok(Taken::Finished(answer.image())),
        // A word of its own, or none: there is an image.
        None if answer.image().is_some() => Ok(Taken::Finished(answer.image())),
        Some(RemoteState::Failed | RemoteState::Cancelled) => {
            let word = answer.status().unwrap_or_default();
            let why = answer.error().map(|text| client.key().hide(&text).into_owned());
            Err(Error::new(ErrorKind::BuildFailed, format!("the build of `{}` failed", upload.target))
                .with_source(why.unwrap_or_else(|| format!("Build failed with status: {word}"))))
        }
        _ => Err(lost(client.unexpected("no build id", &body))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_follows_the_setting_the_tags_and_the_memory() {
        let form = |encoding, json_tags, tags, takes_json| {
            let known = Remembered { takes_json, ..Remembered::default() };
            form(encoding, json_tags, tags, known).map(|form| (form.json, form.may_change)).ok()
        };
        for (encoding, json_tags, tags, takes_json, expected) in [
            (Encoding::Auto, false, 0, None, Some((true, true))),
            (Encoding::Auto, false, 0, Some(true), Some((true, true))),
            (Encoding::Auto, false, 0, Some(false), Some((false, false))),
            (Encoding::Auto, false, 1, Some(true), Some((false, false))),
            (Encoding::Auto, true, 1, None, Some((true, true))),
            (Encoding::Json, false, 0, Some(false), Some((true, false))),
            (Encoding::Json, false, 1, None, None),
            (Encoding::Json, true, 1, None, Some((true, false))),
            (Encoding::Multipart, false, 3, Some(true), Some((false, false))),
        ] {
            assert_eq!(
                form(encoding, json_tags, tags, takes_json),
                expected,
                "{encoding:?} {tags} {takes_json:?}"
            );
        }
    }
}

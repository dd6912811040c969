//! How a build is: the one place that is believed.

use std::time::Duration;

use reqwest::StatusCode;
use windlass_core::backend::Job;
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::http::Failure;
use windlass_core::remote::{BuildId, RemoteState, RemoteStatus};
use windlass_core::service::{Answer, Refusal, ServiceClient, ServiceKey};

use crate::wire::StatusAnswer;

/// Of a document that lacks something, so much is shown.
const EXCERPT_CHARACTERS: usize = 300;

/// What the service says of a build.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// What it comes to; `None` where the document has no status at all.
    pub(crate) state: Option<RemoteState>,
    /// The service's own word.
    pub(crate) word: String,
    /// The image.
    pub(crate) image_ref: Option<String>,
    /// Why it failed.
    pub(crate) error: Option<String>,
    /// The beginning of the document, for messages.
    pub(crate) document: String,
}

impl Seen {
    /// Says whether the build has ended.
    pub(crate) fn is_final(&self) -> bool {
        self.state.is_some_and(RemoteState::is_final)
    }

    /// Without the key, which is hidden before anything is cut: the half of a key is one too.
    fn of(answer: &StatusAnswer, body: &[u8], key: &ServiceKey) -> Self {
        let hidden = |text: &str| key.hide(text).into_owned();
        Self {
            // A word that nobody knows says that something is going on.
            state: answer.word().map(|word| RemoteState::of_word(word).unwrap_or(RemoteState::Running)),
            word: hidden(answer.word().unwrap_or_default()),
            image_ref: answer.image_ref().map(hidden),
            error: answer.error().as_deref().map(hidden),
            document: excerpt(key, body),
        }
    }
}

/// What one question came to.
pub(crate) enum Look {
    /// There is an answer.
    Seen(Seen),
    /// The service knows no such build, perhaps not yet.
    NotFound(Refusal),
    /// Something that may pass.
    Passing {
        /// What.
        error: Error,
        /// How long the service asked us to wait.
        retry_after: Option<Duration>,
    },
}

/// The beginning of a document, without the key.
pub(crate) fn excerpt(key: &ServiceKey, body: &[u8]) -> String {
    key.hide(&String::from_utf8_lossy(body)).chars().take(EXCERPT_CHARACTERS).collect()
}

/// Asks once.
///
/// # Errors
/// What no later answer will change; `Cancelled`.
pub(crate) async fn look(client: &ServiceClient, id: &BuildId, job: &Job) -> Result<Look> {
    let asked = job.run(async { Ok(client.ask(url(client, id)).await) }).await?;
    match asked {
        Ok(answer) => understand(client, id, answer),
        Err(Failure::Transient { error, retry_after, .. }) => Ok(Look::Passing { error, retry_after }),
        Err(Failure::Final(error)) if error.kind() == ErrorKind::UnexpectedAnswer => {
            Ok(Look::Passing { error, retry_after: None })
        }
        Err(Failure::Final(error)) => Err(error),
    }
}

/// Asks with the attempts of the configuration.
///
/// # Errors
/// As [`look`], and a service that is busy for longer than the attempts.
async fn ask(client: &ServiceClient, id: &BuildId, job: &Job) -> Result<Look> {
    let answer = client.ask_again(url(client, id), &message(id), job).await?;
    understand(client, id, answer)
}

/// How a build is, for who asks once.
///
/// # Errors
/// `NotFound` if the service does not know it; what else it says.
pub(crate) async fn status(client: &ServiceClient, id: &BuildId, job: &Job) -> Result<RemoteStatus> {
    match ask(client, id, job).await? {
        Look::Seen(Seen { state, word, image_ref, error, .. }) => {
            Ok(RemoteStatus { state: state.unwrap_or(RemoteState::Running), word, image: image_ref, error })
        }
        Look::NotFound(refusal) => Err(unknown(client, id, refusal)),
        Look::Passing { error, .. } => Err(error),
    }
}

/// The error of a build that the service does not know.
pub(crate) fn unknown(client: &ServiceClient, id: &BuildId, refusal: Refusal) -> Error {
    Error::new(ErrorKind::NotFound, format!("`{}` knows no build `{id}`", client.server()))
        .with_source(refusal.in_words())
}

fn url(client: &ServiceClient, id: &BuildId) -> reqwest::Url {
    client.url(&["builds", id.as_str()], &[])
}

fn message(id: &BuildId) -> String {
    format!("could not ask how the build `{id}` is")
}

fn understand(client: &ServiceClient, id: &BuildId, answer: Answer) -> Result<Look> {
    match answer {
        Ok(body) => Ok(match client.read::<StatusAnswer>(&body, "no status of a build") {
            Ok(answer) => Look::Seen(Seen::of(&answer, &body, client.key())),
            Err(error) => Look::Passing { error, retry_after: None },
        }),
        Err(refusal) if refusal.status == StatusCode::NOT_FOUND => Ok(Look::NotFound(refusal)),
        Err(refusal) if refusal.may_pass() => {
            let retry_after = refusal.retry_after;
            Ok(Look::Passing { error: refusal.into_error(&message(id)), retry_after })
        }
        Err(refusal) => Err(refusal.into_error(&message(id))),
    }
}

//! Builds that outlive the client: they run elsewhere, have an id, and can be come back to.
//!
//! A backend whose builds are of this kind gives its [`RemoteBuilds`] from
//! [`Backend::remote`](crate::backend::Backend::remote). Its `build` is submit followed by attach; the
//! pipeline calls the two itself, so that the build is in the [`ledger`](crate::ledger) between them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::backend::{Job, PlannedAction};
use crate::image::{Descriptor, ImageStore};
use crate::reference::Reference;
use crate::request::{BuildRequest, BuiltImage};

/// What a backend of remote builds offers beside `build`.
///
/// No method has a default body, as in [`Backend`](crate::backend::Backend).
#[async_trait]
pub trait RemoteBuilds: Send + Sync {
    /// The service, as it stands in the ledger: its address without any credential. A build is come
    /// back to only where this is what it was.
    fn server(&self) -> &str;

    /// Says whether a build ends when the user stops the client: then the pipeline calls
    /// [`RemoteBuilds::cancel`]. Otherwise it goes on, and the user is told.
    fn stops_with_client(&self) -> bool;

    /// Sends a build and returns as soon as the service has taken it.
    ///
    /// # Errors
    /// What the service refuses. An error after which it may have taken the build all the same is
    /// neither `Unavailable` nor `Denied`, so that no other backend builds the same beside it.
    async fn submit(&self, request: &BuildRequest, job: &Job) -> Result<Submitted>;

    /// Sends a finished image, for the service to take it as if it had built it.
    ///
    /// # Errors
    /// `Unsupported` where the service takes none; else as [`RemoteBuilds::submit`].
    async fn upload(&self, image: &ImageUpload, job: &Job) -> Result<Submitted>;

    /// Says what images of these names are called in the service's own registry, for those who push there
    /// themselves. The service finds them by these names.
    ///
    /// # Errors
    /// `Unsupported` where images get into that registry by builds alone.
    async fn registry_names(&self, names: &[Reference], job: &Job) -> Result<Vec<Reference>>;

    /// The calls that [`Backend::find`](crate::backend::Backend::find) makes to ask for an image, as they are
    /// sent, in order. Asks nobody.
    ///
    /// # Errors
    /// `InvalidInput` for a reference that cannot be asked for.
    fn planned_find(&self, reference: &Reference) -> Result<Vec<PlannedAction>>;

    /// Asks once how a build is.
    ///
    /// # Errors
    /// `NotFound` if the service does not know it.
    async fn status(&self, build: &RemoteBuild, job: &Job) -> Result<RemoteStatus>;

    /// Follows a build to its end. Stopping the job stops the following, not the build.
    ///
    /// # Errors
    /// `BuildFailed` with what the service says; `TimedOut` at the backend's own limit.
    async fn attach(&self, build: &RemoteBuild, job: &Job) -> Result<BuiltImage>;

    /// Passes on the log lines that the service has: one, or several that came together, with `\n` between
    /// them and none at the end. Lost logs are an error here and nowhere else.
    ///
    /// # Errors
    /// `NotFound` where the service keeps none.
    async fn logs(
        &self,
        build: &RemoteBuild,
        line: &mut (dyn for<'a> FnMut(&'a str) + Send),
        job: &Job,
    ) -> Result<()>;

    /// Stops a build.
    ///
    /// # Errors
    /// `Unsupported` where the service has no way to; `NotFound` if it does not know the build any more.
    /// Where the build has ended in another way, the error says in which ([`Error::end`]).
    ///
    /// [`Error::end`]: crate::Error::end
    async fn cancel(&self, build: &RemoteBuild, job: &Job) -> Result<()>;
}

/// What a service calls a build.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BuildId(String);

impl BuildId {
    /// Takes the id as the service spells it.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id as the service spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that is needed to come back to a build. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteBuild {
    /// Its id.
    pub id: BuildId,
    /// What the image will be called as the service spells it, the main name first. Empty where that is
    /// not known, as of a build that somebody else submitted.
    pub targets: Vec<String>,
    /// When it was submitted, where that is known: a service may not know a young build yet. In the ledger
    /// it stands beside.
    #[serde(skip)]
    pub submitted_at: Option<Timestamp>,
}

impl RemoteBuild {
    /// How long ago it was submitted, zero where the clock went back meanwhile; `None` if that is not known.
    pub fn age(&self) -> Option<Duration> {
        let age = Timestamp::now().duration_since(self.submitted_at?);
        Some(Duration::try_from(age).unwrap_or_default())
    }
}

/// What a service said to a build that was sent to it.
#[derive(Clone, Debug)]
pub enum Submitted {
    /// It was taken and runs.
    Started(RemoteBuild),
    /// The service answered only when it was done.
    Finished(Box<BuiltImage>),
}

/// A finished image that is sent to a service.
#[derive(Clone, Debug)]
pub struct ImageUpload {
    /// Where it is.
    pub source: UploadSource,
    /// What it shall be called, the main name first. Never empty.
    pub names: Vec<Reference>,
}

/// Where the image of an [`ImageUpload`] is.
#[derive(Clone, Debug)]
pub enum UploadSource {
    /// In an image store, for one platform, with all its layers.
    Store(ImageStore, Box<Descriptor>),
    /// In a file that `docker save` wrote, as it is: plain.
    Archive(PathBuf),
}

/// How a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemoteState {
    /// It has not begun.
    Waiting,
    /// It is under way, or nothing more is known.
    Running,
    /// It is done and the image exists.
    Succeeded,
    /// It ended without an image.
    Failed,
    /// It was stopped.
    Cancelled,
}

impl RemoteState {
    /// What a service's word stands for; `None` for one that nobody knows. Services write them in upper
    /// case (the words of Google's Cloud Build) or in lower case with other words.
    pub fn of_word(word: &str) -> Option<Self> {
        Some(match word.trim().to_ascii_uppercase().as_str() {
            "PENDING" | "QUEUED" | "STATUS_UNKNOWN" => Self::Waiting,
            "RUNNING" | "IN_PROGRESS" | "WORKING" => Self::Running,
            "SUCCESS" | "COMPLETED" | "SUCCEEDED" | "DONE" => Self::Succeeded,
            "FAILURE" | "INTERNAL_ERROR" | "TIMEOUT" | "EXPIRED" | "FAILED" | "ERROR" => Self::Failed,
            "CANCELLED" | "CANCELED" => Self::Cancelled,
            _ => return None,
        })
    }

    /// Says whether it will not change any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// Its name: `waiting`, `running`, `succeeded`, `failed`, `cancelled`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// What became of a build in this state, for messages: `has succeeded`, `was cancelled`, `is running`.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Waiting => "is waiting",
            Self::Running => "is running",
            Self::Succeeded => "has succeeded",
            Self::Failed => "has failed",
            Self::Cancelled => "was cancelled",
        }
    }
}

/// What a service says of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RemoteStatus {
    /// What it comes to.
    pub state: RemoteState,
    /// The service's own word.
    pub word: String,
    /// The image, once it exists.
    pub image: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_words_are_known_in_both_cases() {
        for (words, expected) in [
            ("PENDING QUEUED STATUS_UNKNOWN pending", RemoteState::Waiting),
            ("RUNNING IN_PROGRESS WORKING running", RemoteState::Running),
            ("SUCCESS completed succeeded done Success", RemoteState::Succeeded),
            ("FAILURE INTERNAL_ERROR TIMEOUT EXPIRED failed error", RemoteState::Failed),
            ("CANCELLED CANCELED cancelled", RemoteState::Cancelled),
        ] {
            for word in words.split(' ') {
                assert_eq!(RemoteState::of_word(word), Some(expected), "{word}");
            }
        }
        assert_eq!((RemoteState::of_word(""), RemoteState::of_word("BREWING")), (None, None));
    }
}

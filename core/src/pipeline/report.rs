//! What a build gave, and what it would do.

use serde::Serialize;

use crate::backend::{Backend, FoundImage, PlannedAction};
use crate::dockerfile::PlannedStage;
use crate::error::Error;
use crate::fingerprint::Change;
use crate::reference::Reference;
use crate::request::BuiltImage;

/// What a build gave, and how it came about.
#[derive(Clone, Debug, Serialize)]
pub struct BuildReport {
    /// The image.
    #[serde(flatten)]
    pub image: BuiltImage,
    /// The tag form of the fingerprint; `None` where nobody needed one.
    pub fingerprint: Option<String>,
    /// The backends of the list that were unavailable, and why.
    pub passed_over: Vec<PassedOver>,
    /// Which inputs changed since the last build of this context, where that was asked for and
    /// there was one.
    pub changes: Option<Vec<Change>>,
}

/// A backend of the list that was not there.
#[derive(Clone, Debug, Serialize)]
pub struct PassedOver {
    /// Its name.
    pub backend: String,
    /// Why it was unavailable.
    pub reason: String,
}

impl PassedOver {
    pub(super) fn of(backend: &dyn Backend, error: &Error) -> Self {
        Self { backend: backend.name().to_owned(), reason: error.to_string() }
    }
}

/// What a build would do.
#[derive(Clone, Debug, Serialize)]
pub struct BuildPlan {
    /// The backend that would build.
    pub backend: String,
    /// The backends of the list that are unavailable, and why.
    pub passed_over: Vec<PassedOver>,
    /// The references the image would get.
    pub references: Vec<Reference>,
    /// The tag form of the fingerprint; `None` where nobody needs one.
    pub fingerprint: Option<String>,
    /// An image of this fingerprint that would be taken instead of a build.
    pub found: Option<FoundImage>,
    /// Whether it was looked for: a plan asks no service.
    pub looked_for: bool,
    /// The stages of the Dockerfile, and which of them the target needs.
    pub stages: Vec<PlannedStage>,
    /// What the context holds.
    pub context: ContextSummary,
    /// What the backend would do, in order.
    pub actions: Vec<PlannedAction>,
}

/// What a context holds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ContextSummary {
    /// The number of files, links and directories.
    pub entries: usize,
    /// The size of all files together, in bytes.
    pub size_bytes: u64,
}

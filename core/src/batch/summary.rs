//! What became of a batch as a whole.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::manifest::{Record, Status};
use crate::error::{ErrorKind, Result, ResultExt};
use crate::written_file;

/// The name of the file.
const NAME: &str = "build-summary.json";

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How many images the list asks for.
    pub total: usize,
    /// How many were built.
    pub built: usize,
    /// How many were there already.
    pub skipped: usize,
    /// How many could not be built.
    pub failed: usize,
    /// How many an earlier run had finished.
    pub finished_before: usize,
    /// How many were not begun, or not ended, because the batch was stopped.
    pub not_finished: usize,
    /// Why the batch was stopped, where it was.
    pub stopped: Option<String>,
    /// The user stopped it.
    pub cancelled: bool,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// How long it took, in seconds.
    pub duration_seconds: f64,
    /// That, for each image that was built.
    pub seconds_per_built_image: Option<f64>,
    /// The images that could not be built, and why.
    pub failures: Vec<FailedImage>,
    /// The records of all images.
    pub manifest: PathBuf,
}

/// An image that could not be built.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FailedImage {
    /// What it is called in the list.
    pub name: String,
    /// The references that it would have.
    pub tags: Vec<String>,
    /// Why.
    pub error: String,
    /// Its log.
    pub log_path: Option<PathBuf>,
}

impl Summary {
    /// The summary of a batch in which nothing has happened yet.
    pub(super) fn begin(total: usize, finished_before: usize, manifest: &Path, now: Timestamp) -> Self {
        Self {
            total,
            built: 0,
            skipped: 0,
            failed: 0,
            finished_before,
            not_finished: total - finished_before,
            stopped: None,
            cancelled: false,
            started_at: now,
            finished_at: now,
            duration_seconds: 0.0,
            seconds_per_built_image: None,
            failures: Vec::new(),
            manifest: manifest.to_owned(),
        }
    }

    /// Counts an image.
    pub(super) fn add(&mut self, record: &Record) {
        self.not_finished -= 1;
        match record.status {
            Status::Built => self.built += 1,
            Status::SkippedRemoteExists => self.skipped += 1,
            Status::Failed => {
                self.failed += 1;
                self.failures.push(FailedImage {
                    name: record.name.clone(),
                    tags: record.tags.clone(),
                    error: record.error.clone().unwrap_or_default(),
                    log_path: record.log_path.clone(),
                });
            }
        }
    }

    /// The batch has ended.
    pub(super) fn end(&mut self, now: Timestamp) {
        self.finished_at = now;
        self.duration_seconds = now.duration_since(self.started_at).as_secs_f64();
        if self.built > 0 {
            self.seconds_per_built_image = Some(self.duration_seconds / self.built as f64);
        }
    }

    /// Writes it to a directory. Blocking.
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .or_error(ErrorKind::Corrupt, || "the summary cannot be written as JSON")?;
        written_file::write(&directory.join(NAME), (text + "\n").as_bytes())
    }

    /// Whether every image of the list is there.
    pub fn is_good(&self) -> bool {
        self.failed == 0 && self.not_finished == 0
    }
}

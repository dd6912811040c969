//! What happens to a batch, as records.

use serde::Serialize;

use super::manifest::Record;

/// Something that happened to a batch.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum BatchEvent<'a> {
    /// It began.
    Began {
        /// How many images the list asks for.
        total: usize,
        /// How many an earlier run has finished.
        finished_before: usize,
    },
    /// An image was begun.
    Started {
        /// Which.
        name: &'a str,
    },
    /// A step of an image was begun.
    Step {
        /// Of which.
        name: &'a str,
        /// What it does.
        step: &'a str,
    },
    /// Something that the user should know.
    Warned {
        /// About which image.
        name: &'a str,
        /// What.
        message: &'a str,
    },
    /// An image failed, and is tried again.
    Retrying {
        /// Which.
        name: &'a str,
        /// The number of the next attempt, from 2.
        attempt: u32,
        /// How long before.
        wait_seconds: f64,
        /// Why it failed.
        error: &'a str,
    },
    /// An image ended, and its record is on disk.
    Finished {
        /// What became of it.
        record: &'a Record,
    },
    /// Nothing more is begun.
    Stopped {
        /// Why.
        reason: &'a str,
    },
    /// Nothing ended for a while.
    StillRunning {
        /// What is under way.
        names: Vec<&'a str>,
    },
}

/// Takes the events of a batch.
pub trait BatchSink: Send + Sync {
    /// Takes one event.
    fn emit(&self, event: BatchEvent<'_>);
}

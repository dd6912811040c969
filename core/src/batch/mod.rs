//! Hundreds of images in one go: a list is read and checked as a whole, then built so many at a time.
//!
//! In reading order: [`List`] is what is asked for, from TOML, JSON lines or a Bake file; each [`Entry`] is one
//! image; [`run`] builds them, and records in the [`Manifest`] what became of each as soon as it is known, so
//! that a batch that was stopped, or killed, goes on where it was. This module knows no backend: images are
//! built by the pipeline.

mod bake;
mod builder;
mod check;
mod disk;
mod draft;
mod entry;
mod event;
mod fields;
mod image_log;
mod list;
mod loader;
mod located;
mod manifest;
mod problems;
mod run;
mod schedule;
mod summary;

pub use builder::{Built, ImageBuilder, PipelineBuilder};
pub use check::{check, check_backend};
pub use disk::DiskGuard;
pub use entry::{Entry, Work};
pub use event::{BatchEvent, BatchSink};
pub use list::{List, ListOptions};
pub use manifest::{Manifest, Record, Status};
pub use run::{BatchOptions, run};
pub use summary::{FailedImage, Summary};

//! WORKDIR

use std::sync::Arc;

use windlass_core::backend::Job;
use windlass_core::error::Result;

use crate::change::{Change, Touched};
use crate::copy::{Placer, Settings};
use crate::owner::Owner;
use crate::stage::Stage;
use crate::workshop::Workshop;

/// Sets the working directory, and makes it where it is missing. The directories that are made belong
/// to `owner`, the USER of the stage. There is a layer for it, as BuildKit has one, even if it is empty.
pub(crate) fn apply(
    stage: &mut Stage,
    path: &str,
    owner: Option<Owner>,
    workshop: &Workshop,
    job: &Job,
) -> Result<Option<Change>> {
    let path = absolute(&stage.config.config.working_dir, path);
    stage.config.config.working_dir.clone_from(&path);
    let created_by = format!("WORKDIR {path}");
    if path == "/" {
        stage.record(created_by);
        return Ok(None);
    }
    let mut tree = stage.tree.take().expect("it was read before");
    let root = Arc::make_mut(&mut tree);
    let mut touched = Touched::default();
    let settings = Settings::for_directories(owner, workshop.epoch());
    let place = root.resolve(path.trim_start_matches('/').as_bytes())?;
    Placer::new(root, &mut touched, &workshop.sources, &settings, job).make_directories(&place)?;
    Ok(Some(Change { tree, touched, created_by, whole: true }))
}

/// Joins a path to the directory so far, and cleans it.
pub(crate) fn absolute(current: &str, path: &str) -> String {
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("{current}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

//! Bringing a finished image to its outputs: the store, registries, files.

use std::path::PathBuf;

use windlass_core::backend::Job;
use windlass_core::error::{Error, Result};
use windlass_core::image::{self, Descriptor};
use windlass_core::output::{Output, OutputKind};
use windlass_core::request::BuildRequest;

use crate::base::Bases;
use crate::outputs;

/// Brings the image to all outputs, one after the other, and returns the files and directories that
/// were written.
///
/// # Errors
/// What the outputs meet. Those that were served before keep the image.
pub(crate) async fn all(
    bases: &Bases,
    request: &BuildRequest,
    image: &Descriptor,
    job: &Job,
) -> Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    for output in &request.outputs {
        written.extend(one(bases, request, output, image, job).await?);
    }
    Ok(written)
}

async fn one(
    bases: &Bases,
    request: &BuildRequest,
    output: &Output,
    image: &Descriptor,
    job: &Job,
) -> Result<Option<PathBuf>> {
    let names = outputs::names(output, request)?;
    match output.kind {
        OutputKind::CacheOnly => return Ok(None),
        OutputKind::Image | OutputKind::Registry => {
            if output.kind == OutputKind::Image {
                // A name in the store means that all of the image is there.
                image::fetch_missing(&bases.client, &bases.store, image, job).await?;
                names.iter().try_for_each(|name| bases.store.tag(name, image))?;
            }
            if output.pushes() {
                job.run(image::push(&bases.client, &bases.store, image, &names, job)).await?;
            }
        }
        _ => {
            let message = format!("the backend `oci` cannot do `--output {output}`");
            return Err(Error::unsupported(output.feature(), message));
        }
    }
    Ok(None)
}

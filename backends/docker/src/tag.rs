//! Further references for an image that is in a registry already, without downloading it.

use std::time::Duration;

use windlass_core::Result;
use windlass_core::backend::{FoundImage, Job};
use windlass_core::error::Error;
use windlass_core::reference::Reference;
use windlass_core::registry::RegistryClient;

use crate::error::from_text;
use crate::program::Buildx;

/// How long moving layers from one repository to another may take.
const COPY_WITHIN: Duration = Duration::from_secs(6 * 60 * 60);

/// Tags within the repository by putting the manifest again; beyond it with `docker buildx
/// imagetools`, which moves the layers from registry to registry.
///
/// # Errors
/// As the registry says; `Unavailable` for another repository where buildx is missing.
pub(crate) async fn in_registry(
    client: &RegistryClient,
    buildx: Result<Buildx>,
    image: &FoundImage,
    references: &[Reference],
    job: &Job,
) -> Result<()> {
    let (near, far): (Vec<_>, Vec<_>) =
        references.iter().partition(|reference| reference.name() == image.reference.name());
    if !near.is_empty() {
        let (descriptor, bytes) = client.manifest(&image.reference, job).await?;
        for reference in near {
            client.push_manifest(reference, &descriptor.media_type, &bytes, job).await?;
        }
    }
    if far.is_empty() {
        return Ok(());
    }
    let source = match image.digest {
        Some(digest) => image.reference.with_digest(digest).to_string(),
        None => image.reference.to_string(),
    };
    copy(&buildx?, &source, &far, job).await
}

async fn copy(buildx: &Buildx, source: &str, references: &[&Reference], job: &Job) -> Result<()> {
    let tags: Vec<String> = references.iter().map(|reference| format!("--tag={reference}")).collect();
    let mut arguments = vec!["buildx", "imagetools", "create"];
    arguments.extend(tags.iter().map(String::as_str));
    arguments.push(source);
    let answer = buildx.program.call(&arguments, COPY_WITHIN, job).await?;
    if answer.success {
        return Ok(());
    }
    let error: Error = from_text(format!("could not tag `{source}` in another repository"), &answer.stderr);
    Err(error)
}

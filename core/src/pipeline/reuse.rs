//! Taking an image that exists instead of building one.

use super::{PipelineOptions, Reuse, Wanted};
use crate::Result;
use crate::backend::{Backend, FindScope, FoundImage, Job};
use crate::dockerfile;
use crate::error::ErrorKind;
use crate::output::OutputKind;
use crate::reference::Reference;
use crate::request::{BuildRequest, BuiltImage, NamedContext};

/// Says whether the outputs are all places where an image can be found by its name.
pub(super) fn is_findable(request: &BuildRequest) -> bool {
    let findable = |kind| matches!(kind, OutputKind::Image | OutputKind::Registry);
    request.outputs.iter().all(|output| findable(output.kind) || output.loads())
}

/// Says whether all files of a request are in the listing that everybody shares. Named contexts have
/// listings of their own.
pub(super) fn is_listed_once(request: &BuildRequest) -> bool {
    let fixed = |context: &NamedContext| match context {
        NamedContext::Directory(_) | NamedContext::OciLayout { digest: None, .. } => false,
        NamedContext::Image(_) | NamedContext::OciLayout { .. } | NamedContext::Other(_) => true,
    };
    request.build_contexts.values().all(fixed)
}

/// Says whether an image that exists may be taken. What comes from an address or a branch may be
/// other content today, which only who asked for reuse accepts.
pub(super) fn may_reuse(request: &BuildRequest, options: &PipelineOptions) -> bool {
    // A Dockerfile that this reader refuses is the backend's to refuse, in its own words.
    let pinned = || dockerfile::unpinned_sources(request).unwrap_or_default().is_empty();
    !request.no_cache
        && match options.reuse {
            Reuse::Never => false,
            Reuse::Always => true,
            Reuse::WhenUntagged => pinned(),
        }
}

/// Takes an image of this fingerprint, if there is one where the outputs want it to be. One that cannot get
/// its further references is none: it is built with them.
pub(super) async fn find(
    backend: &dyn Backend,
    wanted: &Wanted,
    options: &PipelineOptions,
    job: &Job,
) -> Result<Option<BuiltImage>> {
    match &wanted.fingerprint_reference {
        Some(reference) if is_findable(&wanted.request) && may_reuse(&wanted.request, options) => {
            let scope = if wanted.request.pushes() { FindScope::Registry } else { FindScope::Store };
            if backend.capabilities().finds_nothing {
                // It says for itself what that means, where it means something.
                job.run(backend.find(reference, scope, job)).await?;
                return Ok(None);
            }
            let step = job.events.step(format!("looking for {}", reference.familiar()));
            let found = job.run(backend.find(reference, scope, job)).await;
            match &found {
                Ok(Some(_)) => step.cached(),
                Ok(None) => step.done(),
                Err(error) => step.failed(error),
            }
            match found? {
                Some(found) => take(backend, reference, found, wanted, job).await,
                None => Ok(None),
            }
        }
        _ => Ok(None),
    }
}

/// Gives a found image the references that a built one would have got; `None` where the backend has no way
/// to.
async fn take(
    backend: &dyn Backend,
    asked: &Reference,
    found: FoundImage,
    wanted: &Wanted,
    job: &Job,
) -> Result<Option<BuiltImage>> {
    let mut references = wanted.request.tags.clone();
    let missing: Vec<Reference> =
        references.iter().filter(|reference| *reference != asked).cloned().collect();
    // A service may spell it otherwise than we asked for it.
    references.iter_mut().filter(|reference| *reference == asked).for_each(|reference| {
        reference.clone_from(&found.reference);
    });
    if !missing.is_empty() {
        match backend.tag(&found, &missing, job).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                job.events.warn(format!("{error}: it is built again"));
                return Ok(None);
            }
            tagged => tagged?,
        }
    }
    Ok(Some(BuiltImage::found(found, references, backend.name())))
}

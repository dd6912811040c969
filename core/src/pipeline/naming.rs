//! What an image is called: by the user, by an output, or by windlass.

use std::collections::BTreeSet;

use crate::Result;
use crate::error::{Error, ErrorKind};
use crate::output::{Output, OutputKind};
use crate::reference::Reference;
use crate::request::BuildRequest;

/// The registry part of references that windlass chooses itself: never pulled, never pushed.
const LOCAL_REGISTRY: &str = "localhost";

/// Only an image that stays in a store or a registry can be found there again. One that its output
/// names is not windlass's to name.
pub(super) fn keeps_image(request: &BuildRequest) -> bool {
    let keeps = |output: &&Output| output.kind == OutputKind::Image || output.loads();
    request.outputs.iter().filter(keeps).any(|output| !output.attributes.contains_key("name"))
}

/// `-o type=image,name=REF` means what `-t REF` means, where all outputs that can have a name have
/// this one. Tags win over `name=` in buildx, so there is nothing to do where there are tags.
pub(super) fn named_by_outputs(mut request: BuildRequest) -> Result<BuildRequest> {
    let can = |output: &&Output| {
        !matches!(output.kind, OutputKind::Tar | OutputKind::Local | OutputKind::CacheOnly)
    };
    let names: BTreeSet<_> = request.outputs.iter().filter(can).map(|o| o.attributes.get("name")).collect();
    let [Some(names)] = names.into_iter().collect::<Vec<_>>()[..] else { return Ok(request) };
    if request.tags.is_empty() {
        request.tags = names.split(',').map(|name| name.trim().parse()).collect::<Result<_>>()?;
        request.outputs.iter_mut().for_each(|output| drop(output.attributes.remove("name")));
    }
    Ok(request)
}

pub(super) fn check_outputs(request: &BuildRequest) -> Result<()> {
    let named = |name: &str| request.outputs.iter().any(|output| output.attributes.contains_key(name));
    if request.pushes() && request.tags.is_empty() && !named("name") {
        return Err(Error::new(ErrorKind::InvalidInput, "nothing says where to push the image")
            .with_hint("name it: `--tag registry/repository:tag`"));
    }
    Ok(())
}

/// `localhost/<name of the context directory>`, in the letters that a repository may have.
pub(super) fn local_repository(request: &BuildRequest) -> Result<Reference> {
    let name = request.context.root().and_then(|root| root.file_name()).unwrap_or_default();
    let lower = name.to_string_lossy().to_ascii_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let slug = words.collect::<Vec<_>>().join("-");
    let slug = if slug.is_empty() { "image" } else { &slug[..slug.len().min(100)] };
    format!("{LOCAL_REGISTRY}/{}", slug.trim_end_matches('-')).parse()
}

//! The result of a build, out of the metadata that buildx writes.

use serde_json::{Map, Value};
use windlass_core::digest::Digest;
use windlass_core::platform::Platform;
use windlass_core::request::{BuildRequest, BuiltImage};

use crate::buildx::Built;

/// Makes the result of a build.
pub(crate) fn from_metadata(built: Built, request: &BuildRequest, backend: &str) -> BuiltImage {
    let metadata = built.metadata;
    let image_id = digest(&metadata, "containerimage.config.digest");
    // The engine's default image store keeps no manifests: there buildx puts the image id into the
    // place of the digest, until the image is pushed.
    let manifest = digest(&metadata, "containerimage.digest").filter(|manifest| image_id != Some(*manifest));
    let made = manifest.is_some() || image_id.is_some();
    BuiltImage {
        references: if made { request.tags.clone() } else { Vec::new() },
        digest: manifest,
        image_id,
        platforms: platforms(&metadata, request),
        backend: backend.to_owned(),
        reused: false,
        written: built.written,
        metadata,
    }
}

fn digest(metadata: &Map<String, Value>, key: &str) -> Option<Digest> {
    metadata.get(key)?.as_str()?.parse().ok()
}

/// What was asked for; else what the descriptor says; else this machine's, as BuildKit defaults to.
fn platforms(metadata: &Map<String, Value>, request: &BuildRequest) -> Vec<Platform> {
    if !request.platforms.is_empty() {
        return request.platforms.clone();
    }
    let described = metadata.get("containerimage.descriptor").and_then(|descriptor| {
        let platform = descriptor.get("platform")?;
        let field = |name: &str| platform.get(name).and_then(Value::as_str);
        Some(Platform::from_parts(field("os")?, field("architecture")?, field("variant")))
    });
    vec![described.unwrap_or_else(Platform::host)]
}

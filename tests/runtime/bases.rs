//! Base images that are made byte by byte, without windlass and without an engine, in no time.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use libtest_mimic::Failed;
use serde_json::json;

use crate::registry::{MANIFEST, Registry, digest_of};

/// So much of each layer cannot be compressed.
const NOISE_BYTES: usize = 32 << 10;

/// A base image in a registry.
#[derive(Debug)]
pub(crate) struct Base {
    /// Without the address of the registry: `…/base-7:1`.
    pub(crate) reference: String,
    /// The digest of its only layer.
    pub(crate) layer: String,
    /// The size of its manifest.
    pub(crate) manifest_bytes: u64,
}

/// Makes a base image that differs from all others and puts it there. Nothing in it can run.
pub(crate) fn make(registry: &Registry, repository: &str, number: usize) -> Result<Base, Failed> {
    put(registry, repository, number, &layer_of(number, &[])?)
}

/// The same with what `RUN ["rm", …]` needs.
pub(crate) fn make_with_rm(registry: &Registry, repository: &str, number: usize) -> Result<Base, Failed> {
    let rm = std::fs::read("/bin/busybox")?;
    let users = b"root:x:0:0:root:/root:/bin/sh\n".to_vec();
    let more = [("bin/rm", rm), ("etc/passwd", users), ("etc/group", b"root:x:0:\n".to_vec())];
    put(registry, repository, number, &layer_of(number, &more)?)
}

fn put(registry: &Registry, repository: &str, number: usize, tar: &[u8]) -> Result<Base, Failed> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(tar)?;
    let layer = packed.finish()?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Env": [format!("BASE={number}")], "Labels": { "base": number.to_string() } },
        "rootfs": { "type": "layers", "diff_ids": [digest_of(tar)] },
        "history": [{ "created_by": "a test" }],
    })
    .to_string();
    let (layer_digest, config_digest) =
        (registry.put_blob(repository, &layer)?, registry.put_blob(repository, config.as_bytes())?);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config_digest,
            "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": layer_digest,
            "size": layer.len(),
        }],
    });
    registry.put_manifest(repository, "1", &manifest)?;
    Ok(Base {
        reference: format!("{repository}:1"),
        layer: layer_digest,
        manifest_bytes: manifest.to_string().len() as u64,
    })
}

fn layer_of(number: usize, more: &[(&str, Vec<u8>)]) -> Result<Vec<u8>, Failed> {
    let mut tar = tar::Builder::new(Vec::new());
    let files =
        [("etc/base", number.to_string().into_bytes()), ("usr/lib/base.so", noise(number, NOISE_BYTES))];
    for (path, content) in files.iter().chain(more) {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        tar.append_data(&mut header, path, content.as_slice())?;
    }
    Ok(tar.into_inner()?)
}

/// Bytes that look random and are the same every time.
pub(crate) fn noise(seed: usize, size_bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ ((seed as u64 + 1) << 17);
    let mut bytes: Vec<u8> = Vec::with_capacity(size_bytes + 8);
    while bytes.len() < size_bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(size_bytes);
    bytes
}

//! The base images that the corpus declares in `tests/corpus/bases/NAME.toml`: made once a run, without any builder, and
//! pushed to the registry as `corpus/NAME:1`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Failed;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::made::{Made, compressed, tar};
use crate::world::World;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// One base image.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Base {
    /// With several, the image is an index; a file `/platform` then tells which one it is. `linux/amd64` if none is named.
    platforms: Vec<String>,
    /// The `config` of the image config.
    config: Value,
    /// From the lowest to the highest.
    layers: Vec<Layer>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Layer {
    compression: Option<String>,
    entries: Vec<Made>,
}

/// Makes all of them and pushes them. The error is text: every case of the corpus reports it.
pub(super) fn push(corpus: &Path, world: &World) -> Result<(), String> {
    push_all(corpus, world).map_err(|failed| failed.message().unwrap_or_default().to_owned())
}

fn push_all(corpus: &Path, world: &World) -> Result<(), Failed> {
    for file in fs::read_dir(corpus.join("bases"))? {
        let file = file?.path();
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let base: Base =
            toml::from_str(&fs::read_to_string(&file)?).map_err(|error| format!("{name}: {error}"))?;
        let layout = Layout::new(world.directory(&format!("corpus-bases/{name}")))?;
        base.write(&layout)?;
        let source = format!("oci:{}:1", layout.directory.display());
        let destination = format!("docker://{}/corpus/{name}:1", world.registry);
        let output = Command::new("skopeo")
            .args(["copy", "--quiet", "--all", "--dest-tls-verify=false", &source, &destination])
            .output()?;
        if !output.status.success() {
            return Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
    }
    Ok(())
}

impl Base {
    fn write(&self, layout: &Layout) -> Result<(), Failed> {
        let platforms =
            if self.platforms.is_empty() { &["linux/amd64".to_owned()][..] } else { &self.platforms };
        let mut manifests = Vec::new();
        for platform in platforms {
            let mut parts = platform.split('/');
            let mut described = json!({"os": parts.next(), "architecture": parts.next()});
            if let Some(variant) = parts.next() {
                described["variant"] = variant.into();
            }
            let marker = (platforms.len() > 1).then(|| format!("path = 'platform'\ncontent = '{platform}'"));
            let mut manifest = self.write_one(layout, &described, marker.as_deref())?;
            manifest["platform"] = described;
            manifests.push(manifest);
        }
        let root = match manifests.as_slice() {
            [manifest] => manifest.clone(),
            _ => {
                let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
                layout.add(&serde_json::to_vec(&index)?, INDEX)?
            }
        };
        layout.finish(root)
    }

    fn write_one(&self, layout: &Layout, platform: &Value, marker: Option<&str>) -> Result<Value, Failed> {
        let (mut layers, mut diff_ids, mut history) = (Vec::new(), Vec::new(), Vec::new());
        let marker = marker.map(|marker| toml::from_str(marker).map(|made| vec![made])).transpose()?;
        let marker = marker.map(|entries| Layer { compression: None, entries });
        for layer in self.layers.iter().chain(&marker) {
            let bytes = tar(&layer.entries)?;
            diff_ids.push(digest(&bytes));
            history.push(
                json!({"created": "2001-09-09T01:46:40Z", "created_by": format!("layer {}", layers.len())}),
            );
            let compression = layer.compression.as_deref().unwrap_or("gzip");
            let media_type = match compression {
                "none" => "application/vnd.oci.image.layer.v1.tar".to_owned(),
                name => format!("application/vnd.oci.image.layer.v1.tar+{name}"),
            };
            layers.push(layout.add(&compressed(&bytes, Some(compression))?, &media_type)?);
        }
        let mut config = json!({
            "created": "2001-09-09T01:46:40Z", "config": self.config, "history": history,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        for (name, value) in platform.as_object().into_iter().flatten() {
            config[name] = value.clone();
        }
        let config = layout.add(&serde_json::to_vec(&config)?, "application/vnd.oci.image.config.v1+json")?;
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        layout.add(&serde_json::to_vec(&manifest)?, MANIFEST)
    }
}

/// An OCI layout that is being written.
struct Layout {
    directory: PathBuf,
}

impl Layout {
    fn new(directory: PathBuf) -> Result<Self, Failed> {
        fs::create_dir_all(directory.join("blobs/sha256"))?;
        Ok(Self { directory })
    }

    /// Adds a blob and gives its descriptor.
    fn add(&self, bytes: &[u8], media_type: &str) -> Result<Value, Failed> {
        let digest = digest(bytes);
        let name = digest.trim_start_matches("sha256:");
        fs::write(self.directory.join("blobs/sha256").join(name), bytes)?;
        Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
    }

    fn finish(&self, mut root: Value) -> Result<(), Failed> {
        root["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
        let index = json!({"schemaVersion": 2, "manifests": [root]});
        fs::write(self.directory.join("index.json"), serde_json::to_vec(&index)?)?;
        Ok(fs::write(self.directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?)
    }
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

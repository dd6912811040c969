//! The image config: what runs, with which environment, and how the image came to be.
//!
//! Source: OCI image-spec `config.md`, and Docker's fields that it leaves out (`Healthcheck`,
//! `OnBuild`, `Shell`), which BuildKit keeps in an OCI config too. Unknown fields survive.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::digest::Digest;
use crate::error::{ErrorKind, Result, ResultExt};
use crate::platform::Platform;

/// An image config. Its digest is what `docker` calls the image id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The architecture, in Go's spelling.
    pub architecture: String,
    /// Who made the image: `MAINTAINER`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// What runs, and how.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: ContainerConfig,
    /// When the image was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// One entry an instruction, oldest first.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// The operating system, in Go's spelling.
    pub os: String,
    /// The layers, by the digests of their uncompressed bytes.
    pub rootfs: RootFs,
    /// The variant of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Everything else: `os.version`, `os.features`, `container_config`, ...
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl ImageConfig {
    /// Makes the config of an empty image for a platform.
    pub fn empty(platform: &Platform) -> Self {
        Self {
            architecture: platform.architecture.clone(),
            author: None,
            config: ContainerConfig::default(),
            created: None,
            history: Vec::new(),
            os: platform.os.clone(),
            rootfs: RootFs::default(),
            variant: platform.variant.clone(),
            other: BTreeMap::new(),
        }
    }

    /// Reads a config; `shown` names the image in errors.
    ///
    /// # Errors
    /// `Corrupt` for what is no image config.
    pub fn parse(bytes: &[u8], shown: &str) -> Result<Self> {
        serde_json::from_slice(bytes)
            .or_error(ErrorKind::Corrupt, || format!("the image config of {shown} is malformed"))
    }

    /// The platform that the image is for, in normal form.
    pub fn platform(&self) -> Platform {
        Platform::from_parts(&self.os, &self.architecture, self.variant.as_deref())
    }
}

/// What runs, and how. The names are Docker's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// `USER`
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `EXPOSE`: `80/tcp` to an empty object.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `ENV`, as `NAME=value`, in order.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// `ENTRYPOINT`. `None` and an empty list differ: the latter removes the base's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// `CMD`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// `HEALTHCHECK`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Windows: the command line is already escaped.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// `VOLUME`: a path to an empty object.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// `WORKDIR`
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// `ONBUILD`, in order.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// `LABEL`
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `STOPSIGNAL`
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// `SHELL`
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// Everything else: `Hostname`, `AttachStdin`, `StopTimeout`, ...
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The `{}` that Go writes for a member of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// `HEALTHCHECK`; durations are nanoseconds, 0 means inherited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", command]`; empty means inherited.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// `--interval`, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// `--timeout`, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// `--start-period`, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// `--start-interval`, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// `--retries`
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
    /// Everything else.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The layers of an image, by the digests of their uncompressed bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Lowest first. As many as the manifest has layers.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// What one instruction did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction, as BuildKit words it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// `buildkit.dockerfile.v0` for what a Dockerfile made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The instruction made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// Everything else.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// Go writes `null` for an empty list or map.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::to_bytes;

    #[test]
    fn reads_what_go_writes_and_keeps_what_it_does_not_know() {
        let text = r#"{"architecture":"arm64","config":{"Env":null,"Cmd":["sh"],"Hostname":"h","ExposedPorts":{"80/tcp":{}}},
            "container":"abc","history":null,"os":"linux","rootfs":{"type":"layers","diff_ids":null},"variant":"v8"}"#;
        let config = ImageConfig::parse(text.as_bytes(), "`x`").expect("valid");
        assert_eq!(config.platform().to_string(), "linux/arm64");
        assert_eq!(config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
        assert_eq!(
            String::from_utf8(to_bytes(&config)).expect("utf-8"),
            r#"{"architecture":"arm64","config":{"ExposedPorts":{"80/tcp":{}},"Cmd":["sh"],"Hostname":"h"},"os":"linux","rootfs":{"type":"layers","diff_ids":[]},"variant":"v8","container":"abc"}"#
        );
    }

    #[test]
    fn an_empty_entrypoint_is_not_a_missing_one() {
        let text = r#"{"architecture":"amd64","config":{"Entrypoint":[]},"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config = ImageConfig::parse(text.as_bytes(), "`x`").expect("valid");
        assert_eq!(config.config.entrypoint, Some(Vec::new()));
        assert_eq!(to_bytes(&config), text.as_bytes());
    }

    #[test]
    fn a_malformed_config_is_corrupt() {
        let error = ImageConfig::parse(b"{}", "`x`").expect_err("no rootfs");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

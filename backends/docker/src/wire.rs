//! What buildx and docker write, exactly as they write it, and nothing else.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};

/// One message of `--progress=rawjson`: BuildKit's `client.SolveStatus`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SolveStatus {
    pub(crate) vertexes: Vec<Vertex>,
    pub(crate) statuses: Vec<VertexStatus>,
    pub(crate) logs: Vec<VertexLog>,
    pub(crate) warnings: Vec<VertexWarning>,
}

/// A step of the build, each time that something about it changes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Vertex {
    pub(crate) digest: String,
    pub(crate) name: String,
    pub(crate) started: Option<String>,
    pub(crate) completed: Option<String>,
    pub(crate) cached: bool,
    pub(crate) error: String,
}

/// A counter of a step.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct VertexStatus {
    pub(crate) id: String,
    pub(crate) vertex: String,
    pub(crate) current: i64,
    pub(crate) total: i64,
}

/// What a step printed: any number of bytes, not whole lines.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct VertexLog {
    pub(crate) vertex: String,
    /// 1 is the standard output, 2 the standard error.
    pub(crate) stream: i64,
    #[serde(deserialize_with = "base64_bytes")]
    pub(crate) data: Vec<u8>,
}

/// What BuildKit's linter found.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct VertexWarning {
    #[serde(deserialize_with = "base64_bytes")]
    pub(crate) short: Vec<u8>,
    pub(crate) url: String,
}

/// Go writes `[]byte` as base64, and an absent one as `null`.
fn base64_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}

/// `config.json` of the docker CLI: of all it holds, what concerns us.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct CliConfig {
    pub(crate) current_context: String,
}

/// `contexts/meta/<sha256 of the name>/meta.json`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ContextMeta {
    #[serde(default)]
    pub(crate) endpoints: BTreeMap<String, ContextEndpoint>,
}

/// One endpoint of a docker context; `docker` is the engine.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ContextEndpoint {
    pub(crate) host: String,
}

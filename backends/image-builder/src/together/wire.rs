//! The messages of the management API, as they are sent and as they come.

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::architecture::Architecture;

/// What `POST /snapshots` is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewSnapshot {
    /// The image, as `registry/repository/name:tag`.
    pub image: String,
    /// What it runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Architecture>,
    /// After so many seconds the snapshot is retired: at least 1.
    #[serde(rename = "ttl", skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// Free words for finding it again.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// A snapshot, as the service describes it. What we do not know is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its id, a UUID.
    pub id: String,
    /// The project that it belongs to.
    #[serde(default)]
    pub project_id: Option<String>,
    /// The organization of that project.
    #[serde(default)]
    pub organization_id: Option<String>,
    /// How large it is.
    #[serde(default)]
    pub byte_size: Option<u64>,
    /// Free words for finding it again.
    #[serde(default, deserialize_with = "none_is_empty")]
    pub tags: BTreeMap<String, String>,
    /// After so many seconds it is retired.
    #[serde(default)]
    pub ttl: Option<u64>,
    /// When it was made, in the service's words.
    #[serde(default)]
    pub created_at: Option<String>,
    /// When it was changed last.
    #[serde(default)]
    pub updated_at: Option<String>,
    /// When it was retired: it cannot be used any more.
    #[serde(default)]
    pub retired_at: Option<String>,
    /// Everything else that the service says.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A page of snapshots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotPage {
    /// The snapshots.
    pub data: Vec<Snapshot>,
    /// Where the next page begins; `None` if there is none.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// A name that points to a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotAlias {
    /// What it points to.
    pub snapshot_id: String,
    /// The name.
    pub alias: String,
    /// Since when.
    #[serde(default)]
    pub created_at: Option<String>,
}

/// What `POST /snapshots/{id}/aliases` is told.
#[derive(Clone, Debug, Serialize)]
pub(super) struct NewAlias<'a> {
    pub(super) alias: &'a str,
}

/// A credential for Together's registry, as the service gives it out.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CredentialAnswer {
    pub(super) username: Option<String>,
    pub(super) password: Option<SecretString>,
    pub(super) registry_url: Option<String>,
    pub(super) expired_at: Option<String>,
}

/// Which snapshots are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotQuery {
    /// How many at most: 1 to 100; the service's own choice (20) if `None`.
    pub limit: Option<u64>,
    /// Where to go on.
    pub cursor: Option<String>,
    /// Leave out the retired ones.
    pub exclude_retired: bool,
    /// Only those that have all of these tags.
    pub tags: BTreeMap<String, String>,
}

fn none_is_empty<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_was_said_is_sent() {
        let bare = NewSnapshot {
            image: "r/a:1".into(),
            architecture: None,
            ttl_seconds: None,
            tags: BTreeMap::new(),
        };
        assert_eq!(serde_json::to_value(&bare).expect("JSON"), json!({ "image": "r/a:1" }));
        let full = NewSnapshot {
            architecture: Some(Architecture::Arm64),
            ttl_seconds: Some(5),
            tags: BTreeMap::from([("team".into(), "x".into())]),
            ..bare
        };
        assert_eq!(
            serde_json::to_string(&full).expect("JSON"),
            r#"{"image":"r/a:1","architecture":"arm64","ttl":5,"tags":{"team":"x"}}"#
        );
    }

    #[test]
    fn a_snapshot_keeps_what_we_do_not_know() {
        let said = json!({ "id": "x", "tags": null, "memory": { "gb": 2 }, "ttl": null });
        let snapshot: Snapshot = serde_json::from_value(said).expect("a snapshot");
        assert!(snapshot.tags.is_empty());
        assert_eq!(serde_json::to_value(&snapshot).expect("JSON")["memory"], json!({ "gb": 2 }));
    }
}

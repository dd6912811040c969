//! The documents of an image: descriptors, manifests, indexes.
//!
//! Both the OCI and the Docker forms are read into the same types. Fields that we do not know
//! survive a round trip; still, a document that came from elsewhere is always passed on as the
//! bytes it came in, because its digest is the digest of those bytes.
//!
//! Source: OCI image-spec `descriptor.md`, `manifest.md`, `image-index.md`; Docker's
//! `manifest-v2-2.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::media_type;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::platform::Platform;

/// The largest manifest or index that is read: registries refuse larger ones (4 MiB).
pub const DOCUMENT_LIMIT_BYTES: u64 = 4 << 20;

/// Media type, digest and size of some content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    #[serde(default)]
    pub media_type: String,
    /// The digest of the content.
    pub digest: Digest,
    /// The size of the content.
    #[serde(rename = "size")]
    pub size_bytes: u64,
    /// What the content is for, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<PlatformFields>,
    /// Free text by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Everything else: `urls`, `data`, `artifactType`.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Descriptor {
    /// Makes a descriptor of these three.
    pub fn new(media_type: impl Into<String>, digest: Digest, size_bytes: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size_bytes,
            platform: None,
            annotations: BTreeMap::new(),
            other: BTreeMap::new(),
        }
    }

    /// Makes the descriptor of these bytes.
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// Says whether two descriptors name the same content.
    pub fn same_content(&self, other: &Self) -> bool {
        self.digest == other.digest && self.size_bytes == other.size_bytes
    }
}

/// The platform in an index, with its fields as they came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlatformFields {
    /// The architecture, in Go's spelling.
    pub architecture: String,
    /// The operating system, in Go's spelling.
    pub os: String,
    /// The variant of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Everything else: `os.version`, `os.features`, `features`.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl PlatformFields {
    /// The platform in normal form.
    pub fn platform(&self) -> Platform {
        Platform::from_parts(&self.os, &self.architecture, self.variant.as_deref())
    }
}

impl From<&Platform> for PlatformFields {
    fn from(platform: &Platform) -> Self {
        Self {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            other: BTreeMap::new(),
        }
    }
}

/// One platform's image: an image config and its layers, lowest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Its own media type; OCI documents may leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The image config.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// Free text by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Everything else.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Manifest {
    /// Makes a manifest of this media type.
    pub fn new(media_type: &str, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type.to_owned()),
            config,
            layers,
            annotations: BTreeMap::new(),
            other: BTreeMap::new(),
        }
    }
}

/// The list over platforms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Its own media type; OCI documents may leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Manifests, and indexes of manifests.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    /// Free text by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Everything else.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Index {
    /// Makes an index of this media type.
    pub fn new(media_type: &str, manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type.to_owned()),
            manifests,
            annotations: BTreeMap::new(),
            other: BTreeMap::new(),
        }
    }
}

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "few exist at a time, and they are taken apart at once")]
pub enum Document {
    /// One platform's image.
    Manifest(Manifest),
    /// The list over platforms.
    Index(Index),
}

impl Document {
    /// Reads a document. What it says about itself wins over the media type it came with, which
    /// some servers give as `application/json`; `shown` names it in errors.
    ///
    /// # Errors
    /// `Corrupt` for what is neither manifest nor index; `Unsupported` for Docker's schema 1.
    pub fn parse(media_type: &str, bytes: &[u8], shown: &str) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            #[serde(default)]
            schema_version: u32,
            media_type: Option<String>,
            manifests: Option<Value>,
            config: Option<Value>,
        }
        let corrupt = || Error::new(ErrorKind::Corrupt, format!("{shown} is no image manifest or index"));
        let head: Head = serde_json::from_slice(bytes).map_err(|source| corrupt().with_source(source))?;
        if head.schema_version == 1 {
            return Err(Error::new(ErrorKind::Unsupported, format!("{shown} is a Docker schema 1 image"))
                .with_hint("pull and push it with a current `docker` to convert it"));
        }
        let named = head.media_type.as_deref().unwrap_or(media_type);
        // A document with both lists would mean different things to different readers
        // (CVE-2021-41190); one that contradicts its media type as well.
        let is_index = match (head.manifests.is_some(), head.config.is_some()) {
            (true, false) if !media_type::is_manifest(named) => true,
            (false, true) if !media_type::is_index(named) => false,
            _ => return Err(corrupt().with_detail("media type", named)),
        };
        if is_index {
            serde_json::from_slice(bytes).map(Self::Index)
        } else {
            serde_json::from_slice(bytes).map(Self::Manifest)
        }
        .map_err(|source| corrupt().with_source(source))
    }

    /// Everything that the document names directly: config and layers, or manifests.
    pub fn children(&self) -> Vec<&Descriptor> {
        match self {
            Self::Manifest(manifest) => std::iter::once(&manifest.config).chain(&manifest.layers).collect(),
            Self::Index(index) => index.manifests.iter().collect(),
        }
    }

    /// The media type to send the document with.
    pub fn media_type(&self) -> &str {
        match self {
            Self::Manifest(manifest) => manifest.media_type.as_deref().unwrap_or(media_type::OCI_MANIFEST),
            Self::Index(index) => index.media_type.as_deref().unwrap_or(media_type::OCI_INDEX),
        }
    }
}

/// Writes a document as the bytes whose digest becomes its name: JSON without white space.
///
/// # Panics
/// Never for the types of this module, whose maps have string keys.
pub fn to_bytes<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).expect("documents have string keys only")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn unknown_fields_survive() {
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{HEX}","size":2,"data":"e30="}},"layers":[],"subject":{{"x":1}}}}"#,
            media_type::OCI_MANIFEST,
            media_type::OCI_CONFIG
        );
        let document = Document::parse("application/json", text.as_bytes(), "it").expect("valid");
        let Document::Manifest(manifest) = document else { panic!("a manifest") };
        assert_eq!(String::from_utf8(to_bytes(&manifest)).expect("utf-8"), text);
    }

    #[test]
    fn refuses_what_two_readers_would_read_differently() {
        let config = format!(r#""config":{{"mediaType":"x","digest":"{HEX}","size":2}}"#);
        for text in [
            format!(r#"{{"schemaVersion":2,{config},"manifests":[]}}"#),
            format!(r#"{{"schemaVersion":2,"mediaType":"{}",{config}}}"#, media_type::OCI_INDEX),
            format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media_type::OCI_MANIFEST),
            r#"{"schemaVersion":2}"#.to_owned(),
            "[]".to_owned(),
            String::new(),
        ] {
            let error = Document::parse("", text.as_bytes(), "`x`").expect_err(&text);
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{text}");
        }
        let error = Document::parse("", br#"{"schemaVersion":1}"#, "`x`").expect_err("schema 1");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}

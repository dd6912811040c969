//! The options of this backend.

use std::path::PathBuf;

use serde::Deserialize;

/// The options, each with its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct OciConfig {
    /// The directory of the image store; `images` in the cache directory if not set. Backends and
    /// the `image` commands that shall see the same images need the same directory.
    pub store: Option<PathBuf>,
}

impl OciConfig {
    /// The names of the options, for messages.
    pub const OPTIONS: &[&str] = &["store"];
}

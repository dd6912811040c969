//! Recipes: how a runtime image is made of a base image, a source tree and lock files, what it is called,
//! and how much of an earlier one can be taken.
//!
//! Here are the names: every hash and tag that agent platforms look their images up by.

pub mod agent_server;
mod build_folder;
mod builtin;
mod check;
mod decide;
mod definition;
#[cfg(test)]
pub(crate) mod fake;
mod fill;
mod generate;
mod git;
mod inputs;
mod names;
pub mod openhands;
mod options;
mod owned_folder;
mod prepare;
mod read;
mod reader;
mod recipes;
mod render;
mod runtime;
mod short_hash;
mod tree_hash;

pub use build_folder::{AddedLines, BuildFolder};
pub use decide::{Answer, Decision, Existence, Inquiry, Question, decide};
pub use definition::{
    ConfigFile, HashTags, HashedTags, LockFile, Mode, Recipe, RenderInput, Scheme, SourceTree, TagValues,
    Tags, Template,
};
pub use generate::{DEFAULT_OUTPUT_DIR, GenerateOptions, GeneratedContext, Generation, TARGETS, size_text};
pub use git::{Checkout, checkout};
pub use names::{RepositoryFrom, RuntimeNames, RuntimeTags, runtime_names};
pub use options::RuntimeOptions;
pub use owned_folder::{FolderGuard, MARKER, OwnedFolder};
pub use recipes::Recipes;
pub use runtime::{RuntimePlan, RuntimeReport, build_runtime, plan_runtime};
pub use short_hash::short_hash;
pub use tree_hash::{HashRules, tree_hash};

use crate::error::{Error, ErrorKind, Result};

/// The longest tag that registries take, in characters: OCI distribution-spec.
const TAG_LIMIT: usize = 128;

/// Checks a tag: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`. None that registries refuse is ever made.
///
/// # Errors
/// `InvalidInput`, naming the tag.
pub fn checked_tag(tag: String) -> Result<String> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = tag.bytes();
    let first = bytes.next().is_some_and(word);
    if first && tag.len() <= TAG_LIMIT && bytes.all(|byte| word(byte) || matches!(byte, b'.' | b'-')) {
        return Ok(tag);
    }
    Err(Error::new(ErrorKind::InvalidInput, format!("`{tag}` cannot be a tag")).with_hint(
        "a tag is up to 128 letters, digits, `_`, `.` and `-`, and begins with none of the last two",
    ))
}

/// An image as it is typed: what stands before the tag or digest, and these. Neither case nor the
/// spelling of the registry is changed, for hashes count them.
pub(crate) struct TypedImage<'a> {
    pub(crate) repository: &'a str,
    pub(crate) tag: Option<&'a str>,
    /// `sha256:…`
    pub(crate) digest: Option<&'a str>,
}

impl<'a> TypedImage<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let last = name.rfind('/').map_or(0, |slash| slash + 1);
        match name[last..].split_once(':') {
            Some((short, tag)) => Self { repository: &name[..last + short.len()], tag: Some(tag), digest },
            None => Self { repository: name, tag: None, digest },
        }
    }

    /// The first 12 digits of the digest.
    pub(crate) fn short_digest(&self) -> Option<&'a str> {
        let digits = self.digest?.split_once(':')?.1;
        Some(digits.get(..12).unwrap_or(digits))
    }
}

/// The last characters of a text, as many as that.
pub(crate) fn last_characters(text: &str, count: usize) -> &str {
    match text.char_indices().rev().take(count).last() {
        Some((start, _)) => &text[start..],
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_registries_take_is_a_tag() {
        for good in ["a", "_x", "oh_v0.62.0_a-b", &"t".repeat(128)] {
            assert_eq!(checked_tag(good.to_owned()).expect(good), good);
        }
        for bad in ["", ".a", "-a", "a@b", "a/b", "ü", &"t".repeat(129)] {
            assert_eq!(checked_tag(bad.to_owned()).expect_err(bad).kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn an_image_is_split_after_its_last_slash() {
        for (text, repository, tag, digest) in [
            ("localhost:5000/a/b:c", "localhost:5000/a/b", Some("c"), None),
            ("localhost:5000/a", "localhost:5000/a", None, None),
            ("Ubuntu:22.04", "Ubuntu", Some("22.04"), None),
            ("a:1@sha256:0123456789abcdef", "a", Some("1"), Some("0123456789ab")),
        ] {
            let image = TypedImage::new(text);
            assert_eq!((image.repository, image.tag, image.short_digest()), (repository, tag, digest));
        }
        assert_eq!(
            (last_characters("aüb", 2), last_characters("ab", 5), last_characters("ab", 0)),
            ("üb", "ab", "")
        );
    }
}

//! Fills in the templates of a recipe.

use serde_json::Value;

use super::definition::{HashedTags, Recipe, RenderInput, TagValues};
use crate::error::{Error, ErrorKind, Result};

impl Recipe {
    /// Renders the Dockerfile.
    ///
    /// # Errors
    /// `InvalidConfig` for what the template does wrong, with its name, the line and the expression;
    /// `InvalidInput` for a variable that the recipe does not have, or a base image or extra dependencies
    /// that would break out of their line.
    pub fn render(&self, _input: &RenderInput<'_>) -> Result<String> {
        Err(Error::new(ErrorKind::InvalidConfig, "not rendered"))
    }

    /// Makes the tags of a recipe whose tags are by hashes.
    ///
    /// # Errors
    /// `InvalidConfig` for what a template does wrong, or for a recipe with a scheme of its own;
    /// `InvalidInput` for a tag that registries would refuse.
    pub fn hashed_tags(&self, _values: &TagValues<'_>) -> Result<HashedTags> {
        Err(Error::new(ErrorKind::InvalidConfig, "not rendered"))
    }

    /// Reads `NAME=VALUE` as a variable of this recipe; the value is of the kind of the default.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown name, with the nearest, and for a value of another kind.
    pub fn variable(&self, _typed: &str) -> Result<(String, Value)> {
        Err(Error::new(ErrorKind::InvalidInput, "not read"))
    }

    /// Says whether the Dockerfile hangs on an input or a variable: an option that would change nothing
    /// can be refused.
    pub fn uses(&self, input: &str) -> bool {
        self.template.text.contains(input)
    }
}

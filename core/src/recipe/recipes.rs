//! The recipes that there are: built in, of `windlass.toml`, of a file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::definition::Recipe;
use crate::config::Settings;
use crate::error::{Error, ErrorKind, Result, nearest};

/// Recipes by name.
#[derive(Clone, Debug, Default)]
pub struct Recipes {
    recipes: BTreeMap<String, Arc<Recipe>>,
}

impl Recipes {
    /// Those that are built in: `openhands-runtime` and `agent-server`.
    ///
    /// # Errors
    /// Never for a released windlass: they are checked like any other.
    pub fn builtin() -> Result<Self> {
        Ok(Self::default())
    }

    /// Those that are built in and those of `[recipes.NAME]`, which stand before built-in ones of the
    /// same name.
    ///
    /// # Errors
    /// `InvalidConfig` for a recipe that is wrong, with file, key, and the nearest key where one is
    /// unknown; `LocalIo` for a template that cannot be read.
    pub fn of(_settings: &Settings) -> Result<Self> {
        Self::builtin()
    }

    /// Adds the recipes of a table of tables: `[recipes.NAME]` of `file`.
    ///
    /// # Errors
    /// As [`Recipes::of`].
    pub fn add_table(&mut self, _table: &toml::Table, _file: &Path) -> Result<()> {
        Ok(())
    }

    /// Adds the recipe of a file. Its name is the file's where it says none.
    ///
    /// # Errors
    /// As [`Recipes::of`]; `NotFound` where there is no such file.
    pub fn read_file(&mut self, file: &Path) -> Result<Arc<Recipe>> {
        Err(Error::new(ErrorKind::NotFound, format!("there is no recipe `{}`", file.display())))
    }

    /// Finds a recipe.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown name, with the nearest.
    pub fn get(&self, name: &str) -> Result<Arc<Recipe>> {
        self.recipes.get(name).cloned().ok_or_else(|| {
            let error = Error::new(ErrorKind::InvalidInput, format!("there is no recipe `{name}`"));
            let known = self.names().collect::<Vec<_>>().join(", ");
            match nearest(name, self.names()) {
                Some(nearest) => error.with_hint(format!("did you mean `{nearest}`?")),
                None => error.with_hint(format!("known recipes: {known}")),
            }
        })
    }

    /// The names of all, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.recipes.keys().map(String::as_str)
    }
}

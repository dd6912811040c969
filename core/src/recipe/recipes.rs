//! The recipes that there are: built in, of `windlass.toml`, of a file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use toml::Table;

use super::builtin;
use super::definition::Recipe;
use super::read::read;
use super::reader::{Origin, Place, Reader};
use crate::config::{self, Settings};
use crate::error::{Error, ErrorKind, Result, ResultExt, SourceLine, nearest};

/// Recipes by name.
#[derive(Clone, Debug, Default)]
pub struct Recipes {
    recipes: BTreeMap<String, Arc<Recipe>>,
}

/// Recipes that are to be read, with where they stand.
type Unread = BTreeMap<String, (Place, Table)>;

impl Recipes {
    /// Those that are built in: `openhands-runtime` and `agent-server`.
    ///
    /// # Errors
    /// Never for a released windlass: they are checked like any other.
    pub fn builtin() -> Result<Self> {
        let mut recipes = Self::default();
        for (name, text) in builtin::RECIPES {
            let table: Table =
                toml::from_str(text).or_error(ErrorKind::InvalidConfig, || format!("recipe `{name}`"))?;
            let recipe = read(name, &Reader::new(&Place::default(), &table), None)?;
            recipes.recipes.insert(name.to_owned(), Arc::new(recipe));
        }
        Ok(recipes)
    }

    /// Those that are built in and those of `[recipes.NAME]`, which stand before built-in ones of the
    /// same name.
    ///
    /// # Errors
    /// `InvalidConfig` for a recipe that is wrong, with file, key, and the nearest key where one is
    /// unknown, and for one that extends a recipe that there is not.
    pub fn of(settings: &Settings) -> Result<Self> {
        let mut recipes = Self::builtin()?;
        let unread = settings.recipes.iter().map(|(name, recipe)| {
            let keys: BTreeMap<String, Origin> =
                recipe.origins.iter().map(|(key, origin)| (key.clone(), place_of(origin))).collect();
            let file = keys.values().find(|origin| origin.file().is_some());
            let origin = file.or_else(|| keys.values().next()).cloned().unwrap_or_default();
            let above = vec!["recipes".to_owned(), name.clone()];
            (name.clone(), (Place { above, origin, keys }, recipe.table.clone()))
        });
        recipes.add(unread.collect())?;
        Ok(recipes)
    }

    /// Adds the recipes of a table of tables: `[recipes.NAME]` of `file`.
    ///
    /// # Errors
    /// As [`Recipes::of`].
    pub fn add_table(&mut self, table: &Table, file: &Path) -> Result<()> {
        let origin = Origin::File(file.to_owned());
        let mut unread = Unread::new();
        for (name, recipe) in table {
            let place = Place {
                above: vec!["recipes".to_owned(), name.clone()],
                origin: origin.clone(),
                keys: BTreeMap::new(),
            };
            let Some(recipe) = recipe.as_table() else {
                let message = format!("`recipes.{name}` in `{}` is no table", file.display());
                return Err(Error::new(ErrorKind::InvalidConfig, message)
                    .with_hint(format!("write `[recipes.{name}]` and the keys of the recipe below it")));
            };
            unread.insert(name.clone(), (place, recipe.clone()));
        }
        self.add(unread)
    }

    /// Adds the recipe of a file. Its name is what the file says as `name`, else the file's own without
    /// what follows the first dot.
    ///
    /// # Errors
    /// As [`Recipes::of`]; `NotFound` where there is no such file.
    pub fn read_file(&mut self, file: &Path) -> Result<Arc<Recipe>> {
        let shown = file.display();
        let text = std::fs::read_to_string(file).map_err(|source| {
            let (kind, message) = match source.kind() {
                std::io::ErrorKind::NotFound => {
                    (ErrorKind::NotFound, format!("there is no recipe `{shown}`"))
                }
                _ => (ErrorKind::LocalIo, format!("could not read the recipe `{shown}`")),
            };
            Error::new(kind, message).with_source(source)
        })?;
        let table: Table = toml::from_str(&text).map_err(|error| syntax_error(file, &text, &error))?;
        let stem = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let stem = stem.split('.').next().unwrap_or_default().to_owned();
        let name = match table.get("name") {
            Some(toml::Value::String(name)) => name.clone(),
            _ => stem,
        };
        let place = Place { origin: Origin::File(file.to_owned()), ..Place::default() };
        self.add(Unread::from([(name.clone(), (place, table))]))?;
        self.get(&name)
    }

    /// Reads recipes that may extend those that are there, and one another.
    fn add(&mut self, mut unread: Unread) -> Result<()> {
        while let Some(name) = unread.keys().next().cloned() {
            self.add_one(&name, &mut unread)?;
        }
        Ok(())
    }

    fn add_one(&mut self, name: &str, unread: &mut Unread) -> Result<()> {
        let Some((place, table)) = unread.remove(name) else { return Ok(()) };
        let reader = Reader::new(&place, &table);
        let base = match reader.text("extends")? {
            None => None,
            // One of the same name, which it takes the place of, may be what it extends.
            Some(other) => {
                if unread.contains_key(&other) {
                    self.add_one(&other, unread)?;
                }
                let base = self.recipes.get(&other).cloned();
                Some(base.ok_or_else(|| self.nothing_to_extend(&reader, &other))?)
            }
        };
        // Which name it has is known already; only a file of its own says it.
        if place.above.is_empty() {
            reader.text("name")?;
        }
        let recipe = read(name, &reader, base.as_deref())?;
        self.recipes.insert(name.to_owned(), Arc::new(recipe));
        Ok(())
    }

    fn nothing_to_extend(&self, reader: &Reader<'_>, other: &str) -> Error {
        let message = format!("`{}` names no recipe: `{other}`", reader.shown("extends"));
        let error = reader.error("extends", message);
        match nearest(other, self.names()) {
            Some(near) => error.with_hint(format!("did you mean `{near}`?")),
            None => {
                error.with_hint("it names a built-in recipe, or one that does not extend this one itself")
            }
        }
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

fn place_of(origin: &config::Origin) -> Origin {
    match origin {
        config::Origin::UserFile { path, .. } | config::Origin::ProjectFile { path, .. } => {
            Origin::File(path.clone())
        }
        other => Origin::Word(other.to_string()),
    }
}

fn syntax_error(file: &Path, text: &str, error: &toml::de::Error) -> Error {
    let message = format!("`{}` is not valid TOML", file.display());
    let located = Error::new(ErrorKind::InvalidConfig, message).with_source(error.message().to_owned());
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else { return located };
    let line = 1 + before.bytes().filter(|byte| *byte == b'\n').count();
    let quoted = text.lines().nth(line - 1).unwrap_or_default().to_owned();
    located.with_source_line(SourceLine { file: file.to_owned(), line, text: quoted })
}

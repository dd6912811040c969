//! The map from a backend's type name to the function that makes one.
//!
//! Registration is explicit: the program that wants a backend registers its type, one line each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::Result;
use crate::backend::{Backend, Capabilities, Feature};
use crate::error::{Error, ErrorKind, nearest};
use crate::registry::RegistryClient;

/// A type of backend: `oci`, `docker`, or an integrator's own.
#[derive(Clone, Copy, Debug)]
pub struct BackendType {
    /// Its name in configurations and on the command line.
    pub name: &'static str,
    /// What it is, in one line for tables.
    pub summary: &'static str,
    /// What it can do at best; a single backend of the type may be able to do less.
    pub capabilities: fn() -> Capabilities,
    /// Makes one. Checks the options; reaches for nothing yet.
    pub factory: fn(BackendSetup) -> Result<Arc<dyn Backend>>,
}

/// Everything a factory gets.
#[derive(Clone, Debug)]
pub struct BackendSetup {
    /// The name that the configuration gives to this backend.
    pub name: String,
    /// Its options.
    pub options: BackendOptions,
    /// The machine it runs on.
    pub host: Arc<Host>,
}

/// What the program knows of its surroundings. Core and backends never ask the process
/// environment themselves.
#[derive(Clone, Debug)]
pub struct Host {
    /// The environment variables.
    pub environment: BTreeMap<String, String>,
    /// The user's home directory, if there is one.
    pub home_dir: Option<PathBuf>,
    /// The directory that relative paths start from.
    pub current_dir: PathBuf,
    /// Where caches and the image store live. May be deleted at any time between two runs.
    pub cache_dir: PathBuf,
    /// Where records live that must survive the cache.
    pub state_dir: PathBuf,
    /// The client for image registries, with the user's credentials and settings.
    pub registry_client: RegistryClient,
    /// How archives and layers are written.
    pub archive: crate::archive::ArchiveSettings,
}

impl Host {
    /// An environment variable; an empty one counts as unset.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// The options of one backend, as the configuration gives them.
#[derive(Clone, Debug, Default)]
pub struct BackendOptions {
    table: toml::Table,
    origins: BTreeMap<String, String>,
}

impl BackendOptions {
    /// Takes a table of options, and for each where it came from: a file, a variable, an argument.
    pub fn new(table: toml::Table, origins: BTreeMap<String, String>) -> Self {
        Self { table, origins }
    }

    /// Reads the options into the backend's own type, which should be
    /// `#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]`.
    ///
    /// # Errors
    /// `InvalidConfig`: an option is unknown or has the wrong form. Names it and its origin, and
    /// the nearest of `known`.
    pub fn parse<T: DeserializeOwned>(&self, backend: &str, known: &[&str]) -> Result<T> {
        if let Some(unknown) = self.table.keys().find(|key| !known.contains(&key.as_str())) {
            let message = format!("unknown option `{unknown}` of the backend `{backend}`");
            let error = self.locate(Error::new(ErrorKind::InvalidConfig, message), unknown);
            return Err(match nearest(unknown, known.iter().copied()) {
                Some(name) => error.with_hint(format!("did you mean `{name}`?")),
                None if known.is_empty() => error.with_hint("this backend has no options"),
                None => error.with_hint(format!("its options: {}", known.join(", "))),
            });
        }
        // One option at a time first, so that the message can say which one is wrong.
        for (key, value) in &self.table {
            let alone = toml::Table::from_iter([(key.clone(), value.clone())]);
            if let Err(source) = alone.try_into::<T>() {
                let message = format!("invalid value for option `{key}` of the backend `{backend}`");
                let error = Error::new(ErrorKind::InvalidConfig, message).with_source(source);
                return Err(self.locate(error, key));
            }
        }
        self.table.clone().try_into().map_err(|source| {
            Error::new(ErrorKind::InvalidConfig, format!("invalid options of the backend `{backend}`"))
                .with_source(source)
        })
    }

    /// The same with one option set, whatever was set before. `origin` says by what, for messages.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<toml::Value>, origin: &str) -> Self {
        self.table.insert(name.to_owned(), value.into());
        self.origins.insert(name.to_owned(), origin.to_owned());
        self
    }

    /// The same without the options that are not among these.
    #[must_use]
    pub fn only(mut self, names: &[&str]) -> Self {
        self.table.retain(|name, _| names.contains(&name));
        self
    }

    fn locate(&self, error: Error, key: &str) -> Error {
        match self.origins.get(key) {
            Some(origin) => error.with_detail("set in", origin.clone()),
            None => error,
        }
    }
}

/// The known types of backends.
#[derive(Clone, Debug, Default)]
pub struct BackendRegistry {
    types: Vec<BackendType>,
}

impl BackendRegistry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a type. One of the same name is replaced, so that an integrator can override ours.
    #[must_use]
    pub fn with(mut self, backend_type: BackendType) -> Self {
        self.types.retain(|known| known.name != backend_type.name);
        self.types.push(backend_type);
        self
    }

    /// The types, in the order of registration.
    pub fn types(&self) -> &[BackendType] {
        &self.types
    }

    /// Makes a backend of a type.
    ///
    /// # Errors
    /// `InvalidConfig` for an unknown type, with the nearest known one, and for wrong options.
    pub fn create(&self, type_name: &str, setup: BackendSetup) -> Result<Arc<dyn Backend>> {
        match self.types.iter().find(|known| known.name == type_name) {
            Some(known) => (known.factory)(setup),
            None => Err(self.unknown(type_name)),
        }
    }

    /// The types that have a feature, for messages.
    pub fn types_with(&self, feature: Feature) -> Vec<&'static str> {
        let able = self.types.iter().filter(|known| (known.capabilities)().has(feature));
        able.map(|known| known.name).collect()
    }

    fn unknown(&self, type_name: &str) -> Error {
        let names = || self.types.iter().map(|known| known.name);
        let error = Error::new(ErrorKind::InvalidConfig, format!("unknown backend type `{type_name}`"));
        match nearest(type_name, names()) {
            Some(name) => error.with_hint(format!("did you mean `{name}`?")),
            None => error.with_hint(format!("known types: {}", names().collect::<Vec<_>>().join(", "))),
        }
    }
}

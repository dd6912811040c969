//! What the merged configuration comes to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use ::config::{Config, Map, Value, ValueKind};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{ErrorKind, Result, ResultExt};
use crate::registry::HostSettings;

use super::file::{self, KEYS};
use super::layers::Origins;
use super::origin::Origin;

/// The settings in force.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Settings {
    /// The backends to build with, in the order they are tried; empty if none is configured.
    #[serde(default)]
    pub default_backend: Vec<String>,
    /// How progress is shown: `auto`, `tty`, `plain`, `rawjson` or `quiet`.
    pub progress: String,
    /// Whether messages are coloured: `auto`, `always` or `never`.
    pub color: String,
    /// Where the image store and caches live.
    pub cache_dir: Option<PathBuf>,
    /// Where records of builds live.
    pub state_dir: Option<PathBuf>,
    /// `[context]`
    pub context: ContextSection,
    /// `[compression]`
    pub compression: CompressionSection,
    /// `[limits]`
    pub limits: LimitSection,
    /// `[timeouts]`
    pub timeouts: TimeoutSection,
    /// `[retries]`
    pub retries: RetrySection,
    /// `[transfers]`
    pub transfers: TransferSection,
    /// `[environments.NAME]`
    #[serde(default)]
    pub environments: BTreeMap<String, EnvironmentSettings>,
    /// `[registries.HOST]`
    #[serde(default)]
    pub registries: BTreeMap<String, HostSettings>,
    /// `[backends.NAME]`
    #[serde(skip)]
    pub backends: BTreeMap<String, BackendSettings>,
    /// `[recipes.NAME]`
    #[serde(skip)]
    pub recipes: BTreeMap<String, RecipeSettings>,
    /// Every value with its origin, sorted by key.
    #[serde(skip)]
    pub values: Vec<Setting>,
    /// What the user should know: variables that mean nothing.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// `[context]`: how a build context is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ContextSection {
    /// Whether `.dockerignore` is honoured.
    pub ignore: bool,
    /// `keep` or `normalize`.
    pub modes: String,
    /// `fixed` or `keep`.
    pub timestamps: String,
    /// The size in bytes from which a warning is given; 0 for never.
    pub warn_size: u64,
    /// Whether to warn about likely secrets.
    pub warn_secrets: bool,
    /// What a likely secret is called; `None` for the built-in list.
    pub secret_patterns: Option<Vec<String>>,
}

/// `[compression]`: how layers and context archives are compressed.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CompressionSection {
    /// `gzip`, `zstd` or `none`.
    pub format: String,
    /// The level; `None` for the format's own default.
    pub level: Option<i64>,
}

/// `[limits]`: what is refused because it can only be meant to do harm.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LimitSection {
    /// The bytes that an archive or a layer may hold once it is unpacked; 0 for no limit.
    pub unpack: u64,
}

/// `[timeouts]`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TimeoutSection {
    /// The longest a build may take; `None` for no limit.
    #[serde(default, deserialize_with = "optional_milliseconds")]
    pub build: Option<Duration>,
    /// The longest that connecting to a registry may take.
    #[serde(deserialize_with = "milliseconds")]
    pub connect: Duration,
    /// The longest that a registry may take to answer a request.
    #[serde(deserialize_with = "milliseconds")]
    pub answer: Duration,
    /// The longest that a transfer may stand still.
    #[serde(deserialize_with = "milliseconds")]
    pub silence: Duration,
    /// The longest that a registry may take over a blob once it has all of it.
    #[serde(deserialize_with = "milliseconds")]
    pub blob_answer: Duration,
}

/// `[retries]`: how often and when something is tried again at a registry.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RetrySection {
    /// How many times after the first.
    pub count: u32,
    /// The first wait; it doubles each time.
    #[serde(deserialize_with = "milliseconds")]
    pub first_wait: Duration,
    /// The longest wait.
    #[serde(deserialize_with = "milliseconds")]
    pub longest_wait: Duration,
}

/// `[transfers]`: how blobs go to registries and come from them.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TransferSection {
    /// How many at a time.
    pub concurrency: usize,
    /// The bytes up to which a blob is sent in one request.
    pub whole_limit: u64,
    /// The bytes of a piece of a larger one.
    pub piece_size: u64,
}

/// `[environments.NAME]`: what `--env NAME` chooses.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct EnvironmentSettings {
    /// The backends to build with, in the order they are tried.
    pub backend: Vec<String>,
}

/// `[backends.NAME]`: a backend under the user's own name.
#[derive(Clone, Debug, Default)]
pub struct BackendSettings {
    /// Its type; `None` if its name is its type.
    pub type_name: Option<String>,
    /// Its options, which its type checks.
    pub options: toml::Table,
    /// Where each option came from.
    pub origins: BTreeMap<String, Origin>,
}

/// `[recipes.NAME]`: a recipe, as it is written; [`crate::recipe`] checks it.
#[derive(Clone, Debug, Default)]
pub struct RecipeSettings {
    /// Its keys.
    pub table: toml::Table,
    /// Where each key came from.
    pub origins: BTreeMap<String, Origin>,
}

/// One value in force.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// The key, as one writes it for `--set`.
    pub key: String,
    /// The value in its normal form: sizes in bytes, time spans in milliseconds. `None` if unset.
    pub value: Option<toml::Value>,
    /// Where it came from.
    pub origin: Origin,
}

impl Settings {
    pub(super) fn from_merged(merged: Config, origins: &Origins, warnings: Vec<String>) -> Result<Self> {
        let mut values = Vec::new();
        flatten(&mut Vec::new(), &merged.cache, origins, &mut values);
        add_unset(&mut values);
        values.sort_by(|a, b| a.key.cmp(&b.key));
        let backends = backends(&merged.cache, origins);
        let recipes = recipes(&merged.cache, origins);
        let settings: Self = merged
            .try_deserialize()
            .or_error(ErrorKind::InvalidConfig, || "the configuration cannot be read")?;
        Ok(Self { backends, recipes, values, warnings, ..settings })
    }

    /// Where a value came from; `Default` for a key that is not set.
    pub fn origin(&self, key: &str) -> Origin {
        let found = self.values.iter().find(|value| value.key == key);
        found.map_or(Origin::Default, |value| value.origin.clone())
    }
}

fn origin_of(value: &Value, origins: &Origins) -> Origin {
    value.origin().and_then(|text| origins.get(text)).cloned().unwrap_or(Origin::Default)
}

/// The same for a value that may be a table, which loses its origin when it is merged: that of what is in it.
fn origin_within(value: &Value, origins: &Origins) -> Origin {
    match &value.kind {
        ValueKind::Table(table) if origin_of(value, origins) == Origin::Default => {
            table.values().next().map_or(Origin::Default, |inner| origin_within(inner, origins))
        }
        _ => origin_of(value, origins),
    }
}

fn flatten(path: &mut Vec<String>, value: &Value, origins: &Origins, settings: &mut Vec<Setting>) {
    if let ValueKind::Table(table) = &value.kind {
        for (name, inner) in table {
            path.push(name.clone());
            flatten(path, inner, origins, settings);
            path.pop();
        }
    } else if let Some(plain) = to_toml(value) {
        let (key, origin) = (file::show(path), origin_of(value, origins));
        settings.push(Setting { key, value: Some(plain), origin });
    }
}

/// The keys that exist without a name of the user's choosing and have no value.
fn add_unset(settings: &mut Vec<Setting>) {
    let set: BTreeSet<String> = settings.iter().map(|setting| setting.key.clone()).collect();
    for key in KEYS.iter().filter(|key| !key.path.contains('*') && !set.contains(key.path)) {
        settings.push(Setting { key: key.path.to_owned(), value: None, origin: Origin::Default });
    }
}

/// The tables of a section whose names the user chooses.
fn named<'v>(merged: &'v Value, section: &str) -> impl Iterator<Item = (&'v String, &'v Map<String, Value>)> {
    let table = |value: &'v Value| match &value.kind {
        ValueKind::Table(table) => Some(table),
        _ => None,
    };
    let tables = table(merged).and_then(|root| root.get(section)).and_then(table);
    tables.into_iter().flatten().filter_map(move |(name, value)| Some((name, table(value)?)))
}

fn backends(merged: &Value, origins: &Origins) -> BTreeMap<String, BackendSettings> {
    let mut backends = BTreeMap::new();
    for (name, options) in named(merged, "backends") {
        let mut backend = BackendSettings::default();
        for (option, value) in options {
            match (option.as_str(), &value.kind, to_toml(value)) {
                ("type", ValueKind::String(type_name), _) => backend.type_name = Some(type_name.clone()),
                (_, _, Some(plain)) => {
                    backend.options.insert(option.clone(), plain);
                    backend.origins.insert(option.clone(), origin_of(value, origins));
                }
                _ => {}
            }
        }
        backends.insert(name.clone(), backend);
    }
    backends
}

fn recipes(merged: &Value, origins: &Origins) -> BTreeMap<String, RecipeSettings> {
    let mut recipes = BTreeMap::new();
    for (name, keys) in named(merged, "recipes") {
        let mut recipe = RecipeSettings::default();
        for (key, value) in keys {
            let Some(plain) = to_toml(value) else { continue };
            recipe.table.insert(key.clone(), plain);
            recipe.origins.insert(key.clone(), origin_within(value, origins));
        }
        recipes.insert(name.clone(), recipe);
    }
    recipes
}

/// The plain value; `None` for kinds that TOML does not have and no source makes.
fn to_toml(value: &Value) -> Option<toml::Value> {
    Some(match &value.kind {
        ValueKind::Boolean(flag) => toml::Value::Boolean(*flag),
        ValueKind::I64(number) => toml::Value::Integer(*number),
        ValueKind::Float(number) => toml::Value::Float(*number),
        ValueKind::String(text) => toml::Value::String(text.clone()),
        ValueKind::Array(items) => toml::Value::Array(items.iter().filter_map(to_toml).collect()),
        ValueKind::Table(table) => {
            let fields = table.iter().filter_map(|(key, value)| Some((key.clone(), to_toml(value)?)));
            toml::Value::Table(fields.collect())
        }
        _ => return None,
    })
}

fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}

fn optional_milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    Option::<u64>::deserialize(deserializer).map(|value| value.map(Duration::from_millis))
}

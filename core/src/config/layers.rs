//! Reads each source of settings, checks it against the known keys, and merges them in order.
//!
//! Merging is done by the `config` crate, whose values carry their origin along. The files are
//! read here, because only the spans of the TOML parser know on which line a key stands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ::config::{Config, ConfigError, Map, Source, Value, ValueKind};
use toml::de::{DeTable, DeValue};

use crate::error::{Error, ErrorKind, Result, ResultExt, SourceLine, nearest};

use super::file::{self, KEYS, Key, PROJECT_FILE, Place};
use super::kind::Kind;
use super::origin::Origin;
use super::settings::Settings;
use super::words::{read_environment, read_overrides};

/// Where settings are read from. What is `None` or empty does not take part.
#[derive(Clone, Debug, Default)]
pub struct Sources<'a> {
    /// The user's own file; it need not exist.
    pub user_file: Option<PathBuf>,
    /// The project's file, which exists: from [`project_file`], or named by the user.
    pub project_file: Option<PathBuf>,
    /// The environment: `WINDLASS_CONTEXT__WARN_SIZE` is `context.warn-size`.
    pub environment: Option<&'a BTreeMap<String, String>>,
    /// `KEY=VALUE` of the command line.
    pub overrides: &'a [String],
}

/// Reads and merges all sources; later ones win: defaults, user, project, environment, command line.
///
/// # Errors
/// `InvalidConfig` for a key that does not exist, with file, line and the nearest key, and for a
/// value of the wrong form. `LocalIo` if a file cannot be read.
pub fn load(sources: &Sources<'_>) -> Result<Settings> {
    let mut layers = vec![defaults()];
    let mut warnings = Vec::new();
    if let Some(path) = sources.user_file.as_deref().filter(|path| path.exists()) {
        layers.push(read_file(path, |path, line| Origin::UserFile { path, line })?);
    }
    if let Some(path) = &sources.project_file {
        layers.push(read_file(path, |path, line| Origin::ProjectFile { path, line })?);
    }
    if let Some(environment) = sources.environment {
        layers.push(read_environment(environment, &mut warnings)?);
    }
    layers.push(read_overrides(sources.overrides)?);

    let origins: Origins = layers.iter().flat_map(|layer| layer.origins.clone()).collect();
    let merged = layers
        .into_iter()
        .fold(Config::builder(), |builder, layer| builder.add_source(layer))
        .build()
        .or_error(ErrorKind::InvalidConfig, || "the configuration cannot be merged")?;
    Settings::from_merged(merged, &origins, warnings)
}

/// Finds `windlass.toml` in a directory or the nearest one above it.
pub fn project_file(start: &Path) -> Option<PathBuf> {
    start.ancestors().map(|directory| directory.join(PROJECT_FILE)).find(|path| path.is_file())
}

/// The origins by the words that the merged values carry along.
pub(super) type Origins = BTreeMap<String, Origin>;

/// One source, read.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    values: Map<String, Value>,
    origins: Origins,
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> std::result::Result<Map<String, Value>, ConfigError> {
        Ok(self.values.clone())
    }
}

impl Layer {
    pub(super) fn set(&mut self, path: &[String], value: toml::Value, origin: Origin) {
        let shown = origin.to_string();
        let leaf = to_config(value, &shown);
        self.origins.insert(shown, origin);
        let Some((last, sections)) = path.split_last() else { return };
        let mut table = &mut self.values;
        for section in sections {
            let child =
                table.entry(section.clone()).or_insert_with(|| Value::new(None, Map::<String, Value>::new()));
            // The keys are checked: what is a section in one place is never a value in another.
            let ValueKind::Table(inner) = &mut child.kind else { return };
            table = inner;
        }
        table.insert(last.clone(), leaf);
    }
}

fn to_config(value: toml::Value, origin: &String) -> Value {
    let kind = match value {
        toml::Value::String(text) => ValueKind::String(text),
        toml::Value::Integer(number) => ValueKind::I64(number),
        toml::Value::Float(number) => ValueKind::Float(number),
        toml::Value::Boolean(flag) => ValueKind::Boolean(flag),
        toml::Value::Datetime(time) => ValueKind::String(time.to_string()),
        toml::Value::Array(items) => {
            ValueKind::Array(items.into_iter().map(|item| to_config(item, origin)).collect())
        }
        toml::Value::Table(table) => {
            ValueKind::Table(table.into_iter().map(|(key, value)| (key, to_config(value, origin))).collect())
        }
    };
    Value::new(Some(origin), kind)
}

fn defaults() -> Layer {
    let mut layer = Layer::default();
    for key in KEYS.iter().filter(|key| !key.path.contains('*')) {
        if let Some(value) = key.default.and_then(|default| key.kind.parse(default)) {
            let path: Vec<String> = key.path.split('.').map(str::to_owned).collect();
            layer.set(&path, value, Origin::Default);
        }
    }
    layer
}

fn read_file(path: &Path, origin: impl Fn(PathBuf, usize) -> Origin) -> Result<Layer> {
    let bytes = std::fs::read(path)
        .or_error(ErrorKind::LocalIo, || format!("could not read the configuration `{}`", path.display()))?;
    let text = String::from_utf8(bytes)
        .or_error(ErrorKind::InvalidConfig, || format!("`{}` is not UTF-8", path.display()))?;
    let file = File { path, text: &text, origin: &origin };
    let syntax = |error: toml::de::Error| file.syntax_error(&error);
    let values: toml::Table = toml::from_str(&text).map_err(syntax)?;
    let spans = DeTable::parse(&text).map_err(syntax)?;
    let mut layer = Layer::default();
    file.collect(&mut Vec::new(), values, spans.get_ref(), &mut layer)?;
    Ok(layer)
}

/// A file that is being read.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
    origin: &'a dyn Fn(PathBuf, usize) -> Origin,
}

impl File<'_> {
    fn collect(
        &self,
        path: &mut Vec<String>,
        table: toml::Table,
        spans: &DeTable<'_>,
        layer: &mut Layer,
    ) -> Result<()> {
        for (name, value) in table {
            let found = spans.iter().find(|(key, _)| key.get_ref().as_ref() == name);
            let offset = found.map_or(0, |(key, _)| key.span().start);
            let inner = match found.map(|(_, value)| value.get_ref()) {
                Some(DeValue::Table(inner)) => Some(inner),
                _ => None,
            };
            path.push(name);
            match (file::find(path), value, inner) {
                (Ok(Place::Section), toml::Value::Table(table), Some(inner)) => {
                    self.collect(path, table, inner, layer)?;
                }
                (Ok(Place::Section), ..) => return Err(self.locate(section_expected(path), offset)),
                (Ok(Place::Value(key)), value, _) => {
                    let value = self.normalise(path, key, value, offset)?;
                    layer.set(path, value, (self.origin)(self.path.to_owned(), self.line(offset)));
                }
                (Err(nearest), ..) => return Err(self.locate(file::unknown(path, nearest), offset)),
            }
            path.pop();
        }
        Ok(())
    }

    fn normalise(
        &self,
        path: &[String],
        key: &Key,
        value: toml::Value,
        offset: usize,
    ) -> Result<toml::Value> {
        let shown = value.to_string();
        let normal = key.kind.normalise(value, self.path.parent());
        normal.ok_or_else(|| self.locate(wrong_value(path, key, &shown), offset))
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count()
    }

    fn locate(&self, error: Error, offset: usize) -> Error {
        let line = self.line(offset);
        let text = self.text.lines().nth(line - 1).unwrap_or_default().to_owned();
        error.with_source_line(SourceLine { file: self.path.to_owned(), line, text })
    }

    fn syntax_error(&self, error: &toml::de::Error) -> Error {
        let message = format!("`{}` is not valid TOML", self.path.display());
        let located = Error::new(ErrorKind::InvalidConfig, message).with_source(error.message().to_owned());
        match error.span() {
            Some(span) => self.locate(located, span.start),
            None => located,
        }
    }
}

pub(super) fn wrong_value(path: &[String], key: &Key, shown: &str) -> Error {
    let message = format!("`{}` cannot be `{}`", file::show(path), shown.trim_matches('"'));
    let error = Error::new(ErrorKind::InvalidConfig, message);
    match key.kind {
        Kind::Choice(choices) => match nearest(shown.trim_matches('"'), choices.iter().copied()) {
            Some(choice) => {
                error.with_hint(format!("did you mean `{choice}`? it is one of {}", key.kind.describe()))
            }
            None => error.with_hint(format!("it is one of {}", key.kind.describe())),
        },
        kind => error.with_hint(format!("it is {}", kind.describe())),
    }
}

pub(super) fn section_expected(path: &[String]) -> Error {
    let message = format!("`{}` is a section, not a value", file::show(path));
    Error::new(ErrorKind::InvalidConfig, message)
        .with_hint(format!("write its keys one by one: `{}.KEY`", file::show(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loads a project file of this text, these variables and these overrides.
    fn load_all(project: &str, variables: &[(&str, &str)], overrides: &[&str]) -> Result<Settings> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(PROJECT_FILE);
        std::fs::write(&path, project).expect("a file");
        let environment =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        load(&Sources {
            user_file: Some(directory.path().join("absent.toml")),
            project_file: Some(path),
            environment: Some(&environment),
            overrides: &overrides,
        })
    }

    fn refused(project: &str, variables: &[(&str, &str)], overrides: &[&str]) -> Error {
        load_all(project, variables, overrides).expect_err("must be refused")
    }

    #[test]
    fn later_sources_win_and_each_value_keeps_its_origin() {
        let project = "default-backend = \"a\"\n\n[context]\nignore = false\nwarn-size = \"1MB\"\nmodes = \"normalize\"\n";
        let variables = [("WINDLASS_CONTEXT__WARN_SIZE", "2MB"), ("WINDLASS_CONTEXT__IGNORE", "on")];
        let settings = load_all(project, &variables, &["context.warn-size=3MiB"]).expect("valid");
        assert_eq!(settings.context.warn_size, 3 << 20);
        assert!(settings.context.ignore);
        assert_eq!(settings.default_backend, ["a"]);
        assert_eq!(settings.timeouts.connect, std::time::Duration::from_secs(10));
        assert_eq!(settings.origin("context.warn-size").to_string(), "--set context.warn-size=3MiB");
        assert_eq!(settings.origin("context.ignore"), Origin::Variable("WINDLASS_CONTEXT__IGNORE".into()));
        assert!(matches!(settings.origin("context.modes"), Origin::ProjectFile { line: 6, .. }));
        assert_eq!(settings.origin("context.timestamps"), Origin::Default);
        assert!(settings.values.iter().any(|v| v.key == "cache-dir" && v.value.is_none()));
    }

    #[test]
    fn an_unknown_key_names_file_line_and_the_nearest() {
        let error = refused("[context]\nignore = true\nwarn_size = 1\n", &[], &[]);
        assert_eq!(error.message(), "unknown configuration key `context.warn_size`");
        assert_eq!(error.hints(), ["did you mean `context.warn-size`?"]);
        let line = error.source_line().expect("a line");
        assert_eq!((line.line, line.text.as_str()), (3, "warn_size = 1"));

        let error = refused("", &[("WINDLASS_CONTEXT__WARN_SISE", "1")], &[]);
        assert_eq!(error.hints(), ["did you mean `WINDLASS_CONTEXT__WARN_SIZE`?"]);
        let error = refused("", &[], &["contxt.ignore=1"]);
        assert_eq!(error.details(), [("set in", "--set contxt.ignore=1".to_owned())]);
    }

    #[test]
    fn wrong_values_say_what_would_be_right() {
        for (project, hint) in [
            ("[context]\nignore = \"maybe\"", "it is `true` or `false`"),
            (
                "[context]\nmodes = \"normalise\"",
                "did you mean `normalize`? it is one of `keep`, `normalize`",
            ),
            ("[context]\nwarn-size = -1", "it is a size such as `500MB` or `64MiB`"),
            ("context = 1", "write its keys one by one: `context.KEY`"),
            ("[timeouts]\nbuild = \"soon\"", "it is a time span such as `90s` or `1h30m`"),
        ] {
            let error = refused(project, &[], &[]);
            assert_eq!((error.kind(), error.hints()), (ErrorKind::InvalidConfig, &[hint.to_owned()][..]));
            assert!(error.source_line().is_some(), "{project}");
        }
        let error = refused("[context\nignore = true", &[], &[]);
        assert_eq!(error.source_line().map(|line| line.line), Some(1));
        assert_eq!(refused("", &[], &["context.ignore"]).kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn names_of_the_user_may_have_dots() {
        let project = "[registries.\"127.0.0.1:5000\"]\nplain-http = true\nca-file = \"ca.pem\"\n\
                       [backends.staging]\ntype = \"docker\"\nargs = [\"--a\"]\n[backends.staging.tls]\nca = \"x\"\n";
        let settings = load_all(
            project,
            &[("WINDLASS_BACKENDS__STAGING__BUILDER", "b")],
            &[
                "registries.ghcr.io.mirrors=m.example.com",
                "registries.\"a.b:1\".plain-http=yes",
                "registries.ghcr.io.requests-per-minute=600",
            ],
        )
        .expect("valid");
        assert_eq!(settings.registries["127.0.0.1:5000"].plain_http, Some(true));
        assert!(
            settings.registries["127.0.0.1:5000"].ca_file.as_ref().is_some_and(|path| path.is_absolute())
        );
        assert_eq!(settings.registries["ghcr.io"].mirrors, ["m.example.com"]);
        assert_eq!(settings.registries["ghcr.io"].requests_per_minute, Some(600));
        assert_eq!(settings.registries["a.b:1"].plain_http, Some(true));
        let staging = &settings.backends["staging"];
        assert_eq!(staging.type_name.as_deref(), Some("docker"));
        let options: Vec<&str> = staging.options.keys().map(String::as_str).collect();
        assert_eq!(options, ["args", "builder", "tls"]);
        assert_eq!(
            staging.origins["builder"],
            Origin::Variable("WINDLASS_BACKENDS__STAGING__BUILDER".into())
        );
    }

    #[test]
    fn foreign_variables_are_left_alone_but_slips_are_not() {
        let variables = [("WINDLASS_SOMETHING_ELSE", "1"), ("WINDLASS_BACKEMD", "x"), ("WINDLASS_ENV", "x")];
        let settings = load_all("", &variables, &[]).expect("valid");
        assert_eq!(
            settings.warnings,
            ["the environment variable WINDLASS_BACKEMD means nothing; did you mean WINDLASS_BACKEND?"]
        );
    }
}

//! Settings that are single words: environment variables and `--set KEY=VALUE`.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result, nearest};

use super::file::{self, KEYS, Place};
use super::layers::{Layer, section_expected, wrong_value};
use super::origin::Origin;

/// Variables that mean something to windlass without being keys of the configuration.
const OTHER_VARIABLES: &[&str] = &["WINDLASS_BACKEND", "WINDLASS_ENV", "WINDLASS_CONFIG", "WINDLASS_LOG"];

const PREFIX: &str = "WINDLASS_";

/// `WINDLASS_A__B_C=…` is `a.b-c`. Names without `__` that are no key may belong to someone else: they
/// are left alone, with a warning where they look like a slip.
pub(super) fn read_environment(
    environment: &BTreeMap<String, String>,
    warnings: &mut Vec<String>,
) -> Result<Layer> {
    let mut layer = Layer::default();
    for (name, text) in environment {
        let Some(rest) = name.strip_prefix(PREFIX).filter(|rest| !rest.is_empty()) else { continue };
        if OTHER_VARIABLES.contains(&name.as_str()) || text.is_empty() {
            continue;
        }
        let path: Vec<String> =
            rest.split("__").map(|part| part.to_ascii_lowercase().replace('_', "-")).collect();
        let origin = || Origin::Variable(name.clone());
        match file::find(&path) {
            Ok(Place::Value(key)) => {
                let value = key.kind.parse(text).ok_or_else(|| {
                    wrong_value(&path, key, &format!("{text:?}")).with_detail("set in", origin().to_string())
                })?;
                layer.set(&path, value, origin());
            }
            Ok(Place::Section) | Err(_) if path.len() == 1 => {
                if let Some(meant) = nearest(name, variables().iter().map(String::as_str)) {
                    warnings.push(format!(
                        "the environment variable {name} means nothing; did you mean {meant}?"
                    ));
                }
            }
            Ok(Place::Section) => {
                return Err(section_expected(&path).with_detail("set in", origin().to_string()));
            }
            Err(nearest) => {
                let nearest = nearest.map(|key| variable_name(&key));
                return Err(file::unknown(&path, nearest).with_detail("set in", origin().to_string()));
            }
        }
    }
    Ok(layer)
}

fn variables() -> Vec<String> {
    let keys = KEYS.iter().filter(|key| !key.path.contains(['*', '.']));
    OTHER_VARIABLES
        .iter()
        .map(|name| (*name).to_owned())
        .chain(keys.map(|key| variable_name(key.path)))
        .collect()
}

fn variable_name(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").replace('-', "_").to_ascii_uppercase())
}

/// `--set KEY=VALUE`.
pub(super) fn read_overrides(overrides: &[String]) -> Result<Layer> {
    let mut layer = Layer::default();
    for typed in overrides {
        let origin = format!("--set {typed}");
        let (path, text) = split_override(typed).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, format!("`{origin}` is not `--set KEY=VALUE`"))
                .with_hint("for example `--set context.ignore=false`")
        })?;
        match file::find(&path) {
            Ok(Place::Value(key)) => {
                let value = key.kind.parse(text).ok_or_else(|| {
                    wrong_value(&path, key, &format!("{text:?}")).with_detail("set in", origin.clone())
                })?;
                layer.set(&path, value, Origin::Argument(origin));
            }
            Ok(Place::Section) => return Err(section_expected(&path).with_detail("set in", origin)),
            Err(nearest) => return Err(file::unknown(&path, nearest).with_detail("set in", origin)),
        }
    }
    Ok(layer)
}

/// Splits `a."b.c".d=value`. The host of a registry has dots and needs no quotes:
/// `registries.ghcr.io.mirrors` has three parts.
fn split_override(typed: &str) -> Option<(Vec<String>, &str)> {
    let mut path = vec![String::new()];
    let mut quoted = false;
    for (at, character) in typed.char_indices() {
        match character {
            '"' => quoted = !quoted,
            '.' if !quoted => path.push(String::new()),
            '=' if !quoted => {
                let path: Vec<String> = path.iter().map(|part| part.trim().to_owned()).collect();
                return path.iter().all(|part| !part.is_empty()).then(|| (join_host(path), &typed[at + 1..]));
            }
            other => path.last_mut()?.push(other),
        }
    }
    None
}

fn join_host(mut path: Vec<String>) -> Vec<String> {
    if path.len() > 3 && path[0] == "registries" {
        let last = path.len() - 1;
        let host = path[1..last].join(".");
        path.splice(1..last, [host]);
    }
    path
}

//! Makes a [`Recipe`] of its tables, and refuses what could not work.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::definition::{ConfigFile, HashTags, LockFile, Mode, Recipe, Scheme, SourceTree, Tags, Template};
use super::reader::{Item, Reader};
use super::render::INPUTS;
use super::{builtin, check, fill};
use crate::context::{ContextPath, IgnoreRules};
use crate::error::{Error, ErrorKind, Result, ResultExt, nearest};
use crate::reference::Reference;

/// Reads a recipe. What it does not say is as in `base`, the recipe that it extends.
///
/// # Errors
/// `InvalidConfig` with file, line and key; `LocalIo` for a template that cannot be read.
pub(super) fn read(name: &str, reader: &Reader<'_>, base: Option<&Recipe>) -> Result<Recipe> {
    check_name(name)?;
    let of =
        |value: Option<String>, field: fn(&Recipe) -> Option<String>| value.or_else(|| base.and_then(field));
    let (version, version_from) = version(reader, base)?;
    let mut recipe = Recipe {
        name: name.to_owned(),
        description: of(reader.text("description")?, |base| Some(base.description.clone()))
            .unwrap_or_default(),
        file: reader.file_of("").cloned(),
        above: reader.shown(""),
        template: template(reader, base)?,
        repository: repository(reader, base)?,
        repository_env: of(variable_name(reader)?, |base| base.repository_env.clone()),
        base_image: of(base_image(reader)?, |base| base.base_image.clone()),
        source: reader
            .text("source")?
            .map_or_else(|| base.map_or(".".into(), |base| base.source.clone()), Into::into),
        version,
        version_from,
        modes: modes(reader)?.or_else(|| base.map(|base| base.modes.clone())).unwrap_or(vec![Mode::Scratch]),
        lock_files: lock_files(reader)?
            .or_else(|| base.map(|base| base.lock_files.clone()))
            .unwrap_or_default(),
        hash: of(reader.text("hash")?, |base| Some(base.hash.clone())).unwrap_or_else(|| ".".to_owned()),
        sources: sources(reader)?.or_else(|| base.map(|base| base.sources.clone())).unwrap_or_default(),
        tags: tags(reader)?
            .or_else(|| base.map(|base| base.tags.clone()))
            .ok_or_else(|| reader.missing("tags", TAGS_HINT))?,
        config_file: config_file(reader)?.or_else(|| base.and_then(|base| base.config_file.clone())),
        variables: variables(reader, base)?,
    };
    reader.finish()?;
    if base.is_some_and(|base| base.tags == recipe.tags && base.hash() != recipe.hash()) {
        recipe.tags = with_recipe_hash(recipe.tags);
    }
    check::all(reader, &recipe)?;
    Ok(recipe)
}

/// The tags of a recipe that makes other images than the one whose tags it has taken over: each must not be
/// found for the other.
fn with_recipe_hash(tags: Tags) -> Tags {
    let Tags::Hashes(tags) = tags else { return tags };
    const HASH: &str = "_r{{ recipe_hash }}";
    let told_apart = |text: String| match fill::uses(&text, "recipe_hash") {
        true => text,
        false if text.contains("{{ extension }}") => {
            text.replacen("{{ extension }}", &format!("{HASH}{{{{ extension }}}}"), 1)
        }
        false => text + HASH,
    };
    let of_lock = tags.lock.is_some() && fill::uses(&tags.source, "lock");
    Tags::Hashes(HashTags {
        versioned: tags.versioned.map(told_apart),
        lock: tags.lock.map(told_apart),
        source: if of_lock { tags.source } else { told_apart(tags.source) },
    })
}

const TAGS_HINT: &str = "under `[…tags]`, `source` is the template of the tag of one image, for example \
                         `\"v{{ version }}_{{ lock_hash }}{{ extension }}_{{ source_hash }}\"`";

fn check_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.is_empty() || !name.bytes().all(plain) {
        let message = format!("`{name}` cannot be the name of a recipe");
        return Err(
            Error::new(ErrorKind::InvalidConfig, message).with_hint("use letters, digits, `-` and `_`")
        );
    }
    Ok(())
}

fn template(reader: &Reader<'_>, base: Option<&Recipe>) -> Result<Template> {
    let (path, text) = (reader.text("template")?, reader.text("template-text")?);
    let template = match (path, text) {
        (Some(_), Some(_)) => {
            let message = format!("`{}` and `template-text` exclude each other", reader.shown("template"));
            return Err(reader.error("template", message));
        }
        (None, None) => match base {
            Some(base) => return Ok(base.template.clone()),
            None => {
                let hint =
                    "it names the file of the template; or write the template itself as `template-text`";
                return Err(reader.missing("template", hint));
            }
        },
        (None, Some(text)) => Template { name: reader.named("template-text"), path: None, text },
        (Some(path), None) => template_file(reader, &path)?,
    };
    fill::check(&template.name, &template.text)?;
    Ok(template)
}

fn template_file(reader: &Reader<'_>, path: &str) -> Result<Template> {
    let Some(file) = reader.file_of("template") else {
        let text = builtin::template(path);
        let text = text.ok_or_else(|| reader.wrong("template", "a template beside the recipe"))?;
        return Ok(Template { name: path.to_owned(), path: None, text: text.to_owned() });
    };
    let path = file.parent().unwrap_or(Path::new("")).join(path);
    let text = std::fs::read_to_string(&path).map_err(|source| {
        let message = format!("could not read the template `{}`", path.display());
        let key = reader.error("template", message).with_detail("key", reader.shown("template"));
        key.with_source(source).with_hint("the path starts at the file that the recipe stands in")
    })?;
    Ok(Template { name: path.display().to_string(), path: Some(path), text })
}

fn repository(reader: &Reader<'_>, base: Option<&Recipe>) -> Result<String> {
    let Some(text) = reader.text("repository")? else {
        return base.map(|base| base.repository.clone()).ok_or_else(|| {
            reader.missing("repository", "it is where the images belong, such as `ghcr.io/acme/runtime`")
        });
    };
    let reference = text.parse::<Reference>().map_err(|cause| {
        reader.wrong("repository", "a repository such as `ghcr.io/acme/runtime`").with_source(cause)
    })?;
    let typed = super::TypedImage::new(&text);
    if typed.tag.is_some() || reference.digest().is_some() {
        return Err(reader.wrong("repository", "a repository without tag: the tags stand under `tags`"));
    }
    Ok(text)
}

fn variable_name(reader: &Reader<'_>) -> Result<Option<String>> {
    let name = reader.text("repository-env")?;
    match name.as_deref().is_none_or(is_identifier) {
        true => Ok(name),
        false => Err(reader.wrong("repository-env", "the name of an environment variable")),
    }
}

fn base_image(reader: &Reader<'_>) -> Result<Option<String>> {
    let Some(text) = reader.text("base-image")? else { return Ok(None) };
    match text.parse::<Reference>() {
        Ok(_) => Ok(Some(text)),
        Err(cause) => Err(reader.wrong("base-image", "an image such as `debian:12`").with_source(cause)),
    }
}

fn version(reader: &Reader<'_>, base: Option<&Recipe>) -> Result<(Option<String>, Option<String>)> {
    match (reader.text("version")?, reader.text("version-from")?) {
        (Some(_), Some(_)) => {
            let message = format!("`{}` and `version-from` exclude each other", reader.shown("version"));
            Err(reader.error("version", message))
        }
        (None, None) => {
            Ok(base.map_or((None, None), |base| (base.version.clone(), base.version_from.clone())))
        }
        (version, from) => {
            if from.as_ref().is_some_and(|from| place_below(from).is_none()) {
                return Err(reader.wrong("version-from", "a file in the source directory"));
            }
            Ok((version, from))
        }
    }
}

fn modes(reader: &Reader<'_>) -> Result<Option<Vec<Mode>>> {
    let Some(names) = reader.texts("modes")? else { return Ok(None) };
    let known = Mode::ALL.map(Mode::name);
    let mut modes = Vec::new();
    for name in &names {
        let Some(mode) = Mode::ALL.into_iter().find(|mode| mode.name() == name) else {
            let error =
                reader.error("modes", format!("unknown mode `{name}` in `{}`", reader.shown("modes")));
            return Err(match nearest(name, known) {
                Some(near) => error.with_hint(format!("did you mean `{near}`?")),
                None => error.with_hint(format!("known modes: {}", known.join(", "))),
            });
        };
        modes.push(mode);
    }
    modes.sort_unstable();
    modes.dedup();
    Ok(Some(modes))
}

fn lock_files(reader: &Reader<'_>) -> Result<Option<Vec<LockFile>>> {
    let Some(items) = reader.items("lock-files")? else { return Ok(None) };
    let read = |item| match item {
        Item::Text(path) => {
            let destination = path.rsplit('/').next().unwrap_or(&path).to_owned();
            match place_below(&path) {
                Some(_) => Ok(LockFile { path, destination }),
                None => Err(reader.wrong("lock-files", IN_SOURCE)),
            }
        }
        Item::Table(table) => {
            let path = required(&table, "path")?;
            if place_below(&path).is_none() {
                return Err(table.wrong("path", IN_SOURCE));
            }
            let destination = destination(&table)?;
            table.finish()?;
            Ok(LockFile { path, destination })
        }
    };
    items.into_iter().map(read).collect::<Result<_>>().map(Some)
}

const IN_SOURCE: &str = "a file by its path in the source directory";

fn required(table: &Reader<'_>, key: &'static str) -> Result<String> {
    table.text(key)?.ok_or_else(|| table.missing(key, "it says what is copied, and where to"))
}

fn destination(table: &Reader<'_>) -> Result<String> {
    let destination = required(table, "destination")?;
    fill::check(&table.named("destination"), &destination)?;
    match destination.starts_with('/') || ContextPath::clean(&destination).is_none() {
        true => Err(table.wrong("destination", "a path in the build folder, such as `code/app`")),
        false => Ok(destination),
    }
}

fn sources(reader: &Reader<'_>) -> Result<Option<Vec<SourceTree>>> {
    let Some(items) = reader.items("sources")? else { return Ok(None) };
    let read = |item| {
        let Item::Table(table) = item else {
            return Err(reader.wrong("sources", "a list of tables: write `[[…sources]]` above each"));
        };
        let path = required(&table, "path")?;
        if check::levels(&path).is_none() {
            return Err(table.wrong("path", "a path from the source directory; `..` may only begin it"));
        }
        let source = SourceTree {
            path,
            destination: destination(&table)?,
            ignore: ignore(&table)?,
            optional: table.flag("optional")?.unwrap_or(false),
            hashed: table.flag("hashed")?.unwrap_or(true),
        };
        table.finish()?;
        Ok(source)
    };
    items.into_iter().map(read).collect::<Result<_>>().map(Some)
}

fn ignore(table: &Reader<'_>) -> Result<Vec<String>> {
    let rules = table.texts("ignore")?.unwrap_or_default();
    for rule in &rules {
        if let Err(cause) = IgnoreRules::parse_git(rule, Path::new("")) {
            let message = format!("the pattern `{rule}` of `{}` is not valid", table.shown("ignore"));
            return Err(table
                .error("ignore", message)
                .with_hint("patterns are those of `.gitignore`")
                .with_source(cause.message().to_owned()));
        }
    }
    Ok(rules)
}

fn tags(reader: &Reader<'_>) -> Result<Option<Tags>> {
    let Some(table) = reader.table("tags")? else { return Ok(None) };
    let (scheme, source) = (table.text("scheme")?, table.text("source")?);
    let (lock, versioned) = (table.text("lock")?, table.text("versioned")?);
    table.finish()?;
    let Some(scheme) = scheme else {
        let source = source.ok_or_else(|| table.missing("source", TAGS_HINT))?;
        for (key, text) in
            [("source", Some(&source)), ("lock", lock.as_ref()), ("versioned", versioned.as_ref())]
        {
            text.map_or(Ok(()), |text| fill::check(&table.named(key), text))?;
        }
        return Ok(Some(Tags::Hashes(HashTags { versioned, lock, source })));
    };
    if source.or(lock).or(versioned).is_some() {
        let message = format!("`{}` excludes templates of tags", table.shown("scheme"));
        return Err(table.error("scheme", message));
    }
    match scheme.as_str() {
        "agent-server" => Ok(Some(Tags::Scheme { scheme: Scheme::AgentServer })),
        other => {
            let error = table.error("scheme", format!("unknown scheme of tags `{other}`"));
            Err(match nearest(other, ["agent-server"]) {
                Some(near) => error.with_hint(format!("did you mean `{near}`?")),
                None => error.with_hint("there is `agent-server`; or write templates, first of all `source`"),
            })
        }
    }
}

fn config_file(reader: &Reader<'_>) -> Result<Option<ConfigFile>> {
    let Some(table) = reader.table("config-file")? else { return Ok(None) };
    let (name, text) = (table.text("name")?, table.text("text")?);
    table.finish()?;
    let hint = "`name` is the name of the file, `text` what each build adds to it";
    let name = name.ok_or_else(|| table.missing("name", hint))?;
    let text = text.ok_or_else(|| table.missing("text", hint))?;
    if name.contains('/') || matches!(name.as_str(), "." | ".." | "Dockerfile") {
        return Err(table.wrong("name", "the name of a file beside the Dockerfile"));
    }
    fill::check(&table.named("text"), &text)?;
    Ok(Some(ConfigFile { name, text }))
}

fn variables(reader: &Reader<'_>, base: Option<&Recipe>) -> Result<BTreeMap<String, Value>> {
    let mut variables = base.map(|base| base.variables.clone()).unwrap_or_default();
    let Some(table) = reader.table("variables")? else { return Ok(variables) };
    for (name, value) in table.all() {
        let shown = table.shown(name);
        if INPUTS.contains(&name.as_str()) {
            let message = format!("`{shown}` cannot be set: every template has `{name}` already");
            return Err(table.error(name, message).with_hint("choose another name"));
        }
        if !is_identifier(name) {
            return Err(table
                .error(name, format!("`{shown}` is no name that a template can use"))
                .with_hint("use letters, digits and `_`"));
        }
        let value = serde_json::to_value(value)
            .or_error(ErrorKind::InvalidConfig, || format!("`{shown}` cannot be read"))?;
        variables.insert(name.clone(), value);
    }
    Ok(variables)
}

fn is_identifier(name: &str) -> bool {
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    begins && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A path that stays below where it starts; `None` for any other.
fn place_below(path: &str) -> Option<ContextPath> {
    let inside = !path.starts_with('/') && !path.split('/').any(|part| part == "..");
    inside.then(|| ContextPath::clean(path)).flatten()
}

#[cfg(test)]
mod tests;

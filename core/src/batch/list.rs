//! A list of images, read as a whole: from TOML, JSON lines, or a Bake file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::bake;
use super::draft::Draft;
use super::entry::Entry;
use super::fields::refuse_doubles;
use super::loader::{Loader, Paths};
use super::located::{Field, Lines, Located, Raw, fields_of_toml};
use super::problems::Problems;
use crate::context::ContextSettings;
use crate::error::{Error, ErrorKind, Result, ResultExt, nearest};
use crate::output::Output;
use crate::recipe::Recipes;

/// More is no list.
const LIMIT_BYTES: u64 = 64 << 20;

/// Images that are asked for together.
#[derive(Clone, Debug)]
pub struct List {
    /// Its file, as it was named.
    pub file: PathBuf,
    /// In the order of the file.
    pub entries: Vec<Entry>,
}

/// What a list is read with.
#[derive(Clone, Copy, Debug)]
pub struct ListOptions<'a> {
    /// The directory that relative paths start from: of the list itself, and in Bake files all others.
    pub current_dir: &'a Path,
    /// The environment: variables of a Bake file take their values from it.
    pub environment: &'a BTreeMap<String, String>,
    /// How contexts are read.
    pub context: &'a ContextSettings,
    /// The recipes that there are.
    pub recipes: &'a Recipes,
    /// Where the images go, whatever the list says; `None` leaves it to the list, and else to the store.
    pub outputs: Option<&'a [Output]>,
    /// Only these: names of images, or of targets and groups of a Bake file. All if empty; of a Bake file
    /// `default`.
    pub only: &'a [String],
    /// The names of the backends, in their order: an image that stays in the store of one is in no other's.
    pub backends: &'a [String],
    /// `SOURCE_DATE_EPOCH`, where nothing else is said.
    pub source_date_epoch: Option<i64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Toml,
    JsonLines,
    BakeHcl,
    BakeJson,
}

impl List {
    /// Reads a list and everything that it names: contexts, Dockerfiles, recipes. Nothing of it is built.
    /// Blocking.
    ///
    /// # Errors
    /// `InvalidInput` with all that is wrong in the file, each with its line; `LocalIo` if it cannot be read.
    pub fn read(file: &Path, options: &ListOptions<'_>) -> Result<Self> {
        let form = form(file)?;
        let text = read_text(file, &options.current_dir.join(file))?;
        let mut problems = Problems::of(file);
        let drafts = match form {
            Form::Toml => toml_list(&text, &mut problems),
            Form::JsonLines => json_lines(&text, &mut problems),
            Form::BakeHcl | Form::BakeJson => {
                let environment = options.environment;
                bake::read(&text, form == Form::BakeJson, environment, options.only, &mut problems)
            }
        };
        let paths = match form {
            Form::Toml | Form::JsonLines => {
                Paths::OfTheList(file.parent().unwrap_or(Path::new("")).to_owned())
            }
            Form::BakeHcl | Form::BakeJson => Paths::OfBake,
        };
        let by_name = matches!(form, Form::Toml | Form::JsonLines) && !options.only.is_empty();
        let mut entries = Loader::new(options, paths, &mut problems).load(drafts);
        if by_name {
            choose(&mut entries, options.only, &mut problems)?;
        }
        if entries.is_empty() && problems.is_empty() {
            problems.add(1, "there is no image in it");
        }
        problems.finish()?;
        Ok(Self { file: file.to_owned(), entries })
    }
}

/// What a list is written in, by its name.
fn form(file: &Path) -> Result<Form> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => Ok(Form::Toml),
        Some("jsonl" | "ndjson") => Ok(Form::JsonLines),
        Some("hcl") => Ok(Form::BakeHcl),
        Some("json") => Ok(Form::BakeJson),
        _ => Err(Error::new(ErrorKind::InvalidInput, format!("`{}` is no list of images", file.display()))
            .with_hint("a list is a `.toml` or `.jsonl` file, or a Bake file: `.hcl` or `.json`")),
    }
}

fn read_text(shown: &Path, path: &Path) -> Result<String> {
    let shown = shown.display();
    let too_large = || Error::new(ErrorKind::InvalidInput, format!("`{shown}` is too large for a list"));
    match std::fs::metadata(path) {
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::new(ErrorKind::InvalidInput, format!("the list `{shown}` does not exist")));
        }
        Ok(metadata) if metadata.len() > LIMIT_BYTES => return Err(too_large()),
        _ => {}
    }
    let bytes = std::fs::read(path).or_error(ErrorKind::LocalIo, || format!("could not read `{shown}`"))?;
    let text =
        String::from_utf8(bytes).or_error(ErrorKind::InvalidInput, || format!("`{shown}` is not UTF-8"))?;
    // Some editors begin files with a mark.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// `[[image]]` tables; all else at the top are defaults.
fn toml_list(text: &str, problems: &mut Problems) -> Vec<Draft> {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = error.span().map_or(1, |span| lines.at(span.start));
        problems.add(line, error.message().replace('\n', ", "));
    }
    if !errors.is_empty() {
        return Vec::new();
    }
    let (images, mut defaults): (Vec<Field>, Vec<Field>) =
        fields_of_toml(table.get_ref(), &lines).into_iter().partition(|field| field.name == "image");
    let looks_like_images = |field: &mut Field| matches!(field.name.as_str(), "images" | "Image");
    for field in defaults.extract_if(.., looks_like_images) {
        problems.add(field.line, format!("`{}` is not a key: images are `[[image]]` tables", field.name));
    }
    let items = match images.into_iter().next().map(|field| (field.line, field.value.value)) {
        Some((_, Raw::List(items))) => items,
        Some((line, _)) => {
            problems.add(line, "`image` is not a list: write `[[image]]`");
            return Vec::new();
        }
        None => Vec::new(),
    };
    refuse_doubles(&defaults, problems);
    drafts(&defaults, items, problems)
}

/// An image a line. A line of `{"defaults": {…}}` is for those that follow.
fn json_lines(text: &str, problems: &mut Problems) -> Vec<Draft> {
    let mut defaults = Vec::new();
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let number = index + 1;
        let item = match serde_json::from_str(line) {
            Ok(value) => Located::from_json(value, number),
            Err(error) => {
                let text = error.to_string();
                let text = text.split(" at line ").next().unwrap_or_default().to_owned();
                problems.add(number, format!("this is not JSON: {text} (column {})", error.column()));
                continue;
            }
        };
        match &item.value {
            Raw::Table(fields) if matches!(&fields[..], [field] if field.name == "defaults") => {
                match &fields[0].value.value {
                    Raw::Table(inner) => {
                        refuse_doubles(inner, problems);
                        defaults = inner.clone();
                    }
                    _ => problems.add(number, "`defaults` must be a table"),
                }
            }
            _ => found.append(&mut drafts(&defaults, vec![item], problems)),
        }
    }
    found
}

fn drafts(defaults: &[Field], items: Vec<Located>, problems: &mut Problems) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for item in items {
        match item.value {
            Raw::Table(fields) => drafts.push(Draft::read(item.line, defaults, fields, problems)),
            _ => problems.add(item.line, "an image must be a table of keys"),
        }
    }
    drafts
}

/// Keeps the images that were asked for by name.
fn choose(entries: &mut Vec<Entry>, only: &[String], problems: &mut Problems) -> Result<()> {
    let names: Vec<String> = entries.iter().map(|entry| entry.name.clone()).collect();
    // Names of images that could not be read are not known.
    if !problems.is_empty() {
        return Ok(());
    }
    for wanted in only {
        if !names.contains(wanted) {
            let message = format!("`{}` has no image `{wanted}`", problems.file().display());
            let error = Error::new(ErrorKind::InvalidInput, message);
            return Err(match nearest(wanted, names.iter().map(String::as_str)) {
                Some(name) => error.with_hint(format!("did you mean `{name}`?")),
                None => error.with_hint("`windlass batch FILE --dry-run` shows their names"),
            });
        }
    }
    entries.retain(|entry| only.contains(&entry.name));
    Ok(())
}

#[cfg(test)]
mod tests;

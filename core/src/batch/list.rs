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
    String::from_utf8(bytes).or_error(ErrorKind::InvalidInput, || format!("`{shown}` is not UTF-8"))
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
    let (images, defaults): (Vec<Field>, Vec<Field>) =
        fields_of_toml(table.get_ref(), &lines).into_iter().partition(|field| field.name == "image");
    let unknown = defaults.iter().find(|field| matches!(field.name.as_str(), "images" | "Image"));
    if let Some(field) = unknown {
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
mod tests {
    use std::sync::Arc;

    use super::super::entry::Work;
    use super::*;
    use crate::backend::Job;
    use crate::request::BuildRequest;

    fn read(files: &[(&str, &str)], list: &str) -> Result<(List, tempfile::TempDir)> {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, content) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            std::fs::write(path, content).expect("write");
        }
        let recipes = Recipes::builtin().expect("recipes");
        let options = ListOptions {
            current_dir: dir.path(),
            environment: &BTreeMap::new(),
            context: &ContextSettings::default(),
            recipes: &recipes,
            outputs: None,
            only: &[],
            backends: &[],
            source_date_epoch: Some(7),
        };
        List::read(Path::new(list), &options).map(|list| (list, dir))
    }

    fn request(entry: &Entry) -> &BuildRequest {
        match &entry.work {
            Work::Dockerfile(request) => request,
            Work::Recipe(_) => panic!("{entry:?}"),
        }
    }

    const DOCKERFILE: &str = "ARG BASE_IMAGE=scratch\nFROM $BASE_IMAGE\n";

    #[test]
    fn defaults_are_merged_and_paths_start_at_the_list() {
        let list = "platforms = [\"linux/amd64\"]\nbuild_args = { A = \"1\", B = \"1\" }\nbase = \"debian:11\"\n\
                    dockerfile = \"other.Dockerfile\"\n\
                    [[image]]\ntags = [\"r/a:1\"]\nbuild-args = { B = 2 }\nplatforms = []\n\
                    [[image]]\nbase-image = \"debian:12\"\ntags = [\"r/b:1\"]\ncontext = \"sub\"\n";
        let files = [
            ("lists/l.toml", list),
            ("lists/other.Dockerfile", DOCKERFILE),
            ("lists/sub/other.Dockerfile", "FROM scratch\n"),
        ];
        let (list, dir) = read(&files, "lists/l.toml").expect("valid");
        let [first, second] = &list.entries[..] else { panic!("{list:?}") };
        let args = |entry| {
            let pairs = request(entry).build_args.iter().map(|(name, value)| format!("{name}={value}"));
            pairs.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(args(first), "A=1 B=2 BASE_IMAGE=debian:11");
        assert_eq!(args(second), "A=1 B=1 BASE_IMAGE=debian:12");
        assert!(request(first).platforms.is_empty() && request(second).platforms.len() == 1);
        assert_eq!((first.name.as_str(), first.line, request(first).source_date_epoch), ("a-1", 5, Some(7)));
        let place = |entry| request(entry).context.root().map(Path::to_owned);
        assert_eq!(place(first), Some(dir.path().join("lists")));
        assert_eq!(place(second), Some(dir.path().join("lists/sub")));
        // A Dockerfile beside the list stands before one in the context.
        assert_eq!(second.made_by(), "lists/other.Dockerfile");
        assert_ne!(first.hash, second.hash);
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused() {
        let list = "no_cache = true\nno-cache = false\n\
                    [[image]]\ntags = [\"r/a:1\"]\nbuild_args = { A = \"1\" }\nbuild-args = { A = \"2\" }\n\
                    [[image]]\ntags = [\"r/a:2\"]\nbase = \"debian:11\"\nbase-image = \"debian:12\"\n";
        let error = read(&[("l.toml", list), ("Dockerfile", DOCKERFILE)], "l.toml").expect_err("doubles");
        for words in [
            "l.toml:2: `no_cache` and `no-cache` say the same",
            "l.toml:6: `build_args` and `build-args` say the same",
            "l.toml:9: `base-image` and `base` say the same",
        ] {
            assert!(error.details()[0].1.contains(words), "{error:?}");
        }
    }

    #[test]
    fn images_of_one_context_are_listed_once() {
        let list =
            "{\"defaults\": {\"context\": \"app\"}}\n{\"tags\": [\"r/a:1\"]}\n\n{\"tags\": [\"r/a:2\"]}\n";
        let files = [("l.jsonl", list), ("app/Dockerfile", DOCKERFILE), ("app/x", "x")];
        let (list, _dir) = read(&files, "l.jsonl").expect("valid");
        let listed =
            |index: usize| request(&list.entries[index]).context.list_once(&Job::silent()).expect("listed");
        assert!(Arc::ptr_eq(&listed(0), &listed(1)));
        assert_eq!(list.entries[1].line, 4);
        assert_eq!(list.entries[0].shares, list.entries[1].shares);
    }

    #[test]
    fn the_hash_counts_the_dockerfile_and_not_the_name() {
        let list = "{\"tags\": [\"r/a:1\"], \"dockerfile\": \"a\"}\n{\"tags\": [\"r/a:2\"], \"dockerfile\": \"b\"}\n";
        let hashes_on = |list: &str, dir: &Path, backends: &[String], outputs: Option<&[Output]>| {
            std::fs::write(dir.join("l.jsonl"), list).expect("write");
            let recipes = Recipes::builtin().expect("recipes");
            let options = ListOptions {
                current_dir: dir,
                environment: &BTreeMap::new(),
                context: &ContextSettings::default(),
                recipes: &recipes,
                outputs,
                only: &[],
                backends,
                source_date_epoch: None,
            };
            let list = List::read(Path::new("l.jsonl"), &options).expect("valid");
            list.entries.into_iter().map(|entry| entry.hash).collect::<Vec<_>>()
        };
        let hashes = |list: &str, dir: &Path| hashes_on(list, dir, &[], None);
        let files = [("l.jsonl", list), ("a", DOCKERFILE), ("b", DOCKERFILE)];
        let (_, dir) = read(&files, "l.jsonl").expect("valid");
        let before = hashes(list, dir.path());
        let named = list.replacen("{", "{\"name\": \"other\", ", 1);
        assert_eq!(hashes(&named, dir.path()), before);
        std::fs::write(dir.path().join("b"), "FROM scratch\n").expect("write");
        let after = hashes(list, dir.path());
        assert_eq!((&after[0], after[1] == before[1]), (&before[0], false));
        // In the store of one backend is not in that of another; in a registry is.
        let docker = ["docker".to_owned()];
        assert_ne!(hashes_on(list, dir.path(), &docker, None), after);
        let pushed = [Output::push()];
        let on = |backends: &[String]| hashes_on(list, dir.path(), backends, Some(&pushed));
        assert_eq!(on(&docker), on(&[]));
    }
}

//! What the keys of a recipe must be to one another: alone each is right, and still it could not work.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::build_folder::DOCKERFILE;
use super::definition::{Mode, Recipe, TagValues, Tags};
use super::reader::Reader;
use crate::context::ContextPath;
use crate::error::Result;

/// Checks a recipe that is read.
///
/// # Errors
/// `InvalidConfig` with file, line and key.
pub(super) fn all(reader: &Reader<'_>, recipe: &Recipe) -> Result<()> {
    check_modes(reader, recipe)?;
    check_places(reader, recipe)?;
    check_tags(reader, recipe)
}

/// How many levels a path goes up, and the parts that it goes down then. `None` for a path that does
/// both by turns, or starts at the root of the machine.
pub(super) fn levels(path: &str) -> Option<(usize, Vec<&str>)> {
    if path.starts_with('/') {
        return None;
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let up = parts.iter().take_while(|part| **part == "..").count();
    let down = parts[up..].to_vec();
    (!down.contains(&"..")).then_some((up, down))
}

/// Modes need the tag by which the image is found that they start from, and the other way round.
fn check_modes(reader: &Reader<'_>, recipe: &Recipe) -> Result<()> {
    if !recipe.has_mode(Mode::Scratch) {
        return Err(
            reader.wrong("modes", "a list with `scratch`: the first image starts from the base image")
        );
    }
    let Tags::Hashes(tags) = &recipe.tags else {
        return match recipe.modes[..] {
            [Mode::Scratch] => Ok(()),
            _ => Err(reader.wrong("modes", "`scratch` alone: this scheme of tags reuses nothing")),
        };
    };
    for (mode, tag) in [(Mode::Lock, &tags.lock), (Mode::Versioned, &tags.versioned)] {
        let name = mode.name();
        if recipe.has_mode(mode) && tag.is_none() {
            let hint = format!("the mode `{name}` starts from the image of this tag");
            return Err(reader.missing(&format!("tags.{name}"), &hint));
        }
        if !recipe.has_mode(mode) && tag.is_some() {
            let message =
                format!("`{}` is never used: `modes` has no `{name}`", reader.shown(&format!("tags.{name}")));
            return Err(reader
                .error("tags", message)
                .with_hint(format!("add `{name}` to `modes`, or leave the tag out")));
        }
    }
    Ok(())
}

/// What is copied must have been hashed, or its changes would go unseen; and no two things have one place.
fn check_places(reader: &Reader<'_>, recipe: &Recipe) -> Result<()> {
    let Some((up, down)) = levels(&recipe.hash) else {
        return Err(reader.wrong("hash", "a directory by its path from the source directory"));
    };
    for source in recipe.sources.iter().filter(|source| source.hashed && recipe.scheme().is_none()) {
        let inside = levels(&source.path).is_some_and(|(source_up, source_down)| match source_up.cmp(&up) {
            Ordering::Equal => source_down.starts_with(&down),
            // Above the source directory, only the way down that leads to it could be told apart by name.
            Ordering::Less => down.is_empty(),
            Ordering::Greater => false,
        });
        if !inside {
            let message = format!("the source `{}` lies outside of what the source hash counts", source.path);
            return Err(reader.error("sources", message).with_hint(format!(
                "a change of it would go unseen: hash a directory above both (`hash = \"{}\"` now), or say that \
                 you accept it with `hashed = false`", recipe.hash
            )));
        }
    }
    let hashed = recipe.sources.iter().filter(|source| source.hashed && recipe.scheme().is_none());
    if let Some(source) = hashed.into_iter().find(|source| leaves_hash(&source.path)) {
        return Err(reader.error("sources", unhashed(&source.path)).with_hint(UNHASHED_HINT));
    }
    check_destinations(reader, recipe)
}

pub(super) const UNHASHED_HINT: &str =
    "a change of it would go unseen: keep it elsewhere, or say that you accept it with `hashed = false`";

/// The message about a source that the rules of the hash are about.
pub(super) fn unhashed(path: &str) -> String {
    format!("the source hash leaves `{path}` out, as it does hidden directories, `__pycache__` and `*.pyc`")
}

/// Says whether the source hash leaves out what lies at a path. That a hidden name at its end is a file,
/// which counts, shows on disk alone.
fn leaves_hash(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect();
    let Some((_, above)) = parts.split_last() else { return false };
    let ignored = |part: &&str| *part == "__pycache__" || part.ends_with(".pyc");
    parts.iter().any(ignored) || above.iter().any(|part| part.starts_with('.'))
}

/// No two things have one place, and nothing lies below a file, or where the Dockerfile is.
fn check_destinations(reader: &Reader<'_>, recipe: &Recipe) -> Result<()> {
    let place = |destination: &str| ContextPath::clean(destination).unwrap_or_default();
    let mut taken = BTreeMap::from([(place(DOCKERFILE), ("the Dockerfile", true))]);
    let name = recipe.config_file.as_ref().map(|file| file.name.as_str());
    taken.extend(name.map(|name| (place(name), ("the configuration file", true))));
    let locks = recipe.lock_files.iter().map(|file| (&file.destination, &file.path, true));
    let sources = recipe.sources.iter().map(|source| (&source.destination, &source.path, false));
    for (destination, path, is_file) in locks.chain(sources) {
        if let Some((other, _)) = taken.insert(place(destination), (path, is_file)) {
            let message = format!("`{other}` and `{path}` are both copied to `{destination}`");
            return Err(reader.error(if is_file { "lock-files" } else { "sources" }, message));
        }
    }
    for (at, (path, _)) in &taken {
        let above =
            taken.iter().find(|(above, (_, is_file))| *is_file && at != *above && at.below(above).is_some());
        if let Some((above, (file, _))) = above {
            let message = format!("`{path}` would be copied into `{above}`, which is a file: `{file}`");
            return Err(reader.error("sources", message));
        }
    }
    Ok(())
}

/// Tags must tell apart what they stand for: one that leaves a hash out would be found for images of
/// something else.
fn check_tags(reader: &Reader<'_>, recipe: &Recipe) -> Result<()> {
    let Tags::Hashes(_) = recipe.tags else { return Ok(()) };
    let some = TagValues {
        version: "1.0.0",
        base_image: "debian:12",
        lock_hash: "aaaaaaaaaaaaaaaa",
        source_hash: "bbbbbbbbbbbbbbbb",
        extension: "",
    };
    let before = recipe.hashed_tags(&some)?;
    let must = |key: &str, differs: bool, value: &str| match differs {
        true => Ok(()),
        false => {
            let shown = reader.shown(&format!("tags.{key}"));
            let message = format!("the template `{shown}` does not hang on `{value}`");
            Err(reader.error("tags", message).with_hint(format!(
                "images that differ in it would have the same tag: write `{{{{ {value} }}}}` into it"
            )))
        }
    };
    let after = recipe.hashed_tags(&TagValues { source_hash: "c", ..some })?;
    must("source", before.source != after.source, "source_hash")?;
    let after = recipe.hashed_tags(&TagValues { lock_hash: "c", ..some })?;
    must("source", before.source != after.source, "lock_hash")?;
    must("lock", before.lock.is_none() || before.lock != after.lock, "lock_hash")?;
    let after = recipe.hashed_tags(&TagValues { extension: "_xc", ..some })?;
    must("source", before.source != after.source, "extension")?;
    must("lock", before.lock.is_none() || before.lock != after.lock, "extension")?;
    let after = recipe.hashed_tags(&TagValues { base_image: "c", ..some })?;
    must("versioned", before.versioned.is_none() || before.versioned != after.versioned, "base_slug")
}

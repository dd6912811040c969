//! The common subset of Docker's Bake files: targets, groups, `inherits`, variables with their environment.
//!
//! What Bake knows and this does not is refused by name and line; nothing is left out in silence. Rules:
//! docker/buildx, `docs/bake-reference.md`.

mod evaluate;
mod functions;
mod parse;

use std::collections::{BTreeMap, BTreeSet};

use evaluate::Scope;
use parse::{Block, File};

use super::draft::{Draft, Text};
use super::fields::{Fields, refuse_doubles};
use super::located::{Field, Raw};
use super::problems::Problems;
use crate::error::nearest;

/// More targets or groups that lead to one another are a mistake.
const LIMIT_DEPTH: usize = 100;

/// What is built where nothing is named.
const DEFAULT: &str = "default";

/// Lists that grow from target to target; others are replaced. Tables always grow.
const GROWING: [&str; 6] = ["annotations", "attest", "cache-from", "no-cache-filter", "secret", "ssh"];

/// Options that only BuildKit understands, with the option of `docker buildx build` that each is.
const ENGINE_OPTIONS: [(&str, &str); 8] = [
    ("attest", "--attest"),
    ("cache-from", "--cache-from"),
    ("cache-to", "--cache-to"),
    ("entitlements", "--allow"),
    ("no-cache-filter", "--no-cache-filter"),
    ("secret", "--secret"),
    ("ssh", "--ssh"),
    ("ulimits", "--ulimit"),
];

/// Reads a Bake file, and gives its targets: those of `only` and of the groups among them.
pub(super) fn read(
    text: &str,
    is_json: bool,
    environment: &BTreeMap<String, String>,
    only: &[String],
    problems: &mut Problems,
) -> Vec<Draft> {
    let file = match is_json {
        true => File::of_json(text, problems),
        false => File::of_hcl(text, problems),
    };
    if !problems.is_empty() {
        return Vec::new();
    }
    let scope = Scope::of(&file, environment, problems);
    let mut evaluated = |blocks: &[Block]| {
        let mut targets = BTreeMap::new();
        for block in blocks {
            for inner in &block.blocks {
                let text = format!("unknown block `{}` of `{}`", inner.label, block.label);
                problems.add(inner.line, text);
            }
            let fields = block.attributes.iter().filter_map(|attribute| scope.field(attribute, problems));
            let fields: Vec<Field> = fields.collect();
            refuse_doubles(&fields, problems);
            targets.insert(block.label.clone(), Evaluated { line: block.line, fields });
        }
        targets
    };
    let (targets, groups) = (evaluated(&file.targets), evaluated(&file.groups));
    let groups = groups.into_iter().map(|(name, group)| (name, group_members(group, problems))).collect();
    let mut bake = Bake { targets, groups, inherited: BTreeMap::new(), problems };
    let names = bake.chosen(only);
    names.iter().filter_map(|name| bake.draft(name)).collect()
}

/// A block whose expressions are known.
#[derive(Clone)]
struct Evaluated {
    line: usize,
    fields: Vec<Field>,
}

/// The members of a group, with the line of each.
fn group_members(group: Evaluated, problems: &mut Problems) -> Vec<(usize, String)> {
    let mut fields = Fields::new("a group", group.fields, problems);
    let members = fields.texts("targets").unwrap_or_default();
    fields.text("description");
    fields.finish();
    members
}

/// What is built.
#[derive(Default)]
struct Chosen {
    /// The targets, in order.
    names: Vec<String>,
    targets: BTreeSet<String>,
    /// The groups whose members are among them.
    groups: BTreeSet<String>,
}

struct Bake<'a> {
    targets: BTreeMap<String, Evaluated>,
    groups: BTreeMap<String, Vec<(usize, String)>>,
    /// The targets whose attributes are known. Many may inherit from one, by many ways.
    inherited: BTreeMap<String, Vec<Field>>,
    problems: &'a mut Problems,
}

impl Bake<'_> {
    /// The targets that are wanted, in order, each once.
    fn chosen(&mut self, only: &[String]) -> Vec<String> {
        let mut found = Chosen::default();
        if only.is_empty() {
            if !self.targets.contains_key(DEFAULT) && !self.groups.contains_key(DEFAULT) {
                let known: Vec<&str> = self.names().collect();
                let text = format!(
                    "there is no target or group `default`: name what to build of {}",
                    known.join(", ")
                );
                self.problems.add(1, text);
                return found.names;
            }
            self.expand(1, DEFAULT, &mut Vec::new(), &mut found);
        }
        for name in only {
            self.expand(1, name, &mut Vec::new(), &mut found);
        }
        found.names
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().chain(self.targets.keys()).map(String::as_str)
    }

    /// Adds a target, or what is in a group. A group stands before a target of its name.
    fn expand(&mut self, line: usize, name: &str, within: &mut Vec<String>, found: &mut Chosen) {
        if within.iter().any(|outer| outer == name) {
            // A group `default` may hold the target `default`.
            if !self.targets.contains_key(name) {
                return self.problems.add(line, format!("the group `{name}` is in itself"));
            }
        } else if let Some(members) = self.groups.get(name).cloned() {
            if !found.groups.insert(name.to_owned()) || self.is_too_deep(line, name, within) {
                return;
            }
            within.push(name.to_owned());
            for (line, member) in members {
                self.expand(line, &member, within, found);
            }
            within.pop();
            return;
        }
        if !self.targets.contains_key(name) {
            let mut text = format!("there is no target or group `{name}`");
            if let Some(near) = nearest(name, self.names()) {
                text += &format!("; did you mean `{near}`?");
            }
            return self.problems.add(line, text);
        }
        if found.targets.insert(name.to_owned()) {
            found.names.push(name.to_owned());
        }
    }

    /// Whether a group or target is within so many others that nobody can have meant it.
    fn is_too_deep(&mut self, line: usize, name: &str, within: &[String]) -> bool {
        let is_too_deep = within.len() > LIMIT_DEPTH;
        if is_too_deep {
            let text = format!("`{name}` is reached through more than {LIMIT_DEPTH} others");
            self.problems.add(line, text);
        }
        is_too_deep
    }

    /// The attributes of a target over those of the targets that it inherits from.
    fn inherited(&mut self, name: &str, within: &mut Vec<String>) -> Vec<Field> {
        if let Some(known) = self.inherited.get(name) {
            return known.clone();
        }
        let Some(target) = self.targets.get(name).cloned() else { return Vec::new() };
        within.push(name.to_owned());
        let mut merged = Vec::new();
        let parents = target.fields.iter().find(|field| field.name == "inherits").cloned();
        if let Some(field) = parents {
            let mut fields = Fields::new("a target", [field], self.problems);
            for (line, parent) in fields.texts("inherits").unwrap_or_default() {
                if within.contains(&parent) {
                    self.problems.add(line, format!("the target `{parent}` inherits from itself"));
                } else if !self.targets.contains_key(&parent) {
                    let mut text = format!("`{name}` inherits from `{parent}`, which is no target");
                    if let Some(near) = nearest(&parent, self.targets.keys().map(String::as_str)) {
                        text += &format!("; did you mean `{near}`?");
                    }
                    self.problems.add(line, text);
                } else if !self.is_too_deep(line, &parent, within) {
                    let above = self.inherited(&parent, within);
                    merge(&mut merged, above);
                }
            }
        }
        within.pop();
        merge(&mut merged, target.fields.into_iter().filter(|field| field.name != "inherits"));
        self.inherited.insert(name.to_owned(), merged.clone());
        merged
    }

    fn draft(&mut self, name: &str) -> Option<Draft> {
        let line = self.targets.get(name)?.line;
        let mut attributes = self.inherited(name, &mut Vec::new());
        attributes.iter_mut().for_each(drop_empty);
        let mut fields = Fields::new("a target", attributes, self.problems);
        fields.text("description");
        let mut engine_options = Vec::new();
        for (key, option) in ENGINE_OPTIONS {
            let values = distinct(fields.specifications(key).unwrap_or_default());
            engine_options.extend(values.into_iter().map(|value| (option, value)));
        }
        for (key, option) in [("network", "--network"), ("shm-size", "--shm-size")] {
            engine_options.extend(fields.text(key).map(|value| (option, value)));
        }
        for (host, address) in fields.pairs("extra-hosts").unwrap_or_default() {
            engine_options.push(("--add-host", (line, format!("{host}:{address}"))));
        }
        for key in ["matrix", "name", "call", "policy"] {
            fields.refuse(key, "is not supported");
        }
        let draft = Draft {
            line,
            name: Some((line, name.to_owned())),
            tags: distinct(fields.texts("tags").unwrap_or_default()),
            target: fields.text("target"),
            platforms: distinct(fields.texts("platforms").unwrap_or_default()),
            build_args: fields.pairs("args").unwrap_or_default(),
            labels: fields.pairs("labels").unwrap_or_default(),
            annotations: distinct(fields.texts("annotations").unwrap_or_default()),
            context: fields.text("context"),
            dockerfile: fields.text("dockerfile"),
            inline: fields.text("dockerfile-inline"),
            contexts: fields.pairs("contexts").unwrap_or_default(),
            outputs: fields.specifications("output").map(distinct),
            no_cache: fields.flag("no-cache").unwrap_or(false),
            pull: fields.flag("pull").unwrap_or(false),
            engine_options,
            ..Draft::default()
        };
        fields.finish();
        Some(draft)
    }
}

/// Lays attributes over others.
fn merge(below: &mut Vec<Field>, above: impl IntoIterator<Item = Field>) {
    for mut field in above {
        let is_growing = GROWING.contains(&field.key().as_str());
        if let Some(place) = below.iter().position(|known| known.key() == field.key()) {
            let old = below.remove(place);
            match (old.value.value, &mut field.value.value) {
                (Raw::Table(old), Raw::Table(new)) => {
                    let missing = old.into_iter().filter(|o| new.iter().all(|n| n.name != o.name));
                    let missing: Vec<Field> = missing.collect();
                    new.splice(0..0, missing);
                }
                (Raw::List(old), Raw::List(new)) if is_growing => {
                    // What came by two ways is there once, or a list would double with every target.
                    new.retain(|item| !old.contains(item));
                    new.splice(0..0, old);
                }
                _ => {}
            }
        }
        below.push(field);
    }
}

/// Takes out the empty texts of a list, and the empty contexts: what a condition leaves where it does not hold.
fn drop_empty(field: &mut Field) {
    let is_empty = |value: &Raw| matches!(value, Raw::Text(text) if text.is_empty());
    let key = field.key();
    match &mut field.value.value {
        Raw::List(items) => items.retain(|item| !is_empty(&item.value)),
        Raw::Table(fields) if key == "contexts" => fields.retain(|field| !is_empty(&field.value.value)),
        _ => {}
    }
}

/// Each once, where it is first.
fn distinct(texts: Vec<Text>) -> Vec<Text> {
    let mut known = BTreeSet::new();
    texts.into_iter().filter(|(_, text)| known.insert(text.clone())).collect()
}

#[cfg(test)]
mod tests;

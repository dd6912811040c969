//! An image as its list spells it: keys are read, nothing is looked up yet.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::{Fields, refuse_doubles};
use super::located::{Field, Raw};
use super::problems::Problems;

/// A text and its line.
pub(super) type Text = (usize, String);

/// What a list says of one image.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) line: usize,
    pub(super) name: Option<Text>,
    pub(super) base_image: Option<Text>,
    pub(super) tags: Vec<Text>,
    pub(super) target: Option<Text>,
    pub(super) platforms: Vec<Text>,
    pub(super) build_args: BTreeMap<String, String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: Vec<Text>,
    pub(super) context: Option<Text>,
    pub(super) dockerfile: Option<Text>,
    /// A Dockerfile that stands in the list.
    pub(super) inline: Option<Text>,
    pub(super) contexts: BTreeMap<String, String>,
    pub(super) outputs: Option<Vec<Text>>,
    pub(super) no_cache: bool,
    pub(super) pull: bool,
    /// Options that only BuildKit understands: (`--secret`, `id=x`).
    pub(super) engine_options: Vec<(&'static str, Text)>,
    pub(super) recipe: Option<RecipeDraft>,
}

/// What it says of one that a recipe makes.
#[derive(Clone, Debug, Default)]
pub(super) struct RecipeDraft {
    pub(super) recipe: Text,
    pub(super) source: Option<Text>,
    pub(super) repository: Option<Text>,
    pub(super) version: Option<Text>,
    pub(super) extra_deps: Option<Text>,
    pub(super) browser: bool,
    pub(super) variables: BTreeMap<String, Value>,
    pub(super) custom_tags: Vec<Text>,
}

/// The keys that make no sense for one that a recipe makes, and those that make none for another.
const OF_DOCKERFILES: [(&str, &str); 2] = [
    ("dockerfile", "cannot stand beside `recipe`: the recipe has its own"),
    ("context", "cannot stand beside `recipe`: name the directory of the sources with `source`"),
];
const OF_RECIPES: [&str; 7] =
    ["source", "repository", "version", "extra-deps", "browser", "variables", "custom-tags"];

impl Draft {
    /// Reads the keys of an image of our own lists. Of `defaults` counts what the image does not say;
    /// tables are merged.
    pub(super) fn read(line: usize, defaults: &[Field], own: Vec<Field>, problems: &mut Problems) -> Self {
        refuse_doubles(&own, problems);
        if let (Some(base), true) = (find(&own, "base"), says(&own, "base-image")) {
            problems.add(base.line, "`base-image` and `base` say the same: give one of them");
        }
        let is_recipe = says(&own, "recipe") || (says(defaults, "recipe") && !says(&own, "dockerfile"));
        let fits = |field: &&Field| match is_recipe {
            true => OF_DOCKERFILES.iter().all(|(key, _)| !is(field, key)),
            false => OF_RECIPES.iter().all(|key| !is(field, key)) && !is(field, "recipe"),
        };
        let merged = merge(defaults.iter().filter(fits), own);
        let mut fields = Fields::new("an image", merged, problems);
        let mut draft = Self {
            line,
            name: fields.text("name"),
            base_image: fields.text_of(&["base-image", "base"]),
            target: fields.text("target"),
            platforms: fields.texts("platforms").unwrap_or_default(),
            build_args: fields.pairs("build-args").unwrap_or_default(),
            tags: fields.texts("tags").unwrap_or_default(),
            labels: fields.pairs("labels").unwrap_or_default(),
            no_cache: fields.flag("no-cache").unwrap_or(false),
            pull: fields.flag("pull").unwrap_or(false),
            ..Self::default()
        };
        if let Some(recipe) = fields.text("recipe") {
            draft.recipe = Some(RecipeDraft {
                recipe,
                source: fields.text("source"),
                repository: fields.text("repository"),
                version: fields.text("version"),
                extra_deps: fields.text("extra-deps"),
                browser: fields.flag("browser").unwrap_or(true),
                variables: fields.values("variables"),
                custom_tags: fields.texts("custom-tags").unwrap_or_default(),
            });
            OF_DOCKERFILES.iter().for_each(|(key, why)| fields.refuse(key, why));
        } else {
            draft.context = fields.text("context");
            draft.dockerfile = fields.text("dockerfile");
            OF_RECIPES.iter().for_each(|key| fields.refuse(key, "is for images with a `recipe`"));
        }
        fields.finish();
        draft
    }
}

fn is(field: &Field, key: &str) -> bool {
    field.key() == key
}

fn find<'a>(fields: &'a [Field], key: &str) -> Option<&'a Field> {
    fields.iter().find(|field| is(field, key))
}

fn says(fields: &[Field], key: &str) -> bool {
    find(fields, key).is_some()
}

/// Lays the keys of an image over the defaults.
fn merge<'a>(defaults: impl Iterator<Item = &'a Field>, own: Vec<Field>) -> Vec<Field> {
    let mut merged: Vec<Field> = defaults.cloned().collect();
    for field in own {
        let key = field.key();
        // Both are the base image.
        let known = merged.iter().position(|known| {
            is(known, &key) || (key.starts_with("base") && (is(known, "base") || is(known, "base-image")))
        });
        match known {
            Some(place) => {
                let below = merged.remove(place);
                merged.push(over(below, field));
            }
            None => merged.push(field),
        }
    }
    merged
}

fn over(below: Field, mut field: Field) -> Field {
    if let (Raw::Table(defaults), Raw::Table(own)) = (below.value.value, &mut field.value.value) {
        let missing: Vec<Field> =
            defaults.into_iter().filter(|known| own.iter().all(|field| field.name != known.name)).collect();
        own.extend(missing);
    }
    field
}

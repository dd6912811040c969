//! What the templates of a recipe come to: the Dockerfile, the tags, the places in the build folder.

use minijinja::Value;
use minijinja::value::Serde;

use super::definition::{HashTags, HashedTags, Recipe, RenderInput, TagValues, Tags};
use super::fill::{Values, fill, uses, values};
use super::{checked_tag, openhands};
use crate::error::{Error, ErrorKind, Result, nearest};

/// What every Dockerfile template has, besides the variables of its recipe.
pub(super) const INPUTS: [&str; 7] = [
    "base_image",
    "build_from_scratch",
    "build_from_versioned",
    "enable_browser",
    "extra_deps",
    "mode",
    "target",
];

impl Recipe {
    /// Renders the Dockerfile.
    ///
    /// # Errors
    /// `InvalidConfig` for what the template does wrong, with its name, the line and the expression;
    /// `InvalidInput` for a variable that the recipe does not have, or a base image or extra dependencies
    /// that would break out of their line.
    pub fn render(&self, input: &RenderInput<'_>) -> Result<String> {
        use super::Mode;

        stays_in_its_line("the base image", input.base_image, |text| {
            text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control())
        })?;
        stays_in_its_line("the extra dependencies", input.extra_deps, goes_on)?;
        let mut all = values([
            ("base_image", Value::from(input.base_image)),
            ("build_from_scratch", (input.mode == Mode::Scratch).into()),
            ("build_from_versioned", (input.mode == Mode::Versioned).into()),
            ("enable_browser", input.browser.into()),
            ("extra_deps", input.extra_deps.into()),
            ("mode", input.mode.name().into()),
            ("target", input.target.map_or("", |target| target.name()).into()),
        ]);
        for (name, default) in &self.variables {
            all.insert(name.clone(), Value::from(Serde(default)));
        }
        for (name, value) in input.variables {
            self.check_variable(name, value)?;
            all.insert(name.clone(), Value::from(Serde(value)));
        }
        let text = fill(&self.template.name, &self.template.text, &all)?;
        Ok(if text.ends_with('\n') { text } else { text + "\n" })
    }

    /// Makes the tags of a recipe whose tags are by hashes.
    ///
    /// # Errors
    /// `InvalidConfig` for what a template does wrong, or for a recipe with a scheme of its own;
    /// `InvalidInput` for a tag that registries would refuse.
    pub fn hashed_tags(&self, values: &TagValues<'_>) -> Result<HashedTags> {
        let Tags::Hashes(templates) = &self.tags else {
            let message = format!("the tags of the recipe `{}` are not by hashes", self.name);
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        };
        let checked = |tag: Option<String>| tag.map(checked_tag).transpose();
        let tags = self.filled_tags(templates, values)?;
        Ok(HashedTags {
            versioned: checked(tags.versioned)?,
            lock: checked(tags.lock)?,
            source: checked_tag(tags.source)?,
        })
    }

    fn filled_tags(&self, templates: &HashTags, input: &TagValues<'_>) -> Result<HashedTags> {
        let mut known = values([
            ("version", input.version),
            ("base_image", input.base_image),
            ("lock_hash", input.lock_hash),
            ("extension", input.extension),
        ]);
        known.insert("base_slug".to_owned(), openhands::versioned_slug(input.base_image).into());
        known.insert("recipe_hash".to_owned(), self.hash().into());
        let fill = |key: &str, text: &Option<String>, known: &Values| {
            let filled = text.as_ref().map(|text| fill(&self.key(&format!("tags.{key}")), text, known));
            filled.transpose()
        };
        let versioned = fill("versioned", &templates.versioned, &known)?;
        let lock = fill("lock", &templates.lock, &known)?;
        if let Some(lock) = &lock {
            known.insert("lock".to_owned(), lock.as_str().into());
        }
        known.insert("source_hash".to_owned(), input.source_hash.into());
        let source = fill("source", &Some(templates.source.clone()), &known)?.unwrap_or_default();
        Ok(HashedTags { versioned, lock, source })
    }

    /// Eight characters that change with the Dockerfile template and everything else that decides what
    /// an image holds: for tags of recipes whose version does not change when they do.
    pub fn hash(&self) -> String {
        let what = (&self.template.text, &self.variables, &self.sources, &self.lock_files, &self.hash);
        // Only a number that is none, which no recipe holds, could fail.
        let json = serde_json::to_string(&what).unwrap_or_default();
        openhands::extension(&json).trim_start_matches("_x").to_owned()
    }

    /// How messages call a key of this recipe.
    pub(super) fn key(&self, key: &str) -> String {
        match &self.file {
            Some(file) => format!("{}: {}{key}", file.display(), self.above),
            None => format!("{}{key}", self.above),
        }
    }

    /// Says whether the Dockerfile hangs on an input or a variable: an option that would change nothing
    /// can be refused.
    pub fn uses(&self, input: &str) -> bool {
        uses(&self.template.text, input)
    }

    /// Reads `NAME=VALUE` as a variable of this recipe; the value is of the kind of the default. A list is
    /// written `a,b` or `["a", "b"]`.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown name, with the nearest, and for a value of another kind.
    pub fn variable(&self, typed: &str) -> Result<(String, serde_json::Value)> {
        use serde_json::Value as Json;

        let Some((name, text)) = typed.split_once('=') else {
            return Err(Error::new(ErrorKind::InvalidInput, format!("`--var {typed}` is not `NAME=VALUE`")));
        };
        let parsed = serde_json::from_str::<Json>(text).ok();
        let value = match self.default_of(name)? {
            Json::String(_) => Json::from(text),
            Json::Array(_) if !text.trim_start().starts_with('[') => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Json::Array(items.map(Json::from).collect())
            }
            _ => parsed.unwrap_or_else(|| Json::from(text)),
        };
        self.check_variable(name, &value)?;
        Ok((name.to_owned(), value))
    }

    fn default_of(&self, name: &str) -> Result<&serde_json::Value> {
        self.variables.get(name).ok_or_else(|| {
            let message = format!("the recipe `{}` has no variable `{name}`", self.name);
            let error = Error::new(ErrorKind::InvalidInput, message);
            let known: Vec<&str> = self.variables.keys().map(String::as_str).collect();
            match nearest(name, known.iter().copied()) {
                Some(name) => error.with_hint(format!("did you mean `{name}`?")),
                None if known.is_empty() => error.with_hint("it has no variables at all"),
                None => error.with_hint(format!("its variables: {}", known.join(", "))),
            }
        })
    }

    fn check_variable(&self, name: &str, value: &serde_json::Value) -> Result<()> {
        let default = self.default_of(name)?;
        if kind(default) == kind(value) {
            return Ok(());
        }
        let message = format!("the variable `{name}` of the recipe `{}` cannot be `{value}`", self.name);
        Err(Error::new(ErrorKind::InvalidInput, message)
            .with_hint(format!("it is {}, like its default `{default}`", kind(default))))
    }
}

/// What sort of value it is, for people.
fn kind(value: &serde_json::Value) -> &'static str {
    use serde_json::Value as Json;
    match value {
        Json::Null => "nothing",
        Json::Bool(_) => "`true` or `false`",
        Json::Number(_) => "a number",
        Json::String(_) => "a text",
        Json::Array(_) => "a list",
        Json::Object(_) => "a table",
    }
}

/// Says whether a command would take in more than its own lines: a line may be continued, but not the last
/// one, and a here-document would be.
fn goes_on(command: &str) -> bool {
    let begins_document = |word: &str| {
        let document = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<");
        document.is_some_and(|name| !name.starts_with('<'))
    };
    command.replace("\\\n", "").contains(['\n', '\r', '\0'])
        || command.trim_end().ends_with('\\')
        || command.split_whitespace().any(begins_document)
}

fn stays_in_its_line(what: &str, text: &str, breaks_out: impl Fn(&str) -> bool) -> Result<()> {
    if breaks_out(text) {
        let message = format!("{what} `{}` cannot stand in a Dockerfile", text.escape_debug());
        return Err(Error::new(ErrorKind::InvalidInput, message).with_hint(match what {
            "the base image" => "write a reference such as `debian:12`",
            _ => "write one command; join several with `&&`",
        }));
    }
    Ok(())
}

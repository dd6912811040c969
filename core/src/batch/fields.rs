//! The keys of an image, each read as what it must be.

use std::collections::BTreeMap;

use super::located::{Field, Located, Raw};
use super::problems::Problems;
use crate::error::nearest;

/// The keys of one image, taken one after the other; what is left at the end is unknown.
pub(super) struct Fields<'a> {
    /// What has the keys, for messages: `an image`.
    what: &'static str,
    fields: BTreeMap<String, Field>,
    known: Vec<&'static str>,
    problems: &'a mut Problems,
}

impl<'a> Fields<'a> {
    /// Takes keys; of two of a name the later one counts. `_` in a key is as good as `-`.
    pub(super) fn new(
        what: &'static str,
        fields: impl IntoIterator<Item = Field>,
        problems: &'a mut Problems,
    ) -> Self {
        let named = fields.into_iter().map(|field| (field.key(), field));
        Self { what, fields: named.collect(), known: Vec::new(), problems }
    }

    fn take(&mut self, key: &'static str) -> Option<Field> {
        self.known.push(key);
        self.fields.remove(key).filter(|field| field.value.value != Raw::Null)
    }

    fn wrong(&mut self, field: &Field, wanted: &str) {
        let (name, kind) = (&field.name, field.value.value.kind());
        self.problems.add(field.line, format!("`{name}` must be {wanted}, and is {kind}"));
    }

    /// A text, with its line.
    pub(super) fn text(&mut self, key: &'static str) -> Option<(usize, String)> {
        let field = self.take(key)?;
        match &field.value.value {
            Raw::Text(text) => Some((field.value.line, text.clone())),
            _ => {
                self.wrong(&field, "a text");
                None
            }
        }
    }

    /// The first of several names of one thing that is set; two of them are an error.
    pub(super) fn text_of(&mut self, keys: &[&'static str]) -> Option<(usize, String)> {
        let mut found = None;
        for key in keys {
            match (self.text(key), &found) {
                (Some((line, _)), Some(_)) => {
                    self.problems
                        .add(line, format!("`{}` say the same: give one of them", keys.join("` and `")));
                }
                (Some(text), None) => found = Some(text),
                (None, _) => {}
            }
        }
        found
    }

    /// Texts: a list of them, or one alone.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<(usize, String)>> {
        let field = self.take(key)?;
        let mut texts = Vec::new();
        for item in items(&field) {
            match item.value {
                Raw::Text(text) => texts.push((item.line, text)),
                kind => self.wrong(
                    &Field { value: Located::new(item.line, kind), ..field.clone() },
                    "a list of texts",
                ),
            }
        }
        Some(texts)
    }

    /// Texts, or tables that mean `name=value,…` as buildx spells them.
    pub(super) fn specifications(&mut self, key: &'static str) -> Option<Vec<(usize, String)>> {
        let field = self.take(key)?;
        let mut texts = Vec::new();
        for item in items(&field) {
            match item.value {
                Raw::Text(text) => texts.push((item.line, text)),
                Raw::Table(fields) => {
                    let mut pairs = Vec::new();
                    for inner in &fields {
                        match (inner.value.scalar(), &inner.value.value) {
                            (Some(text), _) => pairs.push(quoted(&format!("{}={text}", inner.name))),
                            (None, Raw::Null) => {}
                            (None, _) => self.wrong(inner, "a text"),
                        }
                    }
                    texts.push((item.line, pairs.join(",")));
                }
                _ => self.wrong(&field, "a list of texts or tables"),
            }
        }
        Some(texts)
    }

    /// Names with values; numbers and flags become text. A null takes a name away.
    pub(super) fn pairs(&mut self, key: &'static str) -> Option<BTreeMap<String, String>> {
        let field = self.take(key)?;
        let Raw::Table(fields) = &field.value.value else {
            self.wrong(&field, "a table of names and values");
            return None;
        };
        let mut pairs = BTreeMap::new();
        for inner in fields {
            match (inner.value.scalar(), &inner.value.value) {
                (Some(text), _) => drop(pairs.insert(inner.name.clone(), text)),
                (None, Raw::Null) => drop(pairs.remove(&inner.name)),
                (None, _) => self.wrong(inner, "a text"),
            }
        }
        Some(pairs)
    }

    /// Names with values of any form.
    pub(super) fn values(&mut self, key: &'static str) -> BTreeMap<String, serde_json::Value> {
        let Some(field) = self.take(key) else { return BTreeMap::new() };
        match &field.value.value {
            Raw::Table(fields) => {
                fields.iter().map(|field| (field.name.clone(), field.value.to_json())).collect()
            }
            _ => {
                self.wrong(&field, "a table of names and values");
                BTreeMap::new()
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let field = self.take(key)?;
        match field.value.value {
            Raw::Flag(flag) => Some(flag),
            _ => {
                self.wrong(&field, "true or false");
                None
            }
        }
    }

    /// Refuses a key by name, and says why.
    pub(super) fn refuse(&mut self, key: &'static str, why: &str) {
        if let Some(field) = self.take(key) {
            self.problems.add(field.line, format!("`{}` {why}", field.name));
        }
    }

    /// Says that the keys that are left are unknown.
    pub(super) fn finish(self) {
        for field in self.fields.values() {
            let mut text = format!("unknown key `{}` of {}", field.name, self.what);
            match nearest(&field.key(), self.known.iter().copied()) {
                Some(name) => text += &format!("; did you mean `{name}`?"),
                None => text += &format!("; its keys: {}", self.known.join(", ")),
            }
            self.problems.add(field.line, text);
        }
    }
}

/// The items of a list; what is no list stands for one with itself alone.
fn items(field: &Field) -> Vec<Located> {
    match &field.value.value {
        Raw::List(items) => items.clone(),
        _ => vec![field.value.clone()],
    }
}

/// A field as CSV has it, which buildx reads such values as.
fn quoted(field: &str) -> String {
    match field.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}

/// Says which keys are there twice, in one spelling or two: `no_cache` beside `no-cache`.
pub(super) fn refuse_doubles(fields: &[Field], problems: &mut Problems) {
    let mut known: BTreeMap<String, &Field> = BTreeMap::new();
    for field in fields {
        match known.get(&field.key()) {
            None => drop(known.insert(field.key(), field)),
            Some(first) if first.name == field.name => {
                let text = format!("`{}` is in line {} already", field.name, first.line);
                problems.add(field.line, text);
            }
            Some(first) => {
                let text = format!("`{}` and `{}` say the same: give one of them", first.name, field.name);
                problems.add(field.line, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let value = serde_json::json!({"tags": [1], "no_cache": "x", "bild-args": {}, "base": "a", "base-image": "b"});
        let Raw::Table(fields) = Located::from_json(value, 7).value else { panic!("a table") };
        let mut problems = Problems::of(Path::new("l"));
        let mut fields = Fields::new("an image", fields, &mut problems);
        assert_eq!(fields.texts("tags"), Some(vec![]));
        assert_eq!(fields.flag("no-cache"), None);
        assert_eq!(fields.pairs("build-args"), None);
        assert_eq!(fields.text_of(&["base", "base-image"]), Some((7, "a".to_owned())));
        fields.finish();
        let error = problems.finish().expect_err("wrong");
        for words in [
            "l:7: `tags` must be a list of texts, and is a number",
            "`no_cache` must be true or false, and is a text",
            "unknown key `bild-args` of an image; did you mean `build-args`?",
            "`base` and `base-image` say the same",
        ] {
            assert!(error.details()[0].1.contains(words), "{error:?}");
        }
    }

    #[test]
    fn a_table_is_what_it_would_be_as_a_text() {
        let value = serde_json::json!({
            "output": [{"type": "local", "dest": "a,\"b\"", "x": null}], "secret": [{"id": "X", "env": ["Y"]}],
        });
        let Raw::Table(fields) = Located::from_json(value, 7).value else { panic!("a table") };
        let mut problems = Problems::of(Path::new("l"));
        let mut fields = Fields::new("a target", fields, &mut problems);
        let outputs = fields.specifications("output").expect("there is one");
        let parts = crate::output::split_csv(&outputs[0].1).expect("CSV");
        assert_eq!(BTreeSet::from_iter(parts), BTreeSet::from(["dest=a,\"b\"".into(), "type=local".into()]));
        fields.specifications("secret");
        let error = problems.finish().expect_err("a list is no text");
        assert!(error.details()[0].1.contains("l:7: `env` must be a text, and is a list"), "{error:?}");
    }
}

//! Values of a list with the lines they stand in, whatever the list is written in.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problems::Problems;
use crate::error::nearest;

/// A value and its line, from 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Located {
    pub(super) line: usize,
    pub(super) value: Raw,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    Text(String),
    Flag(bool),
    Integer(i64),
    Float(f64),
    List(Vec<Located>),
    Table(Vec<Field>),
    /// Unset on purpose.
    Null,
    /// What no key can be; its name for messages.
    Other(&'static str),
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) value: Located,
}

/// Finds the lines of places in a text.
pub(super) struct Lines {
    ends: Vec<usize>,
}

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        Self { ends: memchr::memchr_iter(b'\n', text.as_bytes()).collect() }
    }

    /// The line of a byte, from 1.
    pub(super) fn at(&self, offset: usize) -> usize {
        self.ends.partition_point(|end| *end < offset) + 1
    }
}

impl Raw {
    /// What it is, for messages.
    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Flag(_) => "true or false",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Null => "null",
            Self::Other(kind) => kind,
        }
    }
}

impl Located {
    pub(super) fn new(line: usize, value: Raw) -> Self {
        Self { line, value }
    }

    /// Takes a value of TOML.
    pub(super) fn from_toml(value: &Spanned<DeValue<'_>>, lines: &Lines) -> Self {
        let raw = match value.get_ref() {
            DeValue::String(text) => Raw::Text(text.to_string()),
            DeValue::Boolean(flag) => Raw::Flag(*flag),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Raw::Integer(number),
                Err(_) => Raw::Other("a number that is too large"),
            },
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(number) => Raw::Float(number),
                Err(_) => Raw::Other("a number of another form"),
            },
            DeValue::Array(items) => {
                Raw::List(items.iter().map(|item| Self::from_toml(item, lines)).collect())
            }
            DeValue::Table(table) => Raw::Table(fields_of_toml(table, lines)),
            _ => Raw::Other("a date"),
        };
        Self::new(lines.at(value.span().start), raw)
    }

    /// Takes a value of JSON, all of it in one line.
    pub(super) fn from_json(value: serde_json::Value, line: usize) -> Self {
        use serde_json::Value;

        let raw = match value {
            Value::Null => Raw::Null,
            Value::Bool(flag) => Raw::Flag(flag),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(number), _) => Raw::Integer(number),
                (None, Some(number)) => Raw::Float(number),
                (None, None) => Raw::Other("a number that is too large"),
            },
            Value::String(text) => Raw::Text(text),
            Value::Array(items) => {
                Raw::List(items.into_iter().map(|item| Self::from_json(item, line)).collect())
            }
            Value::Object(fields) => {
                let field = |(name, value)| Field { name, line, value: Self::from_json(value, line) };
                Raw::Table(fields.into_iter().map(field).collect())
            }
        };
        Self::new(line, raw)
    }

    /// The value as JSON, for what is passed on as it is.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Raw::Text(text) => text.as_str().into(),
            Raw::Flag(flag) => (*flag).into(),
            Raw::Integer(number) => (*number).into(),
            Raw::Float(number) => (*number).into(),
            Raw::List(items) => items.iter().map(Self::to_json).collect(),
            Raw::Table(fields) => {
                let pairs = fields.iter().map(|field| (field.name.clone(), field.value.to_json()));
                serde_json::Value::Object(pairs.collect())
            }
            Raw::Null | Raw::Other(_) => serde_json::Value::Null,
        }
    }

    /// A scalar as text: `true`, `3`.
    pub(super) fn scalar(&self) -> Option<String> {
        match &self.value {
            Raw::Text(text) => Some(text.clone()),
            Raw::Flag(flag) => Some(flag.to_string()),
            Raw::Integer(number) => Some(number.to_string()),
            Raw::Float(number) => Some(number.to_string()),
            _ => None,
        }
    }
}

/// The keys of a table of TOML.
pub(super) fn fields_of_toml(table: &DeTable<'_>, lines: &Lines) -> Vec<Field> {
    let field = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let name: &std::borrow::Cow<'_, str> = name.get_ref();
        let value = Located::from_toml(value, lines);
        // A table header stands before its value, and a key in the same line as its own.
        Field { name: name.to_string(), line: value.line, value }
    };
    let mut fields: Vec<Field> = table.iter().map(field).collect();
    fields.sort_by_key(|field| field.line);
    fields
}

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
        let named = fields.into_iter().map(|field| (field.name.replace('_', "-"), field));
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
        let items = match field.value.value.clone() {
            Raw::List(items) => items,
            _ => vec![field.value.clone()],
        };
        let mut texts = Vec::new();
        for item in items {
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
        let items = match field.value.value.clone() {
            Raw::List(items) => items,
            _ => vec![field.value.clone()],
        };
        let mut texts = Vec::new();
        for item in items {
            match item.value {
                Raw::Text(text) => texts.push((item.line, text)),
                Raw::Table(fields) => {
                    let pairs =
                        fields.iter().filter_map(|f| Some(format!("{}={}", f.name, f.value.scalar()?)));
                    texts.push((item.line, pairs.collect::<Vec<_>>().join(",")));
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
            match nearest(&field.name.replace('_', "-"), self.known.iter().copied()) {
                Some(name) => text += &format!("; did you mean `{name}`?"),
                None => text += &format!("; its keys: {}", self.known.join(", ")),
            }
            self.problems.add(field.line, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn lines_count_from_one() {
        let lines = Lines::of("a\nbb\n\nc");
        assert_eq!([0, 1, 2, 4, 5, 6, 7].map(|at| lines.at(at)), [1, 1, 2, 2, 3, 4, 4]);
    }

    #[test]
    fn a_value_keeps_its_line() {
        let text = "a = 1\n[t]\nx = [\n  'p',\n  true,\n]\n";
        let table = DeTable::parse(text).expect("TOML");
        let fields = fields_of_toml(table.get_ref(), &Lines::of(text));
        let Raw::Table(inner) = &fields[1].value.value else { panic!("{fields:?}") };
        let Raw::List(items) = &inner[0].value.value else { panic!("{inner:?}") };
        assert_eq!((fields[0].line, fields[1].line, inner[0].line), (1, 2, 3));
        assert_eq!(items[..], [Located::new(4, Raw::Text("p".into())), Located::new(5, Raw::Flag(true))]);
    }

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
}

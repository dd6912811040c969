//! Values of a list with the lines they stand in, whatever the list is written in.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

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

impl Field {
    /// The name as keys are compared: `_` is as good as `-`.
    pub(super) fn key(&self) -> String {
        self.name.replace('_', "-")
    }
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
    pub(super) fn kind(&self) -> &'static str {
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

#[cfg(test)]
mod tests {
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
}

//! Reads the tables of a recipe key by key, and says precisely what is wrong with one: file, line, key,
//! what it may be, which key is near.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use crate::error::{Error, ErrorKind, Result, SourceLine, nearest};

/// Where something stands.
#[derive(Clone, Debug, Default)]
pub(super) enum Origin {
    /// Built in.
    #[default]
    Builtin,
    /// A file.
    File(PathBuf),
    /// An environment variable or the command line, as messages call it.
    Word(String),
}

impl Origin {
    /// The file, if it is one.
    pub(super) fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::File(file) => Some(file),
            Self::Builtin | Self::Word(_) => None,
        }
    }
}

/// Where a recipe stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// The keys above those of the recipe: `recipes` and its name, or none in a file of its own.
    pub(super) above: Vec<String>,
    /// Where it stands.
    pub(super) origin: Origin,
    /// Keys of it that stand somewhere else: settings are put together from several files.
    pub(super) keys: BTreeMap<String, Origin>,
}

/// One step into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Key(String),
    Item(usize),
}

/// A table of a recipe. Keys that nobody has asked for are unknown.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    place: &'a Place,
    way: Vec<Part>,
    table: &'a Table,
    asked: RefCell<Vec<&'static str>>,
}

/// An entry of a list: a text, or a table that says more.
pub(super) enum Item<'a> {
    Text(String),
    Table(Reader<'a>),
}

impl<'a> Reader<'a> {
    /// Reads the topmost table of a recipe.
    pub(super) fn new(place: &'a Place, table: &'a Table) -> Self {
        Self::at(place, Vec::new(), table)
    }

    fn at(place: &'a Place, way: Vec<Part>, table: &'a Table) -> Self {
        Self { place, way, table, asked: RefCell::default() }
    }

    fn get(&self, key: &'static str) -> Option<&'a Value> {
        self.asked.borrow_mut().push(key);
        self.table.get(key)
    }

    /// A text that is not empty.
    pub(super) fn text(&self, key: &'static str) -> Result<Option<String>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_str().filter(|text| !text.is_empty()) {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(self.wrong(key, "a text")),
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &'static str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(key, "`true` or `false`"))
    }

    /// One text or a list of them.
    pub(super) fn texts(&self, key: &'static str) -> Result<Option<Vec<String>>> {
        let wrong = || self.wrong(key, "a text or a list of texts");
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(vec![text.clone()])),
            Some(Value::Array(items)) => {
                let texts: Option<Vec<_>> =
                    items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
                texts.map(Some).ok_or_else(wrong)
            }
            Some(_) => Err(wrong()),
        }
    }

    /// A table below this one.
    pub(super) fn table(&self, key: &'static str) -> Result<Option<Reader<'a>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Table(table)) => Ok(Some(Self::at(self.place, self.way_to(key), table))),
            Some(_) => Err(self.wrong(key, "a table")),
        }
    }

    /// A list of texts and tables.
    pub(super) fn items(&self, key: &'static str) -> Result<Option<Vec<Item<'a>>>> {
        let wrong = || self.wrong(key, "a list of texts or tables");
        let items = match self.get(key) {
            None => return Ok(None),
            Some(Value::Array(items)) => items,
            Some(_) => return Err(wrong()),
        };
        let item = |(index, item): (usize, &'a Value)| match item {
            Value::String(text) if !text.is_empty() => Ok(Item::Text(text.clone())),
            Value::Table(table) => {
                let way = [self.way_to(key), vec![Part::Item(index)]].concat();
                Ok(Item::Table(Self::at(self.place, way, table)))
            }
            _ => Err(wrong()),
        };
        items.iter().enumerate().map(item).collect::<Result<_>>().map(Some)
    }

    /// Every key of this table with its value: for tables whose keys the user chooses.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.table.iter()
    }

    /// The file that a key of this recipe stands in.
    pub(super) fn file_of(&self, key: &str) -> Option<&'a PathBuf> {
        let first = match self.way.first() {
            Some(Part::Key(first)) => first,
            _ => key,
        };
        self.place.keys.get(first).unwrap_or(&self.place.origin).file()
    }

    /// Fails for a key that nobody has asked for.
    pub(super) fn finish(&self) -> Result<()> {
        let asked = self.asked.borrow();
        let Some(key) = self.table.keys().find(|key| !asked.contains(&key.as_str())) else { return Ok(()) };
        let error = self.error(key, format!("unknown key `{}`", self.shown(key)));
        Err(match nearest(key, asked.iter().copied()) {
            Some(name) => error.with_hint(format!("did you mean `{name}`?")),
            None => error.with_hint(format!("known here: {}", asked.join(", "))),
        })
    }

    /// The error of a key that is missing.
    pub(super) fn missing(&self, key: &str, hint: &str) -> Error {
        // The table itself is the nearest place that there is.
        let shown = self.shown(key);
        self.place.located(&self.way, format!("`{shown}` is missing")).with_hint(hint)
    }

    /// The error of a value of the wrong sort: it must be `what`.
    pub(super) fn wrong(&self, key: &str, what: &str) -> Error {
        let value = self.table.get(key).map(ToString::to_string).unwrap_or_default();
        let message = format!("`{}` cannot be `{}`", self.shown(key), value.trim_matches('"'));
        self.error(key, message).with_hint(format!("it is {what}"))
    }

    /// An error about a key.
    pub(super) fn error(&self, key: &str, message: impl Into<String>) -> Error {
        self.place.located(&self.way_to(key), message)
    }

    fn way_to(&self, key: &str) -> Vec<Part> {
        [&self.way[..], &[Part::Key(key.to_owned())]].concat()
    }

    /// A key of this table for people who do not know which file it stands in.
    pub(super) fn named(&self, key: &str) -> String {
        match self.file_of(key) {
            Some(file) => format!("{}: {}", file.display(), self.shown(key)),
            None => self.shown(key),
        }
    }

    /// A key of this table as the user would name it; that of the empty key is what stands before others.
    pub(super) fn shown(&self, key: &str) -> String {
        let mut shown = self.place.above.join(".");
        for part in &self.way_to(key) {
            match part {
                Part::Key(key) if shown.is_empty() => shown.push_str(key),
                Part::Key(key) => shown += &format!(".{key}"),
                Part::Item(index) => shown += &format!("[{index}]"),
            }
        }
        shown
    }
}

impl Place {
    /// An error with the line that it is about.
    fn located(&self, way: &[Part], message: impl Into<String>) -> Error {
        let error = Error::new(ErrorKind::InvalidConfig, message);
        let own = match way.first() {
            Some(Part::Key(key)) => self.keys.get(key),
            _ => None,
        };
        match own.unwrap_or(&self.origin) {
            Origin::Builtin => error.with_detail("in", "a built-in recipe"),
            Origin::Word(word) => error.with_detail("set in", word),
            Origin::File(file) => match self.line(file, way) {
                Some(line) => error.with_source_line(line),
                None => error.with_detail("file", file.display().to_string()),
            },
        }
    }

    /// Finds the line of a key. The file is read again, for only an error needs it.
    fn line(&self, file: &PathBuf, way: &[Part]) -> Option<SourceLine> {
        let text = std::fs::read_to_string(file).ok()?;
        let document = DeTable::parse(&text).ok()?;
        let above = self.above.iter().map(|key| Part::Key(key.clone()));
        let offset = offset(document.get_ref(), &above.chain(way.iter().cloned()).collect::<Vec<_>>())?;
        let number = 1 + text.get(..offset)?.bytes().filter(|byte| *byte == b'\n').count();
        let line = text.lines().nth(number - 1)?.to_owned();
        Some(SourceLine { file: file.clone(), line: number, text: line })
    }
}

/// Where in the text of a document a key or an entry of a list begins, or the last on the way to it.
fn offset(table: &DeTable<'_>, way: &[Part]) -> Option<usize> {
    let (Part::Key(first), mut rest) = way.split_first()? else { return None };
    let (key, value) = table.iter().find(|(key, _)| key.get_ref().as_ref() == first)?;
    let (mut found, mut value) = (key.span().start, value);
    while let (DeValue::Array(items), Some((Part::Item(index), after))) =
        (value.get_ref(), rest.split_first())
    {
        value = items.get(*index)?;
        (found, rest) = (value.span().start, after);
    }
    match value.get_ref() {
        DeValue::Table(inner) if !rest.is_empty() => offset(inner, rest).or(Some(found)),
        _ => Some(found),
    }
}

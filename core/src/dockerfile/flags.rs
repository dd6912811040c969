//! The flags of an instruction: `--name=value`.

use crate::error::nearest;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// `--name`, or `--name=true|false`.
    Switch,
    /// `--name=value`, once.
    Value,
    /// `--name=value`, any number of times.
    Values,
}

/// The flags of one instruction, checked against those it knows.
#[derive(Debug)]
pub(super) struct Flags(Vec<(&'static str, String)>);

/// What is wrong with a flag: the message, and perhaps what to do.
#[derive(Debug)]
pub(super) struct BadFlag {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl BadFlag {
    fn new(message: String) -> Self {
        Self { message, hint: None }
    }
}

impl Flags {
    /// Checks the flags of the instruction `name` against the known ones.
    pub(super) fn read(
        name: &str,
        written: &[String],
        known: &[(&'static str, Takes)],
    ) -> Result<Self, BadFlag> {
        let mut flags: Vec<(&'static str, String)> = Vec::new();
        for flag in written {
            let word = flag.trim_start_matches("--");
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (word, None),
            };
            let Some((key, takes)) = known.iter().find(|(known, _)| *known == key) else {
                return Err(unknown(name, key, known));
            };
            if *takes != Takes::Values && flags.iter().any(|(seen, _)| seen == key) {
                return Err(BadFlag::new(format!("the flag `--{key}` is given twice")));
            }
            let value = match (takes, value) {
                (Takes::Switch, None) => "true".to_owned(),
                (Takes::Switch, Some(value)) => switch(key, value)?,
                (_, Some(value)) => value.to_owned(),
                (_, None) => return Err(BadFlag::new(format!("the flag `--{key}` needs a value"))),
            };
            flags.push((key, value));
        }
        Ok(Self(flags))
    }

    /// The value of a flag; an empty one counts as not given.
    pub(super) fn value(&self, name: &str) -> Option<String> {
        self.values(name).pop().filter(|value| !value.is_empty())
    }

    /// All values of a flag.
    pub(super) fn values(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(known, _)| *known == name).map(|(_, value)| value.clone()).collect()
    }

    /// A switch; `None` if it is not given.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.value(name).map(|value| value == "true")
    }
}

fn switch(key: &str, value: &str) -> Result<String, BadFlag> {
    match value.to_ascii_lowercase().as_str() {
        lower @ ("true" | "false") => Ok(lower.to_owned()),
        _ => Err(BadFlag::new(format!("the flag `--{key}` is `true` or `false`, not `{value}`"))),
    }
}

fn unknown(name: &str, key: &str, known: &[(&'static str, Takes)]) -> BadFlag {
    let names = || known.iter().map(|(known, _)| *known);
    let hint = match nearest(key, names()) {
        Some(near) => format!("did you mean `--{near}`?"),
        None if known.is_empty() => format!("{name} has no flags"),
        None => {
            let list: Vec<String> = names().map(|known| format!("`--{known}`")).collect();
            format!("its flags: {}", list.join(", "))
        }
    };
    BadFlag { message: format!("unknown flag `--{key}` of {name}"), hint: Some(hint) }
}

//! What the expressions of a Bake file come to.

use std::collections::BTreeMap;

use hcl::eval::{Context, ErrorKind, Evaluate};
use hcl::{Expression, Identifier, Value};

use super::super::located::{Field, Located, Raw};
use super::super::problems::Problems;
use super::functions;
use super::parse::{Assignment, Block, File};
use crate::error::nearest;
use crate::platform::Platform;

/// The keys of a variable.
const VARIABLE_KEYS: [&str; 5] = ["default", "type", "description", "sensitive", "validation"];

/// A larger value is none: variables made of one another would double it with each of them.
const LIMIT_SIZE: usize = 1 << 20;

/// Values that lie deeper within others are none.
const LIMIT_DEPTH: usize = 100;

/// The variables and functions that expressions may use.
pub(super) struct Scope {
    context: Context<'static>,
    names: Vec<String>,
}

impl Scope {
    /// Finds the value of every variable: of the environment, else its default.
    pub(super) fn of(file: &File, environment: &BTreeMap<String, String>, problems: &mut Problems) -> Self {
        let mut context = Context::new();
        functions::declare(&mut context);
        let mut scope = Self { context, names: Vec::new() };
        scope.declare("BAKE_LOCAL_PLATFORM", Platform::host().to_string().into());
        let mut open: Vec<Open<'_>> = Vec::new();
        for variable in &file.variables {
            check_keys(variable, problems);
            open.push(Open { name: &variable.label, line: variable.line, variable: Some(variable) });
        }
        for constant in &file.constants {
            open.push(Open { name: &constant.name, line: constant.line, variable: None });
        }
        // They may use each other in any order: what can be found is found first.
        loop {
            let before = open.len();
            let mut left = Vec::new();
            for one in open {
                let value = match one.variable {
                    Some(variable) => scope.variable(variable, environment, problems),
                    None => {
                        let constant = file.constants.iter().find(|constant| constant.name == one.name);
                        constant.map_or(Ok(Value::Null), |constant| scope.evaluate(&constant.expression))
                    }
                };
                match value {
                    Ok(value) => scope.declare(one.name, value),
                    Err(error) => left.push((one, error)),
                }
            }
            if left.is_empty() {
                break;
            }
            if left.len() == before {
                for (one, error) in left {
                    problems.add(one.line, format!("the variable `{}`: {}", one.name, scope.words(&error)));
                }
                break;
            }
            open = left.into_iter().map(|(one, _)| one).collect();
        }
        file.variables.iter().for_each(|variable| scope.validate(variable, problems));
        scope
    }

    /// The value of an attribute, with its line.
    pub(super) fn field(&self, attribute: &Assignment, problems: &mut Problems) -> Option<Field> {
        match self.evaluate(&attribute.expression) {
            Ok(value) => {
                let value = located(value, attribute.line);
                Some(Field { name: attribute.name.clone(), line: attribute.line, value })
            }
            Err(error) => {
                problems.add(attribute.line, format!("`{}`: {}", attribute.name, self.words(&error)));
                None
            }
        }
    }

    fn evaluate(&self, expression: &Expression) -> Result<Value, hcl::eval::Error> {
        let value = expression.evaluate(&self.context)?;
        match size(&value, 0) {
            Some(_) => Ok(value),
            None => Err(ErrorKind::Message("the value is too large".to_owned()).into()),
        }
    }

    fn declare(&mut self, name: &str, value: Value) {
        self.context.declare_var(Identifier::sanitized(name), value);
        self.names.push(name.to_owned());
    }

    fn variable(
        &self,
        variable: &Block,
        environment: &BTreeMap<String, String>,
        problems: &mut Problems,
    ) -> Result<Value, hcl::eval::Error> {
        let attribute = |name: &str| variable.attributes.iter().find(|attribute| attribute.name == name);
        let default = match attribute("default") {
            Some(default) => self.evaluate(&default.expression)?,
            None => Value::Null,
        };
        let Some(text) = environment.get(&variable.label) else { return Ok(default) };
        let stated = attribute("type").map(|stated| stated.expression.to_string());
        let value = match (stated.as_deref(), &default) {
            (Some("bool"), _) | (None, Value::Bool(_)) => flag(text).map(Value::Bool),
            (Some("number"), _) | (None, Value::Number(_)) => number(text),
            (Some("string"), _) | (None, Value::String(_) | Value::Null) => Some(Value::String(text.clone())),
            _ => None,
        };
        Ok(value.unwrap_or_else(|| {
            let text = format!(
                "the environment has `{text}` for the variable `{}`, which is not of its type",
                variable.label
            );
            problems.add(variable.line, text);
            default
        }))
    }

    fn validate(&self, variable: &Block, problems: &mut Problems) {
        for validation in variable.blocks.iter().filter(|block| block.label == "validation") {
            let find = |name: &str| validation.attributes.iter().find(|attribute| attribute.name == name);
            let Some(condition) = find("condition") else {
                problems.add(validation.line, "a validation must have a `condition`");
                continue;
            };
            match self.evaluate(&condition.expression) {
                Ok(Value::Bool(true)) => {}
                Ok(_) => {
                    let said = find("error_message").and_then(|said| self.evaluate(&said.expression).ok());
                    let said = said.as_ref().and_then(Value::as_str).unwrap_or("its condition does not hold");
                    problems.add(validation.line, format!("the variable `{}`: {said}", variable.label));
                }
                Err(error) => problems.add(condition.line, format!("`condition`: {}", self.words(&error))),
            }
        }
    }

    /// What went wrong, with what may have been meant.
    fn words(&self, error: &hcl::eval::Error) -> String {
        match error.kind() {
            ErrorKind::UndefinedVar(name) => {
                let text = format!("there is no variable `{name}`");
                match nearest(name.as_str(), self.names.iter().map(String::as_str)) {
                    Some(name) => format!("{text}; did you mean `{name}`?"),
                    None => text,
                }
            }
            ErrorKind::UndefinedFunc(name) => {
                let text = format!("the function `{name}` is not supported");
                match nearest(&name.to_string(), functions::names()) {
                    Some(name) => format!("{text}; did you mean `{name}`?"),
                    None => text,
                }
            }
            _ => error.to_string().replace('\n', " "),
        }
    }
}

/// How large a value is, in bytes of text and items; `None` beyond [`LIMIT_SIZE`] or [`LIMIT_DEPTH`].
fn size(value: &Value, depth: usize) -> Option<usize> {
    if depth > LIMIT_DEPTH {
        return None;
    }
    let sum = |known: usize, more: usize| Some(known + more).filter(|sum| *sum <= LIMIT_SIZE);
    match value {
        Value::String(text) => sum(1, text.len()),
        Value::Array(items) => items.iter().try_fold(1, |known, item| sum(known, size(item, depth + 1)?)),
        Value::Object(fields) => fields
            .iter()
            .try_fold(1, |known, (name, item)| sum(sum(known, name.len())?, size(item, depth + 1)?)),
        Value::Null | Value::Bool(_) | Value::Number(_) => Some(1),
    }
}

/// A name whose value is not known yet.
struct Open<'a> {
    name: &'a str,
    line: usize,
    /// `None` for a constant.
    variable: Option<&'a Block>,
}

fn check_keys(variable: &Block, problems: &mut Problems) {
    let attributes = variable.attributes.iter().map(|attribute| (&attribute.name, attribute.line));
    let blocks = variable.blocks.iter().map(|block| (&block.label, block.line));
    for (name, line) in attributes.chain(blocks) {
        if VARIABLE_KEYS.contains(&name.as_str()) {
            continue;
        }
        let mut text = format!("unknown key `{name}` of a variable");
        if let Some(name) = nearest(name, VARIABLE_KEYS) {
            text += &format!("; did you mean `{name}`?");
        }
        problems.add(line, text);
    }
}

/// As Go reads flags.
fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn number(text: &str) -> Option<Value> {
    match text.parse::<i64>() {
        Ok(number) => Some(number.into()),
        Err(_) => text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Into::into),
    }
}

fn located(value: Value, line: usize) -> Located {
    let raw = match value {
        Value::Null => Raw::Null,
        Value::Bool(flag) => Raw::Flag(flag),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Raw::Integer(number),
            (None, Some(number)) => Raw::Float(number),
            (None, None) => Raw::Other("a number that is too large"),
        },
        Value::String(text) => Raw::Text(text),
        // A list with a condition in it may have holes.
        Value::Array(items) => {
            let items = items.into_iter().filter(|item| *item != Value::Null);
            Raw::List(items.map(|item| located(item, line)).collect())
        }
        Value::Object(fields) => {
            let field = |(name, value)| Field { name, line, value: located(value, line) };
            Raw::Table(fields.into_iter().map(field).collect())
        }
    };
    Located::new(line, raw)
}

//! A Bake file as blocks with their lines; nothing is evaluated yet.
//!
//! JSON is read as what it is to Bake: the same blocks, written as objects, with templates in its texts. An object
//! of JSON is an object of HCL, so that there is one reader, and lines for both.

use hcl::Expression;
use hcl::edit::Span;
use hcl::edit::expr::{Expression as Node, Object, ObjectKey};
use hcl::edit::parser::{parse_body, parse_expr};
use hcl::edit::structure::{Block as BlockNode, Structure};

use super::super::located::Lines;
use super::super::problems::Problems;
use crate::error::nearest;

/// The blocks that a Bake file may have.
const KINDS: [&str; 4] = ["variable", "group", "target", "function"];

/// A Bake file.
#[derive(Debug, Default)]
pub(super) struct File {
    /// `NAME = VALUE` at the top.
    pub(super) constants: Vec<Assignment>,
    pub(super) variables: Vec<Block>,
    pub(super) groups: Vec<Block>,
    pub(super) targets: Vec<Block>,
}

/// `NAME = VALUE`
#[derive(Clone, Debug)]
pub(super) struct Assignment {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) expression: Expression,
}

/// `KIND "LABEL" { … }`
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) label: String,
    pub(super) line: usize,
    pub(super) attributes: Vec<Assignment>,
    /// Blocks within, named by their kind: `validation`.
    pub(super) blocks: Vec<Self>,
}

impl File {
    /// Reads HCL.
    pub(super) fn of_hcl(text: &str, problems: &mut Problems) -> Self {
        let mut file = Self::default();
        let lines = Lines::of(text);
        let body = match parse_body(text) {
            Ok(body) => body,
            Err(error) => {
                problems.add(error.location().line(), error.message().replace('\n', ", "));
                return file;
            }
        };
        for structure in body.iter() {
            match structure {
                Structure::Attribute(attribute) => file.constants.push(Assignment {
                    name: attribute.key.to_string(),
                    line: line_of(attribute, &lines),
                    expression: attribute.value.clone().into(),
                }),
                Structure::Block(block) => {
                    let read = read_block(block, &lines);
                    if let [_, second, ..] = &block.labels[..] {
                        let (kind, second) = (&block.ident, second.as_str());
                        let text = format!("a {} has one name: there is a second, `{second}`", kind.as_str());
                        problems.add(read.line, text);
                        continue;
                    }
                    file.add(block.ident.as_str(), read, problems);
                }
            }
        }
        file
    }

    /// Reads JSON.
    pub(super) fn of_json(text: &str, problems: &mut Problems) -> Self {
        let mut file = Self::default();
        if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            problems.add(error.line(), format!("this is not JSON: {message} (column {})", error.column()));
            return file;
        }
        // What stands around the object is no part of an expression.
        let start = text.len() - text.trim_start().len();
        let lines = Lines::of(text);
        let object = match parse_expr(text.trim()) {
            Ok(Node::Object(object)) => object,
            Ok(_) => {
                problems.add(1, "a Bake file in JSON is an object");
                return file;
            }
            Err(error) => {
                let line = lines.at(start + error.location().offset());
                problems.add(line, error.message().replace('\n', ", "));
                return file;
            }
        };
        let reader = JsonReader { lines, start };
        for (name, line, value) in reader.fields(&object) {
            match (KINDS.contains(&name.as_str()), value) {
                (true, Node::Object(blocks)) => {
                    for (label, line, value) in reader.fields(blocks) {
                        match value {
                            Node::Object(block) => {
                                file.add(&name, reader.block(label, line, block), problems)
                            }
                            _ => problems.add(line, format!("the {name} `{label}` must be an object")),
                        }
                    }
                }
                (true, _) => problems.add(line, format!("`{name}` must be an object")),
                (false, value) => {
                    file.constants.push(Assignment { name, line, expression: value.clone().into() });
                }
            }
        }
        file
    }

    fn add(&mut self, kind: &str, block: Block, problems: &mut Problems) {
        let line = block.line;
        let blocks = match kind {
            "variable" => &mut self.variables,
            "group" => &mut self.groups,
            "target" => &mut self.targets,
            "function" => {
                let text =
                    format!("the function `{}`: functions of one's own are not supported", block.label);
                return problems.add(line, text);
            }
            _ => {
                let mut text = format!("unknown block `{kind}`");
                match nearest(kind, KINDS) {
                    Some(name) => text += &format!("; did you mean `{name}`?"),
                    None => text += "; there are `variable`, `group` and `target`",
                }
                return problems.add(line, text);
            }
        };
        if block.label.is_empty() {
            return problems.add(line, format!("a {kind} must have a name: `{kind} \"NAME\" {{ … }}`"));
        }
        if let Some(other) = blocks.iter().find(|other| other.label == block.label) {
            let text = format!("the {kind} `{}` is in line {} already", block.label, other.line);
            return problems.add(line, text);
        }
        blocks.push(block);
    }
}

fn line_of(node: &impl Span, lines: &Lines) -> usize {
    node.span().map_or(1, |span| lines.at(span.start))
}

fn read_block(block: &BlockNode, lines: &Lines) -> Block {
    let attributes = block.body.attributes().map(|attribute| Assignment {
        name: attribute.key.to_string(),
        line: line_of(attribute, lines),
        expression: attribute.value.clone().into(),
    });
    let inner =
        block.body.blocks().map(|inner| Block { label: inner.ident.to_string(), ..read_block(inner, lines) });
    Block {
        label: block.labels.first().map(|label| label.as_str().to_owned()).unwrap_or_default(),
        line: line_of(block, lines),
        attributes: attributes.collect(),
        blocks: inner.collect(),
    }
}

struct JsonReader {
    lines: Lines,
    /// Where the expression begins in the text.
    start: usize,
}

impl JsonReader {
    /// The fields of an object: name, line, value.
    fn fields<'a>(&self, object: &'a Object) -> Vec<(String, usize, &'a Node)> {
        let field = |(key, value): (&ObjectKey, &'a hcl::edit::expr::ObjectValue)| {
            let name = match key {
                ObjectKey::Ident(name) => name.to_string(),
                ObjectKey::Expression(Node::String(name)) => name.to_string(),
                ObjectKey::Expression(other) => other.to_string().trim().trim_matches('"').to_owned(),
            };
            let line = key.span().map_or(1, |span| self.lines.at(self.start + span.start));
            (name, line, value.expr())
        };
        object.iter().map(field).collect()
    }

    fn block(&self, label: String, line: usize, object: &Object) -> Block {
        let mut block = Block { label, line, attributes: Vec::new(), blocks: Vec::new() };
        for (name, line, value) in self.fields(object) {
            match value {
                Node::Object(inner) if name == "validation" => {
                    block.blocks.push(self.block(name, line, inner));
                }
                value => block.attributes.push(Assignment { name, line, expression: value.clone().into() }),
            }
        }
        block
    }
}

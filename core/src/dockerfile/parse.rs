//! From logical lines to instructions and stages, with BuildKit's rules and refusals.

use super::flags::{BadFlag, Flags, Takes};
use super::heredoc::Heredoc;
use super::instruction::{Argument, CommandLine, Copy, Instruction, InstructionKind, Run, Stage};
use super::lines::LogicalLine;
use super::words::{self, BadPairs, NoArray};
use super::{Location, Source};
use crate::Result;
use crate::error::{Error, nearest};

const INSTRUCTIONS: &[&str] = &[
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// What one logical line is.
pub(super) enum Parsed {
    /// A FROM.
    Stage(Stage),
    /// Anything else.
    Instruction(Instruction),
}

/// Reads the logical lines into the arguments before the first FROM, and the stages.
pub(super) fn stages(
    source: &Source,
    lines: &[LogicalLine],
    escape: char,
) -> Result<(Vec<Instruction>, Vec<Stage>)> {
    let mut global = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    for line in lines {
        match instruction(source, line, escape)? {
            Parsed::Stage(stage) => stages.push(Stage { index: stages.len(), ..stage }),
            Parsed::Instruction(instruction) => match stages.last_mut() {
                Some(stage) => stage.instructions.push(instruction),
                None if matches!(instruction.kind, InstructionKind::Arg(_)) => global.push(instruction),
                None => {
                    let message = format!("{} stands before the first FROM", instruction.kind.name());
                    return Err(source
                        .error(line.location, message)
                        .with_hint("only ARG may stand there; begin with `FROM image` or `FROM scratch`"));
                }
            },
        }
    }
    Ok((global, stages))
}

/// Reads one logical line.
pub(super) fn instruction(source: &Source, line: &LogicalLine, escape: char) -> Result<Parsed> {
    let (word, rest) = words::split_name(&line.text);
    let name = word.to_ascii_uppercase();
    let (flags, rest) = words::split_flags(rest);
    let reader = Reader { source, line, name: &name, flags: &flags, rest, escape };
    let kind = match name.as_str() {
        "FROM" => return reader.from().map(Parsed::Stage),
        "ADD" => InstructionKind::Add(reader.copy(true)?),
        "COPY" => InstructionKind::Copy(reader.copy(false)?),
        "ARG" => InstructionKind::Arg(reader.arguments()?),
        "CMD" => InstructionKind::Cmd(reader.command_line()?),
        "ENTRYPOINT" => InstructionKind::Entrypoint(reader.command_line()?),
        "ENV" => InstructionKind::Env(reader.pairs()?),
        "LABEL" => InstructionKind::Label(reader.pairs()?),
        "EXPOSE" => InstructionKind::Expose(reader.ports()?),
        "HEALTHCHECK" => InstructionKind::Healthcheck(reader.healthcheck()?),
        "MAINTAINER" => InstructionKind::Maintainer(reader.one()?),
        "ONBUILD" => InstructionKind::Onbuild(reader.onbuild()?),
        "RUN" => InstructionKind::Run(reader.run()?),
        "SHELL" => InstructionKind::Shell(reader.shell()?),
        "STOPSIGNAL" => InstructionKind::Stopsignal(reader.one()?),
        "USER" => InstructionKind::User(reader.one()?),
        "VOLUME" => InstructionKind::Volume(reader.volumes()?),
        "WORKDIR" => InstructionKind::Workdir(reader.one()?),
        _ => return Err(unknown(source, line.location, word)),
    };
    let text = line.text.trim().to_owned();
    Ok(Parsed::Instruction(Instruction { location: line.location, text, kind }))
}

fn unknown(source: &Source, location: Location, word: &str) -> Error {
    let error = source.error(location, format!("unknown instruction `{word}`"));
    match nearest(&word.to_ascii_uppercase(), INSTRUCTIONS.iter().copied()) {
        Some(near) => error.with_hint(format!("did you mean `{near}`?")),
        None => error.with_hint(format!("instructions: {}", INSTRUCTIONS.join(", "))),
    }
}

/// One instruction while it is read.
pub(super) struct Reader<'a> {
    source: &'a Source,
    line: &'a LogicalLine,
    name: &'a str,
    flags: &'a [String],
    pub(super) rest: &'a str,
    escape: char,
}

impl Reader<'_> {
    pub(super) fn error(&self, message: impl Into<String>) -> Error {
        self.source.error(self.line.location, message)
    }

    pub(super) fn flags(&self, known: &[(&'static str, Takes)]) -> Result<Flags> {
        Flags::read(self.name, self.flags, known).map_err(|BadFlag { message, hint }| {
            let error = self.error(message);
            match hint {
                Some(hint) => error.with_hint(hint),
                None => error,
            }
        })
    }

    fn no_flags(&self) -> Result<()> {
        self.flags(&[]).map(|_| ())
    }

    pub(super) fn needs_argument(&self) -> Error {
        self.error(format!("{} needs at least one argument", self.name))
    }

    fn from(&self) -> Result<Stage> {
        let arguments = words::plain(self.rest);
        let (base, name) = match &arguments[..] {
            [base] => (base, None),
            [base, keyword, name] if keyword.eq_ignore_ascii_case("as") => (base, Some(name)),
            _ => {
                return Err(self
                    .error("FROM takes one or three arguments")
                    .with_hint("write `FROM image` or `FROM image AS name`"));
            }
        };
        let name = name.map(|name| self.stage_name(name)).transpose()?;
        let flags = self.flags(&[("platform", Takes::Value)])?;
        Ok(Stage {
            index: 0,
            name,
            base: base.clone(),
            platform: flags.value("platform"),
            location: self.line.location,
            text: self.line.text.trim().to_owned(),
            instructions: Vec::new(),
        })
    }

    fn stage_name(&self, name: &str) -> Result<String> {
        let lower = name.to_ascii_lowercase();
        let valid = lower.starts_with(|c: char| c.is_ascii_lowercase())
            && lower.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c));
        if valid {
            return Ok(lower);
        }
        Err(self
            .error(format!("invalid stage name `{name}`"))
            .with_hint("a stage name starts with a letter and has letters, digits, `-`, `_` and `.`"))
    }

    fn arguments(&self) -> Result<Vec<Argument>> {
        let arguments = words::quoted(self.rest, self.escape);
        if arguments.is_empty() {
            return Err(self.needs_argument());
        }
        arguments
            .into_iter()
            .map(|argument| match argument.split_once('=') {
                Some(("", _)) => Err(self.error("an ARG has no name")),
                Some((name, value)) => {
                    Ok(Argument { name: name.to_owned(), default: Some(value.to_owned()) })
                }
                None => Ok(Argument { name: argument, default: None }),
            })
            .collect()
    }

    fn pairs(&self) -> Result<Vec<(String, String)>> {
        self.no_flags()?;
        let name = self.name;
        let pairs = words::pairs(self.rest, self.escape).map_err(|why| match why {
            BadPairs::ValueMissing => self.error(format!("{name} needs a name and a value")),
            BadPairs::NameEmpty => self.error(format!("a name of {name} is empty")),
            BadPairs::WithoutEquals(word) => self
                .error(format!("`{word}` has no `=`"))
                .with_hint(format!("write `{name} NAME=value`, with quotes around a value that has blanks")),
        })?;
        if pairs.is_empty() { Err(self.needs_argument()) } else { Ok(pairs) }
    }

    /// The JSON form, or `None` for any other.
    pub(super) fn array(&self, text: &str) -> Result<Option<Vec<String>>> {
        match words::json_array(text) {
            Ok(array) => Ok(Some(array)),
            Err(NoArray::NotJson) => Ok(None),
            Err(NoArray::NotStrings) => Err(self.error("the JSON form takes strings only")),
        }
    }

    fn list(&self) -> Result<Vec<String>> {
        Ok(self.array(self.rest)?.unwrap_or_else(|| words::plain(self.rest)))
    }

    fn command_line(&self) -> Result<CommandLine> {
        self.no_flags()?;
        Ok(match self.array(self.rest)? {
            Some(array) => CommandLine::Exec(array),
            // Without any argument BuildKit reads an empty list, not an empty line.
            None if self.rest.is_empty() => CommandLine::Exec(Vec::new()),
            None => CommandLine::Shell(self.rest.to_owned()),
        })
    }

    fn copy(&self, add: bool) -> Result<Copy> {
        let mut arguments = self.list()?;
        if arguments.len() < 2 {
            return Err(self
                .error(format!("{} needs at least two arguments", self.name))
                .with_hint("the last one is the destination"));
        }
        let mut known = vec![
            ("chown", Takes::Value),
            ("chmod", Takes::Value),
            ("link", Takes::Switch),
            ("exclude", Takes::Values),
        ];
        known.extend(if add {
            vec![("checksum", Takes::Value), ("keep-git-dir", Takes::Switch), ("unpack", Takes::Switch)]
        } else {
            vec![("from", Takes::Value), ("parents", Takes::Switch)]
        });
        let flags = self.flags(&known)?;
        let destination = arguments.pop().unwrap_or_default();
        if Heredoc::opening(&destination).is_some() {
            return Err(self.error(format!("{} cannot have a heredoc as its destination", self.name)));
        }
        let (sources, heredocs) = self.sources(arguments);
        Ok(Copy {
            sources,
            heredocs,
            destination,
            from: flags.value("from"),
            chown: flags.value("chown"),
            chmod: flags.value("chmod"),
            link: flags.switch("link").unwrap_or(false),
            parents: flags.switch("parents").unwrap_or(false),
            exclude: flags.values("exclude"),
            checksum: flags.value("checksum"),
            keep_git_dir: flags.switch("keep-git-dir"),
            unpack: flags.switch("unpack"),
        })
    }

    /// Tells the heredocs among the sources from the paths.
    fn sources(&self, arguments: Vec<String>) -> (Vec<String>, Vec<Heredoc>) {
        let mut sources = Vec::new();
        let mut heredocs = Vec::new();
        for argument in arguments {
            let read = Heredoc::opening(&argument)
                .and_then(|opening| self.line.heredocs.iter().find(|heredoc| heredoc.name == opening.name));
            match read {
                Some(heredoc) => heredocs.push(heredoc.clone()),
                None => sources.push(argument),
            }
        }
        (sources, heredocs)
    }

    fn ports(&self) -> Result<Vec<String>> {
        self.no_flags()?;
        let mut ports = words::plain(self.rest);
        if ports.is_empty() {
            return Err(self.needs_argument());
        }
        ports.sort();
        Ok(ports)
    }

    fn one(&self) -> Result<String> {
        self.no_flags()?;
        if self.rest.is_empty() {
            return Err(self.error(format!("{} needs exactly one argument", self.name)));
        }
        Ok(self.rest.to_owned())
    }

    fn volumes(&self) -> Result<Vec<String>> {
        self.no_flags()?;
        let volumes = self.list()?;
        if volumes.is_empty() {
            return Err(self.needs_argument());
        }
        let trimmed: Vec<String> = volumes.iter().map(|volume| volume.trim().to_owned()).collect();
        if trimmed.iter().any(String::is_empty) {
            return Err(self.error("a volume cannot be empty"));
        }
        Ok(trimmed)
    }

    fn shell(&self) -> Result<Vec<String>> {
        self.no_flags()?;
        match self.array(self.rest)? {
            Some(array) if array.is_empty() => Err(self.needs_argument()),
            Some(array) => Ok(array),
            None if self.rest.is_empty() => Err(self.needs_argument()),
            None => Err(self
                .error("SHELL takes the JSON form only")
                .with_hint("write `SHELL [\"/bin/bash\", \"-c\"]`, with double quotes")),
        }
    }

    fn run(&self) -> Result<Run> {
        let known = [
            ("mount", Takes::Values),
            ("network", Takes::Value),
            ("security", Takes::Value),
            ("device", Takes::Values),
        ];
        self.flags(&known)?;
        let command = match self.array(self.rest)? {
            Some(array) => CommandLine::Exec(array),
            None => CommandLine::Shell(self.rest.to_owned()),
        };
        Ok(Run { command, flags: self.flags.to_vec(), heredocs: self.line.heredocs.clone() })
    }

    fn onbuild(&self) -> Result<String> {
        self.no_flags()?;
        let (trigger, _) = words::split_name(self.rest);
        match trigger.to_ascii_uppercase().as_str() {
            "" => return Err(self.needs_argument()),
            "ONBUILD" => return Err(self.error("ONBUILD cannot trigger another ONBUILD")),
            name @ ("FROM" | "MAINTAINER") => {
                return Err(self.error(format!("ONBUILD cannot trigger {name}")));
            }
            _ => {}
        }
        let (_, trigger) = words::split_name(&self.line.text);
        let inner = LogicalLine { text: trigger.to_owned(), ..self.line.clone() };
        instruction(self.source, &inner, self.escape)?;
        let mut expression = trigger.to_owned();
        for heredoc in &self.line.heredocs {
            expression.push('\n');
            expression.push_str(&heredoc.content);
            expression.push_str(&heredoc.name);
        }
        Ok(expression)
    }
}

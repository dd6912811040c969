//! What a Dockerfile says, as data: instructions with their flags and arguments, not yet expanded.

use super::Location;
use super::heredoc::Heredoc;

/// One instruction of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Where it stands. For an ONBUILD trigger: the FROM that brought it in.
    pub location: Location,
    /// The instruction as it was written, continuation lines joined, heredocs left out.
    pub text: String,
    /// What it asks for.
    pub kind: InstructionKind,
}

/// What an instruction asks for. Words are as written: quotes, escapes and variables still in them,
/// where the instruction expands them at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstructionKind {
    /// ADD
    Add(Copy),
    /// ARG
    Arg(Vec<Argument>),
    /// CMD
    Cmd(CommandLine),
    /// COPY
    Copy(Copy),
    /// ENTRYPOINT
    Entrypoint(CommandLine),
    /// ENV: names and values, in order.
    Env(Vec<(String, String)>),
    /// EXPOSE
    Expose(Vec<String>),
    /// HEALTHCHECK
    Healthcheck(Healthcheck),
    /// LABEL: names and values, in order.
    Label(Vec<(String, String)>),
    /// MAINTAINER
    Maintainer(String),
    /// ONBUILD: the instruction it records, heredocs included.
    Onbuild(String),
    /// RUN
    Run(Run),
    /// SHELL
    Shell(Vec<String>),
    /// STOPSIGNAL
    Stopsignal(String),
    /// USER
    User(String),
    /// VOLUME
    Volume(Vec<String>),
    /// WORKDIR
    Workdir(String),
}

impl InstructionKind {
    /// The name of the instruction, in capitals.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "ADD",
            Self::Arg(_) => "ARG",
            Self::Cmd(_) => "CMD",
            Self::Copy(_) => "COPY",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Env(_) => "ENV",
            Self::Expose(_) => "EXPOSE",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Label(_) => "LABEL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::Onbuild(_) => "ONBUILD",
            Self::Run(_) => "RUN",
            Self::Shell(_) => "SHELL",
            Self::Stopsignal(_) => "STOPSIGNAL",
            Self::User(_) => "USER",
            Self::Volume(_) => "VOLUME",
            Self::Workdir(_) => "WORKDIR",
        }
    }
}

/// One name of an ARG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// Its default value.
    pub default: Option<String>,
}

/// What CMD and ENTRYPOINT run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// The JSON form: a program and its arguments.
    Exec(Vec<String>),
    /// A line for the shell.
    Shell(String),
}

/// COPY and ADD.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copy {
    /// The sources: paths with wildcards, and for ADD also addresses.
    pub sources: Vec<String>,
    /// The sources that stand in the Dockerfile itself.
    pub heredocs: Vec<Heredoc>,
    /// Where they go.
    pub destination: String,
    /// `--from`: a stage, its index, an image or a named context.
    pub from: Option<String>,
    /// `--chown`
    pub chown: Option<String>,
    /// `--chmod`
    pub chmod: Option<String>,
    /// `--link`
    pub link: bool,
    /// `--parents`
    pub parents: bool,
    /// `--exclude`, each.
    pub exclude: Vec<String>,
    /// `--checksum`, of ADD.
    pub checksum: Option<String>,
    /// `--keep-git-dir`, of ADD.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`, of ADD; archives of the context are unpacked unless it says otherwise.
    pub unpack: Option<bool>,
}

/// RUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What it runs.
    pub command: CommandLine,
    /// Its flags as written: `--mount=type=cache,target=/x`.
    pub flags: Vec<String>,
    /// Its heredocs.
    pub heredocs: Vec<Heredoc>,
}

/// HEALTHCHECK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Healthcheck {
    /// The test as the image config has it: `NONE`; or `CMD` or `CMD-SHELL` and what to run.
    pub test: Vec<String>,
    /// `--interval`, in nanoseconds; 0 inherits, here and below.
    pub interval: i64,
    /// `--timeout`, in nanoseconds.
    pub timeout: i64,
    /// `--start-period`, in nanoseconds.
    pub start_period: i64,
    /// `--start-interval`, in nanoseconds.
    pub start_interval: i64,
    /// `--retries`
    pub retries: u32,
}

/// A FROM and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its place in the file, from 0.
    pub index: usize,
    /// `AS name`, in lower case.
    pub name: Option<String>,
    /// The base as written.
    pub base: String,
    /// `--platform` as written.
    pub platform: Option<String>,
    /// Where the FROM stands.
    pub location: Location,
    /// The FROM as it was written.
    pub text: String,
    /// The instructions, in order.
    pub instructions: Vec<Instruction>,
}

impl Stage {
    /// How the stage is called in progress and messages: its name, or `stage-N`.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("stage-{}", self.index))
    }
}

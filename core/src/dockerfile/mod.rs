//! The Dockerfile: read, expanded, and planned into stages. Interpreting it is the work of a backend.
//!
//! In reading order: [`Dockerfile::parse`] gives stages of [`Instruction`]s; [`StagePlan`] says which
//! stages a target needs and what their bases are; [`Expander`] expands variables. [`plan`] and
//! [`base_images`] answer the two questions the pipeline has about any request.
//!
//! The reader is our own, because the `parse-dockerfile` crate (0.1.9) reads other than BuildKit:
//! a heredoc of RUN counts only as the first word (`RUN cat <<EOF > /x` fails); a line that ends in
//! a doubled escape character swallows the next instruction; ENV, LABEL and ARG come as one
//! unsplit string; flags are not checked, nor are stage names, `ONBUILD FROM` or `CMD [1]`. The
//! rules here are those of BuildKit's `frontend/dockerfile/{parser,instructions,shell,dockerfile2llb}`.

mod check;
mod duration;
mod expand;
mod flags;
mod graph;
mod healthcheck;
mod heredoc;
mod instruction;
mod lines;
mod named_context;
mod parse;
mod pattern;
mod plan;
mod predefined;
mod redact;
mod remote;
mod source;
mod substitution;
mod words;

use std::path::Path;
use std::sync::Arc;

pub use duration::format_duration;
pub use expand::{ExpandError, Expander, Lookup};
pub use heredoc::Heredoc;
pub use instruction::{Argument, CommandLine, Copy, Healthcheck, Instruction, InstructionKind, Run, Stage};
pub use named_context::find_context;
pub use plan::{Base, PlanInput, PlannedStage, ResolvedStage, StagePlan, base_images, plan, with_stage_hint};
pub use predefined::{is_proxy_argument, platform_arguments};
pub use redact::without_credentials;
pub use remote::{GitSource, RemoteSource, is_commit, percent_decoded, unpinned_sources};
pub use source::{Location, Source};

use crate::Result;
use crate::error::{Error, ErrorKind};
use lines::LogicalLine;

/// A Dockerfile that was read without errors.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    /// Its text, for messages.
    pub source: Arc<Source>,
    /// `# syntax=`: the image of the frontend it was written for.
    pub syntax: Option<String>,
    /// `# check=`: options for BuildKit's linter.
    pub check: Option<String>,
    /// The escape character: a backslash, or a backtick by `# escape=`.
    pub escape: char,
    /// The ARG instructions before the first FROM.
    pub global_arguments: Vec<Instruction>,
    /// The stages, in order; at least one.
    pub stages: Vec<Stage>,
    /// What is accepted but should be changed, one line each.
    pub warnings: Vec<String>,
}

impl Dockerfile {
    /// Reads a Dockerfile. `shown` is how messages name it.
    ///
    /// # Errors
    /// `InvalidDockerfile` with the line, for what BuildKit refuses as well: unknown instructions
    /// and flags, missing arguments, unclosed heredocs, no stage.
    pub fn parse(content: &[u8], shown: &Path) -> Result<Self> {
        let source = Arc::new(Source::new(shown, content)?);
        let directives = lines::directives(&source)?;
        let (lines, gaps) = lines::split(&source, directives.escape)?;
        let (global_arguments, stages) = parse::stages(&source, &lines, directives.escape)?;
        if stages.is_empty() {
            let message = format!("`{}` has no stage", shown.display());
            return Err(Error::new(ErrorKind::InvalidDockerfile, message)
                .with_hint("begin with `FROM image` or `FROM scratch`"));
        }
        let warnings = warn(&source, &gaps, directives.check.as_deref())?;
        Ok(Self {
            source,
            syntax: directives.syntax,
            check: directives.check,
            escape: directives.escape,
            global_arguments,
            stages,
            warnings,
        })
    }

    /// Says whether the file asks for a frontend other than the Dockerfile one, by `# syntax=`;
    /// then only BuildKit can know what its instructions mean.
    pub fn is_foreign(content: &[u8], shown: &Path) -> Result<bool> {
        let directives = lines::directives(&Source::new(shown, content)?)?;
        let foreign = |syntax: &str| {
            let name = syntax.split_whitespace().next().unwrap_or_default();
            let name = name.split('@').next().unwrap_or_default();
            let name = name.strip_prefix("docker.io/").unwrap_or(name);
            !(name == "docker/dockerfile"
                || name.starts_with("docker/dockerfile:")
                || name.starts_with("docker/dockerfile-upstream"))
        };
        Ok(directives.syntax.as_deref().is_some_and(foreign))
    }

    /// Reads the instruction that an ONBUILD recorded. Its location is that of the FROM.
    ///
    /// # Errors
    /// `InvalidDockerfile` with the line of the FROM.
    pub fn parse_trigger(&self, trigger: &str, location: Location) -> Result<Instruction> {
        let located = |error: Error| {
            self.source
                .error(location, format!("the base has an ONBUILD trigger that cannot be read: `{trigger}`"))
                .with_source(error)
        };
        let source = Source::new(Path::new("ONBUILD"), trigger.as_bytes()).map_err(located)?;
        let (lines, _) = lines::split(&source, '\\').map_err(located)?;
        let [line] = &lines[..] else {
            return Err(self
                .source
                .error(location, format!("the ONBUILD trigger `{trigger}` is not one instruction")));
        };
        let line = LogicalLine { location, ..line.clone() };
        match parse::instruction(&self.source, &line, '\\').map_err(located)? {
            parse::Parsed::Instruction(instruction) => Ok(instruction),
            parse::Parsed::Stage(_) => {
                Err(self.source.error(location, "an ONBUILD trigger cannot be a FROM"))
            }
        }
    }
}

/// What the checks find, as `# check=` has it.
fn warn(source: &Source, gaps: &[usize], options: Option<&str>) -> Result<Vec<String>> {
    let checks = match options.map(check::Checks::parse) {
        None => check::Checks::default(),
        Some(Ok(checks)) => checks,
        Some(Err(why)) => {
            let line = source.lines().iter().position(|line| line.to_ascii_lowercase().contains("check"));
            return Err(source.error(Location::line(line.unwrap_or_default() + 1), why));
        }
    };
    let found = gaps.iter().filter(|_| checks.makes("NoEmptyContinuation"));
    if let Some(line) = found.clone().next().filter(|_| checks.error) {
        let message = "an empty line within a continuation, and `# check=error=true`";
        return Err(source.error(Location::line(*line), message));
    }
    let shown = source.shown().display();
    Ok(found.map(|line| format!("{shown}:{line}: an empty line within a continuation")).collect())
}

#[cfg(test)]
mod tests;

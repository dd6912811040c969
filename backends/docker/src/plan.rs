//! What a build would do, in words.

use windlass_core::backend::PlannedAction;
use windlass_core::output::{Destination, Output};
use windlass_core::request::BuildRequest;

use crate::command;
use crate::config::Config;
use crate::engine::Engine;
use crate::input::Input;
use crate::program::Buildx;

/// The command line that would run, and what comes of it.
pub(crate) fn through_buildx(buildx: &Buildx, request: &BuildRequest, config: &Config) -> Vec<PlannedAction> {
    let input = Input::of(request);
    let arguments = command::arguments(request, config, buildx, &input, request.outputs.clone(), None);
    let program = &buildx.program;
    let variables = program.surroundings().set().iter().map(|(name, value)| format!("{name}={value}").into());
    let words = variables.chain([program.path().as_os_str().to_owned()]).chain(arguments);
    let run = PlannedAction {
        verb: "run".to_owned(),
        subject: command::shown(words),
        details: vec![format!("buildx {}", buildx.version), context(&input)],
    };
    std::iter::once(run).chain(results(request)).collect()
}

/// The call of the engine's API, and what comes of it.
pub(crate) fn through_engine(engine: &Engine, request: &BuildRequest) -> Vec<PlannedAction> {
    let run = PlannedAction {
        verb: "run".to_owned(),
        subject: format!("POST /build at {}", engine.endpoint()),
        details: vec!["BuildKit inside the docker engine".to_owned(), archive()],
    };
    std::iter::once(run).chain(results(request)).collect()
}

fn context(input: &Input) -> String {
    match input {
        Input::Directory { root, .. } => format!("context: the directory `{}`", root.display()),
        Input::DockerfileStream { root } => {
            format!("context: the directory `{}`; the Dockerfile on standard input", root.display())
        }
        Input::Archive(_) => archive(),
    }
}

fn archive() -> String {
    "context: a tar stream".to_owned()
}

fn results(request: &BuildRequest) -> Vec<PlannedAction> {
    let action =
        |verb: &str, subject: String| PlannedAction { verb: verb.to_owned(), subject, details: Vec::new() };
    let of_output = |output: &Output| match &output.destination {
        Some(Destination::Path(path)) => vec![action("write", path.display().to_string())],
        Some(Destination::Stdout) => vec![action("write", "-".to_owned())],
        None if output.pushes() => request.tags.iter().map(|tag| action("push", tag.to_string())).collect(),
        None => Vec::new(),
    };
    request.outputs.iter().flat_map(of_output).collect()
}

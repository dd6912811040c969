//! The doctor: everything that a build would need, in the order in which it would meet it.

use windlass_core::backend::{CheckReport, Job};
use windlass_core::error::{Error, ErrorKind};

use crate::config::{Config, Via};
use crate::endpoint::Endpoint;
use crate::engine::{Engine, OLDEST_ENGINE};
use crate::program::Program;
use crate::surroundings::Surroundings;
use crate::version::Version;

/// The oldest podman whose `buildx build` knows the options we pass.
const OLDEST_PODMAN: Version = Version(4, 9, 0);

/// Looks at the docker program, buildx, the engine and the selected builder. Changes nothing.
pub(crate) async fn check(config: &Config, surroundings: &Surroundings, job: &Job) -> CheckReport {
    let mut report = CheckReport::default();
    let engine_answers = engine(surroundings, &mut report, job).await;
    let program = match Program::locate(&config.docker, surroundings) {
        Ok(program) => program,
        Err(error) => {
            missing(&mut report, "docker program", &error, config.via, engine_answers);
            return report;
        }
    };
    client(&program, &mut report, job).await;
    match program.buildx(job).await {
        Ok(buildx) => {
            report.good("buildx", format!("{} (progress: {})", buildx.version, buildx.format().name()));
            builder(&program, config, &mut report, job).await;
        }
        Err(error) => missing(&mut report, "buildx", &error, config.via, engine_answers),
    }
    report
}

/// Says whether the engine answers. With a builder elsewhere, builds work without it, so it is no
/// more than a warning here; the builder's own check decides.
async fn engine(surroundings: &Surroundings, report: &mut CheckReport, job: &Job) -> bool {
    let endpoint = match Endpoint::resolve(surroundings) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            report.bad("docker engine", seen(&error), hint(&error));
            return false;
        }
    };
    let place = format!("{endpoint} ({})", endpoint.origin);
    let version = match Engine::connect(endpoint) {
        Ok(engine) => engine.version(job).await,
        Err(error) => Err(error),
    };
    let version = match version {
        Ok(version) => version,
        // Behind `ssh://`: the builder's own check reaches it through the docker program.
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            report.good("docker engine", format!("at {place}, through the docker program"));
            return false;
        }
        Err(error) => {
            report.warning("docker engine", seen(&error), hint(&error));
            return false;
        }
    };
    let podman = version.components.iter().any(|component| component.to_lowercase().contains("podman"));
    let name = if podman { "podman" } else { "engine" };
    let oldest = if podman { OLDEST_PODMAN } else { OLDEST_ENGINE };
    let text = format!("{name} {} at {place}", version.text);
    match version.version {
        Some(number) if number < oldest => {
            report.bad("docker engine", text, format!("install {name} {oldest} or newer"));
            false
        }
        _ => {
            report.good("docker engine", text);
            true
        }
    }
}

async fn client(program: &Program, report: &mut CheckReport, job: &Job) {
    match program.ask(&["--version"], job).await {
        Ok(answer) if answer.success => {
            let text = format!("{} at `{}`", answer.stdout, program.path().display());
            if answer.stdout.to_lowercase().contains("podman") {
                report.warning(
                    "docker program",
                    text,
                    "this is podman: set `docker` of this backend to docker's program",
                );
            } else {
                report.good("docker program", text);
            }
        }
        Ok(answer) => report.bad("docker program", answer.stderr, "reinstall docker"),
        Err(error) => report.bad("docker program", seen(&error), hint(&error)),
    }
}

/// The selected builder, without starting it.
async fn builder(program: &Program, config: &Config, report: &mut CheckReport, job: &Job) {
    let mut arguments = vec!["buildx", "inspect"];
    arguments.extend(config.builder.as_deref());
    let answer = match program.ask(&arguments, job).await {
        Ok(answer) => answer,
        Err(error) => return report.bad("builder", seen(&error), hint(&error)),
    };
    if !answer.success {
        return report.bad("builder", crate::error::cause(&answer.stderr), builder_hint(&answer.stderr));
    }
    let text = describe(&answer.stdout);
    match field(&answer.stdout, "Error") {
        Some(error) => report.bad("builder", format!("{text}: {error}"), builder_hint(error)),
        None => report.good("builder", text),
    }
}

fn builder_hint(says: &str) -> &'static str {
    let known = crate::error::classify(says).map(|(_, hint)| hint).filter(|hint| !hint.is_empty());
    known.unwrap_or("`docker buildx ls` shows the builders and their state")
}

/// `default, driver docker, running, BuildKit v0.13.2`
fn describe(inspected: &str) -> String {
    let name = field(inspected, "Name").unwrap_or("unnamed");
    let mut parts = vec![name.to_owned()];
    parts.extend(field(inspected, "Driver").map(|driver| format!("driver {driver}")));
    parts.extend(field(inspected, "Status").map(str::to_owned));
    let version = field(inspected, "BuildKit version").or_else(|| field(inspected, "Buildkit"));
    // Debian's engine does not know the version of its BuildKit.
    let version = version.filter(|version| !version.starts_with("v0.0.0"));
    parts.extend(version.map(|version| format!("BuildKit {version}")));
    parts.join(", ")
}

/// The first value of a field in what `docker buildx inspect` prints: `Driver:   docker`.
fn field<'a>(inspected: &'a str, name: &str) -> Option<&'a str> {
    let mut values = inspected.lines().filter_map(|line| line.trim().split_once(':'));
    values.find(|(key, _)| *key == name).map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
}

/// Without buildx a build goes through the engine, if the options allow it and it answers.
fn missing(report: &mut CheckReport, what: &str, error: &Error, via: Via, engine_answers: bool) {
    if via != Via::Buildx && engine_answers {
        let hint = format!("builds go through the engine, with fewer options; {}", hint(error));
        report.warning(what, seen(error), hint);
    } else {
        report.bad(what, seen(error), hint(error));
    }
}

/// The message and its causes in one line.
fn seen(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

fn hint(error: &Error) -> String {
    error.hints().first().cloned().unwrap_or_else(|| "see the backend's documentation".to_owned())
}

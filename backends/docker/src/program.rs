//! The docker program: where it is, what it is, and how it is called.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use windlass_core::Result;
use windlass_core::backend::Job;
use windlass_core::error::{Error, ErrorKind, ResultExt};

use crate::progress::Format;
use crate::surroundings::Surroundings;
use crate::version::Version;

/// The oldest buildx that takes what we pass: `--build-context` came with 0.8.
pub(crate) const OLDEST_BUILDX: Version = Version(0, 8, 0);
/// The first buildx with `--progress=rawjson`.
const RAWJSON_BUILDX: Version = Version(0, 13, 0);
/// The first buildx that adds attestations unless told otherwise.
const ATTESTING_BUILDX: Version = Version(0, 10, 0);
/// How long `docker version` and its like may take: they may start a virtual machine's proxy.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A docker program that exists.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    path: PathBuf,
    surroundings: Surroundings,
}

/// What a short-lived call gave.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A docker program with a usable buildx.
#[derive(Clone, Debug)]
pub(crate) struct Buildx {
    pub(crate) program: Program,
    pub(crate) version: Version,
}

impl Program {
    /// Finds the program: a name in `PATH`, a path anywhere.
    ///
    /// # Errors
    /// `Unavailable` if there is none.
    pub(crate) fn locate(name: &str, surroundings: &Surroundings) -> Result<Self> {
        let found = |path: PathBuf| Self { path, surroundings: surroundings.clone() };
        if name.contains('/') {
            let path = surroundings.current_dir().join(name);
            return match is_executable(&path) {
                true => Ok(found(path)),
                false => Err(missing(name, "it is no executable file")),
            };
        }
        let search = surroundings.variable("PATH").unwrap_or_default();
        std::env::split_paths(search)
            .map(|directory| surroundings.current_dir().join(directory).join(name))
            .find(|path| is_executable(path))
            .map(found)
            .ok_or_else(|| missing(name, "it is not in `PATH`"))
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self {
            path: "docker".into(),
            surroundings: Surroundings::for_tests(std::collections::BTreeMap::new()),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The environment it gets.
    pub(crate) fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    /// A call with these arguments that reads nothing.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(&self.path);
        command
            .args(arguments)
            .env_clear()
            .envs(self.surroundings.environment())
            .current_dir(self.surroundings.current_dir())
            .stdin(Stdio::null());
        command
    }

    /// Asks it something that it knows by itself.
    ///
    /// # Errors
    /// `Unavailable` if it cannot be started, `TimedOut` after 30 seconds, `Cancelled`.
    pub(crate) async fn ask(&self, arguments: &[&str], job: &Job) -> Result<Answer> {
        self.call(arguments, ANSWER_WITHIN, job).await
    }

    /// Calls it and waits for its end.
    ///
    /// # Errors
    /// `Unavailable` if it cannot be started, `TimedOut`, `Cancelled`.
    pub(crate) async fn call(&self, arguments: &[&str], within: Duration, job: &Job) -> Result<Answer> {
        let shown = format!("`{} {}`", self.path.display(), arguments.join(" "));
        let mut command = self.command(arguments);
        let output = command.kill_on_drop(true).output();
        let output = job
            .run(async {
                tokio::time::timeout(within, output)
                    .await
                    .map_err(|_| Error::new(ErrorKind::TimedOut, format!("{shown} gave no answer")))?
                    .or_error(ErrorKind::Unavailable, || format!("could not run {shown}"))
            })
            .await?;
        Ok(Answer {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// Asks for buildx.
    ///
    /// # Errors
    /// `Unavailable` if it is missing or too old.
    pub(crate) async fn buildx(&self, job: &Job) -> Result<Buildx> {
        let answer = self.ask(&["buildx", "version"], job).await?;
        if !answer.success {
            // `docker: 'buildx' is not a docker command.`; podman and old clients say it otherwise.
            let why = answer.stderr.lines().next().unwrap_or("it says nothing").to_owned();
            return Err(Error::new(ErrorKind::Unavailable, "docker buildx is not installed")
                .with_source(why)
                .with_detail("program", self.path.display().to_string())
                .with_hint("install the buildx plugin (package `docker-buildx` or `docker-buildx-plugin`)"));
        }
        // podman answers `buildx version` with the version of its own builder.
        if answer.stdout.contains("buildah") {
            return Err(Error::new(ErrorKind::Unavailable, "podman has no buildx")
                .with_detail("program", self.path.display().to_string())
                .with_source(format!("`buildx version` answered `{}`", answer.stdout))
                .with_hint("set `docker` of this backend to the program of docker"));
        }
        let version = Version::find(&answer.stdout).ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "docker buildx does not say its version")
                .with_source(format!("it answered `{}`", answer.stdout))
        })?;
        if version < OLDEST_BUILDX {
            let message = format!("docker buildx {version} is too old");
            return Err(Error::new(ErrorKind::Unavailable, message)
                .with_hint(format!("install buildx {OLDEST_BUILDX} or newer")));
        }
        Ok(Buildx { program: self.clone(), version })
    }
}

impl Buildx {
    /// The best form of progress it has.
    pub(crate) fn format(&self) -> Format {
        if self.version >= RAWJSON_BUILDX { Format::RawJson } else { Format::Plain }
    }

    /// Says whether it adds attestations unless told otherwise.
    pub(crate) fn attests(&self) -> bool {
        self.version >= ATTESTING_BUILDX
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn missing(name: &str, why: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("could not find the program `{name}`"))
        .with_source(why.to_owned())
        .with_hint("install docker with its buildx plugin, or set `docker` of this backend to its path")
}

//! The `git` program: found, called without questions, ended with all that it starts.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;
use windlass_core::backend::Job;
use windlass_core::error::{Error, ErrorKind, Result, ResultExt};

/// Where programs are if the environment does not say.
const DEFAULT_SEARCH: &str = "/usr/local/bin:/usr/bin:/bin";
/// How long git may take to end when it is told to.
const STOP_WITHIN: Duration = Duration::from_secs(2);
/// Sets the permissions that a checkout has on every machine, and becomes git.
const WITH_UMASK: &str = "umask 022 && exec \"$0\" \"$@\"";

/// What git needs to get at a repository: agents, proxies, certificates. Its own configuration is not
/// read, as BuildKit does not read it: it could change what a checkout holds.
const PASSED_ON: &[&str] = &[
    "ALL_PROXY",
    "GIT_ASKPASS",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_SSL_CAINFO",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "PATH",
    "SSH_AUTH_SOCK",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Settings for every call: no submodule from our own disk, no hooks, no server that sends nothing for
/// a minute.
const SETTINGS: &[&str] = &[
    "protocol.file.allow=user",
    "core.hooksPath=/dev/null",
    "init.defaultBranch=master",
    "advice.detachedHead=false",
    "gc.auto=0",
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=60",
];

/// A git program that exists, and the directory that it works in.
#[derive(Clone, Debug)]
pub(super) struct Git {
    program: PathBuf,
    environment: BTreeMap<String, String>,
    directory: PathBuf,
}

/// What git said when it failed.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    /// Its standard error.
    pub(super) said: String,
}

impl Git {
    /// Finds the program in `PATH`.
    ///
    /// # Errors
    /// `Unavailable` if it is not there.
    pub(super) fn locate(environment: &BTreeMap<String, String>, current_dir: &Path) -> Result<Self> {
        let search = environment.get("PATH").map_or(DEFAULT_SEARCH, String::as_str);
        let executable = |path: &PathBuf| {
            path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        };
        let program = std::env::split_paths(search)
            .map(|directory| current_dir.join(directory).join("git"))
            .find(executable)
            .ok_or_else(|| {
                let message = "the program `git` is needed to fetch a repository, and it is not in `PATH`";
                Error::new(ErrorKind::Unavailable, message).with_hint("install git")
            })?;
        let mut own: BTreeMap<String, String> = [
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_SSH_COMMAND", "ssh -o BatchMode=yes"),
            ("HOME", "/dev/null"),
            ("LC_ALL", "C"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let passed = PASSED_ON.iter().filter_map(|name| environment.get_key_value(*name));
        own.extend(passed.map(|(name, value)| (name.clone(), value.clone())));
        Ok(Self { program, environment: own, directory: current_dir.to_owned() })
    }

    /// The same program in another directory.
    pub(super) fn at(&self, directory: &Path) -> Self {
        Self { directory: directory.to_owned(), ..self.clone() }
    }

    /// The directory that it works in.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Calls it, and gives what it printed.
    ///
    /// # Errors
    /// `LocalIo` if it cannot be started; `Cancelled`, when nothing of it is left.
    pub(super) async fn call(
        &self,
        arguments: &[&str],
        job: &Job,
    ) -> Result<std::result::Result<String, Refusal>> {
        job.check()?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WITH_UMASK]).arg(&self.program);
        command
            .args(SETTINGS.iter().flat_map(|setting| ["-c", setting]))
            .args(arguments)
            .env_clear()
            .envs(&self.environment)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let failed = || "could not run git";
        let child = command.spawn().or_error(ErrorKind::LocalIo, failed)?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let signal = |signal| group.map(|group| kill_process_group(group, signal));
        let mut ended = std::pin::pin!(child.wait_with_output());
        let output = tokio::select! {
            output = &mut ended => output.or_error(ErrorKind::LocalIo, failed)?,
            () = job.cancel.cancelled() => {
                signal(Signal::TERM);
                if tokio::time::timeout(STOP_WITHIN, &mut ended).await.is_err() {
                    signal(Signal::KILL);
                    let _ = ended.await;
                }
                return Err(Error::cancelled());
            }
        };
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(match output.status.success() {
            true => Ok(said(&output.stdout)),
            false => Err(Refusal { said: said(&output.stderr) }),
        })
    }
}

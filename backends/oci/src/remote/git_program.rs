//! The `git` program: found, called without questions, ended with all that it starts.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use windlass_core::backend::Job;
use windlass_core::error::{Error, ErrorKind, Result, ResultExt};

use super::git_address::{self, Credential};
use super::git_output::{Heard, listen};

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

/// Settings for every call: no submodule from our own disk, no hooks, no http server that sends nothing.
const SETTINGS: &[&str] = &[
    "protocol.file.allow=user",
    "core.hooksPath=/dev/null",
    "init.defaultBranch=master",
    "advice.detachedHead=false",
    "gc.auto=0",
    "http.lowSpeedLimit=1",
];

/// A git program that exists, and the directory that it works in.
#[derive(Clone, Debug)]
pub(super) struct Git {
    program: PathBuf,
    environment: BTreeMap<String, String>,
    directory: PathBuf,
    silence: Duration,
    credential: Option<Credential>,
}

/// What came of a call: what git printed, or why not.
pub(super) type Answer = std::result::Result<String, Refusal>;

/// What git said when it failed.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    /// Its standard error.
    pub(super) said: String,
    /// It was stopped because nothing came from the server for so long.
    pub(super) silent_for: Option<Duration>,
}

impl Git {
    /// Finds the program in `PATH`. A server may keep `silence` before it is given up.
    ///
    /// # Errors
    /// `Unavailable` if it is not there.
    pub(super) fn locate(
        environment: &BTreeMap<String, String>,
        current_dir: &Path,
        silence: Duration,
    ) -> Result<Self> {
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
            ("HOME", "/dev/null"),
            ("LC_ALL", "C"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let passed = PASSED_ON.iter().filter_map(|name| environment.get_key_value(*name));
        own.extend(passed.map(|(name, value)| (name.clone(), value.clone())));
        // For git, GIT_SSH_COMMAND goes before GIT_SSH: ours must not hide that of the user.
        if !own.contains_key("GIT_SSH") {
            own.entry("GIT_SSH_COMMAND".to_owned()).or_insert_with(|| ssh_command(silence));
        }
        let directory = current_dir.to_owned();
        Ok(Self { program, environment: own, directory, silence, credential: None })
    }

    /// The same program in another directory.
    pub(super) fn at(&self, directory: &Path) -> Self {
        Self { directory: directory.to_owned(), ..self.clone() }
    }

    /// The directory that it works in.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The same program, which shows a credential to the server that it is for.
    pub(super) fn with_credential(&self, credential: Option<Credential>) -> Self {
        Self { credential, ..self.clone() }
    }

    /// Calls it for something on this machine, and gives what it printed.
    ///
    /// # Errors
    /// `LocalIo` if it cannot be started; `Cancelled`, when nothing of it is left.
    pub(super) async fn call(&self, arguments: &[&str], job: &Job) -> Result<Answer> {
        self.call_within(None, arguments, job).await
    }

    /// Calls it for something that goes over the network. It is stopped when it has heard nothing for too
    /// long; for that, `--progress` must be among the arguments where there is progress.
    ///
    /// # Errors
    /// As [`Git::call`].
    pub(super) async fn reach(&self, arguments: &[&str], job: &Job) -> Result<Answer> {
        self.call_within(Some(self.silence), arguments, job).await
    }

    async fn call_within(&self, silence: Option<Duration>, arguments: &[&str], job: &Job) -> Result<Answer> {
        job.check()?;
        let failed = || "could not run git";
        let mut child = self.command(arguments).spawn().or_error(ErrorKind::LocalIo, failed)?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let signal = |signal| group.map(|group| kill_process_group(group, signal));
        let heard = Heard::default();
        let mut ended = std::pin::pin!(output(&mut child, &heard));
        let silent = tokio::select! {
            output = &mut ended => {
                let (succeeded, printed, said) = output.or_error(ErrorKind::LocalIo, failed)?;
                return Ok(if succeeded { Ok(printed) } else { Err(Refusal { said, silent_for: None }) });
            }
            () = job.cancel.cancelled() => false,
            () = heard.silence(silence) => true,
        };
        signal(Signal::TERM);
        let mut output = tokio::time::timeout(STOP_WITHIN, &mut ended).await;
        if output.is_err() {
            signal(Signal::KILL);
            output = Ok(ended.await);
        }
        match output {
            Ok(Ok((_, _, said))) if silent => Ok(Err(Refusal { said, silent_for: silence })),
            _ if silent => Ok(Err(Refusal { said: String::new(), silent_for: silence })),
            _ => Err(Error::cancelled()),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut settings: Vec<String> = SETTINGS.iter().map(|setting| (*setting).to_owned()).collect();
        settings.push(format!("http.lowSpeedTime={}", self.silence.as_secs().max(1)));
        settings.extend(self.credential.as_ref().map(Credential::setting));
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WITH_UMASK]).arg(&self.program);
        command
            .args(settings.iter().flat_map(|setting| ["-c", setting]))
            .args(arguments)
            .env_clear()
            .envs(&self.environment)
            .envs(self.credential.as_ref().map(|credential| (git_address::VARIABLE, credential.words())))
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command
    }
}

/// Waits for the end: whether it succeeded, what it printed, what it said.
async fn output(child: &mut Child, heard: &Heard) -> std::io::Result<(bool, String, String)> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (printed, said, status) = tokio::join!(listen(stdout, heard), listen(stderr, heard), child.wait());
    Ok((status?.success(), printed?, said?))
}

/// An ssh that never asks, and gives up a server that does not answer.
fn ssh_command(silence: Duration) -> String {
    // Four questions without an answer, and the connection is taken for dead.
    let interval = (silence.as_secs() / 4).max(1);
    format!(
        "ssh -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval={interval} -o ServerAliveCountMax=4"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a program called `git` finds in its environment.
    async fn seen(own: &[(&str, &str)]) -> String {
        let dir = tempfile::tempdir().expect("temporary directory");
        let program = dir.path().join("git");
        std::fs::write(&program, "#!/bin/sh\n/usr/bin/env\n").expect("write");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("mode");
        let mut environment: BTreeMap<String, String> =
            own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        environment.insert("PATH".to_owned(), dir.path().display().to_string());
        let git = Git::locate(&environment, dir.path(), Duration::from_secs(60)).expect("git").at(dir.path());
        git.call(&[], &Job::silent()).await.expect("started").expect("done")
    }

    #[tokio::test]
    async fn an_ssh_of_the_user_is_the_one_that_counts() {
        let ours = seen(&[]).await;
        for option in ["ConnectTimeout=", "ServerAliveInterval=", "ServerAliveCountMax=", "BatchMode=yes"] {
            assert!(ours.contains(option), "{option}: {ours}");
        }
        let theirs = seen(&[("GIT_SSH", "/opt/ssh")]).await;
        assert!(theirs.contains("GIT_SSH=/opt/ssh") && !theirs.contains("GIT_SSH_COMMAND"), "{theirs}");
        let theirs = seen(&[("GIT_SSH_COMMAND", "ssh -F x")]).await;
        assert!(theirs.contains("GIT_SSH_COMMAND=ssh -F x\n"), "{theirs}");
    }
}

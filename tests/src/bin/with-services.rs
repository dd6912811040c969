//! Runs a command while a real registry and two real engines are up, and checks that it left nothing behind.
//!
//! ```text
//! with-services COMMAND [ARGUMENT]...
//! ```
//!
//! The command finds the addresses in its environment (`windlass_tests::service::variables`); its exit code is passed
//! on. A command that succeeds but leaves a container, a process or a temporary file behind fails with code 99.
#![expect(
    clippy::print_stderr,
    reason = "a program for developers, which has no output of its own but messages"
)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use windlass_tests::service::{Dockerd, ImageStore, Registry, variables};

type Failure = Box<dyn std::error::Error>;

const COULD_NOT_START: u8 = 98;
const SOMETHING_LEFT_BEHIND: u8 = 99;

// One thread only: the services end when the thread that started them does.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("with-services: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  cause: {error}");
                cause = error.source();
            }
            ExitCode::from(COULD_NOT_START)
        }
    }
}

async fn run() -> Result<u8, Failure> {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().ok_or("usage: with-services COMMAND [ARGUMENT]...")?;
    let arguments: Vec<OsString> = arguments.collect();

    let services = Services::start()?;
    let home = RunHome::create()?;
    let status = run_command(&program, &arguments, &services, &home).await?;

    let left = left_behind(&services, &home)?;
    services.stop();
    for line in &left {
        eprintln!("with-services: left behind: {line}");
    }
    let code = exit_code(status);
    Ok(if code == 0 && !left.is_empty() { SOMETHING_LEFT_BEHIND } else { code })
}

/// Everything that is up during the run.
struct Services {
    registry: Registry,
    classic: Dockerd,
    containerd: Dockerd,
    bases: PathBuf,
}

impl Services {
    fn start() -> Result<Self, Failure> {
        let bases = std::env::var_os(variables::BASES).ok_or_else(|| {
            format!("`{}` is not set: use `tests/run`, which makes the base images", variables::BASES)
        })?;
        let mut classic = Dockerd::launch(ImageStore::Classic)?;
        let mut containerd = Dockerd::launch(ImageStore::Containerd)?;
        let registry = Registry::start()?;
        let bases = PathBuf::from(bases);
        push(&bases, "debian:bookworm", &registry)?;
        push(&bases, "busybox:1", &registry)?;
        classic.wait()?;
        containerd.wait()?;
        Ok(Self { registry, classic, containerd, bases })
    }

    /// Takes everything down; an engine takes a second for that, so both at once.
    fn stop(self) {
        let Self { registry, classic, containerd, bases: _ } = self;
        std::thread::scope(|scope| {
            scope.spawn(|| drop(containerd));
            drop(classic);
            drop(registry);
        });
    }

    fn engines(&self) -> [&Dockerd; 2] {
        [&self.classic, &self.containerd]
    }
}

/// Copies a base image into the registry with skopeo, all its platforms.
fn push(bases: &Path, image: &str, registry: &Registry) -> Result<(), Failure> {
    let source = format!("oci:{}/{image}", bases.display());
    let destination = format!("docker://{}/base/{image}", registry.address());
    let output = Command::new("skopeo")
        .args(["copy", "--quiet", "--all", "--dest-tls-verify=false", &source, &destination])
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("could not push `{source}`: {}", String::from_utf8_lossy(&output.stderr).trim_end()).into())
}

/// Directories that belong to one run: what is in `temporary` afterwards was left behind.
struct RunHome {
    directory: TempDir,
    mark: String,
}

impl RunHome {
    fn create() -> Result<Self, Failure> {
        let directory = tempfile::Builder::new().prefix("windlass-run.").tempdir()?;
        for name in ["bin", "docker", "tmp"] {
            fs::create_dir(directory.path().join(name))?;
        }
        // A client from elsewhere may come first in PATH, without buildx.
        symlink("/usr/bin/docker", directory.path().join("bin/docker"))?;
        let mark = directory.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { directory, mark })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn search_path(&self) -> Result<OsString, Failure> {
        let before = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(self.at("bin")).chain(std::env::split_paths(&before));
        Ok(std::env::join_paths(paths)?)
    }
}

/// Runs the command in a process group of its own and hands it every signal that would end us first.
async fn run_command(
    program: &OsStr,
    arguments: &[OsString],
    services: &Services,
    home: &RunHome,
) -> Result<ExitStatus, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;

    // `setpriv` becomes the command, which the kernel ends should we be killed outright.
    let mut command = tokio::process::Command::new("setpriv");
    command
        .args(["--pdeathsig", "TERM", "--"])
        .arg(program)
        .args(arguments)
        .env(variables::REGISTRY, services.registry.address())
        .env(variables::DOCKER_HOST, services.classic.host())
        .env(variables::DOCKER_HOST_CONTAINERD, services.containerd.host())
        .env(variables::BASES, &services.bases)
        .env(variables::RUN, &home.mark)
        .env("DOCKER_HOST", services.classic.host())
        .env("DOCKER_CONFIG", home.at("docker"))
        .env("TMPDIR", home.at("tmp"))
        .env("PATH", home.search_path()?)
        .env_remove("DOCKER_CONTEXT")
        .env_remove("BUILDX_BUILDER")
        .env_remove("BUILDX_CONFIG")
        .process_group(0);
    let name = program.to_string_lossy();
    let mut child = command.spawn().map_err(|error| format!("could not start `{name}`: {error}"))?;
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));

    loop {
        let number = tokio::select! {
            status = child.wait() => return Ok(status?),
            _ = interrupt.recv() => Signal::INT,
            _ = terminate.recv() => Signal::TERM,
            _ = hangup.recv() => Signal::HUP,
        };
        if let Some(group) = group {
            let _ = kill_process_group(group, number);
        }
    }
}

/// The code of a program that exited; 128 and the signal's number, as a shell says it, for one that was ended.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|number| 128 + number));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Lists what a tidy command would have removed, and ends the processes among it.
fn left_behind(services: &Services, home: &RunHome) -> Result<Vec<String>, Failure> {
    let mut left = Vec::new();
    for (pid, line) in marked_processes(&home.mark) {
        left.push(format!("process {} `{line}`", pid.as_raw_nonzero()));
        let _ = kill_process(pid, Signal::KILL);
    }
    for engine in services.engines() {
        left.extend(engine.containers()?.into_iter().map(|container| format!("container {container}")));
    }
    for entry in fs::read_dir(home.at("tmp"))? {
        left.push(format!("file {}", entry?.path().display()));
    }
    left.sort();
    Ok(left)
}

/// Processes with this run's mark in their environment: whatever the command started, however far detached.
fn marked_processes(mark: &str) -> Vec<(Pid, String)> {
    let mark = format!("{}={mark}", variables::RUN);
    let marked = |entry: fs::DirEntry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let environment = fs::read(entry.path().join("environ")).ok()?;
        if !environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
            return None;
        }
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        Some((pid, String::from_utf8_lossy(&line).replace('\0', " ").trim_end().to_owned()))
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(marked).collect()
}

//! The real engine: a dockerd with its own containerd, data, socket and network link.
//!
//! What it takes, found by trying: `--exec-root` and `--data-root` apart from the machine's, an empty configuration
//! file (the machine's may name other options), and a bridge that we make ourselves. With `--bridge none` a plain `RUN`
//! fails ("network bridge not found"), and the default bridge `docker0` may belong to another engine. Firewall and
//! forwarding options are off: the machine stays as it was, and containers reach nothing but each other.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::Error;
use super::daemon::{ANSWER_WITHIN, Daemon, answers_ok};

/// Where the engine keeps images; the two differ in what buildx can export through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageStore {
    /// The default of engine 26: no OCI or docker archives, one platform an image.
    Classic,
    /// Images live in containerd: OCI archives, several platforms, attestations.
    Containerd,
}

/// A running engine. Dropping it removes its containers, images, mounts and files.
#[derive(Debug)]
pub struct Dockerd {
    // Dropped in this order: the program, what it may have left, its network link, its files.
    daemon: Daemon,
    _remains: Remains,
    _bridge: Bridge,
    directory: TempDir,
}

impl Dockerd {
    /// Starts an engine without images and waits until it answers.
    ///
    /// # Errors
    /// As [`launch`](Self::launch) and [`wait`](Self::wait).
    pub fn start(store: ImageStore) -> Result<Self, Error> {
        let mut engine = Self::launch(store)?;
        engine.wait()?;
        Ok(engine)
    }

    /// Starts an engine without waiting for it: it takes a second, in which the caller can start other things.
    ///
    /// # Errors
    /// `NotRoot`; `Command` or `Io` if its bridge or directory cannot be made, or the program cannot be started.
    pub fn launch(store: ImageStore) -> Result<Self, Error> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        // A socket path may have 107 bytes, and containerd's is 40 below this: so not in `TMPDIR`, which may be deep.
        let directory = tempfile::Builder::new()
            .prefix("windlass-engine.")
            .tempdir_in("/tmp")
            .map_err(|source| Error::Io { what: "make a directory for the engine".into(), source })?;
        let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();

        let config = at("daemon.json");
        let containerd = store == ImageStore::Containerd;
        fs::write(&config, format!(r#"{{"features": {{"containerd-snapshotter": {containerd}}}}}"#))
            .map_err(|source| Error::Io { what: "write the engine's configuration".into(), source })?;
        let bridge = Bridge::create()?;
        // For tests/setup/sweep.sh, should this process be killed.
        fs::write(at("bridge"), &bridge.name)
            .map_err(|source| Error::Io { what: "note the engine's bridge".into(), source })?;
        let remains = Remains { mark: directory.path().to_string_lossy().into_owned() };

        let arguments = [
            &format!("--config-file={config}"),
            &format!("--data-root={}", at("data")),
            &format!("--exec-root={}", at("exec")),
            &format!("--pidfile={}", at("pid")),
            &format!("--host=unix://{}", at("docker.sock")),
            &format!("--bridge={}", bridge.name),
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--ip-masq=false",
        ];
        let daemon = Daemon::start("dockerd", &arguments, &directory.path().join("log"))?;
        Ok(Self { daemon, _remains: remains, _bridge: bridge, directory })
    }

    /// Waits until the engine answers.
    ///
    /// # Errors
    /// `Exited` or `Silent`, with the end of the engine's log.
    pub fn wait(&mut self) -> Result<(), Error> {
        let socket = self.directory.path().join("docker.sock");
        self.daemon.wait_until(|| {
            UnixStream::connect(&socket).is_ok_and(|stream| {
                stream.set_read_timeout(Some(ANSWER_WITHIN)).is_ok() && answers_ok(stream, "/_ping")
            })
        })
    }

    /// What `DOCKER_HOST` should be: `unix://…`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.directory.path().join("docker.sock").display())
    }

    /// Names and states of the containers that exist, running or not. A test that cleans up leaves none.
    ///
    /// # Errors
    /// `Command` if the engine does not answer any more.
    pub fn containers(&self) -> Result<Vec<String>, Error> {
        let format = "{{.Names}} ({{.Image}}, {{.Status}})";
        let host = self.host();
        let listing = run("/usr/bin/docker", &["--host", &host, "ps", "--all", "--format", format])?;
        Ok(listing.lines().map(str::to_owned).collect())
    }

    /// The last lines of the engine's log.
    pub fn log_tail(&self) -> String {
        self.daemon.log_tail()
    }
}

/// A network bridge of our own, for the containers of one engine.
#[derive(Debug)]
struct Bridge {
    name: String,
}

impl Bridge {
    /// Makes a bridge with a /24 of 198.18.0.0/15, which RFC 2544 sets aside for tests, so it clashes with no real one.
    fn create() -> Result<Self, Error> {
        let taken = run("ip", &["-o", "-4", "address"])?;
        let first = std::process::id() % 256;
        let free = (first..first + 256)
            .map(|n| n % 256)
            .filter(|third| !taken.contains(&format!("198.18.{third}.")));
        let mut refusal = Error::Command { command: "ip".into(), stderr: "198.18.0.0/16 is full".into() };
        for third in free {
            // Whoever makes the link first has the number: of two runs that choose the same one, the other goes on.
            let name = format!("windlass{third}");
            match run("ip", &["link", "add", "name", &name, "type", "bridge"]) {
                Ok(_) => {
                    let bridge = Self { name };
                    run("ip", &["address", "add", &format!("198.18.{third}.1/24"), "dev", &bridge.name])?;
                    run("ip", &["link", "set", &bridge.name, "up"])?;
                    return Ok(bridge);
                }
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = run("ip", &["link", "delete", &self.name]);
    }
}

/// What an engine leaves when it is killed, and even when it ends in peace: a namespace mount, seldom a containerd.
#[derive(Debug)]
struct Remains {
    /// The engine's directory. Its name is random, so whatever mentions it is the engine's.
    mark: String,
}

impl Drop for Remains {
    fn drop(&mut self) {
        for pid in processes_mentioning(&self.mark) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let ours: Vec<&str> = points.filter(|point| Path::new(point).starts_with(&self.mark)).collect();
        for point in ours.iter().rev() {
            let _ = run("umount", &["--lazy", point]);
        }
    }
}

fn processes_mentioning(mark: &str) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mentions = |entry: &fs::DirEntry| {
        fs::read(entry.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(mark))
    };
    let numbers =
        entries.flatten().filter(mentions).filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(Pid::from_raw).filter(|pid| *pid != rustix::process::getpid()).collect()
}

fn run(program: &str, arguments: &[&str]) -> Result<String, Error> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|source| Error::Io { what: format!("run {program}"), source })?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::Command { command: format!("{program} {}", arguments.join(" ")), stderr });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

//! One background program: started with its output in a log file, waited for, stopped by its process id.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Error;

const READY_WITHIN: Duration = Duration::from_secs(60);
const STOPPED_WITHIN: Duration = Duration::from_secs(20);
/// How long one question may take; a server that is starting up often accepts it long before it answers.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);
const LOG_TAIL_LINES: usize = 30;

/// True if the server at the other end answers a GET of `path` with 200.
pub(super) fn answers_ok(stream: impl Read + Write, path: &str) -> bool {
    answers_with(stream, path, "200")
}

/// True if the server at the other end answers a GET of `path` with this status.
pub(super) fn answers_with(stream: impl Read + Write, path: &str, status: &str) -> bool {
    gets(stream, &format!("GET {path} HTTP/1.0\r\n\r\n"), status)
}

/// True if this request is answered with 200.
pub(super) fn gets_ok(stream: impl Read + Write, request: &str) -> bool {
    gets(stream, request, "200")
}

fn gets(mut stream: impl Read + Write, request: &str, status: &str) -> bool {
    let mut start = [0; 12];
    stream.write_all(request.as_bytes()).and_then(|()| stream.read_exact(&mut start)).is_ok()
        && start.starts_with(b"HTTP/1.")
        && start.ends_with(format!(" {status}").as_bytes())
}

/// A running program. Dropping it ends the program and waits for that.
#[derive(Debug)]
pub(super) struct Daemon {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts the program `name`; [`wait_until`](Self::wait_until) it answers before using it.
    ///
    /// The program gets a process group of its own, so that Ctrl-C in a terminal does not end it before the tests that
    /// use it. It also gets SIGTERM from the kernel when the *thread* that started it ends, so that even a killed test
    /// run leaves nothing running: start services from a thread that outlives their use.
    ///
    /// # Errors
    /// `Io` if the program cannot be started.
    pub(super) fn start(name: &'static str, arguments: &[&str], log: &Path) -> Result<Self, Error> {
        use std::os::unix::process::CommandExt as _;

        let io = |what: &str| {
            let what = format!("{what} {name}");
            move |source| Error::Io { what, source }
        };
        let output = File::create(log).map_err(io("make a log file for"))?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--", name])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(io("make a log file for"))?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .map_err(io("start"))?;
        Ok(Self { name, child, log: log.to_owned() })
    }

    /// Returns once `ready` says yes.
    ///
    /// # Errors
    /// `Exited` if the program ends before that, `Silent` if it takes too long.
    pub(super) fn wait_until(&mut self, mut ready: impl FnMut() -> bool) -> Result<(), Error> {
        let started = Instant::now();
        while !ready() {
            if let Some(status) = self.ended()? {
                return Err(Error::Exited {
                    name: self.name,
                    status: status.to_string(),
                    log: self.log_tail(),
                });
            }
            if started.elapsed() > READY_WITHIN {
                return Err(Error::Silent { name: self.name, waited: READY_WITHIN, log: self.log_tail() });
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// The last lines of what the program has written so far.
    pub(super) fn log_tail(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        let what = || format!("wait for {}", self.name);
        self.child.try_wait().map_err(|source| Error::Io { what: what(), source })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let asked = Instant::now();
        while asked.elapsed() < STOPPED_WITHIN {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! A child process and everything it starts, from its start to its last output.
//!
//! The child leads a process group of its own, because docker starts buildx as a child in turn,
//! and that may start credential helpers. Stopping is polite first: an interrupt, so that the
//! build is cancelled at the builder too, and after a while an end by force. Nothing of the group
//! outlives its [`Group`].

use std::io;
use std::pin::pin;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until};
use windlass_core::Result;
use windlass_core::backend::Job;
use windlass_core::error::{Error, ErrorKind, ResultExt};

use crate::progress::{Progress, Told};

/// How long the rest of the output may take once the child has ended: a helper it left behind may
/// hold the pipe open.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);
const READ_BUFFER: usize = 16 * 1024;

/// How a child ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) told: Told,
}

/// A running child and its process group.
#[derive(Debug)]
pub(crate) struct Group {
    child: Child,
    leader: Option<Pid>,
}

impl Group {
    /// Starts the child as leader of a new group.
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        // The command holds our end of the pipes that the child reads; it must go with it.
        let child = command.process_group(0).spawn()?;
        let leader = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(Self { child, leader })
    }

    /// Reads the child's standard error until it ends, and stops it when the job is cancelled or
    /// when feeding it fails.
    ///
    /// # Errors
    /// `Cancelled`; the error of `feeding`, unless that only says that the child stopped reading.
    pub(crate) async fn attend<P>(
        mut self,
        feeding: impl Future<Output = std::result::Result<(), (Error, P)>>,
        mut progress: Progress,
        stop_within: Duration,
        job: &Job,
    ) -> Result<Ended> {
        let mut stderr = self.child.stderr.take();
        let mut buffer = vec![0; READ_BUFFER];
        let mut feeding = pin!(feeding);
        // What could not be fed, and the pipe, which stays open until the child is gone.
        let mut unfed: Option<(Error, P)> = None;
        let (mut fed, mut stopping) = (false, false);
        let mut status: Option<ExitStatus> = None;
        // When to stop waiting: for the child while it runs, for its output after that.
        let mut patience = Instant::now();
        while status.is_none() || stderr.is_some() {
            tokio::select! {
                read = read(&mut stderr, &mut buffer), if stderr.is_some() => match read {
                    Ok(0) | Err(_) => stderr = None,
                    Ok(size) => progress.feed(&buffer[..size]),
                },
                result = &mut feeding, if !fed => {
                    fed = true;
                    unfed = result.err().filter(|(error, _)| error.kind() != ErrorKind::LocalIo);
                }
                ended = self.child.wait(), if status.is_none() => {
                    status = Some(ended.or_error(ErrorKind::LocalIo, || "could not wait for docker")?);
                    patience = Instant::now() + DRAIN_WITHIN;
                }
                () = job.cancel.cancelled(), if !stopping && status.is_none() => {
                    stopping = true;
                    patience = Instant::now() + stop_within;
                    self.signal(Signal::INT);
                }
                () = sleep_until(patience), if stopping && status.is_none() => {
                    self.signal(Signal::KILL);
                    patience = Instant::now() + DRAIN_WITHIN;
                }
                () = sleep_until(patience), if status.is_some() => stderr = None,
            }
            if unfed.is_some() && !stopping && status.is_none() {
                stopping = true;
                patience = Instant::now() + stop_within;
                self.signal(Signal::INT);
            }
        }
        self.end_by_force();
        if !fed {
            // The child is gone, so the pipe is broken and the writer ends by itself.
            unfed = feeding.await.err().filter(|(error, _)| error.kind() != ErrorKind::LocalIo);
        }
        let told = progress.finish();
        job.check()?;
        match (status, unfed) {
            (_, Some((error, _))) => Err(error),
            (Some(status), None) => Ok(Ended { status, told }),
            (None, None) => Err(Error::cancelled()),
        }
    }

    /// Signals the whole group. That it is gone already is no failure.
    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader {
            let _ = kill_process_group(leader, signal);
        }
    }

    /// Ends what is left of the group; afterwards its number may belong to somebody else.
    fn end_by_force(&mut self) {
        self.signal(Signal::KILL);
        self.leader = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end_by_force();
    }
}

async fn read(from: &mut Option<tokio::process::ChildStderr>, buffer: &mut [u8]) -> io::Result<usize> {
    match from {
        Some(stderr) => stderr.read(buffer).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use windlass_core::events::Events;

    use super::*;
    use crate::progress::Format;

    fn start(script: &str) -> Group {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stderr(Stdio::piped());
        Group::start(command).expect("a shell")
    }

    async fn attend(
        group: Group,
        feeding: impl Future<Output = std::result::Result<(), (Error, ())>>,
        job: &Job,
    ) -> Result<Ended> {
        let progress = Progress::new(Format::Plain, Events::silent());
        group.attend(feeding, progress, Duration::from_millis(200), job).await
    }

    #[tokio::test]
    async fn its_output_and_status_come_back() {
        let group = start("echo one >&2; echo two >&2; exit 3");
        let ended = attend(group, async { Ok(()) }, &Job::silent()).await.expect("ended");
        assert_eq!(ended.status.code(), Some(3));
        assert_eq!(ended.told.text, ["one", "two"]);
    }

    #[tokio::test]
    async fn one_that_ignores_the_interrupt_is_ended_with_its_children() {
        let job = Job::silent();
        let directory = tempfile::TempDir::new().expect("a directory");
        let ready = directory.path().join("ready");
        // The grandchild would hold the pipe of the standard error open for ever.
        let group = start(&format!("trap '' INT; sleep 1000 & : >'{}'; wait; wait", ready.display()));
        let leader = group.leader.expect("running");
        let cancel_when_ready = async {
            while !ready.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            job.cancel.cancel();
            Ok(())
        };
        let error = attend(group, cancel_when_ready, &job).await.expect_err("cancelled");
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        tokio::time::timeout(Duration::from_secs(20), gone(leader)).await.expect("nobody is left");
    }

    #[tokio::test]
    async fn a_context_that_cannot_be_read_stops_it() {
        let unreadable = Error::new(ErrorKind::ContextUnreadable, "could not read `x`");
        let error = attend(start("sleep 1000"), async { Err((unreadable, ())) }, &Job::silent()).await;
        assert_eq!(error.expect_err("stopped").kind(), ErrorKind::ContextUnreadable);
    }

    #[tokio::test]
    async fn a_child_that_stops_reading_decides_itself() {
        let broken = Error::new(ErrorKind::LocalIo, "could not write the archive");
        let ended =
            attend(start("exit 4"), async { Err((broken, ())) }, &Job::silent()).await.expect("ended");
        assert_eq!(ended.status.code(), Some(4));
    }

    /// Waits until no process of the group is left.
    async fn gone(leader: Pid) {
        while rustix::process::test_kill_process_group(leader).is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

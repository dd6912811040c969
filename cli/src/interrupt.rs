//! Ctrl-C and its relatives: the first stops the work, the second leaves at once, but for work that must
//! come to its end.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use windlass_core::error::ResultExt;
use windlass_core::shield::{SHIELD_LIMIT, Shield};
use windlass_core::{ErrorKind, Result};

use crate::exit_code::ExitCode;
use crate::output::to_stderr;

/// Work that takes longer to stop says so.
const PATIENCE: Duration = Duration::from_secs(2);

/// When that work has come to its end, the program does too, and says how.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Cancels the token at the first SIGINT, SIGTERM or SIGHUP, and ends the process at the second: at once,
/// or when the shielded work has come to its end, for which it waits [`SHIELD_LIMIT`].
pub(crate) fn watch(cancel: CancellationToken, shield: Shield) -> Result<()> {
    let listen = |kind| signal(kind).or_error(ErrorKind::LocalIo, || "could not listen to signals");
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = if hangup_is_ignored() { None } else { Some(listen(SignalKind::hangup())?) };
    tokio::spawn(async move {
        next(&mut interrupt, &mut terminate, hangup.as_mut()).await;
        cancel.cancel();
        let mut second = std::pin::pin!(next(&mut interrupt, &mut terminate, hangup.as_mut()));
        if tokio::time::timeout(PATIENCE, &mut second).await.is_err() {
            to_stderr("stopping; once more leaves at once");
            second.await;
        }
        if shield.is_held() {
            to_stderr("stopping the build first");
            let _ = tokio::time::timeout(SHIELD_LIMIT, shield.released()).await;
            tokio::time::sleep(LAST_WORDS).await;
        }
        std::process::exit(i32::from(ExitCode::Cancelled as u8));
    });
    Ok(())
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal, hangup: Option<&mut Signal>) {
    let hangup = async {
        match hangup {
            Some(hangup) => hangup.recv().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup => {}
    }
}

/// `nohup` asks to be left running when the terminal goes: listening would undo that. Told by the
/// mask of ignored signals that Linux shows; SIGHUP is its first bit.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}

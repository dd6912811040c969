//! Why a service is not there.

use std::fmt;
use std::io;
use std::time::Duration;

/// Why a service could not be started or used. The text includes the end of the service's log.
#[derive(Debug)]
pub enum Error {
    /// The operating system refused something.
    Io {
        /// What was tried, as "could not …" continues.
        what: String,
        /// The refusal.
        source: io::Error,
    },
    /// A program that does one thing and ends, failed.
    Command {
        /// Program and arguments.
        command: String,
        /// What it wrote to standard error.
        stderr: String,
    },
    /// The service ended before it answered.
    Exited {
        /// Program name.
        name: &'static str,
        /// How it ended.
        status: String,
        /// The last lines of its log.
        log: String,
    },
    /// The service runs but did not answer in time.
    Silent {
        /// Program name.
        name: &'static str,
        /// How long it was waited for.
        waited: Duration,
        /// The last lines of its log.
        log: String,
    },
    /// The engine makes mounts and namespaces, which takes root.
    NotRoot,
}

impl Error {
    /// The operating system refused something: "could not {what}".
    pub(super) fn io(what: &str, source: io::Error) -> Self {
        Self::Io { what: what.to_owned(), source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, .. } => write!(f, "could not {what}"),
            Self::Command { command, stderr } => write!(f, "`{command}` failed: {}", stderr.trim_end()),
            Self::Exited { name, status, log } => {
                write!(f, "{name} ended before it answered ({status}); its log ends with:\n{log}")
            }
            Self::Silent { name, waited, log } => {
                write!(f, "{name} did not answer within {} s; its log ends with:\n{log}", waited.as_secs())
            }
            Self::NotRoot => write!(f, "starting an engine takes root"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

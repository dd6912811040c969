//! The published exit codes.

use windlass_core::ErrorKind;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ExitCode {
    /// Everything was done.
    Done = 0,
    /// The build, or another piece of work, failed.
    Failed = 1,
    /// Wrong usage or configuration: the same command can never work.
    WrongUsage = 2,
    /// The backend or a registry cannot be reached, or refuses us.
    Unavailable = 3,
    /// A time limit passed.
    TimedOut = 4,
    /// The user stopped it: 128 + SIGINT, as shells count.
    Cancelled = 130,
}

impl ExitCode {
    /// The code of a failure. Only its kind counts.
    pub(crate) fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidInput | ErrorKind::InvalidConfig | ErrorKind::Unsupported => Self::WrongUsage,
            ErrorKind::Unavailable | ErrorKind::Denied => Self::Unavailable,
            ErrorKind::TimedOut => Self::TimedOut,
            ErrorKind::Cancelled => Self::Cancelled,
            _ => Self::Failed,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_as_published() {
        for (kind, code) in [
            (ErrorKind::BuildFailed, 1),
            (ErrorKind::NotFound, 1),
            (ErrorKind::InvalidDockerfile, 1),
            (ErrorKind::InvalidInput, 2),
            (ErrorKind::InvalidConfig, 2),
            (ErrorKind::Unsupported, 2),
            (ErrorKind::Unavailable, 3),
            (ErrorKind::Denied, 3),
            (ErrorKind::TimedOut, 4),
            (ErrorKind::Cancelled, 130),
        ] {
            assert_eq!(ExitCode::of(kind) as u8, code, "{kind:?}");
        }
    }
}

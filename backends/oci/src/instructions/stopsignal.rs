//! STOPSIGNAL

use windlass_core::dockerfile::Expander;
use windlass_core::error::{Error, ErrorKind, Result, nearest};

use crate::stage::Stage;

/// The signals of Linux, as `moby/sys/signal` knows them.
const SIGNALS: &[&str] = &[
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// Sets the signal that stops the container.
pub(super) fn apply(stage: &mut Stage, signal: &str, expander: Expander) -> Result<()> {
    let signal = stage.expand(expander, signal)?;
    check(&signal)?;
    stage.config.config.stop_signal.clone_from(&signal);
    stage.record(format!("STOPSIGNAL {signal}"));
    Ok(())
}

fn check(signal: &str) -> Result<()> {
    let upper = signal.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let realtime = |offset: &str, limit: u32| {
        offset.is_empty() || offset[1..].parse().is_ok_and(|number: u32| (1..=limit).contains(&number))
    };
    let known = match signal.parse::<i32>() {
        Ok(number) => number > 0,
        Err(_) => {
            SIGNALS.contains(&name)
                || name
                    .strip_prefix("RTMIN")
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('+') && realtime(rest, 15))
                || name
                    .strip_prefix("RTMAX")
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('-') && realtime(rest, 14))
        }
    };
    if known {
        return Ok(());
    }
    let error = Error::new(ErrorKind::InvalidDockerfile, format!("unknown signal `{signal}`"));
    Err(match nearest(name, SIGNALS.iter().copied()) {
        Some(near) => error.with_hint(format!("did you mean `SIG{near}`?")),
        None => error.with_hint("a signal is a name such as `SIGTERM`, or a number"),
    })
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn knows_names_and_numbers() {
        for signal in ["SIGTERM", "term", "9", "SIGRTMIN", "SIGRTMIN+3", "RTMAX-14"] {
            assert!(check(signal).is_ok(), "{signal}");
        }
        for signal in ["", "SIGTREM", "0", "-1", "RTMIN+16", "RTMAX+1"] {
            assert!(check(signal).is_err(), "{signal}");
        }
    }
}

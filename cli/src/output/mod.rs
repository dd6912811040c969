//! Who prints: results to stdout, everything else to stderr, and nothing anywhere else.

mod batch;
mod clean;
mod error;
mod json;
mod plain;
mod style;
mod table;
mod tty;

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use serde::Serialize;
use windlass_core::error::ResultExt;
use windlass_core::events::{EventSink, Silent};
use windlass_core::{Error, ErrorKind, Result};

use crate::args::{ColorWhen, Format, GlobalArgs, ProgressMode};
use crate::exit_code::ExitCode;

pub(crate) use batch::BatchDisplay;
pub(crate) use clean::clean;
pub(crate) use error::in_one_line;
pub(crate) use style::Style;
pub(crate) use table::{Table, bytes, duration};

/// Shows the events of one piece of work.
pub(crate) trait Display: EventSink {
    /// Takes down what moves, so that what is printed next stands alone.
    fn finish(&self);
}

impl Display for Silent {
    fn finish(&self) {}
}

/// The terminal, or what stands in for it.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    /// The form of results.
    pub(crate) format: Format,
    progress: ProgressMode,
    style: Style,
    quiet: bool,
}

impl Output {
    /// Decides from what was typed, the settings (if they could be read) and the terminal.
    pub(crate) fn new(global: &GlobalArgs, settings: Option<(&str, &str)>, no_color: bool) -> Self {
        let (progress, color) = settings.unwrap_or(("auto", "auto"));
        let progress = global.progress.unwrap_or_else(|| progress_named(progress));
        let terminal = io::stderr().is_terminal();
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let color = match global.color {
            Some(when) => when,
            None => color_named(color),
        };
        let colored = match color {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto => terminal && !no_color && !dumb,
        };
        let progress = match progress {
            _ if global.quiet => ProgressMode::Quiet,
            // Lines that move and lines of a trace cannot share a terminal.
            ProgressMode::Auto if terminal && !dumb && global.verbose == 0 => ProgressMode::Tty,
            ProgressMode::Auto => ProgressMode::Plain,
            other => other,
        };
        let format = global.format.unwrap_or_default();
        Self { format, progress, style: Style::new(colored), quiet: global.quiet }
    }

    /// Starts showing one piece of work.
    pub(crate) fn display(&self) -> Arc<dyn Display> {
        match self.progress {
            ProgressMode::Tty => Arc::new(tty::Tty::new(self.style)),
            ProgressMode::Rawjson => Arc::new(json::RawJson::default()),
            ProgressMode::Quiet => Arc::new(Silent),
            ProgressMode::Plain | ProgressMode::Auto => Arc::new(plain::Plain::new(self.style)),
        }
    }

    /// Starts showing a batch.
    pub(crate) fn batch_display(&self) -> Arc<dyn BatchDisplay> {
        match self.progress {
            ProgressMode::Tty => Arc::new(batch::BatchTable::new(self.style)),
            ProgressMode::Rawjson => Arc::new(batch::BatchJson),
            ProgressMode::Quiet => Arc::new(batch::BatchSilent),
            ProgressMode::Plain | ProgressMode::Auto => Arc::new(batch::BatchLines::new(self.style)),
        }
    }

    /// The colours of this terminal.
    pub(crate) fn style(&self) -> Style {
        self.style
    }

    /// The colours of results, which follow stdout.
    pub(crate) fn result_style(&self) -> Style {
        Style::new(self.style.is_colored() && io::stdout().is_terminal())
    }

    /// Prints a result: whole lines.
    pub(crate) fn result(&self, text: &str) -> Result<()> {
        self.result_bytes(text.as_bytes())
    }

    /// Prints a result that need not be UTF-8, such as paths.
    pub(crate) fn result_bytes(&self, bytes: &[u8]) -> Result<()> {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
        reader_may_leave(written)
    }

    /// Prints a part of a result that has no end yet; `false` if nobody reads it any more.
    pub(crate) fn result_while_read(&self, text: &str) -> Result<bool> {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        let left = matches!(&written, Err(error) if error.kind() == io::ErrorKind::BrokenPipe);
        reader_may_leave(written).map(|()| !left)
    }

    /// Prints a result as JSON.
    pub(crate) fn json<T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        let text = serde_json::to_string_pretty(value)
            .or_error(ErrorKind::Corrupt, || "the result cannot be written as JSON")?;
        self.result(&(text + "\n"))
    }

    /// Says something besides the result, which `--quiet` leaves out.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet && self.progress != ProgressMode::Rawjson {
            to_stderr(&clean(text));
        }
    }

    /// Warns.
    pub(crate) fn warn(&self, message: &str) {
        match self.progress {
            ProgressMode::Quiet => {}
            ProgressMode::Rawjson => json::warn(message),
            _ => to_stderr(&format!("{} {}", self.style.warning("warning:"), clean(message))),
        }
    }

    /// Shows an error: as text, or with `--format json` as one line of JSON.
    pub(crate) fn error(&self, error: &Error) {
        match self.format {
            Format::Json => to_stderr(&error::as_json(error, ExitCode::of(error.kind()))),
            Format::Text | Format::Paths => to_stderr(&error::as_text(error, self.style)),
        }
    }

    /// Shows an error of a command that has its own words and its own codes for it.
    pub(crate) fn error_after(&self, prefix: &str, error: &Error, code: ExitCode) {
        match self.format {
            Format::Json => to_stderr(&error::as_json(error, code)),
            Format::Text | Format::Paths => to_stderr(&error::as_text_after(prefix, error, self.style)),
        }
    }

    /// Whether only results and errors are shown.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Refuses a form of results that only one command has.
    pub(crate) fn refuse_paths(&self) -> Result<()> {
        match self.format {
            Format::Paths => Err(Error::new(
                ErrorKind::InvalidInput,
                "`--format paths` is for `windlass context list` only",
            )
            .with_hint("other commands have `--format text` and `--format json`")),
            Format::Text | Format::Json => Ok(()),
        }
    }
}

/// Refuses to fill a terminal with bytes that are not text.
pub(crate) fn refuse_terminal(what: &str) -> Result<()> {
    if io::stdout().is_terminal() {
        return Err(Error::new(ErrorKind::InvalidInput, format!("{what} is not for a terminal"))
            .with_hint("redirect stdout, or name a file"));
    }
    Ok(())
}

/// Writes one line or several to stderr, in one go.
pub(crate) fn to_stderr(text: &str) {
    lines_to_stderr(&format!("{text}\n"));
}

/// Writes whole lines to stderr, with their ends. A stderr that is gone has nobody to tell.
fn lines_to_stderr(lines: &str) {
    let _ = io::stderr().lock().write_all(lines.as_bytes());
}

/// `| head` has seen enough: that is no failure.
fn reader_may_leave(written: io::Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other
            .or_error(ErrorKind::LocalIo, || "could not write to stdout")
            .map_err(|error| error.with_hint("what stdout leads to takes nothing: look at where it goes")),
    }
}

fn progress_named(name: &str) -> ProgressMode {
    match name {
        "tty" => ProgressMode::Tty,
        "plain" => ProgressMode::Plain,
        "rawjson" => ProgressMode::Rawjson,
        "quiet" => ProgressMode::Quiet,
        _ => ProgressMode::Auto,
    }
}

fn color_named(name: &str) -> ColorWhen {
    match name {
        "always" => ColorWhen::Always,
        "never" => ColorWhen::Never,
        _ => ColorWhen::Auto,
    }
}

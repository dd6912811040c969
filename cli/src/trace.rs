//! `-v`: what the program does, on stderr.

use tracing_subscriber::EnvFilter;
use windlass_core::error::ResultExt;
use windlass_core::{ErrorKind, Result};

/// Starts tracing for `-v` (windlass's own steps), `-vv` (its details), `-vvv` (everything), or as WINDLASS_LOG says.
///
/// # Errors
/// `InvalidInput` for a WINDLASS_LOG that is no list of filters.
pub(crate) fn start(verbose: u8, variable: Option<&str>, colored: bool) -> Result<()> {
    let filter = match (verbose, variable) {
        (0, None) => return Ok(()),
        (0, Some(filter)) => filter,
        (1, _) => "windlass=info",
        (2, _) => "windlass=debug",
        _ => "trace",
    };
    let filter = EnvFilter::builder()
        .parse(filter)
        .or_error(ErrorKind::InvalidInput, || format!("invalid WINDLASS_LOG `{filter}`"))
        .map_err(|error| error.with_hint("for example `WINDLASS_LOG=windlass=debug,reqwest=info`"))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colored)
        .finish();
    // Where a program that uses us as a library has set one up, that one stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

//! `windlass config`

use std::path::PathBuf;

use clap::{Args, Subcommand};

const EXAMPLES: &str = "\
Settings come from, later ones winning: defaults, the user's config.toml, the project's windlass.toml,
environment variables, the command line. `context.warn-size` is WINDLASS_CONTEXT__WARN_SIZE in the
environment and `--set context.warn-size=1GB` on the command line.";

#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every setting with its origin, and which backend is chosen and why.
    Show {
        /// The directory whose build is meant.
        #[arg(value_name = "CONTEXT", default_value = ".")]
        context: PathBuf,
        /// As with `build --backend`.
        #[arg(short, long = "backend", value_name = "NAME")]
        backends: Vec<String>,
    },
    /// Write a `windlass.toml` in which every setting is explained.
    Init {
        /// The directory to write it to.
        #[arg(value_name = "DIR", default_value = ".")]
        directory: PathBuf,
        /// Replace a file that is there.
        #[arg(long)]
        force: bool,
    },
}

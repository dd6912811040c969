//! `windlass backends`

use clap::{Args, Subcommand};

#[derive(Clone, Debug, Args)]
pub(crate) struct BackendsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<BackendsCommand>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum BackendsCommand {
    /// List the backends and what each can do (the default).
    List,
    /// Reach everything that a build would need, and say what is wrong and what to do next.
    Check {
        /// The backends to check [default: the one that would build; all with --all]
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Check all types and all configured backends.
        #[arg(long, conflicts_with = "names")]
        all: bool,
    },
}

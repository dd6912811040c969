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
        /// The backends to check [default: all; then only the one that would build decides the exit
        /// code. With `--push`: none]
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Find out whether a push there would be let in, and with which credential, without sending
        /// anything. May be given several times
        #[arg(long, value_name = "REFERENCE")]
        push: Vec<String>,
    },
}

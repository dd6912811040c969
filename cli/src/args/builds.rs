//! `windlass builds`

use clap::{Args, Subcommand};

const EXAMPLES: &str = "\
Examples:
  ID=$(windlass build . -t agent:1 -b staging --detach)
  windlass builds                         what was submitted from this machine
  windlass builds status $ID
  windlass builds attach $ID              waits for its end, and prints the image
  windlass builds status $ID -b staging   also for a build that was submitted elsewhere

An ID may be cut short as long as it means one build; `cancel` and `--backend` take whole ones.";

#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BuildsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<BuildsCommand>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum BuildsCommand {
    /// List the builds that were submitted from this machine, the youngest first (the default).
    #[command(visible_alias = "ls")]
    List,
    /// Ask the service how a build is.
    Status(BuildArg),
    /// Follow a build to its end, and print its image.
    Attach {
        #[command(flatten)]
        build: BuildArg,
        /// Stop waiting after so long, such as `90s` or `1h30m`; the build goes on.
        #[arg(long, value_name = "DURATION")]
        timeout: Option<String>,
    },
    /// Print the log of a build, where the service keeps one.
    Logs(BuildArg),
    /// Stop a build.
    Cancel(BuildArg),
}

/// Which build.
#[derive(Clone, Debug, Args)]
pub(crate) struct BuildArg {
    /// The id of the build, or its beginning.
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// The backend of a build that was not submitted from this machine.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) backend: Option<String>,
}

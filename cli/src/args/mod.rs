//! What a user may type, one file a command. What it means is decided elsewhere: here are only words.

mod backends;
mod batch;
mod build;
mod builds;
mod config;
mod context;
mod destination;
mod image;
mod runtime;
mod snapshot;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use backends::BackendsArgs;
pub(crate) use backends::BackendsCommand;
pub(crate) use batch::BatchArgs;
pub(crate) use build::{BuildArgs, ServiceArgs};
pub(crate) use builds::{BuildArg, BuildsArgs, BuildsCommand};
pub(crate) use config::{ConfigArgs, ConfigCommand};
pub(crate) use context::{
    CompressionName, ContextArgs, ContextCommand, GenerateArgs, HashArgs, ListArgs, PackArgs, SortBy, Tree,
};
pub(crate) use destination::DestinationArgs;
pub(crate) use image::{
    ArchiveForm, ImageArgs, ImageCommand, InspectArgs, LoadArgs, PullArgs, PushArgs, RemoveArgs, SaveArgs,
    VerifyArgs, Via,
};
pub(crate) use runtime::{
    AgentServerArgs, RuntimeArgs, RuntimeBuildArgs, RuntimeCommand, RuntimeImageArgs, RuntimeOutputArgs,
    RuntimePlanArgs,
};
pub(crate) use snapshot::{
    CreateArgs, GetArgs, GetForm, ListForm, ListSnapshotsArgs, SnapshotArgs, SnapshotCommand,
};

const EXAMPLES: &str = "\
Examples:
  windlass build .                                        no daemon, no account, no configuration
  windlass build . -t 127.0.0.1:5000/team/app:1 --push    build and push
  windlass build . -b docker --load                       build with docker buildx
  windlass backends check                                 what is wrong, and what to do next

The result goes to stdout, everything else to stderr.
Exit codes: 0 done, 1 failed, 2 wrong usage or configuration,
            3 backend or registry unreachable or refusing, 4 timed out, 130 cancelled.";

/// Builds container images: in the process, with docker, or where you want.
#[derive(Debug, Parser)]
#[command(name = "windlass", version, after_help = EXAMPLES, max_term_width = 110, arg_required_else_help = true)]
#[command(subcommand_required = true, disable_help_subcommand = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile.
    Build(Box<BuildArgs>),
    /// Make runtime images of agent platforms from recipes, rebuilding as little as possible.
    Runtime(RuntimeArgs),
    /// Build the images of a list: hundreds of them, and go on where a batch was stopped.
    Batch(Box<BatchArgs>),
    /// Look at what a build would send.
    Context(ContextArgs),
    /// Work with images: in the local store, in archives, in registries.
    #[command(visible_alias = "images")]
    Image(ImageArgs),
    /// List the backends, or find out what keeps one from working.
    #[command(visible_alias = "backend")]
    Backends(BackendsArgs),
    /// Come back to builds that run on a service: list, follow, stop.
    Builds(BuildsArgs),
    /// Make, list, name and retire snapshots of Together.
    #[command(visible_alias = "snapshots")]
    Snapshot(SnapshotArgs),
    /// Show the settings in force and where each comes from, or start a configuration file.
    Config(ConfigArgs),
    /// Print the completion script of a shell.
    #[command(
        after_help = "Example: windlass completions bash > ~/.local/share/bash-completion/completions/windlass"
    )]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Options of every command.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Override one setting, such as `context.ignore=false`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", global = true)]
    pub(crate) set: Vec<String>,
    /// Read this file instead of the nearest `windlass.toml` [env: WINDLASS_CONFIG]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<std::path::PathBuf>,
    /// Build as in this environment of the configuration [env: WINDLASS_ENV]
    #[arg(long = "env", value_name = "NAME", global = true)]
    pub(crate) environment: Option<String>,
    /// Form of the result.
    #[arg(long, value_enum, global = true, value_name = "FORM")]
    pub(crate) format: Option<Format>,
    /// How progress is shown, on stderr.
    #[arg(long, value_enum, global = true, value_name = "MODE")]
    pub(crate) progress: Option<ProgressMode>,
    /// Whether messages are coloured; NO_COLOR is honoured.
    #[arg(long, value_enum, global = true, value_name = "WHEN")]
    pub(crate) color: Option<ColorWhen>,
    /// Show nothing but the result and errors.
    #[arg(short, long, global = true, conflicts_with_all = ["progress", "verbose"])]
    pub(crate) quiet: bool,
    /// Tell more on stderr; twice for even more [env: WINDLASS_LOG]
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs; errors on stderr are JSON too.
    Json,
    /// One path a line (`context list` only).
    Paths,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// `tty` on a terminal, else `plain`.
    Auto,
    /// Lines that move.
    Tty,
    /// Lines that stay.
    Plain,
    /// One JSON event a line.
    Rawjson,
    /// Nothing.
    #[value(alias = "none")]
    Quiet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorWhen {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_go_before_or_after_the_command() {
        for line in
            [["windlass", "--format", "json", "build", "."], ["windlass", "build", ".", "--format", "json"]]
        {
            let cli = Cli::try_parse_from(line).expect("valid");
            assert_eq!(cli.global.format, Some(Format::Json));
        }
    }

    #[test]
    fn every_option_has_help() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}

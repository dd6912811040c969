//! `windlass runtime`

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::destination::DestinationArgs;

const EXAMPLES: &str = "\
Examples:
  windlass runtime plan --base-image debian:12           what exists, what would be built, and why
  windlass runtime build --base-image debian -b docker   build what is missing, no more; prints the reference
  windlass runtime tags --base-image debian:12           every tag and hash
  windlass runtime build --repository 127.0.0.1:5000/team/runtime --push -b oci
  windlass runtime build --recipe agent-server --target source --custom-tag python -b docker --load
  windlass runtime build --build-folder DIR --dry-run    only write the build folder
  windlass runtime plan --show-recipe > acme.toml        a recipe of your own begins with another";

const RECIPE: &str = "What goes in";
const AGENT: &str = "Tags of agent-server";
const OUT: &str = "What comes out";

#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RuntimeArgs {
    #[command(subcommand)]
    pub(crate) command: RuntimeCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RuntimeCommand {
    /// Make a runtime image, on top of an earlier one where there is one, or find it.
    Build(Box<RuntimeBuildArgs>),
    /// Say which images exist, what would be built on which, and why; nothing is built.
    Plan(Box<RuntimePlanArgs>),
    /// Print every tag and hash of a runtime image.
    Tags(Box<RuntimeTagsArgs>),
}

/// Which image is meant.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = RECIPE)]
pub(crate) struct RuntimeImageArgs {
    /// Recipe: a name, or a file that ends in `.toml`.
    #[arg(long, value_name = "RECIPE", default_value = "openhands-runtime")]
    pub(crate) recipe: String,
    /// Base image [default: the recipe's]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) base_image: Option<String>,
    /// Source directory [default: the recipe's]
    #[arg(long, value_name = "DIR")]
    pub(crate) source: Option<PathBuf>,
    /// Repository of the images [default: the build service's, the recipe's variable's, the recipe's]
    #[arg(long, value_name = "REPOSITORY")]
    pub(crate) repository: Option<String>,
    /// Version of the platform [default: as the recipe says]
    #[arg(long = "version", value_name = "VERSION")]
    pub(crate) image_version: Option<String>,
    /// Platform to build for, such as `linux/arm64`. May be repeated, or several with commas.
    #[arg(long = "platform", value_name = "PLATFORM", value_delimiter = ',')]
    pub(crate) platforms: Vec<String>,
    /// Text of one more RUN.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) extra_deps: Option<String>,
    /// Install no browser.
    #[arg(long)]
    pub(crate) no_browser: bool,
    /// Variable of the recipe's template. May be repeated.
    #[arg(long = "var", value_name = "NAME=VALUE")]
    pub(crate) variables: Vec<String>,
    /// Value of an ARG; without a value it is taken from the environment. May be repeated.
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub(crate) build_args: Vec<String>,
    /// Label of the image. May be repeated.
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub(crate) labels: Vec<String>,

    #[command(flatten)]
    pub(crate) agent_server: AgentServerArgs,

    /// Backend to build with; several, with commas, are tried in order [env: WINDLASS_BACKEND]
    #[arg(short, long = "backend", value_name = "NAME", help_heading = "Options")]
    pub(crate) backends: Vec<String>,
    /// Stop work that takes longer, such as `90s` or `1h30m` [setting: timeouts.build]
    #[arg(long, value_name = "DURATION", help_heading = "Options")]
    pub(crate) timeout: Option<String>,
}

/// What only recipes with the tags of agent-server have.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = AGENT)]
pub(crate) struct AgentServerArgs {
    /// What is built: binary, binary-minimal, source, source-minimal, base-image, base-image-minimal, builder [default: binary]
    #[arg(long, value_name = "TARGET")]
    pub(crate) target: Option<String>,
    /// Tag of your own, the main one first. May be repeated, or several with commas.
    #[arg(long = "custom-tag", value_name = "TAG", value_delimiter = ',')]
    pub(crate) custom_tags: Vec<String>,
    /// Architecture that the tags name.
    #[arg(long, value_name = "ARCH")]
    pub(crate) architecture: Option<String>,
    /// No tag that names the base image.
    #[arg(long)]
    pub(crate) no_base_tag: bool,
    /// Tags of the release besides, such as `v1`, `v1.2` and `v1.2.3`.
    #[arg(long)]
    pub(crate) release_tags: bool,
}

/// How it is built, and where it goes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = OUT)]
pub(crate) struct RuntimeOutputArgs {
    /// Build from scratch, whatever exists.
    #[arg(long)]
    pub(crate) force_rebuild: bool,
    /// Further reference of the image. May be repeated.
    #[arg(short, long = "tag", value_name = "REFERENCE")]
    pub(crate) tags: Vec<String>,
    #[command(flatten)]
    pub(crate) destination: DestinationArgs,
    /// Use nothing of the build cache.
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Ask the registry for the base image even if it is here.
    #[arg(long)]
    pub(crate) pull: bool,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RuntimeBuildArgs {
    #[command(flatten)]
    pub(crate) image: RuntimeImageArgs,
    #[command(flatten)]
    pub(crate) output: RuntimeOutputArgs,
    /// Write the build folder there: a new directory, an empty one, or one that windlass wrote before.
    #[arg(long, value_name = "DIR", help_heading = OUT)]
    pub(crate) build_folder: Option<PathBuf>,
    /// Build nothing: print the plan, and write the build folder if one is named.
    #[arg(long, help_heading = OUT)]
    pub(crate) dry_run: bool,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RuntimePlanArgs {
    #[command(flatten)]
    pub(crate) image: RuntimeImageArgs,
    #[command(flatten)]
    pub(crate) output: RuntimeOutputArgs,
    /// Print the recipe alone, as a file that can be changed; nobody is asked anything.
    #[arg(long, help_heading = "Options")]
    pub(crate) show_recipe: bool,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RuntimeTagsArgs {
    #[command(flatten)]
    pub(crate) image: RuntimeImageArgs,
}

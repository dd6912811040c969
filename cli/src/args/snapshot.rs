//! `windlass snapshot`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  windlass snapshot create --context . --alias my-app@v1    built by the service
  windlass snapshot create --image node:22 --ttl 86400      of a public image, for a day
  TOGETHER_LOCAL_BUILD=1 windlass snapshot create --context .   built with docker here, then pushed
  windlass snapshot list --tag team=x --exclude-retired
  windlass snapshot get @my-app@v1 -o json

The key is in TOGETHER_API_KEY, the address, where it is not the usual one, in TOGETHER_BASE_URL.";

const CREATE_EXAMPLES: &str = "\
Examples:
  windlass snapshot create --context . --alias my-app@v1 --ttl 86400 --tag team=x
  windlass snapshot create --context . --dockerfile deploy/Dockerfile --build-arg V=2
  windlass snapshot create --image node:22
  windlass snapshot create --context . --backend oci        built here without docker
  windlass snapshot create --context . --dry-run            what would be asked, and of whom
  ID=$(windlass snapshot create --context . --ci | tail -1)";

const SOURCE: &str = "What the snapshot is made of";

#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SnapshotArgs {
    #[command(subcommand)]
    pub(crate) command: SnapshotCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Make a snapshot: build an image, register it, name it.
    Create(Box<CreateArgs>),
    /// List the snapshots of the project.
    #[command(visible_alias = "ls")]
    List(ListSnapshotsArgs),
    /// Show one snapshot, or several.
    Get(GetArgs),
    /// Point aliases to a snapshot, wherever they pointed before.
    Alias {
        /// The id of the snapshot, or `@ALIAS`.
        #[arg(value_name = "ID")]
        snapshot: String,
        /// The aliases, verbatim; usual are `NAME` and `NAMESPACE@NAME`.
        #[arg(value_name = "ALIAS", required = true)]
        aliases: Vec<String>,
    },
    /// List the aliases of a snapshot.
    Aliases {
        /// The id of the snapshot, or `@ALIAS`.
        #[arg(value_name = "ID")]
        snapshot: String,
    },
    /// Remove aliases; their snapshots stay.
    Unalias {
        /// The aliases, verbatim.
        #[arg(value_name = "ALIAS", required = true)]
        aliases: Vec<String>,
    },
    /// Retire snapshots: they cannot be used any more.
    Retire {
        /// Their ids, or `@ALIAS`.
        #[arg(value_name = "ID", required = true)]
        snapshots: Vec<String>,
    },
}

/// Makes a snapshot.
#[derive(Clone, Debug, Args)]
#[command(after_help = CREATE_EXAMPLES)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["context", "image", "built"])))]
pub(crate) struct CreateArgs {
    /// The directory that is built.
    #[arg(long, value_name = "DIR", help_heading = SOURCE)]
    pub(crate) context: Option<PathBuf>,
    /// A public image, which the service takes over.
    #[arg(long, value_name = "REFERENCE", help_heading = SOURCE)]
    pub(crate) image: Option<String>,
    /// An image that is in Together's registry already; nothing is built.
    #[arg(long, value_name = "REFERENCE", help_heading = SOURCE)]
    pub(crate) built: Option<String>,
    /// Register the image of `--built` though it is not in Together's registry.
    #[arg(long, requires = "built", conflicts_with_all = ["context", "image"], help_heading = SOURCE)]
    pub(crate) force: bool,

    /// Name of the Dockerfile [default: CONTEXT/Dockerfile]
    #[arg(long, value_name = "FILE", requires = "context", conflicts_with_all = ["image", "built"])]
    pub(crate) dockerfile: Option<PathBuf>,
    /// Value of an ARG; without a value it is taken from the environment. May be repeated.
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]", requires = "context", conflicts_with_all = ["image", "built"])]
    pub(crate) build_args: Vec<String>,
    /// Platform: `linux/amd64` or `linux/arm64`; an image for another is refused.
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Builds of the service with the same key share their layers; empty: none does [backend option: cache-key]
    #[arg(long, value_name = "KEY", requires = "context", conflicts_with_all = ["image", "built"])]
    pub(crate) cache_key: Option<String>,
    /// Do not let the service convert the image to Nydus [backend option: nydus]
    #[arg(long, conflicts_with = "built")]
    pub(crate) no_nydus: bool,
    /// Backend to build with: `image-builder`, or one of this machine [env: WINDLASS_BACKEND, TOGETHER_LOCAL_BUILD=1]
    #[arg(short, long = "backend", value_name = "NAME", conflicts_with = "built")]
    pub(crate) backends: Vec<String>,

    /// Name that points to the snapshot, verbatim; usual are `NAME` and `NAMESPACE@NAME`. May be repeated.
    #[arg(long = "alias", value_name = "ALIAS")]
    pub(crate) aliases: Vec<String>,
    /// Retire the snapshot after so many seconds, or a time span such as `24h`.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub(crate) ttl: Option<String>,
    /// Tag for finding it again; `client=windlass` is always there unless you set `client`. May be repeated.
    #[arg(long = "tag", value_name = "NAME=VALUE")]
    pub(crate) tags: Vec<String>,

    /// For scripts: the id alone on stdout, whatever the form of results is.
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) ci: bool,
    /// Print what would be asked, and ask nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Stop if the whole takes longer, such as `90s` or `1h30m`; 0: never [setting: timeouts.build]
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ListSnapshotsArgs {
    /// List so many at most; more than 100 are asked for in several pages [default: 20]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// Go on where another list ended.
    #[arg(long, value_name = "CURSOR")]
    pub(crate) cursor: Option<String>,
    /// List all of them.
    #[arg(long, conflicts_with = "limit")]
    pub(crate) all: bool,
    /// Leave out the retired ones.
    #[arg(long)]
    pub(crate) exclude_retired: bool,
    /// Only those with this tag. May be repeated: all must match.
    #[arg(long = "tag", value_name = "NAME=VALUE")]
    pub(crate) tags: Vec<String>,
    /// Form of the list.
    #[arg(short, long, value_enum, value_name = "FORM")]
    pub(crate) output: Option<ListForm>,
    /// For scripts: nothing but the list.
    #[arg(long)]
    pub(crate) ci: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListForm {
    /// For people.
    Table,
    /// For programs: `data` and `next_cursor`, as the service says them.
    Json,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct GetArgs {
    /// The id of a snapshot, or `@ALIAS`. Several ids are asked for at once.
    #[arg(value_name = "ID", required = true)]
    pub(crate) snapshots: Vec<String>,
    /// Form of the result.
    #[arg(short, long, value_enum, value_name = "FORM")]
    pub(crate) output: Option<GetForm>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GetForm {
    /// For people.
    Text,
    /// For programs: the snapshot as the service describes it; several as a list.
    Json,
}

//! `windlass context`

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  windlass context list --sort size             largest first, with the total
  windlass context list --why node_modules/x    which line of the ignore file decides
  windlass context list --format paths          one path a line
  windlass context hash                         the same on every machine for the same content
  windlass context pack -o context.tar.gz       the archive: the same bytes for the same content
  windlass context generate --target source     the context of an agent-server image";

const GENERATE: &str = "\
Examples:
  windlass context generate                             ./runtime-build/agent-server-<commit>-python.tar.gz
  windlass context generate --target source-minimal --output-dir out
  CUSTOM_TAGS=java,python BASE_IMAGE=debian:12 windlass context generate --no-upload
  RUNTIME_API_URL=https://builds.example.com RUNTIME_API_KEY=... windlass context generate

Environment; an empty variable counts as unset, and an option goes before its variable:
  OUTPUT_DIR       directory to write [default: ./runtime-build]
  BASE_IMAGE       base image [default: that of the recipe]
  TARGET           binary, binary-minimal, source or source-minimal [default: binary]
  CLEAN_OUTPUT     empty OUTPUT_DIR first: `true`, in any case, or not [default: true]
  CUSTOM_TAGS      tags with commas between them, the main one first [default: python]
  OUTPUT_NAME      name of the archive [default: agent-server-<7 characters of commit>-<main tag>.tar.gz]
  GITHUB_SHA       commit [default: that of git where the sources are, else `unknown`]
  RUNTIME_API_URL, RUNTIME_API_KEY
                   service that builds the image; without them nothing is uploaded

Messages go to stdout, as those of the script that this command stands for; with --quiet only the path
of the archive. Exit codes: 0 done, also where nothing is uploaded; 1 failed; 2 wrong usage; 130 cancelled.";

#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ContextArgs {
    #[command(subcommand)]
    pub(crate) command: ContextCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// List what would be sent.
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Print the fingerprint of what would be sent.
    Hash(HashArgs),
    /// Write what would be sent as one archive.
    Pack(PackArgs),
    /// Write the context of an agent-server image as one archive, and have a build service build it.
    Generate(GenerateArgs),
}

/// Which tree is meant.
#[derive(Clone, Debug, Args)]
pub(crate) struct Tree {
    /// The directory that COPY and ADD would see.
    #[arg(value_name = "CONTEXT", default_value = ".")]
    pub(crate) context: PathBuf,
    /// Name of the Dockerfile, whose own ignore file counts [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) tree: Tree,
    /// Order of the list.
    #[arg(long, value_enum, default_value_t = SortBy::Path, value_name = "BY")]
    pub(crate) sort: SortBy,
    /// Say why this path is sent or not, and list nothing.
    #[arg(long, value_name = "PATH", conflicts_with = "sort")]
    pub(crate) why: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SortBy {
    /// By path, in the order of the archive.
    Path,
    /// Largest first.
    Size,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct HashArgs {
    #[command(flatten)]
    pub(crate) tree: Tree,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PackArgs {
    #[command(flatten)]
    pub(crate) tree: Tree,
    /// File to write; `-` for stdout
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub(crate) output: PathBuf,
    /// Form of compression [setting: compression.format]
    #[arg(long, value_enum, value_name = "FORM")]
    pub(crate) compression: Option<CompressionName>,
    /// Level of compression: gzip 1 to 9, zstd 1 to 22 [setting: compression.level]
    #[arg(long, value_name = "LEVEL", allow_negative_numbers = true)]
    pub(crate) level: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompressionName {
    /// gzip
    Gzip,
    /// Zstandard
    Zstd,
    /// A plain tar.
    None,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = GENERATE)]
pub(crate) struct GenerateArgs {
    /// What the image holds [env: TARGET]
    #[arg(long, value_name = "TARGET", value_parser = ["binary", "binary-minimal", "source", "source-minimal"])]
    pub(crate) target: Option<String>,
    /// Directory to write: it is emptied, unless CLEAN_OUTPUT says otherwise [env: OUTPUT_DIR]
    // An empty one is none, as for the script; clap refuses it as a path.
    #[arg(long, value_name = "DIR", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub(crate) output_dir: Option<PathBuf>,
    /// Upload nothing, even if a service is known.
    #[arg(long)]
    pub(crate) no_upload: bool,
    /// Directory of the sources: a checkout of the SDK.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) source: PathBuf,
    /// Recipe: a name, or a file that ends in `.toml`.
    #[arg(long, value_name = "RECIPE", default_value = "agent-server")]
    pub(crate) recipe: String,
    /// Empty the directory even if windlass did not make it.
    #[arg(long)]
    pub(crate) force: bool,
    /// Stop waiting for the build that takes longer, such as `90s` or `1h30m` [setting: timeouts.build]
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<String>,
}

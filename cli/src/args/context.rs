//! `windlass context`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  windlass context list --sort size             largest first, with the total
  windlass context list --why node_modules/x    which line of the ignore file decides
  windlass context list --format paths          one path a line
  windlass context hash                         the same on every machine for the same content
  windlass context pack -o context.tar.gz       the archive: the same bytes for the same content";

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

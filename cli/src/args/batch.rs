//! `windlass batch`: many images in one go.

use std::path::PathBuf;

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  windlass batch images.toml --push                  every image of the list, four at a time
  windlass batch images.jsonl --push -j 8 --resume   go on with a batch that was stopped or killed
  windlass batch docker-bake.hcl app tests           targets and groups of a Bake file
  windlass batch images.toml --dry-run               what is in the list

A list in TOML: keys at the top are defaults, each [[image]] is one image.
  dockerfile = \"Dockerfile\"
  [[image]]
  base-image = \"debian:12\"
  tags = [\"registry.example.com/team/agent:debian-12\"]

Exit code 1 if any image failed. See docs/batch.md for every key.";

/// Builds the images of a list.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BatchArgs {
    /// The list: `.toml`, `.jsonl`, or a Bake file (`.hcl`, `.json`).
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Build only these: names of images, or targets and groups of a Bake file.
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,

    /// How many images are built at a time.
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) jobs: u16,
    /// Go on with what an earlier run has left: images that its manifest says are there are not built again.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Push to the registries of the tags; images of which a tag is there already are skipped.
    #[arg(long)]
    pub(crate) push: bool,
    /// Load into the docker engine.
    #[arg(long)]
    pub(crate) load: bool,
    /// Build whatever exists already.
    #[arg(long)]
    pub(crate) force_rebuild: bool,
    /// Backend to build with; several, with commas, are tried in order [env: WINDLASS_BACKEND]
    #[arg(short, long = "backend", value_name = "NAME")]
    pub(crate) backends: Vec<String>,

    /// How often an image is tried again where that may help, after 2, 4, 6, … s.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) retries: u32,
    /// Stop an image that takes longer, such as `90s` or `1h30m` [setting: timeouts.build]
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<String>,
    /// Stop the batch when the first image fails.
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Begin no image while less than this is free on the disk, such as `20GB`; 0 for no guard.
    #[arg(long, value_name = "SIZE", default_value = "1GB")]
    pub(crate) min_free: String,
    /// Let each registry have at most so many requests a minute; 0 for no limit [setting: registries.HOST.requests-per-minute]
    #[arg(long, value_name = "N")]
    pub(crate) requests_per_minute: Option<u32>,
    /// Where manifest.jsonl, build-summary.json and logs/ go [default: of each list its own, in the state directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

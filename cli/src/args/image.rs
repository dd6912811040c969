//! `windlass image`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  windlass image ls
  windlass image pull 127.0.0.1:5000/team/base:1
  windlass image push app:1 127.0.0.1:5000/team/app:1
  windlass image push out.tar 127.0.0.1:5000/team/app:1     an OCI or docker archive, or an OCI layout directory
  windlass image push app:1 agent:1 --to runtime-api        to a build service; docker-daemon:app:1 is one of the engine
  windlass image save app:1 -o app.tar --type docker        an archive for `docker load`
  docker save app:1 | windlass image load -i -

A SOURCE is the reference of an image in the local store, or what is elsewhere: the path of an archive or of
an OCI layout (FILE, DIR, DIR:TAG or DIR@DIGEST), oci-layout://DIR, docker-archive:FILE, docker-image://REFERENCE.";

#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// List the images of the local store.
    #[command(visible_alias = "list")]
    Ls,
    /// Show the manifest, config and layers of an image.
    Inspect(InspectArgs),
    /// Write an image of the local store as an archive or an OCI layout.
    Save(SaveArgs),
    /// Take an archive or an OCI layout into the local store.
    Load(LoadArgs),
    /// Push an image to a registry, or send it to a build service.
    Push(PushArgs),
    /// Take an image from a registry into the local store.
    Pull(PullArgs),
    /// Remove references from the local store, and what no other image needs.
    #[command(visible_alias = "remove")]
    Rm(RemoveArgs),
    /// Remove what no image of the local store needs: layers of images that were built again.
    Prune,
    /// Read everything that the images of the local store consist of, and compute its digests.
    Verify(VerifyArgs),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct InspectArgs {
    /// The image.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// Platform to show, where the image is for several [default: all]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Ask the registry instead of the local store.
    #[arg(long)]
    pub(crate) remote: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SaveArgs {
    /// The image.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// File or directory to write; `-` for stdout.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Platform to write, where the image is for several [default: all]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Form of what is written.
    #[arg(long = "type", value_enum, default_value_t = ArchiveForm::Oci, value_name = "FORM")]
    pub(crate) form: ArchiveForm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArchiveForm {
    /// An OCI archive.
    Oci,
    /// An OCI layout directory.
    OciDir,
    /// An archive for `docker load`.
    Docker,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct LoadArgs {
    /// Archive or OCI layout directory; `-` for stdin.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub(crate) input: PathBuf,
    /// Reference to give it, where it brings none or another is wanted. May be repeated.
    #[arg(short, long = "tag", value_name = "REFERENCE")]
    pub(crate) tags: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PushArgs {
    /// The image.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// The references to push to [default: SOURCE, where that is a reference]
    #[arg(value_name = "REFERENCE")]
    pub(crate) destinations: Vec<String>,
    /// Send the image to the build service of this backend instead, and follow it there.
    #[arg(long, value_name = "BACKEND")]
    pub(crate) to: Option<String>,
    /// How it gets there: uploaded, or pushed to the service's registry, which every service can take.
    #[arg(long, value_name = "WAY", requires = "to", default_value = "upload")]
    pub(crate) via: Via,
    /// Take the image from its registry where it is neither in the local store nor in the docker engine.
    #[arg(long, requires = "to")]
    pub(crate) pull: bool,
    /// Stop following after so long, such as `60m`; 0: never [setting: timeouts.build]
    #[arg(long, value_name = "DURATION", requires = "to")]
    pub(crate) timeout: Option<String>,
    /// Platform to push, where the image is for several [default: all]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
}

/// How a finished image gets to a build service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Via {
    /// The service takes the image itself, as it takes a build context.
    Upload,
    /// The image is pushed to the registry of the service, which is then asked for it.
    Registry,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PullArgs {
    /// The image.
    #[arg(value_name = "REFERENCE")]
    pub(crate) reference: String,
    /// Platform to take [default: this machine's]
    #[arg(long, value_name = "PLATFORM", conflicts_with = "all_platforms")]
    pub(crate) platform: Option<String>,
    /// Take the image for all its platforms.
    #[arg(long)]
    pub(crate) all_platforms: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The images [default: all]
    #[arg(value_name = "REFERENCE")]
    pub(crate) references: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The references.
    #[arg(value_name = "REFERENCE", required_unless_present = "all")]
    pub(crate) references: Vec<String>,
    /// Remove all images.
    #[arg(long, conflicts_with = "references")]
    pub(crate) all: bool,
}

//! `windlass build`: the options of `docker buildx build`, and a few of our own.

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::destination::{BOOL, DestinationArgs};

const EXAMPLES: &str = "\
Examples:
  windlass build .                                            into the local store; prints reference@digest
  windlass build . -t registry.example.com/team/app:1 --push  straight to a registry
  windlass build . -o type=oci,dest=app.tar                   an OCI archive (tar=false: a directory)
  windlass build . -o type=docker,dest=app.tar                an archive for `docker load`
  windlass build . -b docker --load                           into the docker engine
  windlass build . -f deploy/Dockerfile --target test --build-arg V=2 --platform linux/arm64
  windlass build . --build-context base=oci-layout://DIR      what `FROM base` means
  windlass build . -b runtime-api --detach                    prints the id of the build; `windlass builds`
  windlass build . --dry-run                                  what would happen, and by which backend
  IMAGE=$(windlass build . -q)";

const ENGINE: &str = "BuildKit options (backend `docker`)";
const SERVICE: &str = "Options of Together's image-builder (backend `image-builder`)";
const OWN: &str = "Options of windlass";

/// Builds an image from a Dockerfile and the files around it.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BuildArgs {
    /// The directory that COPY and ADD see.
    #[arg(value_name = "CONTEXT", default_value = ".")]
    pub(crate) context: PathBuf,

    /// Name of the Dockerfile; `-` reads it from stdin [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Reference of the image, such as `registry/repository:tag`. May be repeated.
    #[arg(short, long = "tag", value_name = "REFERENCE")]
    pub(crate) tags: Vec<String>,
    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Platform to build for, such as `linux/arm64`. May be repeated, or several with commas.
    #[arg(long = "platform", value_name = "PLATFORM", value_delimiter = ',')]
    pub(crate) platforms: Vec<String>,
    /// Value of an ARG; without a value it is taken from the environment. May be repeated.
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub(crate) build_args: Vec<String>,
    /// What a name in FROM and COPY --from means: a directory, docker-image://REF or oci-layout://DIR. May be repeated.
    #[arg(long = "build-context", value_name = "NAME=SOURCE")]
    pub(crate) build_contexts: Vec<String>,
    /// Label of the image. May be repeated.
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub(crate) labels: Vec<String>,
    /// Annotation of the manifest (or `index:`, `manifest-descriptor:`, …). May be repeated.
    #[arg(long = "annotation", value_name = "[TYPE:]NAME=VALUE")]
    pub(crate) annotations: Vec<String>,

    #[command(flatten)]
    pub(crate) destination: DestinationArgs,
    /// Write the image id to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write what is known of the result to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Use nothing of the build cache.
    #[arg(long, value_name = BOOL, default_value = "false", default_missing_value = "true", num_args = 0..=1)]
    #[arg(require_equals = true, hide_default_value = true, hide_possible_values = true, value_parser = BoolishValueParser::new(), action = clap::ArgAction::Set)]
    pub(crate) no_cache: bool,
    /// Ask the registry for the base images even if they are here.
    #[arg(long, value_name = BOOL, default_value = "false", default_missing_value = "true", num_args = 0..=1)]
    #[arg(require_equals = true, hide_default_value = true, hide_possible_values = true, value_parser = BoolishValueParser::new(), action = clap::ArgAction::Set)]
    pub(crate) pull: bool,

    /// Backend to build with; several, with commas, are tried in order [env: WINDLASS_BACKEND]
    #[arg(short, long = "backend", value_name = "NAME", help_heading = OWN)]
    pub(crate) backends: Vec<String>,
    /// Take the image that already has this content, also when tags are given.
    #[arg(long, conflicts_with_all = ["force_rebuild", "no_cache"], help_heading = OWN)]
    pub(crate) reuse: bool,
    /// Build even if the image that would be built exists.
    #[arg(long, help_heading = OWN)]
    pub(crate) force_rebuild: bool,
    /// Say which inputs changed since the last build of this context.
    #[arg(long, help_heading = OWN)]
    pub(crate) explain: bool,
    /// Print what would be done, and do nothing.
    #[arg(long, conflicts_with_all = ["iidfile", "metadata_file"], help_heading = OWN)]
    pub(crate) dry_run: bool,
    /// Submit the build to the service and print its id instead of waiting; `windlass builds` comes back to it.
    #[arg(long, conflicts_with_all = ["dry_run", "iidfile", "metadata_file"], help_heading = OWN)]
    pub(crate) detach: bool,
    /// Stop a build that takes longer, such as `90s` or `1h30m`; 0: never [setting: timeouts.build]
    #[arg(long, value_name = "DURATION", help_heading = OWN)]
    pub(crate) timeout: Option<String>,

    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// Options of the `image-builder` backend that are worth an argument.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = SERVICE)]
pub(crate) struct ServiceArgs {
    /// What the service keeps its build cache under; an empty one leaves it to the service [default: the repository of the tag, else the name of the directory]
    #[arg(long, value_name = "PATH")]
    pub(crate) cache_key: Option<String>,
    /// Do not convert the image to the nydus format.
    #[arg(long)]
    pub(crate) no_nydus: bool,
}

/// Options that are passed on as they are.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = ENGINE)]
pub(crate) struct EngineArgs {
    /// Secret to expose to the build, such as `id=token,env=TOKEN`.
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// SSH agent socket or keys to expose.
    #[arg(long, value_name = "SSH")]
    ssh: Vec<String>,
    /// External cache source.
    #[arg(long, value_name = "CACHE")]
    cache_from: Vec<String>,
    /// Cache export destination.
    #[arg(long, value_name = "CACHE")]
    cache_to: Vec<String>,
    /// Stage whose cache is not used.
    #[arg(long, value_name = "STAGE")]
    no_cache_filter: Vec<String>,
    /// Privileged entitlement to allow.
    #[arg(long, value_name = "ENTITLEMENT")]
    allow: Vec<String>,
    /// Line for /etc/hosts, `host:ip`.
    #[arg(long, value_name = "HOST:IP")]
    add_host: Vec<String>,
    /// Ulimit of RUN.
    #[arg(long, value_name = "ULIMIT")]
    ulimit: Vec<String>,
    /// Attestation parameters.
    #[arg(long, value_name = "ATTEST")]
    attest: Vec<String>,
    /// Short for `--attest type=provenance`.
    #[arg(long, value_name = "VALUE")]
    provenance: Option<String>,
    /// Short for `--attest type=sbom`.
    #[arg(long, value_name = "VALUE")]
    sbom: Option<String>,
    /// Network mode of RUN.
    #[arg(long, value_name = "MODE")]
    network: Option<String>,
    /// Size of /dev/shm of RUN.
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// Parent cgroup of RUN.
    #[arg(long, value_name = "CGROUP")]
    cgroup_parent: Option<String>,
    /// The buildx builder to use.
    #[arg(long, value_name = "BUILDER")]
    builder: Option<String>,
}

impl EngineArgs {
    /// The options that were typed, name and value, in the order of the help.
    pub(crate) fn typed(&self) -> Vec<(&'static str, &str)> {
        let many = [
            ("--secret", &self.secret),
            ("--ssh", &self.ssh),
            ("--cache-from", &self.cache_from),
            ("--cache-to", &self.cache_to),
            ("--no-cache-filter", &self.no_cache_filter),
            ("--allow", &self.allow),
            ("--add-host", &self.add_host),
            ("--ulimit", &self.ulimit),
            ("--attest", &self.attest),
        ];
        let one = [
            ("--provenance", &self.provenance),
            ("--sbom", &self.sbom),
            ("--network", &self.network),
            ("--shm-size", &self.shm_size),
            ("--cgroup-parent", &self.cgroup_parent),
            ("--builder", &self.builder),
        ];
        let many = many.into_iter().flat_map(|(name, values)| values.iter().map(move |v| (name, v.as_str())));
        many.chain(one.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)))).collect()
    }
}

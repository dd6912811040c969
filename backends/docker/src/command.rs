//! The command line of `docker buildx build`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use windlass_core::output::{Output, OutputKind};
use windlass_core::request::{BuildRequest, NamedContext};

use crate::config::Config;
use crate::input::Input;
use crate::program::Buildx;

/// The options that decide about attestations. Each stands alone or with `=value`.
const ATTESTATION_OPTIONS: &[&str] = &["--attest", "--provenance", "--sbom"];

/// The arguments of the docker program for a request.
///
/// Without an attestation option of the user's, provenance is turned off: BuildKit's default one
/// turns a single image into an index and holds times and host names, so that the image would
/// differ from build to build and from other backends.
pub(crate) fn arguments(
    request: &BuildRequest,
    config: &Config,
    buildx: &Buildx,
    input: &Input,
    outputs: impl IntoIterator<Item = Output>,
    metadata_file: Option<&Path>,
) -> Vec<OsString> {
    let mut line = Line(["buildx", "build"].map(OsString::from).into());
    line.pair("--progress", buildx.format().name());
    if let Some(path) = metadata_file {
        line.pair("--metadata-file", path);
    }
    if !names_builder(request)
        && let Some(builder) = &config.builder
    {
        line.pair("--builder", builder);
    }
    if buildx.attests() && !decides_attestations(request, config) {
        line.option("--provenance=false");
    }
    for output in outputs {
        line.output(&output, request.platforms.len() > 1);
    }
    line.request(request);
    line.0.extend(config.extra_args.iter().map(OsString::from));
    input.append_arguments(&mut line.0);
    line.0
}

struct Line(Vec<OsString>);

impl Line {
    fn option(&mut self, option: &str) {
        self.0.push(option.into());
    }

    /// `--name=value`, one argument: a value that begins with a dash stays a value.
    fn pair(&mut self, name: &str, value: impl AsRef<OsStr>) {
        let mut argument = OsString::from(name);
        argument.push("=");
        argument.push(value);
        self.0.push(argument);
    }

    /// Our "store" is the engine's. Only with the engine's own builder does `type=image` mean that,
    /// with others the image would stay in the build cache; `--load` means it with all. But
    /// `--load` cannot carry an index, which the engine's own builder can store.
    fn output(&mut self, output: &Output, is_index: bool) {
        let plain = output.attributes.is_empty() && output.destination.is_none();
        match output.kind {
            OutputKind::Image if plain && !is_index => self.option("--load"),
            OutputKind::Docker if plain => self.option("--load"),
            OutputKind::Registry if plain => self.option("--push"),
            _ => self.pair("--output", output.to_string()),
        }
    }

    fn request(&mut self, request: &BuildRequest) {
        for tag in &request.tags {
            self.pair("--tag", tag.to_string());
        }
        if let Some(target) = &request.target {
            self.pair("--target", target);
        }
        if !request.platforms.is_empty() {
            let platforms: Vec<String> = request.platforms.iter().map(ToString::to_string).collect();
            self.pair("--platform", platforms.join(","));
        }
        for (name, value) in &request.build_args {
            self.pair("--build-arg", format!("{name}={value}"));
        }
        if let Some(epoch) = request.source_date_epoch
            && !request.build_args.contains_key("SOURCE_DATE_EPOCH")
        {
            self.pair("--build-arg", format!("SOURCE_DATE_EPOCH={epoch}"));
        }
        for (name, value) in &request.labels {
            self.pair("--label", format!("{name}={value}"));
        }
        for (name, value) in &request.annotations {
            self.pair("--annotation", format!("{name}={value}"));
        }
        for (name, context) in &request.build_contexts {
            self.pair("--build-context", named_context(name, context));
        }
        if request.no_cache {
            self.option("--no-cache");
        }
        if request.pull {
            self.option("--pull");
        }
        for option in &request.engine_options {
            match &option.value {
                Some(value) => self.pair(&option.name, value),
                None => self.option(&option.name),
            }
        }
    }
}

fn named_context(name: &str, context: &NamedContext) -> OsString {
    let mut argument = OsString::from(format!("{name}="));
    match context {
        NamedContext::Image(reference) => argument.push(format!("docker-image://{reference}")),
        NamedContext::OciLayout { directory, tag, digest } => {
            argument.push("oci-layout://");
            argument.push(directory);
            if let Some(tag) = tag {
                argument.push(format!(":{tag}"));
            }
            if let Some(digest) = digest {
                argument.push(format!("@{digest}"));
            }
        }
        NamedContext::Directory(path) => argument.push(path),
        NamedContext::Other(text) => argument.push(text),
    }
    argument
}

fn names_builder(request: &BuildRequest) -> bool {
    request.engine_options.iter().any(|option| option.name == "--builder")
}

fn decides_attestations(request: &BuildRequest, config: &Config) -> bool {
    let mut names = request
        .engine_options
        .iter()
        .map(|option| option.name.as_str())
        .chain(config.extra_args.iter().map(|argument| argument.split('=').next().unwrap_or_default()));
    names.any(|name| ATTESTATION_OPTIONS.contains(&name))
}

/// A command line as one would type it into a shell.
pub(crate) fn shown(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| quote(&word.as_ref().to_string_lossy())).collect();
    quoted.join(" ")
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

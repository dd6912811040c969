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

#[cfg(test)]
mod tests {
    use windlass_core::context::Context;
    use windlass_core::request::{DockerfileSource, EngineOption};

    use super::*;
    use crate::program::Program;
    use crate::version::Version;

    fn request() -> BuildRequest {
        let dockerfile = DockerfileSource {
            shown: "Dockerfile".into(),
            path: Some("Dockerfile".into()),
            in_context: None,
            content: "FROM scratch\n".into(),
        };
        BuildRequest::new(Context::empty(), dockerfile)
    }

    fn line(request: &BuildRequest, config: &Config, version: Version) -> String {
        let buildx = Buildx { program: Program::for_tests(), version };
        let input = Input::Directory { root: "-odd dir".into(), dockerfile: "Dockerfile".into() };
        shown(arguments(request, config, &buildx, &input, request.outputs.clone(), None))
    }

    #[test]
    fn a_plain_build_is_loaded_and_has_no_attestations() {
        let config = Config::default();
        assert_eq!(
            line(&request(), &config, Version(0, 13, 1)),
            "buildx build --progress=rawjson --provenance=false --load --file=Dockerfile './-odd dir'"
        );
        assert_eq!(
            line(&request(), &config, Version(0, 8, 2)),
            "buildx build --progress=plain --load --file=Dockerfile './-odd dir'"
        );
    }

    #[test]
    fn every_field_becomes_an_option() {
        let mut request = request();
        request.tags = vec!["acme/agent:1".parse().expect("a reference")];
        request.target = Some("test".to_owned());
        request.platforms =
            ["linux/amd64", "linux/arm64"].iter().map(|text| text.parse().expect("a platform")).collect();
        request.build_args.insert("V".to_owned(), "a b".to_owned());
        request.labels.insert("l".to_owned(), "it's".to_owned());
        request.annotations.insert("index:a".to_owned(), "1".to_owned());
        request.source_date_epoch = Some(7);
        request.no_cache = true;
        request.pull = true;
        request.outputs = ["type=registry", "type=image", "type=tar,dest=-"]
            .iter()
            .map(|text| text.parse().expect("an output"))
            .collect();
        request.build_contexts.insert(
            "base".to_owned(),
            NamedContext::OciLayout { directory: "l".into(), tag: Some("t".to_owned()), digest: None },
        );
        request.build_contexts.insert("src".to_owned(), NamedContext::Directory("../src".into()));
        request.engine_options = vec![
            EngineOption { name: "--secret".to_owned(), value: Some("id=x,env=Y".to_owned()) },
            EngineOption { name: "--check".to_owned(), value: None },
        ];
        let config =
            Config { extra_args: vec!["--ulimit".to_owned(), "nofile=9".to_owned()], ..Config::default() };
        let expected = [
            "buildx build --progress=rawjson --provenance=false --push --output=type=image --output=type=tar,dest=-",
            "--tag=docker.io/acme/agent:1 --target=test --platform=linux/amd64,linux/arm64",
            "'--build-arg=V=a b' --build-arg=SOURCE_DATE_EPOCH=7 '--label=l=it'\\''s' --annotation=index:a=1",
            "--build-context=base=oci-layout://l:t --build-context=src=../src --no-cache --pull",
            "--secret=id=x,env=Y --check --ulimit nofile=9 --file=Dockerfile './-odd dir'",
        ];
        assert_eq!(line(&request, &config, Version(0, 13, 0)), expected.join(" "));
    }

    #[test]
    fn what_the_user_says_about_builder_and_attestations_wins() {
        let config = Config { builder: Some("farm".to_owned()), ..Config::default() };
        let mut request = request();
        assert!(line(&request, &config, Version(0, 13, 0)).contains(" --builder=farm "));
        for (name, value) in [("--builder", "mine"), ("--sbom", "true")] {
            request
                .engine_options
                .push(EngineOption { name: name.to_owned(), value: Some(value.to_owned()) });
        }
        let line = line(&request, &config, Version(0, 13, 0));
        assert!(line.contains(" --builder=mine "), "{line}");
        assert!(!line.contains("farm") && !line.contains("provenance"), "{line}");
    }
}

//! From what was typed to what is meant: [`BuildArgs`] become a [`BuildRequest`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use windlass_core::context::Context;
use windlass_core::output::{Destination, Output, OutputKind};
use windlass_core::request::{BuildRequest, DockerfileSource, EngineOption, NamedContext};
use windlass_core::{Error, ErrorKind, Result};

use crate::args::{BuildArgs, DestinationArgs};
use crate::dockerfile;
use crate::session::Session;
use crate::settings::{context_settings, source_date_epoch};

/// Reads the context's ignore file, the Dockerfile and every option.
///
/// # Errors
/// `InvalidInput` for what cannot be meant; what the context and the Dockerfile meet.
pub(crate) async fn build_request(args: &BuildArgs, session: &Session<'_>) -> Result<BuildRequest> {
    let surroundings = &session.program.surroundings;
    let outputs = outputs(&args.destination)?;
    let (context, dockerfile) = tree(&args.context, args.file.as_deref(), session).await?;
    let build_args = build_args(&args.build_args, &surroundings.environment)?;
    let epoch = build_args.get("SOURCE_DATE_EPOCH").map(String::as_str);
    let epoch = epoch.or_else(|| surroundings.variable("SOURCE_DATE_EPOCH"));
    let mut tags = parse_all(&args.tags)?;
    let mut platforms = parse_all(&args.platforms)?;
    drop_repeated(&mut tags);
    drop_repeated(&mut platforms);
    Ok(BuildRequest {
        target: args.target.clone(),
        platforms,
        labels: pairs("--label", &args.labels, Some(""))?,
        annotations: pairs("--annotation", &args.annotations, None)?,
        tags,
        build_contexts: build_contexts(&args.build_contexts, &surroundings.current_dir)?,
        outputs,
        no_cache: args.no_cache,
        pull: args.pull,
        source_date_epoch: source_date_epoch(epoch)?,
        engine_options: engine_options(args),
        build_args,
        ..BuildRequest::new(context, dockerfile)
    })
}

/// The context and the Dockerfile of a command.
pub(crate) async fn tree(
    context: &Path,
    file: Option<&Path>,
    session: &Session<'_>,
) -> Result<(Context, DockerfileSource)> {
    tree_by("--file", context, file, session).await
}

/// The same for a command whose Dockerfile is named by another option.
pub(crate) async fn tree_by(
    option: &str,
    context: &Path,
    file: Option<&Path>,
    session: &Session<'_>,
) -> Result<(Context, DockerfileSource)> {
    let current_dir = &session.program.surroundings.current_dir;
    check_context(context, file)?;
    let settings = context_settings(&session.settings.context);
    // A context that is wrong is said to be so before the Dockerfile that is not in it.
    let root = current_dir.join(context);
    let bare = Context::from_dir(&root, None, &settings)?;
    if file == Some(Path::new("-")) {
        return Ok((bare, dockerfile::read_stdin(&session.program.cancel).await?));
    }
    let shown = dockerfile::locate(option, context, file, current_dir)?;
    let context = Context::from_dir(&root, Some(&current_dir.join(&shown)), &settings)?;
    let dockerfile = DockerfileSource::read(&shown, &current_dir.join(&shown), &context)?;
    Ok((context, dockerfile))
}

/// Contexts that docker knows and windlass does not.
pub(crate) fn check_context(context: &Path, file: Option<&Path>) -> Result<()> {
    let text = context.to_string_lossy();
    let refuse = |why: &str, hint: &str| {
        Err(Error::new(ErrorKind::InvalidInput, format!("the context `{text}` {why}")).with_hint(hint))
    };
    if text == "-" {
        if file == Some(Path::new("-")) {
            return refuse(
                "cannot come from stdin as the Dockerfile does",
                "name a directory as the context",
            );
        }
        return refuse(
            "cannot come from stdin",
            "unpack the archive and name its directory; a Dockerfile alone goes in with `--file -` and an empty directory",
        );
    }
    let remote = ["http://", "https://", "git://", "ssh://", "git@", "github.com/"];
    if remote.iter().any(|prefix| text.starts_with(prefix)) {
        return refuse("is not a directory on this machine", "clone or download it first");
    }
    Ok(())
}

pub(crate) fn parse_all<T: std::str::FromStr<Err = Error>>(typed: &[String]) -> Result<Vec<T>> {
    typed.iter().map(|text| text.trim().parse()).collect()
}

pub(crate) fn drop_repeated<T: Ord + Clone>(values: &mut Vec<T>) {
    let mut seen = BTreeSet::new();
    values.retain(|value| seen.insert(value.clone()));
}

/// `NAME=VALUE`, the last of a name wins. Where there is no `=` the value is `lone`, if that may be.
pub(crate) fn pairs(option: &str, typed: &[String], lone: Option<&str>) -> Result<BTreeMap<String, String>> {
    let mut pairs = BTreeMap::new();
    for text in typed {
        let (name, value) = match (text.split_once('='), lone) {
            (Some((name, value)), _) => (name, value),
            (None, Some(value)) => (text.as_str(), value),
            (None, None) => return Err(no_pair(option, text)),
        };
        if name.trim().is_empty() {
            return Err(no_pair(option, text));
        }
        pairs.insert(name.to_owned(), value.to_owned());
    }
    Ok(pairs)
}

fn no_pair(option: &str, text: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("`{option} {text}` is not `{option} NAME=VALUE`"))
}

/// As docker does: a name without a value is taken from the environment, and left out if it is not there.
pub(crate) fn build_args(
    typed: &[String],
    environment: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    let mut given = BTreeMap::new();
    for text in typed {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text.as_str(), environment.get(text).map(String::as_str)),
        };
        if name.trim().is_empty() {
            return Err(no_pair("--build-arg", text));
        }
        match value {
            Some(value) => given.insert(name.to_owned(), value.to_owned()),
            None => given.remove(name),
        };
    }
    Ok(given)
}

fn build_contexts(typed: &[String], current_dir: &Path) -> Result<BTreeMap<String, NamedContext>> {
    let pairs = pairs("--build-context", typed, None)?;
    pairs
        .into_iter()
        .map(|(name, source)| Ok((name.clone(), NamedContext::parse(&name, &source, current_dir)?)))
        .collect()
}

/// `--output`, `--push` and `--load` together, as buildx reads them.
pub(crate) fn outputs(typed: &DestinationArgs) -> Result<Vec<Output>> {
    let mut outputs: Vec<Output> = parse_all(&typed.outputs)?;
    if typed.push && !outputs.iter().any(Output::pushes) {
        match outputs.iter_mut().find(|output| output.kind == OutputKind::Image) {
            Some(image) => {
                image.attributes.insert("push".to_owned(), "true".to_owned());
            }
            None => outputs.push(Output::push()),
        }
    }
    if typed.load && !outputs.iter().any(Output::loads) {
        outputs.push(Output::load());
    }
    if outputs.is_empty() {
        outputs.push(Output::image());
    }
    let mut places = BTreeSet::new();
    for destination in outputs.iter().filter_map(|output| output.destination.as_ref()) {
        let place = match destination {
            Destination::Stdout => "stdout".to_owned(),
            Destination::Path(path) => format!("`{}`", path.display()),
        };
        if !places.insert(place.clone()) {
            return Err(Error::new(ErrorKind::InvalidInput, format!("two outputs go to {place}")));
        }
    }
    Ok(outputs)
}

fn engine_options(args: &BuildArgs) -> Vec<EngineOption> {
    let typed = args.engine.typed().into_iter();
    typed.map(|(name, value)| EngineOption { name: name.to_owned(), value: Some(value.to_owned()) }).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn args(line: &[&str]) -> BuildArgs {
        let cli = Cli::try_parse_from([&["windlass", "build", "."], line].concat()).expect("valid");
        match cli.command {
            Command::Build(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn build_args_come_from_the_environment_where_no_value_is_given() {
        let environment = BTreeMap::from([("SET".to_owned(), "e=1".to_owned())]);
        let typed = ["A=1", "B=x=y", "SET", "UNSET", "C="].map(str::to_owned);
        let given = build_args(&typed, &environment).expect("valid");
        let shown: Vec<String> = given.iter().map(|(name, value)| format!("{name}:{value}")).collect();
        assert_eq!(shown, ["A:1", "B:x=y", "C:", "SET:e=1"]);
        assert!(build_args(&["=x".to_owned()], &environment).is_err());
    }

    #[test]
    fn push_and_load_are_outputs() {
        let of = |line: &[&str]| {
            let args = args(line);
            outputs(&args.destination)
        };
        for (line, expected) in [
            (&[][..], "type=image"),
            (&["--push"], "type=registry"),
            (&["--load"], "type=docker"),
            (&["--push", "-o", "type=image"], "type=image,push=true"),
            (&["--push", "-o", "type=registry"], "type=registry"),
            (&["-o", "type=oci,dest=a", "--push"], "type=oci,dest=a type=registry"),
            (&["-o", "out"], "type=local,dest=out"),
        ] {
            let outputs = of(line).expect("valid");
            assert_eq!(outputs.iter().map(Output::to_string).collect::<Vec<_>>().join(" "), expected);
        }
        assert!(of(&["-o", "type=oci,dest=a", "-o", "type=docker,dest=a"]).is_err());
        assert!(of(&["-o", "-", "-o", "type=oci,dest=-"]).is_err());
    }

    #[test]
    fn engine_options_keep_their_names() {
        let typed = args(&["--secret", "id=a", "--builder", "b", "--provenance=false", "--secret", "id=b"]);
        let options: Vec<String> = engine_options(&typed)
            .iter()
            .map(|o| format!("{} {}", o.name, o.value.as_deref().unwrap_or("")))
            .collect();
        assert_eq!(options, ["--secret id=a", "--secret id=b", "--provenance false", "--builder b"]);
    }

    #[test]
    fn contexts_that_are_no_directories_are_refused() {
        for context in ["-", "https://github.com/a/b.git", "git@github.com:a/b"] {
            assert!(check_context(Path::new(context), None).is_err(), "{context}");
        }
        assert!(check_context(Path::new("github"), None).is_ok());
    }
}

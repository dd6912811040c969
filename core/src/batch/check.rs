//! What can be known to go wrong before the first image is begun, besides what the list itself says.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::{Entry, Work, hash_of};
use super::list::List;
use super::problems::Problems;
use crate::backend::{Backend, CheckStatus, Job};
use crate::backend_registry::Host;
use crate::context::{Context, ContextPath, IgnoreRules};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::pipeline::Pipeline;
use crate::recipe::agent_server::Target;
use crate::recipe::{HashRules, RuntimeNames, RuntimeOptions, RuntimeTags, runtime_names};
use crate::reference::Reference;
use crate::request::{BuildRequest, NamedContext};

/// Refuses a list whose Dockerfiles or options the backend cannot build, whose recipes miss something or give two
/// images the same tag, and a report that would become part of an image. Asks nobody. What the images of recipes
/// are made of counts for their hashes from then on: see [`Entry::hash`].
///
/// # Errors
/// `Unsupported`, with the backends that can; `InvalidInput` with all that is wrong with what recipes make, or
/// for the place of the report.
pub async fn check(
    list: &mut List,
    pipeline: &Pipeline,
    host: &Host,
    report: &Path,
    job: &Job,
) -> Result<()> {
    check_recipes(list, host, report, job).await?;
    let mut looked_at = BTreeSet::new();
    for entry in &list.entries {
        // A recipe's Dockerfile is known when it is decided how much of another image is taken.
        let Work::Dockerfile(request) = &entry.work else { continue };
        check_contexts(request, report)?;
        if !looked_at.insert(what_counts(request)) {
            continue;
        }
        let refuse = |backend: Arc<dyn Backend>| async move {
            pipeline.refuse_unsupported(backend.as_ref(), request, job).await
        };
        let refused = pipeline.first_available(job, refuse).await;
        refused.map_err(|error| error.with_detail("image", entry.name.clone()))?;
    }
    Ok(())
}

/// Finds out whether a backend is there before hundreds of images wait for it in vain, each with its retries.
///
/// # Errors
/// `Unavailable` where no backend of the list is fit to build, with what is wrong with the first; `Cancelled`.
pub async fn check_backend(pipeline: &Pipeline, job: &Job) -> Result<()> {
    let look = |backend: Arc<dyn Backend>| async move {
        let report = job.run(async { Ok(backend.check(job).await) }).await?;
        let bad = report.items.into_iter().find(|item| item.status == CheckStatus::Bad);
        let Some(bad) = bad else { return Ok(()) };
        let message = format!("the backend `{}` cannot build: {}: {}", backend.name(), bad.what, bad.seen);
        let error = Error::new(ErrorKind::Unavailable, message);
        Err(bad.hint.into_iter().fold(error, Error::with_hint))
    };
    pipeline.first_available(job, look).await.map(drop)
}

/// Finds out what can be known of the names of images that recipes make, and of what they are made of.
async fn check_recipes(list: &mut List, host: &Host, report: &Path, job: &Job) -> Result<()> {
    let mut problems = Problems::of(&list.file);
    let mut inputs: BTreeMap<String, String> = BTreeMap::new();
    let given =
        list.entries.iter().flat_map(|entry| entry.tags.iter().map(|tag| (tag.familiar(), entry.line)));
    let mut taken: BTreeMap<String, usize> = given.collect();
    for entry in &mut list.entries {
        let Work::Recipe(options) = &entry.work else { continue };
        let recipe = &options.recipe;
        let by_hashes = recipe.scheme().is_none();
        // The sources are hashed for one of those that have the same; their tags hold the base image.
        let same = (&recipe.name, &recipe.file, &options.source, &options.version, &options.repository);
        let same = format!("{same:?}");
        if let Some(known) = inputs.get(&same) {
            count_inputs(entry, known);
            continue;
        }
        // Before the sources are hashed: a report in them changes what they are.
        check_sources(options, host, report)?;
        match runtime_names(options, None, host, job).await {
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => {
                problems.add_error(entry.line, &error);
                // Once is enough.
                if by_hashes {
                    inputs.insert(same, String::new());
                }
            }
            Ok(names) if by_hashes => {
                let known = hashed_inputs(options, &names, host, job).await?;
                count_inputs(entry, &known);
                inputs.insert(same, known);
            }
            Ok(names) => {
                for tag in names.references().iter().map(Reference::familiar) {
                    match taken.insert(tag.clone(), entry.line) {
                        Some(other) if other != entry.line => {
                            let text = format!("the tag `{tag}` is that of the image in line {other} too");
                            problems.add(entry.line, text);
                        }
                        _ => {}
                    }
                }
                // Its tags hold the commit of the sources.
                let tags: Vec<String> = names.references().iter().map(ToString::to_string).collect();
                count_inputs(entry, &tags.join(" "));
            }
        }
    }
    problems.finish()
}

/// The hashes of the sources and of the lock files; those do not hang on the base image here.
async fn hashed_inputs(
    options: &RuntimeOptions,
    names: &RuntimeNames,
    host: &Host,
    job: &Job,
) -> Result<String> {
    let mut inputs = match &names.tags {
        RuntimeTags::Hashes { source_hash, .. } => source_hash.clone(),
        RuntimeTags::AgentServer { .. } => String::new(),
    };
    let (recipe, source) = (options.recipe.clone(), host.current_dir.join(&options.source));
    job.blocking(move |_| {
        for path in recipe.lock_files.iter().filter_map(|file| file.find(&source)) {
            let unreadable = || format!("could not read the lock file `{}`", path.display());
            let content = std::fs::read(&path).or_error(ErrorKind::ContextUnreadable, unreadable)?;
            inputs += &format!(" {}", Digest::of(content));
        }
        Ok(inputs)
    })
    .await
}

/// Lets what an image is made of count for its hash.
fn count_inputs(entry: &mut Entry, inputs: &str) {
    entry.hash = hash_of(&(&entry.hash, inputs));
}

/// Images that have the same of this are refused alike.
fn what_counts(request: &BuildRequest) -> String {
    let options: Vec<_> = request.needs().into_iter().map(|(_, option)| option).collect();
    let root = request.context.root().unwrap_or(Path::new(""));
    format!("{} {root:?} {:?} {options:?}", request.dockerfile.shown.display(), request.target)
}

/// Refuses a report in the context or a named context of a build.
fn check_contexts(request: &BuildRequest, report: &Path) -> Result<()> {
    if let Some(root) = request.context.root() {
        check_report("build context", root, request.context.ignore(), report)?;
    }
    for named in request.build_contexts.values() {
        if let NamedContext::Directory(directory) = named {
            let context = Context::from_dir(directory, None, request.context.settings())?;
            check_report("build context", directory, context.ignore(), report)?;
        }
    }
    Ok(())
}

/// Refuses a report in what a recipe copies or hashes.
fn check_sources(options: &RuntimeOptions, host: &Host, report: &Path) -> Result<()> {
    let (recipe, source) = (&options.recipe, host.current_dir.join(&options.source));
    let by_hashes = recipe.scheme().is_none();
    if !by_hashes && !options.target.unwrap_or(Target::Binary).needs_sources() {
        return Ok(());
    }
    if by_hashes {
        let rules = IgnoreRules::parse_git(HashRules::DEFAULT, Path::new(&recipe.name))?;
        check_report("sources", &source.join(&recipe.hash), &rules, report)?;
    }
    for (index, tree) in recipe.sources.iter().enumerate() {
        check_report("sources", &source.join(&tree.path), &recipe.ignore_rules(index)?, report)?;
    }
    Ok(())
}

/// Logs that are written into what is built while it is built would be in the image, or fail the build.
fn check_report(what: &str, root: &Path, ignore: &IgnoreRules, report: &Path) -> Result<()> {
    let Ok(root) = root.canonicalize() else { return Ok(()) };
    let report = resolved(report);
    // Rules for directories alone do not say of a path that it is one, but count for what is below it.
    let inside = report.strip_prefix(&root).ok().map(|path| path.join("logs"));
    let inside = inside.and_then(|path| ContextPath::clean(path.as_os_str().as_bytes()));
    if inside.is_none_or(|inside| ignore.excluded(&inside)) {
        return Ok(());
    }
    let message = format!("the report would be written into the {what} `{}`", root.display());
    Err(Error::new(ErrorKind::InvalidInput, message).with_hint(match what {
        "sources" => "name another directory with `--report`",
        _ => "name another directory with `--report`, or exclude this one in `.dockerignore`",
    }))
}

/// A path without links, whether it is there yet or not.
fn resolved(path: &Path) -> PathBuf {
    let mut rest: Vec<&OsStr> = Vec::new();
    for above in path.ancestors() {
        if let Ok(real) = above.canonicalize() {
            return rest.into_iter().rev().fold(real, |real, name| real.join(name));
        }
        rest.extend(above.file_name());
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::ArchiveSettings;
    use crate::context::ContextSettings;
    use crate::recipe::Recipes;
    use crate::registry::{RegistryClient, RegistrySettings};
    use crate::request::DockerfileSource;

    fn host(current_dir: &Path) -> Host {
        Host {
            environment: [].into(),
            home_dir: None,
            current_dir: current_dir.to_owned(),
            cache_dir: current_dir.join("cache"),
            state_dir: current_dir.join("state"),
            registry_client: RegistryClient::new(RegistrySettings::default()).expect("no files are named"),
            archive: ArchiveSettings::default(),
        }
    }

    fn request(context: Context) -> BuildRequest {
        let dockerfile =
            DockerfileSource { shown: "D".into(), path: None, in_context: None, content: "".into() };
        BuildRequest::new(context, dockerfile)
    }

    #[test]
    fn a_report_is_no_part_of_a_named_context() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(".dockerignore"), "out\n").expect("write");
        let mut request = request(Context::empty());
        request.build_contexts.insert("x".into(), NamedContext::Directory(dir.path().to_owned()));
        check_contexts(&request, &dir.path().join("out/a")).expect("it is excluded");
        let error = check_contexts(&request, &dir.path().join("report")).expect_err("it would be copied");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }

    #[tokio::test]
    async fn what_a_recipe_is_made_of_counts_for_the_hash() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        write("pyproject.toml", "[project]\nname = \"x\"\nversion = \"1.0.0\"\n");
        write("poetry.lock", "lock");
        write("pkg/a.py", "a");
        let entry = |base: &str| {
            let recipe = Recipes::builtin().expect("valid").get("openhands-runtime").expect("built in");
            let options = RuntimeOptions {
                source: "pkg".into(),
                base_image: base.into(),
                ..RuntimeOptions::new(recipe)
            };
            Entry {
                name: base.to_owned(),
                line: 1,
                base_image: None,
                target: None,
                tags: Vec::new(),
                hash: base.to_owned(),
                shares: Vec::new(),
                work: Work::Recipe(Box::new(options)),
            }
        };
        let host = host(dir.path());
        let hash = async |bases: &[&str]| {
            let entries = bases.iter().map(|base| entry(base)).collect();
            let mut list = List { file: "l".into(), entries };
            let checked = check_recipes(&mut list, &host, Path::new("/report"), &Job::silent()).await;
            checked.expect("nothing is wrong");
            list.entries.into_iter().find(|entry| entry.name == "debian:12").expect("it is there").hash
        };
        let before = hash(&["debian:12"]).await;
        // Others of the list and their order do not count.
        assert_eq!(hash(&["debian:11", "debian:12"]).await, before);
        write("pkg/a.py", "another");
        let after = hash(&["debian:11", "debian:12"]).await;
        assert_ne!(after, before);
        write("poetry.lock", "another");
        assert_ne!(hash(&["debian:12"]).await, after);
    }

    #[test]
    fn a_report_is_no_part_of_the_sources_of_a_recipe() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["pkg/sub", "skills", "openhands/sdk"] {
            std::fs::create_dir_all(dir.path().join(name)).expect("made");
        }
        let host = host(dir.path());
        let recipes = Recipes::builtin().expect("valid");
        let options = |name: &str, source: &str| RuntimeOptions {
            source: source.into(),
            ..RuntimeOptions::new(recipes.get(name).expect("built in"))
        };
        let (hashed, server) = (options("openhands-runtime", "pkg"), options("agent-server", "."));
        let bare = RuntimeOptions { target: Some(Target::BaseImage), ..server.clone() };
        for (options, report, good) in [
            (&hashed, "pkg/out", false),
            (&hashed, "skills/out", false),
            (&hashed, "pkg/.out", true),
            (&hashed, "out", true),
            (&server, "openhands/sdk/out", false),
            (&server, "out", true),
            (&bare, "openhands/sdk/out", true),
        ] {
            let checked = check_sources(options, &host, &dir.path().join(report));
            assert_eq!(checked.is_ok(), good, "{} {report}", options.recipe.name);
        }
    }

    #[test]
    fn a_report_is_no_part_of_an_image() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("app");
        std::fs::create_dir(&root).expect("a directory");
        std::fs::write(root.join(".dockerignore"), "out\n").expect("write");
        let context = Context::from_dir(&root, None, &ContextSettings::default()).expect("a context");
        let request = request(context);
        for (report, good) in [
            (root.join("report"), false),
            (root.join("a/b"), false),
            (root.clone(), false),
            (root.join("out"), true),
            (root.join("out/a"), true),
            (dir.path().join("report"), true),
            (dir.path().join("app2"), true),
        ] {
            assert_eq!(check_contexts(&request, &report).is_ok(), good, "{}", report.display());
        }
        check_contexts(&self::request(Context::empty()), &root).expect("nothing is read");
    }
}

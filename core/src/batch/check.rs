//! What can be known to go wrong before the first image is begun, besides what the list itself says.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::Work;
use super::list::List;
use super::problems::Problems;
use crate::backend::{Backend, CheckStatus, Job};
use crate::backend_registry::Host;
use crate::context::{Context, ContextPath};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Pipeline;
use crate::recipe::runtime_names;
use crate::reference::Reference;
use crate::request::BuildRequest;

/// Refuses a list whose Dockerfiles or options the backend cannot build, whose recipes miss something or give two
/// images the same tag, and a report that would become part of an image. Asks nobody.
///
/// # Errors
/// `Unsupported`, with the backends that can; `InvalidInput` with all that is wrong with what recipes make, or
/// for the place of the report.
pub async fn check(list: &List, pipeline: &Pipeline, host: &Host, report: &Path, job: &Job) -> Result<()> {
    check_recipes(list, host, job).await?;
    let mut looked_at = BTreeSet::new();
    for entry in &list.entries {
        // A recipe's Dockerfile is known when it is decided how much of another image is taken.
        let Work::Dockerfile(request) = &entry.work else { continue };
        if !looked_at.insert(what_counts(request)) {
            continue;
        }
        check_report(&request.context, report)?;
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

/// Finds out what can be known of the names of images that recipes make.
async fn check_recipes(list: &List, host: &Host, job: &Job) -> Result<()> {
    let mut problems = Problems::of(&list.file);
    let mut looked_at = BTreeSet::new();
    let given =
        list.entries.iter().flat_map(|entry| entry.tags.iter().map(|tag| (tag.familiar(), entry.line)));
    let mut taken: BTreeMap<String, usize> = given.collect();
    for entry in &list.entries {
        let Work::Recipe(options) = &entry.work else { continue };
        let recipe = &options.recipe;
        let by_hashes = recipe.scheme().is_none();
        // The sources are hashed for one of those that have the same; their tags hold the base image.
        let same = (&recipe.name, &recipe.file, &options.source, &options.version, &options.repository);
        if by_hashes && !looked_at.insert(format!("{same:?}")) {
            continue;
        }
        match runtime_names(options, None, host, job).await {
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => problems.add_error(entry.line, &error),
            Ok(names) if by_hashes => drop(names),
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
            }
        }
    }
    problems.finish()
}

/// Images that have the same of this are refused alike.
fn what_counts(request: &BuildRequest) -> String {
    let options: Vec<_> = request.needs().into_iter().map(|(_, option)| option).collect();
    let root = request.context.root().unwrap_or(Path::new(""));
    format!("{} {root:?} {:?} {options:?}", request.dockerfile.shown.display(), request.target)
}

/// Logs that are written into a context while it is built would be in the image, or fail the build.
fn check_report(context: &Context, report: &Path) -> Result<()> {
    let Some(root) = context.root().and_then(|root| root.canonicalize().ok()) else { return Ok(()) };
    let report = resolved(report);
    let inside = report.strip_prefix(&root).ok().map(|path| ContextPath::clean(path.as_os_str().as_bytes()));
    let Some(Some(inside)) = inside else { return Ok(()) };
    if context.ignore().excluded(&inside) {
        return Ok(());
    }
    let message = format!("the report would be written into the build context `{}`", root.display());
    Err(Error::new(ErrorKind::InvalidInput, message)
        .with_hint("name another directory with `--report`, or exclude this one in `.dockerignore`"))
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
    use crate::context::ContextSettings;

    #[test]
    fn a_report_is_no_part_of_an_image() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("app");
        std::fs::create_dir(&root).expect("a directory");
        std::fs::write(root.join(".dockerignore"), "out\n").expect("write");
        let context = Context::from_dir(&root, None, &ContextSettings::default()).expect("a context");
        for (report, good) in [
            (root.join("report"), false),
            (root.join("a/b"), false),
            (root.clone(), false),
            (root.join("out"), true),
            (root.join("out/a"), true),
            (dir.path().join("report"), true),
            (dir.path().join("app2"), true),
        ] {
            assert_eq!(check_report(&context, &report).is_ok(), good, "{}", report.display());
        }
        check_report(&Context::empty(), &root).expect("nothing is read");
    }
}

//! Finds the Dockerfile that the user means, and reads it.

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;
use windlass_core::request::{DockerfileSource, read_dockerfile};
use windlass_core::{Error, ErrorKind, Result};

/// The name where none is given.
const DEFAULT: &str = "Dockerfile";

/// Names under which people keep a Dockerfile.
const NEAR: &[&str] = &["Dockerfile", "dockerfile", "Containerfile", "containerfile"];

/// Finds the file: an absolute path as it is; a relative one in the current directory if it
/// exists there, else in the context; none at all is `Dockerfile` in the context. `option` is what it was
/// typed with, for messages.
///
/// # Errors
/// `InvalidInput` if it does not exist: names where it was looked for, and similar names that do.
pub(crate) fn locate(
    option: &str,
    context: &Path,
    typed: Option<&Path>,
    current_dir: &Path,
) -> Result<PathBuf> {
    let exists = |path: &Path| current_dir.join(path).exists();
    let tried = match typed {
        Some(typed) if typed.is_absolute() => vec![typed.to_owned()],
        Some(typed) => vec![typed.to_owned(), context.join(typed)],
        None => vec![if context == Path::new(".") { DEFAULT.into() } else { context.join(DEFAULT) }],
    };
    match tried.iter().find(|path| exists(path)) {
        Some(found) => Ok(found.clone()),
        None => Err(missing(option, context, typed, &tried, current_dir)),
    }
}

fn missing(
    option: &str,
    context: &Path,
    typed: Option<&Path>,
    tried: &[PathBuf],
    current_dir: &Path,
) -> Error {
    let mut places: Vec<String> = tried.iter().map(|path| format!("`{}`", path.display())).collect();
    places.dedup();
    let mut error = Error::new(ErrorKind::InvalidInput, format!("no Dockerfile at {}", places.join(" or ")));
    let directory = match typed {
        Some(typed) => {
            tried[0].parent().filter(|parent| current_dir.join(parent).is_dir() && typed.is_absolute())
        }
        None => None,
    };
    let directory = directory.unwrap_or(context);
    let mut near = similar(&current_dir.join(directory), typed);
    near.truncate(3);
    for name in near {
        let path = if directory == Path::new(".") { name.into() } else { directory.join(name) };
        error = error.with_hint(format!("there is `{0}`: use it with `{option} {0}`", path.display()));
    }
    if error.hints().is_empty() {
        error.with_hint(format!("name the Dockerfile with `{option}`; `-` reads it from stdin"))
    } else {
        error
    }
}

/// Files of a directory that are called like a Dockerfile, or nearly as it was typed.
fn similar(directory: &Path, typed: Option<&Path>) -> Vec<String> {
    let wanted = typed.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = files
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            NEAR.contains(&name.as_str())
                || (name.starts_with("Dockerfile.") && !name.ends_with(".dockerignore"))
                || name.ends_with(".Dockerfile")
                || wanted.as_deref().is_some_and(|wanted| strsim::damerau_levenshtein(name, wanted) <= 2)
        })
        .collect();
    names.sort();
    names
}

/// Reads the Dockerfile from the standard input. Waits for it no longer than the user does.
///
/// # Errors
/// `Cancelled`; `InvalidInput` if it is far too large; `ContextUnreadable`.
pub(crate) async fn read_stdin(cancel: &CancellationToken) -> Result<DockerfileSource> {
    // The thread cannot be stopped: it ends with the process.
    let reading = tokio::task::spawn_blocking(|| read_dockerfile(std::io::stdin().lock(), "from stdin"));
    let content = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(Error::cancelled()),
        read = reading => read.unwrap_or_else(|_| Err(Error::cancelled()))?,
    };
    Ok(DockerfileSource { shown: "-".into(), path: None, in_context: None, content })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        for file in files {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            std::fs::write(path, "FROM scratch\n").expect("a file");
        }
        directory
    }

    #[test]
    fn looks_here_first_then_in_the_context() {
        let directory = tree(&["app/Dockerfile", "app/deploy/Dockerfile", "other.Dockerfile", "app/own"]);
        let locate = |context: &str, typed: Option<&str>| {
            locate("--file", Path::new(context), typed.map(Path::new), directory.path())
                .map(|path| path.display().to_string())
        };
        for (context, typed, found) in [
            ("app", None, "app/Dockerfile"),
            ("app", Some("deploy/Dockerfile"), "app/deploy/Dockerfile"),
            ("app", Some("app/deploy/Dockerfile"), "app/deploy/Dockerfile"),
            ("app", Some("other.Dockerfile"), "other.Dockerfile"),
            ("app", Some("own"), "app/own"),
        ] {
            assert_eq!(locate(context, typed).expect(found), found);
        }
        let absolute = directory.path().join("app/own");
        assert_eq!(locate("app", absolute.to_str()).expect("absolute"), absolute.display().to_string());
    }

    #[test]
    fn a_missing_one_names_what_was_tried_and_what_is_there() {
        let directory = tree(&["app/dockerfile", "app/Dockerfile.dev.dockerignore"]);
        let error = locate("--file", Path::new("app"), None, directory.path()).expect_err("missing");
        assert_eq!(error.message(), "no Dockerfile at `app/Dockerfile`");
        assert_eq!(error.hints(), ["there is `app/dockerfile`: use it with `--file app/dockerfile`"]);
        let typed = Some(Path::new("x"));
        let error = locate("--dockerfile", Path::new("app"), typed, directory.path()).expect_err("missing");
        assert_eq!(error.message(), "no Dockerfile at `x` or `app/x`");
    }
}

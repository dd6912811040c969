//! The context as it is sent to a builder elsewhere, so that COPY sees there what it sees here.

use std::path::Path;

use bytes::Bytes;

use crate::backend::Job;
use crate::context::{Context, ContextPath, EntrySource};
use crate::error::{ErrorKind, Result, ResultExt};
use crate::request::BuildRequest;

/// BuildKit takes the ignore file that is called like the Dockerfile and this before `.dockerignore`.
const OWN_IGNORE_SUFFIX: &str = ".dockerignore";
const DOCKERIGNORE: &str = ".dockerignore";

/// The context of a request with its Dockerfile in a certain place of it: where it lies, or where the
/// service looks for it.
///
/// The service applies an ignore file too. Where that would give another result than ours did, an ignore
/// file is added that belongs to the Dockerfile in its place, gives the same result, and hides from COPY
/// what was added. Blocking.
///
/// # Errors
/// `ContextUnreadable` for the ignore file, or the context.
pub fn sent_context(request: &BuildRequest, place: &ContextPath, job: &Job) -> Result<Context> {
    let mut context = request.context.clone();
    let in_place = request.dockerfile.in_context.as_ref() == Some(place);
    if in_place && context.settings().ignore && !hides_too_much(&context) {
        return Ok(context);
    }
    let entries = context.list(job)?;
    let is_there = entries.iter().any(|entry| entry.path == *place);
    if !in_place {
        if is_there {
            job.events.warn(format!(
                "`{}` takes the place of `{}` in what is sent: COPY will not see the other one",
                request.dockerfile.shown.display(),
                place.as_path().display()
            ));
        }
        context.insert(place.clone(), request.dockerfile.content.clone(), 0o644);
    }
    let own_ignore = own_ignore(place);
    let mut rules = rules(&request.context)?.to_vec();
    rules.push(b'\n');
    // Each directory has rules of its own, which were applied here.
    for mount in request.context.mounts().iter().filter(|mount| !mount.at.is_root()) {
        rules.push(b'!');
        rules.extend(pattern(&mount.at));
        rules.push(b'\n');
    }
    let added = if is_there { None } else { Some(place) };
    for path in added.into_iter().chain([&own_ignore]) {
        rules.extend(pattern(path));
        rules.push(b'\n');
    }
    // What is in memory is there whatever the ignore file says.
    for entry in request.context.in_memory().filter(|entry| matches!(entry.source, EntrySource::Memory(_))) {
        rules.push(b'!');
        rules.extend(pattern(&entry.path));
        rules.push(b'\n');
    }
    context.insert(own_ignore, rules, 0o644);
    Ok(context)
}

/// The service would apply the ignore file that it finds to what it was not written for.
fn hides_too_much(context: &Context) -> bool {
    let is_hidden = |path: &ContextPath| context.ignore().excluded(path);
    let finds_another = || {
        let file = context.on_disk(&ContextPath::from_clean(DOCKERIGNORE));
        context.root().is_none() && file.is_some_and(|file| file.symlink_metadata().is_ok())
    };
    context.in_memory().any(|entry| is_hidden(&entry.path))
        || (!context.mounts().is_empty() && (!context.ignore().is_empty() || finds_another()))
}

/// Finds a place for a Dockerfile that does not lie in the context: one where nothing is. Blocking.
///
/// # Errors
/// As [`Context::list`].
pub fn free_place(context: &Context, job: &Job) -> Result<ContextPath> {
    let entries = context.list_to_send(job)?;
    let is_free = |path: &ContextPath| entries.iter().all(|entry| entry.path != *path);
    let mut number = 1_u64;
    loop {
        let name = match number {
            1 => "windlass.Dockerfile".to_owned(),
            number => format!("windlass-{number}.Dockerfile"),
        };
        let place = ContextPath::from_clean(name);
        if is_free(&place) && is_free(&own_ignore(&place)) {
            return Ok(place);
        }
        number += 1;
    }
}

fn own_ignore(place: &ContextPath) -> ContextPath {
    ContextPath::from_clean([place.as_bytes(), OWN_IGNORE_SUFFIX.as_bytes()].concat())
}

/// The ignore file that was applied to the context; empty where there is none, or it does not count.
fn rules(context: &Context) -> Result<Bytes> {
    let file = context.ignore().file();
    if context.ignore().is_empty() || file.as_os_str().is_empty() {
        return Ok(Bytes::new());
    }
    let path = context.root().unwrap_or(Path::new("")).join(file);
    let content = std::fs::read(&path).or_error(ErrorKind::ContextUnreadable, || {
        format!("could not read the ignore file `{}`", path.display())
    })?;
    Ok(content.into())
}

/// A pattern of an ignore file that matches this path and, but for white space at its ends, nothing else.
fn pattern(path: &ContextPath) -> Vec<u8> {
    let mut pattern = Vec::new();
    for byte in path.as_bytes() {
        match byte {
            b'*' | b'?' | b'[' | b']' | b'\\' | b'!' | b'#' => pattern.extend([b'\\', *byte]),
            // Lines are trimmed.
            byte if byte.is_ascii_whitespace() => pattern.push(b'?'),
            byte => pattern.push(*byte),
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{ContextSettings, IgnoreRules, Links};
    use crate::request::DockerfileSource;

    fn request(files: &[(&str, &str)], dockerfile: &str, ignore: bool) -> (tempfile::TempDir, BuildRequest) {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("context");
        for (name, content) in files {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, content).expect("written");
        }
        let path = root.join(dockerfile);
        let settings = ContextSettings { ignore, ..ContextSettings::default() };
        let context = Context::from_dir(&root, Some(&path), &settings).expect("a context");
        let dockerfile = DockerfileSource {
            shown: dockerfile.into(),
            in_context: context.place_of(&path),
            content: std::fs::read(&path).expect("a Dockerfile").into(),
            path: Some(path),
        };
        (directory, BuildRequest::new(context, dockerfile))
    }

    /// Path and content of everything that is sent.
    fn sent(request: &BuildRequest, place: &str) -> Vec<(String, String)> {
        use std::io::Read;
        let job = Job::silent();
        let context = sent_context(request, &ContextPath::from_clean(place), &job).expect("sent");
        let entries = context.list_to_send(&job).expect("listed");
        let files = entries.iter().filter(|entry| entry.is_file()).map(|entry| {
            let mut content = String::new();
            context.open(entry).expect("opened").read_to_string(&mut content).expect("read");
            (String::from_utf8_lossy(entry.path.as_bytes()).into_owned(), content)
        });
        files.collect()
    }

    fn names(files: &[(String, String)]) -> Vec<&str> {
        files.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn a_dockerfile_in_its_place_is_sent_as_it_is() {
        let files = [("d/F", "FROM a"), (".dockerignore", "*.log\nd"), ("x.log", ""), ("a", "")];
        let (_directory, request) = request(&files, "d/F", true);
        assert_eq!(names(&sent(&request, "d/F")), [".dockerignore", "a", "d/F"]);
    }

    #[test]
    fn one_from_elsewhere_gets_a_place_and_is_hidden() {
        let files = [("../Other", "FROM b"), (".dockerignore", "*.log"), ("x.log", ""), ("a", "")];
        let (_directory, request) = request(&files, "../Other", true);
        let place = free_place(&request.context, &Job::silent()).expect("listed");
        let sent = sent(&request, "windlass.Dockerfile");
        assert_eq!(place.as_bytes(), b"windlass.Dockerfile");
        assert_eq!(
            names(&sent),
            [".dockerignore", "a", "windlass.Dockerfile", "windlass.Dockerfile.dockerignore"]
        );
        assert_eq!(sent[2].1, "FROM b");
        assert_eq!(sent[3].1, "*.log\nwindlass.Dockerfile\nwindlass.Dockerfile.dockerignore\n");
    }

    #[test]
    fn a_place_is_free_with_its_ignore_file() {
        let files = [("../F", "x"), ("windlass.Dockerfile.dockerignore", ""), ("windlass-2.Dockerfile", "")];
        let (_directory, request) = request(&files, "../F", true);
        let place = free_place(&request.context, &Job::silent()).expect("listed");
        assert_eq!(place.as_bytes(), b"windlass-3.Dockerfile");
    }

    #[test]
    fn without_an_ignore_file_the_service_must_find_none() {
        let files = [("Dockerfile", "FROM a"), (".dockerignore", "*"), ("a", "")];
        let (_directory, request) = request(&files, "Dockerfile", false);
        let sent = sent(&request, "Dockerfile");
        assert_eq!(names(&sent), [".dockerignore", "Dockerfile", "Dockerfile.dockerignore", "a"]);
        assert_eq!(sent[2].1, "\nDockerfile.dockerignore\n");
    }

    #[test]
    fn directories_in_another_place_have_rules_of_their_own() {
        let files =
            [("Dockerfile", "FROM a"), (".dockerignore", "*"), ("a", ""), ("../m/b", ""), ("../m/c", "")];
        let (directory, mut request) = request(&files, "Dockerfile", true);
        let ignore = IgnoreRules::parse(b"c", Path::new("rules")).expect("valid");
        let at = ContextPath::from_clean("x/m");
        request.context.mount(at, &directory.path().join("m"), ignore, Links::Keep).expect("mounted");
        let sent = sent(&request, "Dockerfile");
        assert_eq!(names(&sent), [".dockerignore", "Dockerfile", "Dockerfile.dockerignore", "x/m/b"]);
        assert_eq!(sent[2].1, "*\n!x/m\nDockerfile\nDockerfile.dockerignore\n");
    }

    #[test]
    fn an_ignore_file_in_a_directory_of_the_root_does_not_count() {
        for (ignored, expected) in [
            (None, &["Dockerfile", "a"] as &[_]),
            (Some("a"), &[".dockerignore", "Dockerfile", "Dockerfile.dockerignore", "a"]),
        ] {
            let directory = tempfile::tempdir().expect("a directory");
            std::fs::write(directory.path().join("a"), "").expect("written");
            if let Some(ignored) = ignored {
                std::fs::write(directory.path().join(".dockerignore"), ignored).expect("written");
            }
            let mut context = Context::empty();
            let (root, place) = (ContextPath::default(), ContextPath::from_clean("Dockerfile"));
            context.mount(root, directory.path(), IgnoreRules::default(), Links::Keep).expect("mounted");
            context.insert(place.clone(), "FROM a", 0o644);
            let (shown, content) = ("Dockerfile".into(), "FROM a".into());
            let dockerfile = DockerfileSource { shown, in_context: Some(place), content, path: None };
            assert_eq!(names(&sent(&BuildRequest::new(context, dockerfile), "Dockerfile")), expected);
        }
    }

    #[test]
    fn what_is_in_memory_is_seen_there_too() {
        let files = [("Dockerfile", "FROM a"), (".dockerignore", "*")];
        let (_directory, mut request) = request(&files, "Dockerfile", true);
        request.context.insert(ContextPath::from_clean("a [1]"), "x", 0o644);
        let sent = sent(&request, "Dockerfile");
        assert_eq!(names(&sent), [".dockerignore", "Dockerfile", "Dockerfile.dockerignore", "a [1]"]);
        assert_eq!(sent[2].1, "*\nDockerfile\nDockerfile.dockerignore\n!a?\\[1\\]\n");
    }
}

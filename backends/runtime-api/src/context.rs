//! What is sent: the context, with the Dockerfile where the service looks for it.

use std::path::Path;

use bytes::Bytes;
use windlass_core::backend::Job;
use windlass_core::context::{Context, ContextPath, EntrySource};
use windlass_core::error::{ErrorKind, Result, ResultExt};
use windlass_core::request::BuildRequest;

const DOCKERFILE: &str = "Dockerfile";
/// The ignore file that goes before `.dockerignore`, and that BuildKit takes for a Dockerfile of that name.
const OWN_IGNORE: &str = "Dockerfile.dockerignore";
/// What is in the archive for the builder and not for COPY.
const HIDE: &str = "\nDockerfile\nDockerfile.dockerignore\n";

/// The context as it is sent. The protocol has no word for the Dockerfile's name: one of another name,
/// from outside the context or from the standard input takes the place of `Dockerfile`.
///
/// The service applies an ignore file too. Where ours would give another result than the one it finds, a
/// `Dockerfile.dockerignore` is added that gives the same, and hides what was added.
///
/// # Errors
/// `ContextUnreadable` for the ignore file.
pub(crate) fn to_send(request: &BuildRequest, job: &Job) -> Result<Context> {
    let (place, ignore) = (ContextPath::from_clean(DOCKERFILE), ContextPath::from_clean(OWN_IGNORE));
    let mut context = request.context.clone();
    let in_place = request.dockerfile.in_context.as_ref() == Some(&place);
    if in_place && context.settings().ignore {
        return Ok(context);
    }
    let entries = context.list(job)?;
    let existing = entries.iter().find(|entry| entry.path == place);
    if !in_place {
        if existing.is_some() {
            job.events.warn(format!(
                "`{}` takes the place of `{DOCKERFILE}` in what is sent: COPY will not see the other one",
                request.dockerfile.shown.display()
            ));
        }
        context.insert(place, request.dockerfile.content.clone(), 0o644);
    }
    let mut rules = rules(&request.context)?.to_vec();
    if existing.is_none() {
        rules.extend_from_slice(HIDE.as_bytes());
    } else {
        rules.extend_from_slice(b"\nDockerfile.dockerignore\n");
    }
    // What is in memory is there whatever the ignore file says.
    for entry in request.context.in_memory().filter(|entry| matches!(entry.source, EntrySource::Memory(_))) {
        rules.extend([b"!", entry.path.as_bytes(), b"\n"].concat());
    }
    context.insert(ignore, rules, 0o644);
    Ok(context)
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

#[cfg(test)]
mod tests {
    use windlass_core::context::ContextSettings;
    use windlass_core::request::DockerfileSource;

    use super::*;

    fn request(files: &[(&str, &str)], dockerfile: &str, ignore: bool) -> (tempfile::TempDir, BuildRequest) {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, content) in files {
            let path = directory.path().join("context").join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, content).expect("written");
        }
        let root = directory.path().join("context");
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
    fn sent(request: &BuildRequest) -> Vec<(String, String)> {
        use std::io::Read;
        let job = Job::silent();
        let context = to_send(request, &job).expect("sent");
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
        let files =
            [("Dockerfile", "FROM a"), (".dockerignore", "*.log\nDockerfile"), ("x.log", ""), ("a", "")];
        let (_directory, request) = request(&files, "Dockerfile", true);
        assert_eq!(names(&sent(&request)), [".dockerignore", "Dockerfile", "a"]);
    }

    #[test]
    fn a_dockerfile_of_another_name_takes_the_place_and_is_hidden() {
        let files = [("deploy/Other", "FROM b"), (".dockerignore", "*.log"), ("x.log", ""), ("a", "")];
        let (_directory, request) = request(&files, "deploy/Other", true);
        let sent = sent(&request);
        assert_eq!(names(&sent), [".dockerignore", "Dockerfile", OWN_IGNORE, "a", "deploy/Other"]);
        assert_eq!(
            (sent[1].1.as_str(), sent[2].1.as_str()),
            ("FROM b", "*.log\nDockerfile\nDockerfile.dockerignore\n")
        );
    }

    #[test]
    fn an_ignore_file_of_its_own_counts_in_the_place_too() {
        let files = [
            ("b.Dockerfile", "FROM b"),
            ("b.Dockerfile.dockerignore", "a"),
            (".dockerignore", "b"),
            ("a", ""),
            ("b", ""),
        ];
        let (_directory, request) = request(&files, "b.Dockerfile", true);
        let sent = sent(&request);
        assert!(names(&sent).contains(&"b") && !names(&sent).contains(&"a"), "{sent:?}");
        let ignore = sent.iter().find(|(name, _)| name == OWN_IGNORE).expect("added");
        assert!(ignore.1.starts_with("a\n"), "{ignore:?}");
    }

    #[test]
    fn without_an_ignore_file_the_service_must_find_none() {
        let files = [("Dockerfile", "FROM a"), (".dockerignore", "*"), ("a", "")];
        let (_directory, request) = request(&files, "Dockerfile", false);
        let sent = sent(&request);
        assert_eq!(names(&sent), [".dockerignore", "Dockerfile", OWN_IGNORE, "a"]);
        assert_eq!(sent[2].1, "\nDockerfile.dockerignore\n");
    }
}

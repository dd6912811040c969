//! From what a failed build left to the error that the user sees.

use windlass_core::context::ContextPath;
use windlass_core::dockerfile::without_credentials;
use windlass_core::error::{Error, ErrorKind, SourceLine};
use windlass_core::request::BuildRequest;

use crate::error::{cause, classify, feature};
use crate::process::Ended;
use crate::progress::{FailedStep, Told};

/// Longest step name in a message: a RUN may span a page.
const NAME_CHARACTERS: usize = 300;
/// How many lines of a text without `ERROR:` are taken for the cause.
const CAUSE_LINES: usize = 6;

/// Makes the error for a build that failed.
pub(crate) fn failure(ended: Ended, request: &BuildRequest) -> Error {
    let Told { failed, text } = ended.told;
    let mut why = final_error(&text);
    if why.is_empty() {
        why = failed.as_ref().map_or_else(|| ended.status.to_string(), |step| step.error.clone());
    }
    from_parts(failed, &why, &text, request)
}

/// Makes the error out of the step that failed, the builder's last words, and the text before them. All three
/// quote the Dockerfile, which may hold addresses with passwords: these are not shown.
pub(crate) fn from_parts(
    failed: Option<FailedStep>,
    why: &str,
    text: &[String],
    request: &BuildRequest,
) -> Error {
    let why = &*without_credentials(why);
    let failed = failed.map(without_passwords);
    let number = excerpt_line(text).or_else(|| parse_error_line(why));
    let line = number.and_then(|number| dockerfile_line(number, request));
    let (kind, hint) = classify(why).unwrap_or_else(|| (unknown(line.as_ref()), ""));
    let message = match &failed {
        Some(step) => step_message(step),
        None => "docker could not build the image".to_owned(),
    };
    let error = match (kind, feature(why)) {
        (ErrorKind::Unsupported, Some(feature)) => Error::unsupported(feature, message),
        _ => Error::new(kind, message),
    };
    let mut error = error.with_source(cause(why).to_owned());
    if let Some(line) = line {
        error = error.with_source_line(line);
    }
    if !hint.is_empty() {
        error = error.with_hint(hint);
    }
    if let Some(hint) = excluded(why, request) {
        error = error.with_hint(hint);
    }
    match failed {
        Some(step) => error.with_log_tail(step.log_tail),
        None => error,
    }
}

fn without_passwords(step: FailedStep) -> FailedStep {
    FailedStep {
        name: without_credentials(&step.name),
        error: without_credentials(&step.error),
        log_tail: step.log_tail.iter().map(|line| without_credentials(line)).collect(),
    }
}

fn step_message(step: &FailedStep) -> String {
    let mut name: String = step.name.chars().take(NAME_CHARACTERS).collect();
    if name.len() < step.name.len() {
        name.push('…');
    }
    match exit_code(&step.error) {
        Some(code) => format!("`{name}` failed with exit code {code}"),
        None => format!("`{name}` failed"),
    }
}

/// `process "…" did not complete successfully: exit code: 3` → `3`
fn exit_code(error: &str) -> Option<&str> {
    let (_, code) = error.rsplit_once("exit code: ")?;
    let end = code.find(|c: char| !c.is_ascii_digit()).unwrap_or(code.len());
    (end > 0).then_some(&code[..end])
}

/// buildx's last words: from the last line that begins with `ERROR:` on, else the last lines.
fn final_error(text: &[String]) -> String {
    let lines = match text.iter().rposition(|line| line.to_lowercase().starts_with("error:")) {
        Some(start) => &text[start..],
        None => {
            let words = text.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
            &text[words.saturating_sub(CAUSE_LINES)..words]
        }
    };
    lines.join("\n").trim().to_owned()
}

/// The kind of a failure that no rule knows. An instruction that runs nothing and fetches nothing
/// depends on the Dockerfile and the context alone: `Invalid containerPort: eighty`.
fn unknown(line: Option<&SourceLine>) -> ErrorKind {
    let Some(line) = line.filter(|line| !line.text.contains("://")) else { return ErrorKind::BuildFailed };
    match line.text.split_whitespace().next().map(str::to_uppercase).as_deref() {
        Some("FROM" | "RUN") | None => ErrorKind::BuildFailed,
        Some(_) => ErrorKind::InvalidDockerfile,
    }
}

/// The excerpt before the final error begins with `Dockerfile:5` and a rule of dashes.
fn excerpt_line(text: &[String]) -> Option<usize> {
    let mut ruled = text.windows(2).rev().filter(|pair| pair[1].starts_with("-----"));
    ruled.find_map(|pair| pair[0].rsplit_once(':')?.1.parse().ok())
}

/// `dockerfile parse error on line 2: …`; older builders say `parse error line 2`.
fn parse_error_line(why: &str) -> Option<usize> {
    let (_, rest) = why.split_once("parse error ")?;
    let (_, rest) = rest.split_once("line ")?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

fn dockerfile_line(number: usize, request: &BuildRequest) -> Option<SourceLine> {
    let content = String::from_utf8_lossy(&request.dockerfile.content);
    let text = without_credentials(content.lines().nth(number.checked_sub(1)?)?);
    Some(SourceLine { file: request.dockerfile.shown.clone(), line: number, text })
}

/// `failed to calculate checksum of ref …: "/nope": not found`: COPY did not find it. Says so if
/// it exists and an ignore file keeps it out.
fn excluded(why: &str, request: &BuildRequest) -> Option<String> {
    let (_, rest) = why.split_once("failed to calculate checksum")?;
    let (path, _) = rest.split_once("\": not found")?;
    let (_, path) = path.rsplit_once('"')?;
    let path = ContextPath::clean(path.trim_start_matches('/'))?;
    let exists = request.context.on_disk(&path).is_some_and(|file| file.exists());
    match request.context.decision(&path) {
        Some(decision) if decision.excluded && exists => Some(format!(
            "`{path}` is excluded by line {} of `{}`: `{}`",
            decision.line,
            decision.file.display(),
            decision.pattern
        )),
        _ if !exists => Some(format!("`{path}` does not exist in the build context")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::context::{Context, ContextSettings};
    use windlass_core::error::ErrorKind;
    use windlass_core::request::DockerfileSource;

    use super::*;

    fn request(context: Context) -> BuildRequest {
        request_of("FROM scratch\nCOPY nope /\nRUN false\n", context)
    }

    fn request_of(dockerfile: &'static str, context: Context) -> BuildRequest {
        let content = dockerfile.into();
        let dockerfile =
            DockerfileSource { shown: "deploy/Dockerfile".into(), path: None, in_context: None, content };
        BuildRequest::new(context, dockerfile)
    }

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_failed_command_is_named_with_code_line_and_log() {
        let error = "process \"/bin/sh -c false\" did not complete successfully: exit code: 1";
        let step =
            FailedStep { name: "[2/2] RUN false".into(), error: error.into(), log_tail: lines("a\nb") };
        let text = lines(&format!(
            "Dockerfile:3\n--------------------\n   3 | >>> RUN false\n--------------------\nERROR: failed to \
             solve: {error}"
        ));
        let error = from_parts(Some(step), &final_error(&text), &text, &request(Context::empty()));
        assert_eq!(error.kind(), ErrorKind::BuildFailed);
        assert_eq!(error.to_string(), "`[2/2] RUN false` failed with exit code 1");
        assert_eq!(error.log_tail(), ["a", "b"]);
        let line = error.source_line().expect("a line");
        assert_eq!(
            (line.file.to_str(), line.line, line.text.as_str()),
            (Some("deploy/Dockerfile"), 3, "RUN false")
        );
    }

    #[test]
    fn no_password_of_an_address_is_shown() {
        let line = "RUN git clone https://me:secret@host.example/x";
        let error =
            format!("process \"/bin/sh -c {}\" did not complete successfully: exit code: 1", &line[4..]);
        let tail = "Cloning from 'https://me:secret@host.example/x'".to_owned();
        let step = FailedStep { name: format!("[2/2] {line}"), error: error.clone(), log_tail: vec![tail] };
        let text =
            lines(&format!("Dockerfile:2\n-----\n   2 | >>> {line}\n-----\nERROR: failed to solve: {error}"));
        let request =
            request_of("FROM scratch\nRUN git clone https://me:secret@host.example/x\n", Context::empty());
        for failed in [Some(step), None] {
            let error = from_parts(failed, &final_error(&text), &text, &request);
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
            let shown = "RUN git clone https://xxxxx:xxxxx@host.example/x";
            assert_eq!(error.source_line().map(|line| line.text.as_str()), Some(shown));
        }
    }

    #[test]
    fn a_parse_error_has_its_line_without_an_excerpt() {
        let why = "dockerfile parse error on line 2: unknown flag: nope";
        let error = from_parts(None, why, &[], &request(Context::empty()));
        assert_eq!(error.kind(), ErrorKind::InvalidDockerfile);
        assert_eq!(error.source_line().map(|line| line.line), Some(2));
    }

    #[test]
    fn a_file_that_copy_does_not_find_may_be_excluded() {
        let directory = tempfile::TempDir::new().expect("a directory");
        std::fs::write(directory.path().join("nope"), "").expect("written");
        std::fs::write(directory.path().join(".dockerignore"), "# keep out\nn*\n").expect("written");
        let context =
            Context::from_dir(directory.path(), None, &ContextSettings::default()).expect("a context");
        let why =
            "failed to compute cache key: failed to calculate checksum of ref a::b: \"/nope\": not found";
        let hints = |context| from_parts(None, why, &[], &request(context)).hints().to_vec();
        assert_eq!(hints(context), ["`nope` is excluded by line 2 of `.dockerignore`: `n*`"]);
        assert_eq!(hints(Context::empty()), ["`nope` does not exist in the build context"]);
    }

    #[test]
    fn what_nobody_knows_is_the_dockerfile_or_the_build() {
        let kind = |number: usize| {
            let text = lines(&format!("Dockerfile:{number}\n-----\n"));
            from_parts(None, "strange words", &text, &request(Context::empty())).kind()
        };
        assert_eq!(kind(2), ErrorKind::InvalidDockerfile);
        assert_eq!(kind(3), ErrorKind::BuildFailed);
        assert_eq!(kind(9), ErrorKind::BuildFailed);
    }

    #[test]
    fn the_last_words_are_the_error() {
        assert_eq!(final_error(&lines("ERROR: first\nx\nERROR: last\nmore\n")), "ERROR: last\nmore");
        assert_eq!(final_error(&lines("unknown flag: --x\n\n")), "unknown flag: --x");
        assert_eq!(final_error(&[]), "");
    }
}

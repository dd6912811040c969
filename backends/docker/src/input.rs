//! How the context and the Dockerfile reach the builder. Nothing is copied on disk.
//!
//! A directory is given to buildx as it is: BuildKit reads its ignore file, and fetches only the
//! files that changed since the last build. Entries that exist only in memory, and directories that
//! appear in another place than on disk, cannot be reached that way; then the whole virtual tree goes as one tar stream into the standard input of buildx,
//! or into the body of the engine's build call. BuildKit applies no ignore file to such a stream,
//! so it holds what COPY may see and nothing else.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use windlass_core::Result;
use windlass_core::archive::{ArchiveSettings, Compression, MemberNames, pack_entries};
use windlass_core::backend::Job;
use windlass_core::context::{Context, ContextPath, Modes};
use windlass_core::digest::Digest;
use windlass_core::dockerfile::{Copy, Dockerfile, InstructionKind};
use windlass_core::request::BuildRequest;

/// What the builder is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Both as they are on disk.
    Directory { root: PathBuf, dockerfile: PathBuf },
    /// The directory as it is on disk; the Dockerfile through the standard input.
    DockerfileStream { root: PathBuf },
    /// One tar stream through the standard input.
    Archive(ArchiveInput),
}

/// What is special about the Dockerfile in a tar stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArchiveInput {
    /// Its name in the stream.
    pub(crate) dockerfile: ContextPath,
    /// COPY must not see it, and yet it has to be there.
    pub(crate) hidden: bool,
}

impl Input {
    /// Chooses the way that sends least.
    pub(crate) fn of(request: &BuildRequest) -> Self {
        let context = &request.context;
        match (context.root(), &request.dockerfile.path) {
            (Some(root), Some(dockerfile)) if is_as_on_disk(context) => {
                Self::Directory { root: root.to_owned(), dockerfile: dockerfile.clone() }
            }
            (Some(root), None) if is_as_on_disk(context) => Self::DockerfileStream { root: root.to_owned() },
            _ => Self::Archive(ArchiveInput::of(request)),
        }
    }

    /// Ends the command line: the Dockerfile and, last, the context.
    pub(crate) fn append_arguments(&self, arguments: &mut Vec<OsString>) {
        let (dockerfile, context) = match self {
            Self::Directory { root, dockerfile } => (not_an_option(dockerfile), not_an_option(root)),
            Self::DockerfileStream { root } => ("-".into(), not_an_option(root)),
            Self::Archive(archive) => (archive.dockerfile.as_path().as_os_str().to_owned(), "-".into()),
        };
        let mut file = OsString::from("--file=");
        file.push(dockerfile);
        arguments.extend([file, context]);
    }
}

/// BuildKit, when it reads the directory itself, sees what the context holds.
fn is_as_on_disk(context: &Context) -> bool {
    let settings = context.settings();
    let is_root_alone = context.in_memory().next().is_none() && context.mounts().is_empty();
    is_root_alone && settings.ignore && settings.modes == Modes::Keep
}

/// A path that begins with a dash would be read as an option, or as the standard input.
fn not_an_option(path: &Path) -> OsString {
    if path.as_os_str().as_encoded_bytes().starts_with(b"-") {
        Path::new(".").join(path).into_os_string()
    } else {
        path.as_os_str().to_owned()
    }
}

impl ArchiveInput {
    /// The Dockerfile has its own name where COPY may see it, else one that clashes with nothing.
    pub(crate) fn of(request: &BuildRequest) -> Self {
        match &request.dockerfile.in_context {
            Some(path) if is_visible(&request.context, path) => {
                Self { dockerfile: path.clone(), hidden: false }
            }
            _ => {
                let name =
                    format!(".windlass-{}.Dockerfile", Digest::of(&request.dockerfile.content).short());
                Self { dockerfile: ContextPath::from_clean(name), hidden: true }
            }
        }
    }

    /// Warns where the hidden Dockerfile would end up in the image after all: BuildKit has no way
    /// to keep something of a stream from COPY.
    pub(crate) fn warn(&self, request: &BuildRequest, job: &Job) {
        let source = &request.dockerfile;
        let Ok(dockerfile) = Dockerfile::parse(&source.content, &source.shown) else { return };
        let mut instructions = dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
        if self.hidden && instructions.any(|instruction| copies_root(&instruction.kind)) {
            job.events.warn(format!(
                "the image will hold `{}`: a COPY of the whole context includes the Dockerfile, which had to be \
                 sent with it",
                self.dockerfile
            ));
        }
    }

    /// Writes the stream. Blocking.
    ///
    /// # Errors
    /// `ContextUnreadable`, `Cancelled`; `LocalIo` if the builder stops reading.
    pub(crate) fn write(
        &self,
        request: &BuildRequest,
        settings: &ArchiveSettings,
        job: &Job,
        out: impl Write,
    ) -> Result<()> {
        let mut context = request.context.clone();
        if self.hidden {
            context.insert(self.dockerfile.clone(), request.dockerfile.content.clone(), 0o644);
        }
        // What was found out of the files before holds: one that changed since fails to be read.
        let entries = context.list_once(job)?;
        // Builders take compressed streams too, but they are next door: compressing costs more.
        let settings = ArchiveSettings { compression: Compression::None, ..*settings };
        pack_entries(&context, &entries, MemberNames::Plain, &settings, job, out).map(drop)
    }
}

fn is_visible(context: &Context, path: &ContextPath) -> bool {
    context.in_memory().any(|entry| entry.path == *path)
        || (context.on_disk(path).is_some_and(|file| file.exists())
            && !context.decision(path).is_some_and(|decision| decision.excluded))
}

/// A COPY or ADD of the context's root, or of a pattern that matches every name in it.
fn copies_root(instruction: &InstructionKind) -> bool {
    let (InstructionKind::Copy(Copy { from: None, sources, .. })
    | InstructionKind::Add(Copy { from: None, sources, .. })) = instruction
    else {
        return false;
    };
    sources.iter().any(|source| match ContextPath::clean(source.trim_start_matches('/')) {
        Some(path) => path.is_root() || path.as_bytes() == b"*" || path.as_bytes().starts_with(b"*/"),
        None => true,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use tempfile::TempDir;
    use windlass_core::context::{ContextSettings, IgnoreRules, Links};
    use windlass_core::request::DockerfileSource;

    use super::*;

    const DOCKERFILE: &str = "FROM scratch\nCOPY a /\n";

    fn directory(ignore: &str) -> TempDir {
        let directory = TempDir::new().expect("a directory");
        for (name, content) in [("a", "1"), ("b", "2"), ("Dockerfile", DOCKERFILE), (".dockerignore", ignore)]
        {
            std::fs::write(directory.path().join(name), content).expect("written");
        }
        directory
    }

    fn request(directory: &Path) -> BuildRequest {
        let path = directory.join("Dockerfile");
        let context =
            Context::from_dir(directory, Some(&path), &ContextSettings::default()).expect("a context");
        let dockerfile = DockerfileSource {
            shown: "Dockerfile".into(),
            path: Some(path),
            in_context: ContextPath::clean("Dockerfile"),
            content: DOCKERFILE.into(),
        };
        BuildRequest::new(context, dockerfile)
    }

    fn archive(input: &Input, request: &BuildRequest) -> BTreeMap<String, String> {
        let Input::Archive(input) = input else { panic!("{input:?}") };
        let mut bytes = Vec::new();
        input.write(request, &ArchiveSettings::default(), &Job::silent(), &mut bytes).expect("written");
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries = archive.entries().expect("a tar stream");
        entries
            .map(|entry| {
                let mut entry = entry.expect("an entry");
                let mut content = String::new();
                entry.read_to_string(&mut content).expect("text");
                (entry.path().expect("a path").display().to_string(), content)
            })
            .collect()
    }

    #[test]
    fn what_lies_on_disk_is_read_there() {
        let directory = directory("");
        let mut request = request(directory.path());
        let root = directory.path().to_owned();
        let dockerfile = root.join("Dockerfile");
        assert_eq!(Input::of(&request), Input::Directory { root: root.clone(), dockerfile });
        request.dockerfile.path = None;
        assert_eq!(Input::of(&request), Input::DockerfileStream { root });
    }

    #[test]
    fn entries_in_memory_make_it_a_stream_of_what_copy_sees() {
        let directory = directory("b\n");
        let mut request = request(directory.path());
        request.context.insert(ContextPath::from_clean("gen/x"), "new", 0o644);
        request.context.insert(ContextPath::from_clean("a"), "over", 0o644);
        let files = archive(&Input::of(&request), &request);
        let expected = [
            (".dockerignore", "b\n"),
            ("Dockerfile", DOCKERFILE),
            ("a", "over"),
            ("gen/", ""),
            ("gen/x", "new"),
        ];
        assert_eq!(files, expected.map(|(name, content)| (name.to_owned(), content.to_owned())).into());
    }

    #[test]
    fn directories_in_another_place_make_it_a_stream_too() {
        let (directory, mounted) = (directory("b\n"), tempfile::tempdir().expect("a directory"));
        std::fs::write(mounted.path().join("c"), "mounted").expect("written");
        let mut request = request(directory.path());
        let at = ContextPath::from_clean("src/c");
        request.context.mount(at, mounted.path(), IgnoreRules::default(), Links::Keep).expect("mounted");
        let files = archive(&Input::of(&request), &request);
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(names, [".dockerignore", "Dockerfile", "a", "src/", "src/c/", "src/c/c"]);
        assert_eq!(files["src/c/c"], "mounted");
    }

    #[test]
    fn an_excluded_dockerfile_goes_under_another_name() {
        let directory = directory("Dockerfile\n");
        let mut request = request(directory.path());
        request.context.insert(ContextPath::from_clean("x"), "new", 0o644);
        let input = Input::of(&request);
        let files = archive(&input, &request);
        assert!(!files.contains_key("Dockerfile"), "{files:?}");
        let mut arguments = Vec::new();
        input.append_arguments(&mut arguments);
        let name = arguments[0].to_str().and_then(|option| option.strip_prefix("--file=")).expect("--file");
        assert_eq!(files[name], DOCKERFILE);
        assert_eq!(arguments[1], "-");
    }

    #[test]
    fn copies_of_the_whole_context_are_recognised() {
        for (instruction, expected) in [
            ("COPY . /", true),
            ("COPY ./ /app/", true),
            ("ADD * /", true),
            ("COPY [\"a\", \"/\", \"/x/\"]", true),
            ("COPY a b /x/", false),
            ("COPY src/* /x/", false),
            ("COPY --from=b . /", false),
        ] {
            let text = format!("FROM scratch AS b\nFROM scratch\n{instruction}\n");
            let dockerfile = Dockerfile::parse(text.as_bytes(), Path::new("Dockerfile")).expect("valid");
            let copied = dockerfile.stages[1].instructions.iter().any(|i| copies_root(&i.kind));
            assert_eq!(copied, expected, "{instruction}");
        }
    }
}

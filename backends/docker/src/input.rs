//! How the context and the Dockerfile reach the builder. Nothing is copied on disk.
//!
//! A directory is given to buildx as it is: BuildKit reads its ignore file, and fetches only the
//! files that changed since the last build. Entries that exist only in memory cannot be reached
//! that way; then the whole virtual tree goes as one tar stream into the standard input of buildx,
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
    context.in_memory().next().is_none() && settings.ignore && settings.modes == Modes::Keep
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
        let entries = context.list(job)?;
        // Builders take compressed streams too, but they are next door: compressing costs more.
        let settings = ArchiveSettings { compression: Compression::None, ..*settings };
        pack_entries(&context, &entries, MemberNames::Plain, &settings, job, out).map(drop)
    }
}

fn is_visible(context: &Context, path: &ContextPath) -> bool {
    context.in_memory().any(|entry| entry.path == *path)
        || (context.root().is_some_and(|root| root.join(path.as_path()).exists())
            && !context.ignore().excluded(path))
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

//! `windlass context`: what a build would send, and why.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use windlass_core::archive::{ArchiveSettings, MemberNames, pack_entries};
use windlass_core::backend::Job;
use windlass_core::context::{self, Context, ContextPath, Entry, EntryKind};
use windlass_core::error::ResultExt;
use windlass_core::fingerprint::{StatCache, context_digest};
use windlass_core::output::is_stdout;
use windlass_core::{Error, ErrorKind, Result};

use crate::args::{CompressionName, ContextCommand, Format, HashArgs, ListArgs, PackArgs, SortBy, Tree};
use crate::exit_code::ExitCode;
use crate::output::{Output, Table, bytes, clean, refuse_terminal};
use crate::request::{check_context, tree};
use crate::session::{Program, Session};
use crate::settings::{compression_of, context_settings};
use crate::written_file::WrittenFile;

pub(super) async fn run(command: ContextCommand, program: &Program) -> Result<ExitCode> {
    let done = match command {
        ContextCommand::List(args) => list(&args, program).await,
        ContextCommand::Hash(args) => hash(&args, program).await,
        ContextCommand::Pack(args) => pack(&args, program).await,
        ContextCommand::Generate(args) => return super::generate::run(&args, program).await,
    };
    done.map(|()| ExitCode::Done)
}

/// The tree that is meant. A directory without a Dockerfile has one too.
async fn open(args: &Tree, session: &Session<'_>) -> Result<Context> {
    let directory = session.program.surroundings.current_dir.join(&args.context);
    if args.file.is_some() || directory.join("Dockerfile").exists() {
        return tree(&args.context, args.file.as_deref(), session).await.map(|(context, _)| context);
    }
    check_context(&args.context, None)?;
    Context::from_dir(&directory, None, &context_settings(&session.settings.context))
}

/// What would be sent; warns about what the user should know of it.
async fn entries(context: &Context, job: &Job) -> Result<Vec<Entry>> {
    let context = context.clone();
    job.blocking(move |job| {
        let entries = context.list_to_send(job)?;
        context::warnings(&context, &entries, job)?;
        Ok(entries)
    })
    .await
}

#[derive(Serialize)]
struct Listing<'a> {
    context: &'a Path,
    files: usize,
    size_bytes: u64,
    entries: Vec<ListedEntry>,
}

#[derive(Serialize)]
struct ListedEntry {
    path: String,
    kind: &'static str,
    mode: String,
    size_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

impl ListedEntry {
    fn of(entry: &Entry) -> Self {
        let (kind, target) = match &entry.kind {
            EntryKind::Directory => ("directory", None),
            EntryKind::File { .. } => ("file", None),
            EntryKind::Symlink { target } => ("symlink", Some(String::from_utf8_lossy(target).into_owned())),
        };
        let (path, mode) = (entry.path.to_string(), format!("{:04o}", entry.mode));
        Self { path, kind, mode, size_bytes: entry.size_bytes(), target }
    }
}

async fn list(args: &ListArgs, program: &Program) -> Result<()> {
    let session = program.session(Some(&args.tree.context))?;
    let context = open(&args.tree, &session).await?;
    if let Some(path) = &args.why {
        return why(&context, path, &session);
    }
    let mut entries = session.work(None, async |job| entries(&context, job).await).await?;
    if args.sort == SortBy::Size {
        entries.sort_by(|a, b| b.size_bytes().cmp(&a.size_bytes()).then_with(|| a.path.cmp(&b.path)));
    }
    let files = entries.iter().filter(|entry| entry.is_file()).count();
    let size_bytes = entries.iter().map(Entry::size_bytes).sum();
    match session.output.format {
        // A program may want the exact bytes of names.
        Format::Paths => {
            let paths = entries.iter().flat_map(|entry| [entry.path.as_bytes(), b"\n"].concat());
            session.output.result_bytes(&paths.collect::<Vec<u8>>())
        }
        Format::Json => session.output.json(&Listing {
            context: &args.tree.context,
            files,
            size_bytes,
            entries: entries.iter().map(ListedEntry::of).collect(),
        }),
        Format::Text => {
            let mut table = Table::new(["MODE", "SIZE", "PATH"]).align_right(1);
            for entry in &entries {
                table.row(row(entry));
            }
            session.output.result(&table.render())?;
            session.output.note(&format!("{}, {}", count(files as u64), bytes(size_bytes)));
            Ok(())
        }
    }
}

fn count(files: u64) -> String {
    if files == 1 { "1 file".to_owned() } else { format!("{files} files") }
}

fn row(entry: &Entry) -> [String; 3] {
    // One entry is one line, whatever its name.
    let path = clean(&entry.path.to_string()).replace('\n', "\\n");
    let (size, path) = match &entry.kind {
        EntryKind::Directory => (String::new(), format!("{path}/")),
        EntryKind::File { size_bytes } => (bytes(*size_bytes), path),
        EntryKind::Symlink { target } => {
            (String::new(), format!("{path} -> {}", clean(&String::from_utf8_lossy(target))))
        }
    };
    [format!("{:04o}", entry.mode), size, path]
}

/// Whether a path is sent, and what decided.
#[derive(Serialize)]
struct Why {
    path: String,
    exists: bool,
    sent: bool,
    /// Sent because a builder elsewhere needs it, yet COPY does not see it.
    only_for_the_builder: bool,
    reason: String,
    file: Option<PathBuf>,
    line: Option<usize>,
    pattern: Option<String>,
}

fn why(context: &Context, typed: &Path, session: &Session<'_>) -> Result<()> {
    let path = place(context, typed, session)?;
    let on_disk = context.on_disk(&path);
    let exists = on_disk.is_some_and(|path| path.symlink_metadata().is_ok());
    let decision = context.decision(&path);
    let excluded = decision.as_ref().is_some_and(|decision| decision.excluded);
    let only_for_the_builder = excluded && context.always_sent().contains(&path);
    let reason = match &decision {
        None if context.ignore().is_empty() => "there is no ignore file that excludes anything".to_owned(),
        None => format!("no line of `{}` is about it", context.ignore().file().display()),
        Some(decision) => {
            let verb = if decision.excluded { "excludes" } else { "includes" };
            format!("{}:{} {verb} it: `{}`", decision.file.display(), decision.line, decision.pattern)
        }
    };
    let why = Why {
        path: path.to_string(),
        exists,
        sent: exists && (!excluded || only_for_the_builder),
        only_for_the_builder,
        reason,
        file: decision.as_ref().map(|decision| decision.file.clone()),
        line: decision.as_ref().map(|decision| decision.line),
        pattern: decision.map(|decision| decision.pattern),
    };
    match session.output.format {
        Format::Json => session.output.json(&why),
        Format::Text | Format::Paths => session.output.result(&explain(&why)),
    }
}

fn explain(why: &Why) -> String {
    let verdict = match why {
        Why { exists: false, .. } => "does not exist",
        Why { only_for_the_builder: true, .. } => {
            "is sent because the builder needs it, but COPY does not see it"
        }
        Why { sent: true, .. } => "is sent",
        Why { sent: false, .. } => "is not sent",
    };
    format!("`{}` {verdict}: {}\n", clean(&why.path), clean(&why.reason))
}

/// The path in the context: as typed from there, else from the current directory.
fn place(context: &Context, typed: &Path, session: &Session<'_>) -> Result<ContextPath> {
    use std::os::unix::ffi::OsStrExt;

    let from_here = session.program.surroundings.current_dir.join(typed);
    let below_root = |path: &ContextPath| {
        context.root().is_some_and(|root| root.join(path.as_path()).symlink_metadata().is_ok())
    };
    let relative = if typed.is_absolute() { None } else { ContextPath::clean(typed.as_os_str().as_bytes()) };
    let known = relative.clone().filter(below_root);
    known.or_else(|| context.place_of(&from_here).filter(below_root)).or(relative).ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, format!("`{}` lies outside the context", typed.display()))
    })
}

async fn hash(args: &HashArgs, program: &Program) -> Result<()> {
    let session = program.session(Some(&args.tree.context))?;
    session.output.refuse_paths()?;
    let context = open(&args.tree, &session).await?;
    let cache_dir = session.host.cache_dir.clone();
    let digest = session
        .work(None, async |job| {
            // Nothing is sent, so there is nothing to warn about.
            job.blocking(move |job| {
                let entries = context.list_to_send(job)?;
                context_digest(&context, &entries, &StatCache::open(&cache_dir), job)
            })
            .await
        })
        .await?;
    match session.output.format {
        Format::Json => {
            session.output.json(&serde_json::json!({ "context": args.tree.context, "digest": digest }))
        }
        Format::Text | Format::Paths => session.output.result(&format!("{digest}\n")),
    }
}

async fn pack(args: &PackArgs, program: &Program) -> Result<()> {
    let session = program.session(Some(&args.tree.context))?;
    session.output.refuse_paths()?;
    let to_stdout = is_stdout(&args.output);
    if to_stdout {
        refuse_terminal("an archive")?;
        refuse_json(&session.output)?;
    }
    let context = open(&args.tree, &session).await?;
    let settings = ArchiveSettings { compression: compression(args, &session)?, ..session.host.archive };
    let output = session.program.surroundings.current_dir.join(&args.output);
    let summary = session
        .work(None, async |job| {
            let mut entries = entries(&context, job).await?;
            // An archive of an earlier run is not part of what is packed.
            if let Some(own) = context.place_of(&output) {
                entries.retain(|entry| entry.path != own);
            }
            job.blocking(move |job| {
                let pack = |out: &mut dyn Write| {
                    pack_entries(&context, &entries, MemberNames::Plain, &settings, job, out)
                };
                if to_stdout {
                    return pack(&mut std::io::stdout().lock());
                }
                let mut file = WrittenFile::create(&output)?;
                let mut buffered = BufWriter::with_capacity(256 << 10, file.writer());
                let summary = pack(&mut buffered).map_err(|error| match error.kind() {
                    ErrorKind::LocalIo => error.with_detail("file", output.display().to_string()),
                    _ => error,
                })?;
                buffered
                    .flush()
                    .or_error(ErrorKind::LocalIo, || format!("could not write `{}`", output.display()))?;
                drop(buffered);
                job.check()?;
                file.keep()?;
                Ok(summary)
            })
            .await
        })
        .await?;
    let (content, packed) = (bytes(summary.content_bytes), bytes(summary.packed_bytes));
    session.output.note(&format!("{}, {content} in {packed}", count(summary.files)));
    match session.output.format {
        Format::Json => session.output.json(&serde_json::json!({
            "written": args.output,
            "files": summary.files,
            "members": summary.members,
            "content_bytes": summary.content_bytes,
            "packed_bytes": summary.packed_bytes,
        })),
        _ if to_stdout => Ok(()),
        _ => session.output.result(&format!("{}\n", args.output.display())),
    }
}

/// stdout has room for one result.
pub(super) fn refuse_json(output: &Output) -> Result<()> {
    match output.format {
        Format::Json => {
            Err(Error::new(ErrorKind::InvalidInput, "stdout cannot take both an archive and `--format json`")
                .with_hint("name a file for the archive"))
        }
        Format::Text | Format::Paths => Ok(()),
    }
}

fn compression(args: &PackArgs, session: &Session<'_>) -> Result<windlass_core::archive::Compression> {
    let section = &session.settings.compression;
    let name = match args.compression {
        Some(CompressionName::Gzip) => "gzip",
        Some(CompressionName::Zstd) => "zstd",
        Some(CompressionName::None) => "none",
        None => &section.format,
    };
    // A level of the settings belongs to the format of the settings.
    match args.level {
        None if name == section.format => Ok(session.host.archive.compression),
        level => compression_of(name, level),
    }
}

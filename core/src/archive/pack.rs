//! The build context as one archive.

use std::io::{self, Write};

use serde::Serialize;

use super::{ArchiveSettings, Compressor, Member, TarEntry, TarKind, TarWriter};
use crate::Result;
use crate::backend::Job;
use crate::context::{Context, Entry, EntryKind};
use crate::events::Unit;

/// What [`pack`] wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PackSummary {
    /// Regular files.
    pub files: u64,
    /// All members: files, directories, links.
    pub members: u64,
    /// Size of the files together.
    pub content_bytes: u64,
    /// Size of the archive, compressed.
    pub packed_bytes: u64,
}

/// How the members of an archive are called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemberNames {
    /// `src/main.rs`
    #[default]
    Plain,
    /// `./src/main.rs`
    DotSlash,
}

/// Writes what [`Context::list_to_send`] gives as one archive.
///
/// Members are sorted by path, belong to 0:0, and have the permission bits of their entries;
/// directories are members of their own. The bytes depend on the entries and the settings alone.
/// Blocking; compresses on all cores.
///
/// # Errors
/// `ContextUnreadable` if a file vanishes or changes while it is read, naming it; `Cancelled`;
/// `LocalIo` if writing fails. What has been written then is no archive.
pub fn pack(
    context: &Context,
    settings: &ArchiveSettings,
    job: &Job,
    out: impl Write,
) -> Result<PackSummary> {
    let entries = context.list_to_send(job)?;
    pack_entries(context, &entries, MemberNames::Plain, settings, job, out)
}

/// Writes chosen entries of a context as one archive; otherwise as [`pack`].
///
/// # Errors
/// As [`pack`].
pub fn pack_entries(
    context: &Context,
    entries: &[Entry],
    names: MemberNames,
    settings: &ArchiveSettings,
    job: &Job,
    out: impl Write,
) -> Result<PackSummary> {
    let step = job.events.step("packing the build context");
    let total: u64 = entries.iter().map(Entry::size_bytes).sum();
    let result = write(context, entries, names, settings, job, out, |current| {
        step.progress(current.min(total), Some(total), Unit::Bytes);
    });
    let packed_bytes = step.end(result)?;
    Ok(PackSummary {
        files: entries.iter().filter(|entry| entry.is_file()).count() as u64,
        members: entries.len() as u64,
        content_bytes: total,
        packed_bytes,
    })
}

fn write(
    context: &Context,
    entries: &[Entry],
    names: MemberNames,
    settings: &ArchiveSettings,
    job: &Job,
    out: impl Write,
    progress: impl FnMut(u64),
) -> Result<u64> {
    let out = Counter { inner: out, written: 0 };
    let compressor = Compressor::new(out, settings.compression).map_err(super::write_error)?;
    let mut tar = TarWriter::new(compressor);
    let member = |entry| Member {
        header: tar_entry(entry, names, settings),
        content: Some((context, entry)).filter(|(_, entry)| entry.is_file()),
    };
    super::write_tree(entries, member, &mut tar, job, progress)?;
    let mut out = tar.finish().and_then(Compressor::finish).map_err(super::write_error)?;
    out.flush().map_err(super::write_error)?;
    Ok(out.written)
}

fn tar_entry(entry: &Entry, names: MemberNames, settings: &ArchiveSettings) -> TarEntry {
    let path = match names {
        MemberNames::Plain => entry.path.as_bytes().to_vec(),
        MemberNames::DotSlash => [b"./", entry.path.as_bytes()].concat(),
    };
    let kind = match &entry.kind {
        EntryKind::Directory => TarKind::Directory,
        EntryKind::File { size_bytes } => TarKind::File { size_bytes: *size_bytes },
        EntryKind::Symlink { target } => TarKind::Symlink { target: target.clone() },
    };
    TarEntry { mtime: settings.mtime(entry.mtime), ..TarEntry::new(path, kind, entry.mode) }
}

struct Counter<W> {
    inner: W,
    written: u64,
}

impl<W: Write> Write for Counter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

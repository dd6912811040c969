//! The build context as one archive.

use std::collections::HashMap;
use std::io::{self, Write};

use serde::Serialize;

use super::{ArchiveSettings, Compressor, Member, TarEntry, TarKind, TarWriter};
use crate::Result;
use crate::backend::Job;
use crate::context::{Context, Entry, EntryKind, EntrySource};
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
/// directories are members of their own. Files that are one file on disk are one in the archive: all but
/// the first are hard links. The bytes depend on the entries and the settings alone.
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
    let firsts = first_names(entries);
    let member = |entry| {
        let first = first_name(entry, entries, &firsts);
        Member {
            header: tar_entry(entry, first, names, settings),
            content: Some((context, entry)).filter(|(_, entry)| entry.is_file() && first.is_none()),
            hash: None,
        }
    };
    super::write_tree(entries, member, &mut tar, job, progress)?;
    let mut out = tar.finish().and_then(Compressor::finish).map_err(super::write_error)?;
    out.flush().map_err(super::write_error)?;
    Ok(out.written)
}

/// Where in the list each file on disk comes first, by its number there.
fn first_names(entries: &[Entry]) -> HashMap<u64, u32> {
    let mut firsts = HashMap::new();
    for (place, entry) in (0..).zip(entries) {
        if let (EntryKind::File { .. }, EntrySource::Disk(state)) = (&entry.kind, &entry.source) {
            firsts.entry(state.inode).or_insert(place);
        }
    }
    firsts
}

/// The entry whose further name this one is.
fn first_name<'a>(entry: &Entry, entries: &'a [Entry], firsts: &HashMap<u64, u32>) -> Option<&'a Entry> {
    let (EntryKind::File { .. }, EntrySource::Disk(state)) = (&entry.kind, &entry.source) else {
        return None;
    };
    let first = entries.get(*firsts.get(&state.inode)? as usize)?;
    let EntrySource::Disk(other) = &first.source else { return None };
    // All of the state counts: some network file systems give two files one number.
    (first.path != entry.path && other == state).then_some(first)
}

fn tar_entry(
    entry: &Entry,
    first: Option<&Entry>,
    names: MemberNames,
    settings: &ArchiveSettings,
) -> TarEntry {
    let name = |entry: &Entry| match names {
        MemberNames::Plain => entry.path.as_bytes().to_vec(),
        MemberNames::DotSlash => [b"./", entry.path.as_bytes()].concat(),
    };
    let kind = match (first, &entry.kind) {
        (Some(first), _) => TarKind::HardLink { target: name(first) },
        (None, EntryKind::Directory) => TarKind::Directory,
        (None, EntryKind::File { size_bytes }) => TarKind::File { size_bytes: *size_bytes },
        (None, EntryKind::Symlink { target }) => TarKind::Symlink { target: target.clone() },
    };
    TarEntry { mtime: settings.mtime(entry.mtime), ..TarEntry::new(name(entry), kind, entry.mode) }
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::ErrorKind;
    use crate::archive::unpack::TarReader;
    use crate::archive::{Compression, Timestamps, decompress};
    use crate::context::{ContextPath, ContextSettings};
    use crate::digest::Digest;

    fn settings(compression: Compression) -> ArchiveSettings {
        ArchiveSettings { compression, ..ArchiveSettings::default() }
    }

    fn sample() -> (tempfile::TempDir, Context) {
        let directory = tempfile::tempdir().expect("temporary directory");
        let root = directory.path();
        fs::create_dir_all(root.join("src/empty")).expect("created");
        for (path, content) in
            [("src/main.rs", "fn main() {}\n"), ("run.sh", "#!/bin/sh\n"), (".dockerignore", "*.log\n")]
        {
            fs::write(root.join(path), content).expect("written");
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(0o644)).expect("set");
        }
        fs::write(root.join("debug.log"), "x").expect("written");
        fs::set_permissions(root.join("run.sh"), fs::Permissions::from_mode(0o755)).expect("set");
        for directory in ["src", "src/empty"] {
            fs::set_permissions(root.join(directory), fs::Permissions::from_mode(0o755)).expect("set");
        }
        symlink("../run.sh", root.join("src/link")).expect("linked");
        let context = Context::from_dir(root, None, &ContextSettings::default()).expect("a context");
        (directory, context)
    }

    fn pack_to_vec(context: &Context, settings: &ArchiveSettings) -> Vec<u8> {
        let mut packed = Vec::new();
        let summary = pack(context, settings, &Job::silent(), &mut packed).expect("packed");
        assert_eq!(summary.packed_bytes, packed.len() as u64);
        packed
    }

    #[test]
    fn the_bytes_never_change() {
        let (_directory, context) = sample();
        let packed = pack_to_vec(&context, &settings(Compression::None));
        assert_eq!(
            Digest::of(&packed).hex(),
            "574941ac8b85e724cee63389854fdc629145fa95fc42e9975577817ed83118c4"
        );
        let again = pack_to_vec(&context, &settings(Compression::None));
        assert!(packed == again);
    }

    #[test]
    fn members_are_sorted_and_belong_to_the_super_user() {
        let (_directory, context) = sample();
        let packed = pack_to_vec(&context, &settings(Compression::gzip()));
        let mut reader = TarReader::new(decompress(packed.as_slice()).expect("intact"));
        let mut names = Vec::new();
        while let Some(member) = reader.next_member().expect("intact") {
            let entry = &member.entry;
            assert_eq!((entry.uid, entry.gid, entry.mtime), (0, 0, super::super::DEFAULT_EPOCH));
            names.push((String::from_utf8_lossy(&entry.path).into_owned(), entry.mode));
        }
        let expected = [
            (".dockerignore", 0o644),
            ("run.sh", 0o755),
            ("src", 0o755),
            ("src/empty", 0o755),
            ("src/link", 0o777),
            ("src/main.rs", 0o644),
        ];
        assert_eq!(names, expected.map(|(name, mode)| (name.to_owned(), mode)));
    }

    #[test]
    fn times_are_kept_on_request() {
        let (directory, context) = sample();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_234_567_890_900);
        let file = fs::File::options().write(true).open(directory.path().join("run.sh")).expect("opened");
        file.set_modified(time).expect("set");
        for (timestamps, epoch, expected) in [
            (Timestamps::Keep, None, 1_234_567_890),
            (Timestamps::Fixed, Some(5), 5),
            (Timestamps::Fixed, None, 315_532_800),
        ] {
            let settings =
                ArchiveSettings { timestamps, source_date_epoch: epoch, ..settings(Compression::None) };
            let packed = pack_to_vec(&context, &settings);
            let mut reader = TarReader::new(packed.as_slice());
            reader.next_member().expect("intact");
            let member = reader.next_member().expect("intact").expect("run.sh");
            assert_eq!(member.entry.mtime, expected);
        }
    }

    #[test]
    fn one_file_on_disk_is_one_in_the_archive() {
        let (directory, context) = sample();
        fs::hard_link(directory.path().join("run.sh"), directory.path().join("src/run")).expect("linked");
        let entries = context.list(&Job::silent()).expect("listed");
        for (names, target) in [(MemberNames::Plain, "run.sh"), (MemberNames::DotSlash, "./run.sh")] {
            let mut packed = Vec::new();
            let settings = settings(Compression::None);
            pack_entries(&context, &entries, names, &settings, &Job::silent(), &mut packed).expect("packed");
            // As written, which our own reader cleans.
            let mut links = tar::Archive::new(packed.as_slice());
            let links = links.entries().expect("a tar").map(|entry| {
                let entry = entry.expect("intact");
                entry
                    .link_name_bytes()
                    .filter(|_| entry.header().entry_type().is_hard_link())
                    .map(|n| n.to_vec())
            });
            assert_eq!(links.flatten().collect::<Vec<_>>(), [target.as_bytes()]);
        }
    }

    #[test]
    fn names_may_start_with_a_dot() {
        let (_directory, context) = sample();
        let entries = context.list(&Job::silent()).expect("listed");
        let mut packed = Vec::new();
        let settings = settings(Compression::None);
        pack_entries(&context, &entries, MemberNames::DotSlash, &settings, &Job::silent(), &mut packed)
            .expect("packed");
        assert!(packed.starts_with(b"./.dockerignore\0"));
    }

    /// Small files, files beyond what is read ahead, and a change of each after they were listed.
    #[test]
    fn a_file_that_changes_fails_the_archive_and_is_named() {
        let directory = tempfile::tempdir().expect("temporary directory");
        for index in 0..300 {
            fs::write(directory.path().join(format!("small{index}")), "small").expect("written");
        }
        fs::write(directory.path().join("large"), vec![1; 3 << 20]).expect("written");
        let context =
            Context::from_dir(directory.path(), None, &ContextSettings::default()).expect("a context");
        for name in ["small7", "large"] {
            let path = directory.path().join(name);
            let content = fs::read(&path).expect("read");
            for change in ["shorter", "longer", "same size", "gone", "now a link"] {
                let entries = context.list(&Job::silent()).expect("listed");
                match change {
                    "shorter" => fs::write(&path, &content[1..]).expect("written"),
                    "longer" => fs::write(&path, [&content[..], b"x"].concat()).expect("written"),
                    "same size" => {
                        let file = fs::File::options().write(true).open(&path).expect("opened");
                        file.set_modified(std::time::UNIX_EPOCH).expect("set");
                    }
                    "gone" => fs::remove_file(&path).expect("removed"),
                    _ => {
                        fs::remove_file(&path).expect("removed");
                        symlink("small0", &path).expect("linked");
                    }
                }
                let settings = settings(Compression::gzip());
                let error = pack_entries(
                    &context,
                    &entries,
                    MemberNames::Plain,
                    &settings,
                    &Job::silent(),
                    io::sink(),
                )
                .expect_err(change);
                assert_eq!(error.kind(), ErrorKind::ContextUnreadable, "{name} {change}");
                assert!(error.message().contains(name), "{name} {change}: {error}");
                fs::remove_file(&path).ok();
                fs::write(&path, &content).expect("written");
            }
        }
    }

    #[test]
    fn a_failing_writer_and_a_stop_end_the_archive() {
        let mut context = Context::empty();
        for index in 0..2000 {
            context.insert(ContextPath::from_clean(format!("f{index}")), vec![index as u8; 5000], 0o644);
        }
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let settings = settings(Compression::None);
        let error = pack(&context, &settings, &Job::silent(), Full).expect_err("full");
        assert_eq!(error.kind(), ErrorKind::LocalIo);
        let job = Job::silent();
        job.cancel.cancel();
        let error = pack(&context, &settings, &job, io::sink()).expect_err("stopped");
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }
}

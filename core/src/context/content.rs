//! Reading the content of entries, with an eye on changes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::OFlags;

use super::{ContextPath, DiskState, Entry, EntrySource, Links};
use crate::error::{Error, ErrorKind};

/// The content of one file of a context.
///
/// Reading fails if the file is not what it was when it was listed: content that changes while
/// it is read must not end up in an image. The last check is made by the read that meets the end.
#[derive(Debug)]
pub struct Content {
    source: Source,
    path: ContextPath,
}

#[derive(Debug)]
enum Source {
    Memory(Bytes),
    Disk { file: File, left: u64, listed: DiskState, checked: bool },
}

impl Content {
    /// Opens an entry; `file` is where the disk has it.
    pub(super) fn open(
        entry: &Entry,
        file: impl FnOnce() -> Option<PathBuf>,
        links: Links,
    ) -> Result<Self, Error> {
        let path = entry.path.clone();
        let source = match &entry.source {
            EntrySource::Memory(bytes) => Source::Memory(bytes.clone()),
            EntrySource::Disk(listed) => {
                let opened = file().ok_or_else(|| io::ErrorKind::NotFound.into());
                let file = opened
                    .and_then(|file| open_file(&file, links))
                    .map_err(|error| unreadable(&entry.path, error))?;
                Source::Disk { file, left: listed.size_bytes, listed: *listed, checked: false }
            }
        };
        Ok(Self { source, path })
    }

    /// Fails if the file is no longer what it was when it was listed: for those who do not read to the end.
    ///
    /// # Errors
    /// `ContextUnreadable`, naming the path.
    pub fn check_unchanged(&self) -> Result<(), Error> {
        let Source::Disk { file, listed, .. } = &self.source else { return Ok(()) };
        let now = file.metadata().map_err(|error| unreadable(&self.path, error))?;
        if same_content(&DiskState::of(&now), listed) { Ok(()) } else { Err(changed(&self.path)) }
    }

    /// Appends the whole content to a buffer.
    ///
    /// # Errors
    /// `ContextUnreadable`, naming the path.
    pub fn append_to(mut self, buffer: &mut Vec<u8>) -> Result<(), Error> {
        let size = match &self.source {
            Source::Memory(bytes) => bytes.len(),
            Source::Disk { left, .. } => usize::try_from(*left).unwrap_or(usize::MAX),
        };
        let start = buffer.len();
        // One byte more, for the read that meets the end.
        buffer.resize(start + size + 1, 0);
        let mut filled = start;
        loop {
            match self.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_error(&self.path, error)),
            }
        }
        buffer.truncate(filled);
        Ok(())
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        match &mut self.source {
            Source::Memory(bytes) => {
                let read = bytes.len().min(buffer.len());
                buffer[..read].copy_from_slice(&bytes.split_to(read));
                Ok(read)
            }
            Source::Disk { checked: true, .. } => Ok(0),
            Source::Disk { file, left, listed, checked } => {
                let read = match file.read(buffer) {
                    Ok(read) => read as u64,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                    Err(error) => return Err(io::Error::other(unreadable(&self.path, error))),
                };
                if read > *left || (read == 0 && *left > 0) {
                    return Err(io::Error::other(changed(&self.path)));
                }
                *left -= read;
                // A read that was not filled met the end as well: that saves small files a call.
                if *left == 0 && (read as usize) < buffer.len() {
                    let now = file.metadata().map(|metadata| DiskState::of(&metadata));
                    if !now.is_ok_and(|now| same_content(&now, listed)) {
                        return Err(io::Error::other(changed(&self.path)));
                    }
                    *checked = true;
                }
                Ok(read as usize)
            }
        }
    }
}

/// The change time is left out: making a hard link or renaming changes it, and not the content.
fn same_content(now: &DiskState, listed: &DiskState) -> bool {
    let key = |state: &DiskState| (state.size_bytes, state.mtime_ns, state.inode, state.device);
    key(now) == key(listed)
}

/// Opens a file, and what a link points to only where links are followed. Does not wait if it has become
/// a FIFO.
fn open_file(path: &Path, links: Links) -> io::Result<File> {
    let flags = match links {
        Links::Keep => OFlags::NOFOLLOW | OFlags::NONBLOCK,
        Links::Follow => OFlags::NONBLOCK,
    };
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

/// The error for an entry that cannot be read at all.
pub(super) fn unreadable(path: &ContextPath, source: io::Error) -> Error {
    let shown = if path.is_root() { ".".to_owned() } else { path.to_string() };
    let error =
        Error::new(ErrorKind::ContextUnreadable, format!("could not read `{shown}` of the build context"));
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            error.with_hint("it vanished during the build: build again when nothing changes the context")
        }
        io::ErrorKind::PermissionDenied => error.with_hint(format!(
            "make it readable, or add `{shown}` to the `.dockerignore` file if the image does not need it"
        )),
        _ => error
            .with_hint(format!("add `{shown}` to the `.dockerignore` file if the image does not need it")),
    }
    .with_source(source)
}

fn changed(path: &ContextPath) -> Error {
    Error::new(
        ErrorKind::ContextUnreadable,
        format!("`{path}` of the build context changed while it was read"),
    )
    .with_hint("build again when nothing writes to it, or add it to the `.dockerignore` file")
}

/// Gives back the error that a [`Content`] put into an I/O error, or makes one for the path.
pub(crate) fn read_error(path: &ContextPath, error: io::Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(|error| unreadable(path, error))
}

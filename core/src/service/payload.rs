//! The content of an upload, as often as it is needed: it is made while it is sent, never held.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use base64::engine::general_purpose::STANDARD;
use base64::write::EncoderWriter;

use crate::archive::{ArchiveSettings, Compression, Compressor, MemberNames, pack_entries, recover};
use crate::backend::Job;
use crate::context::{Context, Entry};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::image::{ArchiveForm, NamedImage, write_archive};
use crate::reference::Reference;
use crate::remote::{ImageUpload, UploadSource};

/// What encoders hand on in small pieces is collected to so much.
const BUFFER_BYTES: usize = 64 * 1024;

/// How bytes stand in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// As they are.
    Raw,
    /// As base64 text: the standard alphabet, padded, without line breaks.
    Base64,
}

/// Something that can be written out, as often as it is needed. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Payload(Content);

#[derive(Clone, Debug)]
enum Content {
    /// A build context: a gzip-compressed tar.
    Context { context: Context, entries: Arc<Vec<Entry>>, settings: ArchiveSettings, transfer: Transfer },
    /// A finished image: a gzip-compressed archive for `docker load`.
    Image { image: Arc<ImageUpload>, compression: Compression },
    /// One of the others, written into a file before.
    Spooled(Arc<File>, u64),
}

impl Payload {
    /// A build context as a gzip-compressed tar of these entries, whose bytes depend on nothing else.
    pub fn context(
        context: Context,
        entries: Vec<Entry>,
        settings: ArchiveSettings,
        transfer: Transfer,
    ) -> Self {
        let settings = ArchiveSettings { compression: gzip(settings.compression), ..settings };
        Self(Content::Context { context, entries: Arc::new(entries), settings, transfer })
    }

    /// A finished image as the bytes of a gzip-compressed archive for `docker load`.
    pub fn image(image: ImageUpload, compression: Compression) -> Self {
        Self(Content::Image { image: Arc::new(image), compression: gzip(compression) })
    }

    /// Its size, where that is known before it is written: when it was spooled.
    pub fn size_bytes(&self) -> Option<u64> {
        match self.0 {
            Content::Spooled(_, size_bytes) => Some(size_bytes),
            _ => None,
        }
    }

    /// Writes the content out. Blocking.
    ///
    /// # Errors
    /// `ContextUnreadable` if a file changes meanwhile; `LocalIo` if writing fails; `Cancelled`.
    pub fn write(&self, out: &mut (impl Write + Send), job: &Job) -> Result<()> {
        let failed = || "could not write what is sent";
        match &self.0 {
            Content::Context { context, entries, settings, transfer } => {
                let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
                match transfer {
                    Transfer::Raw => {
                        pack_entries(context, entries, MemberNames::Plain, settings, job, &mut out)?;
                        out.flush().or_error(ErrorKind::LocalIo, failed)
                    }
                    Transfer::Base64 => {
                        let mut encoder = EncoderWriter::new(out, &STANDARD);
                        pack_entries(context, entries, MemberNames::Plain, settings, job, &mut encoder)?;
                        encoder.finish().and_then(|mut out| out.flush()).or_error(ErrorKind::LocalIo, failed)
                    }
                }
            }
            Content::Image { image, compression } => write_image(image, *compression, out, job),
            Content::Spooled(file, size_bytes) => copy(file, *size_bytes, out, job),
        }
    }

    /// Writes the content into a file that has no name and goes with the last that holds it.
    ///
    /// # Errors
    /// As [`Payload::write`].
    pub fn spool(&self, directory: &Path, job: &Job) -> Result<Self> {
        let failed = || format!("could not write a temporary file in `{}`", directory.display());
        let make = || {
            std::fs::create_dir_all(directory)?;
            tempfile::tempfile_in(directory)
        };
        let file = make().or_error(ErrorKind::LocalIo, failed)?;
        self.write(&mut &file, job)?;
        let size_bytes = file.metadata().or_error(ErrorKind::LocalIo, failed)?.len();
        Ok(Self(Content::Spooled(Arc::new(file), size_bytes)))
    }
}

/// Nothing but gzip is in the protocol; a chosen level of it counts.
fn gzip(compression: Compression) -> Compression {
    match compression {
        Compression::Gzip { .. } => compression,
        Compression::None | Compression::Zstd { .. } => Compression::gzip(),
    }
}

fn write_image(
    image: &ImageUpload,
    compression: Compression,
    out: &mut (impl Write + Send),
    job: &Job,
) -> Result<()> {
    let failed = || "could not write the image that is sent";
    let out = BufWriter::with_capacity(BUFFER_BYTES, out);
    let mut compressor = Compressor::new(out, compression).or_error(ErrorKind::LocalIo, failed)?;
    match &image.source {
        UploadSource::Store(store, descriptor) => {
            let references: Vec<Reference> = image.names.clone();
            let named = NamedImage { image: descriptor.as_ref().clone(), references };
            write_archive(store, &[named], ArchiveForm::Docker, &mut compressor, job)?;
        }
        UploadSource::Archive(path) => {
            let unreadable = || format!("could not read `{}`", path.display());
            let file = File::open(path).or_error(ErrorKind::LocalIo, unreadable)?;
            let size_bytes = file.metadata().or_error(ErrorKind::LocalIo, unreadable)?.len();
            copy(&file, size_bytes, &mut compressor, job)?;
        }
    }
    let finished = compressor.finish().and_then(|mut out| out.flush());
    finished
        .map_err(|error| recover(error, |error| Error::new(ErrorKind::LocalIo, failed()).with_source(error)))
}

fn copy(file: &File, size_bytes: u64, out: &mut impl Write, job: &Job) -> Result<()> {
    let failed = || "could not read what is sent from its file";
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut at = 0;
    while at < size_bytes {
        job.check()?;
        let read = file.read_at(&mut buffer, at).or_error(ErrorKind::LocalIo, failed)?;
        if read == 0 {
            let error = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(error).or_error(ErrorKind::LocalIo, failed);
        }
        out.write_all(&buffer[..read]).or_error(ErrorKind::LocalIo, failed)?;
        at += read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use base64::Engine;

    use super::*;
    use crate::archive::decompress;
    use crate::context::ContextPath;

    fn payload(content: Vec<u8>) -> Payload {
        let mut context = Context::empty();
        context.insert(ContextPath::from_clean("file"), content, 0o644);
        let entries = context.list(&Job::silent()).expect("listed");
        Payload::context(context, entries, ArchiveSettings::default(), Transfer::Base64)
    }

    fn written(payload: &Payload) -> Vec<u8> {
        let mut out = Vec::new();
        payload.write(&mut out, &Job::silent()).expect("written");
        out
    }

    #[test]
    fn a_context_is_base64_of_a_gzipped_tar() {
        for size in 0..5 {
            let text = written(&payload(vec![b'x'; 100_000 + size]));
            assert!(text.starts_with(b"H4sI") && !text.contains(&b'\n'));
            let packed = STANDARD.decode(&text).expect("standard, padded");
            let mut tar = Vec::new();
            decompress(packed.as_slice()).expect("gzip").read_to_end(&mut tar).expect("intact");
            assert_eq!((&tar[257..262], &tar[..5]), (&b"ustar"[..], &b"file\0"[..]));
        }
    }

    #[test]
    fn what_is_spooled_is_the_same_each_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let payload = payload((0..200_000_u32).flat_map(u32::to_le_bytes).collect());
        let spooled = payload.spool(&directory.path().join("new"), &Job::silent()).expect("spooled");
        let expected = written(&payload);
        assert_eq!((payload.size_bytes(), spooled.size_bytes()), (None, Some(expected.len() as u64)));
        assert!(written(&spooled) == expected && written(&spooled) == expected);
        assert_eq!(std::fs::read_dir(directory.path().join("new")).expect("a directory").count(), 0);
    }
}

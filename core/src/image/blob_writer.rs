//! Writing a blob into the store: beside, verified, synced, renamed.

use std::fs;
use std::io::{self, BufWriter, Write};

use super::early_sync::EarlySync;
use super::store::ImageStore;
use crate::digest::{Digest, DigestWriter};
use crate::error::{Error, ErrorKind, Result, ResultExt};

/// Hashing and writing go faster in large pieces; measured flat above 256 KiB.
const BUFFER_BYTES: usize = 256 * 1024;

/// A blob that is being written. Dropped before [`BlobWriter::commit`], it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    store: ImageStore,
    writer: DigestWriter<BufWriter<tempfile::NamedTempFile>>,
    early_sync: EarlySync,
}

/// A blob that has become visible.
pub(super) struct Committed {
    pub(super) digest: Digest,
    pub(super) size_bytes: u64,
    /// It was not there before.
    pub(super) is_new: bool,
}

impl BlobWriter {
    pub(super) fn new(store: &ImageStore) -> Result<Self> {
        let file = tempfile::Builder::new()
            .prefix("blob-")
            .tempfile_in(store.incoming())
            .or_error(ErrorKind::LocalIo, || store.write_failed())?;
        // Says that this file has a living writer; ends with the process.
        let _ = file.as_file().try_lock();
        let writer = DigestWriter::new(BufWriter::with_capacity(BUFFER_BYTES, file));
        Ok(Self { store: store.clone(), writer, early_sync: EarlySync::new() })
    }

    /// How many bytes have been written so far.
    pub fn size_bytes(&self) -> u64 {
        self.writer.size_bytes()
    }

    /// Makes the blob visible under its digest, and gives back digest and size.
    ///
    /// # Errors
    /// `Corrupt` if the digest is not the expected one; `LocalIo` if the disk refuses. The store
    /// is then as it was.
    pub fn commit(self, expected: Option<Digest>) -> Result<(Digest, u64)> {
        self.commit_and_tell(expected).map(|committed| (committed.digest, committed.size_bytes))
    }

    /// As [`BlobWriter::commit`]; also says whether the store has it only now.
    pub(super) fn commit_and_tell(self, expected: Option<Digest>) -> Result<Committed> {
        let Self { store, writer, early_sync } = self;
        let failed = || store.write_failed();
        let (buffer, digest, size_bytes) = writer.finish();
        if let Some(expected) = expected
            && expected != digest
        {
            let message = format!("content has digest `{digest}`, not `{expected}` as announced");
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let file = buffer
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .or_error(ErrorKind::LocalIo, failed)?;
        if store.has(&digest) {
            return Ok(Committed { digest, size_bytes, is_new: false });
        }
        early_sync.finish().or_error(ErrorKind::LocalIo, failed)?;
        file.as_file().sync_data().or_error(ErrorKind::LocalIo, failed)?;
        let path = store.path(&digest);
        // Blobs are never changed, only replaced.
        let mut permissions = file.as_file().metadata().or_error(ErrorKind::LocalIo, failed)?.permissions();
        permissions.set_readonly(true);
        let _ = fs::set_permissions(file.path(), permissions);
        file.persist(&path).map_err(|error| error.error).or_error(ErrorKind::LocalIo, failed)?;
        Ok(Committed { digest, size_bytes, is_new: true })
    }

    #[cfg(test)]
    pub(super) fn age_for_test(&mut self, modified: std::time::SystemTime) {
        self.flush().expect("flush");
        let path = fs::read_dir(self.store.incoming()).expect("incoming").flatten();
        for entry in path.filter(|entry| entry.file_name().to_string_lossy().starts_with("blob-")) {
            fs::File::options()
                .write(true)
                .open(entry.path())
                .expect("open")
                .set_modified(modified)
                .expect("age");
        }
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(buffer)?;
        self.early_sync.written(self.writer.size_bytes(), self.writer.get_ref().get_ref().as_file());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

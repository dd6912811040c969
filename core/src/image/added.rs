//! The blobs that an import adds to the store: if it fails or is stopped, they go again, and so do those that
//! turn out to belong to nothing.

use std::collections::HashSet;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use super::blob_writer::BlobWriter;
use super::documents::Descriptor;
use super::layout_import::NamedImage;
use super::store::ImageStore;
use crate::digest::Digest;
use crate::error::{ErrorKind, Result, ResultExt};

/// Takes note of the blobs that were not there before. Dropped without [`Added::keep`], it removes
/// them.
pub(super) struct Added<'a> {
    store: &'a ImageStore,
    blobs: Mutex<Vec<Digest>>,
}

impl<'a> Added<'a> {
    pub(super) fn new(store: &'a ImageStore) -> Self {
        Self { store, blobs: Mutex::default() }
    }

    /// As [`BlobWriter::commit`].
    pub(super) fn commit(&self, writer: BlobWriter, expected: Option<Digest>) -> Result<(Digest, u64)> {
        let committed = writer.commit_and_tell(expected)?;
        if committed.is_new {
            self.blobs.lock().unwrap_or_else(PoisonError::into_inner).push(committed.digest);
        }
        Ok((committed.digest, committed.size_bytes))
    }

    /// As [`ImageStore::put_as`].
    pub(super) fn put_as(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let mut writer = self.store.writer()?;
        writer.write_all(bytes).or_error(ErrorKind::LocalIo, || self.store.write_failed())?;
        let (digest, size_bytes) = self.commit(writer, None)?;
        Ok(Descriptor::new(media_type, digest, size_bytes))
    }

    /// The import has succeeded: what these images consist of stays, and nothing else.
    ///
    /// # Errors
    /// As [`ImageStore::closure`]; then nothing stays.
    pub(super) fn keep(self, images: &[NamedImage]) -> Result<()> {
        let mut parts = HashSet::new();
        for named in images {
            parts.extend(self.store.closure(&named.image)?.iter().map(|part| part.digest.hex()));
        }
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        blobs.retain(|digest| !parts.contains(&digest.hex()));
        Ok(())
    }
}

impl Drop for Added<'_> {
    fn drop(&mut self) {
        let blobs = self.blobs.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !blobs.is_empty() {
            self.store.discard(blobs);
        }
    }
}

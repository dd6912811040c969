//! Reading a blob out of the store, verified on the way.

use std::fs::File;
use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

use super::documents::Descriptor;
use super::store::{ImageStore, wrong_size};
use crate::archive::recover;
use crate::backend::Job;
use crate::digest::{Digest, DigestWriter};
use crate::error::{Error, ErrorKind, Result};

const COPY_BYTES: usize = 256 * 1024;

/// Gives the bytes of a blob. The last of them come only if all of them were what the digest says;
/// errors of ours are inside the I/O errors (see [`recover`]).
#[derive(Debug)]
pub struct BlobReader<'a> {
    store: &'a ImageStore,
    blob: &'a Descriptor,
    file: File,
    hasher: Sha256,
    read_bytes: u64,
    job: &'a Job,
}

impl ImageStore {
    /// Opens a blob to be read from its start to its end.
    ///
    /// # Errors
    /// `NotFound` if it is not in the store; `Corrupt` if its size is not that of the descriptor.
    pub fn blob_reader<'a>(&'a self, blob: &'a Descriptor, job: &'a Job) -> Result<BlobReader<'a>> {
        let mut file = self.open_blob(&blob.digest)?;
        if let Ok(metadata) = file.metadata()
            && metadata.len() != blob.size_bytes
        {
            let mut writer = DigestWriter::new(io::sink());
            return Err(match io::copy(&mut file, &mut writer).map(|_| writer.finish()) {
                Ok((_, digest, size_bytes)) if digest == blob.digest => wrong_size(blob, size_bytes),
                _ => self.damaged(&blob.digest),
            });
        }
        Ok(BlobReader { store: self, blob, file, hasher: Sha256::new(), read_bytes: 0, job })
    }
}

impl BlobReader<'_> {
    /// Copies the whole blob.
    ///
    /// # Errors
    /// `Corrupt` if it is damaged; `LocalIo` if reading or writing fails; `Cancelled`.
    pub(super) fn copy_to(mut self, out: &mut dyn Write) -> Result<()> {
        let mut buffer = vec![0; COPY_BYTES];
        let mut copy = || -> io::Result<()> {
            loop {
                match self.read(&mut buffer)? {
                    0 => return Ok(()),
                    read => out.write_all(&buffer[..read])?,
                }
            }
        };
        copy().map_err(|error| {
            recover(error, |error| {
                Error::new(ErrorKind::LocalIo, format!("could not copy blob `{}`", self.blob.digest))
                    .with_source(error)
            })
        })
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.job.check().map_err(io::Error::other)?;
        let read = self.file.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.read_bytes += read as u64;
        let ends = read == 0 && !buffer.is_empty() && self.read_bytes < self.blob.size_bytes;
        let whole = self.read_bytes == self.blob.size_bytes && read > 0;
        let digest = || Digest::from_bytes(self.hasher.clone().finalize().into());
        if ends || self.read_bytes > self.blob.size_bytes || (whole && digest() != self.blob.digest) {
            return Err(io::Error::other(self.store.damaged(&self.blob.digest)));
        }
        Ok(read)
    }
}

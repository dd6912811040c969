//! A part of a blob, as the body of a request.

use std::io::SeekFrom;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::TryStreamExt;
use reqwest::Body;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::super::exchange::Source;
use super::BlobSource;
use super::session::Upload;
use crate::events::{Step, Unit};

/// A file is read in pieces of this size while it is sent.
const READ_BYTES: usize = 256 * 1024;

/// A part of a blob on its way.
pub(super) struct Part<'a> {
    source: &'a BlobSource,
    start: u64,
    pub(super) length: u64,
    step: &'a Step,
    item: String,
    total: u64,
}

impl<'a> Part<'a> {
    pub(super) fn new(upload: &Upload<'a>, start: u64, length: u64) -> Self {
        let item = upload.blob.digest.to_string();
        Self { source: upload.source, start, length, step: upload.step, item, total: upload.blob.size_bytes }
    }
}

impl Source for Part<'_> {
    fn open(&self, sent: Arc<AtomicU64>) -> Body {
        let (start, length) = (self.start, self.length);
        match self.source {
            BlobSource::Bytes(bytes) => {
                sent.store(length, Ordering::Relaxed);
                Body::from(bytes.slice(start as usize..(start + length) as usize))
            }
            BlobSource::File(path) => {
                let path = path.clone();
                let open = async move {
                    let mut file = tokio::fs::File::open(path).await?;
                    file.set_max_buf_size(READ_BYTES);
                    file.seek(SeekFrom::Start(start)).await?;
                    Ok::<_, std::io::Error>(ReaderStream::with_capacity(file.take(length), READ_BYTES))
                };
                let pieces = futures_util::stream::once(open).try_flatten();
                Body::wrap_stream(pieces.inspect_ok(move |piece| {
                    sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                }))
            }
        }
    }

    fn size_bytes(&self) -> u64 {
        self.length
    }

    fn progress(&self, sent_bytes: u64) {
        self.step.progress_of(&self.item, self.start + sent_bytes, Some(self.total), Unit::Bytes);
    }
}

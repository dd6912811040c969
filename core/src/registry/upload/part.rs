//! A part of a blob, as the body of a request.

use std::io::SeekFrom;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::Body;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::super::exchange::Source;
use super::Report;

/// A file is read, and a connection is fed, in pieces of this size.
const READ_BYTES: usize = 256 * 1024;

/// Where the content of a part is.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// In a file, from a position on.
    File(PathBuf, u64),
    /// In memory.
    Bytes(Bytes),
}

/// A part of a blob on its way.
pub(super) struct Part<'a> {
    pub(super) content: Content,
    /// Where in the blob it begins.
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) report: &'a Report,
}

impl Source for Part<'_> {
    fn open(&self, sent: Arc<AtomicU64>) -> Body {
        let length = self.length;
        let count = move |piece: &Bytes| {
            sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        };
        match &self.content {
            // In pieces, so that it shows how far it is.
            Content::Bytes(bytes) => {
                let mut rest = bytes.clone();
                let pieces = std::iter::from_fn(move || {
                    let piece = rest.split_to(rest.len().min(READ_BYTES));
                    Some(piece).filter(|piece| !piece.is_empty())
                });
                Body::wrap_stream(stream::iter(pieces).inspect(count).map(Ok::<_, std::io::Error>))
            }
            Content::File(path, position) => {
                let (path, position) = (path.clone(), *position);
                let open = async move {
                    let mut file = tokio::fs::File::open(path).await?;
                    file.set_max_buf_size(READ_BYTES);
                    file.seek(SeekFrom::Start(position)).await?;
                    Ok::<_, std::io::Error>(ReaderStream::with_capacity(file.take(length), READ_BYTES))
                };
                Body::wrap_stream(stream::once(open).try_flatten().inspect_ok(count))
            }
        }
    }

    fn size_bytes(&self) -> u64 {
        self.length
    }

    fn progress(&self, sent_bytes: u64) {
        self.report.sent(self.start + sent_bytes);
    }
}

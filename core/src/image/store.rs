//! The store: images in the user's cache directory.
//!
//! ```text
//! blobs/sha256/HEX      content by digest; appears whole, by rename
//! references/HEX.json   one file a reference: its name and descriptor
//! origins/HEX           the repositories that are known to have a blob, one a line
//! indexes/HEX           what is in a layer (see `layer_index`)
//! memos/HEX             layers that were made, by what they are made of (see `layer_memo`)
//! incoming/             blobs that are being written; each locked by its writer
//! lock                  shared by everyone who has the store open, exclusive while blobs are removed
//! ```
//!
//! Any number of processes may use one store, and any of them may be killed: every file appears
//! by rename, locks end with the process, and what a dead process left in `incoming` is removed by
//! the next that opens the store. All of it is a cache: it may be deleted between two runs.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::blob_writer::BlobWriter;
use super::documents::{DOCUMENT_LIMIT_BYTES, Descriptor, Document};
use super::media_type;
use crate::archive::UnpackLimit;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result, ResultExt};

/// How long opening waits while another process removes blobs, which takes milliseconds.
const LOCK_WAIT: Duration = Duration::from_secs(30);
/// Files in `incoming` younger than this may not have been locked by their writer yet.
const INCOMING_GRACE: Duration = Duration::from_secs(60);

/// A store of images. Clones share one handle; cheap to pass around between threads.
#[derive(Clone, Debug)]
pub struct ImageStore {
    pub(super) shared: Arc<Shared>,
    unpack_limit: UnpackLimit,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    /// Holds the shared lock for as long as the store is open.
    pub(super) lock: File,
    /// Blobs used since then belong to work that is under way.
    pub(super) opened: SystemTime,
}

impl ImageStore {
    /// Opens the store in a directory, and makes it if it does not exist. One that may not be written can
    /// be read. Blocks for up to 30 s while another process removes blobs.
    ///
    /// # Errors
    /// `LocalIo` if the directory cannot be made or read.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        let failed = || format!("could not open the image store `{}`", dir.display());
        for part in ["blobs/sha256", "references", "origins", "indexes", "incoming"] {
            fs::create_dir_all(dir.join(part)).or_error(ErrorKind::LocalIo, failed)?;
        }
        let lock = open_lock(&dir.join("lock")).or_error(ErrorKind::LocalIo, failed)?;
        lock_shared(&lock).or_error(ErrorKind::LocalIo, failed)?;
        sweep_incoming(&dir.join("incoming"));
        let shared = Arc::new(Shared { dir, lock, opened: SystemTime::now() });
        Ok(Self { shared, unpack_limit: UnpackLimit::default() })
    }

    /// The same store, with a limit for layers and archives that are unpacked.
    #[must_use]
    pub fn with_unpack_limit(self, unpack_limit: UnpackLimit) -> Self {
        Self { unpack_limit, ..self }
    }

    /// How much a layer or an archive may hold once it is unpacked.
    pub fn unpack_limit(&self) -> UnpackLimit {
        self.unpack_limit
    }

    /// The directory of the store.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Where a blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.shared.dir.join("blobs/sha256").join(digest.hex())
    }

    /// Says whether a blob is there. It then counts as used now, so that a concurrent prune
    /// leaves it alone.
    pub fn has(&self, digest: &Digest) -> bool {
        match File::open(self.path(digest)) {
            Ok(file) => {
                touch(&file);
                true
            }
            Err(_) => false,
        }
    }

    /// Opens a blob for reading.
    ///
    /// # Errors
    /// `NotFound` if it is not in the store.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        match File::open(self.path(digest)) {
            Ok(file) => {
                touch(&file);
                Ok(file)
            }
            Err(source) if source.kind() == io::ErrorKind::NotFound => Err(self.missing(digest)),
            Err(source) => Err(self.unreadable(digest, source)),
        }
    }

    /// Reads a whole small blob (a manifest, a config) and verifies it.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` if it is larger than `limit_bytes`, or is not what the descriptor says.
    pub fn read(&self, descriptor: &Descriptor, limit_bytes: u64) -> Result<Bytes> {
        let digest = &descriptor.digest;
        let mut content = Vec::new();
        let reader = self.open_blob(digest)?;
        reader
            .take(limit_bytes + 1)
            .read_to_end(&mut content)
            .map_err(|source| self.unreadable(digest, source))?;
        if content.len() as u64 > limit_bytes {
            let message = format!("blob `{digest}` is larger than a document may be ({limit_bytes} bytes)");
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        if Digest::of(&content) != *digest {
            return Err(self.damaged(digest));
        }
        if content.len() as u64 != descriptor.size_bytes {
            return Err(wrong_size(descriptor, content.len() as u64));
        }
        Ok(content.into())
    }

    /// Reads a manifest or an index.
    ///
    /// # Errors
    /// As [`ImageStore::read`] and [`Document::parse`].
    pub fn document(&self, descriptor: &Descriptor) -> Result<Document> {
        let bytes = self.read(descriptor, DOCUMENT_LIMIT_BYTES)?;
        Document::parse(&descriptor.media_type, &bytes, &format!("`{}`", descriptor.digest))
    }

    /// Starts a new blob. Nothing of it is visible before [`BlobWriter::commit`].
    ///
    /// # Errors
    /// `LocalIo` if the disk refuses.
    pub fn writer(&self) -> Result<BlobWriter> {
        BlobWriter::new(self)
    }

    /// Stores a small blob.
    ///
    /// # Errors
    /// `LocalIo` if the disk refuses.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if !self.has(&digest) {
            let mut writer = self.writer()?;
            io::Write::write_all(&mut writer, bytes).or_error(ErrorKind::LocalIo, || self.write_failed())?;
            writer.commit(Some(digest))?;
        }
        Ok(digest)
    }

    /// Stores a document of ours under a media type and gives back its descriptor.
    ///
    /// # Errors
    /// `LocalIo` if the disk refuses.
    pub fn put_as(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let digest = self.put(bytes)?;
        Ok(Descriptor::new(media_type, digest, bytes.len() as u64))
    }

    /// Everything an image consists of, itself included, each once: documents first to last,
    /// whether or not its layers are in the store. Manifests that an index names but that are not
    /// in the store (other platforms) are left out.
    ///
    /// # Errors
    /// `NotFound` if the image itself is not there; `Corrupt` for damaged documents.
    pub fn closure(&self, image: &Descriptor) -> Result<Vec<Descriptor>> {
        let mut found: Vec<Descriptor> = vec![image.clone()];
        let mut next = 0;
        while next < found.len() {
            let descriptor = found[next].clone();
            next += 1;
            let is_document = media_type::is_index(&descriptor.media_type)
                || media_type::is_manifest(&descriptor.media_type);
            if !is_document || (next > 1 && !self.has(&descriptor.digest)) {
                continue;
            }
            for child in self.document(&descriptor)?.children() {
                if !found.iter().any(|known| known.digest == child.digest) {
                    found.push(child.clone());
                }
            }
        }
        let absent_document =
            |d: &Descriptor| media_type::is_manifest(&d.media_type) && !self.path(&d.digest).exists();
        found.retain(|descriptor| !absent_document(descriptor));
        Ok(found)
    }

    pub(super) fn incoming(&self) -> PathBuf {
        self.shared.dir.join("incoming")
    }

    pub(crate) fn write_failed(&self) -> String {
        format!("could not write to the image store `{}`", self.shared.dir.display())
    }

    fn missing(&self, digest: &Digest) -> Error {
        Error::new(ErrorKind::NotFound, format!("blob `{digest}` is not in the image store"))
            .with_detail("store", self.shared.dir.display().to_string())
    }

    fn unreadable(&self, digest: &Digest, source: io::Error) -> Error {
        Error::new(ErrorKind::LocalIo, format!("could not read blob `{digest}` from the image store"))
            .with_source(source)
    }

    /// A damaged blob is taken out, so that the next run fetches or builds it again.
    pub(super) fn damaged(&self, digest: &Digest) -> Error {
        let path = self.path(digest);
        let error = Error::new(ErrorKind::Corrupt, format!("blob `{digest}` in the image store is damaged"))
            .with_detail("path", path.display().to_string());
        match fs::remove_file(&path) {
            Ok(()) => error.with_hint("it was removed from the store; run the same again"),
            Err(_) => error.with_hint(format!("remove `{}` and run the same again", path.display())),
        }
    }
}

/// The blob is sound: whoever described it is wrong, and it must stay for everybody else.
pub(super) fn wrong_size(descriptor: &Descriptor, size_bytes: u64) -> Error {
    let Descriptor { digest, size_bytes: said, .. } = descriptor;
    let message = format!("blob `{digest}` has {size_bytes} bytes, not {said} as announced");
    Error::new(ErrorKind::Corrupt, message)
}

/// Marks a blob as used now. That this fails on a read-only store does no harm: nobody can prune it.
fn touch(file: &File) {
    let _ = file.set_modified(SystemTime::now());
}

fn open_lock(path: &Path) -> io::Result<File> {
    let opened = File::options().create(true).truncate(false).write(true).read(true).open(path);
    match opened {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
            ) =>
        {
            File::open(path).map_err(|_| error)
        }
        opened => opened,
    }
}

/// Waits for the shared lock. File systems without locks (some network ones) do without: there
/// [`ImageStore::prune`] removes nothing.
fn lock_shared(lock: &File) -> io::Result<()> {
    let start = std::time::Instant::now();
    loop {
        match lock.try_lock_shared() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_WAIT => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("another process has been removing images for 30 s"));
            }
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Removes what killed processes left. A writer that lives holds the lock of its file.
fn sweep_incoming(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let old = entry.metadata().and_then(|metadata| metadata.modified()).is_ok_and(|modified| {
            // A time to come is one of a clock that was wrong.
            let now = SystemTime::now();
            let apart = now.duration_since(modified).or_else(|_| modified.duration_since(now));
            apart.is_ok_and(|apart| apart > INCOMING_GRACE)
        });
        let abandoned = || File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        if old && abandoned() {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let _ = match is_directory {
                true => fs::remove_dir_all(entry.path()),
                false => fs::remove_file(entry.path()),
            };
        }
    }
}

pub(super) fn relock(lock: &File) -> io::Result<()> {
    lock_shared(lock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn store() -> (tempfile::TempDir, ImageStore) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = ImageStore::open(dir.path().join("images")).expect("store");
        (dir, store)
    }

    #[test]
    fn a_blob_comes_back_verified() {
        let (_dir, store) = store();
        let descriptor = store.put_as("text/plain", b"hello").expect("put");
        assert_eq!(&store.read(&descriptor, 5).expect("read")[..], b"hello");
        assert_eq!(store.read(&descriptor, 4).expect_err("too large").kind(), ErrorKind::Corrupt);
        let absent = Descriptor::of("text/plain", b"absent");
        assert_eq!(store.read(&absent, 9).expect_err("absent").kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_damaged_blob_is_noticed_and_taken_out() {
        let (_dir, store) = store();
        let descriptor = store.put_as("text/plain", b"hello").expect("put");
        fs::remove_file(store.path(&descriptor.digest)).expect("remove");
        fs::write(store.path(&descriptor.digest), b"jello").expect("damage");
        assert_eq!(store.read(&descriptor, 9).expect_err("damaged").kind(), ErrorKind::Corrupt);
        assert!(!store.has(&descriptor.digest));
    }

    #[test]
    fn a_descriptor_with_a_wrong_size_does_not_take_a_good_blob_out() {
        let (_dir, store) = store();
        let good = store.put_as("text/plain", b"hello").expect("put");
        let wrong = Descriptor { size_bytes: 4, ..good.clone() };
        assert_eq!(store.read(&wrong, 9).expect_err("wrong").kind(), ErrorKind::Corrupt);
        let job = crate::backend::Job::silent();
        assert_eq!(store.blob_reader(&wrong, &job).expect_err("wrong").kind(), ErrorKind::Corrupt);
        assert!(store.has(&good.digest));
        fs::remove_file(store.path(&good.digest)).expect("remove");
        fs::write(store.path(&good.digest), b"hell").expect("damage");
        assert_eq!(store.blob_reader(&good, &job).expect_err("damaged").kind(), ErrorKind::Corrupt);
        assert!(!store.has(&good.digest));
    }

    #[test]
    fn a_dropped_writer_leaves_nothing() {
        let (_dir, store) = store();
        let mut writer = store.writer().expect("writer");
        writer.write_all(b"half").expect("write");
        drop(writer);
        assert_eq!(fs::read_dir(store.incoming()).expect("incoming").count(), 0);
        assert_eq!(fs::read_dir(store.dir().join("blobs/sha256")).expect("blobs").count(), 0);
    }

    #[test]
    fn opening_removes_what_a_killed_process_left_and_nothing_else() {
        let (_dir, store) = store();
        let dead = store.incoming().join("dead");
        fs::write(&dead, b"half").expect("write");
        let long_ago = SystemTime::now() - 2 * INCOMING_GRACE;
        File::options().write(true).open(&dead).expect("open").set_modified(long_ago).expect("age");
        let mut alive = store.writer().expect("writer");
        alive.write_all(b"whole").expect("write");
        alive.age_for_test(long_ago);
        ImageStore::open(store.dir()).expect("second handle");
        assert!(!dead.exists());
        assert_eq!(alive.commit(None).expect("commit").0, Digest::of(b"whole"));
    }
}

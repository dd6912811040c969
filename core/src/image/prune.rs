//! Removing what no name leads to.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::time::{Duration, SystemTime};

use super::media_type;
use super::store::{ImageStore, relock};
use crate::digest::Digest;
use crate::error::{ErrorKind, Result, ResultExt};

/// The coarsest clock of file systems in use; times closer than that cannot be told apart.
const CLOCK_STEP: Duration = Duration::from_secs(2);

/// What [`ImageStore::prune`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// How many blobs were removed.
    pub blobs: usize,
    /// Their total size.
    pub size_bytes: u64,
    /// Another process is using the store, so nothing was removed; the next prune will.
    pub busy: bool,
}

impl ImageStore {
    /// Removes the blobs that no name leads to, unless another process has the store open: it may
    /// be about to name them. Blobs that this handle used since it was opened stay as well.
    ///
    /// # Errors
    /// `LocalIo` if the store cannot be read, or a blob cannot be removed.
    pub fn prune(&self) -> Result<Pruned> {
        let failed = || format!("could not clean up the image store `{}`", self.dir().display());
        let lock = &self.shared.lock;
        // Changing a lock first gives the old one up, so the shared one is taken again either way.
        let result = match lock.try_lock() {
            Ok(()) => self.sweep().or_error(ErrorKind::LocalIo, failed),
            Err(_) => Ok(Pruned { busy: true, ..Pruned::default() }),
        };
        relock(lock).or_error(ErrorKind::LocalIo, failed)?;
        result
    }

    fn sweep(&self) -> Result<Pruned, io::Error> {
        let named = self.named()?;
        let mut pruned = Pruned::default();
        let cutoff = self.shared.opened.checked_sub(CLOCK_STEP).unwrap_or(self.shared.opened);
        for entry in fs::read_dir(self.dir().join("blobs/sha256"))? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            // A time to come is one of a clock that was wrong.
            let modified = metadata.modified()?;
            let used = modified >= cutoff && modified <= SystemTime::now() + CLOCK_STEP;
            if used || named.contains(&*entry.file_name().to_string_lossy()) {
                continue;
            }
            fs::remove_file(entry.path())?;
            pruned.blobs += 1;
            pruned.size_bytes += metadata.len();
        }
        for records in ["origins", "indexes", "files"] {
            let directory = match fs::read_dir(self.dir().join(records)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                directory => directory?,
            };
            for entry in directory {
                let entry = entry?;
                let name = entry.file_name();
                let name = name.to_string_lossy();
                let blob = self.dir().join("blobs/sha256").join(&*name);
                if !named.contains(&*name) && !blob.exists() && entry.metadata()?.modified()? < cutoff {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        self.sweep_memos(cutoff)?;
        Ok(pruned)
    }

    /// Removes blobs that this handle has just added, but for those that a name leads to. Does nothing while
    /// another process has the store open; the next prune will. What cannot be removed stays.
    pub(super) fn discard(&self, added: &[Digest]) {
        let lock = &self.shared.lock;
        if lock.try_lock().is_ok()
            && let Ok(named) = self.named()
        {
            for digest in added.iter().filter(|digest| !named.contains(&digest.hex())) {
                let _ = fs::remove_file(self.path(digest));
                let _ = fs::remove_file(self.dir().join("indexes").join(digest.hex()));
            }
        }
        let _ = relock(lock);
    }

    /// The hexadecimal digests of everything that a name leads to. Keeps what a damaged image
    /// still leads to.
    fn named(&self) -> Result<HashSet<String>, io::Error> {
        let mut named = HashSet::new();
        let mut todo: Vec<_> =
            self.list().map_err(io::Error::other)?.into_iter().map(|image| image.descriptor).collect();
        while let Some(descriptor) = todo.pop() {
            let is_document = media_type::is_index(&descriptor.media_type)
                || media_type::is_manifest(&descriptor.media_type);
            if !named.insert(descriptor.digest.hex()) || !is_document {
                continue;
            }
            match self.document(&descriptor) {
                Ok(document) => todo.extend(document.children().into_iter().cloned()),
                Err(error) if error.kind() == ErrorKind::LocalIo => return Err(io::Error::other(error)),
                Err(error) => tracing::debug!(digest = %descriptor.digest, %error, "incomplete image"),
            }
        }
        Ok(named)
    }

    /// The total size of what an image has in the store.
    ///
    /// # Errors
    /// As [`ImageStore::closure`].
    pub fn stored_size_bytes(&self, image: &super::Descriptor) -> Result<u64> {
        let size = |digest: &Digest| fs::metadata(self.path(digest)).map_or(0, |metadata| metadata.len());
        Ok(self.closure(image)?.iter().map(|part| size(&part.digest)).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Descriptor, Manifest, to_bytes};

    fn image(store: &ImageStore, content: &[u8]) -> Descriptor {
        let config = store.put_as(media_type::OCI_CONFIG, b"{}").expect("config");
        let layer = store.put_as(media_type::OCI_LAYER, content).expect("layer");
        let manifest = Manifest::new(media_type::OCI_MANIFEST, config, vec![layer]);
        store.put_as(media_type::OCI_MANIFEST, &to_bytes(&manifest)).expect("manifest")
    }

    fn age(store: &ImageStore) {
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        for entry in fs::read_dir(store.dir().join("blobs/sha256")).expect("blobs").flatten() {
            fs::File::open(entry.path()).expect("open").set_modified(long_ago).expect("age");
        }
    }

    #[test]
    fn removes_only_what_has_no_name_and_is_not_in_use() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = ImageStore::open(dir.path()).expect("store");
        let (kept, dropped) = (image(&store, b"kept"), image(&store, b"dropped"));
        store.tag(&"kept".parse().expect("reference"), &kept).expect("tag");
        age(&store);
        let in_use = image(&store, b"in use");
        let pruned = store.prune().expect("prune");
        // The config is shared with the named image: two blobs go.
        assert_eq!((pruned.blobs, pruned.busy), (2, false));
        assert!(!store.has(&dropped.digest));
        assert_eq!(store.closure(&kept).expect("whole").len(), 3);
        assert!(store.has(&in_use.digest));
    }

    #[test]
    fn keeps_what_a_damaged_image_still_leads_to() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = ImageStore::open(dir.path()).expect("store");
        let (lost, whole) = (image(&store, b"lost"), image(&store, b"whole"));
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{},{}]}}"#,
            media_type::OCI_INDEX,
            serde_json::to_string(&lost).expect("json"),
            serde_json::to_string(&whole).expect("json"),
        );
        let index = store.put_as(media_type::OCI_INDEX, index.as_bytes()).expect("index");
        store.tag(&"both".parse().expect("reference"), &index).expect("tag");
        let path = store.path(&lost.digest);
        fs::remove_file(&path).expect("remove");
        fs::write(&path, b"{").expect("damage");
        age(&store);
        drop(store);
        let store = ImageStore::open(dir.path()).expect("store");
        store.prune().expect("prune");
        assert!(store.has(&whole.digest));
        assert!(store.has(&Digest::of(b"whole")));
    }

    #[test]
    fn removes_nothing_while_another_has_the_store_open() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = ImageStore::open(dir.path()).expect("store");
        let image = image(&store, b"being built");
        age(&store);
        let other = ImageStore::open(dir.path()).expect("second handle");
        assert!(store.prune().expect("prune").busy);
        drop(other);
        assert!(store.has(&image.digest));
        age(&store);
        assert_eq!(store.prune().expect("prune").blobs, 3);
    }
}

//! Which names the images of the store have, and where their blobs are known to be.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::documents::Descriptor;
use super::store::ImageStore;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::reference::Reference;

/// So many repositories are remembered for a blob; the last ones seen stay.
const ORIGINS_LIMIT: usize = 8;

/// An image of the store under one of its names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredImage {
    /// The name.
    pub reference: Reference,
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// When the name was given, in seconds since 1970.
    pub tagged_at: u64,
}

impl ImageStore {
    /// Gives an image a name. The name leaves the image that had it.
    ///
    /// # Errors
    /// `NotFound` if the image is not in the store; `LocalIo` if the disk refuses.
    pub fn tag(&self, reference: &Reference, image: &Descriptor) -> Result<()> {
        drop(self.open_blob(&image.digest)?);
        let tagged_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let stored = StoredImage { reference: reference.clone(), descriptor: image.clone(), tagged_at };
        self.write_beside(self.reference_path(reference), &super::to_bytes(&stored))
    }

    /// Finds an image by name. A reference with a digest finds the image of that digest under
    /// any name of the same repository. A name whose image is gone, or whose record is damaged,
    /// counts as absent.
    ///
    /// # Errors
    /// `LocalIo` if the store cannot be read.
    pub fn resolve(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        let stored = match fs::read(self.reference_path(reference)) {
            Ok(bytes) => serde_json::from_slice::<StoredImage>(&bytes).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => {
                return Err(Error::new(ErrorKind::LocalIo, format!("could not look up `{reference}`"))
                    .with_source(source));
            }
        };
        let stored = stored.filter(|stored| stored.reference == *reference);
        let descriptor = match (stored, reference.digest()) {
            (Some(stored), _) => Some(stored.descriptor),
            (None, None) => None,
            (None, Some(digest)) => self
                .list()?
                .into_iter()
                .filter(|stored| stored.reference.name() == reference.name())
                .map(|stored| stored.descriptor)
                .find(|descriptor| descriptor.digest == digest),
        };
        Ok(descriptor.filter(|descriptor| self.has(&descriptor.digest)))
    }

    /// All names, sorted. Damaged records are left out.
    ///
    /// # Errors
    /// `LocalIo` if the store cannot be read.
    pub fn list(&self) -> Result<Vec<StoredImage>> {
        let failed = || format!("could not list the image store `{}`", self.dir().display());
        let entries = fs::read_dir(self.dir().join("references")).or_error(ErrorKind::LocalIo, failed)?;
        let mut images = Vec::new();
        for entry in entries {
            let path = entry.or_error(ErrorKind::LocalIo, failed)?.path();
            match fs::read(&path).map(|bytes| serde_json::from_slice::<StoredImage>(&bytes)) {
                Ok(Ok(stored)) => images.push(stored),
                Ok(Err(error)) => tracing::debug!(path = %path.display(), %error, "damaged reference"),
                // Removed by another process since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::new(ErrorKind::LocalIo, failed()).with_source(source)),
            }
        }
        images.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(images)
    }

    /// Takes a name away, and says whether it existed. The blobs stay until [`ImageStore::prune`].
    ///
    /// # Errors
    /// `LocalIo` if the disk refuses.
    pub fn untag(&self, reference: &Reference) -> Result<bool> {
        match fs::remove_file(self.reference_path(reference)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => {
                Err(Error::new(ErrorKind::LocalIo, format!("could not remove `{reference}`"))
                    .with_source(source))
            }
        }
    }

    /// Remembers that a repository has a blob: a push to the same registry can then mount it
    /// instead of sending it, and a blob that is not in the store can be fetched from there.
    ///
    /// # Errors
    /// `LocalIo` if the disk refuses.
    pub fn record_origin(&self, digest: &Digest, repository: &Reference) -> Result<()> {
        let name = repository.name();
        let mut names = self.origin_names(digest);
        if names.contains(&name) {
            return Ok(());
        }
        names.push(name);
        let skip = names.len().saturating_sub(ORIGINS_LIMIT);
        self.write_hint(self.origins_path(digest), (names[skip..].join("\n") + "\n").as_bytes())
    }

    /// The repositories that are known to have a blob, as references to it; last seen first.
    pub fn origins(&self, digest: &Digest) -> Vec<Reference> {
        let names = self.origin_names(digest).into_iter().rev();
        names.filter_map(|name| format!("{name}@{digest}").parse().ok()).collect()
    }

    fn origin_names(&self, digest: &Digest) -> Vec<String> {
        let text = fs::read_to_string(self.origins_path(digest)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn origins_path(&self, digest: &Digest) -> PathBuf {
        self.dir().join("origins").join(digest.hex())
    }

    fn reference_path(&self, reference: &Reference) -> PathBuf {
        let name = Digest::of(reference.to_string()).hex();
        self.dir().join("references").join(format!("{name}.json"))
    }

    /// Replaces a small file as a whole.
    pub(super) fn write_beside(&self, path: PathBuf, bytes: &[u8]) -> Result<()> {
        self.replace(path, bytes, true)
    }

    /// Replaces a small file as a whole that may be lost or empty after a crash of the machine: whoever
    /// reads it makes do without. There are many of them, and each sync would wait for all that is
    /// written meanwhile.
    pub(super) fn write_hint(&self, path: PathBuf, bytes: &[u8]) -> Result<()> {
        self.replace(path, bytes, false)
    }

    fn replace(&self, path: PathBuf, bytes: &[u8], sync: bool) -> Result<()> {
        let write = || {
            // Directories of kinds that a store did not have before are made on demand.
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory)?;
            }
            let mut file = tempfile::Builder::new().prefix("record-").tempfile_in(self.incoming())?;
            let _ = file.as_file().try_lock();
            file.write_all(bytes)?;
            if sync {
                file.as_file().sync_data()?;
            }
            file.persist(&path).map_err(|error| error.error)
        };
        write().or_error(ErrorKind::LocalIo, || self.write_failed()).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Reference {
        text.parse().expect("reference")
    }

    fn store() -> (tempfile::TempDir, ImageStore) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = ImageStore::open(dir.path().join("images")).expect("store");
        (dir, store)
    }

    #[test]
    fn names_come_and_go() {
        let (_dir, store) = store();
        let (first, second) = (store.put_as("x", b"1").expect("put"), store.put_as("x", b"2").expect("put"));
        let name = reference("app:1");
        assert_eq!(store.resolve(&name).expect("resolve"), None);
        store.tag(&name, &first).expect("tag");
        store.tag(&name, &second).expect("tag again");
        assert_eq!(store.resolve(&name).expect("resolve"), Some(second.clone()));
        let by_digest = reference(&format!("app@{}", second.digest));
        assert_eq!(store.resolve(&by_digest).expect("resolve"), Some(second));
        assert_eq!(store.list().expect("list").len(), 1);
        assert!(store.untag(&name).expect("untag"));
        assert!(!store.untag(&name).expect("untag twice"));
        assert_eq!(store.resolve(&by_digest).expect("resolve"), None);
    }

    #[test]
    fn an_absent_image_gets_no_name_and_a_lost_one_loses_it() {
        let (_dir, store) = store();
        let absent = Descriptor::of("x", b"absent");
        assert_eq!(store.tag(&reference("app"), &absent).expect_err("absent").kind(), ErrorKind::NotFound);
        let lost = store.put_as("x", b"lost").expect("put");
        store.tag(&reference("app"), &lost).expect("tag");
        fs::remove_file(store.path(&lost.digest)).expect("lose");
        assert_eq!(store.resolve(&reference("app")).expect("resolve"), None);
    }

    #[test]
    fn a_damaged_record_counts_as_absent() {
        let (_dir, store) = store();
        let image = store.put_as("x", b"1").expect("put");
        store.tag(&reference("app"), &image).expect("tag");
        fs::write(store.reference_path(&reference("app")), b"{").expect("damage");
        assert_eq!(store.resolve(&reference("app")).expect("resolve"), None);
        assert_eq!(store.list().expect("list"), Vec::new());
    }

    #[test]
    fn remembers_where_a_blob_is() {
        let (_dir, store) = store();
        let digest = Digest::of(b"layer");
        for n in 0..10 {
            store.record_origin(&digest, &reference(&format!("localhost:5000/r{n}:tag"))).expect("record");
        }
        let origins = store.origins(&digest);
        assert_eq!(origins.len(), ORIGINS_LIMIT);
        assert_eq!(origins[0], reference(&format!("localhost:5000/r9@{digest}")));
    }
}

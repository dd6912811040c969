//! Whether what the names in the store lead to is there and is what its digest says.

use std::collections::HashSet;
use std::io;

use serde::Serialize;

use super::documents::{Descriptor, Document};
use super::media_type;
use super::pull::is_elsewhere;
use super::store::ImageStore;
use crate::backend::Job;
use crate::digest::Digest;
use crate::error::{ErrorKind, Result};

/// What [`ImageStore::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// How many blobs are there and sound.
    pub sound: usize,
    /// Their size.
    pub size_bytes: u64,
    /// How many are not there but known to be at a registry, or of a platform that was not pulled.
    pub elsewhere: usize,
    /// Blobs that were not what their digest says. They have been removed.
    pub damaged: Vec<Digest>,
    /// Blobs that are neither in the store nor known to be anywhere else.
    pub missing: Vec<Digest>,
}

impl ImageStore {
    /// Reads a blob and computes its digest. One that is damaged is taken out. Blocks.
    ///
    /// # Errors
    /// `Corrupt` if it is damaged, `NotFound` if it is not there; `LocalIo`; `Cancelled`.
    pub fn verify_blob(&self, blob: &Descriptor, job: &Job) -> Result<()> {
        self.blob_reader(blob, job)?.copy_to(&mut io::sink())
    }

    /// Reads everything that these images consist of, each blob once, and computes its digest.
    /// What is damaged is taken out, so that the next run fetches or builds it again. Blocks.
    ///
    /// # Errors
    /// `LocalIo` if the disk cannot be read; `Cancelled`. Damage is no error of this.
    pub fn verify(&self, images: &[Descriptor], job: &Job) -> Result<Verified> {
        let mut found = Verified::default();
        let mut todo: Vec<(Descriptor, bool)> =
            images.iter().rev().map(|image| (image.clone(), false)).collect();
        let mut seen = HashSet::new();
        while let Some((part, may_be_absent)) = todo.pop() {
            if !seen.insert(part.digest.hex()) {
                continue;
            }
            match self.verify_blob(&part, job) {
                Ok(()) => {
                    found.sound += 1;
                    found.size_bytes += part.size_bytes;
                    todo.extend(self.parts_of(&part, &mut found)?);
                }
                Err(error) if error.kind() == ErrorKind::Corrupt => found.damaged.push(part.digest),
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                Err(_) if may_be_absent || is_elsewhere(&part) || !self.origins(&part.digest).is_empty() => {
                    found.elsewhere += 1;
                }
                Err(_) => found.missing.push(part.digest),
            }
        }
        Ok(found)
    }

    /// What a document names, and whether it may be left out.
    fn parts_of(&self, part: &Descriptor, found: &mut Verified) -> Result<Vec<(Descriptor, bool)>> {
        let media_type = &part.media_type;
        if !media_type::is_index(media_type) && !media_type::is_manifest(media_type) {
            return Ok(Vec::new());
        }
        match self.document(part) {
            Ok(document) => {
                let may_be_absent = matches!(document, Document::Index(_));
                Ok(document
                    .children()
                    .into_iter()
                    .rev()
                    .map(|child| (child.clone(), may_be_absent))
                    .collect())
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                found.damaged.push(part.digest);
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::{file, image};
    use std::fs;

    #[test]
    fn says_what_is_sound_damaged_missing_or_elsewhere() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = ImageStore::open(dir.path()).expect("store");
        let layers = ["1", "2", "3"].map(|content| vec![file("a", content)]);
        let image = image(&store, &layers);
        let verify = || store.verify(std::slice::from_ref(&image.descriptor), &Job::silent()).expect("read");
        let all = verify();
        assert_eq!((all.sound, all.damaged.len(), all.missing.len(), all.elsewhere), (5, 0, 0, 0));
        let [damaged, missing, elsewhere] = &image.manifest.layers[..] else { panic!("three layers") };
        for layer in [damaged, missing, elsewhere] {
            fs::remove_file(store.path(&layer.digest)).expect("remove");
        }
        fs::write(store.path(&damaged.digest), b"other").expect("damage");
        store.record_origin(&elsewhere.digest, &"x.io/a:1".parse().expect("name")).expect("recorded");
        let found = verify();
        assert_eq!((found.sound, found.elsewhere), (2, 1));
        assert_eq!((found.damaged, found.missing), (vec![damaged.digest], vec![missing.digest]));
        assert!(!store.has(&damaged.digest));
    }
}

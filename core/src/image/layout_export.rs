//! Writing OCI layouts on disk.
//!
//! Source: OCI image-spec `image-layout.md`; the annotations are those of BuildKit and containerd.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::documents::{Descriptor, Index, to_bytes};
use super::layout_import::{
    INDEX_FILE, LAYOUT_FILE, NAME_ANNOTATION, NamedImage, TAG_ANNOTATION, blob_path, read_index,
};
use super::media_type;
use super::pull::is_elsewhere;
use super::store::ImageStore;
use crate::backend::Job;
use crate::error::{Error, ErrorKind, Result, ResultExt};

/// What is in the file that makes a directory an OCI layout.
pub(super) const LAYOUT_CONTENT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Writes images as an OCI layout into a directory. One that is a layout already gets these
/// images and keeps the others; any other must be empty or absent. All layers must be in the store.
/// Blocks.
///
/// # Errors
/// `InvalidInput` for a directory that has other things in it; `NotFound`, `Corrupt`, `LocalIo`,
/// `Cancelled`: then no name in the layout has changed, and one that was to be made is not there.
pub fn export_layout(store: &ImageStore, images: &[NamedImage], dest: &Path, job: &Job) -> Result<()> {
    let failed = || format!("could not write the OCI layout `{}`", dest.display());
    match fs::read_dir(dest).map(|mut entries| entries.next().is_none()) {
        Ok(false) => {
            let known = read_index(dest).map_err(|error| {
                Error::new(error.kind(), format!("`{}` is not empty and no OCI layout", dest.display()))
                    .with_hint("choose another directory, or remove it first")
            })?;
            fill(store, images, dest, dest, known, job)
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::new(ErrorKind::LocalIo, failed()).with_source(error))
        }
        _ => {
            let parent = dest.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            fs::create_dir_all(parent).or_error(ErrorKind::LocalIo, failed)?;
            let work = tempfile::Builder::new().prefix(".windlass-").tempdir_in(parent);
            let work = work.or_error(ErrorKind::LocalIo, failed)?;
            let none = Index::new(media_type::OCI_INDEX, Vec::new());
            fill(store, images, work.path(), dest, none, job)?;
            open_up(work.path()).or_error(ErrorKind::LocalIo, failed)?;
            // Onto an empty directory too.
            fs::rename(work.path(), dest).or_error(ErrorKind::LocalIo, failed)?;
            let _ = work.keep();
            Ok(())
        }
    }
}

/// A temporary directory is for its maker alone; this one becomes the user's.
fn open_up(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))
}

/// Fills a directory, which becomes the one that is shown in errors.
fn fill(
    store: &ImageStore,
    images: &[NamedImage],
    dir: &Path,
    shown: &Path,
    mut index: Index,
    job: &Job,
) -> Result<()> {
    let failed = || format!("could not write the OCI layout `{}`", shown.display());
    fs::create_dir_all(dir.join("blobs/sha256")).or_error(ErrorKind::LocalIo, failed)?;
    for part in parts(store, images)? {
        let path = blob_path(dir, &part.digest);
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == part.size_bytes) {
            continue;
        }
        write_beside(&path, |file| store.blob_reader(&part, job)?.copy_to(file))
            .or_error(ErrorKind::LocalIo, failed)?;
    }
    for entry in index_of(images).manifests {
        // A name leads to one image.
        index.manifests.retain(|known| !same_name(known, &entry));
        index.manifests.push(entry);
    }
    let bytes = to_bytes(&index);
    let write = |name: &str, bytes: &[u8]| {
        write_beside(&dir.join(name), |file| file.write_all(bytes).or_error(ErrorKind::LocalIo, failed))
            .or_error(ErrorKind::LocalIo, failed)
    };
    write(LAYOUT_FILE, LAYOUT_CONTENT.as_bytes())?;
    write(INDEX_FILE, &bytes)
}

fn same_name(known: &Descriptor, new: &Descriptor) -> bool {
    let name = |image: &Descriptor| {
        image.annotations.get(NAME_ANNOTATION).or_else(|| image.annotations.get(TAG_ANNOTATION)).cloned()
    };
    match (name(known), name(new)) {
        (Some(known), Some(new)) => known == new,
        (None, None) => known.digest == new.digest,
        _ => false,
    }
}

/// Makes a file appear as a whole.
fn write_beside(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let failed = || format!("could not write `{}`", path.display());
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".windlass-")
        // As any new file: what the umask leaves.
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(dir)
        .or_error(ErrorKind::LocalIo, failed)?;
    write(file.as_file_mut())?;
    file.as_file().sync_data().or_error(ErrorKind::LocalIo, failed)?;
    file.persist(path).map_err(|error| error.error).or_error(ErrorKind::LocalIo, failed)?;
    Ok(())
}

/// Everything that these images consist of, each once, sorted by digest. What an index names and is
/// not in the store is left out; so is what is not in registries at all.
///
/// # Errors
/// `NotFound` if a layer or config is not in the store.
pub(super) fn parts(store: &ImageStore, images: &[NamedImage]) -> Result<Vec<Descriptor>> {
    let mut parts = BTreeMap::new();
    for named in images {
        for part in store.closure(&named.image)? {
            if store.has(&part.digest) {
                parts.insert(part.digest, part);
            } else if !is_elsewhere(&part) {
                drop(store.open_blob(&part.digest)?);
            }
        }
    }
    Ok(parts.into_values().collect())
}

/// The index of a layout with these images: one entry a name, one for an image without.
pub(super) fn index_of(images: &[NamedImage]) -> Index {
    let mut entries = Vec::new();
    for named in images {
        for reference in &named.references {
            let mut entry = named.image.clone();
            entry.annotations.insert(NAME_ANNOTATION.to_owned(), reference.to_string());
            if let Some(tag) = reference.tag() {
                entry.annotations.insert(TAG_ANNOTATION.to_owned(), tag.to_owned());
            }
            entries.push(entry);
        }
        if named.references.is_empty() {
            entries.push(named.image.clone());
        }
    }
    Index::new(media_type::OCI_INDEX, entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::layout_import::import_layout;
    use crate::image::tests::{file, image};

    fn named(image: &Descriptor, names: &[&str]) -> NamedImage {
        let references = names.iter().map(|name| name.parse().expect("reference")).collect();
        NamedImage { image: image.clone(), references }
    }

    fn store(dir: &Path, name: &str) -> ImageStore {
        ImageStore::open(dir.join(name)).expect("store")
    }

    #[test]
    fn a_layout_is_read_back_and_grows() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (from, to) = (store(dir.path(), "from"), store(dir.path(), "to"));
        let first = image(&from, &[vec![file("a", "1")]]).descriptor;
        let second = image(&from, &[vec![file("a", "2")]]).descriptor;
        let layout = dir.path().join("layout");
        let job = Job::silent();
        export_layout(&from, &[named(&first, &["x.io/app:1"])], &layout, &job).expect("written");
        export_layout(&from, &[named(&second, &["x.io/app:2", "x.io/app:latest"])], &layout, &job)
            .expect("grown");
        for (tag, expected) in [(Some("1"), &first), (Some("2"), &second), (None, &second)] {
            let read = import_layout(&to, &layout, tag, None, &job).expect("read");
            assert_eq!(&read.image, expected, "{tag:?}");
            assert_eq!(to.closure(&read.image).expect("whole").len(), 3);
        }
        let by_digest = import_layout(&to, &layout, None, Some(first.digest), &job).expect("read");
        assert_eq!(by_digest, named(&first, &["x.io/app:1"]));
        let error = import_layout(&to, &layout, Some("3"), None, &job).expect_err("not there");
        assert!(error.hints()[0].contains("1, 2, latest"), "{error:?}");
        // The name moves on.
        export_layout(&from, &[named(&second, &["x.io/app:1"])], &layout, &job).expect("moved");
        assert_eq!(import_layout(&to, &layout, Some("1"), None, &job).expect("read").image, second);
    }

    #[test]
    fn a_damaged_blob_is_refused_both_ways() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (from, to) = (store(dir.path(), "from"), store(dir.path(), "to"));
        let whole = image(&from, &[vec![file("a", "1")]]);
        let layout = dir.path().join("layout");
        let job = Job::silent();
        export_layout(&from, &[named(&whole.descriptor, &[])], &layout, &job).expect("written");
        let layer = &whole.manifest.layers[0].digest;
        fs::write(blob_path(&layout, layer), b"damaged").expect("damage");
        let error = import_layout(&to, &layout, None, None, &job).expect_err("damaged");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(!to.has(layer));
        fs::remove_file(from.path(layer)).expect("remove");
        fs::write(from.path(layer), b"damaged").expect("damage");
        let other = dir.path().join("other");
        assert!(export_layout(&from, &[named(&whole.descriptor, &[])], &other, &job).is_err());
        assert!(!other.exists());
    }

    #[test]
    fn a_directory_with_other_things_is_left_alone() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let from = store(dir.path(), "from");
        let descriptor = image(&from, &[]).descriptor;
        let error = export_layout(&from, &[named(&descriptor, &[])], dir.path(), &Job::silent());
        assert_eq!(error.expect_err("not empty").kind(), ErrorKind::InvalidInput);
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).expect("made");
        export_layout(&from, &[named(&descriptor, &[])], &empty, &Job::silent()).expect("written");
    }
}

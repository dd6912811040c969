//! Images as one archive: an OCI layout, or one that `docker load` reads as well.

use std::io::{BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::documents::{Descriptor, to_bytes};
use super::layout_export::{LAYOUT_CONTENT, index_of, parts};
use super::layout_import::{INDEX_FILE, LAYOUT_FILE, NamedImage};
use super::selection::Image;
use super::store::ImageStore;
use crate::archive::{TarEntry, TarKind, TarWriter, recover};
use crate::backend::Job;
use crate::error::{Error, ErrorKind, Result};
use crate::written_file::WrittenFile;

/// The file by which `docker load` finds its images.
pub(super) const DOCKER_MANIFEST_FILE: &str = "manifest.json";

/// What reads the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveForm {
    /// Readers of OCI layouts: skopeo, podman, buildx, current `docker load`.
    Oci,
    /// Those, and `docker load` of every engine: both forms in one, as engines since 25 write it.
    Docker,
}

/// One entry of `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerImage {
    pub(super) config: String,
    #[serde(default)]
    pub(super) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(super) layers: Vec<String>,
}

/// Writes images as one archive. All their layers must be in the store. The bytes depend only on
/// the images and their names. Blocks.
///
/// # Errors
/// `Unsupported` for an index in the Docker form, which has no place for one; `NotFound`,
/// `Corrupt`, `LocalIo`, `Cancelled`.
pub fn write_archive(
    store: &ImageStore,
    images: &[NamedImage],
    form: ArchiveForm,
    out: impl Write,
    job: &Job,
) -> Result<()> {
    write_shown(store, images, form, out, "the image archive", job)
}

/// As [`write_archive`], with what errors call the archive.
fn write_shown(
    store: &ImageStore,
    images: &[NamedImage],
    form: ArchiveForm,
    out: impl Write,
    shown: &str,
    job: &Job,
) -> Result<()> {
    let write_failed = |error| write_failed(shown, error);
    let docker = match form {
        ArchiveForm::Docker => Some(docker_manifest(store, images)?),
        ArchiveForm::Oci => None,
    };
    let mut tar = TarWriter::new(BufWriter::with_capacity(256 * 1024, out));
    for directory in ["blobs", "blobs/sha256"] {
        let entry = TarEntry::new(directory, TarKind::Directory, 0o755);
        tar.append_bytes(&entry, b"").map_err(write_failed)?;
    }
    for part in parts(store, images)? {
        let kind = TarKind::File { size_bytes: part.size_bytes };
        let entry = TarEntry::new(member_name(&part), kind, 0o644);
        tar.append(&entry, &mut store.blob_reader(&part, job)?).map_err(write_failed)?;
    }
    let mut documents = vec![(INDEX_FILE, to_bytes(&index_of(images)))];
    documents.extend(docker.map(|bytes| (DOCKER_MANIFEST_FILE, bytes)));
    documents.push((LAYOUT_FILE, LAYOUT_CONTENT.as_bytes().to_vec()));
    for (name, bytes) in documents {
        let kind = TarKind::File { size_bytes: bytes.len() as u64 };
        tar.append_bytes(&TarEntry::new(name, kind, 0o644), &bytes).map_err(write_failed)?;
    }
    let mut out = tar.finish().map_err(write_failed)?;
    out.flush().map_err(write_failed)
}

/// Writes images as one archive into a file, which appears as a whole or not at all; a pipe or a
/// device is written into, and a link followed. Blocks.
///
/// # Errors
/// As [`write_archive`] and [`WrittenFile::create`].
pub fn save_archive(
    store: &ImageStore,
    images: &[NamedImage],
    form: ArchiveForm,
    dest: &Path,
    job: &Job,
) -> Result<()> {
    let shown = format!("`{}`", dest.display());
    let mut file = WrittenFile::create(dest)?;
    write_shown(store, images, form, file.writer(), &shown, job)?;
    file.keep()
}

/// Where a blob is in the archive.
fn member_name(blob: &Descriptor) -> String {
    format!("blobs/sha256/{}", blob.digest.hex())
}

fn docker_manifest(store: &ImageStore, images: &[NamedImage]) -> Result<Vec<u8>> {
    let mut entries = Vec::new();
    for named in images {
        let manifests = store.manifests(&named.image)?;
        let [manifest] = &manifests[..] else {
            let message = "an archive for `docker load` holds one platform, and this image has several";
            return Err(Error::new(ErrorKind::Unsupported, message)
                .with_hint("write an OCI archive (`type=oci`), or choose one platform"));
        };
        let image = Image::load(store, manifest)?;
        entries.push(DockerImage {
            config: member_name(&image.manifest.config),
            repo_tags: Some(named.references.iter().map(|reference| reference.familiar()).collect()),
            layers: image.manifest.layers.iter().map(member_name).collect(),
        });
    }
    Ok(to_bytes(&entries))
}

fn write_failed(shown: &str, error: std::io::Error) -> Error {
    recover(error, |error| {
        Error::new(ErrorKind::LocalIo, format!("could not write {shown}")).with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_link_to_an_open_file_stays_a_link() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = ImageStore::open(dir.path().join("store")).expect("a store");
        // As `/dev/stdout` is one, with the standard output in a file; that one itself is not to be risked.
        let file = fs::File::create(dir.path().join("file")).expect("a file");
        let link = dir.path().join("link");
        let open = format!("/proc/self/fd/{}", file.as_raw_fd());
        std::os::unix::fs::symlink(&open, &link).expect("a link");
        save_archive(&store, &[], ArchiveForm::Oci, &link, &Job::silent()).expect("written");
        assert_eq!(fs::read_link(&link).expect("still a link"), Path::new(&open));
        let written = fs::read(dir.path().join("file")).expect("readable");
        assert!(written.starts_with(b"blobs/"), "{} bytes", written.len());
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 3);
    }
}

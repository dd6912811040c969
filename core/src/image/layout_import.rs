//! Reading OCI layouts on disk into the store.
//!
//! Source: OCI image-spec `image-layout.md`; the annotations are those of BuildKit and containerd.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::added::Added;
use super::documents::{DOCUMENT_LIMIT_BYTES, Descriptor, Document, Index};
use super::media_type;
use super::pull::is_elsewhere;
use super::store::{ImageStore, wrong_size};
use crate::backend::Job;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::reference::Reference;

/// The file that makes a directory an OCI layout.
pub(super) const LAYOUT_FILE: &str = "oci-layout";
/// The file that names the images of a layout.
pub(super) const INDEX_FILE: &str = "index.json";
/// The whole reference of an image; `docker load` reads it.
pub(super) const NAME_ANNOTATION: &str = "io.containerd.image.name";
/// The tag of an image, in the specification's own words.
pub(super) const TAG_ANNOTATION: &str = "org.opencontainers.image.ref.name";

const COPY_BYTES: usize = 256 * 1024;

/// An image with the names it has or shall have.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedImage {
    /// The manifest or index.
    pub image: Descriptor,
    /// Its names; may be none.
    pub references: Vec<Reference>,
}

/// Reads an image of an OCI layout into the store: the one with this digest, else the one with this
/// tag, else the only one, or the one called `latest`. Gives it no name in the store. Blocks.
///
/// # Errors
/// `InvalidInput` if the directory is no OCI layout; `NotFound` if it has no such image, with the
/// names it has; `Corrupt` for blobs that are not what their digest says; `LocalIo`; `Cancelled`.
pub fn import_layout(
    store: &ImageStore,
    dir: &Path,
    tag: Option<&str>,
    digest: Option<Digest>,
    job: &Job,
) -> Result<NamedImage> {
    let index = read_index(dir)?;
    let image = choose(&index, dir, tag, digest)?.clone();
    let added = Added::new(store);
    copy_document(store, &added, dir, &image, job)?;
    let references = references(&image);
    let named = NamedImage { image: without_names(image), references };
    added.keep(std::slice::from_ref(&named))?;
    Ok(named)
}

pub(super) fn read_index(dir: &Path) -> Result<Index> {
    #[derive(Deserialize)]
    struct Marker {
        #[serde(rename = "imageLayoutVersion")]
        version: String,
    }
    let no_layout = |source: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(ErrorKind::InvalidInput, format!("`{}` is no OCI layout", dir.display()))
            .with_source(source)
    };
    let marker = fs::read(dir.join(LAYOUT_FILE)).map_err(|error| no_layout(error.into()))?;
    let marker: Marker = serde_json::from_slice(&marker).map_err(|error| no_layout(error.into()))?;
    if !marker.version.starts_with("1.") {
        let message = format!("`{}` is an OCI layout of version {}", dir.display(), marker.version);
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let bytes = read_limited(&dir.join(INDEX_FILE)).map_err(|error| no_layout(error.into()))?;
    match Document::parse(media_type::OCI_INDEX, &bytes, &format!("`{}`", dir.join(INDEX_FILE).display()))? {
        Document::Index(index) => Ok(index),
        Document::Manifest(_) => Err(no_layout(format!("its `{INDEX_FILE}` is no index").into())),
    }
}

fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(DOCUMENT_LIMIT_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > DOCUMENT_LIMIT_BYTES {
        return Err(io::Error::other("it is larger than 4 MiB"));
    }
    Ok(bytes)
}

fn choose<'a>(
    index: &'a Index,
    dir: &Path,
    tag: Option<&str>,
    digest: Option<Digest>,
) -> Result<&'a Descriptor> {
    let images = &index.manifests;
    let tagged = |tag: &str| {
        images.iter().find(|image| {
            let annotation = |name| image.annotations.get(name);
            annotation(TAG_ANNOTATION).is_some_and(|name| name == tag || name.ends_with(&format!(":{tag}")))
                || annotation(NAME_ANNOTATION)
                    .is_some_and(|name| name == tag || name.ends_with(&format!(":{tag}")))
        })
    };
    let found = match (digest, tag) {
        (Some(digest), _) => images.iter().find(|image| image.digest == digest),
        (None, Some(tag)) => tagged(tag),
        (None, None) if images.len() == 1 => images.first(),
        // Several names of one image are no choice.
        (None, None) => tagged("latest").or_else(|| {
            let first = images.first()?;
            images.iter().all(|image| image.digest == first.digest).then_some(first)
        }),
    };
    found.ok_or_else(|| {
        let wanted = match (digest, tag) {
            (Some(digest), _) => format!("the image `{digest}`"),
            (None, Some(tag)) => format!("an image `{tag}`"),
            (None, None) => "a single image".to_owned(),
        };
        let name = |image: &Descriptor| {
            image.annotations.get(TAG_ANNOTATION).cloned().unwrap_or_else(|| image.digest.to_string())
        };
        let names = images.iter().map(name).collect::<Vec<_>>().join(", ");
        let message = format!("the OCI layout `{}` does not have {wanted}", dir.display());
        Error::new(ErrorKind::NotFound, message).with_hint(match names.is_empty() {
            true => "it has no images".to_owned(),
            false => format!("it has: {names}"),
        })
    })
}

/// Copies a document and everything it names, each document once: indexes may be nested, and may name
/// one another many times. Other platforms that an index names may be absent.
fn copy_document(
    store: &ImageStore,
    added: &Added<'_>,
    dir: &Path,
    descriptor: &Descriptor,
    job: &Job,
) -> Result<()> {
    let mut todo = vec![descriptor.clone()];
    let mut done = HashSet::new();
    while let Some(descriptor) = todo.pop() {
        if !done.insert(descriptor.digest.hex()) {
            continue;
        }
        job.check()?;
        copy_blob(store, added, dir, &descriptor, job)?;
        let document = store.document(&descriptor)?;
        let is_index = matches!(document, Document::Index(_));
        for child in document.children() {
            match is_index {
                true if blob_path(dir, &child.digest).exists() => todo.push(child.clone()),
                false if !is_elsewhere(child) => copy_blob(store, added, dir, child, job)?,
                _ => {}
            }
        }
    }
    Ok(())
}

fn copy_blob(
    store: &ImageStore,
    added: &Added<'_>,
    dir: &Path,
    descriptor: &Descriptor,
    job: &Job,
) -> Result<()> {
    if store.has(&descriptor.digest) {
        return Ok(());
    }
    let path = blob_path(dir, &descriptor.digest);
    let unreadable = |error: io::Error| {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::LocalIo,
        };
        Error::new(kind, format!("could not read `{}`", path.display())).with_source(error)
    };
    let metadata = fs::metadata(&path).map_err(unreadable)?;
    // A pipe would never end, or never begin.
    if !metadata.is_file() {
        return Err(unreadable(io::Error::other("it is no file")));
    }
    let mut file = File::open(&path).map_err(unreadable)?;
    if metadata.len() != descriptor.size_bytes {
        return Err(wrong_size(descriptor, metadata.len()).with_detail("path", path.display().to_string()));
    }
    let mut writer = store.writer()?;
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        job.check()?;
        let read = file.read(&mut buffer).map_err(unreadable)?;
        if read == 0 {
            break;
        }
        writer.write_all(&buffer[..read]).or_error(ErrorKind::LocalIo, || store.write_failed())?;
    }
    added
        .commit(writer, Some(descriptor.digest))
        .map_err(|error| error.with_detail("path", path.display().to_string()))?;
    Ok(())
}

pub(super) fn blob_path(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join("blobs/sha256").join(digest.hex())
}

/// The whole references that the annotations of an image give.
pub(super) fn references(image: &Descriptor) -> Vec<Reference> {
    let whole = |name: &String| name.contains(['/', ':']).then(|| name.parse().ok()).flatten();
    let name = image.annotations.get(NAME_ANNOTATION).and_then(whole);
    name.or_else(|| image.annotations.get(TAG_ANNOTATION).and_then(whole)).into_iter().collect()
}

/// The descriptor without what a layout says about its names.
pub(super) fn without_names(mut image: Descriptor) -> Descriptor {
    image.annotations.remove(NAME_ANNOTATION);
    image.annotations.remove(TAG_ANNOTATION);
    image
}

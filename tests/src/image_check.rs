//! Opens an image anywhere, recomputes every digest and size in it, and flattens its layers into one listing.
//!
//! Written without a line of windlass, straight from the OCI image specification (`manifest.md`, `config.md`,
//! `layer.md`): a mistake of the builder cannot hide behind the same mistake here. Next: `listing.rs`, the files of an
//! image; `compare.rs`, what two images differ in.
//!
//! ```no_run
//! use windlass_tests::image_check::{Ignoring, Image, Platform, compare};
//!
//! let ours = Image::from_layout("out".as_ref(), None, &Platform::amd64())?;
//! let theirs = Image::from_registry("127.0.0.1:5000/team/app:1", &Platform::amd64())?;
//! let differences = compare(&ours, &theirs, &Ignoring { mtimes: true, ..Ignoring::default() });
//! assert!(differences.is_empty(), "{}", differences.join("\n"));
//! # Ok::<(), windlass_tests::image_check::Error>(())
//! ```

mod blobs;
mod compare;
mod listing;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use compare::{Ignoring, compare, compare_files};
pub use listing::{Entry, Kind, Listing};

use blobs::{Blobs, Descriptor};

/// An image whose every byte was checked.
#[derive(Debug)]
pub struct Image {
    /// Digest of the manifest of the chosen platform.
    pub digest: String,
    /// Digest of what was opened: an index, or the manifest itself.
    pub root_digest: String,
    /// The manifest, as it is.
    pub manifest: Value,
    /// The image config, as it is.
    pub config: Value,
    /// The layers from the lowest to the highest.
    pub layers: Vec<Layer>,
    /// The files of all layers together.
    pub files: Listing,
}

/// One layer, as its descriptor has it; digest, size and `diff_id` were recomputed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Tells the compression.
    pub media_type: String,
    /// Digest of the blob, which may be compressed.
    pub digest: String,
    /// Size of the blob.
    pub size_bytes: u64,
    /// Digest of the uncompressed tar.
    pub diff_id: String,
}

/// Which image of an index to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// In Go's words: `amd64`, `arm64`.
    pub architecture: String,
    /// `v8`; `None` accepts any.
    pub variant: Option<String>,
}

impl Platform {
    /// `linux/amd64`.
    pub fn amd64() -> Self {
        Self { os: "linux".into(), architecture: "amd64".into(), variant: None }
    }

    /// `linux/arm64`, whichever variant.
    pub fn arm64() -> Self {
        Self { os: "linux".into(), architecture: "arm64".into(), variant: None }
    }

    fn is(&self, platform: &Value) -> bool {
        platform["os"] == *self.os
            && platform["architecture"] == *self.architecture
            && self.variant.as_ref().is_none_or(|variant| platform["variant"] == **variant)
    }
}

impl Image {
    /// Opens an image of an OCI layout; without `tag`, the only one that is there.
    ///
    /// # Errors
    /// `Wrong` for whatever breaks the specification, with what it is about; `Read` for files that cannot be read.
    pub fn from_layout(layout: &Path, tag: Option<&str>, platform: &Platform) -> Result<Self, Error> {
        let (blobs, root) = Blobs::of_layout(layout, tag)?;
        Self::open(&blobs, &root, platform)
    }

    /// Opens an OCI archive, or a docker archive as `docker save` writes it. A docker archive has no manifest: the
    /// one of the result is made of what it says, with layers as they lie in it.
    ///
    /// # Errors
    /// As [`from_layout`](Self::from_layout).
    pub fn from_archive(archive: &Path, tag: Option<&str>, platform: &Platform) -> Result<Self, Error> {
        let (blobs, root) = Blobs::of_archive(archive, tag)?;
        Self::open(&blobs, &root, platform)
    }

    /// Fetches an image from a registry that speaks plain http, with skopeo, byte for byte.
    ///
    /// # Errors
    /// `Command` if skopeo cannot fetch it; otherwise as [`from_layout`](Self::from_layout).
    pub fn from_registry(reference: &str, platform: &Platform) -> Result<Self, Error> {
        let (blobs, root) = Blobs::of_registry(reference)?;
        Self::open(&blobs, &root, platform)
    }

    fn open(blobs: &Blobs, root: &Descriptor, platform: &Platform) -> Result<Self, Error> {
        let mut chosen = Vec::new();
        verify(blobs, root, platform, &mut BTreeSet::new(), &mut chosen)?;
        let [descriptor] = chosen.as_slice() else {
            let found = format!("{} manifests for {}/{}", chosen.len(), platform.os, platform.architecture);
            return Err(Error::wrong(&root.digest, format!("{found}, wanted one")));
        };

        let manifest = blobs.json(descriptor)?;
        let config = blobs.json(&Descriptor::parse(&manifest["config"], &descriptor.digest)?)?;
        let mut files = Listing::default();
        let mut layers = Vec::new();
        for layer in manifest["layers"].as_array().into_iter().flatten() {
            let layer = Descriptor::parse(layer, &descriptor.digest)?;
            let (tar, uncompressed) = blobs.uncompressed(&layer)?;
            files.apply_layer(tar, &layer.digest)?;
            layers.push(Layer {
                media_type: layer.media_type,
                digest: layer.digest,
                size_bytes: layer.size_bytes,
                diff_id: uncompressed.digest(),
            });
        }
        check_config(&config, &layers, &descriptor.digest)?;
        Ok(Self {
            digest: descriptor.digest.clone(),
            root_digest: root.digest.clone(),
            manifest,
            config,
            layers,
            files,
        })
    }
}

/// Recomputes digest and size of `descriptor` and of everything below it, and collects the manifests of `platform`.
fn verify(
    blobs: &Blobs,
    descriptor: &Descriptor,
    platform: &Platform,
    seen: &mut BTreeSet<String>,
    chosen: &mut Vec<Descriptor>,
) -> Result<(), Error> {
    if seen.insert(descriptor.digest.clone()) {
        blobs.verify(descriptor)?;
    }
    let parse = |value: &Value| Descriptor::parse(value, &descriptor.digest);
    if descriptor.is_index() {
        let index = blobs.json(descriptor)?;
        expect_media_type(&index, descriptor)?;
        for entry in index["manifests"].as_array().into_iter().flatten() {
            let member = parse(entry)?;
            // What an entry leaves out about its platform is not a wildcard: it says nothing, and only the manifest's
            // config can tell. Builders that write an index always say it.
            let wanted = platform.is(&entry["platform"]);
            let mut below = Vec::new();
            verify(blobs, &member, platform, seen, &mut below)?;
            if wanted {
                chosen.append(&mut below);
            }
        }
        return Ok(());
    }
    if !descriptor.is_manifest() {
        return Err(Error::wrong(&descriptor.digest, format!("`{}` is no image", descriptor.media_type)));
    }
    let manifest = blobs.json(descriptor)?;
    expect_media_type(&manifest, descriptor)?;
    let layers = manifest["layers"].as_array().into_iter().flatten();
    for value in std::iter::once(&manifest["config"]).chain(layers) {
        let blob = parse(value)?;
        if seen.insert(blob.digest.clone()) {
            blobs.verify(&blob)?;
        }
    }
    chosen.push(descriptor.clone());
    Ok(())
}

/// OCI may leave the media type out; when it is there, it must be the descriptor's.
fn expect_media_type(document: &Value, descriptor: &Descriptor) -> Result<(), Error> {
    match document["mediaType"].as_str() {
        Some(media_type) if media_type != descriptor.media_type => {
            let detail =
                format!("says it is `{media_type}`, its descriptor says `{}`", descriptor.media_type);
            Err(Error::wrong(&descriptor.digest, detail))
        }
        _ => Ok(()),
    }
}

/// The config must name the layers in order, and its history must have one line a layer besides the empty ones.
fn check_config(config: &Value, layers: &[Layer], digest: &str) -> Result<(), Error> {
    let named = config["rootfs"]["diff_ids"].as_array().into_iter().flatten();
    let named: Vec<&str> = named.filter_map(Value::as_str).collect();
    let found: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    if named != found {
        return Err(Error::wrong(digest, format!("diff_ids are {named:?}, but the layers have {found:?}")));
    }
    if let Some(history) = config["history"].as_array() {
        let filled = history.iter().filter(|line| line["empty_layer"] != true).count();
        if filled != layers.len() {
            let detail = format!("history tells of {filled} layers, but there are {}", layers.len());
            return Err(Error::wrong(digest, detail));
        }
    }
    Ok(())
}

/// Why an image could not be opened.
#[derive(Debug)]
pub enum Error {
    /// A file could not be read or written.
    Read {
        /// The file.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
    /// A program that fetches the image failed.
    Command {
        /// Program and arguments.
        command: String,
        /// What it wrote to standard error.
        stderr: String,
    },
    /// The image is not what the specification asks for, or not what a descriptor promised.
    Wrong {
        /// Digest, or path, of the part that is wrong.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl Error {
    fn wrong(what: &str, detail: impl Into<String>) -> Self {
        Self::Wrong { what: what.to_owned(), detail: detail.into() }
    }

    fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, source } => write!(f, "could not read `{}`: {source}", path.display()),
            Self::Command { command, stderr } => write!(f, "`{command}` failed: {}", stderr.trim_end()),
            Self::Wrong { what, detail } => write!(f, "`{what}`: {detail}"),
        }
    }
}

impl std::error::Error for Error {}

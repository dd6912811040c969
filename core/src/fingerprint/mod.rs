//! What a request amounts to, as one hash.
//!
//! A [`Fingerprint`] is the same on every machine, whatever the order, times and owners of the
//! files; it changes with everything that changes the image. It ends up as a tag, so that an image
//! can be found instead of built. A [`StatCache`] makes it quick; a [`Record`] says what changed.

use std::collections::BTreeMap;

use crate::Result;
use crate::backend::Job;
use crate::context::{Context, Entry, EntryKind};
use crate::digest::Digest;
use crate::error::{ErrorKind, ResultExt};
use crate::request::{BuildRequest, NamedContext};

mod file_hashes;
mod record;
mod stable_hash;
mod stat_cache;
mod tree;

pub use file_hashes::FileHashes;
pub use record::{Change, Record};
pub use stable_hash::{StableHash, StableHasher};
pub use stat_cache::StatCache;
pub(crate) use tree::on_all_cores;
pub use tree::{context_digest, hash_files};

/// Goes up when a fingerprint comes to mean something else: images found by the old ones are then
/// built again.
const PURPOSE: &str = "windlass fingerprint 1";

/// The hash of everything in a request that changes the image.
#[derive(Clone, Debug)]
pub struct Fingerprint {
    digest: Digest,
    settings: BTreeMap<String, String>,
    trees: Vec<Tree>,
}

/// One file tree among the inputs.
#[derive(Clone, Debug)]
struct Tree {
    /// The name of a named context; empty for the build context.
    name: String,
    entries: Vec<Entry>,
    hashes: Vec<Option<Digest>>,
}

impl Fingerprint {
    /// The whole hash.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The tag that it becomes: `fp-` and the first 32 hexadecimal digits.
    pub fn tag(&self) -> String {
        format!("fp-{}", &self.digest.hex()[..32])
    }

    /// Everything that went into it, by name. Values are hashes where they might be private.
    pub fn inputs(&self) -> impl Iterator<Item = (String, String)> {
        let settings = self.settings.iter().map(|(name, value)| (name.clone(), value.clone()));
        settings.chain(self.trees.iter().flat_map(Tree::inputs))
    }
}

/// Computes the fingerprint of a request. Blocking.
///
/// `entries` is what [`Context::list`] gave for the context of the request; `base_digests` are the
/// digests of base images where they are known, by the name that the Dockerfile uses.
///
/// # Errors
/// `ContextUnreadable`, naming the path; `InvalidInput` for a named context that is no directory;
/// `Cancelled`.
pub fn fingerprint(
    request: &BuildRequest,
    entries: &[Entry],
    base_digests: &BTreeMap<String, Digest>,
    cache: &StatCache,
    job: &Job,
) -> Result<Fingerprint> {
    let mut settings = request_settings(request);
    for (name, digest) in base_digests {
        settings.insert(format!("base image {name}"), digest.to_string());
    }
    let hashes = hash_files(&request.context, entries, cache, job)?;
    let mut trees = vec![Tree { name: String::new(), entries: entries.to_vec(), hashes }];
    for (name, context) in &request.build_contexts {
        if let Some(tree) = named_context(name, context, request, &mut settings, cache, job)? {
            trees.push(tree);
        }
    }
    let mut hasher = StableHasher::new(PURPOSE);
    settings.stable_hash(&mut hasher);
    hasher.list(trees.len());
    for tree in &trees {
        tree.name.stable_hash(&mut hasher);
        tree::hash_tree(&tree.entries, &tree.hashes, &mut hasher);
    }
    Ok(Fingerprint { digest: hasher.finish(), settings, trees })
}

/// Everything but files. Values of build arguments and labels are hashed: they may be private.
fn request_settings(request: &BuildRequest) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    let mut set = |name: String, value: String| {
        settings.insert(name, value);
    };
    set("Dockerfile".into(), Digest::of(&request.dockerfile.content).hex());
    if let Some(target) = &request.target {
        set("target stage".into(), target.clone());
    }
    for platform in &request.platforms {
        set(format!("platform {platform}"), "wanted".into());
    }
    if let Some(epoch) = request.source_date_epoch {
        set("SOURCE_DATE_EPOCH".into(), epoch.to_string());
    }
    for (kind, values) in [
        ("build argument", &request.build_args),
        ("label", &request.labels),
        ("annotation", &request.annotations),
    ] {
        for (name, value) in values {
            set(format!("{kind} {name}"), Digest::of(value).hex());
        }
    }
    for (index, option) in request.engine_options.iter().enumerate() {
        let value = option.value.as_deref().unwrap_or_default();
        set(format!("option {} {}", index + 1, option.name), Digest::of(value).hex());
    }
    settings
}

fn named_context(
    name: &str,
    context: &NamedContext,
    request: &BuildRequest,
    settings: &mut BTreeMap<String, String>,
    cache: &StatCache,
    job: &Job,
) -> Result<Option<Tree>> {
    let value = match context {
        NamedContext::Image(reference) => reference.to_string(),
        NamedContext::OciLayout { digest: Some(digest), .. } => digest.to_string(),
        NamedContext::OciLayout { directory, tag, digest: None } => {
            let index = std::fs::read(directory.join("index.json"))
                .or_error(ErrorKind::InvalidInput, || {
                    format!("could not read the OCI layout of the context `{name}`")
                })?;
            format!("{} of {}", tag.as_deref().unwrap_or("latest"), Digest::of(index))
        }
        NamedContext::Other(text) => text.clone(),
        NamedContext::Directory(directory) => {
            let context = Context::from_dir(directory, None, request.context.settings())?;
            let entries = context.list(job)?;
            let hashes = hash_files(&context, &entries, cache, job)?;
            return Ok(Some(Tree { name: name.to_owned(), entries, hashes }));
        }
    };
    settings.insert(format!("context {name}"), value);
    Ok(None)
}

impl Tree {
    fn inputs(&self) -> impl Iterator<Item = (String, String)> {
        let of = if self.name.is_empty() { String::new() } else { format!(" of context {}", self.name) };
        self.entries.iter().zip(&self.hashes).map(move |(entry, hash)| {
            // Names that are no text are shown so that two of them stay two.
            let path = entry.path.as_bytes();
            let path = str::from_utf8(path).map_or_else(|_| path.escape_ascii().to_string(), str::to_owned);
            let mode = entry.mode;
            match &entry.kind {
                EntryKind::Directory => (format!("directory {path}{of}"), format!("{mode:04o} directory")),
                EntryKind::Symlink { target } => {
                    (format!("link {path}{of}"), format!("{mode:04o} to {}", String::from_utf8_lossy(target)))
                }
                EntryKind::File { .. } => {
                    let hash = hash.map_or_else(String::new, |hash| hash.hex());
                    (format!("file {path}{of}"), format!("{mode:04o} {hash}"))
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;

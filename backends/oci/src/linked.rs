//! Layers that many builds of one program have in common: those of a `COPY --link` of one context. Such a
//! layer knows nothing of its base, so it is the same on every base: one build makes it, and the others
//! take it without hashing or laying out anything.
//!
//! Builds with one context have one listing. Where every build has a context of its own, as with recipes whose
//! Dockerfiles differ, the entries that are copied are compared as the cache of file hashes does it.
//!
//! What is the same between two programs, the store knows: `making.rs`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::OwnedMutexGuard;
use windlass_core::backend::Job;
use windlass_core::context::{ContextPath, Entry, EntryKind, EntrySource};
use windlass_core::digest::Digest;
use windlass_core::dockerfile::Copy;
use windlass_core::error::Result;
use windlass_core::fingerprint::StableHasher;

use crate::instructions::Expanded;
use crate::removal::Waiting;
use crate::stage::{Layer, Stage};
use crate::stages::Interpreter;

/// So many layers are remembered though no listing of theirs is in use.
const REMEMBERED: usize = 256;
/// A file that changed later than this before it was listed may change again without a trace: as long as the
/// cache of file hashes wants it.
const REST: Duration = Duration::from_secs(4);

/// The layers that were made in this program.
#[derive(Clone, Debug, Default)]
pub(crate) struct LinkedLayers(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Those of listings that are still in use.
    listings: Vec<OfListing>,
    /// The same by the words of the instruction and the entries it copies.
    entries: BTreeMap<Digest, Slot>,
}

#[derive(Debug)]
struct OfListing {
    /// The listing. While this is here, nothing else has its address.
    entries: Weak<[Entry]>,
    layers: BTreeMap<String, Slot>,
}

type Slot = Arc<tokio::sync::Mutex<Option<Layer>>>;

/// The place of a layer, which is ours alone as long as this is held.
pub(crate) type Place = OwnedMutexGuard<Option<Layer>>;

impl LinkedLayers {
    /// The place of the layer that an instruction in these words makes of these sources in a listing. Waits
    /// while another build makes it.
    ///
    /// # Errors
    /// `Cancelled`.
    pub(crate) async fn place(
        &self,
        entries: &Arc<[Entry]>,
        sources: &[String],
        words: String,
        job: &Job,
    ) -> Result<Place> {
        let slot = match self.slot_of_listing(entries, &words) {
            Some(slot) => slot,
            None => {
                let (listing, sources, text) = (entries.clone(), sources.to_vec(), words.clone());
                let key = job.blocking(move |_| Ok(key(&listing, &sources, &text))).await?;
                self.add(entries, words, key)
            }
        };
        job.run(async { Ok(slot.lock_owned().await) }).await
    }

    /// Says whether any layer was made, or is being made.
    pub(crate) fn has_any(&self) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !known.listings.is_empty() || !known.entries.is_empty()
    }

    fn slot_of_listing(&self, entries: &Arc<[Entry]>, words: &str) -> Option<Slot> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.listings.iter().find(|listing| listing.is_of(entries))?.layers.get(words).cloned()
    }

    fn add(&self, entries: &Arc<[Entry]>, words: String, key: Option<Digest>) -> Slot {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { listings, entries: by_entries } = &mut *known;
        listings.retain(|listing| listing.entries.strong_count() > 0);
        if by_entries.len() >= REMEMBERED {
            by_entries.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        let slot = match key {
            Some(key) => by_entries.entry(key).or_default().clone(),
            None => Slot::default(),
        };
        let listing = match listings.iter_mut().find(|listing| listing.is_of(entries)) {
            Some(listing) => listing,
            None => {
                listings.push(OfListing { entries: Arc::downgrade(entries), layers: BTreeMap::new() });
                listings.last_mut().expect("it was just added")
            }
        };
        // Another build of the same listing may have been quicker.
        listing.layers.entry(words).or_insert(slot).clone()
    }
}

impl OfListing {
    fn is_of(&self, entries: &Arc<[Entry]>) -> bool {
        std::ptr::addr_eq(self.entries.as_ptr(), Arc::as_ptr(entries))
    }
}

/// What tells that an instruction makes the same layer of another listing; `None` if nothing does, because a
/// file was changed just now.
fn key(entries: &[Entry], sources: &[String], words: &str) -> Option<Digest> {
    let now = SystemTime::now().checked_sub(REST)?.duration_since(UNIX_EPOCH).ok()?;
    let rested = i64::try_from(now.as_nanos()).ok()?;
    let wanted = prefixes(entries, sources);
    let mut hasher = StableHasher::new("windlass linked layer 1");
    hasher.bytes(words.as_bytes());
    let is_wanted = |entry: &&Entry| {
        wanted.as_ref().is_none_or(|wanted| wanted.iter().any(|above| entry.path.below(above).is_some()))
    };
    for entry in entries.iter().filter(is_wanted) {
        hasher.bytes(entry.path.as_bytes());
        hasher.number(u64::from(entry.mode));
        hasher.number(entry.mtime.cast_unsigned());
        match (&entry.kind, &entry.source) {
            (EntryKind::Directory, _) => hasher.number(0),
            (EntryKind::Symlink { target }, _) => {
                hasher.number(1);
                hasher.bytes(target);
            }
            (EntryKind::File { .. }, EntrySource::Memory(content)) => {
                hasher.number(2);
                hasher.bytes(content);
            }
            (EntryKind::File { .. }, EntrySource::Disk(state)) => {
                if state.mtime_ns.max(state.ctime_ns) >= rested {
                    return None;
                }
                hasher.number(3);
                let times = [state.mtime_ns.cast_unsigned(), state.ctime_ns.cast_unsigned()];
                let numbers = [state.size_bytes, state.inode, state.device];
                times.into_iter().chain(numbers).for_each(|number| hasher.number(number));
            }
        }
    }
    Some(hasher.finish())
}

/// The paths that the sources lie in; `None` if they may mean anything.
fn prefixes(entries: &[Entry], sources: &[String]) -> Option<Vec<ContextPath>> {
    let is_link = |path: &ContextPath| {
        let found = entries.binary_search_by(|entry| entry.path.cmp(path));
        found.is_ok_and(|place| matches!(entries[place].kind, EntryKind::Symlink { .. }))
    };
    let prefix = |source: &String| {
        if source.contains(['*', '?', '[', '\\']) {
            return None;
        }
        let path = ContextPath::clean(source.trim_start_matches('/'))?;
        let mut above = Some(path.clone());
        // What is behind a link lies elsewhere.
        while let Some(part) = above.filter(|part| !part.is_root()) {
            if is_link(&part) {
                return None;
            }
            above = part.parent();
        }
        Some(path)
    };
    sources.iter().map(prefix).collect()
}

impl Interpreter<'_> {
    /// The place of the layer among those that builds share: it is that of a linked COPY from the context,
    /// and nothing else shows in it.
    pub(super) async fn place_of_layer(
        &self,
        index: usize,
        stage: &Stage,
        copy: &Copy,
        expanded: &Expanded,
    ) -> Result<Option<Place>> {
        let is_shared = expanded.link && copy.from.is_none() && expanded.wanted.is_empty();
        if !is_shared || !expanded.has_paths() || self.workshop.no_cache {
            return Ok(None);
        }
        let job = &self.jobs[index];
        let hidden: Vec<_> = stage.waiting.iter().map(Waiting::paths).collect();
        let (working_dir, common) = (&stage.config.config.working_dir, self.workshop.words());
        let words = format!("{expanded:?} {working_dir:?} {hidden:?} {common}");
        let entries = self.listing(job).await?;
        self.workshop.linked.place(&entries, &expanded.sources, words, job).await.map(Some)
    }

    /// The listing of the main context.
    async fn listing(&self, job: &Job) -> Result<Arc<[Entry]>> {
        let context = self.request.context.clone();
        job.blocking(move |job| context.list_once(job)).await
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::context::Context;
    use windlass_core::image::Descriptor;

    use super::*;

    fn listing(files: &[(&str, &'static str)]) -> Arc<[Entry]> {
        let mut context = Context::empty();
        for (path, content) in files {
            context.insert(ContextPath::from_clean(*path), *content, 0o644);
        }
        context.list_once(&Job::silent()).expect("in memory")
    }

    fn layer() -> Layer {
        Layer { descriptor: Descriptor::of("x", b"1"), diff_id: Digest::of(b"2") }
    }

    #[tokio::test]
    async fn a_layer_is_that_of_every_listing_with_the_same_sources() {
        let (layers, job) = (LinkedLayers::default(), Job::silent());
        let first = listing(&[("code/a", "1"), ("Dockerfile", "FROM a")]);
        let place = async |listing: &Arc<[Entry]>, source: &str, words: &str| {
            layers.place(listing, &[source.to_owned()], words.to_owned(), &job).await.expect("free")
        };
        *place(&first, "code/", "copy").await = Some(layer());
        assert_eq!(*place(&first, "code/", "copy").await, Some(layer()));
        assert_eq!(*place(&first, "code/", "other").await, None);
        let second = listing(&[("code/a", "1"), ("Dockerfile", "FROM b")]);
        assert_eq!(*place(&second, "/code/", "copy").await, Some(layer()));
        let third = listing(&[("code/a", "2"), ("Dockerfile", "FROM a")]);
        assert_eq!(*place(&third, "code/", "copy").await, None);
        let fourth = listing(&[("code/a", "1"), ("code/b", "1"), ("Dockerfile", "FROM a")]);
        assert_eq!(*place(&fourth, "code/", "copy").await, None);
        drop((first, second));
        drop(place(&third, "code/", "more").await);
        assert_eq!(layers.0.lock().expect("lock").listings.len(), 2);
    }

    #[test]
    fn whatever_may_be_copied_counts() {
        let (one, other) = (listing(&[("a", "1"), ("b", "1")]), listing(&[("a", "1"), ("b", "2")]));
        for (source, same) in
            [("a", true), ("./a", true), ("b", false), ("*", false), (".", false), ("/", false)]
        {
            let key = |entries: &[Entry]| key(entries, &[source.to_owned()], "").expect("at rest");
            assert_eq!(key(&one) == key(&other), same, "{source}");
        }
        let mut context = Context::empty();
        context.insert_symlink(ContextPath::from_clean("link"), "a");
        let entries = context.list_once(&Job::silent()).expect("in memory");
        assert_eq!(prefixes(&entries, &["link/x".to_owned()]), None);
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("new"), "1").expect("written");
        let context = Context::from_dir(dir.path(), None, &Default::default()).expect("a context");
        let entries = context.list_once(&Job::silent()).expect("listed");
        assert_eq!(key(&entries, &[".".to_owned()], ""), None, "it is not at rest");
    }

    #[tokio::test]
    async fn whoever_waits_for_a_layer_can_be_stopped() {
        let (layers, job, listing) = (LinkedLayers::default(), Job::silent(), listing(&[("a", "1")]));
        let place = || layers.place(&listing, &[], "copy".to_owned(), &job);
        let held = place().await.expect("free");
        let mut waiting = Box::pin(place());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        job.cancel.cancel();
        assert!(waiting.await.is_err());
        drop(held);
    }
}

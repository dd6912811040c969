//! Layers that many builds of one program have in common: those of a `COPY --link` of one context. Such a
//! layer knows nothing of its base, so it is the same on every base: one build makes it, and the others
//! take it without listing, hashing or laying out anything.
//!
//! What is the same between two programs, the store knows: `making.rs`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;
use windlass_core::backend::Job;
use windlass_core::context::Entry;
use windlass_core::dockerfile::Copy;
use windlass_core::error::Result;

use crate::instructions::Expanded;
use crate::removal::Waiting;
use crate::stage::{Layer, Stage};
use crate::stages::Interpreter;

/// The layers that were made of listings that are still in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct LinkedLayers(Arc<Mutex<Vec<OfListing>>>);

#[derive(Debug)]
struct OfListing {
    /// The listing. While this is here, nothing else has its address.
    entries: Weak<[Entry]>,
    layers: BTreeMap<String, Arc<tokio::sync::Mutex<Option<Layer>>>>,
}

/// The place of a layer, which is ours alone as long as this is held.
pub(crate) type Place = OwnedMutexGuard<Option<Layer>>;

impl LinkedLayers {
    /// The place of the layer that instructions in these words make of a listing. Waits while another build
    /// makes it.
    ///
    /// # Errors
    /// `Cancelled`.
    pub(crate) async fn place(&self, entries: &Arc<[Entry]>, words: String, job: &Job) -> Result<Place> {
        let place = {
            let mut listings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            listings.retain(|listing| listing.entries.strong_count() > 0);
            let known = listings.iter().position(|listing| listing.is_of(entries));
            let known = known.unwrap_or_else(|| {
                listings.push(OfListing { entries: Arc::downgrade(entries), layers: BTreeMap::new() });
                listings.len() - 1
            });
            listings[known].layers.entry(words).or_default().clone()
        };
        job.run(async { Ok(place.lock_owned().await) }).await
    }

    /// Says whether a layer was made of a listing, or is being made.
    pub(crate) fn has_any_of(&self, entries: &Arc<[Entry]>) -> bool {
        let listings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listings.iter().any(|listing| listing.is_of(entries))
    }
}

impl OfListing {
    fn is_of(&self, entries: &Arc<[Entry]>) -> bool {
        std::ptr::addr_eq(self.entries.as_ptr(), Arc::as_ptr(entries))
    }
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
        self.workshop.linked.place(&entries, words, job).await.map(Some)
    }

    /// Says whether another build has made layers of the main context.
    pub(super) async fn is_known(&self, index: usize) -> bool {
        let listing = self.listing(&self.jobs[index]).await;
        listing.is_ok_and(|entries| self.workshop.linked.has_any_of(&entries))
    }

    /// The listing of the main context.
    async fn listing(&self, job: &Job) -> Result<Arc<[Entry]>> {
        let context = self.request.context.clone();
        job.blocking(move |job| context.list_once(job)).await
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::context::{Context, ContextPath};
    use windlass_core::digest::Digest;
    use windlass_core::image::Descriptor;

    use super::*;

    fn listing() -> Arc<[Entry]> {
        let mut context = Context::empty();
        context.insert(ContextPath::from_clean("a"), "1", 0o644);
        context.list_once(&Job::silent()).expect("in memory")
    }

    #[tokio::test]
    async fn a_layer_belongs_to_one_listing_and_goes_with_it() {
        let (layers, job) = (LinkedLayers::default(), Job::silent());
        let layer = Layer { descriptor: Descriptor::of("x", b"1"), diff_id: Digest::of(b"2") };
        let (first, second) = (listing(), listing());
        assert!(!layers.has_any_of(&first));
        *layers.place(&first, "copy".to_owned(), &job).await.expect("free") = Some(layer.clone());
        assert_eq!(*layers.place(&first, "copy".to_owned(), &job).await.expect("free"), Some(layer));
        assert_eq!(*layers.place(&first, "other".to_owned(), &job).await.expect("free"), None);
        assert_eq!(*layers.place(&second, "copy".to_owned(), &job).await.expect("free"), None);
        drop(first);
        drop(layers.place(&second, "copy".to_owned(), &job).await.expect("free"));
        assert_eq!(layers.0.lock().expect("lock").len(), 1);
    }

    #[tokio::test]
    async fn whoever_waits_for_a_layer_can_be_stopped() {
        let (layers, job, listing) = (LinkedLayers::default(), Job::silent(), listing());
        let held = layers.place(&listing, "copy".to_owned(), &job).await.expect("free");
        let mut waiting = Box::pin(layers.place(&listing, "copy".to_owned(), &job));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        job.cancel.cancel();
        assert!(waiting.await.is_err());
        drop(held);
    }
}

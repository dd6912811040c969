//! Making the layer of a change, unless the same layer was made before.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Arc, PoisonError};

use windlass_core::archive::{Compressor, TarEntry};
use windlass_core::backend::Job;
use windlass_core::digest::{Digest, DigestWriter};
use windlass_core::error::{ErrorKind, Result, ResultExt};
use windlass_core::events::Step;
use windlass_core::image::{BlobWriter, Descriptor, LayerIndex, LayerKey, LayerMemo, LayerShape};
use windlass_core::registry::BlobSink;

use crate::ahead::Ahead;
use crate::base::Bases;
use crate::change::Change;
use crate::layer::{self, Plan, ReadEntry};
use crate::stage::Layer;
use crate::tree::Tree;
use crate::workshop::Workshop;

/// A smaller layer is sent when it is finished: it may be there, which is only known then.
const STREAMED_FROM_BYTES: u64 = 8 << 20;

/// Of a smaller layer, nothing is worth being looked up.
const WITH_CACHE_FROM_BYTES: u64 = 1 << 20;

/// The layer of a change.
pub(crate) struct Made {
    /// The layer.
    pub(crate) layer: Layer,
    /// The files, which know now where their content is.
    pub(crate) tree: Arc<Tree>,
    /// It was made before.
    pub(crate) reused: bool,
}

/// A layer before it is written.
struct Order {
    plan: Plan,
    members: Vec<TarEntry>,
    shape: LayerShape,
}

/// What is known of a layer that is wanted.
enum Found {
    /// It was made before, and can be used.
    Usable(Box<Layer>),
    /// It was made before, and has to be made again.
    Known,
    /// It was never made here.
    Nothing,
}

impl Workshop {
    /// Makes the layer of a change, or takes the one that was made of the same before. One that the
    /// image will have (`exported`) is sent ahead where the image goes to a registry.
    ///
    /// # Errors
    /// Those of reading the files and of the store; `BuildFailed` for names that cannot be in a layer.
    pub(crate) async fn layer(
        &self,
        change: Change,
        exported: bool,
        bases: &Bases,
        step: &Arc<Step>,
        job: &Job,
    ) -> Result<Made> {
        let ahead = self.ahead.as_deref().filter(|_| exported);
        let compression = self.compression;
        let latest = self.latest;
        let arrange = move |_: &Job| {
            let mut plan = Plan::of(&change.tree, &change.touched)?;
            latest.into_iter().for_each(|latest| plan.clamp(latest));
            let members = plan.members();
            let shape = plan.shape(&members, compression);
            Ok((change.tree, Arc::new(Order { plan, members, shape })))
        };
        let (mut tree, order) = job.blocking(arrange).await?;
        let turn = self.turns.lock(BTreeSet::from([order.shape])).await;
        let found = self.find(&order, ahead, job).await?;
        let reused = matches!(found, Found::Usable(_));
        let layer = match found {
            Found::Usable(layer) => *layer,
            Found::Known | Found::Nothing => {
                self.fetch(order.plan.layers_read(), bases, job).await?;
                let is_new = matches!(found, Found::Nothing);
                self.make(&order, ahead, is_new, step, job).await?
            }
        };
        drop(turn);
        let diff_id = layer.diff_id;
        let settle = move |_: &Job| {
            order.plan.settle(Arc::make_mut(&mut tree), diff_id);
            Ok(tree)
        };
        Ok(Made { layer, tree: job.blocking(settle).await?, reused })
    }

    /// Makes sure that layers are here to be read.
    ///
    /// # Errors
    /// As [`Bases::fetch`].
    pub(crate) async fn fetch(
        &self,
        layers: impl IntoIterator<Item = Digest>,
        bases: &Bases,
        job: &Job,
    ) -> Result<()> {
        let known = |diff_id| Some(Layer { descriptor: self.sources.layer(diff_id)?, diff_id });
        let layers: Vec<Layer> = layers.into_iter().filter_map(known).collect();
        bases.fetch(&layers, job).await?;
        for layer in layers {
            let verify = || {
                let (workshop, layer) = (self.clone(), layer.clone());
                job.blocking(move |job| workshop.verify(&layer, job))
            };
            match verify().await {
                Ok(()) => {}
                // It was damaged and is gone: where it comes from may have it whole.
                Err(error)
                    if error.kind() == ErrorKind::Corrupt && !self.store.has(&layer.descriptor.digest) =>
                {
                    bases.fetch(std::slice::from_ref(&layer), job).await.map_err(|_| error)?;
                    verify().await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sees to it that what is read from a layer is what its image says, once in a build. A layer that is
    /// made of it is remembered by that: neither a disk that forgets nor an image that lies may get into it.
    fn verify(&self, layer: &Layer, job: &Job) -> Result<()> {
        let verified = || self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let known = (layer.descriptor.digest, layer.diff_id);
        if verified().contains(&known) {
            return Ok(());
        }
        self.store.verify_blob(&layer.descriptor, job)?;
        self.store.layer_index(&layer.descriptor, layer.diff_id, job)?;
        verified().insert(known);
        Ok(())
    }

    /// Looks for the same layer, from this build or an earlier one.
    async fn find(&self, order: &Arc<Order>, ahead: Option<&Ahead>, job: &Job) -> Result<Found> {
        let (workshop, remembered) = (self.clone(), order.clone());
        let memo = job.blocking(move |job| workshop.remembered(&remembered, job)).await?;
        let Some((memo, of_this_build)) = memo else { return Ok(Found::Nothing) };
        if self.no_cache && !of_this_build {
            return Ok(Found::Known);
        }
        let LayerMemo { descriptor, diff_id, .. } = memo;
        if !self.is_usable(&descriptor, ahead).await {
            return Ok(Found::Known);
        }
        Ok(Found::Usable(Box::new(Layer { descriptor, diff_id })))
    }

    /// Says whether a layer that was made before can be used: it is in the store, and goes where the image
    /// goes, or is there already.
    pub(crate) async fn is_usable(&self, layer: &Descriptor, ahead: Option<&Ahead>) -> bool {
        if !self.store.has_whole(layer) {
            return claim(ahead, layer).await;
        }
        if let Some(ahead) = ahead {
            ahead.send([layer.clone()]);
        }
        true
    }

    /// What is remembered of a layer, and whether this build made it. Reads files that are not known
    /// only if there was a layer that differs from this one in contents at most.
    fn remembered(&self, order: &Order, job: &Job) -> Result<Option<(LayerMemo, bool)>> {
        let of_this_build = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let made = of_this_build.get(&order.shape).cloned().unwrap_or_default();
        drop(of_this_build);
        let earlier = self.store.layer_memos(&order.shape);
        if made.is_empty() && earlier.is_empty() {
            return Ok(None);
        }
        let key = self.key(order, job)?;
        let made = made.into_iter().map(|memo| (memo, true));
        let mut all = made.chain(earlier.into_iter().map(|memo| (memo, false)));
        Ok(all.find(|(memo, _)| memo.key == key))
    }

    /// The key of a layer. Reads the files whose contents are not known yet.
    fn key(&self, order: &Order, job: &Job) -> Result<LayerKey> {
        let contexts = self.sources.contexts();
        let reads = order.plan.reads();
        for (number, listed) in contexts.iter().enumerate() {
            let wanted: Vec<usize> =
                reads.iter().filter(|(context, _)| *context == number).map(|(_, entry)| *entry).collect();
            listed.hashes.complete(&listed.context, &listed.entries, &wanted, job)?;
        }
        let known =
            |(context, entry): ReadEntry| contexts[context].hashes.get(entry).expect("all are complete");
        Ok(order.shape.with_contents(reads.into_iter().map(known)))
    }

    async fn make(
        &self,
        order: &Arc<Order>,
        ahead: Option<&Ahead>,
        is_new: bool,
        step: &Arc<Step>,
        job: &Job,
    ) -> Result<Layer> {
        let (stream, sink) = match ahead {
            // Of one that there was before, the registry is asked first.
            Some(ahead) if is_new && order.plan.size_bytes() >= STREAMED_FROM_BYTES => {
                ahead.stream().await.unzip()
            }
            _ => (None, None),
        };
        let (workshop, order, step) = (self.clone(), order.clone(), step.clone());
        let result = job.blocking(move |job| workshop.write(&order, sink, &step, job)).await;
        match (&result, stream, ahead) {
            (Ok(layer), Some(stream), Some(ahead)) => ahead.end(stream, layer.descriptor.clone()),
            (Ok(layer), None, Some(ahead)) => {
                ahead.start();
                ahead.send([layer.descriptor.clone()]);
            }
            (Err(_), Some(stream), _) => stream.abandon().await,
            _ => {}
        }
        result
    }

    /// Writes a layer in one pass: into the store, and on its way to a registry.
    fn write(&self, order: &Order, sink: Option<BlobSink>, step: &Step, job: &Job) -> Result<Layer> {
        let out = Tee { blob: self.store.writer()?, sink };
        let mut out = DigestWriter::new(self.compressor(order, out)?);
        let hashes = order.plan.write(&self.sources, &mut out, step, job)?;
        let (compressor, diff_id, _) = out.finish();
        let (Tee { blob, sink }, blocks) = compressor.finish_with_blocks().map_err(layer::write_error)?;
        // The upload can end while the disk is waited for.
        drop(sink);
        job.check()?;
        self.learn(hashes)?;
        let (digest, size_bytes) = blob.commit(None)?;
        let descriptor = Descriptor::new(layer::layer_type(self.compression), digest, size_bytes);
        let layer = Layer { descriptor, diff_id };
        // They make the next layer quicker, and are nothing that this one needs.
        let _ = self.store.keep_layer_blocks(&digest, &blocks);
        self.remember(order, &layer, job)?;
        Ok(layer)
    }

    /// A compressor that takes what did not change since an earlier layer from that.
    fn compressor(&self, order: &Order, out: Tee) -> Result<Compressor<Tee>> {
        let compressor = match order.plan.size_bytes() {
            WITH_CACHE_FROM_BYTES.. if !self.no_cache => {
                Compressor::with_cache(out, self.compression, self.store.layer_blocks())
            }
            _ => Compressor::new(out, self.compression),
        };
        compressor.or_error(ErrorKind::LocalIo, layer::cannot_write)
    }

    fn learn(&self, hashes: Vec<(ReadEntry, Digest)>) -> Result<()> {
        for (number, listed) in self.sources.contexts().iter().enumerate() {
            let of_context = hashes.iter().filter(|((context, _), _)| *context == number);
            listed.hashes.learn(&listed.entries, of_context.map(|((_, entry), hash)| (*entry, *hash)))?;
        }
        Ok(())
    }

    /// Remembers a layer, and what is in it. What cannot be remembered is made again; that is no
    /// reason to fail now.
    fn remember(&self, order: &Order, layer: &Layer, job: &Job) -> Result<()> {
        let (descriptor, diff_id) = (layer.descriptor.clone(), layer.diff_id);
        let memo = LayerMemo { key: self.key(order, job)?, diff_id, descriptor };
        let index = LayerIndex { diff_id, members: order.members.clone() };
        let _ = self.store.keep_layer_index(&memo.descriptor.digest, &index);
        let _ = self.store.remember_layer(&order.shape, memo.clone());
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.entry(order.shape).or_default().push(memo);
        Ok(())
    }
}

/// Whether a layer that is not in the store is where the image goes.
async fn claim(ahead: Option<&Ahead>, layer: &Descriptor) -> bool {
    match ahead {
        Some(ahead) => ahead.claim(layer).await,
        None => false,
    }
}

/// Writes into the store and to a registry.
struct Tee {
    blob: BlobWriter,
    sink: Option<BlobSink>,
}

impl Write for Tee {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.blob.write(buffer)?;
        if let Some(sink) = &mut self.sink {
            sink.write_all(&buffer[..written])?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.blob.flush()
    }
}

//! What outputs ask of layers that are there already: another compression.

use std::io::Write;
use std::sync::Arc;

use windlass_core::archive::{self, Compression, Compressor};
use windlass_core::backend::Job;
use windlass_core::digest::DigestWriter;
use windlass_core::error::{Error, ErrorKind, Result, ResultExt};
use windlass_core::image::{Descriptor, ImageStore, LayerMemo, LayerShape, media_type};

use crate::base::Bases;
use crate::layer;
use crate::stage::{Layer, Stage};

const READ_BUFFER: usize = 256 << 10;

/// Gives all layers of a stage one compression, by `force-compression`. Those that have it stay as they
/// are, at whatever level.
///
/// # Errors
/// As fetching layers; `Corrupt` for a layer that is not what its image says.
pub(crate) async fn recompress(
    bases: &Bases,
    stage: &Arc<Stage>,
    compression: Compression,
    job: &Job,
) -> Result<Arc<Stage>> {
    let mut layers = Vec::with_capacity(stage.layers.len());
    for layer in &stage.layers {
        layers.push(match has(layer, compression) {
            true => layer.clone(),
            false => recompressed(bases, layer, compression, job).await?,
        });
    }
    Ok(Arc::new(Stage { layers, ..(**stage).clone() }))
}

fn has(layer: &Layer, compression: Compression) -> bool {
    match layer.descriptor.media_type.as_str() {
        media_type::OCI_LAYER | media_type::DOCKER_LAYER => compression == Compression::None,
        media_type::OCI_LAYER_ZSTD | media_type::DOCKER_LAYER_ZSTD => {
            matches!(compression, Compression::Zstd { .. })
        }
        _ => matches!(compression, Compression::Gzip { .. }),
    }
}

/// A layer in another compression, from an earlier build if the store still has it.
async fn recompressed(bases: &Bases, layer: &Layer, compression: Compression, job: &Job) -> Result<Layer> {
    let shape = LayerShape::recompressed(compression, layer.diff_id);
    let key = shape.with_contents([layer.diff_id]);
    let made = bases.store.layer_memos(&shape).into_iter().find(|memo| memo.key == key);
    if let Some(memo) = made.filter(|memo| bases.store.has_whole(&memo.descriptor)) {
        return Ok(Layer { descriptor: memo.descriptor, diff_id: layer.diff_id });
    }
    bases.fetch(std::slice::from_ref(layer), job).await?;
    let step = job.events.step(format!("recompressing {}", layer.descriptor.digest.short()));
    let (store, from) = (bases.store.clone(), layer.clone());
    let written = job.blocking(move |job| write(&store, &from, compression, job)).await;
    let descriptor = step.end(written)?;
    let memo = LayerMemo { key, diff_id: layer.diff_id, descriptor: descriptor.clone() };
    // What cannot be remembered is made again.
    let _ = bases.store.remember_layer(&shape, memo);
    Ok(Layer { descriptor, diff_id: layer.diff_id })
}

fn write(store: &ImageStore, layer: &Layer, compression: Compression, job: &Job) -> Result<Descriptor> {
    let mut reader = store.open_layer(&layer.descriptor.digest)?;
    let compressor =
        Compressor::new(store.writer()?, compression).or_error(ErrorKind::LocalIo, layer::cannot_write)?;
    let mut out = DigestWriter::new(compressor);
    let mut buffer = vec![0; READ_BUFFER];
    loop {
        job.check()?;
        let read = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let message = || format!("the layer `{}` cannot be read", layer.descriptor.digest);
                return Err(archive::recover(error, |error| {
                    Error::new(ErrorKind::Corrupt, message()).with_source(error)
                }));
            }
        };
        out.write_all(&buffer[..read]).map_err(layer::write_error)?;
    }
    let (compressor, diff_id, _) = out.finish();
    if diff_id != layer.diff_id {
        let message =
            format!("the layer `{}` is `{diff_id}`, not `{}`", layer.descriptor.digest, layer.diff_id);
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    let (digest, size_bytes) = compressor.finish().map_err(layer::write_error)?.commit(None)?;
    Ok(Descriptor::new(layer::layer_type(compression), digest, size_bytes))
}

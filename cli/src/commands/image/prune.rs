//! Removing what no image needs.

use windlass_core::Result;
use windlass_core::image::Pruned;

use super::store;
use crate::args::Format;
use crate::output::bytes;
use crate::session::Session;

pub(super) async fn run(session: &Session<'_>) -> Result<()> {
    let store = store(session)?;
    let pruned = session.work(None, async |job| job.blocking(move |_| store.prune()).await).await?;
    match session.output.format {
        Format::Json => session.output.json(&serde_json::json!({
            "blobs": pruned.blobs,
            "size_bytes": pruned.size_bytes,
            "busy": pruned.busy,
        })),
        Format::Text | Format::Paths => session.output.result(&format!("{}\n", summary(&pruned))),
    }
}

/// What was removed, or why nothing was.
pub(super) fn summary(pruned: &Pruned) -> String {
    match pruned {
        Pruned { busy: true, .. } => {
            "another process uses the store: what is not needed any more is removed next time".to_owned()
        }
        Pruned { blobs: 0, .. } => "nothing to remove".to_owned(),
        Pruned { size_bytes, .. } => format!("{} freed", bytes(*size_bytes)),
    }
}

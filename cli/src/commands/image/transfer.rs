//! Images on their way: pull, push, load, save.

use windlass_core::Result;
use windlass_core::image::{Descriptor, FetchLayers, pull as pull_image, push as push_image};
use windlass_core::platform::Platform;
use windlass_core::reference::Reference;

use super::{resolve, store};
use crate::args::{Format, PullArgs, PushArgs};
use crate::output::bytes;
use crate::session::Session;

pub(super) async fn pull(args: &PullArgs, session: &Session<'_>) -> Result<()> {
    let reference: Reference = args.reference.parse()?;
    let platform = match (&args.platform, args.all_platforms) {
        (Some(platform), _) => Some(platform.parse()?),
        (None, true) => None,
        (None, false) => Some(Platform::host()),
    };
    let store = store(session)?;
    let client = &session.host.registry_client;
    let image = session
        .work(None, async |job| {
            let pulled =
                pull_image(client, &store, &reference, platform.as_ref(), FetchLayers::Now, job).await?;
            store.tag(&reference, &pulled.image)?;
            Ok(pulled.image)
        })
        .await?;
    show(&[reference], &image, session)
}

pub(super) async fn push(args: &PushArgs, session: &Session<'_>) -> Result<()> {
    let store = store(session)?;
    let source: Reference = args.source.parse()?;
    let image = resolve(&store, &source)?;
    let destination = args.destination.as_deref().map_or(Ok(source), str::parse)?;
    let references = [destination];
    let client = &session.host.registry_client;
    let pushed =
        session.work(None, async |job| push_image(client, &store, &image, &references, job).await).await?;
    let sent = format!(
        "{} sent, {} blobs mounted, {} there already",
        bytes(pushed.uploaded_bytes),
        pushed.mounted,
        pushed.existed
    );
    session.output.note(&sent);
    show(&references, &image, session)
}

/// Prints what an image is called now: `reference@digest`, one a line.
fn show(references: &[Reference], image: &Descriptor, session: &Session<'_>) -> Result<()> {
    match session.output.format {
        Format::Json => session.output.json(&serde_json::json!({
            "references": references,
            "digest": image.digest,
            "media_type": image.media_type,
        })),
        Format::Text | Format::Paths if references.is_empty() => {
            session.output.result(&format!("{}\n", image.digest))
        }
        Format::Text | Format::Paths => {
            let lines =
                references.iter().map(|reference| format!("{}\n", reference.with_digest(image.digest)));
            session.output.result(&lines.collect::<String>())
        }
    }
}

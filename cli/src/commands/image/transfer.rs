//! `windlass image pull` and `push`.

use windlass_core::image::{Descriptor, FetchLayers, PushSummary, pull as pull_image, push as push_image};
use windlass_core::platform::Platform;
use windlass_core::reference::Reference;
use windlass_core::{Error, ErrorKind, Result};

use super::{source, store};
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
            let layers = FetchLayers::Now;
            let pulled = pull_image(client, &store, &reference, platform.as_ref(), layers, job).await?;
            store.tag(&reference, &pulled.image)?;
            Ok(pulled.image)
        })
        .await?;
    show(&[reference], &image, session)
}

pub(super) async fn push(args: &PushArgs, session: &Session<'_>) -> Result<()> {
    let typed: Vec<Reference> = args.destinations.iter().map(|name| name.parse()).collect::<Result<_>>()?;
    let store = store(session)?;
    let mut named = source::one(&args.source, &store, session).await?;
    if let Some(platform) = &args.platform {
        named.image = source::platform_of(&store, &named.image, platform, &args.source)?;
    }
    let references = if typed.is_empty() { named.references } else { typed };
    if references.is_empty() {
        let message = format!("nothing says where to push the image of `{}`", args.source);
        return Err(Error::new(ErrorKind::InvalidInput, message)
            .with_hint("name it: `windlass image push SOURCE registry/repository:tag`"));
    }
    let client = &session.host.registry_client;
    let push = async |job: &_| push_image(client, &store, &named.image, &references, job).await;
    let pushed = session.work(None, push).await?;
    session.output.note(&summary(&pushed));
    show(&references, &named.image, session)
}

pub(super) fn summary(pushed: &PushSummary) -> String {
    let PushSummary { uploaded, uploaded_bytes, mounted, existed, .. } = pushed;
    if uploaded + mounted + existed == 0 {
        return "the registry has this image already".to_owned();
    }
    format!("{uploaded} blobs sent ({}), {mounted} mounted, {existed} there already", bytes(*uploaded_bytes))
}

/// Prints what an image is called now: `reference@digest`, one a line.
pub(super) fn show(references: &[Reference], image: &Descriptor, session: &Session<'_>) -> Result<()> {
    match session.output.format {
        Format::Json => session.output.json(&serde_json::json!({
            "references": references,
            "digest": image.digest,
            "media_type": image.media_type,
        })),
        Format::Text | Format::Paths => {
            let lines =
                references.iter().map(|reference| format!("{}\n", reference.with_digest(image.digest)));
            session.output.result(&lines.collect::<String>())
        }
    }
}

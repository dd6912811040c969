//! Whether the store is sound.

use windlass_core::backend::Job;
use windlass_core::digest::Digest;
use windlass_core::image::Verified;
use windlass_core::reference::Reference;
use windlass_core::{Error, ErrorKind, Result};

use super::{resolve, store};
use crate::args::{Format, VerifyArgs};
use crate::output::bytes;
use crate::session::Session;

pub(super) async fn run(args: &VerifyArgs, session: &Session<'_>) -> Result<()> {
    let store = store(session)?;
    let images = if args.references.is_empty() {
        store.list()?.into_iter().map(|image| image.descriptor).collect()
    } else {
        let image = |text: &String| resolve(&store, &text.parse::<Reference>()?);
        args.references.iter().map(image).collect::<Result<Vec<_>>>()?
    };
    let verify = async |job: &Job| {
        let step = job.events.step("verify the local store");
        step.end(job.blocking(move |job| store.verify(&images, job)).await)
    };
    let found = session.work(None, verify).await?;
    if session.output.format == Format::Json {
        session.output.json(&found)?;
    }
    unsound(&found)?;
    match session.output.format {
        Format::Json => Ok(()),
        Format::Text | Format::Paths => session.output.result(&format!("{}\n", summary(&found))),
    }
}

fn summary(found: &Verified) -> String {
    let Verified { sound, size_bytes, elsewhere, .. } = found;
    let there = format!("{sound} blobs are sound ({})", bytes(*size_bytes));
    match elsewhere {
        0 => there,
        elsewhere => format!("{there}; {elsewhere} are not in the store but at their registry"),
    }
}

/// Fails if anything is damaged or missing.
fn unsound(found: &Verified) -> Result<()> {
    let list = |digests: &[Digest]| digests.iter().map(Digest::to_string).collect::<Vec<_>>().join(", ");
    let Verified { damaged, missing, .. } = found;
    if damaged.is_empty() && missing.is_empty() {
        return Ok(());
    }
    let message = format!("the local store has {} damaged blobs and lacks {}", damaged.len(), missing.len());
    let mut error = Error::new(ErrorKind::Corrupt, message);
    if !damaged.is_empty() {
        error = error.with_detail("damaged, removed now", list(damaged));
    }
    if !missing.is_empty() {
        error = error.with_detail("missing", list(missing));
    }
    Err(error.with_hint("pull the image again, or build it again"))
}

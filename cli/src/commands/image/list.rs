//! What is in the local store, and taking it out.

use jiff::Timestamp;
use serde::Serialize;
use windlass_core::Result;
use windlass_core::digest::Digest;
use windlass_core::reference::Reference;

use super::{absent, prune, store};
use crate::args::{Format, RemoveArgs};
use crate::output::{Table, bytes};
use crate::session::Session;

#[derive(Serialize)]
struct Listed {
    reference: Reference,
    digest: Digest,
    media_type: String,
    /// Of the parts that are in the store; layers of a base may still be at their registry.
    size_bytes: u64,
    /// RFC 3339.
    tagged_at: String,
}

pub(super) fn list(session: &Session<'_>) -> Result<()> {
    let store = store(session)?;
    let mut listed = Vec::new();
    for image in store.list()? {
        // An image that another process removes at this moment has no size any more.
        let Ok(size_bytes) = store.stored_size_bytes(&image.descriptor) else { continue };
        let seconds = i64::try_from(image.tagged_at).unwrap_or(0);
        listed.push(Listed {
            reference: image.reference,
            digest: image.descriptor.digest,
            media_type: image.descriptor.media_type.clone(),
            size_bytes,
            tagged_at: Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH).to_string(),
        });
    }
    match session.output.format {
        Format::Json => session.output.json(&listed),
        Format::Text | Format::Paths => {
            let mut table = Table::new(["REFERENCE", "DIGEST", "SIZE", "TAGGED"]).align_right(2);
            for image in &listed {
                let tagged = image.tagged_at.replace('T', " ");
                table.row([
                    image.reference.familiar(),
                    image.digest.short(),
                    bytes(image.size_bytes),
                    tagged.trim_end_matches('Z').to_owned(),
                ]);
            }
            session.output.result(&table.render())
        }
    }
}

pub(super) fn remove(args: &RemoveArgs, session: &Session<'_>) -> Result<()> {
    let store = store(session)?;
    let references: Vec<Reference> = if args.all {
        store.list()?.into_iter().map(|image| image.reference).collect()
    } else {
        args.references.iter().map(|text| text.parse()).collect::<Result<_>>()?
    };
    // All or nothing: a slip in the last name must not cost the first image.
    let known = store.list()?;
    for reference in &references {
        if !known.iter().any(|image| image.reference == *reference) {
            return Err(absent(&store, reference));
        }
    }
    for reference in &references {
        store.untag(reference)?;
    }
    let pruned = store.prune()?;
    if pruned.busy || pruned.blobs > 0 {
        session.output.note(&prune::summary(&pruned));
    }
    match session.output.format {
        Format::Json => session.output.json(&references),
        Format::Text | Format::Paths => {
            let names = references.iter().map(|reference| reference.familiar() + "\n");
            session.output.result(&names.collect::<String>())
        }
    }
}

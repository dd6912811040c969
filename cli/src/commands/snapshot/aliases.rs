//! `windlass snapshot alias`, `aliases`, `unalias` and `retire`.

use serde_json::json;
use windlass_core::Result;
use windlass_image_builder::together::Management;

use super::id_of;
use crate::args::Format;
use crate::output::{Table, clean};
use crate::session::Session;

pub(super) async fn set(
    snapshot: &str,
    aliases: &[String],
    management: &Management,
    session: &Session<'_>,
) -> Result<()> {
    warn_of_sign(aliases, session);
    let id = session
        .work(None, async |job| {
            let id = id_of(snapshot, management, job).await?;
            for alias in aliases {
                management.alias(&id, alias, job).await?;
            }
            Ok(id)
        })
        .await?;
    match session.output.format {
        Format::Json => session.output.json(&json!({ "snapshot_id": id, "aliases": aliases })),
        Format::Text | Format::Paths => {
            let lines: String = aliases.iter().map(|alias| format!("{}\n", clean(alias))).collect();
            session.output.result(&lines)
        }
    }
}

pub(super) async fn list(snapshot: &str, management: &Management, session: &Session<'_>) -> Result<()> {
    let aliases = session
        .work(None, async |job| management.aliases(&id_of(snapshot, management, job).await?, job).await)
        .await?;
    if session.output.format == Format::Json {
        return session.output.json(&aliases);
    }
    if aliases.is_empty() && !snapshot.starts_with('@') {
        session.output.note(&format!(
            "no aliases. `{snapshot}` was taken as an id; where it is an alias, it is written `@{snapshot}`"
        ));
    }
    let mut table = Table::new(["ALIAS", "CREATED"]);
    for alias in &aliases {
        table.row([clean(&alias.alias), clean(alias.created_at.as_deref().unwrap_or("-"))]);
    }
    session.output.result(&table.render())
}

pub(super) async fn remove(aliases: &[String], management: &Management, session: &Session<'_>) -> Result<()> {
    warn_of_sign(aliases, session);
    session
        .work(None, async |job| {
            for alias in aliases {
                management.unalias(alias, job).await?;
            }
            Ok(())
        })
        .await?;
    match session.output.format {
        Format::Json => session.output.json(&json!({ "removed": aliases })),
        Format::Text | Format::Paths => Ok(()),
    }
}

pub(super) async fn retire(typed: &[String], management: &Management, session: &Session<'_>) -> Result<()> {
    let retired = session
        .work(None, async |job| {
            let mut retired = Vec::new();
            for snapshot in typed {
                let id = id_of(snapshot, management, job).await?;
                retired.push(management.retire(&id, job).await?);
            }
            Ok(retired)
        })
        .await?;
    match session.output.format {
        Format::Json => session.output.json(&retired),
        Format::Text | Format::Paths => {
            let lines: String = retired.iter().map(|snapshot| format!("{}\n", clean(&snapshot.id))).collect();
            session.output.result(&lines)
        }
    }
}

/// `@` marks an alias where an id could stand. Here it would be a part of the alias.
fn warn_of_sign(aliases: &[String], session: &Session<'_>) {
    for alias in aliases.iter().filter(|alias| alias.starts_with('@')) {
        session.output.warn(&format!("the alias `{alias}` is taken as it is, with the `@` in front"));
    }
}

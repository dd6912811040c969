//! `windlass snapshot list` and `get`.

use serde_json::Value;
use windlass_core::backend::Job;
use windlass_core::{Error, ErrorKind, Result};
use windlass_image_builder::together::{Management, Snapshot, SnapshotPage, SnapshotQuery};

use crate::args::{Format, GetArgs, GetForm, ListForm, ListSnapshotsArgs};
use crate::output::{Table, bytes, clean};
use crate::request::pairs;
use crate::session::Session;

/// The service gives no more in one answer.
const PAGE_LIMIT: u64 = 100;

pub(super) async fn list(
    args: &ListSnapshotsArgs,
    management: &Management,
    session: &Session<'_>,
) -> Result<()> {
    let query = SnapshotQuery {
        limit: args.limit,
        cursor: args.cursor.clone(),
        exclude_retired: args.exclude_retired,
        tags: pairs("--tag", &args.tags, None)?,
    };
    let listed = session.work(None, async |job| pages(query, args.all, management, job).await).await?;
    let json = match args.output {
        Some(form) => form == ListForm::Json,
        None => session.output.format == Format::Json,
    };
    if json {
        return session.output.json(&listed);
    }
    session.output.result(&as_table(&listed.data))?;
    match &listed.next_cursor {
        Some(cursor) if !args.ci => {
            session.output.note(&format!("there are more: `--cursor {cursor}` goes on, `--all` lists all"));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// As many pages as it takes.
async fn pages(
    mut query: SnapshotQuery,
    all: bool,
    management: &Management,
    job: &Job,
) -> Result<SnapshotPage> {
    let wanted = if all { Some(u64::MAX) } else { query.limit };
    let mut listed = SnapshotPage { data: Vec::new(), next_cursor: None };
    loop {
        let left = wanted.map(|wanted| wanted.saturating_sub(listed.data.len() as u64));
        query.limit = left.map(|left| left.min(PAGE_LIMIT));
        let page = management.list_snapshots(&query, job).await?;
        listed.data.extend(page.data);
        listed.next_cursor = page.next_cursor.filter(|cursor| !cursor.is_empty());
        let enough = wanted.is_none_or(|wanted| listed.data.len() as u64 >= wanted);
        match &listed.next_cursor {
            Some(next) if !enough && query.cursor.as_ref() == Some(next) => {
                let message = format!("`{}` gives the same page again and again", management.server());
                return Err(Error::new(ErrorKind::UnexpectedAnswer, message));
            }
            Some(next) if !enough => query.cursor = Some(next.clone()),
            _ => return Ok(listed),
        }
    }
}

fn as_table(snapshots: &[Snapshot]) -> String {
    let mut table = Table::new(["ID", "CREATED", "SIZE", "STATE", "TAGS"]).align_right(2);
    for snapshot in snapshots {
        table.row([
            clean(&snapshot.id),
            clean(snapshot.created_at.as_deref().unwrap_or("-")),
            snapshot.byte_size.map_or_else(|| "-".to_owned(), bytes),
            if snapshot.retired_at.is_some() { "retired" } else { "active" }.to_owned(),
            clean(&tags(snapshot)),
        ]);
    }
    table.render()
}

fn tags(snapshot: &Snapshot) -> String {
    let tags: Vec<String> = snapshot.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    tags.join(" ")
}

pub(super) async fn get(args: &GetArgs, management: &Management, session: &Session<'_>) -> Result<()> {
    let found = session.work(None, async |job| find(&args.snapshots, management, job).await).await?;
    let json = match args.output {
        Some(form) => form == GetForm::Json,
        None => session.output.format == Format::Json,
    };
    match (json, &found[..]) {
        // One that was asked for is one that is given.
        (true, [(_, Some(snapshot))]) if args.snapshots.len() == 1 => session.output.json(snapshot)?,
        (true, _) => {
            let there: Vec<&Snapshot> = found.iter().filter_map(|(_, snapshot)| snapshot.as_ref()).collect();
            session.output.json(&there)?;
        }
        (false, _) => {
            let there = found.iter().filter_map(|(_, snapshot)| snapshot.as_ref()).map(as_text);
            session.output.result(&there.collect::<Vec<_>>().join("\n"))?;
        }
    }
    let missing: Vec<&str> =
        found.iter().filter(|(_, snapshot)| snapshot.is_none()).map(|(typed, _)| typed.as_str()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("there is no snapshot `{}`", missing.join("`, `"));
    Err(Error::new(ErrorKind::NotFound, message)
        .with_hint("`windlass snapshot list` shows what there is; an alias is written `@ALIAS`"))
}

/// Each as it was typed. One alone is asked for alone; several ids are asked for at once.
async fn find(
    typed: &[String],
    management: &Management,
    job: &Job,
) -> Result<Vec<(String, Option<Snapshot>)>> {
    if let [one] = typed {
        return Ok(vec![(one.clone(), Some(management.get_snapshot(one, job).await?))]);
    }
    let ids: Vec<String> = typed.iter().filter(|typed| !typed.starts_with('@')).cloned().collect();
    let known = match ids.is_empty() {
        true => Vec::new(),
        false => management.get_snapshots(&ids, job).await?,
    };
    let mut found = Vec::new();
    for typed in typed {
        let snapshot = match typed.starts_with('@') {
            false => known.iter().find(|snapshot| snapshot.id.eq_ignore_ascii_case(typed)).cloned(),
            true => match management.get_snapshot(typed, job).await {
                Ok(snapshot) => Some(snapshot),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            },
        };
        found.push((typed.clone(), snapshot));
    }
    Ok(found)
}

/// One fact a line; what we do not know comes last.
fn as_text(snapshot: &Snapshot) -> String {
    let mut facts = Table::default();
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            facts.row([clean(name), clean(&value)]);
        }
    };
    add("id", Some(snapshot.id.clone()));
    add("state", Some(if snapshot.retired_at.is_some() { "retired" } else { "active" }.to_owned()));
    add("size", snapshot.byte_size.map(bytes));
    add("tags", Some(tags(snapshot)).filter(|tags| !tags.is_empty()));
    add("ttl", snapshot.ttl.map(|seconds| format!("{seconds} s")));
    add("created", snapshot.created_at.clone());
    add("updated", snapshot.updated_at.clone());
    add("retired", snapshot.retired_at.clone());
    add("project", snapshot.project_id.clone());
    add("organization", snapshot.organization_id.clone());
    for (name, value) in &snapshot.other {
        match value {
            Value::Null => {}
            Value::String(text) => add(name, Some(text.clone())),
            other => add(name, Some(other.to_string())),
        }
    }
    facts.render()
}

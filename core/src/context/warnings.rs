//! What a user should know about a context before it is sent.

use std::path::Path;

use super::dockerignore::Cursor;
use super::{Context, Entry, IgnoreRules};
use crate::Result;
use crate::backend::Job;

/// More names than this do not help.
const MOST_NAMES: usize = 5;

/// Warns about a very large context and about files that look like secrets, as the settings of
/// the context say. Call it once a build, with what [`Context::list`] gave.
///
/// # Errors
/// `InvalidInput` for a malformed pattern among the settings.
pub fn warnings(context: &Context, entries: &[Entry], job: &Job) -> Result<()> {
    let settings = context.settings();
    let size: u64 = entries.iter().map(Entry::size_bytes).sum();
    if settings.warn_size_bytes.is_some_and(|most| size > most) {
        job.events.warn(size_warning(entries, size, rules_of(context)));
    }
    if settings.warn_secrets {
        let patterns = IgnoreRules::parse(
            settings.secret_patterns.join("\n").as_bytes(),
            Path::new("secret patterns of the configuration"),
        )?;
        let mut patterns = Cursor::new(&patterns);
        let secrets: Vec<String> = entries
            .iter()
            .filter(|entry| entry.is_file() && patterns.excluded(&entry.path))
            .map(|entry| format!("`{}`", entry.path))
            .collect();
        if !secrets.is_empty() {
            job.events.warn(secrets_warning(&secrets, rules_of(context)));
        }
    }
    Ok(())
}

/// Where the user says what is left out. Mounted directories have rules of their own, wherever those stand.
fn rules_of(context: &Context) -> &'static str {
    if context.root().is_none() && !context.mounts().is_empty() {
        "the `ignore` of its source"
    } else {
        "`.dockerignore`"
    }
}

fn size_warning(entries: &[Entry], size: u64, rules: &str) -> String {
    let mut largest: Vec<&Entry> = entries.iter().filter(|entry| entry.is_file()).collect();
    let count = largest.len();
    largest.sort_by_key(|entry| std::cmp::Reverse(entry.size_bytes()));
    let largest: Vec<String> = largest
        .iter()
        .take(3)
        .map(|entry| format!("`{}` ({})", entry.path, amount(entry.size_bytes())))
        .collect();
    format!(
        "the build context is large: {} in {count} files, the largest {}; list what the image does not need in {rules}",
        amount(size),
        largest.join(", ")
    )
}

/// In the largest unit that leaves a number of one digit at least, rounded up.
fn amount(size: u64) -> String {
    match size {
        0..1_000 => format!("{size} B"),
        1_000..1_000_000 => format!("{} kB", size.div_ceil(1_000)),
        _ => format!("{} MB", size.div_ceil(1_000_000)),
    }
}

fn secrets_warning(secrets: &[String], rules: &str) -> String {
    let (shown, rest) = secrets.split_at(secrets.len().min(MOST_NAMES));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    let looks = if secrets.len() == 1 { "looks like a secret" } else { "look like secrets" };
    format!(
        "the build context holds what {looks}: {}{more}; list it in {rules} unless the image needs it",
        shown.join(", ")
    )
}

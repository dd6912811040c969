//! What images are called that nobody has named.

use std::collections::BTreeSet;

use crate::reference::Reference;

/// The last part of a repository, and its tag.
pub(super) fn short_name(reference: &Reference) -> String {
    let repository = reference.repository().rsplit('/').next().unwrap_or_default();
    format!("{repository} {}", reference.tag().unwrap_or_default())
}

/// The letters of a text that a directory may have anywhere.
pub(super) fn name_of(text: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let words = text.split(|c: char| !word(c)).filter(|word| !word.is_empty());
    let mut name = words.collect::<Vec<_>>().join("-");
    name.truncate(100);
    let name = name.trim_start_matches('.');
    if name.is_empty() { "image".to_owned() } else { name.to_owned() }
}

pub(super) fn free_name(name: &str, taken: &BTreeSet<String>) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.to_owned()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or_default()
}

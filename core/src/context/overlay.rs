//! Laying one list of entries over another.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;

use super::{ContextPath, Entry, EntryKind, EntrySource};

/// Lays entries over others, both sorted by path. An upper entry takes the place of a lower one; one that is
/// no directory hides what was below it. Directories above that are missing come with mode 0755, also where
/// something else stood.
pub(super) fn lay_over(lower: Vec<Entry>, mut upper: Vec<Entry>) -> Vec<Entry> {
    let missing = missing_directories(&lower, &upper);
    if !missing.is_empty() {
        upper.extend(missing.into_iter().map(directory));
        upper.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    }
    let mut hidden: Vec<Range<usize>> = upper
        .iter()
        .filter(|entry| !entry.is_directory())
        .map(|entry| places_below(&lower, &entry.path))
        .filter(|places| !places.is_empty())
        .collect();
    hidden.sort_unstable_by_key(|places| places.start);
    let mut hidden = hidden.into_iter().peekable();

    let mut all = Vec::with_capacity(lower.len() + upper.len());
    let mut upper = upper.into_iter().peekable();
    for (place, entry) in lower.into_iter().enumerate() {
        while let Some(before) = upper.next_if(|upper| upper.path < entry.path) {
            all.push(before);
        }
        while hidden.next_if(|places| places.end <= place).is_some() {}
        let is_hidden = hidden.peek().is_some_and(|places| places.contains(&place));
        if !is_hidden && upper.peek().is_none_or(|upper| upper.path != entry.path) {
            all.push(entry);
        }
    }
    all.extend(upper);
    all
}

/// Removes what lies below a path from a sorted list.
pub(super) fn remove_below(entries: &mut Vec<Entry>, path: &ContextPath) {
    let places = places_below(entries, path);
    entries.drain(places);
}

/// Where in a sorted list the entries are that lie below a path. They are in a row: `a.b` stands before
/// `a/b`, and `a0` after it.
fn places_below(entries: &[Entry], path: &ContextPath) -> Range<usize> {
    if path.is_root() {
        return 0..entries.len();
    }
    let first = [path.as_bytes(), b"/"].concat();
    let start = entries.partition_point(|entry| entry.path.as_bytes() < first.as_slice());
    let count = entries[start..].partition_point(|entry| entry.path.as_bytes().starts_with(&first));
    start..start + count
}

/// The directories above the upper entries that are in neither list.
fn missing_directories(lower: &[Entry], upper: &[Entry]) -> BTreeSet<ContextPath> {
    let is_directory = |entries: &[Entry], path: &ContextPath| {
        entries
            .binary_search_by(|entry| entry.path.cmp(path))
            .is_ok_and(|place| entries[place].is_directory())
    };
    let is_there = |path: &ContextPath| {
        upper.binary_search_by(|entry| entry.path.cmp(path)).is_ok() || is_directory(lower, path)
    };
    let mut missing = BTreeSet::new();
    let mut last = None;
    for entry in upper {
        let mut above = entry.path.parent();
        // Mostly that of the entry before.
        if above == last {
            continue;
        }
        last.clone_from(&above);
        while let Some(path) = above.filter(|path| !path.is_root()) {
            above = path.parent();
            if !is_there(&path) {
                missing.insert(path);
            }
        }
    }
    missing
}

fn directory(path: ContextPath) -> Entry {
    let source = EntrySource::Memory(Bytes::new());
    Entry { path, kind: EntryKind::Directory, mode: 0o755, mtime: 0, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> Entry {
        let kind = EntryKind::File { size_bytes: 0 };
        Entry { kind, mode: 0o644, ..directory(ContextPath::from_clean(path)) }
    }

    fn directory_with(path: &str, mode: u32) -> Entry {
        Entry { mode, ..directory(ContextPath::from_clean(path)) }
    }

    fn laid(lower: Vec<Entry>, upper: Vec<Entry>) -> Vec<(String, u32)> {
        lay_over(lower, upper).into_iter().map(|entry| (entry.path.to_string(), entry.mode)).collect()
    }

    fn modes(expected: &[(&str, u32)]) -> Vec<(String, u32)> {
        expected.iter().map(|(path, mode)| ((*path).to_owned(), *mode)).collect()
    }

    #[test]
    fn the_upper_one_counts_and_what_is_missing_above_comes_too() {
        let lower = vec![directory_with("a", 0o700), file("a.b"), file("a/x"), file("z")];
        let upper = vec![Entry { mode: 0o600, ..file("a/x") }, file("b/c/d"), file("b/c/e")];
        let expected = [
            ("a", 0o700),
            ("a.b", 0o644),
            ("a/x", 0o600),
            ("b", 0o755),
            ("b/c", 0o755),
            ("b/c/d", 0o644),
            ("b/c/e", 0o644),
            ("z", 0o644),
        ];
        assert_eq!(laid(lower, upper), modes(&expected));
    }

    #[test]
    fn a_file_hides_what_was_below_and_gives_way_to_a_directory() {
        let lower = vec![directory_with("a", 0o700), file("a.b"), file("a/x"), file("a/y"), file("a0")];
        assert_eq!(laid(lower, vec![file("a")]), modes(&[("a", 0o644), ("a.b", 0o644), ("a0", 0o644)]));
        let lower = vec![file("a"), file("b")];
        let expected = [("a", 0o755), ("a/x", 0o644), ("b", 0o644)];
        assert_eq!(laid(lower, vec![file("a/x")]), modes(&expected));
    }
}

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

/// Whether a name that the list gives can be that of a directory.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && name_of(text) == text
}

/// The name with a number behind it, where others have it already.
pub(super) fn free_name(name: &str, taken: &BTreeSet<String>) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.to_owned()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_be_a_directory() {
        let long = "a".repeat(101);
        for bad in ["", ".", "..", "../x", "a/b", ".hidden", "a b", "ä", &long] {
            assert!(!is_name(bad), "{bad}");
        }
        assert!(is_name("agent-1.2_x"));
        assert_eq!(name_of("r.io:5000/Team/agent  1"), "r.io-5000-Team-agent-1");
        assert_eq!(name_of("//"), "image");
    }

    #[test]
    fn a_name_that_is_taken_gets_a_number() {
        let taken = BTreeSet::from(["a".to_owned(), "a-2".to_owned()]);
        assert_eq!((free_name("a", &taken).as_str(), free_name("b", &taken).as_str()), ("a-3", "b"));
    }
}

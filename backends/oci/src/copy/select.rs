//! Which files a source of COPY means: a path, or a pattern in the sense of Go's `filepath.Match`.

use windlass_core::error::{Error, ErrorKind, Result};

use crate::go_match;
use crate::tree::Tree;

/// What a source of COPY means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selected {
    /// The paths, links of their last part not yet followed.
    pub(crate) paths: Vec<Vec<u8>>,
    /// The source had wildcards: it may mean nothing at all.
    pub(crate) pattern: bool,
}

/// Finds what a source means in a tree. Paths start at the root of the tree, and `..` cannot lead
/// out of it.
///
/// # Errors
/// `InvalidDockerfile` for a pattern that cannot be read; `BuildFailed` for links in a circle.
pub(crate) fn select(tree: &Tree, source: &str) -> Result<Selected> {
    let parts = clean(source.as_bytes());
    let plain = parts.iter().take_while(|part| !go_match::has_wildcards(part)).count();
    let fixed = parts[..plain].join(&b'/');
    if plain == parts.len() {
        return Ok(Selected { paths: vec![fixed], pattern: false });
    }
    let start = tree.resolve(&fixed)?;
    let pattern = parts[plain..].join(&b'/');
    let mut paths: Vec<Vec<u8>> = Vec::new();
    for (path, _) in tree.below(&start) {
        let relative = if start.is_empty() { path } else { &path[start.len() + 1..] };
        let matched = go_match::matches(&pattern, relative).map_err(|_| {
            Error::new(ErrorKind::InvalidDockerfile, format!("the pattern `{source}` cannot be read"))
                .with_hint("`[` starts a class such as `[a-z]`; write `[[]` for the character itself")
        })?;
        if matched {
            paths.push(path.to_vec());
        }
    }
    Ok(Selected { paths, pattern: true })
}

/// The parts of a path, cleaned lexically; the root is the end of all `..`.
pub(super) fn clean(path: &[u8]) -> Vec<&[u8]> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts
}

/// Says whether `..` in a path leads out of the root.
pub(crate) fn leads_out(path: &str) -> bool {
    let mut depth = 0_usize;
    path.split('/').any(|part| {
        match part {
            "" | "." => {}
            ".." if depth == 0 => return true,
            ".." => depth -= 1,
            _ => depth += 1,
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Node, NodeKind};

    fn tree(paths: &[&str]) -> Tree {
        let mut tree = Tree::default();
        for path in paths {
            let mut node = Node::directory(0);
            let path = match path.strip_suffix('/') {
                Some(path) => path,
                None => {
                    let content = Content::Entry { context: 0, entry: 0 };
                    node.kind = NodeKind::File { size_bytes: 0, content };
                    path
                }
            };
            tree.insert(path.as_bytes().to_vec(), node);
        }
        tree
    }

    #[test]
    fn finds_paths_and_patterns() {
        let tree = tree(&[
            "a.txt",
            "b.txt",
            "d/",
            "d/a.txt",
            "d/e/",
            "d/e/b.txt",
            "d.txt/",
            "d.txt/x.txt",
            "[x].txt",
        ]);
        for (source, expected) in [
            ("a.txt", vec!["a.txt"]),
            ("./d/../a.txt", vec!["a.txt"]),
            ("../../a.txt", vec!["a.txt"]),
            ("/", vec![""]),
            ("missing", vec!["missing"]),
            ("*.txt", vec!["[x].txt", "a.txt", "b.txt", "d.txt"]),
            ("d*", vec!["d", "d.txt"]),
            ("d/*", vec!["d/a.txt", "d/e"]),
            ("*/*.txt", vec!["d.txt/x.txt", "d/a.txt"]),
            ("?/e/b.*", vec!["d/e/b.txt"]),
            ("[[]x].txt", vec!["[x].txt"]),
            ("nothing*", vec![]),
        ] {
            let found = select(&tree, source).expect(source);
            let found: Vec<String> =
                found.paths.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
            assert_eq!(found, expected, "{source}");
        }
        assert!(select(&tree, "[").is_err());
    }

    #[test]
    fn knows_what_leads_out() {
        for (path, out) in
            [("../x", true), ("a/../../x", true), ("a/../x", false), ("/..", true), (".", false)]
        {
            assert_eq!(leads_out(path), out, "{path}");
        }
    }
}

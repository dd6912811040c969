//! `COPY --parents`: what is copied keeps the directories above it, from `/./` on.

use windlass_core::error::{Error, ErrorKind, Result};

use super::place::{Placer, no_directory};
use super::select::{clean, select};
use crate::go_match;
use crate::tree::{Node, Tree};

/// A source of `COPY --parents`.
#[derive(Debug)]
pub(crate) struct Pivoted<'a> {
    /// The directories that paths are kept from: the root, or what is before `/./`.
    pub(crate) bases: Vec<Vec<u8>>,
    /// The parts of the pattern below them; `**` stands for any number of directories.
    pattern: Vec<&'a [u8]>,
    /// There are wildcards in it: it may mean nothing at all.
    pub(crate) has_wildcards: bool,
}

impl<'a> Pivoted<'a> {
    /// Reads a source.
    ///
    /// # Errors
    /// As [`select`].
    pub(crate) fn parse(tree: &Tree, source: &'a str) -> Result<Self> {
        let (base, pattern) = source.split_once("/./").unwrap_or(("/", source));
        let bases = select(tree, base)?;
        let has_wildcards = bases.pattern || go_match::has_wildcards(pattern.as_bytes());
        Ok(Self { bases: bases.paths, pattern: clean(pattern.as_bytes()), has_wildcards })
    }

    /// Says whether a path below a base is meant: it, or a directory above it, matches.
    fn takes(&self, relative: &[u8]) -> Result<bool> {
        let parts: Vec<&[u8]> = relative.split(|byte| *byte == b'/').collect();
        starts_with(&self.pattern, &parts).map_err(|go_match::BadPattern| {
            let pattern = String::from_utf8_lossy(&self.pattern.join(&b'/')).into_owned();
            Error::new(ErrorKind::InvalidDockerfile, format!("the pattern `{pattern}` cannot be read"))
        })
    }
}

fn starts_with(pattern: &[&[u8]], parts: &[&[u8]]) -> Result<bool, go_match::BadPattern> {
    match (pattern, parts) {
        ([], _) => Ok(true),
        ([b"**", rest @ ..], _) if starts_with(rest, parts)? => Ok(true),
        (_, []) => Ok(false),
        ([b"**", ..], [_, below @ ..]) => starts_with(pattern, below),
        ([first, rest @ ..], [part, below @ ..]) => {
            Ok(go_match::matches(first, part)? && starts_with(rest, below)?)
        }
    }
}

impl Placer<'_> {
    /// Copies what a source means from one of its bases, and says whether that was anything.
    ///
    /// # Errors
    /// `InvalidDockerfile` for a pattern that cannot be read; `BuildFailed` where a file would replace a
    /// directory or a directory a file; `Cancelled`.
    pub(crate) fn copy_with_parents(
        &mut self,
        source: &Tree,
        base: &[u8],
        pivoted: &Pivoted<'_>,
        destination: &str,
    ) -> Result<bool> {
        self.touched.begin_copy();
        let base = source.resolve(base)?;
        if !source.get(&base).is_some_and(Node::is_directory) {
            return Ok(false);
        }
        let target = self.prepare(destination)?;
        self.make_directories(&target)?;
        if !self.tree.get(&target).is_some_and(Node::is_directory) {
            return Err(no_directory(&target));
        }
        let mut any = false;
        for (path, node) in source.below(&base) {
            self.job.check()?;
            let relative = if base.is_empty() { path } else { &path[base.len() + 1..] };
            if pivoted.takes(relative)? && !self.excluded(relative) {
                any = true;
                self.copy_below(source, &base, relative, &target, node)?;
            }
        }
        Ok(any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_matches_brings_what_is_in_it() {
        let takes = |pattern: &'static str, path: &str| {
            let (bases, pattern) = (Vec::new(), clean(pattern.as_bytes()));
            Pivoted { bases, pattern, has_wildcards: true }.takes(path.as_bytes()).expect(path)
        };
        for (pattern, path, taken) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", true),
            ("a/b", "a", false),
            ("a/*.txt", "a/x.txt", true),
            ("a/*.txt", "a/b/x.txt", false),
            ("a/**/x", "a/x", true),
            ("a/**/x", "a/b/c/x/y", true),
            ("**/*.txt", "x.txt", true),
            (".", "anything", true),
        ] {
            assert_eq!(takes(pattern, path), taken, "{pattern} {path}");
        }
    }
}

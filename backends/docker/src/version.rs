//! Versions as programs print them, read leniently.

use std::fmt;

/// The first three numbers of a version; what follows them (`+dfsg1`, `-dev`) does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl Version {
    /// Finds the first version in a text such as `Docker version 27.5.1+dfsg1, build 1`,
    /// `github.com/docker/buildx v0.13.1 788433` or `5.0.0-dev`.
    pub(crate) fn find(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(Self::read)
    }

    fn read(word: &str) -> Option<Self> {
        let word = word.strip_prefix('v').unwrap_or(word);
        let mut numbers = word.split('.').map(|part| {
            let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            part[..digits].parse().ok()
        });
        let major = numbers.next()??;
        // A lone number is a count or a year, not a version.
        let minor = numbers.next()??;
        let patch = numbers.next().flatten().unwrap_or(0);
        Some(Self(major, minor, patch))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_distributions_make_of_versions() {
        for (text, expected) in [
            ("27.5.1+dfsg1", Version(27, 5, 1)),
            ("5.0.0-dev", Version(5, 0, 0)),
            ("18.09", Version(18, 9, 0)),
            ("18.09.0-ce", Version(18, 9, 0)),
            ("Docker version 26.1.5+dfsg1, build a72d7cd", Version(26, 1, 5)),
            ("github.com/docker/buildx 0.13.1+ds1 0.13.1+ds1-3", Version(0, 13, 1)),
            ("github.com/docker/buildx v0.10.0-rc1 abc", Version(0, 10, 0)),
            ("podman version 4.9.3", Version(4, 9, 3)),
        ] {
            assert_eq!(Version::find(text), Some(expected), "{text}");
        }
        for text in ["", "dev", "v", "2024", "buildx abc"] {
            assert_eq!(Version::find(text), None, "{text}");
        }
        assert!(Version(18, 9, 0) < Version(18, 10, 0));
    }
}

//! Paths inside a context or an image.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Serialize, Serializer};

/// A path inside a context or an image: bytes, `/` between the parts, none at either end, no
/// `.` or `..` parts. The root is empty. Order is that of the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ContextPath(Vec<u8>);

impl ContextPath {
    /// Takes bytes that follow the rules above.
    pub fn from_clean(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        debug_assert!(
            bytes.is_empty() || bytes.split(|b| *b == b'/').all(|part| !matches!(part, b"" | b"." | b"..")),
            "{:?} is no clean path",
            String::from_utf8_lossy(&bytes)
        );
        Self(bytes)
    }

    /// Cleans a path as it was typed: `/` at the ends, doubled ones and `.` vanish, `..` takes
    /// the part before it away. `None` if it leads out of the root.
    pub fn clean(path: impl AsRef<[u8]>) -> Option<Self> {
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in path.as_ref().split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => drop(parts.pop()?),
                part => parts.push(part),
            }
        }
        Some(Self(parts.join(&b'/')))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, taken out.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The path in the form of the standard library.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Says whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path of an entry of this directory. `name` follows the same rules.
    pub fn join(&self, name: impl AsRef<[u8]>) -> Self {
        let name = name.as_ref();
        if self.is_root() || name.is_empty() {
            return Self([&self.0, name].concat());
        }
        Self([&self.0, &b"/"[..], name].concat())
    }

    /// The directory that it lies in; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Some(Self(self.0[..end].to_vec()))
    }

    /// Its last part; empty for the root.
    pub fn file_name(&self) -> &[u8] {
        let start = self.0.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
        &self.0[start..]
    }

    /// Its parts, outermost first; none for the root.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|part| !part.is_empty())
    }

    /// Its path below a directory; `None` if it is not below it. A directory is below itself.
    pub fn below(&self, directory: &Self) -> Option<Self> {
        if directory.is_root() || self == directory {
            return Some(Self(self.0[directory.0.len()..].to_vec()));
        }
        let rest = self.0.strip_prefix(directory.0.as_slice())?.strip_prefix(b"/")?;
        Some(Self(rest.to_vec()))
    }
}

impl fmt::Display for ContextPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

impl fmt::Debug for ContextPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl Serialize for ContextPath {
    /// As text; bytes that are not UTF-8 become replacement characters.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_and_never_leaves_the_root() {
        for (typed, clean) in [
            ("", Some("")),
            ("/", Some("")),
            ("./a//b/", Some("a/b")),
            ("/a/./b/../c", Some("a/c")),
            ("a/..", Some("")),
            ("..", None),
            ("a/../../b", None),
        ] {
            let path = ContextPath::clean(typed);
            assert_eq!(path.as_ref().map(ContextPath::to_string).as_deref(), clean, "{typed}");
        }
    }

    #[test]
    fn knows_its_relatives() {
        let path = ContextPath::from_clean("a/b/c");
        assert_eq!(path.parent(), Some(ContextPath::from_clean("a/b")));
        assert_eq!(ContextPath::from_clean("a").parent(), Some(ContextPath::default()));
        assert_eq!(ContextPath::default().parent(), None);
        assert_eq!(path.file_name(), b"c");
        assert_eq!(path.below(&ContextPath::from_clean("a")), Some(ContextPath::from_clean("b/c")));
        assert_eq!(path.below(&ContextPath::default()), Some(path.clone()));
        assert_eq!(path.below(&path), Some(ContextPath::default()));
        assert_eq!(ContextPath::from_clean("ab").below(&ContextPath::from_clean("a")), None);
        assert_eq!(ContextPath::default().join("x").join("y"), ContextPath::from_clean("x/y"));
        assert_eq!(path.parts().count(), 3);
    }
}

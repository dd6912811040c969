//! What an image is held against: paths, and places of its config.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::image_check::{Entry, Image, Kind};

/// One thing that must be true of an image.
#[derive(Debug, Clone)]
pub enum Expectation {
    /// A path is there, and is so.
    Path(Box<PathExpectation>),
    /// A path is not there.
    Absent(&'static str),
    /// A place of the image config (a JSON pointer) has this value; `null` if it must not be there.
    Config(&'static str, Value),
    /// Below this directory there are these paths, relative to it, and no others.
    Only(&'static str, Vec<&'static str>),
}

/// What must be true of one path; what is not said may be anything.
#[derive(Debug, Clone, Default)]
pub struct PathExpectation {
    path: String,
    kind: Option<Kind>,
    sha256: Option<String>,
    size_bytes: Option<u64>,
    mode: Option<u32>,
    owner: Option<(u64, u64)>,
    target: Option<&'static str>,
    same_as: Option<&'static str>,
    mtime: Option<i64>,
    xattrs: Option<Vec<(&'static str, &'static str)>>,
}

/// The path must be there; the methods of the result say more about it.
pub fn at(path: impl Into<String>) -> Expectation {
    Expectation::Path(Box::new(PathExpectation { path: path.into(), ..PathExpectation::default() }))
}

/// The path must not be there.
pub fn absent(path: &'static str) -> Expectation {
    Expectation::Absent(path)
}

/// The image config must have this value at the JSON pointer.
pub fn config(pointer: &'static str, value: impl Into<Value>) -> Expectation {
    Expectation::Config(pointer, value.into())
}

/// Exactly these paths must be below the directory.
pub fn only(directory: &'static str, paths: &[&'static str]) -> Expectation {
    Expectation::Only(directory, paths.to_vec())
}

impl Expectation {
    fn with(mut self, change: impl FnOnce(&mut PathExpectation)) -> Self {
        match &mut self {
            Self::Path(path) => change(path),
            other => panic!("{other:?} says all it can say"),
        }
        self
    }

    /// A regular file with this content.
    #[must_use]
    pub fn file(self, content: impl AsRef<[u8]>) -> Self {
        let sha256 = Sha256::digest(content.as_ref()).iter().map(|byte| format!("{byte:02x}")).collect();
        self.with(|path| {
            path.kind = Some(Kind::File);
            path.sha256 = Some(sha256);
        })
    }

    /// A regular file of this size.
    #[must_use]
    pub fn size(self, size_bytes: u64) -> Self {
        self.with(|path| {
            path.kind = Some(Kind::File);
            path.size_bytes = Some(size_bytes);
        })
    }

    /// A directory.
    #[must_use]
    pub fn directory(self) -> Self {
        self.with(|path| path.kind = Some(Kind::Directory))
    }

    /// A symbolic link with this target.
    #[must_use]
    pub fn symlink(self, target: &'static str) -> Self {
        self.with(|path| {
            path.kind = Some(Kind::Symlink);
            path.target = Some(target);
        })
    }

    /// These permission bits.
    #[must_use]
    pub fn mode(self, mode: u32) -> Self {
        self.with(|path| path.mode = Some(mode))
    }

    /// This owner and group.
    #[must_use]
    pub fn owner(self, uid: u64, gid: u64) -> Self {
        self.with(|path| path.owner = Some((uid, gid)))
    }

    /// Another name of the file at this earlier path.
    #[must_use]
    pub fn same_file_as(self, first: &'static str) -> Self {
        self.with(|path| path.same_as = Some(first))
    }

    /// This modification time, in seconds since 1970.
    #[must_use]
    pub fn mtime(self, seconds: i64) -> Self {
        self.with(|path| path.mtime = Some(seconds))
    }

    /// These extended attributes and no others.
    #[must_use]
    pub fn xattrs(self, xattrs: &[(&'static str, &'static str)]) -> Self {
        self.with(|path| path.xattrs = Some(xattrs.to_vec()))
    }

    /// What speaks against it in an image; `None` if nothing does.
    pub fn objection(&self, image: &Image) -> Option<String> {
        match self {
            Self::Path(path) => match image.files.get(&path.path) {
                Some(entry) => path.objection(entry),
                None => {
                    Some(format!("`{}` is not there; there are {}", path.path, nearby(image, &path.path)))
                }
            },
            Self::Absent(path) => {
                image.files.get(path).map(|entry| format!("`{path}` should not be there: {entry}"))
            }
            Self::Config(pointer, value) => {
                let found = image.config.pointer(pointer).cloned().unwrap_or_default();
                (found != *value).then(|| format!("config{pointer} is {found}, expected {value}"))
            }
            Self::Only(directory, paths) => {
                let found = below(image, directory);
                let mut expected = paths.clone();
                expected.sort_unstable();
                (found != expected).then(|| format!("`{directory}` holds {found:?}, expected {expected:?}"))
            }
        }
    }
}

impl PathExpectation {
    fn objection(&self, entry: &Entry) -> Option<String> {
        let first = self.same_as.map(|path| std::path::Path::new(path.trim_start_matches('/')));
        let target = self.target.map(std::path::Path::new);
        let right = self.kind.is_none_or(|kind| kind == entry.kind)
            && self.sha256.as_ref().is_none_or(|sha256| Some(sha256) == entry.sha256.as_ref())
            && self.size_bytes.is_none_or(|size| size == entry.size_bytes)
            && self.mode.is_none_or(|mode| mode == entry.mode)
            && self.owner.is_none_or(|owner| owner == (entry.uid, entry.gid))
            && target.is_none_or(|target| Some(target) == entry.target.as_deref())
            && first.is_none_or(|first| Some(first) == entry.hard_link_of.as_deref())
            && self.mtime.is_none_or(|mtime| mtime == entry.mtime)
            && self.xattrs.as_ref().is_none_or(|xattrs| {
                let expected = xattrs.iter().map(|(name, value)| (*name, value.as_bytes()));
                expected.eq(entry.xattrs.iter().map(|(name, value)| (name.as_str(), value.as_slice())))
            });
        (!right).then(|| format!("`{}` is {entry}, expected {self:?}", self.path))
    }
}

/// All paths below a directory, as text, in order.
fn below(image: &Image, directory: &str) -> Vec<String> {
    let directory = directory.trim_matches('/');
    let inside = |path: &std::path::Path| {
        let rest = path.strip_prefix(directory).ok()?.to_string_lossy().into_owned();
        (!rest.is_empty()).then_some(rest)
    };
    let mut found: Vec<String> = image.files.iter().filter_map(|(path, _)| inside(path)).collect();
    found.sort_unstable();
    found
}

/// For a failure message: what is beside a path that is missing.
fn nearby(image: &Image, path: &str) -> String {
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mut found = below(image, directory);
    found.truncate(20);
    format!("{found:?}")
}

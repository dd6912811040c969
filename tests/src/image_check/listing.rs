//! The files of an image: layers applied in order, as `layer.md` of the OCI image specification says.
//!
//! Contents are hashed as they stream by; only their digests are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read};
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use super::Error;
use super::blobs::hash_reader;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const XATTR: &str = "SCHILY.xattr.";
/// A chain of symbolic links as long as this is taken for a loop, as Linux does.
const MOST_LINKS: usize = 40;

/// What a path of an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device, with major and minor number.
    CharacterDevice(u32, u32),
    /// A block device, with major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// Everything an image says about one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// File, directory, link or device.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Size of a regular file, else 0.
    pub size_bytes: u64,
    /// SHA-256 of a regular file, in hex.
    pub sha256: Option<String>,
    /// Where a symbolic link points, as written.
    pub target: Option<PathBuf>,
    /// Extended attributes by name.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Modification time in whole seconds since 1970.
    pub mtime: i64,
    /// The first path, in order, that is the same file (a hard link), if that is another one.
    pub hard_link_of: Option<PathBuf>,
    /// Paths with the same number are one file.
    pub(super) file_number: usize,
}

/// All paths of an image, sorted; the root itself is `""`.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    entries: BTreeMap<PathBuf, Entry>,
    remarks: Vec<String>,
    files_so_far: usize,
}

impl Listing {
    /// Lists a tar file that is a whole root filesystem.
    ///
    /// # Errors
    /// As for a layer of an image: `Wrong` for a tar that no careful reader accepts.
    pub fn of_tar(tar: impl Read, what: &str) -> Result<Self, Error> {
        let mut listing = Self::default();
        listing.apply_layer(tar, what)?;
        Ok(listing)
    }

    /// What is at `path`, which is relative to the root of the image.
    pub fn get(&self, path: impl AsRef<Path>) -> Option<&Entry> {
        let path = path.as_ref();
        self.entries.get(path.strip_prefix("/").unwrap_or(path))
    }

    /// All paths in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_path(), entry))
    }

    /// What is legal but that no tidy builder does: a path twice in a layer, a whiteout of nothing, a parent that is
    /// missing or a symbolic link.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Applies one layer on top of what is there.
    pub(super) fn apply_layer(&mut self, mut tar: impl Read, layer: &str) -> Result<(), Error> {
        let mut change = Change::read(&mut tar, layer)?;
        // The hash of the whole stream needs what stands behind the end mark as well.
        io::copy(&mut tar, &mut io::sink()).map_err(|error| Error::wrong(layer, error.to_string()))?;
        self.remarks.append(&mut change.remarks);

        // Whiteouts hide only what lower layers brought, wherever in the tar they stand.
        for directory in &change.opaque {
            let directory = self.resolve_parents(&directory.join("x"), layer)?;
            let directory = directory.parent().unwrap_or(Path::new("")).to_owned();
            self.remove_below(&directory);
        }
        for path in &change.whiteouts {
            let path = self.resolve_parents(path, layer)?;
            if self.entries.contains_key(&path) {
                self.remove(&path);
            } else {
                self.remarks.push(format!("{layer}: whiteout of `{}`, which is not there", path.display()));
            }
        }
        for (path, item) in change.items {
            self.place(&path, item, layer)?;
        }
        self.name_hard_links();
        Ok(())
    }

    fn place(&mut self, path: &Path, item: Item, layer: &str) -> Result<(), Error> {
        let path = self.resolve_parents(path, layer)?;
        self.make_parents(&path, layer);
        let entry = match item {
            Item::New(mut entry) => {
                entry.file_number = self.next_file_number();
                *entry
            }
            Item::HardLink(target) => {
                let target = self.resolve_parents(&target, layer)?;
                self.entries.get(&target).cloned().ok_or_else(|| {
                    let detail = format!(
                        "hard link `{}` to `{}`, which is not there",
                        path.display(),
                        target.display()
                    );
                    Error::wrong(layer, detail)
                })?
            }
        };
        if entry.kind != Kind::Directory {
            self.remove_below(&path);
        }
        self.entries.insert(path, entry);
        Ok(())
    }

    fn next_file_number(&mut self) -> usize {
        self.files_so_far += 1;
        self.files_so_far
    }

    fn remove(&mut self, path: &Path) {
        self.remove_below(path);
        self.entries.remove(path);
    }

    fn remove_below(&mut self, directory: &Path) {
        // Paths sort by component, so what is below a directory stands right behind it.
        let behind = self.entries.range::<Path, _>((Bound::Excluded(directory), Bound::Unbounded));
        let below: Vec<PathBuf> =
            behind.map(|(path, _)| path).take_while(|path| path.starts_with(directory)).cloned().collect();
        for path in below {
            self.entries.remove(&path);
        }
    }

    /// Follows symbolic links in all components but the last, inside the image, as containerd's unpacker does.
    fn resolve_parents(&mut self, path: &Path, layer: &str) -> Result<PathBuf, Error> {
        let mut links = 0;
        let mut waiting: Vec<PathBuf> = path.iter().rev().map(PathBuf::from).collect();
        let mut resolved = PathBuf::new();
        while let Some(component) = waiting.pop() {
            match component.components().next() {
                Some(Component::ParentDir) => {
                    resolved.pop();
                    continue;
                }
                Some(Component::Normal(_)) => resolved.push(&component),
                _ => continue,
            }
            let target = self.entries.get(&resolved).and_then(|entry| entry.target.clone());
            let (Some(target), false) = (target, waiting.is_empty()) else { continue };
            links += 1;
            if links > MOST_LINKS {
                return Err(Error::wrong(layer, format!("`{}` lies behind a loop of links", path.display())));
            }
            self.remarks.push(format!(
                "{layer}: `{}` lies behind the link `{}`",
                path.display(),
                resolved.display()
            ));
            resolved.pop();
            if target.is_absolute() {
                resolved.clear();
            }
            waiting.extend(target.iter().rev().map(PathBuf::from));
        }
        Ok(resolved)
    }

    /// A layer may leave parents out; they become what an unpacker makes of them.
    fn make_parents(&mut self, path: &Path, layer: &str) {
        let missing = |parent: &&Path| !parent.as_os_str().is_empty() && !self.entries.contains_key(*parent);
        let missing: Vec<PathBuf> = path.ancestors().skip(1).filter(missing).map(Path::to_owned).collect();
        for parent in missing {
            self.remarks.push(format!("{layer}: no entry for `{}`, the parent of others", parent.display()));
            let file_number = self.next_file_number();
            self.entries.insert(parent, Entry { mode: 0o755, file_number, ..Entry::empty(Kind::Directory) });
        }
    }

    fn name_hard_links(&mut self) {
        let mut first: BTreeMap<usize, PathBuf> = BTreeMap::new();
        for (path, entry) in &mut self.entries {
            entry.hard_link_of = first.get(&entry.file_number).cloned();
            first.entry(entry.file_number).or_insert_with(|| path.clone());
        }
    }
}

/// What one layer says, before it is applied.
#[derive(Default)]
struct Change {
    items: Vec<(PathBuf, Item)>,
    whiteouts: Vec<PathBuf>,
    opaque: Vec<PathBuf>,
    remarks: Vec<String>,
}

enum Item {
    New(Box<Entry>),
    HardLink(PathBuf),
}

impl Change {
    fn read(tar: impl Read, layer: &str) -> Result<Self, Error> {
        let broken = |error: io::Error| Error::wrong(layer, error.to_string());
        let mut change = Self::default();
        let mut seen = BTreeSet::new();
        for entry in tar::Archive::new(tar).entries().map_err(broken)? {
            let entry = entry.map_err(broken)?;
            let path = inside(&entry.path_bytes(), layer)?;
            if !seen.insert(path.clone()) {
                change.remarks.push(format!("{layer}: `{}` is there twice", path.display()));
            }
            let name = path.file_name().unwrap_or_default().as_bytes();
            let parent = path.parent().unwrap_or(Path::new(""));
            if name == OPAQUE {
                change.opaque.push(parent.to_owned());
            } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
                change.whiteouts.push(parent.join(OsStr::from_bytes(hidden)));
            } else {
                let item = read_item(entry, layer)?;
                change.items.push((path, item));
            }
        }
        Ok(change)
    }
}

fn read_item<R: Read>(mut tar_entry: tar::Entry<'_, R>, layer: &str) -> Result<Item, Error> {
    let path = tar_entry.path_bytes().into_owned();
    let what = format!("{layer}, {}", String::from_utf8_lossy(&path));
    let broken = |error: io::Error| Error::wrong(&what, error.to_string());
    let link = tar_entry.link_name_bytes().map(|name| PathBuf::from(OsStr::from_bytes(&name)));
    let header = tar_entry.header();
    let numbers = (header.device_major().ok().flatten(), header.device_minor().ok().flatten());
    let numbers = (numbers.0.unwrap_or(0), numbers.1.unwrap_or(0));
    let kind = match header.entry_type() {
        tar::EntryType::Link => {
            let target = link.ok_or_else(|| Error::wrong(&what, "hard link to nowhere"))?;
            return Ok(Item::HardLink(inside(target.as_os_str().as_bytes(), layer)?));
        }
        tar::EntryType::Regular | tar::EntryType::Continuous => Kind::File,
        tar::EntryType::Directory => Kind::Directory,
        tar::EntryType::Symlink => Kind::Symlink,
        tar::EntryType::Char => Kind::CharacterDevice(numbers.0, numbers.1),
        tar::EntryType::Block => Kind::BlockDevice(numbers.0, numbers.1),
        tar::EntryType::Fifo => Kind::Fifo,
        other => return Err(Error::wrong(&what, format!("tar entry of type {other:?}"))),
    };
    let mut entry = Entry {
        mode: header.mode().map_err(broken)? & 0o7777,
        uid: header.uid().map_err(broken)?,
        gid: header.gid().map_err(broken)?,
        mtime: i64::try_from(header.mtime().map_err(broken)?).unwrap_or(i64::MAX),
        target: link.filter(|_| kind == Kind::Symlink),
        ..Entry::empty(kind)
    };
    for record in tar_entry.pax_extensions().map_err(broken)?.into_iter().flatten() {
        let record = record.map_err(broken)?;
        let (Ok(key), value) = (record.key(), record.value_bytes()) else { continue };
        let number = || String::from_utf8_lossy(value).into_owned();
        if let Some(name) = key.strip_prefix(XATTR) {
            entry.xattrs.insert(name.to_owned(), value.to_vec());
        } else if key == "mtime" {
            let whole = number().split('.').next().and_then(|whole| whole.parse().ok());
            entry.mtime = whole.ok_or_else(|| Error::wrong(&what, format!("mtime `{}`", number())))?;
        } else if key == "uid" {
            entry.uid = number().parse().map_err(|_| Error::wrong(&what, format!("uid `{}`", number())))?;
        } else if key == "gid" {
            entry.gid = number().parse().map_err(|_| Error::wrong(&what, format!("gid `{}`", number())))?;
        }
    }
    if kind == Kind::File {
        let hashed = hash_reader(&mut tar_entry).map_err(broken)?;
        entry.size_bytes = hashed.size_bytes;
        entry.sha256 = Some(hashed.hex());
    }
    Ok(Item::New(Box::new(entry)))
}

/// The path without `./` and trailing slashes; one that is absolute or climbs is refused.
fn inside(bytes: &[u8], layer: &str) -> Result<PathBuf, Error> {
    let path = Path::new(OsStr::from_bytes(bytes));
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            _ => return Err(Error::wrong(layer, format!("path `{}` leaves the image", path.display()))),
        }
    }
    Ok(clean)
}

impl Entry {
    fn empty(kind: Kind) -> Self {
        Self {
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            size_bytes: 0,
            sha256: None,
            target: None,
            xattrs: BTreeMap::new(),
            mtime: 0,
            hard_link_of: None,
            file_number: 0,
        }
    }
}

/// One line, much as `ls -l` writes it.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::File => "file".to_owned(),
            Kind::Directory => "directory".to_owned(),
            Kind::Symlink => "symlink".to_owned(),
            Kind::CharacterDevice(major, minor) => format!("char {major}:{minor}"),
            Kind::BlockDevice(major, minor) => format!("block {major}:{minor}"),
            Kind::Fifo => "fifo".to_owned(),
        };
        write!(f, "{kind} {:04o} {}:{} mtime {}", self.mode, self.uid, self.gid, self.mtime)?;
        if let Some(sha256) = &self.sha256 {
            write!(f, " {} bytes {}", self.size_bytes, &sha256[..12])?;
        }
        if let Some(target) = &self.target {
            write!(f, " -> {}", target.display())?;
        }
        if let Some(first) = &self.hard_link_of {
            write!(f, " same file as {}", first.display())?;
        }
        for (name, value) in &self.xattrs {
            write!(f, " {name}={:?}", String::from_utf8_lossy(value))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    /// A layer of `path` or `path=content` items; a path that ends in `/` is a directory, `a->b` a symlink, `a=>b` a
    /// hard link.
    fn layer(items: &[&str]) -> io::Result<Vec<u8>> {
        let mut builder = tar::Builder::new(Vec::new());
        for item in items {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(0);
            if let Some((path, target)) = item.split_once("->") {
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, path, target)?;
            } else if let Some((path, target)) = item.split_once("=>") {
                header.set_entry_type(tar::EntryType::Link);
                builder.append_link(&mut header, path, target)?;
            } else if let Some(path) = item.strip_suffix('/') {
                header.set_entry_type(tar::EntryType::Directory);
                builder.append_data(&mut header, path, io::empty())?;
            } else {
                let (path, content) = item.split_once('=').unwrap_or((item, ""));
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, path, content.as_bytes())?;
            }
        }
        builder.into_inner()
    }

    fn flatten(layers: &[&[&str]]) -> Result<Listing, Box<dyn std::error::Error>> {
        let mut listing = Listing::default();
        for items in layers {
            listing.apply_layer(layer(items)?.as_slice(), "layer")?;
        }
        Ok(listing)
    }

    fn paths(listing: &Listing) -> Vec<String> {
        listing.iter().map(|(path, _)| path.display().to_string()).collect()
    }

    #[test]
    fn whiteouts_hide_lower_layers_only() -> Outcome {
        let listing =
            flatten(&[&["a/", "a/old", "a/gone", "b"], &["a/.wh.gone", ".wh.b", "b=new", "a/.wh.none"]])?;
        assert_eq!(paths(&listing), ["a", "a/old", "b"]);
        assert_eq!(listing.get("b").map(|entry| entry.size_bytes), Some(3));
        assert_eq!(listing.remarks().len(), 1, "{:?}", listing.remarks());
        Ok(())
    }

    #[test]
    fn opaque_directory_keeps_what_its_own_layer_brings() -> Outcome {
        let listing = flatten(&[&["d/", "d/x", "d/e/", "d/e/y"], &["d/", "d/new", "d/.wh..wh..opq"]])?;
        assert_eq!(paths(&listing), ["d", "d/new"]);
        Ok(())
    }

    #[test]
    fn file_in_place_of_a_directory_removes_what_was_below() -> Outcome {
        let listing = flatten(&[&["d/", "d/x"], &["d=file"], &["d/"]])?;
        assert_eq!(paths(&listing), ["d"]);
        Ok(())
    }

    #[test]
    fn parents_that_are_links_lead_to_their_target() -> Outcome {
        let listing = flatten(&[&["lib/", "lib64->lib", "abs->/lib"], &["lib64/f", "abs/g"]])?;
        assert_eq!(paths(&listing), ["abs", "lib", "lib/f", "lib/g", "lib64"]);
        assert_eq!(listing.remarks().len(), 2);
        Ok(())
    }

    #[test]
    fn hard_links_are_one_file() -> Outcome {
        let listing = flatten(&[&["b=text", "a=>b"], &["c=>b"]])?;
        let first = |path: &str| listing.get(path).and_then(|entry| entry.hard_link_of.clone());
        assert_eq!((first("a"), first("b"), first("c")), (None, Some("a".into()), Some("a".into())));
        assert_eq!(listing.get("a").map(|entry| entry.size_bytes), Some(4));
        Ok(())
    }

    #[test]
    fn climbing_paths_are_refused() {
        assert!(inside(b"a/../../b", "layer").is_err());
        assert!(inside(b"/etc/passwd", "layer").is_err());
        assert_eq!(inside(b"./a/./b/", "layer").ok(), Some(PathBuf::from("a/b")));
    }
}

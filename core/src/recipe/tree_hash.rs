//! The hash of a source tree, as `dirhash` for Python computes it with md5: names and contents count,
//! modes, owners, times and empty directories do not; links are followed.
//!
//! A directory is the md5 of its descriptors, sorted as texts and joined by two NULs: `data:HASH` NUL
//! `name:NAME` of a file, `dirhash:HASH` NUL `name:NAME` of a directory.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use md5::{Digest as _, Md5};

use crate::backend::Job;
use crate::error::{Error, ErrorKind, Result, ResultExt};

const PIECE_BYTES: usize = 256 * 1024;

/// Computes the hash of a directory, as 32 hexadecimal digits. Left out are hidden directories,
/// `__pycache__` and `*.pyc` with everything below them; hidden files are not. Blocking; reads on all
/// cores.
///
/// # Errors
/// `ContextUnreadable`: nothing to hash, a link that leads into a circle, a name that is not UTF-8, a file
/// that cannot be read; each names the path. `Cancelled`.
pub fn tree_hash(root: &Path, job: &Job) -> Result<String> {
    let mut walk = Walk { files: Vec::new(), above: Vec::new() };
    let tree = walk.directory(root, job)?;
    let Some(tree) = tree else {
        let message = format!("there is nothing to hash in `{}`", root.display());
        return Err(Error::new(ErrorKind::ContextUnreadable, message)
            .with_hint("hidden directories, `__pycache__` and `*.pyc` do not count"));
    };
    Ok(tree.hash(&hash_all(&walk.files, job)?))
}

/// An entry that counts.
enum Node {
    /// By its position in the list of files.
    File(usize),
    Directory(Vec<(String, Node)>),
}

impl Node {
    fn hash(&self, hashes: &[String]) -> String {
        let Self::Directory(entries) = self else { return String::new() };
        let mut descriptors: Vec<String> = entries
            .iter()
            .map(|(name, node)| match node {
                Self::File(index) => format!("data:{}\0name:{name}", hashes[*index]),
                Self::Directory(_) => format!("dirhash:{}\0name:{name}", node.hash(hashes)),
            })
            .collect();
        descriptors.sort_unstable();
        hex(Md5::digest(descriptors.join("\0\0")).as_slice())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Collects what counts.
struct Walk {
    files: Vec<PathBuf>,
    /// The directories that we are in, as they really are.
    above: Vec<(u64, u64)>,
}

impl Walk {
    /// `None` where nothing in it counts.
    fn directory(&mut self, path: &Path, job: &Job) -> Result<Option<Node>> {
        use std::os::unix::fs::MetadataExt;

        job.check()?;
        let unreadable = || format!("could not read `{}`", path.display());
        let state = fs::metadata(path).or_error(ErrorKind::ContextUnreadable, unreadable)?;
        let place = (state.dev(), state.ino());
        if self.above.contains(&place) {
            let message = format!("the link `{}` leads to a directory that it is in", path.display());
            return Err(Error::new(ErrorKind::ContextUnreadable, message));
        }
        self.above.push(place);
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).or_error(ErrorKind::ContextUnreadable, unreadable)? {
            let entry = entry.or_error(ErrorKind::ContextUnreadable, unreadable)?;
            let Ok(name) = entry.file_name().into_string() else {
                let message = format!("the name `{}` is not UTF-8", entry.path().display());
                return Err(Error::new(ErrorKind::ContextUnreadable, message));
            };
            if name.ends_with(".pyc") || name == "__pycache__" {
                continue;
            }
            if let Some(node) = self.entry(&entry.path(), &name, job)? {
                entries.push((name, node));
            }
        }
        self.above.pop();
        Ok(Some(Node::Directory(entries))
            .filter(|node| !matches!(node, Node::Directory(all) if all.is_empty())))
    }

    fn entry(&mut self, path: &Path, name: &str, job: &Job) -> Result<Option<Node>> {
        let state = match fs::metadata(path) {
            Ok(state) => state,
            Err(error) if error.raw_os_error() == Some(LINK_CYCLE) => {
                let message = format!("the link `{}` leads to itself", path.display());
                return Err(Error::new(ErrorKind::ContextUnreadable, message));
            }
            // A dangling link.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let message = format!("could not read `{}`", path.display());
                return Err(Error::new(ErrorKind::ContextUnreadable, message).with_source(error));
            }
        };
        if state.is_dir() {
            return if name.starts_with('.') { Ok(None) } else { self.directory(path, job) };
        }
        if !state.is_file() {
            return Ok(None);
        }
        self.files.push(path.to_owned());
        Ok(Some(Node::File(self.files.len() - 1)))
    }
}

/// ELOOP on Linux.
const LINK_CYCLE: i32 = 40;

/// The md5 of each file.
fn hash_all(files: &[PathBuf], job: &Job) -> Result<Vec<String>> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(files.len());
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let work = || {
        let mut found = Vec::new();
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = files.get(index) else { return found };
            match hash_file(file, &mut buffer, job) {
                Ok(hash) => found.push((index, hash)),
                Err(error) => {
                    next.store(files.len(), Ordering::Relaxed);
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    return found;
                }
            }
        }
    };
    let found: Vec<(usize, String)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a worker does not panic")).collect()
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut hashes = vec![String::new(); files.len()];
    found.into_iter().for_each(|(index, hash)| hashes[index] = hash);
    Ok(hashes)
}

fn hash_file(path: &Path, buffer: &mut [u8], job: &Job) -> Result<String> {
    let unreadable = || format!("could not read `{}`", path.display());
    let mut file = File::open(path).or_error(ErrorKind::ContextUnreadable, unreadable)?;
    let mut md5 = Md5::new();
    loop {
        job.check()?;
        match file.read(buffer).or_error(ErrorKind::ContextUnreadable, unreadable)? {
            0 => return Ok(hex(md5.finalize().as_slice())),
            read => md5.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::recipe::short_hash;

    struct Tree(tempfile::TempDir);

    impl Tree {
        /// The tree T2 of the vectors.
        fn two() -> Self {
            let tree = Self::one();
            tree.write(".env", "X=1\n");
            tree
        }

        fn one() -> Self {
            let tree = Self(tempfile::tempdir().expect("a directory"));
            tree.write("__init__.py", "");
            tree.write("a.txt", "hello\n");
            tree.write("sub/b.py", "print(1)\n");
            tree.write("sub/deep/c.md", "# c\n");
            tree
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, content: &str) {
            let path = self.path(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, content).expect("written");
        }

        fn hash(&self) -> String {
            tree_hash(self.0.path(), &Job::silent()).expect("hashed")
        }
    }

    const T2: &str = "1de3dba58380b8e6e44fb48dfd3fd22b";

    #[test]
    fn trees_hash_as_elsewhere() {
        let tree = Tree::one();
        assert_eq!(tree.hash(), "2e783f818760b1d9697f33c679828774");
        assert_eq!(short_hash(&tree.hash()).as_deref(), Some("glnsdte2lm82vv7q"));
        let part = |name: &str| tree_hash(&tree.path(name), &Job::silent()).expect("hashed");
        assert_eq!(part("sub/deep"), "4ffda89ee40d5a4f28789d24ca1bd72c");
        assert_eq!(part("sub"), "e8f79efd1e68b53a8712518f5e2ff68d");
        assert_eq!(Tree::two().hash(), T2);
        let empty = Tree(tempfile::tempdir().expect("a directory"));
        empty.write("__init__.py", "");
        assert_eq!(empty.hash(), "903cc14d9781d8143706a49c63a0f581");
    }

    #[test]
    fn what_does_not_count_changes_nothing() {
        use std::os::unix::fs::PermissionsExt;

        let tree = Tree::two();
        for name in [
            ".git/config",
            "sub/.hid/x",
            "__pycache__/a.cpython-312.pyc",
            "sub/__pycache__/keep.txt",
            "sub/m.pyc",
            "d.pyc/in.txt",
        ] {
            tree.write(name, "x");
        }
        fs::create_dir(tree.path("empty")).expect("made");
        symlink("nowhere", tree.path("dangling")).expect("linked");
        fs::set_permissions(tree.path("a.txt"), fs::Permissions::from_mode(0o755)).expect("executable");
        assert_eq!(tree.hash(), T2);
    }

    #[test]
    fn links_count_as_what_they_lead_to() {
        let tree = Tree::two();
        symlink("a.txt", tree.path("link.txt")).expect("linked");
        assert_eq!(tree.hash(), "01e2f96e8b2022d67d2392427e009de2");
        let tree = Tree::two();
        tree.write("link.txt", "hello\n");
        assert_eq!(tree.hash(), "01e2f96e8b2022d67d2392427e009de2");
        let tree = Tree::two();
        symlink("sub", tree.path("linkd")).expect("linked");
        assert_eq!(tree.hash(), "41a296996df131906a43509505b23456");
        let tree = Tree::two();
        tree.write("ünï.txt", "u");
        tree.write("Z.txt", "z");
        assert_eq!(tree.hash(), "286626bfe0444b82284dd82e5336d565");
    }

    #[test]
    fn circles_and_nothing_are_refused_by_name() {
        let refused =
            |tree: &Tree| tree_hash(tree.0.path(), &Job::silent()).expect_err("refused").to_string();
        let tree = Tree::two();
        symlink("..", tree.path("sub/up")).expect("linked");
        assert!(refused(&tree).contains("sub/up"));
        let tree = Tree::two();
        symlink("self", tree.path("self")).expect("linked");
        assert!(refused(&tree).contains("self` leads to itself"));
        let tree = Tree(tempfile::tempdir().expect("a directory"));
        tree.write(".x/f", "x");
        assert!(refused(&tree).contains("nothing to hash"));
    }
}

//! The hash of a source tree, as `dirhash` for Python computes it with md5: names and contents count,
//! modes, owners, times and empty directories do not; links are followed.
//!
//! A directory is the md5 of its descriptors, sorted as texts and joined by two NULs: `data:HASH` NUL
//! `name:NAME` of a file, `dirhash:HASH` NUL `name:NAME` of a directory. Which files are the same as the last
//! time is known from a stat cache; they are not read.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use md5::{Digest as _, Md5};

use crate::backend::Job;
use crate::context::{Context, ContextPath, Entry, IgnoreRules, Links, read_error};
use crate::error::{Error, ErrorKind, Result};
use crate::events::Events;
use crate::fingerprint::{StatCache, on_all_cores};

const MD5_BYTES: usize = 16;

/// Which files of a tree do not count, in the syntax of `.gitignore`. Patterns are about files, and paths
/// begin in the directory that is hashed.
#[derive(Clone, Debug)]
pub struct HashRules(IgnoreRules);

impl HashRules {
    /// What the original leaves out: hidden directories, `__pycache__` and `*.pyc` with everything below them;
    /// hidden files count.
    pub const DEFAULT: &str = ".*/\n__pycache__/\n*.pyc";

    /// Reads patterns, one a line; `file` is their name for messages.
    ///
    /// # Errors
    /// `InvalidInput` for a malformed pattern, with the line.
    pub fn parse(patterns: &str, file: &Path) -> Result<Self> {
        IgnoreRules::parse_git(patterns, file).map(Self)
    }
}

impl Default for HashRules {
    /// Those of [`HashRules::DEFAULT`].
    fn default() -> Self {
        // They are valid, as the tests know.
        Self(IgnoreRules::parse_git(Self::DEFAULT, Path::new("rules of the source hash")).unwrap_or_default())
    }
}

/// Computes the hash of a directory, as 32 hexadecimal digits. Blocking; lists and reads on all cores.
///
/// # Errors
/// `ContextUnreadable`: nothing to hash, a link that leads into a circle, a name that is not UTF-8, a file
/// that cannot be read or changes meanwhile; each names the path. `InvalidInput` if there is no directory.
/// `Cancelled`.
pub fn tree_hash(root: &Path, rules: &HashRules, cache: &StatCache, job: &Job) -> Result<String> {
    // What is left out because it leads nowhere is said of the build context.
    let job = &Job { events: Events::silent(), ..job.clone() };
    hash_at(SystemTime::now(), root, rules, cache, job)
}

fn hash_at(
    started: SystemTime,
    root: &Path,
    rules: &HashRules,
    cache: &StatCache,
    job: &Job,
) -> Result<String> {
    // `package/.` is said as `package`.
    let root = &root.components().collect::<PathBuf>();
    let context = tree(root, rules)?;
    let in_root = |error: Error| error.with_detail("directory", root.display().to_string());
    let entries = context.list(job).map_err(in_root)?;
    let cache = cache.load::<MD5_BYTES>(&context);
    let mut hashes = cache.known(&entries);
    let unknown: Vec<usize> =
        (0..entries.len()).filter(|index| entries[*index].is_file() && hashes[*index].is_none()).collect();
    let hash = |index: usize, buffer: &mut [u8]| hash_file(&context, &entries[index], buffer, job);
    for (index, hash) in on_all_cores(&unknown, hash).map_err(in_root)? {
        hashes[index] = Some(hash);
    }
    if !unknown.is_empty() {
        cache.save(&entries, &hashes, started);
    }
    let files = entries.iter().zip(&hashes).filter_map(|(entry, hash)| Some((&entry.path, hash.as_ref()?)));
    fold(files)?.ok_or_else(|| {
        let message = format!("there is nothing to hash in `{}`", root.display());
        Error::new(ErrorKind::ContextUnreadable, message)
            .with_hint(format!("what does not count: {}", rules.0.shown().join(", ")))
    })
}

/// What counts of a directory.
fn tree(root: &Path, rules: &HashRules) -> Result<Context> {
    let mut context = Context::empty();
    context.mount(ContextPath::default(), root, rules.0.clone(), Links::Follow)?;
    Ok(context)
}

fn hash_file(context: &Context, entry: &Entry, buffer: &mut [u8], job: &Job) -> Result<[u8; MD5_BYTES]> {
    let mut content = context.open(entry)?;
    let mut md5 = Md5::new();
    loop {
        job.check()?;
        match content.read(buffer) {
            Ok(0) => return Ok(md5.finalize().into()),
            Ok(read) => md5.update(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_error(&entry.path, error)),
        }
    }
}

/// A directory whose files come by.
#[derive(Default)]
struct Directory {
    path: ContextPath,
    descriptors: Vec<String>,
}

impl Directory {
    fn hash(mut self) -> [u8; MD5_BYTES] {
        self.descriptors.sort_unstable();
        Md5::digest(self.descriptors.join("\0\0")).into()
    }
}

/// The hash of the tree of these files, sorted by path, so that those of a directory are in a row; `None`
/// if there are none.
fn fold<'a>(files: impl Iterator<Item = (&'a ContextPath, &'a [u8; MD5_BYTES])>) -> Result<Option<String>> {
    let mut above = vec![Directory::default()];
    for (path, hash) in files {
        close(&mut above, |directory| path.below(&directory.path).is_none())?;
        let directory = above.last().map_or_else(ContextPath::default, |directory| directory.path.clone());
        let mut inside = directory.clone();
        let below = path.below(&directory).unwrap_or_default();
        let parts: Vec<&[u8]> = below.parts().collect();
        let Some((_, directories)) = parts.split_last() else { continue };
        for part in directories {
            inside = inside.join(part);
            above.push(Directory { path: inside.clone(), descriptors: Vec::new() });
        }
        add(&mut above, path, "data", hash)?;
    }
    close(&mut above, |directory| !directory.path.is_root())?;
    let root = above.pop().filter(|root| !root.descriptors.is_empty());
    Ok(root.map(|root| hex(&root.hash())))
}

/// Ends the innermost directories for which that holds; each becomes a descriptor of the one around it.
fn close(above: &mut Vec<Directory>, is_done: impl Fn(&Directory) -> bool) -> Result<()> {
    while let Some(directory) = above.pop_if(|directory| is_done(directory)) {
        let path = directory.path.clone();
        add(above, &path, "dirhash", &directory.hash())?;
    }
    Ok(())
}

/// Adds a descriptor to the innermost directory.
fn add(above: &mut [Directory], path: &ContextPath, kind: &str, hash: &[u8; MD5_BYTES]) -> Result<()> {
    let name = str::from_utf8(path.file_name()).map_err(|_| {
        let message = format!("the name `{path}` is not UTF-8");
        Error::new(ErrorKind::ContextUnreadable, message).with_hint("rename it: it cannot be hashed")
    })?;
    if let Some(directory) = above.last_mut() {
        directory.descriptors.push(format!("{kind}:{}\0name:{name}", hex(hash)));
    }
    Ok(())
}

fn hex(bytes: &[u8; MD5_BYTES]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests;

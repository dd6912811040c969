//! What a build that failed or was stopped must not leave: processes, and files that are half of something.

use std::fs;
use std::path::Path;

use crate::rig::Rig;

/// Lists what is left of a build that gave no image.
pub(crate) fn after_failure(rig: &Rig) -> Vec<String> {
    let mut left = processes(&rig.root);
    left.extend(files(&rig.root.join("out")));
    left.extend(half_made(&rig.host.cache_dir));
    left
}

/// Processes with something below this directory on their command line.
pub(crate) fn processes(root: &Path) -> Vec<String> {
    // With the slash: another test may have a name that goes on after ours.
    let mark = format!("{}/", root.display());
    let line = |entry: fs::DirEntry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        let line = String::from_utf8_lossy(&fs::read(entry.path().join("cmdline")).ok()?).replace('\0', " ");
        line.contains(&mark).then(|| format!("process {} `{line}`", entry.file_name().to_string_lossy()))
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(line).collect()
}

/// All files below a directory, hidden ones too.
pub(crate) fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files(&entry.path()));
        } else {
            found.push(format!("file {}", entry.path().display()));
        }
    }
    found
}

/// Files of a cache that only a writer that is still at work may have: the image store writes into `incoming` first.
fn half_made(cache: &Path) -> Vec<String> {
    files(&cache.join("images/incoming"))
}

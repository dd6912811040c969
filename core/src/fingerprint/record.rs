//! The inputs of the last build of a context, kept to say what changed since.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Fingerprint, StableHasher};
use crate::digest::Digest;
use crate::error::{ErrorKind, Result, ResultExt};

/// The named inputs of a build: values that tell whether one changed, never secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    // First in the file, so that its start tells whether the rest is up to date.
    fingerprint: Option<Digest>,
    /// `file src/main.rs` to `0644 9f2c41…`, `target stage` to `test`, and so on.
    pub inputs: BTreeMap<String, String>,
}

/// One input that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its name: `file src/main.rs`.
    pub input: String,
    /// What it was; `None` if it is new.
    pub before: Option<String>,
    /// What it is; `None` if it is gone.
    pub after: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let input = &self.input;
        match (&self.before, &self.after) {
            (None, _) => write!(f, "{input}: new"),
            (_, None) => write!(f, "{input}: gone"),
            (Some(before), Some(after)) => match (before.split_once(' '), after.split_once(' ')) {
                // The permission bits, then the content.
                (Some((mode, content)), Some((new_mode, new_content))) if content == new_content => {
                    write!(f, "{input}: permissions {mode} → {new_mode}")
                }
                (Some(_), Some(_)) => write!(f, "{input}: content changed"),
                _ => write!(f, "{input}: changed"),
            },
        }
    }
}

impl Record {
    /// Takes the inputs of a fingerprint.
    pub fn of(fingerprint: &Fingerprint) -> Self {
        Self { fingerprint: Some(fingerprint.digest()), inputs: fingerprint.inputs().collect() }
    }

    /// Reads the record of a context, of which `context` is the directory and `dockerfile` the
    /// name of the Dockerfile. `None` if there is none, or none that can be read.
    pub fn load(state_dir: &Path, context: &Path, dockerfile: &Path) -> Option<Self> {
        let content = std::fs::read(file(state_dir, context, dockerfile)).ok()?;
        serde_json::from_slice(&content).ok()
    }

    /// Keeps the record of a fingerprint for the next build; it replaces the one before as a whole.
    /// Nothing is written if that is the same.
    ///
    /// # Errors
    /// `LocalIo`.
    pub fn keep(
        fingerprint: &Fingerprint,
        state_dir: &Path,
        context: &Path,
        dockerfile: &Path,
    ) -> Result<()> {
        let file = file(state_dir, context, dockerfile);
        if starts_with(&file, start(&fingerprint.digest()).as_bytes()) {
            return Ok(());
        }
        // No fsync: a record that a crash cut short cannot be read, and then counts as none.
        let write = || -> std::io::Result<()> {
            let directory = file.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(directory)?;
            let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
            temporary.write_all(&serde_json::to_vec(&Self::of(fingerprint))?)?;
            temporary.persist(&file)?;
            Ok(())
        };
        write().or_error(ErrorKind::LocalIo, || {
            format!("could not write the record of this build to `{}`", file.display())
        })
    }

    /// What changed from an earlier record to this one, by name.
    pub fn changes_since(&self, earlier: &Self) -> Vec<Change> {
        let names: std::collections::BTreeSet<&String> =
            self.inputs.keys().chain(earlier.inputs.keys()).collect();
        names
            .into_iter()
            .map(|input| Change {
                input: input.clone(),
                before: earlier.inputs.get(input).cloned(),
                after: self.inputs.get(input).cloned(),
            })
            .filter(|change| change.before != change.after)
            .collect()
    }
}

/// How the file of a record begins.
fn start(fingerprint: &Digest) -> String {
    format!("{{\"fingerprint\":\"{fingerprint}\",")
}

fn starts_with(file: &Path, start: &[u8]) -> bool {
    let mut found = vec![0; start.len()];
    std::fs::File::open(file).and_then(|mut file| file.read_exact(&mut found)).is_ok() && found == start
}

fn file(state_dir: &Path, context: &Path, dockerfile: &Path) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;

    let context = context.canonicalize().unwrap_or_else(|_| context.to_owned());
    let mut hasher = StableHasher::new("windlass record name 1");
    hasher.bytes(context.as_os_str().as_bytes());
    hasher.bytes(dockerfile.as_os_str().as_bytes());
    state_dir.join("fingerprints").join(format!("{}.json", hasher.finish().hex()))
}

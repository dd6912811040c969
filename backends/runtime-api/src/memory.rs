//! What was found out about a service, so that no later build finds it out again by sending twice.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use windlass_core::digest::Digest;

/// What a service takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct Remembered {
    /// It took a multipart form after it had refused JSON (`false`), or JSON (`true`).
    pub(crate) takes_json: Option<bool>,
    /// It refuses a body whose length is not said.
    pub(crate) wants_length: bool,
}

/// The memory of one service, in the cache directory.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    file: PathBuf,
}

impl Memory {
    /// The memory of the service at this address.
    pub(crate) fn of(cache_dir: &Path, base: &str) -> Self {
        let name = format!("{}.json", &Digest::of(base).hex()[..16]);
        Self { file: cache_dir.join("runtime-api").join(name) }
    }

    /// What is known. A memory that cannot be read is none: it costs an upload.
    pub(crate) fn load(&self) -> Remembered {
        let content = std::fs::read(&self.file).unwrap_or_default();
        serde_json::from_slice(&content).unwrap_or_default()
    }

    /// Keeps what was found out, if that is new.
    ///
    /// # Errors
    /// As the file system.
    pub(crate) fn keep(&self, remembered: Remembered) -> io::Result<()> {
        if self.load() == remembered {
            return Ok(());
        }
        let directory = self.file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
        temporary.write_all(&serde_json::to_vec(&remembered)?)?;
        temporary.persist(&self.file)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_its_own_memory() {
        let directory = tempfile::tempdir().expect("a directory");
        let (one, other) =
            (Memory::of(directory.path(), "https://a"), Memory::of(directory.path(), "https://b"));
        let known = Remembered { takes_json: Some(false), wants_length: true };
        one.keep(known).expect("kept");
        assert_eq!((one.load(), other.load()), (known, Remembered::default()));
        std::fs::write(&one.file, "damaged").expect("written");
        assert_eq!(one.load(), Remembered::default());
    }
}

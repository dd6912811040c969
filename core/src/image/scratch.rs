//! A directory for what a build needs only while it runs.

use std::fs::File;
use std::path::Path;

use super::store::ImageStore;
use crate::error::{ErrorKind, Result, ResultExt};

/// A directory on the disk of the store; removed with all that is in it when it is dropped. One of a
/// process that was killed is removed by the next that opens the store.
#[derive(Debug)]
pub struct ScratchDir {
    dir: tempfile::TempDir,
    /// Says that the directory has a living owner; ends with the process.
    _lock: File,
}

impl ScratchDir {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl ImageStore {
    /// Makes an empty directory that only its owner may enter.
    ///
    /// # Errors
    /// `LocalIo`.
    pub fn scratch_dir(&self) -> Result<ScratchDir> {
        let failed = || self.write_failed();
        let dir = tempfile::Builder::new()
            .prefix("scratch-")
            .tempdir_in(self.incoming())
            .or_error(ErrorKind::LocalIo, failed)?;
        let lock = File::open(dir.path()).or_error(ErrorKind::LocalIo, failed)?;
        let _ = lock.try_lock();
        Ok(ScratchDir { dir, _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_scratch_directory_lives_as_long_as_its_owner() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = ImageStore::open(dir.path()).expect("store");
        let scratch = store.scratch_dir().expect("scratch");
        let dead = dir.path().join("incoming/scratch-dead");
        std::fs::create_dir(&dead).expect("make");
        std::fs::write(dead.join("x"), "x").expect("write");
        let long_ago = SystemTime::now() - Duration::from_secs(600);
        for path in [scratch.path(), &dead] {
            File::open(path).expect("open").set_modified(long_ago).expect("age");
        }
        ImageStore::open(dir.path()).expect("again");
        assert!(scratch.path().exists() && !dead.exists());
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists());
    }
}

//! A small file system of its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Failed;

/// A mounted tmpfs; unmounted when dropped.
pub(crate) struct Tmpfs {
    directory: PathBuf,
}

impl Tmpfs {
    /// Mounts one of this size over a directory, which is made.
    pub(crate) fn mount(directory: PathBuf, megabytes: u32) -> Result<Self, Failed> {
        std::fs::create_dir_all(&directory)?;
        let options = format!("size={megabytes}m,mode=0755");
        run("mount", ["-t", "tmpfs", "-o", &options, "windlass-test"].map(OsStr::new), &directory)?;
        Ok(Self { directory })
    }

    /// Changes it: `size=64m`, `ro`.
    pub(crate) fn remount(&self, options: &str) -> Result<(), Failed> {
        run("mount", ["-o", &format!("remount,{options}")].map(OsStr::new), &self.directory)
    }

    /// Where it is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = run("umount", [OsStr::new("--lazy")], &self.directory);
    }
}

fn run<const N: usize>(program: &str, arguments: [&OsStr; N], directory: &Path) -> Result<(), Failed> {
    let output = Command::new(program).args(arguments).arg(directory).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program} failed: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

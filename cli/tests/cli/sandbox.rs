//! A place of its own for one test: a directory to work in, a home, and the program.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Removed with everything in it when dropped.
pub(crate) struct Sandbox {
    directory: TempDir,
}

/// What a run of the program gave.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

impl Sandbox {
    /// A directory with these files.
    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        let sandbox = Self { directory: tempfile::tempdir().expect("a directory") };
        std::fs::create_dir_all(sandbox.path("")).expect("the working directory");
        std::fs::create_dir_all(sandbox.home()).expect("the home");
        for (name, content) in files {
            sandbox.write(name, content);
        }
        sandbox
    }

    /// A directory with a Dockerfile that needs no base image, and a file to copy.
    pub(crate) fn scratch() -> Self {
        Self::with(&[("Dockerfile", "FROM scratch\nCOPY hello.txt /\n"), ("hello.txt", "hello\n")])
    }

    /// A path below the working directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("work").join(name)
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        std::fs::write(path, content).expect("a file");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect(name)
    }

    /// The names in a directory, sorted.
    pub(crate) fn names(&self, name: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(name)).expect("a directory");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// The program with nothing of the surroundings of the test but `PATH`.
    pub(crate) fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
        command.args(arguments).current_dir(self.path("")).env_clear().stdin(Stdio::null());
        command.env("HOME", self.home()).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        self.run_with(arguments, &[])
    }

    /// Runs with these variables besides.
    pub(crate) fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Outcome {
        let mut command = self.command(arguments);
        command.envs(variables.iter().copied());
        Outcome::of(&command.output().expect("the program starts"))
    }

    /// Files that must never stay behind: the beginnings of files.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        fn find(directory: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with(".windlass-")
                    || name.starts_with(".tmp")
                    || directory.ends_with("incoming")
                {
                    found.push(entry.path().display().to_string());
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    find(&entry.path(), found);
                }
            }
        }
        let mut found = Vec::new();
        find(self.directory.path(), &mut found);
        found
    }
}

impl Outcome {
    pub(crate) fn of(output: &std::process::Output) -> Self {
        Self {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
        }
    }

    /// Asserts success, and gives stdout.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.stdout
    }

    /// Asserts success, and reads stdout as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        let stdout = self.done();
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
    }

    /// Asserts failure with this code, nothing on stdout, and stderr with all of these in it.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not in {self:#?}");
        }
    }
}

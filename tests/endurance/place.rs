//! A place of its own for one test: a directory to work in, a home with the image store, and the program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use libtest_mimic::{Completion, Failed, Trial};
use tempfile::TempDir;
use windlass_tests::service::{Absent, from_environment, variables};

/// Longer than writers may take to lock a file that they have just made.
const LONG_AGO: Duration = Duration::from_secs(3600);

/// Names a program to test instead of the one that is built here, such as an optimised one.
const PROGRAM: &str = "WINDLASS_TEST_PROGRAM";

/// Where the services are.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) registry: String,
    program: OnceLock<Result<PathBuf, String>>,
}

/// The place of one test.
pub(crate) struct Place {
    pub(crate) services: Arc<Services>,
    directory: TempDir,
    /// The directory with the image store.
    pub(crate) cache: PathBuf,
}

impl Services {
    pub(crate) fn from_environment() -> Result<Self, Absent> {
        Ok(Self { registry: from_environment(variables::REGISTRY)?, program: OnceLock::new() })
    }

    /// The program, built as it is now: cargo builds programs only for the tests of their own crate.
    pub(crate) fn program(&self) -> Result<&Path, Failed> {
        let program = self.program.get_or_init(|| {
            if let Some(program) = std::env::var_os(PROGRAM) {
                return Ok(program.into());
            }
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let arguments = ["build", "--quiet", "--package", "windlass-cli", "--bin", "windlass"];
            let built = Command::new(cargo).args(arguments).output().map_err(|error| error.to_string())?;
            if !built.status.success() {
                return Err(String::from_utf8_lossy(&built.stderr).into_owned());
            }
            // Tests lie in `deps` beside the programs.
            let test = std::env::current_exe().map_err(|error| error.to_string())?;
            let directory = test.parent().and_then(Path::parent).ok_or("the test lies nowhere")?;
            Ok(directory.join("windlass"))
        });
        program.as_deref().map_err(|error| error.clone().into())
    }

    /// A test with a place.
    pub(crate) fn trial(
        self: &Arc<Self>,
        name: &str,
        test: impl FnOnce(&mut Place) -> Result<(), Failed> + Send + 'static,
    ) -> Trial {
        let services = self.clone();
        Trial::test(name, move || test(&mut Place::new(services)?))
    }

    /// A test that makes mounts, which takes root: ignored for others, unless this run promised to have all.
    pub(crate) fn trial_as_root(
        self: &Arc<Self>,
        name: &str,
        test: impl FnOnce(&mut Place) -> Result<(), Failed> + Send + 'static,
    ) -> Trial {
        let services = self.clone();
        Trial::ignorable_test(name, move || {
            if rustix::process::geteuid().is_root() {
                return test(&mut Place::new(services)?).map(|()| Completion::Completed);
            }
            absent("it makes mounts, which takes root")
        })
    }
}

/// Ignores a test, or fails where this run promised everything.
pub(crate) fn absent(reason: &str) -> Result<Completion, Failed> {
    match std::env::var("CI").as_deref() {
        Ok("true") => Err(reason.into()),
        _ => Ok(Completion::ignored_with(reason)),
    }
}

impl Place {
    pub(crate) fn new(services: Arc<Services>) -> Result<Self, Failed> {
        let directory = tempfile::tempdir()?;
        let cache = directory.path().join("cache");
        for part in ["work", "home", "cache"] {
            fs::create_dir(directory.path().join(part))?;
        }
        Ok(Self { services, directory, cache })
    }

    /// A path below the working directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("work").join(name)
    }

    /// A path beside the working directory.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<(), Failed> {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent"))?;
        Ok(fs::write(path, content)?)
    }

    /// Writes a Dockerfile in which `{busybox}` and `{debian}` are base images of the registry.
    pub(crate) fn dockerfile(&self, content: &str) -> Result<(), Failed> {
        let registry = &self.services.registry;
        let content = content.replace("{busybox}", &format!("{registry}/base/busybox:1"));
        self.write("Dockerfile", content.replace("{debian}", &format!("{registry}/base/debian:bookworm")))
    }

    /// A name in the registry.
    pub(crate) fn name(&self, repository: &str) -> String {
        format!("{}/endurance/{repository}:1", self.services.registry)
    }

    /// The program with the home and the cache of this place.
    pub(crate) fn command(&self, arguments: &[&str]) -> Result<Command, Failed> {
        let mut command = Command::new(self.services.program()?);
        self.settle(command.args(arguments));
        Ok(command)
    }

    /// Gives a command the surroundings of this place.
    pub(crate) fn settle(&self, command: &mut Command) {
        command.current_dir(self.path("")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("HOME", self.beside("home")).env("XDG_CACHE_HOME", &self.cache);
        command.env_remove("CI").env_remove("WINDLASS_BACKEND").env_remove("SOURCE_DATE_EPOCH");
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Outcome, Failed> {
        Ok(Outcome::of(self.command(arguments)?.output()?))
    }

    /// Runs the program to its good end, and gives what it printed.
    pub(crate) fn done(&self, arguments: &[&str]) -> Result<String, Failed> {
        self.run(arguments)?.done()
    }

    /// Builds the working directory with these further arguments, and gives the digest.
    pub(crate) fn build(&self, arguments: &[&str]) -> Result<String, Failed> {
        let printed = self.done(&[&["build", ".", "-q"], arguments].concat())?;
        digest_in(&printed)
    }

    /// Starts the program in the background.
    pub(crate) fn start(&self, arguments: &[&str]) -> Result<Background, Failed> {
        Ok(Background(Some(self.command(arguments)?.spawn()?)))
    }

    /// The directory of the image store.
    pub(crate) fn store(&self) -> PathBuf {
        self.cache.join("windlass/images")
    }

    /// The store is sound, and what killed programs left in it goes away.
    pub(crate) fn sound(&self) -> Result<(), Failed> {
        self.done(&["image", "verify"])?;
        let incoming = self.store().join("incoming");
        for entry in fs::read_dir(&incoming)? {
            fs::File::open(entry?.path())?.set_modified(SystemTime::now() - LONG_AGO)?;
        }
        self.done(&["image", "ls"])?;
        match names(&incoming)? {
            left if left.is_empty() => Ok(()),
            left => Err(format!("left behind in the store: {left:?}").into()),
        }
    }
}

/// The names in a directory, sorted.
pub(crate) fn names(directory: &Path) -> Result<Vec<String>, Failed> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The digest in `reference@digest` or `digest`, on the last line of what a build printed.
pub(crate) fn digest_in(printed: &str) -> Result<String, Failed> {
    let line = printed.lines().last().unwrap_or_default();
    match line.find("sha256:") {
        Some(at) => Ok(line[at..].to_owned()),
        None => Err(format!("no digest in {printed:?}").into()),
    }
}

/// Content that no compressor makes smaller; the same for the same seed.
pub(crate) fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut random = Random(seed | 1);
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Numbers that look random: xorshift64*.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// A program in the background. A test that fails kills it by dropping it.
pub(crate) struct Background(Option<Child>);

impl Background {
    /// Kills it, which it cannot notice, and says whether it was still running.
    pub(crate) fn kill(mut self) -> Result<bool, Failed> {
        let mut child = self.0.take().expect("it runs until this");
        child.kill()?;
        Ok(child.wait()?.code().is_none())
    }

    /// Sends it a signal, such as `-TERM`, and waits for its end.
    pub(crate) fn signal(mut self, signal: &str) -> Result<Outcome, Failed> {
        let child = self.0.take().expect("it runs until this");
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status()?;
        if !sent.success() {
            return Err(format!("could not send {signal}").into());
        }
        Ok(Outcome::of(child.wait_with_output()?))
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Result<Outcome, Failed> {
        Ok(Outcome::of(self.0.take().expect("it runs until this").wait_with_output()?))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a run gave.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

impl Outcome {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { stdout: text(output.stdout), stderr: text(output.stderr), code: output.status.code() }
    }

    /// It ended well; gives what it printed.
    pub(crate) fn done(self) -> Result<String, Failed> {
        match self.code {
            Some(0) => Ok(self.stdout),
            _ => Err(format!("it failed: {self:#?}").into()),
        }
    }

    /// It failed with this code, printed nothing, and said all of these.
    pub(crate) fn refused(&self, code: i32, says: &[&str]) -> Result<(), Failed> {
        let missing: Vec<&&str> = says.iter().filter(|part| !self.stderr.contains(**part)).collect();
        if self.code == Some(code) && self.stdout.is_empty() && missing.is_empty() {
            return Ok(());
        }
        Err(format!("expected code {code} and {missing:?} in {self:#?}").into())
    }
}

//! A place of its own for one test: a directory to work in, a home, a cache, and the program.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use tempfile::TempDir;
use windlass_tests::service::{Absent, from_environment, variables};

/// How long anything here may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Where the services are.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) registry: String,
    pub(crate) classic: String,
    program: OnceLock<Result<PathBuf, String>>,
}

/// The place of one test.
pub(crate) struct Place {
    pub(crate) services: Arc<Services>,
    directory: TempDir,
}

impl Services {
    pub(crate) fn from_environment() -> Result<Self, Absent> {
        Ok(Self {
            registry: from_environment(variables::REGISTRY)?,
            classic: from_environment(variables::DOCKER_HOST)?,
            program: OnceLock::new(),
        })
    }

    /// The program, built as it is now: cargo builds programs only for the tests of their own crate.
    fn program(&self) -> Result<&Path, Failed> {
        let program = self.program.get_or_init(|| {
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

    /// A test with a place that has these files.
    pub(crate) fn trial(
        self: &Arc<Self>,
        name: &str,
        test: impl FnOnce(&Place) -> Result<(), Failed> + Send + 'static,
    ) -> Trial {
        let services = self.clone();
        Trial::test(name, move || {
            let directory = tempfile::tempdir()?;
            std::fs::create_dir(directory.path().join("work"))?;
            std::fs::create_dir(directory.path().join("home"))?;
            test(&Place { services, directory })
        })
    }
}

impl Place {
    /// A path below the working directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("work").join(name)
    }

    /// Everything of this test carries this in its path.
    pub(crate) fn mark(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<(), Failed> {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent"))?;
        Ok(std::fs::write(path, content)?)
    }

    /// Writes a Dockerfile in which `{busybox}` is the base image of the registry.
    pub(crate) fn dockerfile(&self, content: &str) -> Result<(), Failed> {
        let busybox = format!("{}/base/busybox:1", self.services.registry);
        self.write("Dockerfile", content.replace("{busybox}", &busybox))
    }

    /// The program with a home and a cache of its own.
    fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Result<Command, Failed> {
        let mut command = Command::new(self.services.program()?);
        let home = self.directory.path().join("home");
        command.args(arguments).current_dir(self.path("")).stdin(Stdio::null());
        command.env("HOME", &home).env("XDG_CACHE_HOME", home.join("cache"));
        command.env_remove("CI").env_remove("WINDLASS_BACKEND").env_remove("SOURCE_DATE_EPOCH");
        Ok(command)
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Outcome, Failed> {
        self.run_with(arguments, &[])
    }

    /// Runs it with these variables besides.
    pub(crate) fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Outcome, Failed> {
        let output = self.command(arguments)?.envs(variables.iter().copied()).output()?;
        Ok(Outcome::of(output))
    }

    /// Starts it in the background.
    pub(crate) fn start(&self, arguments: &[&str]) -> Result<Background, Failed> {
        let child = self.command(arguments)?.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        Ok(Background(Some(child)))
    }
}

/// A program in the background. A test that fails stops it by dropping it.
pub(crate) struct Background(Option<Child>);

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(child) = self.0.take() {
            let _ = interrupt_child(child);
        }
    }
}

/// Sends Ctrl-C and waits for the end.
pub(crate) fn interrupt(mut program: Background) -> Result<Outcome, Failed> {
    interrupt_child(program.0.take().expect("it runs until this"))
}

fn interrupt_child(child: Child) -> Result<Outcome, Failed> {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    assert!(sent.success());
    Ok(Outcome::of(child.wait_with_output()?))
}

/// Waits until something is so.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), Failed> {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() > LIMIT {
            return Err(format!("{what}: not within {LIMIT:?}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// What a run gave.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

impl Outcome {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { stdout: text(output.stdout), stderr: text(output.stderr), code: output.status.code() }
    }

    /// It ended well; gives the only line that it printed.
    pub(crate) fn line(&self) -> Result<&str, Failed> {
        match (self.code, self.stdout.strip_suffix('\n')) {
            (Some(0), Some(line)) if !line.contains('\n') => Ok(line),
            _ => Err(format!("not one line of a good end: {self:#?}").into()),
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

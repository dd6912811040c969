//! A place of its own for one test of the program: a directory to work in, a home, a cache.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use tempfile::TempDir;

/// Names a program to test instead of the one that is built here, such as an optimised one.
const PROGRAM: &str = "WINDLASS_TEST_PROGRAM";
/// How long anything here may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The `windlass` program, built when it is first needed.
#[derive(Debug, Default)]
pub struct Program(OnceLock<Result<PathBuf, String>>);

impl Program {
    /// The program, built as it is now: cargo builds programs only for the tests of their own crate.
    fn path(&self) -> Result<&Path, Failed> {
        let program = self.0.get_or_init(|| {
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
}

/// The place of one test. Dropping it removes everything in it.
#[derive(Debug)]
pub struct Place {
    program: Arc<Program>,
    directory: TempDir,
}

impl Place {
    /// Makes an empty place.
    ///
    /// # Errors
    /// If there is no room for it.
    pub fn new(program: &Arc<Program>) -> Result<Self, Failed> {
        let directory = tempfile::tempdir()?;
        std::fs::create_dir(directory.path().join("work"))?;
        std::fs::create_dir(directory.path().join("home"))?;
        Ok(Self { program: program.clone(), directory })
    }

    /// A path below the working directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("work").join(name)
    }

    /// A path below the home directory.
    pub fn home(&self, name: &str) -> PathBuf {
        self.directory.path().join("home").join(name)
    }

    /// The image store that the program uses here.
    pub fn store(&self) -> PathBuf {
        self.home("cache/windlass/images")
    }

    /// Everything of this test carries this in its path.
    pub fn mark(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file of the working directory.
    ///
    /// # Errors
    /// As the disk.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<(), Failed> {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().ok_or("no parent")?)?;
        Ok(std::fs::write(path, content)?)
    }

    /// The program with a home and a cache of its own.
    ///
    /// # Errors
    /// If it cannot be built.
    pub fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Result<Command, Failed> {
        let mut command = Command::new(self.program.path()?);
        command.args(arguments).current_dir(self.path("")).stdin(Stdio::null());
        command.env("HOME", self.home("")).env("XDG_CACHE_HOME", self.home("cache"));
        for name in ["CI", "WINDLASS_BACKEND", "SOURCE_DATE_EPOCH"] {
            command.env_remove(name);
        }
        Ok(command)
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn run(&self, arguments: &[&str]) -> Result<Outcome, Failed> {
        self.run_with(arguments, &[])
    }

    /// Runs it with these variables besides.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Outcome, Failed> {
        let output = self.command(arguments)?.envs(variables.iter().copied()).output()?;
        Ok(Outcome::of(output))
    }

    /// Starts it in the background.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self, arguments: &[&str]) -> Result<Background, Failed> {
        self.start_with(arguments, &[])
    }

    /// Starts it in the background with these variables besides.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Background, Failed> {
        let mut command = self.command(arguments)?;
        let child =
            command.envs(variables.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        Ok(Background(Some(child)))
    }
}

/// A program in the background. A test that fails stops it by dropping it.
#[derive(Debug)]
pub struct Background(Option<Child>);

impl Background {
    /// The number of its process; `None` if it has ended.
    pub fn id(&self) -> Option<u32> {
        self.0.as_ref().map(Child::id)
    }

    /// Kills it, which it cannot notice, and says whether it was still running.
    ///
    /// # Errors
    /// If it cannot be done.
    pub fn kill(mut self) -> Result<bool, Failed> {
        let mut child = self.0.take().ok_or("it has ended")?;
        let killed = child.kill();
        let status = child.wait()?;
        killed?;
        Ok(status.code().is_none())
    }

    /// Reads one line of what it prints and leaves, as `head` does.
    ///
    /// # Errors
    /// If there is none.
    pub fn read_line_and_leave(&mut self) -> Result<String, Failed> {
        let stdout = self.0.as_mut().and_then(|child| child.stdout.take()).ok_or("it prints nothing")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(line)
    }

    /// Sends it a signal, such as `-INT`.
    ///
    /// # Errors
    /// If it cannot be sent.
    pub fn send(&self, signal: &str) -> Result<(), Failed> {
        let id = self.0.as_ref().ok_or("it has ended")?.id().to_string();
        match Command::new("kill").args([signal, &id]).status()?.success() {
            true => Ok(()),
            false => Err(format!("could not send {signal}").into()),
        }
    }

    /// Sends it a signal, such as `-TERM`, and waits for its end.
    ///
    /// # Errors
    /// If it cannot be sent.
    pub fn signal(mut self, signal: &str) -> Result<Outcome, Failed> {
        signal_child(self.0.take().ok_or("it has ended")?, signal)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If that cannot be seen.
    pub fn wait(mut self) -> Result<Outcome, Failed> {
        Ok(Outcome::of(self.0.take().ok_or("it has ended")?.wait_with_output()?))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(child) = self.0.take() {
            let _ = signal_child(child, "-INT");
        }
    }
}

/// Sends Ctrl-C and waits for the end.
///
/// # Errors
/// If it cannot be sent.
pub fn interrupt(program: Background) -> Result<Outcome, Failed> {
    program.signal("-INT")
}

fn signal_child(child: Child, signal: &str) -> Result<Outcome, Failed> {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
    let output = child.wait_with_output()?;
    match sent?.success() {
        true => Ok(Outcome::of(output)),
        false => Err(format!("could not send {signal}").into()),
    }
}

/// Waits until something is so.
///
/// # Errors
/// If it is not so within a minute.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), Failed> {
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
pub struct Outcome {
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
}

impl Outcome {
    /// Takes it from a run of one's own.
    pub fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { stdout: text(output.stdout), stderr: text(output.stderr), code: output.status.code() }
    }

    /// It ended well; gives what it printed.
    ///
    /// # Errors
    /// If it did not.
    pub fn good(&self) -> Result<&str, Failed> {
        match self.code {
            Some(0) => Ok(&self.stdout),
            _ => Err(format!("not a good end: {self:#?}").into()),
        }
    }

    /// It ended well; gives the only line that it printed.
    ///
    /// # Errors
    /// If it did not, or printed more.
    pub fn line(&self) -> Result<&str, Failed> {
        match (self.code, self.stdout.strip_suffix('\n')) {
            (Some(0), Some(line)) if !line.contains('\n') => Ok(line),
            _ => Err(format!("not one line of a good end: {self:#?}").into()),
        }
    }

    /// It failed with this code, printed nothing, and said all of these.
    ///
    /// # Errors
    /// If it did not; says what is missing.
    pub fn refused(&self, code: i32, says: &[&str]) -> Result<(), Failed> {
        let missing: Vec<&&str> = says.iter().filter(|part| !self.stderr.contains(**part)).collect();
        if self.code == Some(code) && self.stdout.is_empty() && missing.is_empty() {
            return Ok(());
        }
        Err(format!("expected code {code} and {missing:?} in {self:#?}").into())
    }
}

//! The place of one test, with what these tests ask of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use libtest_mimic::{Completion, Failed, Trial};
pub(crate) use windlass_tests::place::Outcome;
use windlass_tests::place::{self, Background, Program};
use windlass_tests::service::{Absent, from_environment, variables};

/// Longer than writers may take to lock a file that they have just made.
const LONG_AGO: Duration = Duration::from_secs(3600);

/// Where the services are.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) registry: String,
    program: Arc<Program>,
}

/// A place with an image store that may be elsewhere.
pub(crate) struct Place {
    pub(crate) services: Arc<Services>,
    place: place::Place,
    /// The directory with the image store.
    pub(crate) cache: PathBuf,
}

impl Services {
    pub(crate) fn from_environment() -> Result<Self, Absent> {
        Ok(Self { registry: from_environment(variables::REGISTRY)?, program: Arc::default() })
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
        let place = place::Place::new(&services.program)?;
        let cache = place.home("cache");
        Ok(Self { services, place, cache })
    }

    /// A path below the working directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path(name)
    }

    /// A path beside the working directory.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.place.mark().join(name)
    }

    /// Writes a file of the working directory.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<(), Failed> {
        self.place.write(name, content)
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

    /// The program with the home and the store of this place.
    pub(crate) fn command(&self, arguments: &[&str]) -> Result<Command, Failed> {
        let mut command = self.place.command(arguments)?;
        command.env("XDG_CACHE_HOME", &self.cache);
        Ok(command)
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Outcome, Failed> {
        Ok(Outcome::of(self.command(arguments)?.output()?))
    }

    /// Runs the program to its good end, and gives what it printed.
    pub(crate) fn done(&self, arguments: &[&str]) -> Result<String, Failed> {
        self.run(arguments)?.good().map(str::to_owned)
    }

    /// Builds the working directory with these further arguments, and gives the digest.
    pub(crate) fn build(&self, arguments: &[&str]) -> Result<String, Failed> {
        let printed = self.done(&[&["build", ".", "-q"], arguments].concat())?;
        digest_in(&printed)
    }

    /// Starts the program in the background, with the store in its home.
    pub(crate) fn start(&self, arguments: &[&str]) -> Result<Background, Failed> {
        self.place.start(arguments)
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

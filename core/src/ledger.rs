//! The ledger of remote builds: what was submitted from this machine, so that it can be come back to.
//!
//! One small file a build, in `builds` of the state directory. A file is written beside, synced and
//! renamed, so a reader meets a whole entry or none, whoever else writes and whenever the power goes.
//! Nothing in it is secret.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::remote::{RemoteBuild, RemoteState};

/// The form of the files. Entries of a newer form are left alone.
const FORMAT: u32 = 1;
/// An entry is no larger; what claims to be is damaged.
const ENTRY_LIMIT_BYTES: u64 = 64 * 1024;
/// Of what a service says of a failure, so much is kept.
const ERROR_LIMIT_CHARACTERS: usize = 2_000;
/// The beginning of a file that is being written.
const UNFINISHED: &str = ".windlass-";

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerLimits {
    /// So many builds that ended. Default: 200.
    pub finished: usize,
    /// So many builds altogether, the youngest; one that nobody came back to never ends in here.
    /// Default: 1,000.
    pub all: usize,
    /// Builds whose entry is older go. Default: 90 days.
    pub age: Duration,
}

impl Default for LedgerLimits {
    fn default() -> Self {
        Self { finished: 200, all: 1_000, age: Duration::from_secs(90 * 24 * 60 * 60) }
    }
}

/// One remote build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// What is needed to come back to it.
    #[serde(flatten)]
    pub build: RemoteBuild,
    /// The configured name of the backend that it was submitted through.
    pub backend: String,
    /// The service, without credentials.
    pub server: String,
    /// What was built, as the user would name it: the directory of the context, or an image.
    pub subject: String,
    /// How it was when it was last heard of.
    pub state: RemoteState,
    /// The image, once it exists.
    pub image: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// When it was submitted.
    pub started_at: Timestamp,
    /// When it was last heard of.
    pub updated_at: Timestamp,
}

impl LedgerEntry {
    /// The entry of a build that was submitted just now.
    pub fn started(build: RemoteBuild, backend: &str, server: &str, subject: impl Into<String>) -> Self {
        let now = Timestamp::now();
        Self {
            build,
            backend: backend.to_owned(),
            server: server.to_owned(),
            subject: subject.into(),
            state: RemoteState::Running,
            image: None,
            error: None,
            started_at: now,
            updated_at: now,
        }
    }

    /// Notes how the build is now.
    pub fn update(&mut self, state: RemoteState, image: Option<String>, error: Option<String>) {
        self.state = state;
        self.image = image.or_else(|| self.image.take());
        self.error = error.map(|text| text.chars().take(ERROR_LIMIT_CHARACTERS).collect());
        self.updated_at = Timestamp::now();
    }
}

/// An entry as it stands in its file.
#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    #[serde(flatten)]
    entry: LedgerEntry,
}

/// The ledger of a state directory.
#[derive(Clone, Debug)]
pub struct Ledger {
    directory: PathBuf,
    limits: LedgerLimits,
}

/// What the ledger holds.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// The builds, the youngest first.
    pub entries: Vec<LedgerEntry>,
    /// The files that cannot be read, and why.
    pub unreadable: Vec<String>,
}

impl Ledger {
    /// The ledger of a state directory. Nothing is made or read yet.
    pub fn new(state_dir: &Path) -> Self {
        Self { directory: state_dir.join("builds"), limits: LedgerLimits::default() }
    }

    /// The same ledger with other limits.
    #[must_use]
    pub fn with_limits(self, limits: LedgerLimits) -> Self {
        Self { limits, ..self }
    }

    /// Writes an entry; it replaces the earlier one of the same build as a whole. Then drops what is
    /// beyond the limits. Blocking, but short.
    ///
    /// # Errors
    /// `LocalIo`.
    pub fn record(&self, entry: &LedgerEntry) -> Result<()> {
        let file = self.directory.join(file_name(entry));
        write(&self.directory, &file, entry).or_error(ErrorKind::LocalIo, || {
            format!("could not record the build `{}` in `{}`", entry.build.id, file.display())
        })?;
        self.drop_old();
        Ok(())
    }

    /// Reads all entries.
    ///
    /// # Errors
    /// `LocalIo` if the directory cannot be read. Entries that cannot be are named in the result.
    pub fn list(&self) -> Result<Listed> {
        let mut listed = Listed::default();
        let failed = || format!("could not read the ledger of builds in `{}`", self.directory.display());
        let files = match fs::read_dir(&self.directory) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(listed),
            Err(error) => return Err(error).or_error(ErrorKind::LocalIo, failed),
        };
        for file in files {
            let path = file.or_error(ErrorKind::LocalIo, failed)?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(Some(entry)) => listed.entries.push(entry),
                // Somebody dropped it meanwhile.
                Ok(None) => {}
                Err(why) => listed.unreadable.push(format!("`{}`: {why}", path.display())),
            }
        }
        listed.entries.sort_by(|a, b| (b.started_at, &b.build.id).cmp(&(a.started_at, &a.build.id)));
        Ok(listed)
    }

    /// Finds the build whose id is this or begins like this.
    ///
    /// # Errors
    /// `NotFound` if there is none; `InvalidInput` if there are several; as [`Ledger::list`].
    pub fn find(&self, id: &str) -> Result<LedgerEntry> {
        choose(&self.list()?.entries, id)
    }

    /// Finds the build whose id is this.
    ///
    /// # Errors
    /// As [`Ledger::find`]; several are of several services.
    pub fn find_whole(&self, id: &str) -> Result<LedgerEntry> {
        let mut entries = self.list()?.entries;
        let longer = entries.iter().any(|entry| !id.is_empty() && entry.build.id.as_str().starts_with(id));
        entries.retain(|entry| entry.build.id.as_str() == id);
        choose(&entries, id).map_err(|error| match error.kind() {
            ErrorKind::NotFound if longer => error.with_hint("the whole id is needed here"),
            _ => error,
        })
    }

    /// Finds the build on one service whose id is this. The beginning of an id finds nothing: it may be the
    /// whole id of a build that was submitted elsewhere.
    ///
    /// # Errors
    /// As [`Ledger::list`].
    pub fn find_at(&self, id: &str, server: &str) -> Result<Option<LedgerEntry>> {
        let entries = self.list()?.entries;
        Ok(entries.into_iter().find(|entry| entry.server == server && entry.build.id.as_str() == id))
    }

    /// Best effort: a ledger that is too long harms nobody.
    fn drop_old(&self) {
        let Ok(Listed { entries, .. }) = self.list() else { return };
        let age = i64::try_from(self.limits.age.as_secs()).unwrap_or(i64::MAX);
        let oldest = Timestamp::now().as_second().saturating_sub(age);
        let mut finished = 0;
        for (index, entry) in entries.iter().enumerate() {
            finished += usize::from(entry.state.is_final());
            let too_many =
                index >= self.limits.all || (entry.state.is_final() && finished > self.limits.finished);
            if too_many || entry.updated_at.as_second() < oldest {
                let _ = fs::remove_file(self.directory.join(file_name(entry)));
            }
        }
        self.drop_unfinished();
    }

    /// What a process that was killed was writing.
    fn drop_unfinished(&self) {
        for file in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let unfinished = file.file_name().to_string_lossy().starts_with(UNFINISHED);
            let age = file
                .metadata()
                .and_then(|data| data.modified())
                .map(|time| SystemTime::now().duration_since(time).unwrap_or_default());
            if unfinished && age.is_ok_and(|age| age > Duration::from_secs(3600)) {
                let _ = fs::remove_file(file.path());
            }
        }
    }
}

/// The entry whose id is this, else the one whose id begins like this.
fn choose(entries: &[LedgerEntry], id: &str) -> Result<LedgerEntry> {
    let found: Vec<&LedgerEntry> = match entries.iter().filter(|e| e.build.id.as_str() == id).collect() {
        exact if !Vec::is_empty(&exact) => exact,
        _ => entries.iter().filter(|e| !id.is_empty() && e.build.id.as_str().starts_with(id)).collect(),
    };
    match found[..] {
        [entry] => Ok(entry.clone()),
        [] => Err(Error::new(ErrorKind::NotFound, format!("no build `{id}` was submitted from here"))
            .with_hint("`windlass builds list` lists those that were")
            .with_hint("name the backend of a build from elsewhere: `--backend NAME`, with the whole id")),
        _ => {
            let ids: Vec<String> = found
                .iter()
                .map(|entry| format!("`{}` (backend `{}`, {})", entry.build.id, entry.backend, entry.server))
                .collect();
            Err(Error::new(ErrorKind::InvalidInput, format!("`{id}` may be several builds"))
                .with_detail("builds", ids.join(", "))
                .with_hint("name more of the id, or the backend: `--backend NAME`"))
        }
    }
}

/// Ids are the server's, so they name no file: their hash does. Two services may give the same id.
fn file_name(entry: &LedgerEntry) -> String {
    let key = format!("{}\n{}", entry.server, entry.build.id);
    format!("{}.json", &Digest::of(key).hex()[..32])
}

fn write(directory: &Path, file: &Path, entry: &LedgerEntry) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let content = serde_json::to_vec_pretty(&File { format: FORMAT, entry: entry.clone() })?;
    let mut temporary = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(directory)?;
    temporary.write_all(&content)?;
    temporary.as_file().sync_all()?;
    temporary.persist(file)?;
    // The name must survive a power failure too.
    fs::File::open(directory)?.sync_all()
}

/// `None` if the file is gone.
fn read(path: &Path) -> Result<Option<LedgerEntry>, String> {
    let content = match fs::metadata(path).and_then(|data| match data.len() {
        0..=ENTRY_LIMIT_BYTES => fs::read(path),
        _ => Err(io::Error::other("it is too large for an entry")),
    }) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    #[derive(Deserialize)]
    struct Form {
        format: u32,
    }
    match serde_json::from_slice::<Form>(&content) {
        Ok(Form { format }) if format > FORMAT => {
            Err(format!("it has the form {format} of a newer windlass"))
        }
        _ => match serde_json::from_slice::<File>(&content) {
            Ok(File { mut entry, .. }) => {
                entry.build.submitted_at = Some(entry.started_at);
                Ok(Some(entry))
            }
            Err(error) => Err(format!("it is damaged: {error}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::BuildId;

    fn entry(id: &str) -> LedgerEntry {
        let build =
            RemoteBuild { id: BuildId::new(id), targets: vec!["r/a:1".to_owned()], submitted_at: None };
        LedgerEntry::started(build, "staging", "https://builds.example.com", "app")
    }

    fn ledger() -> (tempfile::TempDir, Ledger) {
        let directory = tempfile::tempdir().expect("a directory");
        let ledger = Ledger::new(directory.path());
        (directory, ledger)
    }

    #[test]
    fn an_entry_is_found_by_the_beginning_of_its_id() {
        let (_directory, ledger) = ledger();
        assert!(ledger.list().expect("none").entries.is_empty());
        for id in ["abc", "abcd", "axe", "../../x y"] {
            ledger.record(&entry(id)).expect("recorded");
        }
        assert_eq!(ledger.find("abc").expect("the whole id wins").build.id.as_str(), "abc");
        assert_eq!(ledger.find("ax").expect("unique").build.id.as_str(), "axe");
        assert_eq!(ledger.find("..").expect("any text is an id").build.id.as_str(), "../../x y");
        let several = ledger.find("a").expect_err("several");
        assert_eq!(several.kind(), ErrorKind::InvalidInput);
        assert!(several.details()[0].1.contains("`axe`"), "{several:?}");
        for absent in ["zzz", ""] {
            assert_eq!(ledger.find(absent).expect_err("none").kind(), ErrorKind::NotFound);
        }
    }

    #[test]
    fn a_whole_id_means_no_longer_one() {
        let (_directory, ledger) = ledger();
        ledger.record(&entry("71")).expect("recorded");
        let at = |id: &str, server: &str| ledger.find_at(id, server).expect("readable").is_some();
        assert!(at("71", "https://builds.example.com"));
        assert!(!at("7", "https://builds.example.com"), "it was submitted elsewhere");
        assert!(!at("71", "https://other.example.com"));
        assert_eq!(ledger.find_whole("71").expect("known").build.id.as_str(), "71");
        let error = ledger.find_whole("7").expect_err("another build");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.hints().iter().any(|hint| hint.contains("whole id is needed")), "{error:?}");
        assert!(
            !ledger.find_whole("8").expect_err("none").hints().iter().any(|hint| hint.contains("needed"))
        );
    }

    #[test]
    fn an_update_replaces_the_entry() {
        let (_directory, ledger) = ledger();
        let mut entry = entry("one");
        ledger.record(&entry).expect("recorded");
        entry.update(RemoteState::Failed, None, Some("x".repeat(10_000)));
        ledger.record(&entry).expect("recorded");
        let listed = ledger.list().expect("readable").entries;
        entry.build.submitted_at = Some(entry.started_at);
        assert_eq!(listed, [entry]);
        assert_eq!(listed[0].error.as_ref().map(String::len), Some(ERROR_LIMIT_CHARACTERS));
    }

    #[test]
    fn old_builds_are_dropped() {
        let (_directory, ledger) = ledger();
        let ledger = ledger.with_limits(LedgerLimits { finished: 2, all: 4, age: Duration::from_secs(1000) });
        let at = |id: &str, seconds_ago: i64, state| {
            let time = Timestamp::from_second(Timestamp::now().as_second() - seconds_ago).expect("a time");
            LedgerEntry { state, started_at: time, updated_at: time, ..entry(id) }
        };
        for (id, seconds_ago, state) in [
            ("ancient", 2000, RemoteState::Running),
            ("d1", 500, RemoteState::Succeeded),
            ("r1", 400, RemoteState::Running),
            ("d2", 300, RemoteState::Failed),
            ("d3", 200, RemoteState::Cancelled),
            ("r2", 100, RemoteState::Waiting),
        ] {
            ledger.record(&at(id, seconds_ago, state)).expect("recorded");
        }
        let ids = |ledger: &Ledger| -> Vec<String> {
            let entries = ledger.list().expect("readable").entries;
            entries.iter().map(|entry| entry.build.id.to_string()).collect()
        };
        assert_eq!(ids(&ledger), ["r2", "d3", "d2", "r1"]);
        ledger.record(&at("r3", 1, RemoteState::Running)).expect("recorded");
        assert_eq!(ids(&ledger), ["r3", "r2", "d3", "d2"]);
    }

    #[test]
    fn what_cannot_be_read_is_named_and_left_alone() {
        let (directory, ledger) = ledger();
        ledger.record(&entry("good")).expect("recorded");
        let builds = directory.path().join("builds");
        fs::write(builds.join("cut.json"), "{\"format\": 1, \"id\":").expect("written");
        fs::write(builds.join("newer.json"), "{\"format\": 2}").expect("written");
        fs::write(builds.join(".windlass-killed"), "{").expect("written");
        ledger.record(&entry("other")).expect("recorded");
        let listed = ledger.list().expect("readable");
        assert_eq!((listed.entries.len(), listed.unreadable.len()), (2, 2));
        assert!(listed.unreadable.iter().any(|why| why.contains("newer windlass")));
        assert!(builds.join("newer.json").exists());
    }

    #[test]
    fn writers_at_the_same_time_lose_nothing() {
        let (_directory, ledger) = ledger();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let ledger = &ledger;
                scope.spawn(move || {
                    for index in 0..10 {
                        ledger.record(&entry(&format!("{thread}-{index}"))).expect("recorded");
                        ledger.record(&entry("same")).expect("recorded");
                        assert!(ledger.list().expect("readable").unreadable.is_empty());
                    }
                });
            }
        });
        assert_eq!(ledger.list().expect("readable").entries.len(), 41);
    }
}

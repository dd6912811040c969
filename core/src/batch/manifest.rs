//! What became of each image, a line each, written as soon as it is known.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::entry::Entry;
use crate::error::{Error, ErrorKind, Result, ResultExt};

/// The name of the file.
const NAME: &str = "manifest.jsonl";

/// How often it is opened if another file is found in its place.
const MOST_TRIES: u32 = 10;

/// How an image came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It was built.
    Built,
    /// It was there already.
    SkippedRemoteExists,
    /// It could not be built.
    Failed,
}

impl Status {
    /// Its name for people.
    pub fn label(self) -> &'static str {
        match self {
            Self::Built => "built",
            Self::SkippedRemoteExists => "skipped",
            Self::Failed => "failed",
        }
    }
}

/// What became of one image. The names are those that scripts know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What it is called in the list.
    pub name: String,
    /// The hash of what the list says about it: see [`Entry::hash`].
    pub entry: String,
    /// The image that it is made on, where the list says it.
    pub base_image: Option<String>,
    /// The stage or target.
    pub target: Option<String>,
    /// The references that it has.
    pub tags: Vec<String>,
    /// How it came out.
    pub status: Status,
    /// The digest of its manifest, where that is known.
    pub digest: Option<String>,
    /// The backend that built or found it.
    pub backend: Option<String>,
    /// Why it failed: the message and its causes in one line.
    pub error: Option<String>,
    /// Its log.
    pub log_path: Option<PathBuf>,
    /// How many times it was tried.
    pub attempt_count: u32,
    /// When it was begun.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// How long it took, in seconds.
    pub duration_seconds: f64,
}

/// The file with the records of a batch. One batch at a time writes it.
#[derive(Debug)]
pub struct Manifest {
    path: PathBuf,
    file: Mutex<File>,
    /// The last record of each entry of earlier runs, by the hash of the entry.
    known: HashMap<String, Record>,
    resumes: bool,
}

impl Manifest {
    /// Opens the manifest of a directory, which is made if need be. Of one that is there, `resume` takes the
    /// records; otherwise it is moved aside, to `manifest-TIME.jsonl`. Blocking.
    ///
    /// # Errors
    /// `InvalidInput` if another batch writes to it; `Corrupt` for a line that is no record, and is not the last;
    /// `LocalIo`.
    pub fn open(directory: &Path, resume: bool) -> Result<Self> {
        let path = directory.join(NAME);
        let failed = || format!("could not write `{}`", path.display());
        std::fs::create_dir_all(directory)
            .or_error(ErrorKind::LocalIo, || format!("could not make `{}`", directory.display()))?;
        let mut file = open_alone(&path)?;
        let mut known = HashMap::new();
        if resume {
            known = read(&mut file, &path)?;
        } else if file.metadata().or_error(ErrorKind::LocalIo, failed)?.len() > 0 {
            move_aside(&file, &path).or_error(ErrorKind::LocalIo, failed)?;
            file = open_alone(&path)?;
        }
        // The name of a new file is safe only when its directory is.
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .or_error(ErrorKind::LocalIo, failed)?;
        Ok(Self { path, file: Mutex::new(file), known, resumes: resume })
    }

    /// Whether it goes on where an earlier run ended.
    pub fn resumes(&self) -> bool {
        self.resumes
    }

    /// The hashes of the entries that need no more work, by the manifest of a directory; none if there is no
    /// manifest. Changes nothing. Blocking.
    ///
    /// # Errors
    /// `Corrupt` as [`Manifest::open`]; `LocalIo` if it cannot be read.
    pub fn look(directory: &Path) -> Result<HashSet<String>> {
        let path = directory.join(NAME);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(HashSet::new()),
            bytes => bytes.or_error(ErrorKind::LocalIo, || format!("could not read `{}`", path.display()))?,
        };
        let (known, _) = records(&bytes, &path)?;
        let finished = known.into_iter().filter(|(_, record)| record.status != Status::Failed);
        Ok(finished.map(|(hash, _)| hash).collect())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The record of an image that needs no more work: it was built or found by an earlier run, as the list
    /// has it now.
    pub fn finished(&self, entry: &Entry) -> Option<&Record> {
        self.known.get(&entry.hash).filter(|record| record.status != Status::Failed)
    }

    /// Adds a record, safe from a crash when this returns. Blocking.
    ///
    /// # Errors
    /// `LocalIo`.
    pub fn add(&self, record: &Record) -> Result<()> {
        let failed = || format!("could not write `{}`", self.path.display());
        let mut line = serde_json::to_vec(record).or_error(ErrorKind::Corrupt, failed)?;
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let before = file.metadata().map(|metadata| metadata.len());
        let written = file.write_all(&line).and_then(|()| file.sync_data());
        if let (Err(_), Ok(before)) = (&written, before) {
            // Half a line would be in the way of the next.
            let _ = file.set_len(before);
        }
        written.or_error(ErrorKind::LocalIo, failed)
    }
}

/// Opens the file for nobody else. Another batch may move it aside before it is locked here.
fn open_alone(path: &Path) -> Result<File> {
    let failed = || format!("could not write `{}`", path.display());
    let mut tries = 1;
    loop {
        let file = open(path).or_error(ErrorKind::LocalIo, failed)?;
        lock(&file, path)?;
        // There are file systems whose files have another number each time.
        if tries == MOST_TRIES || is_at(&file, path).or_error(ErrorKind::LocalIo, failed)? {
            return Ok(file);
        }
        tries += 1;
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).open(path)
}

/// Whether a path still leads to an open file.
fn is_at(file: &File, path: &Path) -> std::io::Result<bool> {
    let of = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    match std::fs::metadata(path) {
        Ok(there) => Ok(of(there) == of(file.metadata()?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn lock(file: &File, path: &Path) -> Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let message = format!("another batch is writing `{}`", path.display());
            Err(Error::new(ErrorKind::InvalidInput, message)
                .with_hint("wait until it has ended, or choose another directory with `--report`"))
        }
        // File systems without locks have one writer as well.
        Err(TryLockError::Error(_)) => Ok(()),
    }
}

/// Reads the records; a last line that was torn by a crash is cut off.
fn read(file: &mut File, path: &Path) -> Result<HashMap<String, Record>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.read_to_end(&mut bytes))
        .or_error(ErrorKind::LocalIo, || format!("could not read `{}`", path.display()))?;
    let (known, whole) = records(&bytes, path)?;
    if whole < bytes.len() {
        file.set_len(whole as u64)
            .and_then(|()| file.sync_all())
            .or_error(ErrorKind::LocalIo, || format!("could not write `{}`", path.display()))?;
    }
    Ok(known)
}

/// The last record of each entry, and how many bytes the whole lines have.
fn records(bytes: &[u8], path: &Path) -> Result<(HashMap<String, Record>, usize)> {
    let mut known = HashMap::new();
    let mut whole = 0;
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let is_last = whole + line.len() == bytes.len();
        match serde_json::from_slice::<Record>(line) {
            Ok(record) if line.ends_with(b"\n") => drop(known.insert(record.entry.clone(), record)),
            // Whether it is torn or only its end is missing: what it says is done again.
            _ if is_last => break,
            Ok(_) => {}
            Err(error) => {
                let message = format!("line {} of `{}` is no record of a batch", index + 1, path.display());
                return Err(Error::new(ErrorKind::Corrupt, message)
                    .with_source(error)
                    .with_hint("without `--resume` the file is moved aside and a new one is begun"));
            }
        }
        whole += line.len();
    }
    Ok((known, whole))
}

fn move_aside(file: &File, path: &Path) -> std::io::Result<()> {
    let time = Timestamp::try_from(file.metadata()?.modified()?).unwrap_or(Timestamp::UNIX_EPOCH);
    let time = compact(time);
    for number in 1_u32.. {
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let aside = path.with_file_name(format!("manifest-{time}{suffix}.jsonl"));
        if !aside.exists() {
            return std::fs::rename(path, aside);
        }
    }
    Ok(())
}

/// A time as it stands in names of files: `20261125T134500Z`.
pub(super) fn compact(time: Timestamp) -> String {
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::super::entry::Work;
    use super::*;
    use crate::context::Context;
    use crate::request::{BuildRequest, DockerfileSource};

    fn entry(hash: &str) -> Entry {
        let dockerfile =
            DockerfileSource { shown: "D".into(), path: None, in_context: None, content: "".into() };
        Entry {
            name: hash.to_owned(),
            line: 1,
            base_image: None,
            target: None,
            tags: Vec::new(),
            work: Work::Dockerfile(Box::new(BuildRequest::new(Context::empty(), dockerfile))),
            hash: hash.to_owned(),
            shares: Vec::new(),
        }
    }

    fn record(hash: &str, status: Status) -> Record {
        Record {
            name: hash.to_owned(),
            entry: hash.to_owned(),
            base_image: None,
            target: None,
            tags: vec!["a:1".to_owned()],
            status,
            digest: None,
            backend: None,
            error: None,
            log_path: None,
            attempt_count: 1,
            started_at: Timestamp::UNIX_EPOCH,
            finished_at: Timestamp::UNIX_EPOCH,
            duration_seconds: 0.5,
        }
    }

    #[test]
    fn what_ended_is_known_to_the_next_run() {
        let dir = tempfile::tempdir().expect("a directory");
        let manifest = Manifest::open(dir.path(), false).expect("new");
        let other = Manifest::open(dir.path(), true).expect_err("locked");
        assert!(other.message().contains("another batch"), "{other:?}");
        for (hash, status) in [
            ("a", Status::Built),
            ("b", Status::Failed),
            ("c", Status::SkippedRemoteExists),
            ("b", Status::Built),
        ] {
            manifest.add(&record(hash, status)).expect("written");
        }
        manifest.add(&record("d", Status::Failed)).expect("written");
        drop(manifest);
        let manifest = Manifest::open(dir.path(), true).expect("resumed");
        let finished = |hash| manifest.finished(&entry(hash)).is_some();
        assert_eq!(["a", "b", "c", "d", "e"].map(finished), [true, true, true, false, false]);
    }

    #[test]
    fn a_torn_last_line_is_done_again() {
        let whole = serde_json::to_string(&record("a", Status::Built)).expect("JSON") + "\n";
        let torn = serde_json::to_string(&record("b", Status::Built)).expect("JSON");
        for end in [&torn[..1], &torn[..torn.len() / 2], &torn, "{\"x\"\n"] {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join(NAME);
            std::fs::write(&path, format!("{whole}{end}")).expect("write");
            let manifest = Manifest::open(dir.path(), true).expect("resumed");
            assert_eq!(Manifest::look(dir.path()).expect("read").len(), 1);
            assert!(manifest.finished(&entry("a")).is_some() && manifest.finished(&entry("b")).is_none());
            manifest.add(&record("c", Status::Built)).expect("written");
            let text = std::fs::read_to_string(&path).expect("read");
            assert_eq!(text.lines().count(), 2, "{text}");
            assert!(text.starts_with(&whole), "{text}");
        }
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(NAME), format!("nonsense\n{whole}")).expect("write");
        let error = Manifest::open(dir.path(), true).expect_err("corrupt");
        assert!(error.message().starts_with("line 1 of"), "{error:?}");
    }

    #[test]
    fn a_new_batch_keeps_the_records_of_the_last() {
        let dir = tempfile::tempdir().expect("a directory");
        for _ in 0..3 {
            let manifest = Manifest::open(dir.path(), false).expect("new");
            assert!(manifest.finished(&entry("a")).is_none());
            manifest.add(&record("a", Status::Built)).expect("written");
        }
        let names = std::fs::read_dir(dir.path()).expect("read").count();
        assert_eq!(names, 3);
    }

    #[test]
    fn a_file_that_was_moved_aside_is_another() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(NAME);
        let file = open(&path).expect("new");
        assert!(is_at(&file, &path).expect("there"));
        std::fs::rename(&path, dir.path().join("aside")).expect("moved");
        assert!(!is_at(&file, &path).expect("gone"));
        open(&path).expect("new");
        assert!(!is_at(&file, &path).expect("another"));
    }
}

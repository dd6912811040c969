use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;

use super::*;
use crate::batch::entry::Work;
use crate::context::Context;
use crate::request::{BuildRequest, DockerfileSource};

/// By name and attempt: whether it was there, or why it fails.
type Answer = dyn Fn(&str, u32) -> Result<bool> + Send + Sync;

/// Does what a test says.
struct Fake {
    answer: Box<Answer>,
    attempts: Mutex<HashMap<String, u32>>,
    order: Mutex<Vec<String>>,
    /// Those that it was told were begun before, and how often it was.
    begun_before: Mutex<Vec<String>>,
    running: AtomicUsize,
    most: AtomicUsize,
}

impl Fake {
    fn new(answer: impl Fn(&str, u32) -> Result<bool> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            answer: Box::new(answer),
            attempts: Mutex::default(),
            order: Mutex::default(),
            begun_before: Mutex::default(),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        })
    }

    fn order(&self) -> Vec<String> {
        self.order.lock().expect("lock").clone()
    }
}

#[async_trait]
impl ImageBuilder for Fake {
    async fn build(&self, entry: &Entry, begun_before: bool, job: &Job) -> Result<Built> {
        if begun_before {
            self.begun_before.lock().expect("lock").push(entry.name.clone());
        }
        self.order.lock().expect("lock").push(entry.name.clone());
        let attempt = {
            let mut attempts = self.attempts.lock().expect("lock");
            let attempt = attempts.entry(entry.name.clone()).or_default();
            *attempt += 1;
            *attempt
        };
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        job.events.step("building").done();
        // Time stands still while logs and records are written, so all that may run does.
        tokio::time::sleep(Duration::from_millis(10)).await;
        let waits = entry.name.starts_with("endless");
        let answer = match waits {
            true => job.run(std::future::pending()).await,
            false => (self.answer)(&entry.name, attempt),
        };
        self.running.fetch_sub(1, Ordering::SeqCst);
        answer.map(|found| Built { tags: Vec::new(), digest: None, backend: "fake".to_owned(), found })
    }
}

#[derive(Default)]
struct Seen(Mutex<Vec<String>>);

impl BatchSink for Seen {
    fn emit(&self, event: BatchEvent<'_>) {
        let text = match event {
            BatchEvent::Began { total, finished_before } => format!("began {finished_before}/{total}"),
            BatchEvent::Retrying { name, attempt, wait_seconds, .. } => {
                format!("{name} again, {attempt}, {wait_seconds}")
            }
            BatchEvent::Finished { record } => format!("{} {}", record.name, record.status.label()),
            BatchEvent::Stopped { reason } => format!("stopped: {reason}"),
            _ => return,
        };
        self.0.lock().expect("lock").push(text);
    }
}

fn entry(name: &str, shares: &[&str]) -> Entry {
    let dockerfile = DockerfileSource { shown: "D".into(), path: None, in_context: None, content: "".into() };
    Entry {
        name: name.to_owned(),
        line: 1,
        base_image: None,
        target: None,
        tags: Vec::new(),
        work: Work::Dockerfile(Box::new(BuildRequest::new(Context::empty(), dockerfile))),
        hash: format!("hash of {name}"),
        shares: shares.iter().map(ToString::to_string).collect(),
    }
}

fn list(names: &[&str]) -> List {
    List { file: "l".into(), entries: names.iter().map(|name| entry(name, &[])).collect() }
}

fn busy() -> Error {
    Error::new(ErrorKind::Unavailable, "busy")
}

struct Rig {
    dir: tempfile::TempDir,
    options: BatchOptions,
    seen: Arc<Seen>,
    job: Job,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let options = BatchOptions::new(dir.path().to_owned());
        Self { dir, options, seen: Arc::default(), job: Job::silent() }
    }

    async fn run(&self, list: &List, fake: &Arc<Fake>, resume: bool) -> Result<Summary> {
        let manifest = Arc::new(Manifest::open(self.dir.path(), resume).expect("a manifest"));
        run(list, fake.clone(), manifest, &self.options, self.seen.clone(), &self.job).await
    }

    fn records(&self) -> Vec<Record> {
        let text = std::fs::read_to_string(self.dir.path().join("manifest.jsonl")).expect("a manifest");
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    fn seen(&self) -> Vec<String> {
        self.seen.0.lock().expect("lock").clone()
    }
}

#[tokio::test(start_paused = true)]
async fn each_image_has_a_record_and_a_log() {
    let rig = Rig::new();
    let fake = Fake::new(|name, _| match name {
        "bad" => Err(Error::new(ErrorKind::InvalidDockerfile, "no").with_source("really no".to_owned())),
        name => Ok(name == "there"),
    });
    let summary = rig.run(&list(&["a", "bad", "there"]), &fake, false).await.expect("runs");
    assert_eq!((summary.built, summary.skipped, summary.failed, summary.not_finished), (1, 1, 1, 0));
    assert_eq!((summary.is_good(), summary.cancelled), (false, false));
    let mut records = rig.records();
    records.sort_by(|a, b| a.name.cmp(&b.name));
    let statuses: Vec<_> = records.iter().map(|record| record.status).collect();
    assert_eq!(statuses, [Status::Built, Status::Failed, Status::SkippedRemoteExists]);
    assert_eq!(records[1].error.as_deref(), Some("no: really no"));
    let log = std::fs::read_to_string(records[1].log_path.as_ref().expect("a log")).expect("read");
    assert!(log.contains("building") && log.contains("failed: no: really no"), "{log}");
    let summary = std::fs::read_to_string(rig.dir.path().join("build-summary.json")).expect("a summary");
    let summary: serde_json::Value = serde_json::from_str(&summary).expect("JSON");
    assert_eq!((&summary["total"], &summary["failures"][0]["name"]), (&3.into(), &"bad".into()));
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_again_with_growing_waits() {
    let rig = Rig::new();
    let fake = Fake::new(|name, attempt| match (name, attempt) {
        ("third", 3) => Ok(false),
        ("hopeless", _) => Err(Error::new(ErrorKind::Denied, "no")),
        _ => Err(busy()),
    });
    let start = tokio::time::Instant::now();
    let summary = rig.run(&list(&["third"]), &fake, false).await.expect("runs");
    assert_eq!((summary.built, start.elapsed().as_secs()), (1, 6));
    assert_eq!(rig.records()[0].attempt_count, 3);
    assert!(rig.seen().contains(&"third again, 3, 4".to_owned()), "{:?}", rig.seen());
    let start = tokio::time::Instant::now();
    rig.run(&list(&["never", "hopeless"]), &fake, false).await.expect("runs");
    assert_eq!(start.elapsed().as_secs(), 2 + 4 + 6);
    let attempts = fake.attempts.lock().expect("lock").clone();
    assert_eq!((attempts["never"], attempts["hopeless"]), (4, 1));
}

#[tokio::test(start_paused = true)]
async fn so_many_at_a_time_and_the_first_of_a_context_alone() {
    let mut rig = Rig::new();
    rig.options.concurrency = 3;
    let fake = Fake::new(|_, _| Ok(false));
    let names: Vec<String> = (0..9).map(|number| number.to_string()).collect();
    let entries =
        names.iter().map(|name| entry(name, if name == "8" { &[] } else { &["context"] })).collect();
    let summary = rig.run(&List { file: "l".into(), entries }, &fake, false).await.expect("runs");
    assert_eq!(summary.built, 9);
    assert_eq!(fake.most.load(Ordering::SeqCst), 3);
    // What shares nothing need not wait for the first.
    let mut first: Vec<String> = fake.order()[..2].to_vec();
    first.sort();
    assert_eq!(first, ["0", "8"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_resumed_repeats_only_what_is_not_finished() {
    let rig = Rig::new();
    let fake = Fake::new(|name, attempt| match (name, attempt) {
        ("b", 1) => Err(Error::new(ErrorKind::Denied, "no")),
        _ => Ok(false),
    });
    let mut list = list(&["a", "b", "c"]);
    rig.run(&list, &fake, false).await.expect("runs");
    list.entries[2].hash = "changed".to_owned();
    let summary = rig.run(&list, &fake, true).await.expect("runs");
    assert_eq!((summary.built, summary.finished_before, summary.total), (2, 1, 3));
    assert!(summary.is_good());
    let attempts = fake.attempts.lock().expect("lock").clone();
    assert_eq!((attempts["a"], attempts["b"], attempts["c"]), (1, 2, 2));
    let summary = rig.run(&list, &fake, true).await.expect("runs");
    assert_eq!((summary.built, summary.finished_before), (0, 3));
    assert_eq!(rig.records().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_was_begun_before_is_known_as_that() {
    let mut rig = Rig::new();
    rig.options.concurrency = 1;
    let cancel = rig.job.cancel.clone();
    let fake = Fake::new(move |name, attempt| match (name, attempt) {
        ("again", 1) => Err(busy()),
        ("last", 1) => {
            cancel.cancel();
            Err(busy())
        }
        _ => Ok(false),
    });
    let begun_before = || std::mem::take(&mut *fake.begun_before.lock().expect("lock"));
    let list = list(&["once", "again", "last", "new"]);
    let summary = rig.run(&list, &fake, false).await.expect("runs");
    assert_eq!((summary.built, summary.not_finished), (2, 2));
    assert_eq!(begun_before(), ["again"]);
    rig.job = Job::silent();
    rig.run(&list, &fake, true).await.expect("runs");
    assert_eq!(begun_before(), ["last", "new"]);
    rig.run(&list, &fake, false).await.expect("runs");
    assert_eq!(begun_before(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_finds_a_true_manifest() {
    let mut rig = Rig::new();
    rig.options.concurrency = 2;
    let cancel = rig.job.cancel.clone();
    let fake = Fake::new(move |_, _| {
        cancel.cancel();
        Ok(false)
    });
    let summary = rig.run(&list(&["endless", "a", "b", "c"]), &fake, false).await.expect("runs");
    assert_eq!((summary.built, summary.not_finished, summary.cancelled), (1, 3, true));
    assert_eq!(rig.records().iter().map(|record| record.name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(BTreeSet::from_iter(fake.order()), BTreeSet::from(["a".to_owned(), "endless".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn one_failure_is_enough_where_that_is_asked_for() {
    let mut rig = Rig::new();
    rig.options.fail_fast = true;
    rig.options.concurrency = 2;
    let fake = Fake::new(|_, _| Err(Error::new(ErrorKind::Denied, "no")));
    let summary = rig.run(&list(&["endless", "a", "b"]), &fake, false).await.expect("runs");
    assert_eq!((summary.failed, summary.not_finished, summary.cancelled), (1, 2, false));
    assert!(summary.stopped.expect("stopped").contains("`a` failed"));
}

#[tokio::test(start_paused = true)]
async fn an_image_that_takes_too_long_is_stopped_alone() {
    let mut rig = Rig::new();
    rig.options.limit = Some(Duration::from_secs(2000));
    let fake = Fake::new(|_, _| Ok(false));
    let summary = rig.run(&list(&["endless", "a"]), &fake, false).await.expect("runs");
    assert_eq!((summary.built, summary.failed), (1, 1));
    assert!(summary.failures[0].error.contains("2000 s"), "{summary:?}");
    assert_eq!(fake.attempts.lock().expect("lock")["endless"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fills_up_stops_the_batch() {
    let mut rig = Rig::new();
    rig.options.concurrency = 1;
    let asked = AtomicUsize::new(0);
    // Once before, and once before each image.
    let guard = DiskGuard::new(10, vec!["/".into()])
        .measured_by(move |_| Some(if asked.fetch_add(1, Ordering::SeqCst) < 3 { 10 } else { 9 }));
    rig.options.disk = guard;
    let fake = Fake::new(|_, _| Ok(false));
    let summary = rig.run(&list(&["a", "b", "c", "d"]), &fake, false).await.expect("runs");
    assert_eq!((summary.built, summary.not_finished, summary.is_good()), (2, 2, false));
    assert!(rig.seen().iter().any(|line| line.starts_with("stopped: only")), "{:?}", rig.seen());
    let error = rig.run(&list(&["a"]), &fake, false).await.expect_err("nothing is begun");
    assert_eq!(error.kind(), ErrorKind::LocalIo);
    assert_eq!(fake.order(), ["a", "b"]);
}

//! Builds the images of a list, so many at a time, and records what becomes of each.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinSet;

use super::builder::{Built, ImageBuilder};
use super::disk::DiskGuard;
use super::entry::Entry;
use super::event::{BatchEvent, BatchSink};
use super::image_log::{ImageLog, Listener};
use super::list::List;
use super::manifest::{Manifest, Record, Status};
use super::problems::in_one_line;
use super::schedule::Schedule;
use super::summary::Summary;
use crate::backend::Job;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Events;

/// How a batch is run, apart from what is built.
#[derive(Clone, Debug)]
pub struct BatchOptions {
    /// So many images at a time. Default: 4.
    pub concurrency: usize,
    /// So often an image is tried again after the first time, where another try may help. Default: 3.
    pub retries: u32,
    /// How long before the first of these; each waits as much longer. Default: 2 s, so 2, 4, 6 s.
    pub first_wait: Duration,
    /// How long one image may take.
    pub limit: Option<Duration>,
    /// The first image that fails stops the batch. Default: no.
    pub fail_fast: bool,
    /// Where logs and the summary go.
    pub report: PathBuf,
    /// How much room there must be.
    pub disk: DiskGuard,
    /// How often it is said what is under way. Default: 60 s.
    pub heartbeat: Duration,
}

impl BatchOptions {
    /// The defaults, with everything written to a directory.
    pub fn new(report: PathBuf) -> Self {
        Self {
            concurrency: 4,
            retries: 3,
            first_wait: Duration::from_secs(2),
            limit: None,
            fail_fast: false,
            disk: DiskGuard::new(0, Vec::new()),
            report,
            heartbeat: Duration::from_secs(60),
        }
    }
}

/// Builds the images of a list that are not finished yet, and writes the summary.
///
/// When the user stops it, what is under way ends by itself, and what has ended until then is in the manifest;
/// the summary says so, and this is no error.
///
/// # Errors
/// `LocalIo` where records or the summary cannot be written, and where there is too little room to begin.
pub async fn run(
    list: &List,
    builder: Arc<dyn ImageBuilder>,
    manifest: Arc<Manifest>,
    options: &BatchOptions,
    sink: Arc<dyn BatchSink>,
    job: &Job,
) -> Result<Summary> {
    options.disk.check()?;
    let entries: Vec<Arc<Entry>> = list
        .entries
        .iter()
        .filter(|entry| manifest.finished(entry).is_none())
        .map(|entry| Arc::new(entry.clone()))
        .collect();
    let (total, before) = (list.entries.len(), list.entries.len() - entries.len());
    let mut summary = Summary::begin(total, before, manifest.path(), Timestamp::now());
    sink.emit(BatchEvent::Began { total, finished_before: before });
    // What stops the batch without the user stops only the batch.
    let job = job.child();
    let shared = Arc::new(Shared { builder, manifest, sink, options: options.clone() });
    let mut batch = Batch {
        schedule: Schedule::new(entries.iter().map(|entry| entry.shares.as_slice())),
        entries,
        running: BTreeSet::new(),
        tasks: JoinSet::new(),
        shared,
        job,
    };
    let ended = batch.run(&mut summary).await;
    summary.end(Timestamp::now());
    let (written, report) = (summary.clone(), options.report.clone());
    let wrote = Job::silent().blocking(move |_| written.write(&report)).await;
    ended?;
    wrote?;
    Ok(summary)
}

/// What all images of a batch use.
struct Shared {
    builder: Arc<dyn ImageBuilder>,
    manifest: Arc<Manifest>,
    sink: Arc<dyn BatchSink>,
    options: BatchOptions,
}

struct Batch {
    schedule: Schedule,
    entries: Vec<Arc<Entry>>,
    running: BTreeSet<usize>,
    tasks: JoinSet<(usize, Result<Option<Record>>)>,
    shared: Arc<Shared>,
    job: Job,
}

impl Batch {
    async fn run(&mut self, summary: &mut Summary) -> Result<()> {
        let mut broken = Ok(());
        loop {
            while broken.is_ok() && self.may_start(summary) {
                let Some(image) = self.schedule.next() else { break };
                self.start(image);
            }
            let Some(ended) = self.next_end().await else { break };
            let (image, record) = ended;
            self.running.remove(&image);
            match record {
                Ok(Some(record)) => {
                    self.schedule.ended(image, record.status == Status::Built);
                    summary.add(&record);
                    self.shared.sink.emit(BatchEvent::Finished { record: &record });
                    if record.status == Status::Failed && self.shared.options.fail_fast {
                        self.stop(summary, &format!("`{}` failed, and `--fail-fast` is given", record.name));
                        self.job.cancel.cancel();
                    }
                }
                Ok(None) => self.schedule.ended(image, false),
                // A batch whose records are lost is not to be gone on with.
                Err(error) => {
                    self.job.cancel.cancel();
                    broken = broken.and(Err(error));
                }
            }
        }
        summary.cancelled = self.job.cancel.is_cancelled() && summary.stopped.is_none() && broken.is_ok();
        broken
    }

    /// Whether another image may be begun.
    fn may_start(&self, summary: &mut Summary) -> bool {
        if self.schedule.waiting() == 0 || self.job.cancel.is_cancelled() || summary.stopped.is_some() {
            return false;
        }
        if self.tasks.len() >= self.shared.options.concurrency.max(1) {
            return false;
        }
        match self.shared.options.disk.check() {
            Ok(()) => true,
            Err(error) => {
                self.stop(summary, error.message());
                false
            }
        }
    }

    fn stop(&self, summary: &mut Summary, reason: &str) {
        if summary.stopped.is_none() {
            self.shared.sink.emit(BatchEvent::Stopped { reason });
            summary.stopped = Some(reason.to_owned());
        }
    }

    fn start(&mut self, image: usize) {
        let (shared, entry, job) = (self.shared.clone(), self.entries[image].clone(), self.job.child());
        self.running.insert(image);
        self.tasks.spawn(async move { (image, shared.image(&entry, &job).await) });
    }

    /// Waits for an image to end, and says what is under way where that takes long.
    async fn next_end(&mut self) -> Option<(usize, Result<Option<Record>>)> {
        loop {
            match tokio::time::timeout(self.shared.options.heartbeat, self.tasks.join_next()).await {
                Ok(None) => return None,
                Ok(Some(Ok(ended))) => return Some(ended),
                // Nobody aborts them, so a panic is all that it can be.
                Ok(Some(Err(join))) => {
                    if let Ok(panic) = join.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
                Err(_) => {
                    let names = self.running.iter().map(|image| self.entries[*image].name.as_str());
                    self.shared.sink.emit(BatchEvent::StillRunning { names: names.collect() });
                }
            }
        }
    }
}

/// Tells the batch what happens to one image.
struct OneImage {
    name: String,
    sink: Arc<dyn BatchSink>,
}

impl Listener for OneImage {
    fn step(&self, name: &str) {
        self.sink.emit(BatchEvent::Step { name: &self.name, step: name });
    }

    fn warning(&self, message: &str) {
        self.sink.emit(BatchEvent::Warned { name: &self.name, message });
    }
}

impl Shared {
    /// Makes one image; `None` if the batch was stopped before it ended.
    async fn image(&self, entry: &Entry, job: &Job) -> Result<Option<Record>> {
        self.sink.emit(BatchEvent::Started { name: &entry.name });
        let started_at = Timestamp::now();
        let listener = Arc::new(OneImage { name: entry.name.clone(), sink: self.sink.clone() });
        let directory = self.options.report.join("logs").join(&entry.name);
        let log = job.blocking(move |_| ImageLog::create(&directory, started_at, listener)).await?;
        let log = Arc::new(log);
        let job = Job { events: Events::new(log.clone()), ..job.clone() };
        let (result, attempts) = self.attempts(entry, &log, &job).await;
        if result.is_err() && job.cancel.is_cancelled() {
            log.say("stopped");
            log.flush();
            return Ok(None);
        }
        let record = record(entry, result, attempts, &log, started_at);
        match &record.error {
            Some(error) => log.say(&format!("failed: {error}")),
            None => log.say(record.status.label()),
        }
        let (manifest, written) = (self.manifest.clone(), record.clone());
        // What is known is written down, whoever leaves meanwhile.
        let write = move |_: &Job| {
            log.flush();
            manifest.add(&written)
        };
        job.blocking(write).await?;
        Ok(Some(record))
    }

    async fn attempts(&self, entry: &Entry, log: &ImageLog, job: &Job) -> (Result<Built>, u32) {
        // How far an earlier run came with an image that has no record is not known.
        let resumes = self.manifest.resumes();
        let mut attempt = 1;
        loop {
            let (result, may_pass) = self.attempt(entry, resumes || attempt > 1, job).await;
            let error = match result {
                Err(error) if may_pass && attempt <= self.options.retries && job.check().is_ok() => error,
                result => return (result, attempt),
            };
            // 2 + 2·n seconds, n from 0.
            let wait = self.options.first_wait * attempt;
            attempt += 1;
            let text = in_one_line(&error);
            log.say(&format!("failed: {text}; attempt {attempt} in {} s", wait.as_secs()));
            let (name, wait_seconds) = (entry.name.as_str(), wait.as_secs_f64());
            self.sink.emit(BatchEvent::Retrying { name, attempt, wait_seconds, error: &text });
            let sleep = async {
                tokio::time::sleep(wait).await;
                Ok(())
            };
            if let Err(cancelled) = job.run(sleep).await {
                return (Err(cancelled), attempt - 1);
            }
        }
    }

    /// Tries once; says too whether another try may help.
    async fn attempt(&self, entry: &Entry, begun_before: bool, job: &Job) -> (Result<Built>, bool) {
        let limit = self.options.limit;
        let job = Job { limit: limit.or(job.limit), ..job.child() };
        let mut work = std::pin::pin!(self.builder.build(entry, begun_before, &job));
        let result = match limit {
            None => work.await,
            Some(limit) => match tokio::time::timeout(limit, &mut work).await {
                Ok(result) => result,
                Err(_) => {
                    job.cancel.cancel();
                    match work.await {
                        Ok(built) => Ok(built),
                        Err(_) => {
                            let message = format!("stopped after {} s, its time limit", limit.as_secs());
                            return (Err(Error::new(ErrorKind::TimedOut, message)), false);
                        }
                    }
                }
            },
        };
        let may_pass = result.as_ref().err().is_some_and(may_pass);
        (result, may_pass)
    }
}

/// Whether the same may succeed a little later. What a service has taken is not built again beside it.
fn may_pass(error: &Error) -> bool {
    let passing = matches!(
        error.kind(),
        ErrorKind::BuildFailed
            | ErrorKind::Unavailable
            | ErrorKind::TimedOut
            | ErrorKind::UnexpectedAnswer
            | ErrorKind::Corrupt
    );
    passing && error.build().is_none()
}

fn record(
    entry: &Entry,
    result: Result<Built>,
    attempt_count: u32,
    log: &ImageLog,
    started_at: Timestamp,
) -> Record {
    let finished_at = Timestamp::now();
    let (status, error) = match &result {
        Ok(built) if built.found => (Status::SkippedRemoteExists, None),
        Ok(_) => (Status::Built, None),
        Err(error) => (Status::Failed, Some(in_one_line(error))),
    };
    let built = result.ok();
    let tags = built.as_ref().map_or(&entry.tags, |built| &built.tags);
    Record {
        name: entry.name.clone(),
        entry: entry.hash.clone(),
        base_image: entry.base_image.clone(),
        target: entry.target.clone(),
        tags: tags.iter().map(ToString::to_string).collect(),
        status,
        digest: built.as_ref().and_then(|built| built.digest).map(|digest| digest.to_string()),
        backend: built.map(|built| built.backend),
        error,
        log_path: Some(log.path().to_owned()),
        attempt_count,
        started_at,
        finished_at,
        duration_seconds: finished_at.duration_since(started_at).as_secs_f64(),
    }
}

#[cfg(test)]
mod tests;

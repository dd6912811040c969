//! `windlass builds`: builds that outlive the program.

use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use windlass_core::backend::{Backend, Job};
use windlass_core::ledger::{Ledger, LedgerEntry};
use windlass_core::pipeline::{note_status, resume};
use windlass_core::remote::{BuildId, RemoteBuild, RemoteBuilds, RemoteState};
use windlass_core::request::BuiltImage;
use windlass_core::{Error, ErrorKind, Result};

use super::backends::{choose, create};
use super::build::{limit, result_line};
use crate::args::{BuildArg, BuildsCommand, Format};
use crate::output::{Table, clean, duration};
use crate::session::{Program, Session};

pub(super) async fn run(command: Option<BuildsCommand>, program: &Program) -> Result<()> {
    let session = program.session(None)?;
    session.output.refuse_paths()?;
    match command.unwrap_or(BuildsCommand::List) {
        BuildsCommand::List => list(&session),
        BuildsCommand::Status(build) => status(&build, &session).await,
        BuildsCommand::Attach { build, timeout } => attach(&build, timeout.as_deref(), &session).await,
        BuildsCommand::Logs(build) => logs(&build, &session).await,
        BuildsCommand::Cancel(build) => cancel(&build, &session).await,
    }
}

/// A build with the backend that it is on.
struct Found {
    entry: LedgerEntry,
    /// Where the backend is gone, what the ledger knows can be shown all the same.
    backend: Result<Arc<dyn Backend>>,
    ledger: Ledger,
}

impl Found {
    /// Looks a build up, and makes its backend; reaches for nothing.
    fn new(wanted: &BuildArg, session: &Session<'_>) -> Result<Self> {
        Self::found_by(wanted, session, Ledger::find)
    }

    /// The same for what cannot be taken back: the beginning of an id may mean another build.
    fn by_whole_id(wanted: &BuildArg, session: &Session<'_>) -> Result<Self> {
        Self::found_by(wanted, session, Ledger::find_whole)
    }

    fn found_by(
        wanted: &BuildArg,
        session: &Session<'_>,
        find: fn(&Ledger, &str) -> Result<LedgerEntry>,
    ) -> Result<Self> {
        let ledger = Ledger::new(&session.host.state_dir);
        match &wanted.backend {
            None => {
                let entry = find(&ledger, &wanted.id)?;
                let backend = backend_of(&entry, session);
                Ok(Self { entry, backend, ledger })
            }
            Some(name) => {
                // No path of a call can hold these: they would mean another call.
                if matches!(wanted.id.as_str(), "" | "." | "..") {
                    let message = format!("`{}` is no id of a build", wanted.id);
                    return Err(Error::new(ErrorKind::InvalidInput, message));
                }
                let backend = make(name, session)?;
                let server = remote(backend.as_ref())?.server();
                let entry = match ledger.find_at(&wanted.id, server)? {
                    // Whatever the backend was called when the build was submitted.
                    Some(entry) => LedgerEntry { backend: name.clone(), ..entry },
                    None => {
                        let build = RemoteBuild {
                            id: BuildId::new(&wanted.id),
                            targets: Vec::new(),
                            submitted_at: None,
                        };
                        LedgerEntry::started(build, name, server, "submitted elsewhere")
                    }
                };
                Ok(Self { entry, backend: Ok(backend), ledger })
            }
        }
    }

    fn remote(&self) -> Result<&dyn RemoteBuilds> {
        match &self.backend {
            Ok(backend) => remote(backend.as_ref()),
            Err(error) => Err(error.clone()),
        }
    }

    /// Asks the service, and notes the answer. What ended for good is not asked for again: services
    /// forget builds.
    async fn refresh(&mut self, job: &Job) -> Result<()> {
        if self.entry.state.is_final() {
            return Ok(());
        }
        let status = self.remote()?.status(&self.entry.build, job).await?;
        note_status(&mut self.entry, &status);
        self.record(job);
        Ok(())
    }

    fn record(&self, job: &Job) {
        if let Err(error) = self.ledger.record(&self.entry) {
            job.events.warn(error.to_string());
        }
    }
}

fn make(name: &String, session: &Session<'_>) -> Result<Arc<dyn Backend>> {
    let selection = choose(std::slice::from_ref(name), session)?;
    create(&selection.backends[0], session)
}

/// The backend that a build was submitted through.
///
/// # Errors
/// `InvalidConfig` if there is none of this name any more, or it means another service.
fn backend_of(entry: &LedgerEntry, session: &Session<'_>) -> Result<Arc<dyn Backend>> {
    let (id, name) = (&entry.build.id, &entry.backend);
    let backend = make(name, session).map_err(|error| {
        let message =
            format!("the build `{id}` was submitted through the backend `{name}`, which cannot be used now");
        Error::new(ErrorKind::InvalidConfig, message)
            .with_source(error)
            .with_detail("submitted to", entry.server.clone())
            .with_hint("name another backend of that service with `--backend`, or configure this one again")
    })?;
    match remote(backend.as_ref())?.server() {
        server if server == entry.server => Ok(backend),
        server => Err(moved(entry, name, server)),
    }
}

fn remote(backend: &dyn Backend) -> Result<&dyn RemoteBuilds> {
    backend.remote().ok_or_else(|| {
        let message = format!("builds of the backend `{}` end with the program", backend.name());
        Error::new(ErrorKind::Unsupported, message)
            .with_hint("only builds on a service can be come back to: name its backend with `--backend`")
    })
}

fn moved(entry: &LedgerEntry, name: &str, server: &str) -> Error {
    let id = &entry.build.id;
    let message = format!("the build `{id}` is not on the service that the backend `{name}` means now");
    Error::new(ErrorKind::InvalidConfig, message)
        .with_detail("submitted to", entry.server.clone())
        .with_detail("backend means", server.to_owned())
        .with_hint("name a backend of that service with `--backend`, or set its address as it was")
}

/// An entry as data.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    entry: &'a LedgerEntry,
}

fn list(session: &Session<'_>) -> Result<()> {
    let listed = Ledger::new(&session.host.state_dir).list()?;
    for why in &listed.unreadable {
        session.output.warn(&format!("an entry of the ledger cannot be read: {why}"));
    }
    if session.output.format == Format::Json {
        let shown: Vec<_> = listed.entries.iter().map(|entry| Shown { entry }).collect();
        return session.output.json(&shown);
    }
    let now = jiff::Timestamp::now();
    let mut table = Table::new(["ID", "BACKEND", "STATE", "AGE", "IMAGE", "FROM"]);
    for entry in &listed.entries {
        let age = now.as_second().saturating_sub(entry.started_at.as_second());
        let age = std::time::Duration::from_secs(u64::try_from(age).unwrap_or(0));
        table.row([
            clean(entry.build.id.as_str()),
            clean(&entry.backend),
            entry.state.name().to_owned(),
            duration(age),
            clean(image(entry)),
            clean(&entry.subject),
        ]);
    }
    session.output.result(&table.render())
}

/// What the image is or will be called.
fn image(entry: &LedgerEntry) -> &str {
    let wanted = || entry.build.targets.first().map(String::as_str);
    entry.image.as_deref().or_else(wanted).unwrap_or("-")
}

async fn status(wanted: &BuildArg, session: &Session<'_>) -> Result<()> {
    let mut found = Found::new(wanted, session)?;
    session.work(None, async |job| found.refresh(job).await).await?;
    let entry = &found.entry;
    if session.output.format == Format::Json {
        return session.output.json(&Shown { entry });
    }
    let mut facts = Table::default();
    facts.row(["build", &clean(entry.build.id.as_str())]);
    facts.row(["backend", &format!("{} ({})", clean(&entry.backend), clean(&entry.server))]);
    facts.row(["state", entry.state.name()]);
    facts.row(["image", &clean(image(entry))]);
    facts.row(["from", &clean(&entry.subject)]);
    facts.row(["started", &entry.started_at.to_string()]);
    if let Some(error) = &entry.error {
        facts.row(["error", &clean(error)]);
    }
    session.output.result(&facts.render())
}

async fn attach(wanted: &BuildArg, timeout: Option<&str>, session: &Session<'_>) -> Result<()> {
    let limit = limit(timeout, session)?;
    let found = Found::new(wanted, session)?;
    let image = match found.entry.state {
        state if state.is_final() => ended(&found.entry)?,
        _ => {
            let (remote, host) = (found.remote()?, &session.host);
            session.work(limit, async |job| resume(remote, found.entry.clone(), host, job).await).await?
        }
    };
    match session.output.format {
        Format::Json => session.output.json(&image),
        Format::Text | Format::Paths => session.output.result(&result_line(&image)),
    }
}

/// What the ledger knows of a build that has ended.
///
/// # Errors
/// `BuildFailed` where it made no image.
fn ended(entry: &LedgerEntry) -> Result<BuiltImage> {
    let id = &entry.build.id;
    match entry.state {
        // There is an image, but the service did not say what it is called.
        RemoteState::Succeeded if entry.image.is_none() && entry.error.is_some() => {
            let message = format!("the build `{id}` has succeeded, but its image cannot be found");
            let why = entry.error.clone().unwrap_or_default();
            Err(Error::new(ErrorKind::UnexpectedAnswer, message).with_source(why))
        }
        RemoteState::Succeeded => {
            let mut names: Vec<&str> = vec![image(entry)];
            names.extend(entry.build.targets.iter().skip(1).map(String::as_str));
            Ok(BuiltImage {
                references: names.iter().map(|name| name.parse()).collect::<Result<_>>()?,
                digest: None,
                image_id: None,
                platforms: Vec::new(),
                backend: entry.backend.clone(),
                reused: false,
                written: Vec::new(),
                metadata: serde_json::Map::new(),
            })
        }
        state => {
            let error = Error::new(ErrorKind::BuildFailed, format!("the build `{id}` {}", state.in_words()));
            Err(match &entry.error {
                Some(why) => error.with_source(why.clone()),
                None => error,
            })
        }
    }
}

async fn logs(wanted: &BuildArg, session: &Session<'_>) -> Result<()> {
    super::context::refuse_json(&session.output)?;
    let found = Found::new(wanted, session)?;
    let remote = found.remote()?;
    let output = session.output.clone();
    let over = CancellationToken::new();
    let mut failure = None;
    let mut print = |line: &str| {
        // A failed write is the last that is tried, and so is one that nobody reads: `| head`.
        if over.is_cancelled() {
            return;
        }
        match output.result_while_read(&format!("{}\n", clean(line))) {
            Ok(true) => {}
            Ok(false) => over.cancel(),
            Err(error) => {
                failure = Some(error);
                over.cancel();
            }
        }
    };
    let follow = async |job: &Job| {
        tokio::select! {
            biased;
            () = over.cancelled() => Ok(()),
            ended = remote.logs(&found.entry.build, &mut print, job) => ended,
        }
    };
    session.work(None, follow).await?;
    failure.map_or(Ok(()), Err)
}

async fn cancel(wanted: &BuildArg, session: &Session<'_>) -> Result<()> {
    let mut found = Found::by_whole_id(wanted, session)?;
    let id = found.entry.build.id.clone();
    if found.entry.state.is_final() {
        let message = format!("the build `{id}` {} already", found.entry.state.in_words());
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    session
        .work(None, async |job| {
            if let Err(error) = found.remote()?.cancel(&found.entry.build, job).await {
                // It has ended by itself: how is worth knowing, but not the reason of the failure.
                if error.end().is_some() {
                    let _ = found.refresh(job).await;
                }
                return Err(error);
            }
            found.entry.update(RemoteState::Cancelled, None, None);
            found.record(job);
            Ok(())
        })
        .await?;
    match session.output.format {
        Format::Json => session.output.json(&Shown { entry: &found.entry }),
        Format::Text | Format::Paths => session.output.result(&format!("{id}\n")),
    }
}

//! One run of the program: what was typed globally, what the surroundings say, who shows progress.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use windlass_core::backend::Job;
use windlass_core::backend_registry::{BackendRegistry, Host};
use windlass_core::config::Settings;
use windlass_core::events::{Event, EventSink, Events};
use windlass_core::shield::Shield;
use windlass_core::{Error, ErrorKind, Result};

use crate::args::GlobalArgs;
use crate::output::{Display, Output, duration};
use crate::settings::{self, Surroundings};
use crate::trace;

/// The program before it knows its settings.
pub(crate) struct Program {
    pub(crate) global: GlobalArgs,
    pub(crate) surroundings: Surroundings,
    pub(crate) registry: BackendRegistry,
    pub(crate) cancel: CancellationToken,
    /// Held by work that leaving waits for.
    pub(crate) shield: Shield,
    no_color: bool,
    output: OnceLock<Output>,
}

impl Program {
    pub(crate) fn new(
        global: GlobalArgs,
        surroundings: Surroundings,
        registry: BackendRegistry,
        no_color: bool,
    ) -> Self {
        let (cancel, shield) = (CancellationToken::new(), Shield::default());
        Self { global, surroundings, registry, cancel, shield, no_color, output: OnceLock::new() }
    }

    /// Reads the settings for work on a directory, and starts to speak as they say.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub(crate) fn session(&self, start: Option<&Path>) -> Result<Session<'_>> {
        let settings = settings::load(&self.global, &self.surroundings, start)?;
        let output = self.speak(Some(&settings));
        trace::start(
            self.global.verbose,
            self.surroundings.variable("WINDLASS_LOG"),
            output.style().is_colored(),
        )?;
        settings.warnings.iter().for_each(|warning| output.warn(warning));
        let host = settings::host(&settings, &self.surroundings)?;
        Ok(Session { program: self, output, settings, host })
    }

    /// The output for commands that need no settings.
    pub(crate) fn speak(&self, settings: Option<&Settings>) -> Output {
        let settings = settings.map(|settings| (settings.progress.as_str(), settings.color.as_str()));
        self.output.get_or_init(|| Output::new(&self.global, settings, self.no_color)).clone()
    }

    /// The output as the settings want it, once they are known.
    pub(crate) fn output(&self) -> Option<&Output> {
        self.output.get()
    }
}

/// The program with its settings.
pub(crate) struct Session<'a> {
    pub(crate) program: &'a Program,
    pub(crate) output: Output,
    pub(crate) settings: Settings,
    pub(crate) host: Arc<Host>,
}

impl Session<'_> {
    /// Does one piece of work while its progress is shown. `limit` is how long it may take.
    ///
    /// # Errors
    /// That of the work; `Cancelled` if the user stopped it, whatever it failed with then;
    /// `TimedOut` if the limit passed.
    pub(crate) async fn work<T>(
        &self,
        limit: Option<Duration>,
        work: impl AsyncFnOnce(&Job) -> Result<T>,
    ) -> Result<T> {
        let display = self.output.display();
        // The work has its own token: a time limit stops it as the user would.
        let cancel = self.program.cancel.child_token();
        let sink = WarnsOnce { shown: display.clone(), said: Mutex::default() };
        let shield = self.program.shield.clone();
        let job = Job { limit, shield, ..Job::new(Events::new(Arc::new(sink)), cancel.clone()) };
        let mut timed_out = false;
        let result = {
            let work = work(&job);
            tokio::pin!(work);
            tokio::select! {
                result = &mut work => result,
                () = after(limit) => {
                    timed_out = true;
                    cancel.cancel();
                    work.await
                }
            }
        };
        display.finish();
        result.map_err(|error| match limit {
            _ if self.program.cancel.is_cancelled() => as_cancelled(error),
            Some(limit) if timed_out => as_timed_out(error, limit),
            _ => error,
        })
    }
}

/// Shows a warning once. The command, the fingerprint and the backend each walk the context, and each
/// of them meets what there is to warn about.
struct WarnsOnce {
    shown: Arc<dyn Display>,
    said: Mutex<BTreeSet<String>>,
}

impl EventSink for WarnsOnce {
    fn emit(&self, event: Event) {
        if let Event::Warned { message } = &event {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            if !said.insert(message.clone()) {
                return;
            }
        }
        self.shown.emit(event);
    }
}

async fn after(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// What fails because the user stopped it was stopped by the user, however it puts it.
fn as_cancelled(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Cancelled => error,
        _ => of_the_build(Error::cancelled(), &error).with_source(error),
    }
}

/// The same error, about the remote build that another is about, with what is known of it.
fn of_the_build(error: Error, other: &Error) -> Error {
    let Some(id) = other.build() else { return error };
    let error = error.with_build(id);
    let known = |name: &str| error.details().iter().any(|(known, _)| *known == name);
    let new: Vec<_> = other.details().iter().filter(|(name, _)| !known(name)).cloned().collect();
    new.into_iter().fold(error, |error, (name, value)| error.with_detail(name, value))
}

fn as_timed_out(error: Error, limit: Duration) -> Error {
    let message = format!("stopped after {}", duration(limit));
    let timed_out = of_the_build(Error::new(ErrorKind::TimedOut, message), &error)
        .with_hint("give it more time with `--timeout` or the setting `timeouts.build`");
    // How to come back to a build that goes on without us.
    let timed_out = error.hints().iter().fold(timed_out, |timed_out, hint| timed_out.with_hint(hint));
    if error.kind() == ErrorKind::Cancelled { timed_out } else { timed_out.with_source(error) }
}

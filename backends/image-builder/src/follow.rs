//! Following a build: its log as long as that can be read, its result in any case.

use std::time::Duration;

use tokio::time::Instant;
use windlass_core::backend::Job;
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::remote::{BuildId, RemoteBuild, RemoteState};
use windlass_core::service::{Refusal, ServiceClient};

use crate::backend::ImageBuilder;
use crate::config::Config;
use crate::history::History;
use crate::lines::{Lines, Sink};
use crate::log_stream::{Doubts, End};
use crate::status::{self, Look, Seen};
use crate::wire::Control;

/// Each wait is so many times as long as the one before.
pub(crate) const GROWTH: u32 = 2;
const NO_STATUS: &str = "the status cannot be had";

/// How a build ended.
#[derive(Debug)]
pub(crate) struct Ending {
    /// With an image, without, or stopped.
    pub(crate) state: RemoteState,
    /// The status document; silent where the log alone said so.
    pub(crate) seen: Seen,
    /// What the log said of it.
    pub(crate) why: Option<String>,
}

/// What one look at the status came to.
pub(crate) enum Glance {
    /// The build has ended.
    Ended(Box<Ending>),
    /// It goes on, or is not known yet.
    GoesOn,
    /// There was no answer.
    Unknown {
        /// Why.
        error: Error,
        /// How long the service asked us to wait, within the limit.
        wait: Option<Duration>,
    },
}

impl Glance {
    /// The end, if it is known.
    pub(crate) fn ended(self) -> Option<Ending> {
        match self {
            Self::Ended(ending) => Some(*ending),
            Self::GoesOn | Self::Unknown { .. } => None,
        }
    }
}

/// Follows one build.
pub(crate) struct Follower<'a> {
    builder: &'a ImageBuilder,
    id: &'a BuildId,
    pub(crate) job: &'a Job,
    pub(crate) line: &'a mut Sink<'a>,
    pub(crate) lines: Lines,
    /// Until then, the service may not know the build yet.
    new_until: Instant,
    pub(crate) history: History,
    pub(crate) doubts: Doubts,
    /// There was something new in the log.
    pub(crate) progressed: bool,
    /// How long the server wants us to wait before the log is read again.
    pub(crate) server_wait: Option<Duration>,
    /// What was said of the troubles, so that it is said once.
    said: String,
    strange_word: String,
}

impl<'a> Follower<'a> {
    /// Follows a build from the beginning of its log.
    pub(crate) fn new(
        builder: &'a ImageBuilder,
        build: &'a RemoteBuild,
        line: &'a mut Sink<'a>,
        job: &'a Job,
    ) -> Self {
        Self {
            builder,
            id: &build.id,
            job,
            line,
            new_until: builder.new_until(build),
            history: History::default(),
            doubts: Doubts::default(),
            progressed: false,
            server_wait: None,
            lines: Lines::without(builder.client().key().clone()),
            said: String::new(),
            strange_word: String::new(),
        }
    }

    pub(crate) fn client(&self) -> &'a ServiceClient {
        self.builder.client()
    }

    pub(crate) fn config(&self) -> &'a Config {
        self.builder.config()
    }

    pub(crate) fn id(&self) -> &'a BuildId {
        self.id
    }

    /// The last lines of the log, the oldest first.
    pub(crate) fn tail(self) -> Vec<String> {
        self.lines.into_tail()
    }

    /// Follows the build to its end, however often the log breaks off.
    ///
    /// # Errors
    /// `NotFound`; `Denied` and what else the service refuses for good; `Unavailable` when neither the log
    /// nor the status can be had; `Cancelled`.
    pub(crate) async fn follow(&mut self) -> Result<Ending> {
        let config = self.config();
        let (mut failures, mut wait) = (0, config.reconnect_first_wait);
        loop {
            self.progressed = false;
            let end = self.read_log().await?;
            if self.progressed {
                (failures, wait) = (0, config.reconnect_first_wait);
                self.said.clear();
            }
            let mut asked = None;
            match end {
                End::Ended(ending) => return Ok(*ending),
                End::Closed => match self.look().await? {
                    Glance::Ended(ending) => return Ok(*ending),
                    // A build may outlive many readings of its log.
                    Glance::GoesOn => failures = 0,
                    // An end that nobody explains is no sign of life.
                    Glance::Unknown { error, wait } => {
                        failures += 1;
                        asked = wait;
                        self.say(NO_STATUS, &in_one_line(&error));
                        if failures >= config.log_attempts
                            && let Some(ending) = self.insist(error).await?
                        {
                            return Ok(ending);
                        }
                    }
                },
                End::Absent(refusal) if Instant::now() < self.new_until => {
                    if let Glance::Ended(ending) = self.look().await? {
                        return Ok(*ending);
                    }
                    self.say("the log is not there yet", &refusal.in_words());
                }
                End::Absent(refusal) => {
                    failures += 1;
                    let error = refusal.into_error("there is no log");
                    if let Some(ending) = self.after_trouble(failures, true, error).await? {
                        return Ok(ending);
                    }
                }
                End::Broken { error, opened, retry_after } => {
                    failures += 1;
                    asked = retry_after.map(|asked| asked.min(config.retry_after_limit));
                    if let Some(ending) = self.after_trouble(failures, opened, error).await? {
                        if opened {
                            self.read_the_rest().await?;
                        }
                        return Ok(ending);
                    }
                }
            }
            let own =
                self.server_wait.map_or(wait, |server| server.max(wait)).min(config.reconnect_longest_wait);
            pause(self.job, asked.map_or(own, |asked| asked.max(config.reconnect_first_wait))).await?;
            wait = (wait * GROWTH).min(config.reconnect_longest_wait);
        }
    }

    /// After the log could not be read on: has the build ended meanwhile? When that happened too often in
    /// a row, the status must say how it is.
    async fn after_trouble(&mut self, failures: u32, ask: bool, error: Error) -> Result<Option<Ending>> {
        self.say("the log cannot be read on, trying again", &in_one_line(&error));
        if failures >= self.config().log_attempts {
            return self.insist(error).await;
        }
        Ok(match ask {
            true => self.look().await?.ended(),
            false => None,
        })
    }

    /// What a build said last is worth some more readings of its log, but not its result.
    async fn read_the_rest(&mut self) -> Result<()> {
        let limit = Instant::now() + self.config().log_rest_timeout;
        let (mut failures, mut wait) = (0, self.config().reconnect_first_wait);
        while failures < self.config().log_attempts {
            self.progressed = false;
            match tokio::time::timeout_at(limit, self.read_log()).await {
                Ok(Err(error)) if error.kind() == ErrorKind::Cancelled => return Err(error),
                Ok(Ok(End::Broken { .. })) => {}
                _ => return Ok(()),
            }
            failures = if self.progressed { 0 } else { failures + 1 };
            pause(self.job, wait).await?;
            wait = (wait * GROWTH).min(self.config().reconnect_longest_wait);
        }
        Ok(())
    }

    /// Looks at the status once.
    ///
    /// # Errors
    /// `NotFound` for a build that should be known by now; what the service refuses for good.
    pub(crate) async fn look(&mut self) -> Result<Glance> {
        Ok(match status::look(self.client(), self.id, self.job).await? {
            Look::Seen(seen) => match self.ending(seen) {
                Some(ending) => Glance::Ended(ending.into()),
                None => Glance::GoesOn,
            },
            Look::NotFound(refusal) => {
                self.not_found(refusal)?;
                Glance::GoesOn
            }
            Look::Passing { error, retry_after } => {
                let wait = retry_after.map(|asked| asked.min(self.config().retry_after_limit));
                Glance::Unknown { error, wait }
            }
        })
    }

    /// Looks at the status until there is an answer; `lost` is what happened to the log.
    async fn insist(&mut self, lost: Error) -> Result<Option<Ending>> {
        match self.answer().await? {
            Some(Look::Seen(seen)) => Ok(self.ending(seen)),
            Some(Look::NotFound(refusal)) => self.not_found(refusal).map(|()| None),
            _ => Err(self.connection_lost(lost)),
        }
    }

    /// Asks for the status as often as is set, and waits as long as the service asks; `None` if there is no
    /// answer.
    async fn answer(&mut self) -> Result<Option<Look>> {
        let config = self.config();
        let mut wait = config.reconnect_first_wait;
        for attempt in 1..=config.status_attempts {
            let asked = match status::look(self.client(), self.id, self.job).await? {
                Look::Passing { error, retry_after } => {
                    self.say(NO_STATUS, &in_one_line(&error));
                    retry_after.map(|asked| asked.min(config.retry_after_limit)).unwrap_or_default()
                }
                look => return Ok(Some(look)),
            };
            if attempt < config.status_attempts {
                pause(self.job, wait.max(asked)).await?;
                wait = (wait * GROWTH).min(config.reconnect_longest_wait);
            }
        }
        Ok(None)
    }

    /// Holds a claim of the log against the status; `None` if the status does not know of it, or there is
    /// none now: the log tells on.
    ///
    /// # Errors
    /// As [`Follower::follow`].
    pub(crate) async fn confirm(&mut self, claim: Control) -> Result<Option<Ending>> {
        let seen = match self.answer().await? {
            Some(Look::Seen(seen)) => seen,
            Some(Look::NotFound(refusal)) => return self.not_found(refusal).map(|()| None),
            _ => return Ok(None),
        };
        let (claimed, why) = match claim {
            Control::Done => (RemoteState::Succeeded, None),
            Control::Failed(text) => (RemoteState::Failed, Some(text)),
        };
        // A document without a status contradicts nothing.
        let state = if seen.state.is_none() { Some(claimed) } else { None };
        Ok(match state {
            Some(state) => Some(Ending { state, seen, why }),
            None => self.ending(seen).map(|ending| Ending { why, ..ending }),
        })
    }

    fn ending(&mut self, seen: Seen) -> Option<Ending> {
        if !seen.word.is_empty()
            && RemoteState::of_word(&seen.word).is_none()
            && seen.word != self.strange_word
        {
            let word = &seen.word;
            let message = format!("the service says `{word}`, which means nothing to windlass: waiting on");
            self.job.events.warn(message);
            self.strange_word.clone_from(word);
        }
        let state = seen.state.filter(|_| seen.is_final())?;
        Some(Ending { state, seen, why: None })
    }

    fn not_found(&self, refusal: Refusal) -> Result<()> {
        match Instant::now() < self.new_until {
            true => Ok(()),
            false => Err(status::unknown(self.client(), self.id, refusal)),
        }
    }

    fn connection_lost(&self, lost: Error) -> Error {
        let message =
            format!("connection lost, build still running: `{}` on `{}`", self.id, self.client().server());
        Error::new(ErrorKind::Unavailable, message).with_source(in_one_line(&lost))
    }

    /// Says what is wrong, once until something else is.
    fn say(&mut self, what: &str, why: &str) {
        let text = format!("build `{}`: {what}: {why}", self.id);
        if self.said != text {
            self.job.events.warn(&text);
            self.said = text;
        }
    }
}

async fn pause(job: &Job, wait: Duration) -> Result<()> {
    let sleep = async {
        tokio::time::sleep(wait).await;
        Ok(())
    };
    job.run(sleep).await
}

pub(crate) fn in_one_line(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

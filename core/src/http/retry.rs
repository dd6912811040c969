//! The one retry policy: exponential with jitter, `Retry-After` honoured, bounded in count and time.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::backend::Job;
use crate::error::{Error, Result};

/// How often and how long something is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How many times after the first. Default: 5.
    pub retries: u32,
    /// How many times after the first when nobody listens at the address. Default: 2: a service
    /// that restarts is back within a second, a wrong address never comes.
    pub retries_when_refused: u32,
    /// The first wait. Default: 200 ms; it doubles each time, with jitter.
    pub first_wait: Duration,
    /// The longest wait of our own, and the longest `Retry-After` that is obeyed; a server that
    /// asks for more fails the operation. Default: 60 s.
    pub longest_wait: Duration,
    /// No retry starts later than this after the first attempt. Default: 5 minutes.
    pub time_limit: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retries: 5,
            retries_when_refused: 2,
            first_wait: Duration::from_millis(200),
            longest_wait: Duration::from_secs(60),
            time_limit: Duration::from_secs(300),
        }
    }
}

/// Why an attempt failed, and whether another makes sense.
#[derive(Debug)]
pub enum Failure {
    /// Another attempt would fail the same way.
    Final(Error),
    /// Another attempt may succeed: the connection broke, the server was busy.
    Transient {
        /// What went wrong.
        error: Error,
        /// How long the server asked us to wait.
        retry_after: Option<Duration>,
        /// Nobody listens at the address.
        refused: bool,
    },
}

impl Failure {
    /// A failure that may pass, of which the server said nothing more.
    pub fn transient(error: Error) -> Self {
        Self::Transient { error, retry_after: None, refused: false }
    }

    /// The error, whatever becomes of it.
    pub fn into_error(self) -> Error {
        match self {
            Self::Final(error) | Self::Transient { error, .. } => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl RetryPolicy {
    /// Starts counting the attempts at something; `what` names it in events: `` `localhost:5000` ``.
    ///
    /// ```text
    /// let mut attempts = policy.attempts("`localhost:5000`", job);
    /// loop {
    ///     match exchange().await {
    ///         Ok(answer) => return Ok(answer),
    ///         Err(failure) => attempts.again(failure).await?,
    ///     }
    /// }
    /// ```
    pub fn attempts<'a>(&self, what: impl Into<String>, job: &'a Job) -> Attempts<'a> {
        let waits = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(self.first_wait)
            .with_max_delay(self.longest_wait)
            .with_max_times(self.retries as usize)
            .build();
        Attempts { policy: *self, what: what.into(), job, waits, retries: 0, started: Instant::now() }
    }
}

/// The attempts at one thing.
#[derive(Debug)]
pub struct Attempts<'a> {
    policy: RetryPolicy,
    what: String,
    job: &'a Job,
    waits: backon::ExponentialBackoff,
    retries: u32,
    started: Instant,
}

impl Attempts<'_> {
    /// Waits until the next attempt is due, and tells the user about it.
    ///
    /// # Errors
    /// The failure itself when there is no next attempt; `Cancelled`.
    pub async fn again(&mut self, failure: Failure) -> Result<()> {
        let (error, retry_after, refused) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Transient { error, retry_after, refused } => (error, retry_after, refused),
        };
        let exhausted = refused && self.retries >= self.policy.retries_when_refused;
        let Some(wait) = self.waits.next().filter(|_| !exhausted) else {
            return Err(self.count(error));
        };
        let wait = match retry_after {
            Some(asked) if asked > self.policy.longest_wait => {
                let asked = format!("it asked us to wait for {} s", asked.as_secs());
                return Err(self.count(error).with_hint(format!("{asked}; try again later")));
            }
            // A date that has passed here says nothing: clocks differ.
            Some(asked) if !asked.is_zero() => asked,
            // Jitter goes beyond the longest wait.
            _ => wait.min(self.policy.longest_wait),
        };
        if self.started.elapsed() + wait > self.policy.time_limit {
            return Err(self.count(error));
        }
        self.retries += 1;
        self.job.events.warn(format!(
            "{}: {}; trying again in {:.1} s (retry {} of {})",
            self.what,
            in_one_line(&error),
            wait.as_secs_f32(),
            self.retries,
            if refused { self.policy.retries_when_refused } else { self.policy.retries },
        ));
        let sleep = async {
            tokio::time::sleep(wait).await;
            Ok(())
        };
        self.job.run(sleep).await
    }

    /// How many times it was tried again so far.
    pub fn retries(&self) -> u32 {
        self.retries
    }

    fn count(&self, error: Error) -> Error {
        match self.retries {
            0 => error,
            retries => error.with_detail("attempts", (retries + 1).to_string()),
        }
    }
}

/// The message of an error and the first cause.
fn in_one_line(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Reads `Retry-After`: seconds, or a date in RFC 9110's preferred form.
pub fn retry_after(headers: &HeaderMap, now: jiff::Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn busy(retry_after: Option<Duration>, refused: bool) -> Failure {
        let error = Error::new(ErrorKind::Unavailable, "busy");
        Failure::Transient { error, retry_after, refused }
    }

    fn quick() -> RetryPolicy {
        RetryPolicy { first_wait: Duration::from_millis(1), ..RetryPolicy::default() }
    }

    async fn retries_until_given_up(policy: RetryPolicy, refused: bool) -> u32 {
        let job = Job::silent();
        let mut attempts = policy.attempts("it", &job);
        while attempts.again(busy(None, refused)).await.is_ok() {}
        attempts.retries()
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_after_so_many() {
        assert_eq!(retries_until_given_up(quick(), false).await, 5);
        assert_eq!(retries_until_given_up(quick(), true).await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn jitter_ends_no_attempts() {
        let long = RetryPolicy {
            retries: 7,
            first_wait: Duration::from_secs(4),
            longest_wait: Duration::from_secs(60),
            time_limit: Duration::from_secs(3600),
            ..RetryPolicy::default()
        };
        for _ in 0..20 {
            assert_eq!(retries_until_given_up(long, false).await, 7);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_date_that_has_passed_is_no_time_to_wait() {
        let job = Job::silent();
        let start = tokio::time::Instant::now();
        let policy = RetryPolicy { first_wait: Duration::from_secs(2), ..RetryPolicy::default() };
        policy.attempts("it", &job).again(busy(Some(Duration::ZERO), false)).await.expect("waits");
        assert!(start.elapsed().as_secs() >= 2);
    }

    #[tokio::test(start_paused = true)]
    async fn obeys_the_server_within_limits() {
        let job = Job::silent();
        let start = tokio::time::Instant::now();
        quick().attempts("it", &job).again(busy(Some(Duration::from_secs(7)), false)).await.expect("waits");
        assert_eq!(start.elapsed().as_secs(), 7);
        let asked = busy(Some(Duration::from_secs(3600)), false);
        let error = quick().attempts("it", &job).again(asked).await.expect_err("too long");
        assert!(error.hints()[0].contains("3600 s"), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_final_failure_is_not_repeated() {
        let job = Job::silent();
        let failure = Failure::from(Error::new(ErrorKind::Denied, "no"));
        let error = quick().attempts("it", &job).again(failure).await.expect_err("final");
        assert_eq!(error.kind(), ErrorKind::Denied);
    }

    #[tokio::test(start_paused = true)]
    async fn the_user_can_stop_the_waiting() {
        let job = Job::silent();
        job.cancel.cancel();
        let error = RetryPolicy::default().attempts("it", &job).again(busy(None, false)).await;
        assert_eq!(error.expect_err("stopped").kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn reads_both_forms_of_retry_after() {
        let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().expect("time");
        for (text, seconds) in [
            ("120", Some(120)),
            ("Thu, 01 Jan 2026 00:00:30 GMT", Some(30)),
            ("Wed, 31 Dec 2025 00:00:00 GMT", Some(0)),
            ("soon", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().expect("header"))]);
            assert_eq!(retry_after(&headers, now).map(|wait| wait.as_secs()), seconds, "{text}");
        }
    }
}

//! How many requests a registry gets in a minute: registries that count per address shut everybody out who
//! asks more often.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::Job;
use crate::error::Result;
use crate::reference::DOCKER_HUB;

/// What the budget is counted over.
const WINDOW: Duration = Duration::from_secs(60);

/// Docker Hub asks for no more than so many a minute from one address.
const DOCKER_HUB_REQUESTS: u32 = 100;

/// A shorter wait is not worth a word.
const WORTH_A_WORD: Duration = Duration::from_secs(2);

/// The budget of one registry: never more than so many requests within any minute.
///
/// A bucket of tokens would let twice as many through in its first minute. This remembers when the last of
/// them were let go instead, so that one goes when the one that many before it is a minute old.
#[derive(Debug)]
pub(super) struct Budget {
    requests: usize,
    let_go: Mutex<VecDeque<Instant>>,
}

impl Budget {
    /// A budget of so many requests a minute.
    fn new(requests: u32) -> Self {
        Self { requests: requests.max(1) as usize, let_go: Mutex::default() }
    }

    /// The budget of a registry: what its own settings say, else those for all, else what is known of it.
    /// 0 is no limit.
    pub(super) fn of(registry: &str, own: Option<u32>, all: Option<u32>) -> Option<Self> {
        let known = (registry == DOCKER_HUB).then_some(DOCKER_HUB_REQUESTS);
        own.or(all).or(known).filter(|requests| *requests > 0).map(Self::new)
    }

    /// Waits until another request may go.
    ///
    /// # Errors
    /// `Cancelled`.
    pub(super) async fn wait(&self, registry: &str, job: &Job) -> Result<()> {
        let wait = self.reserve(Instant::now());
        if wait.is_zero() {
            return Ok(());
        }
        if wait >= WORTH_A_WORD {
            job.events.warn(format!(
                "`{registry}` gets no more than {} requests a minute: waiting until there may be another",
                self.requests
            ));
        }
        let sleep = async {
            tokio::time::sleep(wait).await;
            Ok(())
        };
        job.run(sleep).await
    }

    /// Takes the next free place, and says how long it is until then.
    fn reserve(&self, now: Instant) -> Duration {
        let mut let_go = self.let_go.lock().unwrap_or_else(PoisonError::into_inner);
        let before = if let_go.len() < self.requests { None } else { let_go.pop_front() };
        let at = before.map_or(now, |before| now.max(before + WINDOW));
        let_go.push_back(at);
        at - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_minute_has_more_than_the_budget() {
        let budget = Budget::new(3);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut gone = Vec::new();
        for now in [0, 0, 50, 50, 50, 50, 59, 61, 200] {
            gone.push(now + budget.reserve(at(now)).as_secs());
        }
        assert_eq!(gone, [0, 0, 50, 60, 60, 110, 120, 120, 200]);
        for (first, fourth) in gone.iter().zip(&gone[3..]) {
            assert!(fourth - first >= 60, "{gone:?}");
        }
    }

    #[test]
    fn settings_go_before_what_is_known() {
        let requests = |registry, own, all| Budget::of(registry, own, all).map(|budget| budget.requests);
        assert_eq!(requests(DOCKER_HUB, None, None), Some(100));
        assert_eq!(requests("ghcr.io", None, None), None);
        assert_eq!(requests(DOCKER_HUB, Some(0), Some(5)), None);
        assert_eq!(requests(DOCKER_HUB, None, Some(5)), Some(5));
        assert_eq!(requests("ghcr.io", Some(7), Some(5)), Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_can_be_stopped() {
        let (budget, job) = (Budget::new(1), Job::silent());
        budget.wait("r", &job).await.expect("the first goes");
        let start = Instant::now();
        budget.wait("r", &job).await.expect("the second waits");
        assert_eq!(start.elapsed().as_secs(), 60);
        job.cancel.cancel();
        assert_eq!(budget.wait("r", &job).await.expect_err("stopped").kind(), crate::ErrorKind::Cancelled);
    }
}

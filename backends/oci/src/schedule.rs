//! Doing at the same time what does not depend on each other, so that nobody can tell from the
//! result: what is shared is made once, and the error does not depend on who was faster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::OnceCell;
use windlass_core::backend::Job;
use windlass_core::error::{Error, ErrorKind, Result};

/// Something that is made once, by whoever needs it first, for all who need it. What makes it is
/// boxed: futures inside of futures would outgrow the stack.
#[derive(Debug)]
pub(crate) struct Once<T>(OnceCell<Result<T>>);

impl<T: Clone> Once<T> {
    /// Gives what was made, or makes it. All get the same failure; only work that was stopped is
    /// begun again by the next who needs it, who may not have been.
    pub(crate) async fn get(&self, make: BoxFuture<'_, Result<T>>) -> Result<T> {
        let kept = self.0.get_or_try_init(async || match make.await {
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            result => Ok(result),
        });
        kept.await?.clone()
    }
}

/// A [`Once`] for each key.
#[derive(Debug)]
pub(crate) struct OnceEach<K, T>(Mutex<BTreeMap<K, Arc<Once<T>>>>);

impl<K: Ord, T: Clone> OnceEach<K, T> {
    /// As [`Once::get`].
    pub(crate) async fn get(&self, key: K, make: BoxFuture<'_, Result<T>>) -> Result<T> {
        let once = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(key).or_insert_with(|| Arc::new(Once(OnceCell::new()))).clone()
        };
        once.get(make).await
    }
}

impl<K, T> Default for OnceEach<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// A lock for each key.
#[derive(Debug)]
pub(crate) struct LockEach<K>(Mutex<BTreeMap<K, Arc<tokio::sync::Mutex<()>>>>);

impl<K: Ord> LockEach<K> {
    /// Takes the locks of all these keys, always in the same order.
    pub(crate) async fn lock(&self, keys: BTreeSet<K>) -> Vec<tokio::sync::OwnedMutexGuard<()>> {
        let locks: Vec<_> = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody holds or waits for.
            all.retain(|_, lock| Arc::strong_count(lock) > 1);
            keys.into_iter().map(|key| all.entry(key).or_default().clone()).collect()
        };
        let mut held = Vec::with_capacity(locks.len());
        for lock in locks {
            held.push(lock.lock_owned().await);
        }
        held
    }
}

impl<K> Default for LockEach<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// Which numbered works wait for which.
#[derive(Debug, Default)]
pub(crate) struct Waits(Mutex<BTreeMap<usize, BTreeSet<usize>>>);

impl Waits {
    /// Notes that one work needs another; `false` if that one needs the first already.
    pub(crate) fn note(&self, work: usize, needs: usize) -> bool {
        let mut waits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut todo = vec![needs];
        let mut seen = BTreeSet::new();
        while let Some(next) = todo.pop() {
            if next == work {
                return false;
            }
            if seen.insert(next) {
                todo.extend(waits.get(&next).into_iter().flatten());
            }
        }
        waits.entry(work).or_default().insert(needs);
        true
    }
}

/// A job of its own for each of several works, so that each can be stopped alone.
pub(crate) fn jobs(job: &Job, count: usize) -> Vec<Job> {
    std::iter::repeat_with(|| job.child()).take(count).collect()
}

/// Does all works at the same time and waits for all. Where several fail, the first in their order
/// decides; so one that fails stops only those after it.
///
/// # Errors
/// That of the first work that failed; `Cancelled` if none did but some were stopped.
pub(crate) async fn together<'j, T, F: Future<Output = Result<T>>>(
    works: impl IntoIterator<Item = (&'j Job, F)>,
) -> Result<Vec<T>> {
    let mut jobs = Vec::new();
    let mut running = FuturesUnordered::new();
    for (number, (job, work)) in works.into_iter().enumerate() {
        jobs.push(job);
        running.push(async move { (number, work.await) });
    }
    let mut results: Vec<Option<Result<T>>> = jobs.iter().map(|_| None).collect();
    while let Some((number, result)) = running.next().await {
        if result.is_err() {
            jobs[number + 1..].iter().for_each(|job| job.cancel.cancel());
        }
        results[number] = Some(result);
    }
    let mut done = Vec::with_capacity(results.len());
    let mut stopped = None;
    for result in results.into_iter().flatten() {
        match result {
            Ok(result) => done.push(result),
            Err(error) if error.kind() == ErrorKind::Cancelled => stopped = Some(error),
            Err(error) => return Err(error),
        }
    }
    stopped.map_or(Ok(done), Err)
}

/// Waits for work while something else goes on beside it, which is stopped when the work fails.
pub(crate) async fn beside<T>(
    job: &Job,
    work: impl Future<Output = Result<T>>,
    other: impl Future<Output = ()>,
) -> Result<T> {
    let work = async {
        let result = work.await;
        if result.is_err() {
            job.cancel.cancel();
        }
        result
    };
    futures_util::future::join(work, other).await.0
}

/// The error of a stage that needs itself.
pub(crate) fn needs_itself(label: &str) -> Error {
    Error::new(ErrorKind::InvalidDockerfile, format!("the stage `{label}` needs itself"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn failure(text: &str) -> Error {
        Error::new(ErrorKind::BuildFailed, text)
    }

    #[tokio::test]
    async fn the_first_in_order_decides_whoever_was_faster() {
        let all = jobs(&Job::silent(), 3);
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let mut tell = Some(tell);
        let mut told = Some(told);
        let works = all.iter().enumerate().map(|(number, job)| {
            let (tell, told) = (tell.take_if(|_| number == 1), told.take_if(|_| number == 0));
            let work: std::pin::Pin<Box<dyn Future<Output = Result<()>>>> = match number {
                // Fails only after the second has failed.
                0 => Box::pin(async {
                    told.expect("first").await.ok();
                    Err(failure("first"))
                }),
                1 => Box::pin(async {
                    drop(tell);
                    Err(failure("second"))
                }),
                _ => Box::pin(job.run(std::future::pending())),
            };
            // Only the second work holds the sender.
            (job, work)
        });
        let works: Vec<_> = works.collect();
        let error = together(works).await.expect_err("failed");
        assert_eq!(error.message(), "first");
        assert!(all[2].cancel.is_cancelled() && !all[0].cancel.is_cancelled());
    }

    #[tokio::test]
    async fn all_get_the_one_result_but_what_was_stopped_is_begun_again() {
        let once = OnceEach::<u8, u32>::default();
        assert_eq!(
            once.get(1, Box::pin(async { Err(Error::cancelled()) })).await.expect_err("stopped").kind(),
            ErrorKind::Cancelled
        );
        let made = AtomicUsize::new(0);
        let make = async || {
            made.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Err(failure("broken"))
        };
        let (first, second) =
            futures_util::future::join(once.get(1, Box::pin(make())), once.get(1, Box::pin(make()))).await;
        for result in [first, second] {
            assert_eq!(result.expect_err("failed").message(), "broken");
        }
        assert_eq!(made.load(Ordering::Relaxed), 1);
        assert_eq!(once.get(2, Box::pin(async { Ok(7) })).await.expect("another"), 7);
    }

    #[test]
    fn circles_are_seen() {
        let waits = Waits::default();
        assert!(waits.note(2, 1) && waits.note(1, 0) && waits.note(2, 0) && waits.note(2, 1));
        assert!(!waits.note(0, 2) && !waits.note(1, 1) && !waits.note(0, 1));
        assert!(waits.note(3, 2));
    }
}

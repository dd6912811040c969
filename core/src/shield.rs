//! Work that is let come to its end although the user leaves.

use std::time::Duration;

use tokio::sync::watch;

/// The longest that leaving waits for shielded work: a service may take so long to stop a build.
pub const SHIELD_LIMIT: Duration = Duration::from_secs(10);

/// Counts the work that must come to its end, such as stopping a build on a service. Clones count
/// together. A program that the user leaves a second time waits for it, up to [`SHIELD_LIMIT`].
#[derive(Clone, Debug)]
pub struct Shield(watch::Sender<usize>);

impl Default for Shield {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Shield {
    /// Begins work that must come to its end, which is when the guard is dropped.
    #[must_use = "the work counts as ended when this is dropped"]
    pub fn hold(&self) -> ShieldGuard {
        self.0.send_modify(|count| *count += 1);
        ShieldGuard(self.clone())
    }

    /// Says whether there is such work.
    pub fn is_held(&self) -> bool {
        *self.0.borrow() > 0
    }

    /// Waits until there is no such work.
    pub async fn released(&self) {
        // The sender is here, so the channel is open.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// Work that must come to its end.
#[derive(Debug)]
pub struct ShieldGuard(Shield);

impl Drop for ShieldGuard {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_released_by_the_last() {
        let shield = Shield::default();
        shield.released().await;
        let (one, other) = (shield.hold(), shield.clone().hold());
        drop(one);
        assert!(shield.is_held());
        let waiting = tokio::spawn({
            let shield = shield.clone();
            async move { shield.released().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(other);
        waiting.await.expect("released");
        assert!(!shield.is_held());
    }
}

//! All waits for the bucket, and the hand that ends them.
//!
//! Invariant: whoever waits here holds no lock and has changed nothing yet, so a wait may end at any
//! time: a read with `EIO`, a question about names with what is known, a close with `ETIMEDOUT`
//! (not yet, never lost).

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

/// The waits.
#[derive(Debug, Default)]
pub(super) struct Waits {
    ended: watch::Sender<u64>,
    waiting: AtomicUsize,
}

struct One<'a>(&'a AtomicUsize);

impl Drop for One<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Waits {
    /// What `wait` ends with; `None`: somebody ended all waits before.
    pub(super) async fn unless_ended<T>(&self, wait: impl Future<Output = T>) -> Option<T> {
        let mut ended = self.ended.subscribe();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _one = One(&self.waiting);
        tokio::select! {
            biased;
            done = wait => Some(done),
            _ = ended.changed() => None,
        }
    }

    /// Ends all waits that there are now; answers how many.
    pub(super) fn end_all(&self) -> usize {
        let waiting = self.waiting.load(Ordering::Relaxed);
        self.ended.send_modify(|times| *times += 1);
        waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_end_ends_those_who_wait_and_nobody_after() {
        let waits = std::sync::Arc::new(Waits::default());
        let waiting = std::sync::Arc::clone(&waits);
        let forever = async move { waiting.unless_ended(std::future::pending::<()>()).await };
        let task = tokio::spawn(forever);
        while waits.waiting.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(waits.end_all(), 1);
        assert_eq!(task.await.unwrap(), None);
        assert_eq!(waits.end_all(), 0);
        assert_eq!(waits.unless_ended(async { 7 }).await, Some(7));
    }
}

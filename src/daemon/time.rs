//! The believed time from one run to the next.
//!
//! Invariant: only what `Believed::to_keep` gives is written, at once when it is first known, then
//! each `kept::EVERY`, and at the end.

use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::clock::believed::Believed;
use crate::clock::kept::{EVERY, Kept};

/// Keeps the time as long as it lives.
#[derive(Debug)]
pub(super) struct Keeping {
    kept: Option<Arc<Kept>>,
    clock: Arc<Believed>,
    task: Option<JoinHandle<()>>,
}

impl Keeping {
    /// Learns what was kept in `folder`, and keeps what is learnt from now on. Blocking; must be
    /// called inside of a runtime. Without a folder to keep it in, the clock starts anew each time.
    pub(super) fn start(folder: &Path, clock: &Arc<Believed>) -> Self {
        let kept = match Kept::open(folder) {
            Ok(kept) => Some(Arc::new(kept)),
            Err(why) => {
                tracing::warn!("the time is not kept in {}: {why:?}", folder.display());
                None
            }
        };
        if let Some(then) = kept.as_ref().and_then(|kept| kept.read()) {
            clock.was_already(then);
        }
        let task = kept.as_ref().map(|kept| {
            let (kept, clock) = (Arc::clone(kept), Arc::clone(clock));
            tokio::spawn(async move {
                clock.verified().await;
                loop {
                    let (kept, time) = (Arc::clone(&kept), clock.to_keep());
                    let written = tokio::task::spawn_blocking(move || write(&kept, time));
                    if written.await.is_err() {
                        return;
                    }
                    tokio::time::sleep(EVERY).await;
                }
            })
        });
        Self {
            kept,
            clock: Arc::clone(clock),
            task,
        }
    }

    /// Learns what a mount has kept in `folder`, and keeps nothing. Blocking.
    pub(super) fn look(folder: &Path, clock: &Believed) {
        if folder.is_dir()
            && let Ok(kept) = Kept::open(folder)
            && let Some(then) = kept.read()
        {
            clock.was_already(then);
        }
    }

    /// At the end of a mount. Blocking.
    pub(super) fn end(&self) {
        if let Some(kept) = &self.kept {
            write(kept, self.clock.to_keep());
        }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

fn write(kept: &Kept, time: Option<std::time::SystemTime>) {
    let Some(time) = time else {
        return;
    };
    if let Err(error) = kept.write(time) {
        tracing::warn!(%error, "the time is not kept");
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::clock::believed::Teacher;
    use crate::clock::{Clock as _, ManualClock, SharedClock};

    fn device() -> Arc<Believed> {
        let system: SharedClock = ManualClock::at(UNIX_EPOCH);
        Arc::new(Believed::over(system, UNIX_EPOCH))
    }

    #[tokio::test]
    async fn a_device_without_a_clock_starts_where_the_last_run_ended_and_keeps_no_guess() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("clock");
        let time = UNIX_EPOCH + Duration::from_secs(1_900_000_000);

        let guessing = device();
        guessing.learn(time, Teacher::Sntp);
        Keeping::start(&folder, &guessing).end();
        let second = device();
        let keeping = Keeping::start(&folder, &second);
        assert_eq!(second.wall(), UNIX_EPOCH);

        second.learn(time, Teacher::Verified);
        keeping.end();
        let third = device();
        Keeping::start(&folder, &third);
        assert_eq!(third.wall(), time);
        assert!(!third.is_believable(), "it is later by now");
    }

    #[tokio::test]
    async fn it_is_written_as_soon_as_it_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let clock = device();
        let _keeping = Keeping::start(&dir.path().join("clock"), &clock);
        let time = UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        clock.learn(time, Teacher::Verified);
        let again = Kept::open(&dir.path().join("clock")).unwrap();
        while again.read() != Some(time) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

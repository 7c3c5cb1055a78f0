//! When the interface is back, what waits is tried at once instead of when its pause is over.
//!
//! Invariant: it sends nothing itself; without a change of the interface it does nothing.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::creds::Leases;
use crate::drain;
use crate::net::{Ground, Link};

/// The address is there some time before the routes are, and after a blackout of an area all its
/// devices are back in the same second: so not at once, and each at another time.
const SPREAD: Duration = Duration::from_secs(2);
/// Once more, if the first was too early.
const AGAIN: Duration = Duration::from_secs(5);

/// Watches as long as it lives.
#[derive(Debug)]
pub(super) struct Watcher(Option<JoinHandle<()>>);

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Begins to watch; must be called inside of a runtime.
pub(super) fn watch(link: &Link, leases: &Arc<dyn Leases>, drain: &drain::Handle) -> Watcher {
    let Some(mut changes) = link.changes() else {
        return Watcher(None);
    };
    let (leases, drain) = (Arc::clone(leases), drain.clone());
    Watcher(Some(tokio::spawn(async move {
        let mut known: Option<Ground> = None;
        while changes.changed().await.is_ok() {
            let now = changes.borrow_and_update().clone();
            if !is_back(known.as_ref(), now.as_ref()) {
                known = now;
                continue;
            }
            known = now;
            tracing::info!("the link is back");
            for pause in [jitter(), AGAIN] {
                sleep(pause).await;
                leases.link_is_back();
                drain.wake();
            }
        }
    })))
}

/// A number that is another one after each change of the interface. How it was found is no change.
/// This must be called inside of a runtime, and so must what it returns.
pub(super) fn count(link: &Arc<Link>) -> impl Fn() -> u64 + Send + Sync + 'static {
    let seen = link.changes().map(|changes| Mutex::new(Seen::of(changes)));
    let link = Arc::clone(link);
    move || {
        link.look();
        seen.as_ref().map_or(0, |seen| seen.lock().count())
    }
}

/// The interface as it was last looked at.
struct Seen {
    changes: watch::Receiver<Option<Ground>>,
    known: Option<Ground>,
    count: u64,
}

impl Seen {
    fn of(mut changes: watch::Receiver<Option<Ground>>) -> Self {
        let known = changes.borrow_and_update().clone();
        Self {
            changes,
            known,
            count: 0,
        }
    }

    fn count(&mut self) -> u64 {
        // Down and up again between two looks is a change too.
        if self.changes.has_changed().unwrap_or(false) {
            let now = self.changes.borrow_and_update().clone();
            self.count += u64::from(self.known.is_some());
            self.known = now;
        }
        self.count
    }
}

/// Whether it can carry something now and is not what it was. The first look is no news.
fn is_back(known: Option<&Ground>, now: Option<&Ground>) -> bool {
    let usable = |ground: &&Ground| ground.up && !ground.addresses.is_empty();
    match (known, now.filter(usable)) {
        (Some(known), Some(now)) => known != now,
        _ => false,
    }
}

fn jitter() -> Duration {
    let bits = RandomState::new().hash_one(0_u8) >> 32;
    SPREAD.mul_f64(f64::from(u32::try_from(bits).unwrap_or(0)) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ground(up: bool, addresses: &[&str]) -> Ground {
        Ground {
            index: Some(3),
            up,
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn each_change_counts_but_how_it_was_found_does_not() {
        let (told, changes) = watch::channel(None);
        let mut seen = Seen::of(changes);
        assert_eq!(seen.count(), 0);
        told.send_replace(Some(ground(true, &["10.0.0.1"])));
        assert_eq!(seen.count(), 0, "that is how it was found");
        told.send_replace(Some(ground(false, &[])));
        told.send_replace(Some(ground(true, &["10.0.0.1"])));
        assert_eq!(seen.count(), 1, "it may be another session");
        assert_eq!(seen.count(), 1);
    }

    #[test]
    fn it_is_back_when_it_is_up_with_an_address_and_was_otherwise_before() {
        let (up, down) = (ground(true, &["10.0.0.1"]), ground(false, &["10.0.0.1"]));
        assert!(is_back(Some(&down), Some(&up)));
        assert!(is_back(Some(&Ground::default()), Some(&up)));
        assert!(is_back(Some(&ground(true, &["10.0.0.2"])), Some(&up)));
        assert!(!is_back(None, Some(&up)), "that is how it was found");
        assert!(!is_back(Some(&up), Some(&up)));
        assert!(!is_back(Some(&up), Some(&down)));
        assert!(!is_back(Some(&down), Some(&ground(true, &[]))));
        assert!(jitter() <= SPREAD);
    }
}

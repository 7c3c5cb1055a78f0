//! Which contents are on their way now, and how far each is: for people.
//!
//! Invariants: a flight is listed from when its requests are known until its job ends, however that
//! ends; what counts as sent is what the socket took, so an attempt that is repeated falls back.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::store::{Payload, ReadFrames};
use crate::types::RelKey;

/// A content on its way, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flight {
    /// Its name below the mount.
    pub name: String,
    /// Bytes of it that go over the line; what S3 copies is not in it.
    pub bytes: u64,
    /// Those that went.
    pub sent: u64,
}

#[derive(Debug, Default)]
struct Progress {
    total: AtomicU64,
    /// Bytes of parts that S3 has.
    settled: AtomicU64,
    /// Of each payload that is being sent: how much of it went.
    moving: Mutex<Vec<Arc<AtomicU64>>>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<BTreeMap<RelKey, Arc<Progress>>>);

impl Flights {
    /// From now on `total` bytes of the content of `key` go up, until what is returned is dropped;
    /// `settled` went before.
    pub(super) fn begin(&self, key: &RelKey, total: u64, settled: u64) -> Underway<'_> {
        let progress = Arc::new(Progress {
            total: AtomicU64::new(total),
            settled: AtomicU64::new(settled),
            moving: Mutex::default(),
        });
        self.0.lock().insert(key.clone(), Arc::clone(&progress));
        Underway {
            all: self,
            key: key.clone(),
            progress,
        }
    }

    /// How they are, in the order of their names.
    pub(super) fn now(&self) -> Vec<Flight> {
        let all = self.0.lock();
        let told = all.iter().filter_map(|(key, progress)| {
            let total = progress.total.load(Ordering::Relaxed);
            let moving = progress.moving.lock();
            let moving = moving.iter().map(|sent| sent.load(Ordering::Relaxed));
            let sent = progress.settled.load(Ordering::Relaxed) + moving.sum::<u64>();
            // What S3 copies, or what is empty, is no sooner begun than over.
            (total > 0).then(|| Flight {
                name: key.to_string(),
                bytes: total,
                sent: sent.min(total),
            })
        });
        told.collect()
    }
}

/// A content on its way.
#[derive(Debug)]
pub(super) struct Underway<'a> {
    all: &'a Flights,
    key: RelKey,
    progress: Arc<Progress>,
}

impl Underway<'_> {
    /// `payload`, watched as it is read; what is returned beside it is dropped when its request ended.
    pub(super) fn watch(&self, payload: Payload) -> (Payload, Moving<'_>) {
        let sent = Arc::<AtomicU64>::default();
        self.progress.moving.lock().push(Arc::clone(&sent));
        let source = Watched {
            inner: Arc::clone(&payload.source),
            sent: Arc::clone(&sent),
        };
        let watched = Payload {
            source: Arc::new(source),
            ..payload
        };
        let moving = Moving {
            progress: &self.progress,
            sent,
        };
        (watched, moving)
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        let ours = all.get(&self.key);
        // The next one for the same key may have begun.
        if ours.is_some_and(|it| Arc::ptr_eq(it, &self.progress)) {
            all.remove(&self.key);
        }
    }
}

/// A payload whose request is out.
#[derive(Debug)]
pub(super) struct Moving<'a> {
    progress: &'a Progress,
    sent: Arc<AtomicU64>,
}

impl Moving<'_> {
    /// S3 has these `bytes`.
    pub(super) fn settled(self, bytes: u64) {
        self.sent.store(0, Ordering::Relaxed);
        self.progress.settled.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        let mut moving = self.progress.moving.lock();
        moving.retain(|one| !Arc::ptr_eq(one, &self.sent));
    }
}

struct Watched {
    inner: Arc<dyn ReadFrames>,
    sent: Arc<AtomicU64>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watched({:?})", self.sent)
    }
}

impl ReadFrames for Watched {
    fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        // A frame is read when the socket took the one before it.
        self.sent.store(offset, Ordering::Relaxed);
        self.inner.read(offset, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flight_is_as_far_as_its_frames_and_ends_with_its_job() {
        let flights = Flights::default();
        let key = RelKey::parse("d/f").unwrap();
        let sent = || flights.now().first().map(|one| (one.sent, one.bytes));
        let underway = flights.begin(&key, 100, 40);
        assert_eq!(sent(), Some((40, 100)));
        let (payload, moving) = underway.watch(Payload::of(Bytes::from(vec![7; 50])));
        payload.source.read(30, 10).unwrap();
        assert_eq!(sent(), Some((70, 100)));
        // Tried again.
        payload.source.read(0, 10).unwrap();
        assert_eq!(sent(), Some((40, 100)));
        moving.settled(50);
        assert_eq!(sent(), Some((90, 100)));
        let (_payload, failed) = underway.watch(Payload::of(Bytes::from(vec![7; 10])));
        drop(failed);
        assert_eq!(flights.now()[0].name, "d/f");
        drop(underway);
        assert_eq!(sent(), None);
    }

    #[test]
    fn the_end_of_an_older_flight_does_not_hide_the_next_one() {
        let flights = Flights::default();
        let key = RelKey::parse("f").unwrap();
        let old = flights.begin(&key, 1, 0);
        let _new = flights.begin(&key, 2, 0);
        drop(old);
        assert_eq!(flights.now()[0].bytes, 2);
    }
}

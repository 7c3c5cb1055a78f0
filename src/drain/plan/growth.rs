//! When a change is due, as far as time goes: after the linger, and what only grew still later.
//!
//! A log that gets a line a second would be sent every few seconds. As long as it has no 5 MiB, the whole
//! of it goes each time; then its tail, for the price of four requests. So what grew waits, from the
//! start of its last upload on, until it grew by a quarter or `append_max_age` passed: an hour
//! where the whole is sent, a minute where what is there is copied.
//!
//! Invariants:
//! - only what was sent as a growth before waits: a single append to an old file goes at once;
//! - what somebody waits for (`urgent`, `hurry`) does not wait;
//! - `Order::Dir` holds: a later change of the directory that does not grow takes along what waits before
//!   it. Growths among themselves keep no order;
//! - what was forgotten (a restart, more than `REMEMBERED` keys) costs an early upload, nothing else.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;

use super::{Order, Rules, Scan};
use crate::drain::pieces::MIN_PART;
use crate::drain::waits::{dir_of, share_much};
use crate::tree::Pending;
use crate::types::{Base, RelKey, Source, Want};

/// What keeps changing lingers no longer than so many times `linger`.
const LINGERS_MAX: u32 = 5;
/// A growth of one in so many is worth an upload.
const WORTH: u64 = 4;
/// The waits of `append_max_age=auto`: where the whole is sent, and where most of it is copied.
const WHOLE: Duration = Duration::from_secs(3600);
const TAIL: Duration = Duration::from_secs(60);
/// Of so many growing keys the last upload is remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(2048).unwrap();

/// When keys that grow were last sent.
#[derive(Clone, Debug)]
pub(in crate::drain) struct Published(LruCache<RelKey, Instant>);

impl Default for Published {
    fn default() -> Self {
        Self(LruCache::new(REMEMBERED))
    }
}

impl Published {
    /// `entry` is being sent.
    pub(in crate::drain) fn begin(&mut self, key: &RelKey, entry: &Pending, now: Instant) {
        if growth(key, entry).is_some() {
            self.0.put(key.clone(), now);
        }
    }

    /// It did not arrive: the wait for another try is not this one.
    pub(in crate::drain) fn failed(&mut self, key: &RelKey) {
        self.0.pop(key);
    }
}

/// How much of the version it replaces an entry begins with, and how much follows; `None`: it is
/// no growth.
fn growth(key: &RelKey, entry: &Pending) -> Option<(u64, u64)> {
    let (Want::Object(generation), Base::Version(base)) = (&entry.want, &entry.base) else {
        return None;
    };
    let mut pieces = generation.extents.iter();
    let kept = match pieces.next() {
        Some(first) => match &first.from {
            Source::Remote { object, offset: 0 }
                if first.at == 0 && object.key.as_str() == key.as_str() && object.etag == *base =>
            {
                first.len
            }
            Source::Remote { .. } | Source::Local { .. } => return None,
        },
        None => return None,
    };
    let is_written_here = pieces.all(|piece| matches!(piece.from, Source::Local { .. }));
    let grown = generation.len.saturating_sub(kept);
    (is_written_here && grown > 0).then_some((kept, grown))
}

/// When an entry may be carried out as far as time goes, but for `grows_until`.
pub(in crate::drain) fn due(entry: &Pending, rules: &Rules) -> Instant {
    if entry.held {
        return entry.unsent_since + rules.upload_open;
    }
    if rules.hurry || entry.urgent {
        return entry.since;
    }
    (entry.since + rules.linger).min(entry.unsent_since + rules.linger * LINGERS_MAX)
}

/// Until when an entry waits to grow further.
fn grows_until(
    key: &RelKey,
    entry: &Pending,
    published: &Published,
    rules: &Rules,
) -> Option<Instant> {
    if rules.hurry || entry.urgent || entry.begun {
        return None;
    }
    let last = *published.0.peek(key)?;
    let (kept, grown) = growth(key, entry)?;
    let age = rules
        .append_max_age
        .unwrap_or(if kept > MIN_PART { TAIL } else { WHOLE });
    (grown < kept / WORTH).then(|| last + age)
}

impl<'a> Scan<'a> {
    /// Until when `entry`, which is due, waits to grow further.
    pub(super) fn grows_until(&self, key: &RelKey, entry: &Pending) -> Option<Instant> {
        let until = grows_until(key, entry, &self.busy.published, self.rules);
        until.filter(|until| *until > self.now)
    }

    /// `entry` is due: what waits to grow and has to go before it, goes. Whether to go on.
    pub(super) fn take_along(&mut self, key: &'a RelKey, entry: &'a Pending) -> bool {
        if self.growing.is_empty() {
            return true;
        }
        let is_ordered = self.rules.order == Order::Dir && growth(key, entry).is_none();
        let goes = |(other, before): &(&RelKey, &Pending)| {
            (is_ordered && dir_of(other) == dir_of(key))
                || share_much((other, before), (key, entry))
        };
        let (along, rest) = std::mem::take(&mut self.growing)
            .into_iter()
            .partition(goes);
        self.growing = rest;
        let along: Vec<_> = along;
        along.into_iter().all(|(key, entry)| self.go(key, entry))
    }
}

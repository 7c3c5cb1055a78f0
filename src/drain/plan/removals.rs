//! Removals travel together, and wait for each other: `rm -r` of a directory is as few requests as
//! its keys need, however slow the device is.
//!
//! Invariants:
//! - a full request goes at once, also with removals that still linger;
//! - one that is not full waits while there are new removals, each within `linger` of the one
//!   before it, but no longer than `LINGERS_MAX` times `linger`; and not at all where something is
//!   to be published behind one of them in its directory, where somebody waits, or where nothing
//!   else would be sent;
//! - what does not go yet takes no other job's place, but the one that is under way.

use super::{BATCH_MAX, Duration, Instant, Job, LOOKAHEAD, Pending, RelKey, Scan, Seq, Want};
use crate::drain::waits::dir_of;

/// What is removed lingers no longer than so many times `linger`.
const LINGERS_MAX: u32 = 30;

/// What may be removed by one request.
#[derive(Default)]
pub(super) struct Batch<'a> {
    /// What is due.
    due: Vec<(&'a RelKey, &'a Pending)>,
    /// What is not, but would go along to fill a request.
    early: Vec<(&'a RelKey, &'a Pending)>,
}

impl Batch<'_> {
    pub(super) fn is_full(&self) -> bool {
        self.due.len() >= BATCH_MAX
    }

    /// When the last of them was wanted.
    fn latest(&self) -> Option<Instant> {
        let all = self.due.iter().chain(&self.early);
        all.map(|(_, entry)| entry.since).max()
    }
}

impl<'a> Scan<'a> {
    /// Notes what is to be published in which directory.
    pub(super) fn note_publish(&mut self, key: &'a RelKey, entry: &Pending) {
        if matches!(entry.want, Want::Object(_)) {
            self.publishes.insert(dir_of(key), entry.number);
        }
    }

    pub(super) fn take_into_batch(&mut self, key: &'a RelKey, entry: &'a Pending) -> bool {
        if self.batch.due.is_empty() {
            if self.slots == 0 {
                return false;
            }
            self.slots -= 1;
        } else if self.batch.is_full() {
            return self.slots > 0 && self.must_wait(key, entry);
        }
        self.passed -= 1;
        self.taken.insert(key);
        self.batch.due.push((key, entry));
        self.turns.batched(key, entry.number);
        self.plan.drained = false;
        true
    }

    /// A removal that still lingers.
    pub(super) fn may_go_along(&mut self, key: &'a RelKey, entry: &'a Pending) {
        if self.batch.early.len() < BATCH_MAX {
            self.passed -= 1;
            self.batch.early.push((key, entry));
        }
    }

    pub(super) fn can_batch(&self) -> bool {
        (1..BATCH_MAX).contains(&self.batch.due.len()) && self.passed <= LOOKAHEAD
    }

    /// Plans the request, or when to look again.
    pub(super) fn finish_batch(&mut self) {
        self.fill_up();
        if self.batch.due.is_empty() || (!self.batch.is_full() && self.batch_waits()) {
            return;
        }
        let due = std::mem::take(&mut self.batch.due).into_iter();
        let mut keys: Vec<(RelKey, Seq)> = due
            .map(|(key, entry)| (key.clone(), entry.number))
            .collect();
        // What a server works off in this order leaves no directory before what is in it.
        keys.sort_unstable_by(|(one, _), (other, _)| other.cmp(one));
        self.plan.jobs.push(match keys.len() {
            1 => {
                let (key, number) = keys.swap_remove(0);
                Job::Remove { key, number }
            }
            _ => Job::RemoveBatch(keys),
        });
    }

    /// What still lingers goes along if that makes a full request.
    fn fill_up(&mut self) {
        let (due, early) = (self.batch.due.len(), self.batch.early.len());
        if due + early < BATCH_MAX || (due == 0 && self.slots == 0) {
            return;
        }
        let is_free = |(key, entry): &&(&'a RelKey, &'a Pending)| {
            !self.is_busy(key)
                && !self.turns.blocks(key, entry.number, true)
                && self.waits.readers(key, entry).is_empty()
        };
        let free: Vec<_> = self.batch.early.iter().filter(is_free).copied().collect();
        if due + free.len() >= BATCH_MAX {
            self.batch.due.extend(free.iter().take(BATCH_MAX - due));
        }
    }

    /// Whether more may come along.
    fn batch_waits(&mut self) -> bool {
        if self.busy.removing {
            return true;
        }
        let is_alone = self.slots == 0 && self.plan.jobs.is_empty() && self.busy.jobs == 0;
        let is_awaited = |(key, entry): &(&RelKey, &Pending)| {
            let behind = self.publishes.get(dir_of(key));
            entry.urgent || behind.is_some_and(|number| *number > entry.number)
        };
        if self.rules.hurry || is_alone || self.batch.due.iter().any(is_awaited) {
            return false;
        }
        let linger = self.rules.linger;
        let longest: Duration = linger * LINGERS_MAX;
        let oldest = self.batch.due.iter().map(|(_, entry)| entry.unsent_since);
        let until = self.batch.latest().zip(oldest.min());
        let until = until.map(|(latest, oldest)| (latest + linger).min(oldest + longest));
        match until.filter(|until| *until > self.now) {
            Some(until) => {
                self.wake(until);
                true
            }
            None => false,
        }
    }
}

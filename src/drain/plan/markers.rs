//! When the marker of a directory may go.
//!
//! Invariants:
//! - it goes after all that is pending below it, or behind it in the same request: a server whose
//!   keys are paths ignores the deletion of a directory that is not empty. What is dead, held or
//!   open is not waited for;
//! - nobody waits for it before it is in flight (but what is wanted at its key next): no turn is
//!   kept for it. So it may wait for higher numbers too.

use super::{Job, Pending, Readers, RelKey, Scan, Seq, Want, due, is_batchable, is_nothing};

/// Whether the marker of a directory is to go.
pub(in crate::drain) fn is_marker_removal(key: &RelKey, entry: &Pending) -> bool {
    key.is_dir() && entry.want == Want::Gone
}

impl<'a> Scan<'a> {
    /// Looks at those that were put off and are older than `number`, children before their
    /// directory.
    pub(super) fn look_at_markers(&mut self, number: Seq) {
        let is_due = |entry: &Pending| entry.number < number;
        if !self.markers.iter().any(|(_, entry)| is_due(entry)) {
            return;
        }
        let all = std::mem::take(&mut self.markers).into_iter();
        let (mut due, later): (Vec<_>, Vec<_>) = all.partition(|(_, entry)| is_due(entry));
        self.markers = later;
        due.sort_unstable_by(|(one, _), (other, _)| other.cmp(one));
        for (key, entry) in due {
            self.look_at_marker(key, entry);
        }
    }

    fn look_at_marker(&mut self, key: &'a RelKey, entry: &'a Pending) {
        let due = Some(due(entry, self.rules)).filter(|due| *due > self.now);
        if let Some(until) = due.or_else(|| self.resting(key)) {
            self.plan.drained = false;
            self.wake(until);
            return;
        }
        let joins = is_batchable(entry) && !self.batch.is_full();
        // Those below say by themselves whether all is sent.
        if self.has_below(key, entry, joins) {
            return;
        }
        let is_busy = self.is_busy(key) || self.may_be_needed(entry);
        let readers = match is_busy {
            true => Readers::Pending,
            false => self.readers_first(key, entry, false),
        };
        self.plan.drained &= readers == Readers::Parked;
        if readers != Readers::None {
            return;
        }
        if is_nothing(entry) && !self.rules.unmade_dirs {
            self.drop_at(key, entry);
        } else if joins {
            self.take_into_batch(key, entry);
        } else if self.slots > 0 {
            self.take(key, entry, |key, number| Job::Remove { key, number });
        }
    }

    /// Whether something is pending below a marker that its removal has to wait for. `joins`: it can
    /// travel with this plan's batch.
    fn has_below(&self, key: &RelKey, entry: &Pending, joins: bool) -> bool {
        let mut below = self.pending.below(key.as_str());
        let goes_first = |other: &RelKey, below: &Pending| {
            let goes_along = joins && self.taken.contains(other) && is_batchable(below);
            is_nothing(entry) || !(goes_along || self.is_at_rest(other, below))
        };
        below.any(|(other, below)| other != key && goes_first(other, below))
    }

    fn is_at_rest(&self, key: &RelKey, entry: &Pending) -> bool {
        let is_open = matches!(entry.want, Want::Open { .. });
        is_open || entry.held || self.dead.has(key, entry)
    }
}

//! How much the spool may occupy: `spool_max` and `disk_reserve`, kept before a byte is written.
//!
//! ```text
//! 0 ........................................ spool_max (less what the tree's memory may take)
//!   new content and new names     | 2 units | 2 units | 2 units |
//!   Growth ----------------------->         |         |         |
//!   Promised, Shrink (a seal, rm, mv) ------>         |         |
//!   Drain (what was sent) ---------------------------->         |
//!   Anyway (compaction, which makes room) ---------------------->
//! ```
//!
//! A unit is the usual size of a segment. So what was written can always be sealed, names can be
//! removed and moved when the spool is full of data, and neither keeps the drain from making room.
//!
//! Invariants:
//! - `used` is at least what data files, partials and segments occupy, as far as it is known: bytes
//!   are taken before they are written and given back after they are gone;
//! - `slack`, the part of segments that is allocated and not written, counts for nobody: so a
//!   segment made in advance takes nothing from data, and `used` stays below the cap all the same;
//! - what is `reserved` was promised to a seal when its bytes were written: nobody else gets it;
//! - the file system is asked once for each `SAMPLE` bytes taken, not for each write, so other
//!   programs can make us miss `disk_reserve` by that much.

use std::io;

use parking_lot::Mutex;

use crate::disk::Dir;

const SAMPLE: u64 = 1 << 20;
/// Of a segment's alignment on the disk.
const PAGE: u64 = 4096;
const BESIDE_MAX: u64 = 32 << 20;

/// What a record (or a byte) is for: how deep it may go into the reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// New content, a new name: `ENOSPC` first.
    Growth,
    /// A seal of bytes whose writer was promised that there is room for it.
    Promised,
    /// Names that go or move, files that get shorter.
    Shrink,
    /// What the drain has to say: it makes room.
    Drain,
    /// What compaction writes before it drops more than that.
    Anyway,
}

/// Bytes of `spool_max` that are not the log's: what the tree remembers of the bucket lies beside
/// it.
pub(super) fn beside(spool_max: u64) -> u64 {
    (spool_max / 16).min(BESIDE_MAX)
}

/// The account.
#[derive(Debug)]
pub(super) struct Room {
    /// `spool_max`.
    cap: u64,
    /// Of it, what is the log's.
    max: u64,
    /// The usual size of a segment.
    unit: u64,
    reserve: u64,
    dir: Dir,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    slack: u64,
    reserved: u64,
    /// As `max`; higher if more than that was there when the log was opened (the cap was lowered):
    /// what is there must be sent all the same.
    ceiling: u64,
    /// May be taken before the file system is asked again.
    credit: u64,
}

impl State {
    fn written(&self) -> u64 {
        self.used.saturating_sub(self.slack)
    }
}

impl Room {
    pub(super) fn new(dir: Dir, cap: u64, unit: u64, reserve: u64) -> Self {
        let max = cap - beside(cap);
        let state = State {
            ceiling: max,
            ..State::default()
        };
        Self {
            cap,
            max,
            unit,
            reserve,
            dir,
            state: Mutex::new(state),
        }
    }

    /// All that is there is counted: the reserve lies above it, also if that is above the cap.
    pub(super) fn is_opened(&self) {
        let mut state = self.state.lock();
        state.ceiling = self.max.max(state.written() + 6 * self.unit);
    }

    fn allows(&self, state: &State, bytes: u64, need: Need) -> bool {
        let (limit, counts_reserved) = match need {
            Need::Growth => (self.max.saturating_sub(6 * self.unit), true),
            Need::Shrink => (state.ceiling.saturating_sub(4 * self.unit), true),
            Need::Promised => (state.ceiling.saturating_sub(4 * self.unit), false),
            Need::Drain => (state.ceiling.saturating_sub(2 * self.unit), true),
            Need::Anyway => return true,
        };
        let reserved = if counts_reserved { state.reserved } else { 0 };
        let all = state.written().saturating_add(reserved);
        all.saturating_add(bytes) <= limit
    }

    /// Whether the file system has `bytes` more than is to be left free, and what the log needs.
    fn is_free(&self, state: &mut State, bytes: u64) -> io::Result<bool> {
        if bytes > state.credit {
            let wanted = (6 * self.unit).saturating_sub(state.slack);
            let kept = self.reserve.saturating_add(wanted);
            let free = self.dir.free()?;
            let Some(spare) = free.checked_sub(kept).filter(|spare| *spare >= bytes) else {
                return Ok(false);
            };
            state.credit = spare.min(SAMPLE.max(bytes));
        }
        state.credit -= bytes;
        Ok(true)
    }

    /// Takes `bytes` for data that is about to be written.
    pub(super) fn take(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        if !self.allows(&state, bytes, Need::Growth) || !self.is_free(&mut state, bytes)? {
            return Err(full());
        }
        state.used += bytes;
        Ok(())
    }

    /// Whether anything can be taken at all.
    pub(super) fn check(&self) -> io::Result<()> {
        self.take(1)?;
        self.give(1);
        Ok(())
    }

    /// Sets `bytes` of the log aside for a record that will come, or comes now.
    pub(super) fn reserve(&self, bytes: u64, need: Need) -> io::Result<()> {
        let mut state = self.state.lock();
        let is_there = self.allows(&state, bytes, need)
            && (need != Need::Growth || self.is_free(&mut state, bytes)?);
        if !is_there {
            return Err(full());
        }
        state.reserved += bytes;
        Ok(())
    }

    /// It is not needed any more, or was written.
    pub(super) fn release(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.reserved = state.reserved.saturating_sub(bytes);
    }

    /// Whether all that is reserved fits into what is allocated on the device already, with
    /// `margin` for what is lost at a segment's end.
    pub(super) fn is_allocated(&self, margin: u64) -> bool {
        let state = self.state.lock();
        state.reserved.saturating_add(margin) <= state.slack
    }

    /// The size of a segment that may be made now, for a frame that needs `least` bytes.
    pub(super) fn segment(&self, least: u64) -> io::Result<u64> {
        let state = self.state.lock();
        let left = state.ceiling.saturating_sub(state.used) / PAGE * PAGE;
        let least = least.next_multiple_of(PAGE);
        if left < least {
            return Err(full());
        }
        Ok(least.max(self.unit.min(left)))
    }

    /// A segment of `capacity` bytes is allocated.
    pub(super) fn allocated(&self, capacity: u64) {
        let mut state = self.state.lock();
        state.used = state.used.saturating_add(capacity);
        state.slack = state.slack.saturating_add(capacity);
    }

    /// `bytes` of an allocated segment are written.
    pub(super) fn wrote(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.slack = state.slack.saturating_sub(bytes);
    }

    /// `bytes` of an allocated segment will never be written, and are cut off.
    pub(super) fn cut(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.used = state.used.saturating_sub(bytes);
        state.slack = state.slack.saturating_sub(bytes);
    }

    /// Takes what is occupied already.
    pub(super) fn take_anyway(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.used = state.used.saturating_add(bytes);
    }

    pub(super) fn give(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.used = state.used.saturating_sub(bytes);
    }

    /// Whether so little is left that what can be dropped should be.
    pub(super) fn is_short(&self) -> bool {
        !self.allows(&self.state.lock(), self.unit, Need::Growth)
    }

    pub(super) fn unit(&self) -> u64 {
        self.unit
    }

    pub(super) fn usage(&self) -> (u64, u64) {
        (self.state.lock().used, self.cap)
    }
}

fn full() -> io::Error {
    nix::errno::Errno::ENOSPC.into()
}

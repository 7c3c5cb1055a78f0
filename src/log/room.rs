//! How much the spool may occupy: `spool_max` and `disk_reserve`, kept before a byte is written.
//!
//! Invariants:
//! - `used` is at least what data files, partials and segments occupy, as far as it is known: bytes
//!   are taken before they are written and given back after they are gone;
//! - data leaves `headroom` to the log, so that names can be removed when the spool is full;
//! - the file system is asked once for each `SAMPLE` bytes taken, not for each write, so other
//!   programs can make us miss `disk_reserve` by that much.

use std::io;

use parking_lot::Mutex;

use crate::disk::Dir;

const SAMPLE: u64 = 1 << 20;

/// The account.
#[derive(Debug)]
pub(super) struct Room {
    max: u64,
    headroom: u64,
    reserve: u64,
    dir: Dir,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    /// May be taken before the file system is asked again.
    credit: u64,
}

impl Room {
    pub(super) fn new(dir: Dir, max: u64, headroom: u64, reserve: u64) -> Self {
        Self {
            max,
            headroom,
            reserve,
            dir,
            state: Mutex::default(),
        }
    }

    /// Takes `bytes` for data that is about to be written.
    pub(super) fn take(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        let used = state.used.saturating_add(bytes);
        if used > self.max.saturating_sub(self.headroom) {
            return Err(full());
        }
        if bytes > state.credit {
            let free = self.dir.free()?;
            let Some(spare) = free
                .checked_sub(self.reserve)
                .filter(|spare| *spare >= bytes)
            else {
                return Err(full());
            };
            state.credit = spare.min(SAMPLE.max(bytes));
        }
        state.credit -= bytes;
        state.used = used;
        Ok(())
    }

    /// Whether anything can be taken at all.
    pub(super) fn check(&self) -> io::Result<()> {
        self.take(1)?;
        self.give(1);
        Ok(())
    }

    /// Takes `bytes` for a segment; the reserve is there for it.
    pub(super) fn take_log(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        let used = state.used.saturating_add(bytes);
        if used > self.max {
            return Err(full());
        }
        state.used = used;
        Ok(())
    }

    /// Takes what is occupied already, or what compaction needs to make room.
    pub(super) fn take_anyway(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.used = state.used.saturating_add(bytes);
    }

    pub(super) fn give(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.used = state.used.saturating_sub(bytes);
    }

    pub(super) fn usage(&self) -> (u64, u64) {
        (self.state.lock().used, self.max)
    }
}

fn full() -> io::Error {
    nix::errno::Errno::ENOSPC.into()
}

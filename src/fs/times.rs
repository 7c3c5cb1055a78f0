//! Times that no object carries: atime and ctime, and what a directory's entries make of its mtime.
//! They are kept with the inode for as long as the kernel knows it, in memory: no request, no record.
//!
//! Invariants:
//! - without a note atime and ctime are the mtime, so that a write, which moves all three to the
//!   same moment as far as anybody looks, needs no note;
//! - a note of a ctime holds for the mtime it was made beside: once a write has moved that, the write
//!   was the last change;
//! - reading does not move atime (as with `noatime`): it is what utimensat(2) set last.

use crate::types::Time;

/// What is noted of one inode. Most have none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    /// Set by utimensat(2).
    atime: Option<Time>,
    /// The last change of attributes, and the mtime shown beside it.
    change: Option<(Time, Time)>,
    /// When an entry of this directory was last made, removed or renamed here; until its mtime is set.
    entries: Option<Time>,
}

/// The three times of stat(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) atime: Time,
    pub(super) mtime: Time,
    pub(super) ctime: Time,
}

impl Times {
    /// What is shown for an inode whose object (or draft) says `mtime`.
    pub(super) fn shown(&self, mtime: Time) -> Shown {
        let mtime = self.entries.unwrap_or(mtime);
        let ctime = match self.change {
            Some((changed, beside)) if beside == mtime => changed,
            Some(_) | None => mtime,
        };
        Shown {
            atime: self.atime.unwrap_or(mtime),
            mtime,
            ctime,
        }
    }

    /// An entry of this directory was made, removed or renamed.
    pub(super) fn entries_changed(&mut self, now: Time) {
        self.entries = Some(now);
    }

    /// When an entry was changed last, if that is what the mtime shows.
    pub(super) fn of_entries(&self) -> Option<Time> {
        self.entries
    }

    /// The mtime was set by hand: what entries did before does not count any more.
    pub(super) fn mtime_set(&mut self) {
        self.entries = None;
    }

    /// The atime was set by hand.
    pub(super) fn atime_set(&mut self, atime: Time) {
        self.atime = Some(atime);
    }

    /// Attributes or the name changed; the object (or draft) says `mtime` now.
    pub(super) fn changed(&mut self, now: Time, mtime: Time) {
        let beside = self.entries.unwrap_or(mtime);
        self.change = Some((now, beside));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Time {
        Time { secs, nanos: 0 }
    }

    #[test]
    fn without_a_note_all_three_are_the_mtime() {
        let shown = Times::default().shown(at(7));
        assert_eq!(
            (shown.atime, shown.mtime, shown.ctime),
            (at(7), at(7), at(7))
        );
    }

    #[test]
    fn a_change_of_attributes_moves_ctime_until_a_write_moves_all() {
        let mut times = Times::default();
        times.changed(at(9), at(7));
        assert_eq!(times.shown(at(7)).ctime, at(9));
        assert_eq!(times.shown(at(12)).ctime, at(12));
    }

    #[test]
    fn entries_move_a_directory_until_its_mtime_is_set() {
        let mut times = Times::default();
        times.entries_changed(at(9));
        assert_eq!(times.shown(at(3)).mtime, at(9));
        assert_eq!(times.shown(at(3)).ctime, at(9));
        times.mtime_set();
        times.changed(at(11), at(5));
        assert_eq!(times.shown(at(5)).mtime, at(5));
        assert_eq!(times.shown(at(5)).ctime, at(11));
    }

    #[test]
    fn an_atime_stays_what_it_was_set_to() {
        let mut times = Times::default();
        times.atime_set(at(1));
        assert_eq!(times.shown(at(12)).atime, at(1));
    }
}

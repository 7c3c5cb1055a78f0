//! One segment that can be appended to.

use std::io;

use super::frame::{HEADER, Header};
use super::spool::{Shared, file_name};
use crate::disk;
use crate::types::FileNo;

/// A segment, blank until its header is written.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: FileNo,
    pub(super) file: disk::File,
    /// Bytes allocated: it is never appended to behind them.
    pub(super) capacity: u64,
}

/// Who asks for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// The next record: `spool_max` holds.
    Append,
    /// Opening, or compaction, which makes room by it.
    Anyway,
}

impl Segment {
    /// Makes a blank one of `capacity` bytes, allocated and in the flushed folder.
    pub(super) fn make(shared: &Shared, capacity: u64, need: Need) -> io::Result<Self> {
        match need {
            Need::Append => shared.room.take_log(capacity)?,
            Need::Anyway => shared.room.take_anyway(capacity),
        }
        let number = shared.next_number();
        let name = file_name(number);
        let made = (|| {
            let file = shared.folders.log.create(&name)?;
            file.allocate(capacity)?;
            // The length must not need a flush of its own later.
            file.flush()?;
            shared.folders.log.flush()?;
            Ok(Self {
                number,
                file,
                capacity,
            })
        })();
        if made.is_err() {
            shared.room.give(capacity);
            shared.folders.log.remove(&name)?;
        }
        made
    }

    /// Takes over a blank one found when the log was opened.
    pub(super) fn reuse(shared: &Shared, number: FileNo) -> io::Result<Self> {
        let file = shared.folders.log.open_to_write(&file_name(number))?;
        let capacity = file.len()?;
        shared.room.take_anyway(capacity);
        Ok(Self {
            number,
            file,
            capacity,
        })
    }

    /// Gives up one that was never begun.
    pub(super) fn discard(self, shared: &Shared) -> io::Result<()> {
        shared.folders.log.remove(&file_name(self.number))?;
        shared.room.give(self.capacity);
        Ok(())
    }

    pub(super) fn begin(&self, header: &Header) -> io::Result<()> {
        self.file.write_all_at(&header.encode(), 0)
    }

    /// Whether a frame of `len` bytes fits at `at`.
    pub(super) fn fits(&self, at: u64, len: u64) -> bool {
        at.saturating_add(len) <= self.capacity
    }

    /// The capacity that one frame of `len` bytes needs.
    pub(super) fn capacity_for(len: u64, usual: u64) -> u64 {
        (HEADER as u64 + len).next_multiple_of(4096).max(usual)
    }
}

//! One segment that can be appended to.

use std::io;

use super::frame::Header;
use super::spool::{Shared, file_name};
use crate::disk;
use crate::types::FileNo;

/// A segment made where the device is nearly full is a multiple of this.
const SMALL: u64 = 16 << 10;

/// A segment, blank until its header is written.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: FileNo,
    pub(super) file: disk::File,
    /// Bytes allocated: it is never appended to behind them.
    pub(super) capacity: u64,
}

impl Segment {
    /// Makes a blank one with room for `least` bytes, usually many more, allocated and in the
    /// flushed folder. Where the device has not that much left, it is as small as it may be.
    pub(super) fn make(shared: &Shared, least: u64) -> io::Result<Self> {
        let usual = shared.room.segment(least)?;
        match Self::of_capacity(shared, usual) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                let small = least.next_multiple_of(SMALL);
                if small < usual {
                    Self::of_capacity(shared, small)
                } else {
                    Err(error)
                }
            }
            made => made,
        }
    }

    fn of_capacity(shared: &Shared, capacity: u64) -> io::Result<Self> {
        shared.room.allocated(capacity);
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
            shared.room.cut(capacity);
            shared.folders.log.remove(&name)?;
        }
        made
    }

    /// Takes over a blank one found when the log was opened.
    pub(super) fn reuse(shared: &Shared, number: FileNo) -> io::Result<Self> {
        let file = shared.folders.log.open_to_write(&file_name(number))?;
        let capacity = file.len()?;
        shared.room.allocated(capacity);
        Ok(Self {
            number,
            file,
            capacity,
        })
    }

    /// Gives up one that was never begun.
    pub(super) fn discard(self, shared: &Shared) -> io::Result<()> {
        shared.folders.log.remove(&file_name(self.number))?;
        shared.room.cut(self.capacity);
        Ok(())
    }

    pub(super) fn begin(&self, header: &Header) -> io::Result<()> {
        self.file.write_all_at(&header.encode(), 0)
    }

    /// Whether a frame of `len` bytes fits at `at`.
    pub(super) fn fits(&self, at: u64, len: u64) -> bool {
        at.saturating_add(len) <= self.capacity
    }
}

//! Room in the log that was promised to the seal of a file while it is being written.
//!
//! Invariant: what is promised is reserved in the account until the promise is dropped or kept, so
//! a writer that was told its bytes are taken is never told at its close that there is no room.

use std::io;
use std::sync::Arc;

use super::Shared;
use crate::log::room::Need;

/// Lost at the end of a segment by a frame that does not fit there, at most: a small file's.
const MARGIN: u64 = 64 << 10;

/// Room for a record to come.
#[derive(Debug)]
pub struct Promise {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Promise {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, bytes: 0 }
    }

    /// Makes it at least `bytes`.
    ///
    /// # Errors
    /// `ENOSPC`; it is what it was then.
    pub fn grow_to(&mut self, bytes: u64, need: Need) -> io::Result<()> {
        if let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) {
            self.shared.room.reserve(more, need)?;
            self.bytes = bytes;
        }
        Ok(())
    }

    /// The record was written: what is written from now on needs a new one.
    pub fn is_kept(&mut self) {
        self.shared.room.release(std::mem::take(&mut self.bytes));
    }

    /// Whether the device has allocated the room for all that is promised.
    #[must_use]
    pub fn is_allocated(&self) -> bool {
        self.shared.room.is_allocated(MARGIN)
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.is_kept();
    }
}

//! The root of the mount becomes another folder of the bucket.
//!
//! Invariant: once this is answered, nothing that is known of the old root is on the disk but in the log
//! before the record of it. The caller notes whose the new root is only then, so that a crash
//! meanwhile makes it all happen again.

use tokio::runtime::Handle;

use super::{LogError, Tree, now};
use crate::log::{Need, Record};

impl Tree {
    /// Forgets what is known of the bucket; what is wanted goes to the new root. `only_clean`: not if
    /// anything is wanted. Answers whether it was done. Blocking; call it on a blocking thread
    /// of a runtime.
    ///
    /// # Errors
    /// Of the disk: it has to be done again then.
    pub fn reroot(&self, only_clean: bool) -> Result<bool, LogError> {
        let disk =
            |error: std::io::Error| LogError::Disk(error.raw_os_error().unwrap_or(libc::EIO));
        let mut listings = self.listings.lock();
        let mut state = self.state.lock();
        if only_clean && state.pending.count() > 0 {
            return Ok(false);
        }
        let (seq, record) = self.log.append(Record::Rerooted, &[], Need::Anyway)?;
        state.apply(seq, record, now());
        state.memory.forget_all().map_err(disk)?;
        drop(state);
        listings.forget_all().map_err(disk)?;
        drop(listings);
        Handle::current().block_on(self.log.flushed(seq))?;
        self.awake();
        Ok(true)
    }
}

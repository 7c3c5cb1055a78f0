//! One data file being written.
//!
//! Invariant: what is taken for it is at least what it occupies: bytes are taken before each
//! write; after a write that is no append, and at each flush, what it really occupies is asked.

use std::io;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::Shared;
use super::early::Early;
use crate::disk;
use crate::seeded::{self, Bug};
use crate::types::FileNo;

/// A data file being written. Write-once from seal to seal: the caller never overwrites what a
/// sealed generation names.
#[derive(Debug)]
pub struct DataFile {
    number: FileNo,
    file: disk::File,
    shared: Arc<Shared>,
    end: Mutex<u64>,
    early: Arc<Early>,
    /// The errno of the first flush that failed.
    failed: OnceLock<i32>,
}

impl DataFile {
    pub(super) fn new(number: FileNo, file: disk::File, shared: Arc<Shared>) -> Self {
        Self {
            number,
            file,
            shared,
            end: Mutex::default(),
            early: Arc::default(),
            failed: OnceLock::new(),
        }
    }

    /// Its number.
    pub fn number(&self) -> FileNo {
        self.number
    }

    /// What of it is read before it is sealed.
    pub fn early(&self) -> &Arc<Early> {
        &self.early
    }

    /// Writes all of `data` at `offset`. Blocking (page cache).
    ///
    /// # Errors
    /// `ENOSPC` at `spool_max` or `disk_reserve`; of the disk.
    pub fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let len = data.len() as u64;
        if len == 0 {
            return Ok(());
        }
        self.shared.room.take(len)?;
        self.early.written(offset..offset.saturating_add(len));
        let written = self.file.write_all_at(data, offset);
        let mut end = self.end.lock();
        let is_append = offset == *end;
        *end = (*end).max(offset.saturating_add(len));
        self.settle(|taken| taken + len);
        if !is_append || written.is_err() {
            self.ask()?;
        }
        written
    }

    /// fdatasync. After a failure every later flush of this file fails too. Blocking.
    ///
    /// # Errors
    /// Of the disk.
    pub fn flush(&self) -> io::Result<()> {
        if let Some(errno) = self.poison() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        if let Err(error) = self.file.flush() {
            let errno = super::super::errno(&error);
            return Err(io::Error::from_raw_os_error(
                *self.failed.get_or_init(|| errno),
            ));
        }
        // A flush that failed at the same time on another thread took our dirty pages with it.
        if let Some(errno) = self.poison() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        self.ask()
    }

    /// The errno of the flush that failed.
    fn poison(&self) -> Option<i32> {
        let failed = self.failed.get().copied();
        failed.filter(|_| !seeded::is(Bug::PoisonedFileIsClean))
    }

    /// Takes what the file occupies instead of what was taken.
    fn ask(&self) -> io::Result<()> {
        let occupied = self.file.occupied()?;
        if let Some(before) = self.settle(|_| occupied) {
            self.shared.room.give(before);
            self.shared.room.take_anyway(occupied);
        }
        Ok(())
    }

    /// Changes what is noted as taken, and answers what it was; `None` once it is set aside.
    fn settle(&self, change: impl FnOnce(u64) -> u64) -> Option<u64> {
        let mut files = self.shared.files.lock();
        files.get_mut(&self.number).map(|entry| {
            let before = entry.taken;
            entry.taken = change(before);
            before
        })
    }
}

impl Drop for DataFile {
    fn drop(&mut self) {
        let mut files = self.shared.files.lock();
        if let Some(entry) = files.get_mut(&self.number) {
            entry.has_writer = false;
            if entry.is_removed {
                self.shared.room.give(entry.taken);
                files.remove(&self.number);
            }
        }
    }
}

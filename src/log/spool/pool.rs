//! Data files made in advance, so that handing one out costs no flush of their folder.
//!
//! Invariant: a file in the pool is empty and in the flushed folder. At most `BATCH` a creator are
//! in it, all of them made by one flush.

use std::io;

use parking_lot::Mutex;

use super::{Shared, file_name};
use crate::disk;
use crate::seeded::{self, Bug};
use crate::types::FileNo;

/// So many are made at once.
const BATCH: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Pool {
    ready: Mutex<Vec<(FileNo, disk::File)>>,
}

impl Pool {
    /// One of the pool; an empty pool is filled first.
    pub(super) fn take(&self, shared: &Shared) -> io::Result<(FileNo, disk::File)> {
        loop {
            if let Some(ready) = self.ready.lock().pop() {
                return Ok(ready);
            }
            self.fill(shared)?;
        }
    }

    pub(super) fn fill(&self, shared: &Shared) -> io::Result<()> {
        let data = &shared.folders.data;
        let mut made = Vec::with_capacity(BATCH);
        let done = (|| {
            for _ in 0..BATCH {
                let number = shared.next_number();
                made.push((number, data.create(&file_name(number))?));
            }
            if seeded::is(Bug::FolderNotFlushed) {
                return Ok(());
            }
            data.flush()
        })();
        if let Err(error) = done {
            for (number, _) in made {
                data.remove(&file_name(number))?;
            }
            return Err(error);
        }
        made.reverse();
        self.ready.lock().splice(0..0, made);
        Ok(())
    }
}

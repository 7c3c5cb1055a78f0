//! What a person asks of a spool: try again what was refused, let go of what was set aside.
//!
//! Invariants: what was acknowledged is never let go of; what is let go of is not found again by the
//! next start.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::disk;
use crate::log::{Config, Log, LogError, Record};
use crate::types::FileNo;

use super::{Opened, Tree};

impl Tree {
    /// Opens the spool in `dir`, which no daemon has, as what it is bound to. Blocking.
    ///
    /// # Errors
    /// Of the log.
    pub fn reopen(dir: &Path) -> Result<Opened, LogError> {
        let config = Config::of(dir)?;
        let mut records = Vec::new();
        let log = Log::reopen(&config, &mut |seq, record| records.push((seq, record)))?;
        Self::folded(log, records, &config, &dir.join("memory"), Duration::ZERO)
    }

    /// What S3 refused for good is to be tried again, durably so; answers how many changes.
    ///
    /// # Errors
    /// Of the log.
    pub async fn retry(&self) -> Result<usize, LogError> {
        let is_dead = |all: &super::PendingMap| {
            let dead = all.in_order().filter(|(_, entry)| entry.dead.is_some());
            dead.count()
        };
        let dead = self.pending(is_dead);
        if dead > 0 {
            let seq = self.record(Record::Retry)?;
            self.log.flushed(seq).await?;
        }
        Ok(dead)
    }

    /// Lets go of bytes that were never closed, by the numbers of their data files, and of what was
    /// set aside of the log, by its names. Answers how many were there; what the next start would
    /// find again stays.
    ///
    /// # Errors
    /// Of the log.
    pub async fn discard_all(&self, files: &[u64], aside: &[String]) -> Result<usize, LogError> {
        let mut gone = 0;
        for file in files {
            self.seal_to_the_end(FileNo(*file)).await?;
        }
        let (spool, files, aside) = (Arc::clone(self.log.spool()), files.to_vec(), aside.to_vec());
        disk::blocking(move || {
            for file in files {
                gone += usize::from(spool.discard(FileNo(file))?);
            }
            for name in aside {
                gone += usize::from(spool.discard_aside(&name)?);
            }
            Ok(gone)
        })
        .await
        .map_err(failed)
    }

    /// Where a generation names other bytes of a data file: the next start is not to find the rest.
    async fn seal_to_the_end(&self, file: FileNo) -> Result<(), LogError> {
        let spool = self.log.spool();
        if !spool.files().contains(&file) || spool.has_writer(file) {
            return Ok(());
        }
        let sealed = spool.len(file).map_err(failed)?;
        let key = {
            let state = self.state.lock();
            state.written_for.get(&file).map(|whose| whose.key.clone())
        };
        if let Some(key) = key {
            let seq = self.record(Record::Draft { key, file, sealed })?;
            self.log.flushed(seq).await?;
        }
        Ok(())
    }
}

fn failed(error: std::io::Error) -> LogError {
    LogError::Disk(error.raw_os_error().unwrap_or(libc::EIO))
}

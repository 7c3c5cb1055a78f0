//! Keeping the log small: what is still pending is written into a new segment, the old ones go.
//!
//! Invariant: an old segment goes only after the records that take its place, and the attribute
//! memory that its settled records went to, are flushed. A generation keeps its number.

use std::collections::HashSet;
use std::sync::Arc;

use crate::log::{Change, LogError, Record};
use crate::types::{Extent, FileNo, Generation, RelKey, Source, Want};

use super::fold::SHARED_MIN;
use super::pending::Pending;
use super::{Tree, now};

/// A log that is longer than this is rewritten when most of it is settled.
const COMPACT_AT: u64 = 4 << 20;

impl Tree {
    /// Keeps the log small: starts a new segment when little of the old ones is needed, and writes
    /// into it again what is. Blocking; call it on a blocking thread of a runtime.
    ///
    /// # Errors
    /// Of the log.
    pub fn compact(&self) -> Result<(), LogError> {
        let mut state = self.state.lock();
        let live: u64 = state
            .pending
            .in_order()
            .map(|(_, entry)| live_bytes(entry))
            .sum();
        if self.log.size() < COMPACT_AT.max(live.saturating_mul(2)) {
            return Ok(());
        }
        let segment = self.log.rotate()?;
        let entries: Vec<(RelKey, Pending)> = state
            .pending
            .in_order()
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect();
        let data: HashSet<FileNo> = self.log.spool().files().into_iter().collect();
        let mut last = state.last;
        for (key, entry) in entries {
            for (record, inline) in self.rewritten(&key, &entry, &data)? {
                let (seq, record) = self.log.append(record, &inline)?;
                if let Record::Set(_) = &record {
                    let since = entry.since;
                    state.apply(seq, record, since);
                } else {
                    state.apply(seq, record, now());
                }
                last = seq;
            }
            state.pending.edit(&key, |now| now.held = entry.held);
        }
        let memory = state.memory.file();
        drop(state);
        if let Some(memory) = memory {
            memory
                .sync_data()
                .map_err(|e| LogError::Disk(e.raw_os_error().unwrap_or(libc::EIO)))?;
        }
        tokio::runtime::Handle::current().block_on(self.log.flushed(last))?;
        self.log.drop_before(segment)
    }

    /// The records that say anew what a pending entry is.
    fn rewritten(
        &self,
        key: &RelKey,
        entry: &Pending,
        data: &HashSet<FileNo>,
    ) -> Result<Vec<(Record, Vec<u8>)>, LogError> {
        let (want, inline) = self.inlined(&entry.want, data)?;
        let set = |want| {
            let (key, base, number) = (key.clone(), entry.base.clone(), Some(entry.number));
            Record::Set(vec![Change {
                key,
                want,
                base,
                number,
            }])
        };
        let mut records = Vec::new();
        if entry.over_gone {
            records.push((set(Want::Gone), Vec::new()));
        }
        records.push((set(want), inline));
        let (key, number) = (key.clone(), entry.number);
        if entry.begun {
            records.push((
                Record::Begun {
                    key: key.clone(),
                    number,
                },
                Vec::new(),
            ));
        }
        if let Some((number, upload, parts)) = entry.staged.clone() {
            let key = key.clone();
            records.push((
                Record::Staged {
                    key,
                    number,
                    upload,
                    parts,
                },
                Vec::new(),
            ));
        }
        if let Some(reason) = entry.dead.clone() {
            records.push((
                Record::Dead {
                    key,
                    number,
                    reason,
                },
                Vec::new(),
            ));
        }
        Ok(records)
    }

    /// A generation's bytes in old segments, taken along.
    fn inlined(&self, want: &Want, data: &HashSet<FileNo>) -> Result<(Want, Vec<u8>), LogError> {
        let Want::Object(generation) = want else {
            return Ok((want.clone(), Vec::new()));
        };
        let spool = self.log.spool();
        let (mut inline, mut failed) = (Vec::new(), None);
        let extents = generation.extents.map(|extent| {
            let Source::Local { file, offset } = extent.from else {
                return vec![extent.clone()];
            };
            if data.contains(&file) {
                return vec![extent.clone()];
            }
            match spool.read_at(
                file,
                offset,
                usize::try_from(extent.len).unwrap_or(usize::MAX),
            ) {
                Ok(bytes) => {
                    let offset = inline.len() as u64;
                    inline.extend_from_slice(&bytes);
                    let from = Source::Local {
                        file: FileNo::INLINE,
                        offset,
                    };
                    vec![Extent {
                        from,
                        ..extent.clone()
                    }]
                }
                Err(error) => {
                    failed = error.raw_os_error().or(Some(libc::EIO));
                    Vec::new()
                }
            }
        });
        match failed {
            Some(errno) => Err(LogError::Disk(errno)),
            None => {
                let moved = Generation {
                    extents,
                    ..(**generation).clone()
                };
                Ok((Want::Object(Arc::new(moved)), inline))
            }
        }
    }
}

fn live_bytes(entry: &Pending) -> u64 {
    let inline = entry.generation().map_or(0, |generation| {
        let small = generation
            .extents
            .iter()
            .filter(|extent| extent.len < SHARED_MIN);
        small.map(|extent| extent.len).sum()
    });
    inline + 512
}

//! Keeping the log small: of the oldest segments, what is still pending is said anew at the log's end,
//! and they go. Nothing else is written again.
//!
//! Invariants:
//! - an old segment goes only after the records that take its place, and the attribute memory that
//!   its settled records went to, are flushed, and only with all that are older. A generation keeps
//!   its number;
//! - what is written takes half of the room it makes, at most; where the spool is nearly full, it
//!   takes no more than a segment before it makes more room than that (`log::Need`);
//! - a segment that a pending change or a pinned content names stays.

use std::collections::HashSet;
use std::sync::Arc;

use crate::log::{Change, Closed, LogError, Need, Record};
use crate::seeded::{self, Bug};
use crate::types::{Extent, FileNo, Generation, RelKey, Source, Want};

use super::fold::{SHARED_MIN, State, WrittenFor};
use super::pending::Pending;
use super::{Tree, now};

/// Less than this is not worth a few flushes, unless the spool is nearly full.
const COMPACT_AT: u64 = 4 << 20;

impl Tree {
    /// Keeps the log small. Blocking; call it on a blocking thread of a runtime.
    ///
    /// # Errors
    /// Of the log.
    pub fn compact(&self) -> Result<(), LogError> {
        while self.drop_oldest(COMPACT_AT)? && self.log.spool().is_short() {}
        Ok(())
    }

    /// Drops the oldest segments, if that is worth it: `worth` bytes at least, or the room is
    /// short. Answers whether it was.
    pub(crate) fn drop_oldest(&self, worth: u64) -> Result<bool, LogError> {
        let mut state = self.state.lock();
        let segments = self.log.closed();
        let spool = self.log.spool();
        let most = if spool.is_short() {
            Some(spool.unit())
        } else {
            None
        };
        let live = live(&state, &segments);
        let Some(dropped) = how_many(&segments, &live, worth, most) else {
            return Ok(false);
        };
        let gone = &segments[..dropped];
        let entries: Vec<(RelKey, Pending)> = state
            .pending
            .in_order()
            .filter(|(_, entry)| home(entry, &segments).is_some_and(|home| home < dropped))
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect();
        let data: HashSet<FileNo> = spool.files().into_iter().collect();
        let mut last = state.last;
        for (key, entry) in entries {
            for (record, inline) in self.rewritten(&key, &entry, &data)? {
                let (seq, record) = self.log.append(record, &inline, Need::Anyway)?;
                if let Record::Set(_) = &record {
                    let since = entry.since;
                    state.apply(seq, record, since);
                } else {
                    state.apply(seq, record, now());
                }
                last = seq;
            }
            let (held, urgent) = (entry.held, entry.urgent);
            state
                .pending
                .edit(&key, |now| (now.held, now.urgent) = (held, urgent));
        }
        for (file, whose) in state.written_for.clone() {
            let is_needed = self.log.spool().has_writer(file) || state.pending.names(file);
            if data.contains(&file) && is_needed {
                let WrittenFor { key, sealed } = whose;
                let record = Record::Draft { key, file, sealed };
                let (seq, record) = self.log.append(record, &[], Need::Anyway)?;
                state.apply(seq, record, now());
                last = seq;
            }
        }
        // Those that are named are in what was said anew.
        for (key, upload) in state.uploads.unwanted(&state.pending) {
            let record = Record::UploadLeft { key, upload };
            let (seq, record) = self.log.append(record, &[], Need::Anyway)?;
            state.apply(seq, record, now());
            last = seq;
        }
        let memory = state.memory.file();
        drop(state);
        if let Some(Err(error)) = memory.map(|memory| memory.sync_data()) {
            // Nobody can tell any more what of it is durable.
            self.state.lock().memory.write_anew();
            return Err(LogError::Disk(error.raw_os_error().unwrap_or(libc::EIO)));
        }
        // What the bucket acknowledged is in no other place once the segments are gone.
        self.keep_listings();
        if !seeded::is(Bug::DroppedBeforeReplaced) {
            tokio::runtime::Handle::current().block_on(self.log.flushed(last))?;
        }
        let end = gone.last().map_or(FileNo::INLINE, |last| last.number);
        self.log.drop_before(FileNo(end.0 + 1))?;
        Ok(true)
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
            let base = entry.seen.as_ref().unwrap_or(&entry.base).clone();
            let (key, number) = (key.clone(), Some(entry.number));
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
        if entry.seen.is_some() {
            let met = Record::Conflict {
                key: key.clone(),
                number,
                base: entry.base.clone(),
                aside: None,
            };
            records.push((met, Vec::new()));
        }
        if entry.begun {
            records.push((
                Record::Begun {
                    key: key.clone(),
                    number,
                },
                Vec::new(),
            ));
        }
        if let Some(begun) = entry.begun_upload() {
            records.push((begun.record(key.clone()), Vec::new()));
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

/// The first of `segments` that `entry` needs: where its record lies, or bytes it names.
fn home(entry: &Pending, segments: &[Closed]) -> Option<usize> {
    let by_position = segments.partition_point(|segment| segment.end <= entry.position);
    let named = entry.files();
    let named = named.iter().filter_map(|file| {
        segments
            .binary_search_by_key(file, |segment| segment.number)
            .ok()
    });
    let first = named
        .min()
        .map_or(by_position, |named| named.min(by_position));
    (first < segments.len()).then_some(first)
}

/// For each of `segments`, what is to be said anew if it goes; `None`: it has to stay.
fn live(state: &State, segments: &[Closed]) -> Vec<Option<u64>> {
    let mut live = vec![Some(0); segments.len()];
    for (_, entry) in state.pending.in_order() {
        if let Some(bytes) = home(entry, segments).and_then(|home| live[home].as_mut()) {
            *bytes += live_bytes(entry);
        }
    }
    for (segment, live) in segments.iter().zip(&mut live) {
        if state.pins.contains_key(&segment.number) {
            *live = None;
        }
    }
    live
}

/// How many of the oldest segments go: as many as make enough room for what has to be said anew.
/// `worth`: less is not worth it. `most`: the room is short, and no more than this may be taken before.
fn how_many(
    segments: &[Closed],
    live: &[Option<u64>],
    worth: u64,
    most: Option<u64>,
) -> Option<usize> {
    let (mut len, mut kept, mut best) = (0, 0u64, None);
    for (at, (segment, live)) in segments.iter().zip(live).enumerate() {
        let Some(live) = live else {
            break;
        };
        len += segment.len;
        kept += live;
        let is_worth = match most {
            Some(most) => kept <= most.min(len / 4 * 3),
            None => len >= worth && kept <= len / 2,
        };
        if is_worth {
            best = Some(at + 1);
        }
    }
    best
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Seq;

    fn of(lens: &[u64]) -> Vec<Closed> {
        let segment = |(number, len): (u64, &u64)| Closed {
            number: FileNo(number),
            end: Seq(number * 10),
            len: *len,
        };
        (1..).zip(lens).map(segment).collect()
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn as_many_of_the_oldest_go_as_make_twice_the_room_that_is_written() {
        let segments = of(&[4 * MIB, 4 * MIB, 4 * MIB]);
        let live = |all: [u64; 3]| all.map(|mib| Some(mib * MIB)).to_vec();
        assert_eq!(
            how_many(&segments, &live([0, 0, 0]), COMPACT_AT, None),
            Some(3)
        );
        assert_eq!(
            how_many(&segments, &live([1, 4, 4]), COMPACT_AT, None),
            Some(1)
        );
        assert_eq!(
            how_many(&segments, &live([3, 1, 4]), COMPACT_AT, None),
            Some(2)
        );
        assert_eq!(
            how_many(&segments, &live([3, 3, 3]), COMPACT_AT, None),
            None
        );
        assert_eq!(
            how_many(&of(&[MIB]), &[Some(0)], COMPACT_AT, None),
            None,
            "too little"
        );
    }

    #[test]
    fn what_is_pinned_stays_and_all_behind_it() {
        let segments = of(&[4 * MIB, 4 * MIB]);
        assert_eq!(
            how_many(&segments, &[None, Some(0)], COMPACT_AT, None),
            None
        );
        assert_eq!(
            how_many(&segments, &[Some(0), None], COMPACT_AT, None),
            Some(1)
        );
    }

    #[test]
    fn where_the_room_is_short_little_is_written_and_little_is_enough() {
        let segments = of(&[1000, 1000, 1000]);
        let live = [Some(0), Some(600), Some(900)];
        assert_eq!(how_many(&segments, &live, COMPACT_AT, Some(700)), Some(2));
        assert_eq!(how_many(&segments, &live, COMPACT_AT, Some(500)), Some(1));
        assert_eq!(
            how_many(&segments, &[Some(900); 3], COMPACT_AT, Some(5000)),
            None
        );
    }
}

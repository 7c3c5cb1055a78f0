//! What a crash left: names that were created and never sealed, bytes of data files that no
//! generation names. Nothing of it is published; the bytes are set aside under the name they were
//! written for.
//!
//! Invariant: done again, it finds and tells the same, as long as nobody took anything away.

use std::sync::Arc;
use std::time::Instant;

use crate::log::{Log, LogError};
use crate::seeded::{self, Bug};
use crate::types::{Base, Extents, FileNo, Generation, RelKey, Want};

use super::fold::State;
use super::pending::Pending;

/// What was neither closed nor fsynced before a crash.
#[derive(Debug, Default)]
pub(super) struct Unclosed {
    /// Names whose bytes are set aside.
    pub(super) partials: Vec<String>,
    /// Names that had been made, and nothing of them had reached the device.
    pub(super) lost: Vec<String>,
}

/// A data file after a crash.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) file: FileNo,
    /// What it was written for; empty: nobody knows.
    pub(super) name: String,
    /// A generation names bytes of it.
    pub(super) is_named: bool,
    /// It holds bytes that were neither closed nor fsynced.
    pub(super) is_unsealed: bool,
}

/// What the data files, with their lengths, are to the records.
pub(super) fn left(state: &State, files: Vec<(FileNo, u64)>) -> Vec<Left> {
    let what = files.into_iter().map(|(file, len)| {
        let whose = state.written_for.get(&file);
        let name = whose.map_or(String::new(), |whose| whose.key.to_string());
        Left {
            file,
            name,
            is_named: state.pending.names(file),
            is_unsealed: len > whose.map_or(0, |whose| whose.sealed),
        }
    });
    what.collect()
}

/// After a crash: names that were created and never sealed are not there; their bytes are set aside.
/// Data files that no record names are such bytes too, or are empty.
pub(super) fn close_open_entries(
    state: &mut State,
    log: &Arc<Log>,
    now: Instant,
) -> Result<Unclosed, LogError> {
    let failed = |error: std::io::Error| LogError::Disk(error.raw_os_error().unwrap_or(libc::EIO));
    let spool = log.spool();
    let mut found = Unclosed {
        lost: drop_open(state, now),
        ..Unclosed::default()
    };
    let made: Vec<RelKey> = state
        .pending
        .in_order()
        .filter(|(key, entry)| {
            // A directory of others' that got attributes here has no marker before either: what its
            // object carries beside them is not known then.
            let is_new = |made: &Arc<Generation>| made.attrs.headers.is_some();
            key.is_dir() && entry.base == Base::Absent && entry.generation().is_some_and(is_new)
        })
        .map(|(key, _)| key.clone())
        .collect();
    for key in made {
        // The bucket had nothing there when it was made: what is pending below and what was sent
        // from there (its own marker may follow later) is all there is.
        state.remote.complete_dir(&key.path(), now);
    }
    let mut files = Vec::new();
    for file in spool.files() {
        files.push((file, spool.len(file).map_err(failed)?));
    }
    for Left {
        file,
        name,
        is_named,
        is_unsealed,
    } in left(state, files)
    {
        if is_unsealed {
            if is_named {
                spool.also_aside(file, &name).map_err(failed)?;
            } else {
                spool.set_aside(file, &name).map_err(failed)?;
            }
            found.partials.push(if name.is_empty() {
                format!("data file {}", file.0)
            } else {
                name
            });
        } else if !is_named {
            spool.remove(file).map_err(failed)?;
        }
        if !is_named {
            state.forget_sent(file);
        }
    }
    let Unclosed { partials, lost } = &mut found;
    lost.retain(|name| !partials.contains(name));
    Ok(found)
}

/// Names that were created and never sealed go, and are told.
fn drop_open(state: &mut State, now: Instant) -> Vec<String> {
    let mut lost = Vec::new();
    let open: Vec<(RelKey, Pending)> = state
        .pending
        .in_order()
        .filter(|(_, entry)| matches!(entry.want, Want::Open { .. }))
        .map(|(key, entry)| (key.clone(), entry.clone()))
        .collect();
    for (key, entry) in open {
        state.pending.take(&key);
        if let Want::Open { attrs, .. } = &entry.want
            && seeded::is(Bug::DraftPublished)
        {
            let (extents, len) = (Extents::default(), 0);
            let attrs = (**attrs).clone();
            let want = Want::Object(Arc::new(Generation {
                extents,
                len,
                attrs,
            }));
            state.pending.put(key, Pending { want, ..entry });
            continue;
        }
        lost.push(key.to_string());
        if entry.over_gone {
            let gone = Pending {
                want: Want::Gone,
                since: now,
                over_gone: false,
                ..entry
            };
            state.pending.put(key, gone);
        }
    }
    lost
}

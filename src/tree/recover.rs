//! What a crash left: names that were created and never sealed, data files that nothing names.

use std::sync::Arc;
use std::time::Instant;

use crate::log::{Log, LogError};
use crate::types::{Base, RelKey, Want};

use super::fold::State;
use super::pending::Pending;

/// After a crash: names that were created and never sealed are not there; their bytes are set aside.
/// Data files that no record names are such bytes too, or are empty.
pub(super) fn close_open_entries(
    state: &mut State,
    log: &Arc<Log>,
    now: Instant,
) -> Result<Vec<String>, LogError> {
    let failed = |error: std::io::Error| LogError::Disk(error.raw_os_error().unwrap_or(libc::EIO));
    let spool = log.spool();
    let mut partials = Vec::new();
    let open: Vec<(RelKey, Pending)> = state
        .pending
        .in_order()
        .filter(|(_, entry)| matches!(entry.want, Want::Open { .. }))
        .map(|(key, entry)| (key.clone(), entry.clone()))
        .collect();
    for (key, entry) in open {
        if let Want::Open {
            file: Some(file), ..
        } = entry.want
            && spool.files().contains(&file)
        {
            spool.set_aside(file, key.as_str()).map_err(failed)?;
            partials.push(key.to_string());
        }
        state.pending.take(&key);
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
    let made: Vec<RelKey> = state
        .pending
        .in_order()
        .filter(|(key, entry)| {
            key.is_dir() && entry.base == Base::Absent && entry.generation().is_some()
        })
        .map(|(key, _)| key.clone())
        .collect();
    for key in made {
        // The bucket had nothing there when it was made: what is pending below is all there is.
        state.remote.empty_dir(&key.path(), now);
    }
    for file in spool.files() {
        if state.pending.names(file) {
            continue;
        }
        if state.ever_named.contains(&file) {
            spool.remove(file).map_err(failed)?;
            state.forget_sent(file);
        } else {
            spool.set_aside(file, "").map_err(failed)?;
            partials.push(format!("data file {}", file.0));
        }
    }
    Ok(partials)
}

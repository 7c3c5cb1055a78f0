//! Directories of more names than memory is spent on.
//!
//! A name costs about 280 bytes here (its text and ETag, two facts, a moment, its share of the tree's
//! nodes, of which a listing fills little more than half). So of a directory of more than `NAMES_MAX` names those learnt longest ago are forgotten
//! while it is listed: it is never known as a whole, and its names are asked for one by one.
//!
//! Invariants:
//! - what is forgotten is unknown, not absent;
//! - what was learnt last, and what was sent from here since the listing began, stays.

use std::time::Instant;

use super::remote::Remote;
use crate::types::RelPath;

/// So many names of one directory are known at most. (Few in this crate's own tests.)
pub const NAMES_MAX: usize = if cfg!(test) { 3_000 } else { 50_000 };

impl Remote {
    /// Forgets the older half of the names of a directory that has too many. `started`: when the
    /// listing began that is under way.
    pub(super) fn trim(&mut self, path: &RelPath, started: Instant, at: Instant) {
        let Some(dir) = self.dirs.get_mut(path) else {
            return;
        };
        if dir.names.len() <= NAMES_MAX {
            return;
        }
        let mut moments: Vec<Instant> = dir.names.values().map(|slot| slot.checked).collect();
        let (_, middle, _) = moments.select_nth_unstable(NAMES_MAX / 2);
        let middle = *middle;
        dir.names.retain(|_, slot| {
            let is_ours = slot.file.present().is_some_and(|known| known.by.is_some());
            slot.checked > middle || (is_ours && slot.checked >= started)
        });
        (dir.listed, dir.trimmed) = (None, Some(at));
        dir.forget_told();
        self.untold.insert(path.clone());
    }
}

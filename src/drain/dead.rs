//! What S3 refused for good, and what is not sent without it.
//!
//! Invariants:
//! - with `ordered`, a file that was closed after a refused one of its directory, and is named after
//!   it (`x.done`, `x.csv.md5`, `x.json` of `x.csv`), does not appear before it: who waits for the one
//!   takes the other to be there. Nothing else waits;
//! - nobody waits for what is in here: it may stay for ever.

use std::collections::HashMap;

use super::waits::dir_of;
use crate::tree::{Pending, PendingMap};
use crate::types::{RelKey, Seq, Want};

/// The changes that were refused, by directory: number and name.
#[derive(Default)]
pub(super) struct Dead<'a> {
    refused: HashMap<&'a str, Vec<(Seq, &'a str)>>,
}

impl<'a> Dead<'a> {
    /// `ordered`: publishes of one directory keep their order.
    pub(super) fn of(pending: &'a PendingMap, ordered: bool) -> Self {
        let mut dead = Self::default();
        if !ordered || !pending.has_dead() {
            return dead;
        }
        for (key, entry) in pending.in_order() {
            if entry.dead.is_some() && entry.generation().is_some() {
                let names = dead.refused.entry(dir_of(key)).or_default();
                names.push((entry.number, name_of(key)));
            }
        }
        dead
    }

    /// Whether a change was refused, or goes with one that was.
    pub(super) fn has(&self, key: &RelKey, entry: &Pending) -> bool {
        entry.dead.is_some() || self.is_behind(key, entry)
    }

    fn is_behind(&self, key: &RelKey, entry: &Pending) -> bool {
        let Some(refused) = self.refused.get(dir_of(key)) else {
            return false;
        };
        let name = name_of(key);
        matches!(entry.want, Want::Object(_))
            && refused
                .iter()
                .any(|(number, other)| *number < entry.number && goes_with(name, other))
    }
}

fn name_of(key: &RelKey) -> &str {
    let path = key.as_str().trim_end_matches('/');
    &path[path.rfind('/').map_or(0, |at| at + 1)..]
}

/// Whether the file `name` is named after the file `other`.
fn goes_with(name: &str, other: &str) -> bool {
    let stem = |name: &'_ str| name.rfind('.').filter(|at| *at > 0).unwrap_or(name.len());
    let is_after = |whole: &str| {
        name.strip_prefix(whole)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    // Of two with endings of their own the stem is the same; what follows it may be one ending only.
    is_after(other) || name[..stem(name)] == other[..stem(other)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_goes_with_the_one_it_was_made_from() {
        for (name, other) in [
            ("x.done", "x"),
            ("x.csv.done", "x.csv"),
            ("x.done", "x.csv"),
            ("x.tar.gz.md5", "x.tar.gz"),
            ("2026.11.29.done", "2026.11.29.csv"),
            (".x.done", ".x"),
        ] {
            assert!(goes_with(name, other), "{name} {other}");
        }
        for (name, other) in [
            ("y.done", "x"),
            ("xy.done", "x"),
            ("x1.csv", "x.csv"),
            ("2026.11.30.csv", "2026.11.29.csv"),
            (".y", ".x"),
            ("x", "x.done.old"),
        ] {
            assert!(!goes_with(name, other), "{name} {other}");
        }
    }
}

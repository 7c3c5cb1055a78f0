//! `attrs=exact`: modes, owners, times and link targets of objects written elsewhere are asked for
//! before they are shown, as a listing does not carry them.
//!
//! Invariants:
//! - one HEAD (about 2.4 KB) for each version whose attributes are not remembered, and for each
//!   directory of which it is not known whether it has a marker; never again while that is known;
//! - a bucket that is silent, or refuses, costs the attributes and nothing else: the defaults are
//!   shown, as with `attrs=lazy`.

use futures_util::StreamExt as _;
use futures_util::stream;

use crate::types::{RelKey, RelPath};

use super::Fs;
use super::learn::Learnt;

/// So many names of a directory are asked about ahead of being shown.
pub(super) const ATTRS_AHEAD: usize = 64;
/// Questions under way for one listing.
const ATTRS_AT_ONCE: usize = 16;

impl Fs {
    /// Asks for what is not known of the attributes at `path`; whether there is an answer.
    pub(super) async fn know_attrs(&self, path: &RelPath) -> bool {
        match self.tree.view(|view| view.without_attrs(path)) {
            Some(key) => self.learner.head(&key).await == Learnt::Yes,
            None => false,
        }
    }

    /// The same for several names at once.
    pub(super) async fn know_all_attrs(&self, paths: Vec<RelPath>) {
        let keys: Vec<RelKey> = paths
            .iter()
            .filter_map(|path| self.tree.view(|view| view.without_attrs(path)))
            .collect();
        let asked = stream::iter(keys)
            .map(|key| async move { self.learner.head(&key).await })
            .buffer_unordered(ATTRS_AT_ONCE);
        // After a silence nobody waits for the others.
        asked.for_each(|_| std::future::ready(())).await;
    }
}

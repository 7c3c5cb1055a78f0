//! What is visible: fold(remote snapshot, pending log). One lock; memory order is log order.

mod pending;

use std::time::Instant;

use crate::log::{LogError, Record};
use crate::types::{ObjectId, RelKey, Seq};

pub use pending::{Pending, PendingMap};

/// The tree.
#[derive(Debug)]
pub struct Tree;

impl Tree {
    /// Looks at what is pending, under the lock: no I/O and no waiting inside.
    pub fn pending<T>(&self, _look: impl FnOnce(&PendingMap) -> T) -> T {
        todo!()
    }

    /// Appends one of the drain's records and applies it. `Sent`, `Removed` and so on of a change
    /// that was superseded meanwhile only teach the base. Not flushed.
    ///
    /// # Errors
    /// Of the log.
    pub fn record(&self, _record: Record) -> Result<Seq, LogError> {
        todo!()
    }

    /// Awakes when something became pending, or ready earlier than it was.
    pub fn changed(&self) -> tokio::sync::watch::Receiver<u64> {
        todo!()
    }

    /// Attributes remembered of a version (own and learnt), for filling what a generation inherits.
    pub fn remembered(&self, _object: &ObjectId) -> Option<crate::types::Attrs> {
        todo!()
    }

    /// The version believed to be at a key.
    pub fn known(&self, _key: &RelKey) -> Option<crate::types::ObjectMeta> {
        todo!()
    }

    /// What HEAD told of a key (`None`: absent) as of `asked`.
    pub fn learn(&self, _key: &RelKey, _meta: Option<&crate::types::ObjectMeta>, _asked: Seq) {
        todo!()
    }

    /// The position a question to the bucket is asked at: own results after it win over the answer.
    pub fn now(&self) -> Seq {
        todo!()
    }

    /// Data files that neither a pending generation nor a draft names any more, all flushed: the
    /// caller removes them.
    pub fn unreferenced(&self) -> Vec<crate::types::FileNo> {
        todo!()
    }

    /// Keeps the log small: starts a new segment when little of the old ones is needed. Blocking.
    ///
    /// # Errors
    /// Of the log.
    pub fn compact(&self) -> Result<(), LogError> {
        todo!()
    }

    /// Whether the visible directory at `path` would vanish from the bucket once its last pending
    /// removals are sent, as it has no marker (so that the drain asks and makes one).
    pub fn is_bare_dir(&self, _path: &crate::types::RelPath) -> bool {
        todo!()
    }

    /// Monotonic time, for `Pending::since`.
    pub fn clock(&self) -> Instant {
        todo!()
    }
}

//! Remembers the bucket's region beside the binding of the spool, so that a start without a link knows
//! it and no start asks for it again.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;

use crate::disk::blocking;
use crate::log::Log;
use crate::store::region::RegionMemory;

/// The spool's memory, once the spool is open. Nothing is sent before.
#[derive(Debug, Default)]
pub(super) struct Region(OnceLock<Arc<Log>>);

impl Region {
    /// The spool is open.
    pub(super) fn opened(&self, log: &Arc<Log>) {
        // There is one spool in the life of a mount.
        let _ = self.0.set(Arc::clone(log));
    }
}

#[async_trait]
impl RegionMemory for Region {
    fn region(&self) -> Option<Arc<str>> {
        self.0.get()?.region()
    }

    async fn learnt(&self, region: &str) {
        let Some(log) = self.0.get().map(Arc::clone) else {
            return;
        };
        let region = region.to_owned();
        if let Err(error) = blocking(move || log.learn_region(&region)).await {
            tracing::warn!(
                "the bucket's region is not noted, so the next start asks for it: {error}"
            );
        }
    }
}

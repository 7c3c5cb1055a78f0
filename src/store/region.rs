//! Where the bucket's region is kept, if nobody said it and the bucket had to be asked.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

/// Remembers a bucket's region beyond the end of this process.
#[async_trait]
pub trait RegionMemory: Send + Sync + fmt::Debug {
    /// What was remembered.
    fn region(&self) -> Option<Arc<str>>;
    /// Remember it.
    async fn learnt(&self, region: &str);
}

/// Remembers it as long as it lives.
#[derive(Debug, Default)]
pub struct Forgetful(Mutex<Option<Arc<str>>>);

#[async_trait]
impl RegionMemory for Forgetful {
    fn region(&self) -> Option<Arc<str>> {
        self.0.lock().clone()
    }

    async fn learnt(&self, region: &str) {
        *self.0.lock() = Some(region.into());
    }
}

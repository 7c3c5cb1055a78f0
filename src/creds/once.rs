//! One lease, asked for once, whatever comes of it: for whoever looks at the issuer itself, and not at
//! what the device may still have from it.
//!
//! Invariant: the source is asked at most once, and nothing is shared or kept.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OnceCell;

use super::{CredsError, Lease, Leases, Source};

type Outcome = Result<Arc<Lease>, CredsError>;

/// Gives out what the source said the first time.
pub struct Once {
    source: Arc<dyn Source>,
    said: OnceCell<Outcome>,
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Once of {:?}", self.source)
    }
}

impl Once {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(source: Arc<dyn Source>) -> Self {
        Self {
            source,
            said: OnceCell::new(),
        }
    }
}

#[async_trait]
impl Leases for Once {
    async fn lease(&self) -> Outcome {
        let asked = || async { self.source.obtain().await.map(Arc::new) };
        self.said.get_or_init(asked).await.clone()
    }

    fn refused(&self, _access_key_id: &str) {}
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct No(AtomicU32);

    #[async_trait]
    impl Source for No {
        async fn obtain(&self) -> Result<Lease, CredsError> {
            let asked = self.0.fetch_add(1, Ordering::Relaxed);
            Err(CredsError::Refused(format!("no {asked}")))
        }
    }

    #[tokio::test]
    async fn a_refusal_is_asked_for_once_and_told_to_all() {
        let once = Once::new(Arc::new(No::default()));
        for _ in 0..2 {
            let said = once.lease().await.unwrap_err();
            assert_eq!(said, CredsError::Refused("no 0".into()));
        }
    }
}

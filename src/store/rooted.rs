//! A folder of the bucket that is known only once there are credentials: the identity's own
//! (`prefix=identity`).
//!
//! Invariants:
//! - no request leaves before the root is known, and none without it: there is no LIST of more;
//! - the root is asked for by each call, so that none is carried out in the folder of a SIM that is
//!   not there any more.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

use super::prefix::Prefix;
use super::{
    CopyRequest, Download, ListPage, ListRequest, ObjectStore, PartDone, Payload, Result,
    StoreError, UploadId,
};
use crate::types::{ETag, Headers, ObjectId, ObjectKey, ObjectMeta, Precondition};

/// Who knows the root.
#[async_trait]
pub trait Root: Send + Sync + std::fmt::Debug {
    /// The name of the folder, without slashes at its ends.
    ///
    /// # Errors
    /// `NoCredentials`: it is not known.
    async fn root(&self) -> Result<String>;
}

/// A store of which only the root is seen.
#[derive(Debug)]
pub struct Rooted {
    inner: Arc<dyn ObjectStore>,
    root: Arc<dyn Root>,
}

impl Rooted {
    /// Only what is below the root that `root` knows.
    pub fn over(inner: Arc<dyn ObjectStore>, root: Arc<dyn Root>) -> Arc<Self> {
        Arc::new(Self { inner, root })
    }

    async fn below(&self) -> Result<Arc<Prefix>> {
        let root = self.root.root().await?;
        // An empty one would be the whole bucket.
        if root.trim_matches('/').is_empty() {
            return Err(StoreError::NoCredentials(
                "an identity without a name".into(),
            ));
        }
        Ok(Prefix::over(Arc::clone(&self.inner), &root))
    }
}

#[async_trait]
impl ObjectStore for Rooted {
    async fn get(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
        if_match: Option<&ETag>,
    ) -> Result<Download> {
        self.below().await?.get(key, range, if_match).await
    }

    async fn head(&self, key: &ObjectKey, unless: Option<&ETag>) -> Result<ObjectMeta> {
        self.below().await?.head(key, unless).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.below().await?.list(request).await
    }

    async fn put(
        &self,
        key: &ObjectKey,
        payload: &Payload,
        headers: &Headers,
        when: &Precondition,
    ) -> Result<ObjectMeta> {
        self.below().await?.put(key, payload, headers, when).await
    }

    async fn create_multipart(&self, key: &ObjectKey, headers: &Headers) -> Result<UploadId> {
        self.below().await?.create_multipart(key, headers).await
    }

    async fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u16,
        payload: &Payload,
    ) -> Result<PartDone> {
        let below = self.below().await?;
        below.upload_part(key, upload, number, payload).await
    }

    async fn copy_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u16,
        source: &ObjectId,
        range: Option<Range<u64>>,
    ) -> Result<PartDone> {
        let below = self.below().await?;
        below.copy_part(key, upload, number, source, range).await
    }

    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartDone],
        when: &Precondition,
    ) -> Result<ObjectMeta> {
        let below = self.below().await?;
        below.complete(key, upload, parts, when).await
    }

    async fn abort(&self, key: &ObjectKey, upload: &UploadId) -> Result<()> {
        self.below().await?.abort(key, upload).await
    }

    async fn list_parts(&self, key: &ObjectKey, upload: &UploadId) -> Result<Vec<PartDone>> {
        self.below().await?.list_parts(key, upload).await
    }

    async fn copy(&self, request: &CopyRequest) -> Result<ObjectMeta> {
        self.below().await?.copy(request).await
    }

    async fn delete(&self, key: &ObjectKey, if_match: Option<&ETag>) -> Result<()> {
        self.below().await?.delete(key, if_match).await
    }

    async fn delete_batch(
        &self,
        keys: &[(ObjectKey, Option<ETag>)],
    ) -> Result<Vec<(ObjectKey, StoreError)>> {
        self.below().await?.delete_batch(keys).await
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use parking_lot::Mutex;

    use super::super::twin::Twin;
    use super::*;

    #[derive(Debug, Default)]
    struct Known(Mutex<Option<String>>);

    #[async_trait]
    impl Root for Known {
        async fn root(&self) -> Result<String> {
            let root = self.0.lock().clone();
            root.ok_or_else(|| StoreError::NoCredentials("no link".into()))
        }
    }

    async fn put(store: &Rooted, key: &str) -> Result<ObjectMeta> {
        let payload = Payload::of(Bytes::from_static(b"x"));
        let (key, headers) = (ObjectKey::new(key), Headers::default());
        store
            .put(&key, &payload, &headers, &Precondition::None)
            .await
    }

    async fn listed(store: &Rooted) -> Result<Vec<String>> {
        let request = ListRequest {
            max_keys: 1000,
            ..ListRequest::default()
        };
        let page = store.list(&request).await?;
        Ok(page.objects.into_iter().map(|object| object.key).collect())
    }

    #[tokio::test]
    async fn nothing_is_asked_before_the_root_is_known_and_nothing_outside_of_it_after() {
        let (twin, known) = (Twin::new(), Arc::new(Known::default()));
        let above = Prefix::over(Arc::new(twin.clone()), "app");
        let store = Rooted::over(above, Arc::clone(&known) as Arc<dyn Root>);
        let none = StoreError::NoCredentials("no link".into());
        assert_eq!(listed(&store).await, Err(none.clone()));
        assert_eq!(put(&store, "a").await.unwrap_err(), none);
        for empty in ["", "/"] {
            *known.0.lock() = Some(empty.into());
            assert!(matches!(
                put(&store, "a").await,
                Err(StoreError::NoCredentials(_))
            ));
        }
        *known.0.lock() = Some("r:1".into());
        put(&store, "a").await.unwrap();
        assert_eq!(listed(&store).await.unwrap(), ["a"]);
        *known.0.lock() = Some("r:2".into());
        assert_eq!(listed(&store).await.unwrap(), [""; 0]);
        put(&store, "b").await.unwrap();
        assert_eq!(twin.keys(), ["app/r:1/a", "app/r:2/b"]);
    }
}

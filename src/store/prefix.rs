//! The mount's prefix: relative keys above, full keys below.
//!
//! Invariant: no request below this names a key outside of the prefix, and no answer above it does:
//! what a server lists besides is hidden and counted.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

use super::{
    CopyRequest, Download, ListPage, ListRequest, ObjectStore, PartDone, Payload, Result,
    StoreError, UploadId,
};
use crate::types::{ETag, Headers, ObjectId, ObjectKey, ObjectMeta, Precondition};

/// A store of which only one prefix is seen.
#[derive(Debug)]
pub struct Prefix {
    inner: Arc<dyn ObjectStore>,
    /// Empty, or ends with `/`.
    prefix: String,
}

impl Prefix {
    /// Only what is below `prefix` in `inner`. A `/` is put to its end, and taken off its beginning.
    pub fn over(inner: Arc<dyn ObjectStore>, prefix: &str) -> Arc<Self> {
        let trimmed = prefix.trim_matches('/');
        let prefix = if trimmed.is_empty() {
            String::new()
        } else {
            format!("{trimmed}/")
        };
        Arc::new(Self { inner, prefix })
    }

    fn full(&self, key: &ObjectKey) -> ObjectKey {
        ObjectKey::new(&format!("{}{key}", self.prefix))
    }

    fn full_id(&self, id: &ObjectId) -> ObjectId {
        ObjectId {
            key: self.full(&id.key),
            etag: id.etag.clone(),
        }
    }

    /// An answer's metadata, named as it was asked for.
    fn named(mut meta: ObjectMeta, key: &ObjectKey) -> ObjectMeta {
        meta.id.key = key.clone();
        meta
    }

    fn relative(&self, key: &str) -> Option<String> {
        key.strip_prefix(&self.prefix).map(str::to_owned)
    }

    /// Takes the prefix off. The mount's own marker (the key that is the prefix) is nobody's name;
    /// a key outside of the prefix is a server's error: hidden and counted.
    fn relative_page(&self, page: ListPage) -> ListPage {
        let mut unreadable = page.unreadable;
        let mut inside = |key: &str| {
            let relative = self.relative(key);
            unreadable += u64::from(relative.is_none());
            relative.filter(|rest| !rest.is_empty())
        };
        let prefixes = page.prefixes.iter().filter_map(|at| inside(at)).collect();
        let objects = page.objects.into_iter().filter_map(|mut object| {
            object.key = inside(&object.key)?;
            Some(object)
        });
        ListPage {
            objects: objects.collect(),
            prefixes,
            next: page.next,
            unreadable,
        }
    }
}

#[async_trait]
impl ObjectStore for Prefix {
    async fn get(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
        if_match: Option<&ETag>,
    ) -> Result<Download> {
        let answer = self.inner.get(&self.full(key), range, if_match).await?;
        Ok(Download {
            meta: Self::named(answer.meta, key),
            ..answer
        })
    }

    async fn head(&self, key: &ObjectKey, unless: Option<&ETag>) -> Result<ObjectMeta> {
        let meta = self.inner.head(&self.full(key), unless).await?;
        Ok(Self::named(meta, key))
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        let under = |key: &String| format!("{}{key}", self.prefix);
        let request = ListRequest {
            prefix: under(&request.prefix),
            start_after: request.start_after.as_ref().map(under),
            ..request.clone()
        };
        Ok(self.relative_page(self.inner.list(&request).await?))
    }

    async fn put(
        &self,
        key: &ObjectKey,
        payload: &Payload,
        headers: &Headers,
        when: &Precondition,
    ) -> Result<ObjectMeta> {
        let full = self.full(key);
        let meta = self.inner.put(&full, payload, headers, when).await?;
        Ok(Self::named(meta, key))
    }

    async fn create_multipart(&self, key: &ObjectKey, headers: &Headers) -> Result<UploadId> {
        self.inner.create_multipart(&self.full(key), headers).await
    }

    async fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u16,
        payload: &Payload,
    ) -> Result<PartDone> {
        let full = self.full(key);
        self.inner.upload_part(&full, upload, number, payload).await
    }

    async fn copy_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u16,
        source: &ObjectId,
        range: Option<Range<u64>>,
    ) -> Result<PartDone> {
        let (full, source) = (self.full(key), self.full_id(source));
        self.inner
            .copy_part(&full, upload, number, &source, range)
            .await
    }

    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartDone],
        when: &Precondition,
    ) -> Result<ObjectMeta> {
        let full = self.full(key);
        let meta = self.inner.complete(&full, upload, parts, when).await?;
        Ok(Self::named(meta, key))
    }

    async fn abort(&self, key: &ObjectKey, upload: &UploadId) -> Result<()> {
        self.inner.abort(&self.full(key), upload).await
    }

    async fn list_parts(&self, key: &ObjectKey, upload: &UploadId) -> Result<Vec<PartDone>> {
        self.inner.list_parts(&self.full(key), upload).await
    }

    async fn copy(&self, request: &CopyRequest) -> Result<ObjectMeta> {
        let full = CopyRequest {
            source: self.full_id(&request.source),
            key: self.full(&request.key),
            headers: request.headers.clone(),
        };
        let meta = self.inner.copy(&full).await?;
        Ok(Self::named(meta, &request.key))
    }

    async fn delete(&self, key: &ObjectKey, if_match: Option<&ETag>) -> Result<()> {
        self.inner.delete(&self.full(key), if_match).await
    }

    async fn delete_batch(
        &self,
        keys: &[(ObjectKey, Option<ETag>)],
    ) -> Result<Vec<(ObjectKey, StoreError)>> {
        let full = keys.iter();
        let full = full.map(|(key, if_match)| (self.full(key), if_match.clone()));
        let refused = self.inner.delete_batch(&full.collect::<Vec<_>>()).await?;
        let relative = |(key, error): (ObjectKey, StoreError)| {
            let key = self.relative(key.as_str())?;
            Some((ObjectKey::new(&key), error))
        };
        Ok(refused.into_iter().filter_map(relative).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Listed;
    use super::super::twin::Twin;
    use super::*;

    fn listed(key: &str) -> Listed {
        Listed {
            key: key.to_owned(),
            etag: ETag::new("e"),
            size: 0,
            modified: 0,
            storage_class: None,
        }
    }

    #[test]
    fn what_a_server_lists_besides_is_hidden_and_counted() {
        let prefix = Prefix::over(Arc::new(Twin::new()), "/photos/2026");
        let page = ListPage {
            objects: vec![
                listed("photos/2026/"),
                listed("photos/2026/a"),
                listed("photos/2026"),
                listed("photos/2026-b"),
            ],
            prefixes: vec!["photos/2026/d/".to_owned(), "photos/".to_owned()],
            next: Some("token".to_owned()),
            unreadable: 1,
        };
        let page = prefix.relative_page(page);
        assert_eq!(page.objects, [listed("a")], "nor the mount's own marker");
        assert_eq!(page.prefixes, ["d/"]);
        assert_eq!(page.next.as_deref(), Some("token"));
        assert_eq!(page.unreadable, 1 + 3);
    }

    #[tokio::test]
    async fn a_sibling_with_the_same_beginning_is_not_seen() {
        let twin = Twin::new();
        for key in ["a/x", "ab/x", "x"] {
            twin.put_behind(key, key.to_owned(), Headers::default());
        }
        let store = Prefix::over(Arc::new(twin.clone()), "a");
        let request = ListRequest {
            max_keys: 1000,
            ..ListRequest::default()
        };
        let page = store.list(&request).await.unwrap();
        assert_eq!(page.objects.len(), 1);
        let (key, size) = (ObjectKey::new("x"), 3);
        assert_eq!(store.head(&key, None).await.unwrap().size, size);
        assert_eq!(store.head(&key, None).await.unwrap().id.key, key);
        assert_eq!(store.delete_batch(&[(key, None)]).await.unwrap(), []);
        assert_eq!(twin.keys(), ["ab/x", "x"]);
    }

    #[tokio::test]
    async fn no_prefix_is_the_whole_bucket() {
        let twin = Twin::new();
        twin.put_behind("x", "x", Headers::default());
        for prefix in ["", "/"] {
            let store = Prefix::over(Arc::new(twin.clone()), prefix);
            assert!(store.head(&ObjectKey::new("x"), None).await.is_ok());
        }
    }
}

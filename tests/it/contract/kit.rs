//! What the cases work with.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kryptonfs::store::{
    CopyRequest, Download, ListPage, ListRequest, ObjectStore, PartDone, Payload, Result,
    StoreError, UploadId,
};
use kryptonfs::types::{ETag, Headers, ObjectId, ObjectKey, ObjectMeta, Precondition};

use super::Caps;

pub(super) const MIB: usize = 1 << 20;

/// What a case works with.
#[derive(Clone)]
pub(super) struct Kit {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) caps: Caps,
}

pub(super) fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text)
}

pub(super) fn headers(metadata: &[(&str, &str)]) -> Headers {
    let metadata = metadata
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Headers {
        metadata: metadata.collect(),
        ..Headers::default()
    }
}

/// Bytes that differ at every place and by `seed`.
pub(super) fn noise(len: usize, seed: u32) -> Bytes {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let letters = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    });
    letters.take(len).collect()
}

pub(super) async fn read(download: Download) -> Bytes {
    let mut body = download.body;
    let mut bytes = BytesMut::new();
    while let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    bytes.freeze()
}

impl Kit {
    pub(super) async fn put(&self, at: &str, bytes: impl Into<Bytes>) -> ObjectMeta {
        let payload = Payload::of(bytes.into());
        self.put_as(at, payload, headers(&[]), Precondition::None)
            .await
            .unwrap()
    }

    pub(super) async fn put_as(
        &self,
        at: &str,
        payload: Payload,
        headers: Headers,
        when: Precondition,
    ) -> Result<ObjectMeta> {
        self.store.put(&key(at), &payload, &headers, &when).await
    }

    pub(super) async fn put_when(
        &self,
        at: &str,
        bytes: &'static str,
        when: Precondition,
    ) -> Result<ETag> {
        let put = self.put_as(at, Payload::of(bytes.into()), headers(&[]), when);
        put.await.map(|meta| meta.id.etag)
    }

    pub(super) async fn get(
        &self,
        at: &str,
        range: Option<Range<u64>>,
        if_match: Option<&ETag>,
    ) -> Result<Download> {
        self.store.get(&key(at), range, if_match).await
    }

    pub(super) async fn delete(&self, at: &str, if_match: Option<&ETag>) -> Result<()> {
        self.store.delete(&key(at), if_match).await
    }

    pub(super) async fn head_unless(&self, at: &str, unless: Option<&ETag>) -> Result<ObjectMeta> {
        self.store.head(&key(at), unless).await
    }

    pub(super) async fn bytes(&self, at: &str) -> Bytes {
        read(self.store.get(&key(at), None, None).await.unwrap()).await
    }

    pub(super) async fn range(&self, at: &str, range: Range<u64>) -> (Range<u64>, Bytes) {
        let download = self.store.get(&key(at), Some(range), None).await.unwrap();
        (download.range.clone(), read(download).await)
    }

    pub(super) async fn head(&self, at: &str) -> ObjectMeta {
        self.store.head(&key(at), None).await.unwrap()
    }

    pub(super) async fn metadata(&self, at: &str) -> BTreeMap<String, String> {
        self.head(at).await.headers.unwrap().metadata
    }

    pub(super) async fn is_absent(&self, at: &str) -> bool {
        match self.store.head(&key(at), None).await {
            Ok(_) => false,
            Err(StoreError::NotFound) => true,
            Err(error) => panic!("{at}: {error}"),
        }
    }

    pub(super) async fn page(&self, prefix: &str, delimited: bool) -> ListPage {
        let request = ListRequest {
            prefix: prefix.to_owned(),
            delimited,
            max_keys: 1000,
            ..ListRequest::default()
        };
        self.store.list(&request).await.unwrap()
    }

    pub(super) async fn create(&self, at: &str) -> UploadId {
        self.create_as(at, &headers(&[])).await
    }

    pub(super) async fn create_as(&self, at: &str, headers: &Headers) -> UploadId {
        let upload = self.store.create_multipart(&key(at), headers).await;
        upload.unwrap()
    }

    pub(super) async fn part(
        &self,
        at: &str,
        upload: &UploadId,
        number: u16,
        bytes: &Bytes,
    ) -> PartDone {
        let payload = Payload::of(bytes.clone());
        self.part_of(at, upload, number, &payload).await.unwrap()
    }

    pub(super) async fn part_of(
        &self,
        at: &str,
        upload: &UploadId,
        number: u16,
        payload: &Payload,
    ) -> Result<PartDone> {
        let at = key(at);
        self.store.upload_part(&at, upload, number, payload).await
    }

    pub(super) async fn abort(&self, at: &str, upload: &UploadId) {
        self.store.abort(&key(at), upload).await.unwrap()
    }

    pub(super) async fn complete(
        &self,
        at: &str,
        upload: &UploadId,
        parts: impl Into<Vec<PartDone>>,
        when: Precondition,
    ) -> Result<ObjectMeta> {
        let parts = parts.into();
        self.store.complete(&key(at), upload, &parts, &when).await
    }

    pub(super) async fn copy(
        &self,
        source: &ObjectId,
        at: &str,
        headers: Headers,
    ) -> Result<ObjectMeta> {
        let request = CopyRequest {
            source: source.clone(),
            key: key(at),
            headers,
        };
        self.store.copy(&request).await
    }
}

pub(super) fn keys(page: &ListPage) -> Vec<&str> {
    page.objects.iter().map(|object| &*object.key).collect()
}

pub(super) fn other_version(id: &ObjectId) -> ObjectId {
    ObjectId {
        key: id.key.clone(),
        etag: ETag::new("00000000000000000000000000000000"),
    }
}

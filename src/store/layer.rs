//! A store with a layer around each of its calls: what counts, limits or breaks requests needs to
//! know their operation, not their arguments.
//!
//! Invariant: what `before` returned is held until the answer is through; of a GET that is the end
//! of its body (or its drop).

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Body, CopyRequest, Download, ListPage, ListRequest, ObjectStore, Op, PartDone, Payload, Result,
    StoreError, UploadId,
};
use crate::types::{ETag, Headers, ObjectId, ObjectKey, ObjectMeta, Precondition};

/// What is done around a call.
#[async_trait]
pub trait Layer: Send + Sync + fmt::Debug + 'static {
    /// What is held while the call is under way.
    type Held: Send + Sync + 'static;

    /// Before the request is sent, with the bytes it carries up. An error is the answer, and
    /// nothing is sent.
    async fn before(&self, op: Op, up: u64) -> Result<Self::Held>;

    /// The answer is there: `failed` says how it failed. An error here replaces the answer.
    ///
    /// # Errors
    /// What the caller shall see in place of the answer.
    fn after(&self, _held: &Self::Held, _op: Op, _failed: Option<&StoreError>) -> Result<()> {
        Ok(())
    }

    /// The next piece of a GET's body has come; what is returned is handed on.
    fn piece(&self, _held: &mut Self::Held, piece: Option<Result<Bytes>>) -> Option<Result<Bytes>> {
        piece
    }
}

/// A store behind a layer.
pub struct Layered<L> {
    inner: Arc<dyn ObjectStore>,
    layer: Arc<L>,
}

impl<L: Layer> Layered<L> {
    /// `layer` around every call of `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>, layer: Arc<L>) -> Self {
        Self { inner, layer }
    }

    async fn around<T>(
        &self,
        op: Op,
        up: u64,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let held = self.layer.before(op, up).await?;
        let answer = call.await;
        self.layer.after(&held, op, answer.as_ref().err())?;
        answer
    }
}

impl<L: Layer> fmt::Debug for Layered<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {:?}", self.layer, self.inner)
    }
}

struct LayeredBody<L: Layer> {
    layer: Arc<L>,
    held: L::Held,
    body: Box<dyn Body>,
}

#[async_trait]
impl<L: Layer> Body for LayeredBody<L> {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        let piece = self.body.next().await;
        self.layer.piece(&mut self.held, piece)
    }
}

#[async_trait]
impl<L: Layer> ObjectStore for Layered<L> {
    async fn get(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
        if_match: Option<&ETag>,
    ) -> Result<Download> {
        let held = self.layer.before(Op::Get, 0).await?;
        let answer = self.inner.get(key, range, if_match).await;
        self.layer.after(&held, Op::Get, answer.as_ref().err())?;
        let Download { meta, range, body } = answer?;
        let layer = Arc::clone(&self.layer);
        let body = Box::new(LayeredBody { layer, held, body });
        Ok(Download { meta, range, body })
    }

    async fn head(&self, key: &ObjectKey, unless: Option<&ETag>) -> Result<ObjectMeta> {
        let call = self.inner.head(key, unless);
        self.around(Op::Head, 0, call).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.around(Op::List, 0, self.inner.list(request)).await
    }

    async fn put(
        &self,
        key: &ObjectKey,
        payload: &Payload,
        headers: &Headers,
        when: &Precondition,
    ) -> Result<ObjectMeta> {
        let call = self.inner.put(key, payload, headers, when);
        self.around(Op::Put, payload.len, call).await
    }

    async fn create_multipart(&self, key: &ObjectKey, headers: &Headers) -> Result<UploadId> {
        let call = self.inner.create_multipart(key, headers);
        self.around(Op::CreateMultipart, 0, call).await
    }

    async fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u16,
        payload: &Payload,
    ) -> Result<PartDone> {
        let call = self.inner.upload_part(key, upload, number, payload);
        self.around(Op::UploadPart, payload.len, call).await
    }

    async fn copy_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u16,
        source: &ObjectId,
        range: Option<Range<u64>>,
    ) -> Result<PartDone> {
        let call = self.inner.copy_part(key, upload, number, source, range);
        self.around(Op::CopyPart, 0, call).await
    }

    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartDone],
        when: &Precondition,
    ) -> Result<ObjectMeta> {
        let call = self.inner.complete(key, upload, parts, when);
        self.around(Op::Complete, 0, call).await
    }

    async fn abort(&self, key: &ObjectKey, upload: &UploadId) -> Result<()> {
        let call = self.inner.abort(key, upload);
        self.around(Op::Abort, 0, call).await
    }

    async fn list_parts(&self, key: &ObjectKey, upload: &UploadId) -> Result<Vec<PartDone>> {
        let call = self.inner.list_parts(key, upload);
        self.around(Op::ListParts, 0, call).await
    }

    async fn copy(&self, request: &CopyRequest) -> Result<ObjectMeta> {
        self.around(Op::Copy, 0, self.inner.copy(request)).await
    }

    async fn delete(&self, key: &ObjectKey, if_match: Option<&ETag>) -> Result<()> {
        let call = self.inner.delete(key, if_match);
        self.around(Op::Delete, 0, call).await
    }

    async fn delete_batch(
        &self,
        keys: &[(ObjectKey, Option<ETag>)],
    ) -> Result<Vec<(ObjectKey, StoreError)>> {
        let call = self.inner.delete_batch(keys);
        self.around(Op::DeleteBatch, 0, call).await
    }
}

//! A bucket for the tests of reading: serves ranges of what is in memory, counts, waits at a gate
//! and breaks its bodies on command.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::store::{
    Body, CopyRequest, Download, ListPage, ListRequest, ObjectStore, PartDone, Payload, Result,
    StoreError, UploadId,
};
use crate::types::{ETag, Headers, ObjectId, ObjectKey, ObjectMeta, Precondition};

/// What goes wrong with one GET.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The call fails.
    Refuse(StoreError),
    /// The body fails after so many bytes.
    Break(usize, StoreError),
    /// The body ends after so many bytes, as if all were well.
    Cut(usize),
    /// The body has bytes behind its end.
    TooLong,
    /// Other bytes than were asked for.
    WrongRange,
    /// If-Match is not looked at: the answer is of another version.
    OtherVersion,
    /// After so many bytes nothing comes any more.
    Stall(usize),
    /// The body panics.
    Panic,
}

#[derive(Debug)]
pub(super) struct Fake {
    objects: Mutex<HashMap<ObjectKey, (ETag, Bytes)>>,
    /// Each GET: its range, as asked for.
    pub(super) gets: Mutex<Vec<(ObjectId, Range<u64>)>>,
    /// Bytes of bodies handed over.
    pub(super) sent: Mutex<u64>,
    /// The next GETs.
    pub(super) faults: Mutex<VecDeque<Fault>>,
    /// One permit for each piece of a body.
    pub(super) gate: Arc<Semaphore>,
    pub(super) piece: usize,
}

impl Fake {
    pub(super) fn new(gate: usize) -> Arc<Self> {
        Arc::new(Self {
            objects: Mutex::default(),
            gets: Mutex::default(),
            sent: Mutex::default(),
            faults: Mutex::default(),
            gate: Arc::new(Semaphore::new(gate)),
            piece: 10_000,
        })
    }

    pub(super) fn set(&self, object: &ObjectId, bytes: &[u8]) {
        let value = (object.etag.clone(), Bytes::copy_from_slice(bytes));
        self.objects.lock().insert(object.key.clone(), value);
    }

    pub(super) fn count(&self) -> usize {
        self.gets.lock().len()
    }

    pub(super) fn bytes_sent(&self) -> u64 {
        *self.sent.lock()
    }
}

#[derive(Debug)]
struct FakeBody {
    left: Bytes,
    then: VecDeque<Result<Bytes>>,
    stalls: bool,
    panics: bool,
    gate: Arc<Semaphore>,
    piece: usize,
}

#[async_trait]
impl Body for FakeBody {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        self.gate.acquire().await.unwrap().forget();
        assert!(!self.panics, "on command");
        if !self.left.is_empty() {
            return Some(Ok(self.left.split_to(self.piece.min(self.left.len()))));
        }
        if self.stalls {
            std::future::pending::<()>().await;
        }
        self.then.pop_front()
    }
}

#[async_trait]
impl ObjectStore for Fake {
    async fn get(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
        if_match: Option<&ETag>,
    ) -> Result<Download> {
        let range = range.expect("reads are ranged");
        let asked = if_match.expect("reads carry If-Match").clone();
        let id = ObjectId {
            key: key.clone(),
            etag: asked.clone(),
        };
        self.gets.lock().push((id, range.clone()));
        let fault = self.faults.lock().pop_front();
        if let Some(Fault::Refuse(error)) = fault {
            return Err(error);
        }
        let found = self.objects.lock().get(key).cloned();
        let (mut etag, bytes) = found.ok_or(StoreError::NotFound)?;
        if etag != asked {
            return Err(StoreError::Stale);
        }
        let size = bytes.len() as u64;
        if range.start >= size {
            return Err(StoreError::Invalid("InvalidRange".into()));
        }
        let mut range = range.start..range.end.min(size);
        let at = |n: u64| usize::try_from(n).unwrap();
        let mut left = bytes.slice(at(range.start)..at(range.end));
        let mut then = VecDeque::new();
        match &fault {
            Some(Fault::Break(n, error)) => {
                left.truncate(*n);
                then.push_back(Err(error.clone()));
            }
            Some(Fault::Cut(n) | Fault::Stall(n)) => left.truncate(*n),
            Some(Fault::TooLong) => then.push_back(Ok(Bytes::from_static(b"more"))),
            Some(Fault::WrongRange) => range = range.start + 1..range.end + 1,
            Some(Fault::OtherVersion) => etag = ETag::new("other"),
            Some(Fault::Panic | Fault::Refuse(_)) | None => {}
        }
        *self.sent.lock() += left.len() as u64;
        Ok(Download {
            meta: ObjectMeta {
                id: ObjectId {
                    key: key.clone(),
                    etag,
                },
                size,
                modified: 0,
                headers: None,
            },
            range,
            body: Box::new(FakeBody {
                left,
                then,
                stalls: matches!(fault, Some(Fault::Stall(_))),
                panics: matches!(fault, Some(Fault::Panic)),
                gate: Arc::clone(&self.gate),
                piece: self.piece,
            }),
        })
    }

    async fn head(&self, _: &ObjectKey, _: Option<&ETag>) -> Result<ObjectMeta> {
        unreachable!("reading only gets")
    }
    async fn list(&self, _: &ListRequest) -> Result<ListPage> {
        unreachable!("reading only gets")
    }
    async fn put(
        &self,
        _: &ObjectKey,
        _: &Payload,
        _: &Headers,
        _: &Precondition,
    ) -> Result<ObjectMeta> {
        unreachable!("reading only gets")
    }
    async fn create_multipart(&self, _: &ObjectKey, _: &Headers) -> Result<UploadId> {
        unreachable!("reading only gets")
    }
    async fn upload_part(
        &self,
        _: &ObjectKey,
        _: &UploadId,
        _: u16,
        _: &Payload,
    ) -> Result<PartDone> {
        unreachable!("reading only gets")
    }
    async fn copy_part(
        &self,
        _: &ObjectKey,
        _: &UploadId,
        _: u16,
        _: &ObjectId,
        _: Option<Range<u64>>,
    ) -> Result<PartDone> {
        unreachable!("reading only gets")
    }
    async fn complete(
        &self,
        _: &ObjectKey,
        _: &UploadId,
        _: &[PartDone],
        _: &Precondition,
    ) -> Result<ObjectMeta> {
        unreachable!("reading only gets")
    }
    async fn abort(&self, _: &ObjectKey, _: &UploadId) -> Result<()> {
        unreachable!("reading only gets")
    }
    async fn list_parts(&self, _: &ObjectKey, _: &UploadId) -> Result<Vec<PartDone>> {
        unreachable!("reading only gets")
    }
    async fn copy(&self, _: &CopyRequest) -> Result<ObjectMeta> {
        unreachable!("reading only gets")
    }
    async fn delete(&self, _: &ObjectKey, _: Option<&ETag>) -> Result<()> {
        unreachable!("reading only gets")
    }
    async fn delete_batch(
        &self,
        _: &[(ObjectKey, Option<ETag>)],
    ) -> Result<Vec<(ObjectKey, StoreError)>> {
        unreachable!("reading only gets")
    }
}

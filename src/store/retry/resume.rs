//! A GET's body that survives breaks: the rest is asked for, of the same version.

use std::ops::Range;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::timeout;

use super::super::{Body, Op, Result, StoreError};
use super::progress::stalled;
use super::{Retry, paused};
use crate::types::ObjectId;

/// A body that goes on where it broke.
pub(super) struct Resumed {
    retry: Retry,
    id: ObjectId,
    body: Box<dyn Body>,
    /// The next byte's place in the object.
    at: u64,
    /// Behind the last byte.
    end: u64,
    /// When the last byte came.
    moved: Instant,
    repeat: u32,
}

impl Resumed {
    pub(super) fn new(retry: Retry, id: ObjectId, range: Range<u64>, body: Box<dyn Body>) -> Self {
        Self {
            retry,
            id,
            body,
            at: range.start,
            end: range.end,
            moved: Instant::now(),
            repeat: 0,
        }
    }

    async fn piece(&mut self) -> Result<Option<Bytes>> {
        let piece = timeout(self.retry.config.stall_down, self.body.next()).await;
        match piece.map_err(|_| stalled())? {
            None if self.at < self.end => {
                Err(StoreError::BadAnswer("the body ended early".to_owned()))
            }
            None => Ok(None),
            Some(piece) => piece.map(Some),
        }
    }

    /// Asks for the rest of the same version.
    async fn reopen(&mut self) -> Result<()> {
        let rest = self.at..self.end;
        let etag = Some(&self.id.etag);
        let again = self.retry.once(&self.id.key, Some(rest.clone()), etag);
        let again = again.await?;
        if again.meta.id.etag != self.id.etag {
            return Err(StoreError::Stale);
        }
        if again.range != rest {
            return Err(StoreError::BadAnswer("another range came".to_owned()));
        }
        self.body = again.body;
        Ok(())
    }

    /// Goes on behind `error`, or returns the error that ends it.
    async fn recover(&mut self, mut error: StoreError) -> Result<()> {
        loop {
            let config = self.retry.config;
            if !error.is_transient()
                || self.at >= self.end
                || !paused(
                    &config,
                    Op::Get,
                    &error,
                    self.repeat,
                    self.moved + config.data,
                )
                .await
            {
                return Err(error);
            }
            self.repeat += 1;
            match self.reopen().await {
                Ok(()) => return Ok(()),
                Err(next) => error = next,
            }
        }
    }
}

#[async_trait]
impl Body for Resumed {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        loop {
            match self.piece().await {
                Ok(None) => return None,
                Ok(Some(bytes)) => {
                    self.at = self.at.saturating_add(bytes.len() as u64);
                    self.moved = Instant::now();
                    self.repeat = 0;
                    return Some(Ok(bytes));
                }
                Err(error) => {
                    if let Err(error) = self.recover(error).await {
                        return Some(Err(error));
                    }
                }
            }
        }
    }
}

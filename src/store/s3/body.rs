//! Bodies: a payload as frames on the way up, an answer's bytes on the way down.
//!
//! Invariants: a frame is read when the socket took the one before it, on the blocking pool, so an
//! upload holds one frame here and one in the connection; `Content-Length` is exact (no chunks); a
//! downloaded body is as long as its range, or an error.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use async_trait::async_trait;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use super::super::{Body, Payload, Result, StoreError};
use super::error::cause;

/// Bytes of a frame. Two of them are an upload's memory.
const FRAME: u64 = 256 << 10;

/// Why the local disk did not give the payload, if it did not.
#[derive(Clone, Debug, Default)]
pub(super) struct DiskFault(Arc<OnceLock<i32>>);

impl DiskFault {
    /// The disk's error if there was one, else `other`: it hides behind a broken connection.
    pub(super) fn or(&self, other: StoreError) -> StoreError {
        self.0.get().map_or(other, |errno| StoreError::Disk(*errno))
    }
}

/// The body of a PUT. The fault is filled when the source fails.
pub(super) fn framed(payload: &Payload) -> (ByteStream, DiskFault) {
    let (payload, fault) = (payload.clone(), DiskFault::default());
    let slot = fault.clone();
    let body = move || {
        SdkBody::from_body_1_x(Framed {
            payload: payload.clone(),
            fault: slot.clone(),
            at: 0,
            reading: None,
        })
    };
    (ByteStream::new(SdkBody::retryable(body)), fault)
}

struct Framed {
    payload: Payload,
    fault: DiskFault,
    at: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Framed {
    /// Starts to read the next frame.
    fn read(&self) -> JoinHandle<io::Result<Bytes>> {
        let (source, at) = (Arc::clone(&self.payload.source), self.at);
        let len = FRAME.min(self.payload.len - at);
        tokio::task::spawn_blocking(move || {
            let len = usize::try_from(len).map_err(io::Error::other)?;
            let frame = source.read(at, len)?;
            if frame.len() != len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(frame)
        })
    }
}

impl http_body::Body for Framed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.at >= self.payload.len {
            return Poll::Ready(None);
        }
        let this = &mut *self;
        let mut reading = this.reading.take().unwrap_or_else(|| this.read());
        let frame = match Pin::new(&mut reading).poll(context) {
            Poll::Pending => {
                this.reading = Some(reading);
                return Poll::Pending;
            }
            Poll::Ready(read) => read.unwrap_or_else(|died| Err(io::Error::other(died))),
        };
        Poll::Ready(Some(match frame {
            Ok(frame) => {
                this.at += frame.len() as u64;
                Ok(Frame::data(frame))
            }
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                this.fault.0.get_or_init(|| errno);
                Err(error)
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.at >= self.payload.len
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.payload.len - self.at.min(self.payload.len))
    }
}

/// The body of a GET, of which `left` bytes must still come.
pub(super) struct Arriving {
    pub(super) stream: ByteStream,
    pub(super) left: u64,
}

#[async_trait]
impl Body for Arriving {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        match self.stream.next().await {
            Some(Ok(bytes)) => match self.left.checked_sub(bytes.len() as u64) {
                Some(left) => {
                    self.left = left;
                    Some(Ok(bytes))
                }
                None => Some(Err(StoreError::BadAnswer(
                    "the body is too long".to_owned(),
                ))),
            },
            Some(Err(error)) => Some(Err(StoreError::Link(cause(&error)))),
            None if self.left > 0 => Some(Err(StoreError::Link("the body ended early".to_owned()))),
            None => None,
        }
    }
}

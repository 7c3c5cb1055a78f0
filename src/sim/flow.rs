//! Bodies on their way between the wire and the blobs.
//!
//! Invariants:
//! - of a body that comes or goes, a bounded piece is in memory (two, while one is on its way);
//! - files are read and written off the async threads.

use std::collections::VecDeque;
use std::fs::File;
use std::future::Future as _;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use s3s::dto::StreamingBlob;
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{S3Error, S3ErrorCode, S3Result, StdError, s3_error};
use tokio::task::JoinHandle;

use super::blob::{Blob, Blobs, Content, Slice};
use super::checks::{Algorithm, Summer, Sums};

/// What is read or written at once.
const PIECE: usize = 512 << 10;

impl Content {
    /// Counts the checksums. Blocks.
    pub(super) fn sum(&self, asked: Option<Algorithm>) -> io::Result<Sums> {
        let mut summer = Summer::new(asked);
        let mut cursor = Cursor::new(self);
        while let Some(bytes) = cursor.read()? {
            summer.update(&bytes);
        }
        Ok(summer.finish())
    }

    /// All of it. Blocks.
    pub(super) fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut cursor = Cursor::new(self);
        let mut all = Vec::new();
        while let Some(bytes) = cursor.read()? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    /// The same as text; for tests.
    #[cfg(test)]
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.bytes().unwrap()).unwrap()
    }
}

/// Takes a body in: to a file, past the checksums.
pub(super) async fn receive(
    blobs: &Arc<Blobs>,
    body: Option<StreamingBlob>,
    asked: Option<Algorithm>,
) -> S3Result<(Content, Sums)> {
    let mut sink = Sink {
        blobs: Arc::clone(blobs),
        open: None,
        summer: Summer::new(asked),
    };
    let mut busy: Option<JoinHandle<io::Result<Sink>>> = None;
    let Some(mut body) = body else {
        return Ok((Content::default(), sink.summer.finish()));
    };
    let mut idle = Some(sink);
    loop {
        let (pieces, ended) = gather(&mut body).await?;
        if let Some(task) = busy.take() {
            idle = Some(joined(task).await?);
        }
        let Some(free) = idle.take() else {
            return Err(s3_error!(InternalError));
        };
        sink = free;
        if !pieces.is_empty() {
            let task = tokio::task::spawn_blocking(move || sink.take(&pieces));
            if !ended {
                busy = Some(task);
                continue;
            }
            sink = joined(task).await?;
        }
        if ended {
            return Ok(sink.finish());
        }
        idle = Some(sink);
    }
}

/// About a piece of the body, and whether it has ended.
async fn gather(body: &mut StreamingBlob) -> S3Result<(Vec<Bytes>, bool)> {
    let (mut pieces, mut len) = (Vec::new(), 0);
    while len < PIECE {
        match body.next().await {
            None => return Ok((pieces, true)),
            Some(Err(error)) => return Err(broken_body(error)),
            Some(Ok(bytes)) => {
                len += bytes.len();
                pieces.push(bytes);
            }
        }
    }
    Ok((pieces, false))
}

/// What is wrong with a body that could not be read to its end. The decoders of `s3s` keep their
/// error types to themselves, so their text tells.
fn broken_body(error: StdError) -> S3Error {
    let text = error.to_string();
    if text.contains("Sha256Mismatch") {
        let code = S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into());
        let mut refusal = S3Error::with_message(
            code,
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        );
        refusal.set_status_code(http::StatusCode::BAD_REQUEST);
        return refusal;
    }
    if text.contains("SignatureMismatch") {
        return s3_error!(SignatureDoesNotMatch);
    }
    let mut refusal = s3_error!(IncompleteBody, "The body ended early or is malformed.");
    refusal.set_source(error);
    refusal
}

async fn joined<T>(task: JoinHandle<io::Result<T>>) -> S3Result<T> {
    match task.await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(S3Error::internal_error(error)),
        Err(error) => Err(S3Error::internal_error(error)),
    }
}

/// Runs what reads or writes files off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> S3Result<T> {
    joined(tokio::task::spawn_blocking(work)).await
}

struct Sink {
    blobs: Arc<Blobs>,
    open: Option<(Arc<Blob>, File)>,
    summer: Summer,
}

impl Sink {
    fn take(mut self, pieces: &[Bytes]) -> io::Result<Self> {
        let (blob, mut file) = match self.open.take() {
            Some(open) => open,
            None => self.blobs.create()?,
        };
        for piece in pieces {
            self.summer.update(piece);
            file.write_all(piece)?;
        }
        self.open = Some((blob, file));
        Ok(self)
    }

    fn finish(self) -> (Content, Sums) {
        let sums = self.summer.finish();
        let mut content = Content::default();
        if let Some((blob, _)) = self.open {
            content.push(Slice {
                blob,
                offset: 0,
                len: sums.len,
            });
        }
        (content, sums)
    }
}

/// Reads a content from its start, piece by piece.
struct Cursor {
    slices: VecDeque<Slice>,
    open: Option<(u64, File)>,
}

impl Cursor {
    fn new(content: &Content) -> Self {
        Self {
            slices: content.slices().iter().cloned().collect(),
            open: None,
        }
    }

    fn read(&mut self) -> io::Result<Option<Bytes>> {
        let Some(slice) = self.slices.front_mut() else {
            return Ok(None);
        };
        let number = slice.blob.number();
        if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
            self.open = Some((number, slice.blob.open()?));
        }
        let Some((_, file)) = &self.open else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let len = usize::try_from(slice.len).unwrap_or(PIECE).min(PIECE);
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, slice.offset)?;
        slice.offset += len as u64;
        slice.len -= len as u64;
        if slice.len == 0 {
            self.slices.pop_front();
        }
        Ok(Some(bytes.into()))
    }
}

type Reading = JoinHandle<(Cursor, io::Result<Option<Bytes>>)>;

/// A content as the body of an answer. Reads one piece ahead.
pub(super) struct Outgoing {
    reading: Option<Reading>,
    remaining: u64,
}

impl Outgoing {
    /// Of `content`, as a body for `s3s`.
    pub(super) fn of(content: &Content) -> StreamingBlob {
        let remaining = content.len();
        let reading = (remaining > 0).then(|| Self::start(Cursor::new(content)));
        StreamingBlob::new(Self { reading, remaining })
    }

    fn start(mut cursor: Cursor) -> Reading {
        tokio::task::spawn_blocking(move || {
            let read = cursor.read();
            (cursor, read)
        })
    }
}

impl Stream for Outgoing {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(reading) = self.reading.as_mut() else {
            return Poll::Ready(None);
        };
        let (cursor, read) = match std::task::ready!(Pin::new(reading).poll(cx)) {
            Ok(done) => done,
            Err(error) => {
                self.reading = None;
                return Poll::Ready(Some(Err(error.into())));
            }
        };
        self.reading = None;
        match read {
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(error.into()))),
            Ok(Some(bytes)) => {
                self.remaining -= bytes.len() as u64;
                if !cursor.slices.is_empty() {
                    self.reading = Some(Self::start(cursor));
                }
                Poll::Ready(Some(Ok(bytes)))
            }
        }
    }
}

impl ByteStream for Outgoing {
    fn remaining_length(&self) -> RemainingLength {
        usize::try_from(self.remaining)
            .map_or_else(|_| RemainingLength::unknown(), RemainingLength::new_exact)
    }
}

//! The bytes of objects and parts: numbered files, and slices of them.
//!
//! Invariants:
//! - a blob is written once, then only read; an object is a list of slices, so a copy, and putting
//!   parts together, moves no bytes;
//! - a blob's file goes when the last slice of it does (and stays when the simulation ends);
//! - of a body that comes or goes, a bounded piece is in memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::io::Write as _;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use s3s::dto::StreamingBlob;
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{S3Error, S3ErrorCode, S3Result, StdError, s3_error};
use tokio::task::JoinHandle;

use super::checks::{Algorithm, Summer, Sums};

/// What is read or written at once.
const PIECE: usize = 512 << 10;

/// Where the blobs are.
#[derive(Debug)]
pub(super) struct Blobs {
    dir: PathBuf,
    next: AtomicU64,
    closed: AtomicBool,
}

impl Blobs {
    /// In an existing directory.
    pub(super) fn new(dir: &Path) -> Arc<Self> {
        Arc::new(Self {
            dir: dir.to_owned(),
            next: AtomicU64::new(1),
            closed: AtomicBool::new(false),
        })
    }

    /// The blob of that number, whose file exists.
    pub(super) fn existing(self: &Arc<Self>, number: u64) -> Arc<Blob> {
        let home = Arc::clone(self);
        Arc::new(Blob { number, home })
    }

    /// Removes the files of blobs that `keep` does not name; the next blob is numbered behind all.
    pub(super) fn sweep(&self, keep: impl Fn(u64) -> bool) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            self.next.fetch_max(number + 1, Ordering::SeqCst);
            if !keep(number) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// From now on no file is removed.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:012}"))
    }

    fn create(self: &Arc<Self>) -> io::Result<(Arc<Blob>, File)> {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let file = File::create_new(self.path(number))?;
        Ok((self.existing(number), file))
    }

    /// One blob of these bytes.
    pub(super) fn write(self: &Arc<Self>, bytes: &[u8]) -> io::Result<Arc<Blob>> {
        let (blob, mut file) = self.create()?;
        file.write_all(bytes)?;
        Ok(blob)
    }
}

/// One file.
#[derive(Debug)]
pub(super) struct Blob {
    number: u64,
    home: Arc<Blobs>,
}

impl Blob {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    fn open(&self) -> io::Result<File> {
        File::open(self.home.path(self.number))
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        if self.home.closed.load(Ordering::SeqCst) {
            return;
        }
        let path = self.home.path(self.number);
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "sim: a blob could not be removed");
        }
    }
}

/// A piece of a blob.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    pub(super) blob: Arc<Blob>,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// Bytes in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Content(Vec<Slice>);

impl Content {
    pub(super) fn slices(&self) -> &[Slice] {
        &self.0
    }

    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|slice| slice.len).sum()
    }

    /// Puts a slice behind, merged with the last one if it goes on there.
    pub(super) fn push(&mut self, slice: Slice) {
        if slice.len == 0 {
            return;
        }
        if let Some(last) = self.0.last_mut()
            && Arc::ptr_eq(&last.blob, &slice.blob)
            && last.offset + last.len == slice.offset
        {
            last.len += slice.len;
            return;
        }
        self.0.push(slice);
    }

    /// Puts all of `other` behind.
    pub(super) fn append(&mut self, other: &Self) {
        for slice in &other.0 {
            self.push(slice.clone());
        }
    }

    /// The bytes of `range`, which lies within.
    pub(super) fn cut(&self, range: &Range<u64>) -> Self {
        let mut cut = Self::default();
        let mut at = 0;
        for slice in &self.0 {
            let from = range.start.max(at);
            let to = range.end.min(at + slice.len);
            if from < to {
                cut.push(Slice {
                    blob: Arc::clone(&slice.blob),
                    offset: slice.offset + (from - at),
                    len: to - from,
                });
            }
            at += slice.len;
        }
        cut
    }

    /// Counts the checksums. Blocks.
    pub(super) fn sum(&self, asked: Option<Algorithm>) -> io::Result<Sums> {
        let mut summer = Summer::new(asked);
        let mut cursor = Cursor::new(self);
        while let Some(bytes) = cursor.read()? {
            summer.update(&bytes);
        }
        Ok(summer.finish())
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
            slices: content.0.iter().cloned().collect(),
            open: None,
        }
    }

    fn read(&mut self) -> io::Result<Option<Bytes>> {
        let Some(slice) = self.slices.front_mut() else {
            return Ok(None);
        };
        let number = slice.blob.number;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: &Content) -> String {
        let mut cursor = Cursor::new(content);
        let mut all = Vec::new();
        while let Some(bytes) = cursor.read().unwrap() {
            all.extend_from_slice(&bytes);
        }
        String::from_utf8(all).unwrap()
    }

    fn whole(blob: Arc<Blob>, len: u64) -> Content {
        let mut content = Content::default();
        content.push(Slice {
            blob,
            offset: 0,
            len,
        });
        content
    }

    #[test]
    fn a_cut_over_two_blobs_is_the_bytes_of_both() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(dir.path());
        let mut content = whole(blobs.write(b"hello").unwrap(), 5);
        content.append(&whole(blobs.write(b"world").unwrap(), 5));
        assert_eq!(text(&content), "helloworld");
        assert_eq!(text(&content.cut(&(3..7))), "lowo");
        assert_eq!(text(&content.cut(&(5..10))), "world");
        assert_eq!(content.cut(&(4..4)).len(), 0);
    }

    #[test]
    fn slices_that_follow_each_other_are_one() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(dir.path());
        let content = whole(blobs.write(b"helloworld").unwrap(), 10);
        let mut again = content.cut(&(0..4));
        again.append(&content.cut(&(4..10)));
        assert_eq!(again.slices().len(), 1);
    }

    #[test]
    fn a_blob_goes_with_its_last_slice_unless_the_end_has_come() {
        let dir = tempfile::tempdir().unwrap();
        let files = || std::fs::read_dir(dir.path()).unwrap().count();
        let blobs = Blobs::new(dir.path());
        let content = whole(blobs.write(b"hello").unwrap(), 5);
        let part = content.cut(&(1..2));
        drop(content);
        assert_eq!(files(), 1);
        drop(part);
        assert_eq!(files(), 0);
        let kept = whole(blobs.write(b"hello").unwrap(), 5);
        blobs.close();
        drop(kept);
        assert_eq!(files(), 1);
    }
}

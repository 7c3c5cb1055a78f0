//! Bytes that change: write, truncate, holes, copies by reference.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::log::Need;
use crate::tree::{Node, Pin, Seen};
use crate::types::{Attrs, Base, Extents, RelKey, Source};

use super::draft::Draft;
use super::file::{Inner, OpenFile, Shown};
use super::open::draft_attrs;
use super::{Fh, Fs, FsError, Ino, Result, clock};

/// S3's largest object: 10,000 parts of 5 GiB.
const FILE_MAX: u64 = 10_000 * (5 << 30);
/// All drafts together keep at most so many bytes in memory; then bytes go to data files.
const BUFFERED_MAX: usize = 4 << 20;
/// What one copy_file_range does at most (its answer is 32 bits).
const COPY_MAX: u64 = 1 << 30;
/// What an extent takes in a record at most: the key (S3: 1,024 bytes) and tag of a version.
const PIECE_MAX: usize = 1200;
/// How often something is looked at again that changed under the look.
const TRIES: usize = 8;

impl Fs {
    /// Writes all of `data`.
    ///
    /// # Errors
    /// `Full`, `TooBig`, of the disk.
    pub async fn write(
        self: &Arc<Self>,
        _ino: Ino,
        fh: Fh,
        offset: u64,
        data: Bytes,
    ) -> Result<u32> {
        let handle = self.handles.file(fh)?;
        let written = u32::try_from(data.len()).map_err(|_| FsError::Invalid)?;
        let ino = handle.file.ino;
        self.edit(&handle.file, move |fs, inner| {
            fs.write_draft(inner, offset, &data)?;
            fs.offer(ino, inner);
            Ok(())
        })
        .await?;
        Ok(written)
    }

    /// Sets the length. Durable at once if nobody has the file open for writing.
    pub(super) async fn truncate(
        self: &Arc<Self>,
        ino: Ino,
        size: u64,
        fh: Option<Fh>,
    ) -> Result<()> {
        if size > FILE_MAX {
            return Err(FsError::TooBig);
        }
        if let Some(fh) = fh {
            return self.cut(&self.handles.file(fh)?.file, size).await;
        }
        let path = self.names.lock().path(ino);
        if let Some(path) = path {
            self.look(&path).await?;
        }
        let file = self.enter(ino, true)?;
        let fs = Arc::clone(self);
        // To its end, also if whoever asked goes away: what was entered is to be left.
        let done = tokio::spawn(async move {
            let cut = fs.cut(&file, size).await;
            let left = fs.leave(file, true).await;
            cut.and(left)
        });
        done.await.map_err(|_| FsError::Disk(libc::EIO))?
    }

    /// Makes an open file `size` bytes long.
    pub(super) async fn cut(self: &Arc<Self>, file: &Arc<OpenFile>, size: u64) -> Result<()> {
        self.edit(file, move |fs, inner| {
            if let Some(draft) = &mut inner.draft {
                let is_shorter = size <= draft.len;
                draft.promise(fs.log.spool(), 0, shrinks(is_shorter))?;
                draft.truncate(size);
                draft.attrs.mtime = Some(clock());
            }
            Ok(())
        })
        .await
    }

    /// Allocates, or makes a hole.
    ///
    /// # Errors
    /// `NotSupported` for modes other than none, keep size, punch hole, zero range.
    pub async fn fallocate(
        self: &Arc<Self>,
        _ino: Ino,
        fh: Fh,
        offset: u64,
        len: u64,
        mode: i32,
    ) -> Result<()> {
        let handle = self.handles.file(fh)?;
        let end = offset
            .checked_add(len)
            .filter(|end| *end <= FILE_MAX)
            .ok_or(FsError::TooBig)?;
        let known =
            libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE;
        if mode & !known != 0 {
            return Err(FsError::NotSupported);
        }
        let makes_hole = mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) != 0;
        self.edit(&handle.file, move |fs, inner| {
            let Some(draft) = &mut inner.draft else {
                return Ok(());
            };
            draft.promise(fs.log.spool(), 0, shrinks(makes_hole))?;
            if makes_hole {
                draft.punch(offset, end);
            }
            if mode & libc::FALLOC_FL_KEEP_SIZE == 0 && end > draft.len {
                draft.truncate(end);
            }
            draft.attrs.mtime = Some(clock());
            Ok(())
        })
        .await
    }

    /// Copies by reference: no byte moves, here or on the wire.
    ///
    /// # Errors
    /// As write; `Invalid` for overlapping ranges of one file.
    pub async fn copy_file_range(
        self: &Arc<Self>,
        from: (Fh, u64),
        to: (Fh, u64),
        len: u64,
    ) -> Result<u32> {
        let source = self.handles.file(from.0)?.file;
        let target = self.handles.file(to.0)?.file;
        let len = len.min(COPY_MAX);
        let end = from.1.checked_add(len).ok_or(FsError::Invalid)?;
        if Arc::ptr_eq(&source, &target) && from.1 < to.1.saturating_add(len) && to.1 < end {
            return Err(FsError::Invalid);
        }
        let whole = self.sealed_content(&source).await?;
        let end = end.min(whole.len);
        let len = end.saturating_sub(from.1);
        if len == 0 {
            return Ok(0);
        }
        if to.1.checked_add(len).is_none_or(|end| end > FILE_MAX) {
            return Err(FsError::TooBig);
        }
        let piece = whole.slice(from.1, end);
        self.edit(&target, move |fs, inner| fs.splice(inner, to.1, len, piece))
            .await?;
        u32::try_from(len).map_err(|_| FsError::Invalid)
    }

    /// All that a file is made of, sealed. `NotSupported` (the kernel copies bytes then) for what
    /// cannot be, as it has no name, and for what changes all the time.
    async fn sealed_content(self: &Arc<Self>, file: &Arc<OpenFile>) -> Result<Kept> {
        for _ in 0..TRIES {
            self.seal(file).await?;
            let (fs, file) = (Arc::clone(self), Arc::clone(file));
            let kept = tokio::task::spawn_blocking(move || {
                let inner = file.inner.lock();
                match inner.draft {
                    Some(_) => Ok(None),
                    None => fs.keep(file.ino, &inner).map(Some),
                }
            });
            if let Some(kept) = kept.await.map_err(|_| FsError::Disk(libc::EIO))?? {
                return Ok(kept);
            }
        }
        Err(FsError::NotSupported)
    }

    /// `SEEK_DATA` and `SEEK_HOLE` (the kernel does the others).
    ///
    /// # Errors
    /// `NoSuchOffset` behind the end, `Invalid`.
    pub async fn lseek(&self, _ino: Ino, fh: Fh, offset: i64, whence: i32) -> Result<i64> {
        let file = self.handles.file(fh)?.file;
        let at = u64::try_from(offset).map_err(|_| FsError::NoSuchOffset)?;
        let (extents, len) = {
            let inner = file.inner.lock();
            match &inner.draft {
                Some(draft) => (draft.extents.clone(), draft.len),
                None => {
                    let node = self.clean_node(file.ino, &inner)?;
                    (node.extents(), node.len)
                }
            }
        };
        if at >= len {
            return Err(FsError::NoSuchOffset);
        }
        let mut pieces = extents.cover(at, len).into_iter();
        let found = match whence {
            libc::SEEK_DATA => pieces.find_map(|piece| piece.ok().map(|extent| extent.at)),
            libc::SEEK_HOLE => Some(
                pieces
                    .find_map(|p| p.err().map(|gap| gap.start))
                    .unwrap_or(len),
            ),
            _ => return Err(FsError::Invalid),
        };
        found
            .and_then(|at| i64::try_from(at).ok())
            .ok_or(FsError::NoSuchOffset)
    }

    /// The node that an open file without a draft shows.
    pub(super) fn clean_node(&self, ino: Ino, inner: &Inner) -> Result<Node> {
        let (path, orphan) = {
            let mut table = self.names.lock();
            (table.path(ino), table.orphan(ino).cloned())
        };
        if let Some(path) = path
            && let Seen::Here(node, _) = self.tree.view(|view| view.lookup(&path))
            && inner
                .shown
                .as_ref()
                .is_none_or(|shown| shown.continues_as(&node))
        {
            return Ok(*node);
        }
        match (orphan, &inner.shown) {
            (Some(node), _) => Ok(node),
            (None, Some(Shown::Foreign(id, size))) => Ok(Node::foreign(id.clone(), *size)),
            (None, _) => Err(FsError::Stale),
        }
    }

    /// Changes the draft of an open file, begun if there is none, on a blocking thread.
    async fn edit<T: Send + 'static>(
        self: &Arc<Self>,
        file: &Arc<OpenFile>,
        change: impl FnOnce(&Self, &mut Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (fs, file) = (Arc::clone(self), Arc::clone(file));
        let done = tokio::task::spawn_blocking(move || {
            let mut inner = file.inner.lock();
            if let Some(errno) = inner.poisoned {
                return Err(FsError::Disk(errno));
            }
            let is_new = inner.draft.is_none();
            if is_new {
                let draft = fs.begin(file.ino, &inner)?;
                fs.buffered.fetch_add(draft.buffer.len(), Ordering::Relaxed);
                inner.draft = Some(draft);
            }
            let done = change(&fs, &mut inner);
            if is_new
                && done.is_err()
                && let Some(draft) = inner.draft.take_if(|draft| draft.epoch == 0)
            {
                // Nothing was changed: there is nothing to be sealed.
                fs.unbuffer(draft.buffer.len());
            }
            fs.note_writer(file.ino, &mut inner);
            fs.watch(&file, &mut inner);
            done
        });
        done.await.map_err(|_| FsError::Disk(libc::EIO))?
    }

    /// A draft over what the file shows.
    fn begin(&self, ino: Ino, inner: &Inner) -> Result<Draft> {
        let kept = self.keep(ino, inner)?;
        let path = self.names.lock().path(ino);
        let base = match (&inner.shown, path) {
            (Some(Shown::Foreign(id, _)), _) => Base::Version(id.etag.clone()),
            (_, Some(path)) => self.tree.view(|view| view.base(&RelKey::file(&path))),
            (_, None) => Base::Absent,
        };
        let mut draft = Draft::new(kept.extents, kept.len, kept.attrs, base);
        for (at, bytes) in &kept.small {
            draft.keep_small(*at, bytes);
        }
        draft.pins.push(kept.pin);
        Ok(draft)
    }

    /// What the file shows, so that it stays: data files are pinned; what lies in a segment of the
    /// log, which may go, is taken into memory. Blocking.
    fn keep(&self, ino: Ino, inner: &Inner) -> Result<Kept> {
        let spool = self.log.spool();
        let mut last = FsError::Disk(libc::EIO);
        for _ in 0..TRIES {
            let node = self.clean_node(ino, inner)?;
            let all = node.extents();
            let _while_read = self.tree.pin(&all);
            let (mut extents, mut small) = (Extents::default(), Vec::new());
            let mut failed = None;
            for extent in all.iter() {
                match extent.from {
                    Source::Local { file, offset } if spool.is_segment(file) => {
                        let len = usize::try_from(extent.len).map_err(|_| FsError::TooBig)?;
                        match spool.read_at(file, offset, len) {
                            Ok(bytes) => small.push((extent.at, bytes)),
                            Err(error) => failed = Some(error),
                        }
                    }
                    Source::Local { .. } | Source::Remote { .. } => extents.put(extent.clone()),
                }
            }
            // What was taken into memory needs no pin: a draft must not keep the log from shrinking.
            let pin = self.tree.pin(&extents);
            // Before they were pinned S3 may have acknowledged the bytes, or the log was compacted,
            // and their files were let go: then it is something else now.
            if self.clean_node(ino, inner)?.extents() == all {
                if let Some(error) = failed {
                    return Err(error.into());
                }
                return Ok(Kept {
                    extents,
                    len: node.len,
                    attrs: draft_attrs(&node),
                    small,
                    pin,
                });
            }
            last = failed.map_or(last, FsError::from);
        }
        Err(last)
    }

    fn write_draft(&self, inner: &mut Inner, offset: u64, data: &[u8]) -> Result<()> {
        let end = offset
            .checked_add(data.len() as u64)
            .filter(|end| *end <= FILE_MAX);
        end.ok_or(FsError::TooBig)?;
        let Inner {
            draft: Some(draft),
            writer,
            ..
        } = inner
        else {
            return Ok(());
        };
        let may_inline = self.buffered.load(Ordering::Relaxed) < BUFFERED_MAX;
        let before = draft.buffer.len();
        let done = draft.write(writer, self.log.spool(), offset, data, may_inline);
        draft.attrs.mtime = Some(clock());
        self.buffered
            .fetch_add(draft.buffer.len(), Ordering::Relaxed);
        self.unbuffer(before);
        Ok(done?)
    }

    /// Lets bytes of another file stand in this one. Small ones are copied.
    fn splice(&self, inner: &mut Inner, at: u64, len: u64, piece: Kept) -> Result<()> {
        let Some(draft) = &mut inner.draft else {
            return Ok(());
        };
        let room = piece.extents.count().saturating_mul(PIECE_MAX);
        draft.promise(self.log.spool(), room, Need::Growth)?;
        draft.splice(at, len, &piece.extents);
        draft.attrs.mtime = Some(clock());
        if !draft.pins.iter().any(|pin| pin.covers(&piece.pin)) {
            draft.pins.push(piece.pin);
        }
        for (place, bytes) in &piece.small {
            self.write_draft(inner, at + place, bytes)?;
        }
        Ok(())
    }
}

/// How deep into the reserve of the spool a change of a length may go.
fn shrinks(is_shorter: bool) -> Need {
    if is_shorter {
        Need::Shrink
    } else {
        Need::Growth
    }
}

/// A content that stays as it is while this lives.
struct Kept {
    /// Over the bucket's versions and pinned data files.
    extents: Extents,
    len: u64,
    attrs: Attrs,
    /// Bytes that are in no file that stays, by their place.
    small: Vec<(u64, Bytes)>,
    pin: Pin,
}

impl Kept {
    /// The part from `start` to `end`, which begins at 0.
    fn slice(self, start: u64, end: u64) -> Self {
        let within = |(at, bytes): (u64, Bytes)| {
            let (from, to) = (at.max(start), (at + bytes.len() as u64).min(end));
            let range = usize::try_from(from.checked_sub(at)?).ok()?
                ..usize::try_from(to.checked_sub(at)?).ok()?;
            (from < to).then(|| (from - start, bytes.slice(range)))
        };
        Self {
            extents: self.extents.slice(start, end),
            len: end - start,
            small: self.small.into_iter().filter_map(within).collect(),
            ..self
        }
    }
}

//! Reading an open file: what it is made of at this moment, and those bytes.
//!
//! Invariants:
//! - one read is made of one content, taken at one moment;
//! - bytes move while they are read (the spool lets go of what S3 has, an upload of ours replaces
//!   the version an appended file was made of): whoever finds an old place empty looks again, and
//!   waits, for a while, for an answer of S3 that is under way. `Stale` is only what somebody else
//!   replaced.

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::read::{ReadError, Window};
use crate::store::StoreError;
use crate::tree::Pending;
use crate::types::{Base, Extent, Extents, FileNo, ObjectId, RelKey, Source};

use super::file::{Inner, OpenFile};
use super::{Fh, Fs, FsError, Ino, Result};

/// How often something is looked at again that changed under the look.
const TRIES: usize = 8;

/// What a read is made of, taken at one moment.
struct Stretch {
    extents: Extents,
    len: u64,
    /// Where `extents` and `len` begin in the file.
    start: u64,
    /// Bytes of the draft's buffer, by their place in the file.
    inline: Vec<(u64, Bytes)>,
    is_draft: bool,
}

/// Whether a change has bytes of `version` in parts that only want to be completed.
fn is_in_parts(entry: &Pending, version: &ObjectId) -> bool {
    let is_staged = entry.staged.as_ref().is_some_and(|(number, upload, _)| {
        *number == entry.number && !upload.is_empty() && entry.dead.is_none()
    });
    let names =
        |piece: &Extent| matches!(&piece.from, Source::Remote { object, .. } if object == version);
    let generation = entry.generation().filter(|_| is_staged);
    generation.is_some_and(|generation| generation.extents.iter().any(names))
}

impl Fs {
    /// Reads at most `size` bytes; fewer at the end.
    ///
    /// # Errors
    /// `Stale`, `Unreachable`, of the disk.
    pub async fn read(&self, _ino: Ino, fh: Fh, offset: u64, size: usize) -> Result<Bytes> {
        let read = self.read_now(fh, offset, size);
        let read = self.waits.unless_ended(read).await;
        let read = read.unwrap_or(Err(FsError::Unreachable));
        if let Err(FsError::Store(error @ StoreError::Archived)) = &read {
            tracing::warn!(%error, "an object cannot be read");
        }
        read
    }

    async fn read_now(&self, fh: Fh, offset: u64, size: usize) -> Result<Bytes> {
        let handle = self.handles.file(fh)?;
        let patience = Instant::now() + self.config.read_timeout;
        let mut content = self.content(&handle.file, offset, size)?;
        for _ in 0..TRIES {
            let error = match self
                .read_content(&content, offset, size, &handle.window)
                .await
            {
                // The spool let go of them, or another version is there.
                Err(ReadError::Disk(libc::ENOENT)) => ReadError::Disk(libc::EIO),
                Err(ReadError::Stale) => ReadError::Stale,
                other => return Ok(other?),
            };
            let moved = self.await_move(&handle.file, offset, size, &content, patience);
            content = moved.await?.ok_or(error)?;
        }
        Err(FsError::Stale)
    }

    /// What it is made of once that is something else than `missed`; `None`: it stays that.
    async fn await_move(
        &self,
        file: &OpenFile,
        offset: u64,
        size: usize,
        missed: &Stretch,
        patience: Instant,
    ) -> Result<Option<Stretch>> {
        let mut changed = self.tree.changed();
        loop {
            changed.borrow_and_update();
            let now = self.content(file, offset, size)?;
            if now.extents != missed.extents {
                return Ok(Some(now));
            }
            if !self.is_being_replaced(&missed.extents) {
                return Ok(None);
            }
            match tokio::time::timeout_at(patience, changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Ok(None),
            }
        }
    }

    /// Whether a version in `extents` may be gone because a change of ours replaced it, whose
    /// answer has not come yet (or not come before a power cut); or removed it, as all who name it
    /// have its bytes in S3, in parts that are still to be completed.
    fn is_being_replaced(&self, extents: &Extents) -> bool {
        self.tree.pending(|all| {
            extents.iter().any(|piece| {
                let Source::Remote { object, .. } = &piece.from else {
                    return false;
                };
                let entry = RelKey::parse(object.key.as_str()).and_then(|key| all.get(&key));
                let is_next = entry.is_some_and(|entry| {
                    let is_next = !entry.held && entry.base == Base::Version(object.etag.clone());
                    entry.dead.is_none() && (entry.begun || is_next)
                });
                is_next || all.in_order().any(|(_, entry)| is_in_parts(entry, object))
            })
        })
    }

    async fn read_content(
        &self,
        content: &Stretch,
        offset: u64,
        size: usize,
        window: &Window,
    ) -> std::result::Result<Bytes, ReadError> {
        let at = offset - content.start;
        if !content.is_draft {
            return self
                .reader
                .read_at(&content.extents, content.len, at, size, window)
                .await;
        }
        let once = window.aside();
        let bytes = self
            .reader
            .read_at(&content.extents, content.len, at, size, &once)
            .await?;
        if content.inline.is_empty() {
            return Ok(bytes);
        }
        let mut bytes = BytesMut::from(bytes);
        for (place, piece) in &content.inline {
            let start = usize::try_from(place - offset).unwrap_or(usize::MAX);
            let end = (start.saturating_add(piece.len())).min(bytes.len());
            if let Some(into) = bytes.get_mut(start..end) {
                into.copy_from_slice(&piece[..end - start]);
            }
        }
        Ok(bytes.freeze())
    }

    /// What `offset..offset + size` of an open file is made of now.
    fn content(&self, file: &OpenFile, offset: u64, size: usize) -> Result<Stretch> {
        let inner = file.inner.lock();
        let Some(draft) = &inner.draft else {
            return self.clean_content(file.ino, &inner);
        };
        let end = offset.saturating_add(size as u64).min(draft.len);
        let mut extents = draft.extents.slice(offset.min(end), end);
        let mut inline = Vec::new();
        for piece in draft
            .extents
            .cover(offset.min(end), end)
            .into_iter()
            .flatten()
        {
            if let Source::Local {
                file: FileNo::INLINE,
                offset: place,
            } = piece.from
            {
                let bytes = Bytes::copy_from_slice(draft.inline(place, piece.len));
                inline.push((piece.at, bytes));
                extents.cut(piece.at - offset, piece.end() - offset);
            }
        }
        let len = draft.len.saturating_sub(offset);
        // A version that the draft is built on may have been replaced by an upload of ours since.
        let extents = self.tree.led(&extents);
        Ok(Stretch {
            extents,
            len,
            start: offset,
            inline,
            is_draft: true,
        })
    }

    fn clean_content(&self, ino: Ino, inner: &Inner) -> Result<Stretch> {
        let node = self.clean_node(ino, inner)?;
        let (extents, len) = (node.extents(), node.len);
        Ok(Stretch {
            extents,
            len,
            start: 0,
            inline: Vec::new(),
            is_draft: false,
        })
    }
}

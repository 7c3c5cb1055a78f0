//! When a generation is made of a draft, and who waits for what.
//!
//! | who | makes a generation | waits until |
//! |---|---|---|
//! | flush (each close), fsync, the last writer's release | if the file is dirty | it is durable here |
//! | flush by another process than the opener's, which is still alive | never | what was written is durable here (`unclosed.rs`) |
//! | `upload_open` after the first unsealed change (`unclosed.rs`) | yes | nobody waits |
//! | truncate of a file nobody writes to | yes | it is durable here |
//! | flush by the opener with `close=uploaded`, fsync with `fsync=uploaded` | if dirty | it is in S3, or a timer ends |
//!
//! Invariants: bytes are flushed before the record that names them is appended, the record before
//! the answer; after a failed flush of its bytes a file is poisoned: nothing of it is acknowledged
//! any more until it is closed by all.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::log::{Change, DataFile, Need};
use crate::seeded::{self, Bug};
use crate::tree::{Seen, View};
use crate::types::{Base, Extents, FileNo, Generation, RelKey, RelPath, Seq, Source, Want};

use super::draft::Writer;
use super::file::{OpenFile, Shown};
use super::{Fh, Fs, FsError, Ino, Result};

/// What a seal names, taken at one moment.
struct Snapshot {
    extents: Extents,
    inline: Vec<u8>,
    len: u64,
    epoch: u64,
    flush: Option<(Arc<DataFile>, u64)>,
    /// The data file, how far it was written, how far the extents name it.
    end: Option<(FileNo, u64, u64)>,
}

impl Fs {
    /// `flush`: one per close of a descriptor.
    ///
    /// # Errors
    /// Of the disk; `NotYet` with `close=uploaded`.
    pub async fn flush(self: &Arc<Self>, _ino: Ino, fh: Fh, pid: u32) -> Result<()> {
        let handle = self.handles.file(fh)?;
        if !handle.may_write {
            // What others write is theirs to close.
            return Ok(());
        }
        if handle.opener.is_another(pid) && !seeded::is(Bug::InheritorPublishes) {
            return self.keep_unclosed(&handle.file).await;
        }
        let sealed = self.seal(&handle.file).await?;
        match sealed {
            Some((key, number)) if self.config.close_uploaded => self.uploaded(&key, number).await,
            Some(_) | None => Ok(()),
        }
    }

    /// `fsync`.
    ///
    /// # Errors
    /// Of the disk; `NotYet` with `fsync=uploaded`.
    pub async fn fsync(self: &Arc<Self>, _ino: Ino, fh: Fh) -> Result<()> {
        let handle = self.handles.file(fh)?;
        let sealed = self.seal(&handle.file).await?;
        self.log.flushed(self.tree.now()).await?;
        match sealed {
            Some((key, number)) if self.config.fsync_uploaded => self.uploaded(&key, number).await,
            Some(_) | None => Ok(()),
        }
    }

    /// Makes a generation of what was written since the last one; answers its key and number. It
    /// is done to its end, also if whoever asked goes away: else bytes would pass for flushed that
    /// are not.
    pub(super) async fn seal(
        self: &Arc<Self>,
        file: &Arc<OpenFile>,
    ) -> Result<Option<(RelKey, Seq)>> {
        let (fs, file) = (Arc::clone(self), Arc::clone(file));
        let sealed = tokio::spawn(async move { fs.seal_now(&file).await });
        sealed.await.map_err(|_| FsError::Disk(libc::EIO))?
    }

    /// As `seal`, for a task that is never dropped.
    pub(super) async fn seal_now(&self, file: &Arc<OpenFile>) -> Result<Option<(RelKey, Seq)>> {
        let _one_at_a_time = file
            .seal
            .acquire()
            .await
            .map_err(|_| FsError::Disk(libc::EIO))?;
        let Some(mut snapshot) = self.snapshot(file)? else {
            let last = file.inner.lock().sealed;
            if let Some(last) = last {
                self.log.flushed(last).await?;
            }
            return Ok(None);
        };
        let dirty = snapshot.flush.take();
        let mut dirty = dirty.filter(|_| !seeded::is(Bug::DataFlushSkipped));
        if let Some((data, written)) = dirty.take_if(|_| !seeded::is(Bug::RecordBeforeData)) {
            flush_data(file, data, written).await?;
        }
        let Some((path, number)) = self.publish(file, snapshot)? else {
            return Ok(None);
        };
        if let Some((data, written)) = dirty {
            flush_data(file, data, written).await?;
        }
        if !seeded::is(Bug::CloseAnswersEarly) {
            self.log.flushed(number).await?;
        }
        Ok(Some((RelKey::file(&path), number)))
    }

    /// Before a name or its attributes change: where the name has come to stand for somebody else's
    /// version, or for nothing, a generation is made of what is being written here, built on what
    /// it was built on. Else the change would be made to theirs, and what is written here would
    /// pass for built on that, and replace it.
    pub(super) async fn part_from_theirs(self: &Arc<Self>, file: &Arc<OpenFile>) -> Result<()> {
        if self.is_parted(file) {
            self.seal(file).await?;
        }
        Ok(())
    }

    fn is_parted(&self, file: &OpenFile) -> bool {
        let inner = file.inner.lock();
        let path = self.names.lock().path(file.ino);
        let Some(path) = path.filter(|_| inner.draft.is_some()) else {
            return false;
        };
        match self.tree.view(|view| view.lookup(&path)) {
            Seen::Here(node, _) => inner.differs(&node),
            Seen::NotHere(_) => true,
            Seen::Unknown => false,
        }
    }

    fn snapshot(&self, file: &OpenFile) -> Result<Option<Snapshot>> {
        let mut inner = file.inner.lock();
        let inner = &mut *inner;
        if let Some(errno) = inner.poisoned {
            return Err(FsError::Disk(errno));
        }
        let Some(draft) = &inner.draft else {
            return Ok(None);
        };
        let (extents, inline) = draft.compacted();
        let end = inner.writer.as_ref().map(|writer| {
            let file = writer.file.number();
            (file, writer.end, named_end(&extents, file))
        });
        let flush = inner.writer.as_mut().and_then(|writer: &mut Writer| {
            writer.sealed = writer.end;
            let is_dirty = writer.written > writer.flushed;
            is_dirty.then(|| (Arc::clone(&writer.file), writer.written))
        });
        Ok(Some(Snapshot {
            extents,
            inline,
            len: draft.len,
            epoch: draft.epoch,
            flush,
            end,
        }))
    }

    /// Appends the record; `None` if the file has no name any more. The draft is gone then, unless
    /// more was written meanwhile. Attributes are taken as they are now: a chmod since the snapshot
    /// has its own record already.
    fn publish(&self, file: &OpenFile, snapshot: Snapshot) -> Result<Option<(RelPath, Seq)>> {
        let mut inner = file.inner.lock();
        let Some(draft) = &inner.draft else {
            return Ok(None);
        };
        let table = self.names.lock();
        let Some(path) = table.path(file.ino) else {
            return Ok(None);
        };
        let key = RelKey::file(&path);
        let generation = Generation {
            extents: snapshot.extents,
            len: snapshot.len,
            attrs: draft.attrs.clone(),
        };
        let is_done = draft.epoch == snapshot.epoch;
        let need = if draft.is_promised() {
            Need::Promised
        } else {
            Need::Growth
        };
        let number = self.tree.change_for::<FsError>(need, |view| {
            let base = base_of(view, &path, inner.shown.as_ref(), &draft.base);
            let want = Want::Object(Arc::new(generation));
            Ok((
                vec![Change {
                    key,
                    want,
                    base,
                    number: None,
                }],
                snapshot.inline,
            ))
        })?;
        self.tree.hold(&path, inner.writers > 0);
        drop(table);
        inner.shows(number);
        inner.sealed = Some(number);
        if let Some(writer) = &inner.writer {
            self.tree.withdraw(writer.file.number());
        }
        inner.is_sealed_to(&self.tree, &path, snapshot.end);
        if let Some(watch) = &mut inner.watch {
            watch.is_sealed();
        }
        if is_done && let Some(draft) = inner.draft.take() {
            self.unbuffer(draft.buffer.len());
        } else if let Some(draft) = &mut inner.draft {
            draft.is_sealed();
        }
        Ok(Some((path, number)))
    }

    /// Waits until a generation is in S3: as long as bytes go, at most `close_max`.
    async fn uploaded(&self, key: &RelKey, number: Seq) -> Result<()> {
        let mut changed = self.tree.changed();
        self.tree.urge(key);
        let end = tokio::time::Instant::now() + self.config.close_max;
        let mut sent = self.progress.sent();
        let mut patience = tokio::time::Instant::now() + self.config.close_timeout;
        loop {
            if self.tree.is_settled(key, number) {
                return Ok(());
            }
            if let Some(dead) = self
                .tree
                .pending(|all| all.get(key).and_then(|e| e.dead.clone()))
            {
                return Err(match dead {
                    crate::log::Refusal::Denied(_) => FsError::Denied,
                    crate::log::Refusal::Quota(_) => FsError::Quota,
                    crate::log::Refusal::Invalid(_) => FsError::Disk(libc::EIO),
                });
            }
            let wait = tokio::time::timeout_at(patience.min(end), changed.changed());
            if self.waits.unless_ended(wait).await.is_none() {
                return Err(FsError::NotYet);
            }
            let now = tokio::time::Instant::now();
            let sent_now = self.progress.sent();
            if sent_now != sent {
                (sent, patience) = (sent_now, now + self.config.close_timeout);
            }
            if now >= patience.min(end) {
                return Err(FsError::NotYet);
            }
        }
    }

    pub(super) fn unbuffer(&self, bytes: usize) {
        self.buffered.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Flushes a data file; a file whose bytes the device did not take is poisoned.
pub(super) async fn flush_data(file: &OpenFile, data: Arc<DataFile>, written: u64) -> Result<()> {
    let number = data.number();
    let flushed = tokio::task::spawn_blocking(move || data.flush()).await;
    if let Err(error) = flushed.map_err(std::io::Error::other).and_then(|done| done) {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        file.inner.lock().poisoned = Some(errno);
        return Err(FsError::Disk(errno));
    }
    if let Some(writer) = &mut file.inner.lock().writer
        && writer.file.number() == number
    {
        writer.flushed = writer.flushed.max(written);
    }
    Ok(())
}

/// Behind the last byte of a data file that `extents` name.
fn named_end(extents: &Extents, file: FileNo) -> u64 {
    let ends = extents.iter().filter_map(|extent| match extent.from {
        Source::Local { file: of, offset } if of == file => Some(offset + extent.len),
        Source::Local { .. } | Source::Remote { .. } => None,
    });
    ends.max().unwrap_or(0)
}

/// The version this content replaces: what the name shows now, if that is what the draft was
/// built on; else the one it was built on, so that the bucket refuses and nothing unseen is lost.
fn base_of(view: &View<'_>, path: &RelPath, shown: Option<&Shown>, built_on: &Base) -> Base {
    let continues = match (view.lookup(path), shown) {
        (Seen::Here(node, _), Some(shown)) => shown.continues_as(&node),
        (Seen::Here(..), None) => true,
        (Seen::NotHere(_) | Seen::Unknown, _) => false,
    };
    if continues {
        view.base(&RelKey::file(path))
    } else {
        built_on.clone()
    }
}

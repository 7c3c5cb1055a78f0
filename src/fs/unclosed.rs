//! Files that stay open: what becomes of bytes that nobody closes or fsyncs.
//!
//! | when | what | after a crash |
//! |---|---|---|
//! | at once | more than 32 KiB lie in a data file, in the kernel's hands; the log names the file they are for | set aside as a partial; a power cut may take what the kernel has not written back (30 s, usually) |
//! | `unwritten_after` (5 s) without a write | smaller ones go there too | the same |
//! | the mount is ended under it (SIGTERM, `umount -l`) | data file and log are flushed | set aside as a partial |
//! | a process that inherited the descriptor closes it | data file and log are flushed | set aside as a partial, also after a power cut |
//! | fsync | a generation is made | under its name |
//! | `upload_open` (5 min) after the first change that is in no generation | a generation is made, at a moment without writes if one comes within `LATEST`, and sent | under its name |
//!
//! Nothing of it flushes the device but what somebody asked for, so a line written now and then costs
//! an SD card no more than the line. Why the close of an inheritor makes no generation: in
//! `{ a; b; } > f` every command closes `f` when it ends, and a crash between them would publish a
//! file that its writer had not finished. The last close of all, by whomever, makes one (`release`).
//!
//! Invariants: a snapshot is taken under the file's lock and what it names is not overwritten from
//! then on, so it shows one moment, whatever is written meanwhile; a file is watched by at most one
//! task, which holds neither it nor the file system while it sleeps.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::log::Record;
use crate::tree::Tree;
use crate::types::{FileNo, RelKey, RelPath};

use super::draft::Writer;
use super::file::{Inner, OpenFile};
use super::seal::flush_data;
use super::{Fs, FsError, Ino, Result};

/// No write for so long is a quiet moment.
const QUIET: Duration = Duration::from_secs(1);
/// A quiet moment is waited for so long beyond `upload_open`.
const LATEST: Duration = Duration::from_secs(15);

/// The end of what was written may be written again at once: so much of it is not offered yet.
const OFFER_BEHIND: u64 = 1 << 20;
/// It is offered in steps of this.
const OFFER_STEP: u64 = 4 << 20;

/// What was seen of a draft.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    epoch: u64,
    /// When it was first seen as it is.
    changed: Instant,
    /// Something is in no generation since.
    since: Instant,
}

/// What is to be done about a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Wait,
    Spill,
    Seal,
}

impl Inner {
    /// Tells the log how far a data file is sealed, where the generation itself does not.
    pub(super) fn is_sealed_to(
        &self,
        tree: &Tree,
        path: &RelPath,
        end: Option<(FileNo, u64, u64)>,
    ) {
        if let Some((file, sealed, named)) = end
            && named < sealed
        {
            let key = RelKey::file(path);
            if let Err(error) = tree.note(Record::Draft { key, file, sealed }) {
                // At worst bytes that were overwritten are set aside after a crash.
                tracing::debug!(%error, "how far a data file is sealed is not kept");
            }
        }
    }
}

impl Fs {
    /// What was written from the front on to a file that no generation was made of yet can be sent
    /// while the rest is still being written.
    pub(super) fn offer(&self, ino: Ino, inner: &Inner) {
        let (Some(draft), Some(writer), None) = (&inner.draft, &inner.writer, inner.sealed) else {
            return;
        };
        let full = draft.in_order(writer).saturating_sub(OFFER_BEHIND);
        if full < writer.file.early().offered().saturating_add(OFFER_STEP) {
            return;
        }
        let path = self.names.lock().path(ino);
        if let Some(path) = path {
            self.tree.offer(RelKey::file(&path), &writer.file, full);
        }
    }

    /// Tells the log whose bytes a data file holds that was begun by a change.
    pub(super) fn note_writer(&self, ino: Ino, inner: &mut Inner) {
        if let Some(writer) = &mut inner.writer
            && !writer.is_noted
            && let Some(path) = self.names.lock().path(ino)
        {
            self.note_draft(&path, writer);
        }
    }

    /// An open file's name may be another now: what is written of it is held, and kept after a crash,
    /// under that. The name is looked up here, so that of two renames the last one is told last.
    pub(super) fn goes_on(&self, ino: Ino, inner: &mut Inner) {
        let Some(path) = self.names.lock().path(ino) else {
            return;
        };
        self.tree.hold(&path, inner.writers > 0);
        if let Some(writer) = &mut inner.writer {
            writer.is_noted = false;
            self.note_draft(&path, writer);
        }
    }

    /// Not flushed: it goes to the device when the bytes do. Where it cannot be told (the log is
    /// full), the next write tells it; until then a crash leaves the bytes without their name.
    pub(super) fn note_draft(&self, path: &RelPath, writer: &mut Writer) {
        let record = Record::Draft {
            key: RelKey::file(path),
            file: writer.file.number(),
            sealed: 0,
        };
        match self.tree.note(record) {
            Ok(()) => writer.is_noted = true,
            Err(error) => tracing::warn!(%error, "the name of an open file is not kept"),
        }
    }

    /// Makes what was written durable, without a generation.
    pub(super) async fn keep_unclosed(self: &Arc<Self>, file: &Arc<OpenFile>) -> Result<()> {
        let (fs, file) = (Arc::clone(self), Arc::clone(file));
        // To its end, also if whoever asked goes away.
        let kept = tokio::spawn(async move {
            let _one_at_a_time = file
                .seal
                .acquire()
                .await
                .map_err(|_| FsError::Disk(libc::EIO))?;
            fs.spill(&file).await?;
            let (dirty, last) = {
                let inner = file.inner.lock();
                let writer = inner.writer.as_ref().filter(|_| inner.draft.is_some());
                let writer = writer.filter(|writer| writer.written > writer.flushed);
                let dirty = writer.map(|writer| (Arc::clone(&writer.file), writer.written));
                (dirty, inner.sealed)
            };
            if let Some((data, written)) = dirty {
                flush_data(&file, data, written).await?;
                fs.log.flushed(fs.tree.now()).await?;
            } else if let Some(last) = last {
                fs.log.flushed(last).await?;
            }
            Ok(())
        });
        kept.await.map_err(|_| FsError::Disk(libc::EIO))?
    }

    /// The same of all that is open, as the mount ends under it: none of it is lost, and nothing that
    /// nobody finished is published. Answers how many files that were.
    ///
    /// # Errors
    /// Of the disk; the others are kept all the same.
    pub async fn keep_all_unclosed(self: &Arc<Self>) -> Result<usize> {
        let is_dirty = |file: &Arc<OpenFile>| file.inner.lock().draft.is_some();
        let open = self.names.lock().all_open();
        let dirty: Vec<_> = open.into_iter().filter(is_dirty).collect();
        let kept = join_all(dirty.iter().map(|file| self.keep_unclosed(file))).await;
        kept.into_iter().collect::<Result<Vec<()>>>()?;
        Ok(dirty.len())
    }

    /// Moves a draft's bytes from memory to its data file.
    async fn spill(self: &Arc<Self>, file: &Arc<OpenFile>) -> Result<()> {
        let (fs, file) = (Arc::clone(self), Arc::clone(file));
        let spilt = tokio::task::spawn_blocking(move || {
            let mut inner = file.inner.lock();
            if let Some(errno) = inner.poisoned {
                return Err(FsError::Disk(errno));
            }
            let Inner {
                draft: Some(draft),
                writer,
                ..
            } = &mut *inner
            else {
                return Ok(());
            };
            if draft.buffer.is_empty() {
                return Ok(());
            }
            let before = draft.buffer.len();
            let done = draft.spill(writer, fs.log.spool());
            fs.unbuffer(before - draft.buffer.len());
            fs.note_writer(file.ino, &mut inner);
            Ok(done?)
        });
        spilt.await.map_err(|_| FsError::Disk(libc::EIO))?
    }

    /// Looks after a draft from now on, if nobody does.
    pub(super) fn watch(self: &Arc<Self>, file: &Arc<OpenFile>, inner: &mut Inner) {
        let Some(draft) = inner.draft.as_ref().filter(|_| inner.watch.is_none()) else {
            return;
        };
        let now = Instant::now();
        inner.watch = Some(Watch {
            epoch: draft.epoch,
            changed: now,
            since: now,
        });
        let (fs, file) = (Arc::downgrade(self), Arc::downgrade(file));
        let mut next = now + self.config.unwritten_after.min(self.config.upload_open);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep_until(next).await;
                let (Some(fs), Some(file)) = (fs.upgrade(), file.upgrade()) else {
                    return;
                };
                match fs.look_after(&file, Instant::now()).await {
                    Some(at) => next = at,
                    None => return,
                }
            }
        });
    }

    /// Does what is due for a draft at `now`; answers when to look again (`None`: it is clean).
    pub(super) async fn look_after(
        self: &Arc<Self>,
        file: &Arc<OpenFile>,
        now: Instant,
    ) -> Option<Instant> {
        let done = match self.due(file, now)? {
            Step::Wait => Ok(()),
            Step::Spill => self.spill(file).await,
            Step::Seal => self.seal_open(file).await,
        };
        if let Err(error) = done {
            tracing::warn!("bytes of a file that stays open are not kept yet: {error:?}");
        }
        self.next_look(file, now)
    }

    fn due(&self, file: &OpenFile, now: Instant) -> Option<Step> {
        let mut inner = file.inner.lock();
        let inner = &mut *inner;
        let (Some(draft), None) = (&inner.draft, inner.poisoned) else {
            inner.watch = None;
            return None;
        };
        let watch = inner.watch.as_mut()?;
        if watch.epoch != draft.epoch {
            (watch.epoch, watch.changed) = (draft.epoch, now);
        }
        let quiet = now.saturating_duration_since(watch.changed);
        let due = watch.since + self.config.upload_open;
        if now >= due && (quiet >= QUIET || now >= due + LATEST) {
            // What is written from here on is in no generation. A failure is not repeated at once.
            watch.since = now;
            return Some(Step::Seal);
        }
        let is_idle = quiet >= self.config.unwritten_after && !draft.buffer.is_empty();
        Some(if is_idle { Step::Spill } else { Step::Wait })
    }

    fn next_look(&self, file: &OpenFile, now: Instant) -> Option<Instant> {
        let mut inner = file.inner.lock();
        let inner = &mut *inner;
        let Some(draft) = &inner.draft else {
            inner.watch = None;
            return None;
        };
        let watch = inner.watch.as_ref()?;
        let due = watch.since + self.config.upload_open;
        let next = if draft.buffer.is_empty() {
            due
        } else {
            due.min(watch.changed + self.config.unwritten_after)
        };
        Some(next.max(now + QUIET))
    }

    /// A generation of a file that stays open, to be sent as if it had been closed.
    async fn seal_open(self: &Arc<Self>, file: &Arc<OpenFile>) -> Result<()> {
        self.seal(file).await?;
        let path = self.names.lock().path(file.ino);
        if let Some(path) = path {
            self.tree.hold(&path, false);
        }
        Ok(())
    }
}

impl Watch {
    /// All that was written is in a generation, or more came while it was made.
    pub(super) fn is_sealed(&mut self) {
        self.since = Instant::now();
    }
}

//! Uploads that broke off, or wait for their file to be closed: which of their parts are still right.
//!
//! Invariants:
//! - a part is used for a generation only if it holds the bytes that this has there: it was made of the
//!   same places of the spool (which nothing overwrites once they are sealed) and none of them was
//!   written again since, or else its checksum is that of the bytes that would be sent;
//! - what nobody wants any more is aborted: one of ours that the log tells of. Others' are not touched.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::fail::Fail;
use super::hands::Hands;
use super::parts::Planned;
use super::pieces::Piece;
use super::send::Work;
use crate::log::{Early, Record};
use crate::seeded::{self, Bug};
use crate::store::{PartDone, StoreError, UploadId};
use crate::tree::{Pending, Stream, Tree};
use crate::types::{Extents, FileNo, Generation, Headers, ObjectKey, RelKey, Seq, Source, Want};

/// Uploads that are remembered to be continued; one more is given up instead.
const HALVES_MAX: usize = 64;

/// An upload that broke off, or whose file is still being written.
#[derive(Clone, Debug)]
pub(super) struct Half {
    /// For which generation (or, before there is one, for which making of its name).
    pub(super) number: Seq,
    /// The number in its stamp.
    pub(super) stamp: Seq,
    pub(super) object: ObjectKey,
    pub(super) upload: UploadId,
    /// Bytes of a part, as they were cut.
    pub(super) part: u64,
    /// None: it was begun by an earlier run, and S3 is to be asked what it has.
    pub(super) pieces: Vec<Piece>,
    pub(super) done: BTreeMap<u16, PartDone>,
    /// What each part that is done was made of.
    pub(super) of: HashMap<u16, Extents>,
    /// The data file whose bytes went before they were sealed, and what of it was written again.
    pub(super) early: Option<(FileNo, Arc<Early>)>,
    /// What it was begun with, if that is known.
    pub(super) headers: Option<Headers>,
}

/// Those that earlier runs left.
pub(super) fn left_behind(tree: &Tree) -> HashMap<RelKey, Half> {
    let half = |(key, entry): (&RelKey, &Pending)| {
        let begun = entry.uploading.clone()?;
        let half = Half {
            number: begun.number,
            stamp: begun.stamp,
            object: key.into(),
            upload: UploadId(begun.upload.into()),
            part: begun.part.unwrap_or_default(),
            pieces: Vec::new(),
            done: BTreeMap::new(),
            of: HashMap::new(),
            early: None,
            headers: None,
        };
        Some((key.clone(), half))
    };
    tree.pending(|all| all.below("").filter_map(half).collect())
}

impl Half {
    /// Whether it is of what is being written.
    pub(super) fn is_of(&self, stream: &Stream) -> bool {
        let file = self.early.as_ref().map(|(file, _)| *file);
        file == Some(stream.file) && self.object.as_str() == stream.key.as_str()
    }

    /// Behind all parts that were begun, of what is being written.
    pub(super) fn end(&self) -> u64 {
        self.part.saturating_mul(self.pieces.len() as u64)
    }

    /// A part of `generation` arrived.
    pub(super) fn arrived(&mut self, part: PartDone, generation: &Generation) {
        let mut at = 0;
        let before = self.pieces.iter().take(usize::from(part.number));
        let Some(range) = before.map(|piece| piece.range(&mut at)).last() else {
            return;
        };
        let of = generation.extents.slice(range.start, range.end);
        self.of.insert(part.number, of);
        self.done.insert(part.number, part);
    }

    /// Whether none of the places that a part was made of was written again.
    fn is_as_it_was(&self, of: &Extents) -> bool {
        let Some((file, early)) = &self.early else {
            return true;
        };
        of.iter().all(|piece| match &piece.from {
            Source::Local { file: from, offset } if from == file => {
                !early.is_rewritten(&(*offset..offset + piece.len))
            }
            Source::Local { .. } | Source::Remote { .. } => true,
        })
    }
}

impl Hands {
    /// The upload that broke off for this change, or for an earlier one of the key that has some of
    /// its bytes, if there is one. `NoSuchUpload`: S3 does not know it any more.
    pub(super) async fn continued(
        &self,
        work: &Work,
        plan: &Planned,
    ) -> Result<Option<Half>, Fail> {
        let half = self.halves.lock().remove(&work.key);
        let Some(mut half) = half else {
            return Ok(None);
        };
        let is_same = half.number == work.number;
        if is_same && half.pieces == plan.pieces && half.early.is_none() {
            return Ok(Some(half));
        }
        let done = if half.pieces.is_empty() && half.early.is_none() {
            self.parts_there(work, &half.upload, &plan.pieces).await
        } else {
            self.still_right(work, &half, &plan.pieces).await
        };
        let done = match done {
            Ok(done) => done,
            Err(gone @ Fail::Store(StoreError::NoSuchUpload)) => return Err(gone),
            Err(fail) => {
                self.keep(&work.key, half, &fail).await;
                return Err(fail);
            }
        };
        let lost = half.done.iter().filter(|(n, _)| !done.contains_key(n));
        let lost: u64 = lost.filter_map(|(_, part)| part.size).sum();
        if done.is_empty() && !(half.number == work.number && half.pieces.is_empty()) {
            self.waste(&half).await;
            return Ok(None);
        }
        self.count_resent(lost);
        half.pieces.clone_from(&plan.pieces);
        half.part = plan.part;
        (half.of, half.done) = (HashMap::new(), BTreeMap::new());
        for part in done.into_values() {
            half.arrived(part, &work.generation);
        }
        if half.number == work.number {
            return Ok(Some(half));
        }
        self.take_over(work, half).await
    }

    /// An upload that was begun for an earlier generation becomes this one's. `None`: it was
    /// superseded too.
    async fn take_over(&self, work: &Work, mut half: Half) -> Result<Option<Half>, Fail> {
        match self.begin(&work.key, work.number).await {
            Ok(true) => {}
            Ok(false) => {
                self.halves.lock().insert(work.key.clone(), half);
                return Ok(None);
            }
            Err(fail) => {
                self.keep(&work.key, half, &fail).await;
                return Err(fail);
            }
        }
        half.number = work.number;
        self.note_upload(&work.key, &half).await?;
        Ok(Some(half))
    }

    /// The parts that hold what this generation has there.
    async fn still_right(
        &self,
        work: &Work,
        half: &Half,
        pieces: &[Piece],
    ) -> Result<BTreeMap<u16, PartDone>, Fail> {
        let (mut done, mut at) = (BTreeMap::new(), 0);
        for (number, piece) in (1u16..).zip(pieces) {
            let range = piece.range(&mut at);
            let (Some(part), Some(of)) = (half.done.get(&number), half.of.get(&number)) else {
                continue;
            };
            let then = half.pieces.get(usize::from(number) - 1);
            let now = work.generation.extents.slice(range.start, range.end);
            if then != Some(piece) || (now != *of && !seeded::is(Bug::OldPartsReused)) {
                continue;
            }
            let is_right = half.is_as_it_was(of)
                || part.crc64 == Some(self.crc64_of(work, range.start, range.end).await?);
            if is_right || seeded::is(Bug::PartNotCompared) {
                done.insert(number, part.clone());
            }
        }
        Ok(done)
    }

    async fn crc64_of(&self, work: &Work, start: u64, end: u64) -> Result<u64, Fail> {
        let (payload, _fetched) = self.payload(&work.generation, start, end).await?;
        Ok(payload.crc64)
    }

    /// Which of `pieces` S3 has already: those of the same length and checksum. What it does not
    /// tell the checksum of, and copies (which carry no data), is made again.
    async fn parts_there(
        &self,
        work: &Work,
        upload: &UploadId,
        pieces: &[Piece],
    ) -> Result<BTreeMap<u16, PartDone>, Fail> {
        let mut done = BTreeMap::new();
        for part in self.store.list_parts(&work.object, upload).await? {
            let piece = usize::from(part.number).checked_sub(1);
            let Some(Piece::Send { start, end }) = piece.and_then(|at| pieces.get(at)) else {
                continue;
            };
            let (Some(crc64), Some(size)) = (part.crc64, part.size) else {
                continue;
            };
            if size == end - start {
                let is_right = self.crc64_of(work, *start, *end).await? == crc64;
                if is_right || seeded::is(Bug::PartNotCompared) {
                    done.insert(part.number, part);
                }
            }
        }
        Ok(done)
    }

    pub(super) async fn keep(&self, key: &RelKey, half: Half, fail: &Fail) {
        let is_passing =
            fail.refusal().is_none() && !matches!(fail, Fail::SourceGone | Fail::Moved);
        let kept = {
            let mut halves = self.halves.lock();
            let fits = is_passing && halves.len() < HALVES_MAX;
            if fits {
                halves.insert(key.clone(), half.clone());
            }
            fits
        };
        if !kept {
            self.waste(&half).await;
        }
    }

    /// Whether one more can be kept.
    pub(super) fn has_room_for_half(&self) -> bool {
        self.halves.lock().len() < HALVES_MAX
    }

    /// Tells the log of an upload, durably, or aborts it.
    pub(super) async fn note_upload(&self, key: &RelKey, half: &Half) -> Result<(), Fail> {
        let noted = self.record(Record::UploadBegun {
            key: key.clone(),
            number: half.number,
            upload: half.upload.0.as_ref().to_owned(),
            part: half.part,
            stamp: half.stamp,
        });
        let noted = match noted {
            Ok(_) if seeded::is(Bug::UploadForgotten) => Ok(()),
            Ok(seq) => self.log.flushed(seq).await.map_err(Fail::from),
            Err(error) => Err(error),
        };
        if let Err(error) = noted {
            self.waste(half).await;
            return Err(error);
        }
        Ok(())
    }

    /// Aborts uploads that broke off and that nobody wants any more.
    pub(super) async fn sweep(&self) {
        for key in self.stale_uploads() {
            let half = self.halves.lock().remove(&key);
            if let Some(half) = half {
                self.waste(&half).await;
            }
        }
        for (key, upload) in self.orphans() {
            self.abort(&(&key).into(), &UploadId(upload.into())).await;
        }
    }

    /// Uploads of ours that nothing names and nothing here remembers.
    pub(super) fn orphans(&self) -> Vec<(RelKey, String)> {
        let mut all = self.tree.unwanted_uploads();
        let halves = self.halves.lock();
        all.retain(|(_, upload)| halves.values().all(|half| *half.upload.0 != **upload));
        all
    }

    /// What `sweep` would abort.
    pub(super) fn stale_uploads(&self) -> Vec<RelKey> {
        let halves = self.halves.lock();
        let all = halves.iter().map(|(key, half)| {
            let is_early = half.early.is_some();
            (key.clone(), half.number, half.upload.clone(), is_early)
        });
        let all: Vec<_> = all.collect();
        // The tree is locked before a leaf, never behind one.
        drop(halves);
        let is_stale = |(key, number, upload, is_early): &(RelKey, Seq, UploadId, bool)| {
            self.tree.pending(|all| {
                let entry = all.get(key).filter(|entry| entry.dead.is_none());
                entry.is_none_or(|entry| {
                    let names = entry.uploading.as_ref();
                    let is_named = names.is_some_and(|begun| *begun.upload == *upload.0);
                    let is_wanted =
                        entry.number == *number || (*is_early && entry.want != Want::Gone);
                    !(is_named && is_wanted)
                })
            })
        };
        let stale = all.into_iter().filter(is_stale);
        stale.map(|(key, ..)| key).collect()
    }

    /// Bytes that were sent and are of no use.
    pub(super) fn count_resent(&self, bytes: u64) {
        self.resent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Aborts an upload. After an error the log still has it: it is tried again at the next sweep.
    pub(super) async fn abort(&self, key: &ObjectKey, upload: &UploadId) {
        let upload_id = upload.0.as_ref().to_owned();
        match self.store.abort(key, upload).await {
            Ok(()) => {
                let ended = Record::UploadEnded { upload: upload_id };
                if let Err(error) = self.tree.note(ended) {
                    tracing::debug!(%error, "that an upload was aborted is not kept");
                }
            }
            Err(error) => {
                *self.abort_failed.lock() = Some(self.tree.clock());
                tracing::warn!(%error, "an upload that is not wanted any more could not be aborted");
            }
        }
    }
}

//! A multipart upload: parts that are sent or copied, staged in the log, then completed.
//!
//! Invariants:
//! - what was staged (also by an earlier run) only wants Complete; an upload that is gone was
//!   completed by a request whose answer was lost, or is made again;
//! - an upload that broke off for a passing reason is continued with the parts it has (`halves`); one
//!   that ended for any other reason is aborted;
//! - its id is durable in the log before its first part is sent, so one that a crash broke off is
//!   continued (or aborted) too;
//! - one that was begun for an earlier generation bears that one's stamp, so that is what it becomes:
//!   the generation it was completed for follows by what it differs in.

use std::collections::{BTreeMap, HashMap};

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::conflict::Verdict;
use super::fail::Fail;
use super::flights::Underway;
use super::halves::Half;
use super::hands::{Guard, Hands, Progress};
use super::pieces::{Piece, share};
use super::resolve::as_sent;
use super::send::Work;
use super::waits::staged;
use crate::log::Record;
use crate::store::{PartDone, StoreError, UploadId};
use crate::tree::Pending;
use crate::types::{Base, ETag, Headers, ObjectKey, ObjectMeta, RelKey, Seq, Want};

/// Changes that are remembered to have been made anew.
const REMADE_MAX: usize = 1000;

/// What is to be sent.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) pieces: Vec<Piece>,
    /// Bytes of a part, as they were cut.
    pub(super) part: u64,
}

/// How far the parts came.
enum Parts {
    All(Box<Half>),
    /// What is wanted has changed: the upload was aborted.
    Moot,
    /// S3 knows the upload no more: it was completed, or is to be made again.
    Lost,
}

impl Hands {
    /// Brings the parts to S3, and completes the upload unless it is only to be staged.
    pub(super) async fn send_parts(
        &self,
        work: &Work,
        headers: Headers,
        plan: Planned,
        stage: bool,
    ) -> Result<Progress, Fail> {
        let half = match self.upload(work, &headers, plan).await? {
            Parts::All(half) => *half,
            Parts::Moot => return Ok(Progress::Again),
            Parts::Lost => return self.after_lost(work).await,
        };
        let etag = |part: &PartDone| (part.number, part.etag.as_str().to_owned());
        let staged_now = self.record(Record::Staged {
            key: work.key.clone(),
            number: work.number,
            upload: half.upload.0.as_ref().to_owned(),
            parts: half.done.values().map(etag).collect(),
        });
        let seq = match staged_now {
            Ok(seq) => seq,
            Err(error) => {
                // What arrived is not sent again once the log takes records.
                self.keep(&work.key, half, &error).await;
                return Err(error);
            }
        };
        if !stage {
            return self.complete(work, headers, half).await;
        }
        let upload = half.upload;
        self.log.flushed(seq).await?;
        let is_kept =
            |entry: &Pending| staged(entry).is_some_and(|(_, kept, _)| kept == &*upload.0);
        let is_kept = self
            .tree
            .pending(|all| all.get(&work.key).is_some_and(is_kept));
        if !is_kept {
            // Superseded just before.
            self.abort(&work.object, &upload).await;
        }
        Ok(Progress::Settled)
    }

    /// An upload that S3 knows no more may have been completed, by a request of which a power cut took
    /// the record: what is there already is not sent again.
    async fn after_lost(&self, work: &Work) -> Result<Progress, Fail> {
        let met = self.ask(&work.object).await?;
        match self.judge(&work.key, &work.pending, met.as_ref()) {
            Verdict::Sent | Verdict::Earlier(_) => self.resolve(work, met).await,
            _ => Ok(Progress::Again),
        }
    }

    async fn complete(&self, work: &Work, headers: Headers, half: Half) -> Result<Progress, Fail> {
        let when = match self.guard(&work.object, &work.pending.base).await? {
            Guard::When(when) => when,
            Guard::Met(met) => return self.resolve(work, met.map(|met| *met)).await,
        };
        let parts: Vec<_> = half.done.into_values().collect();
        let complete = self
            .store
            .complete(&work.object, &half.upload, &parts, &when);
        match complete.await {
            // The next try finds it staged, and asks.
            Err(StoreError::NoSuchUpload) => Ok(Progress::Again),
            Err(StoreError::Invalid(why)) => self.remake(work, &half.upload, why).await,
            Ok(meta) if half.stamp != work.number => {
                self.became_earlier(work, half.stamp, meta, half.headers)
                    .await
            }
            done => self.published(work, headers, &when, done).await,
        }
    }

    /// Completes what was staged before. `None`: nothing was, or it is gone.
    pub(super) async fn finish_staged(
        &self,
        work: &Work,
        stage: bool,
    ) -> Result<Option<Progress>, Fail> {
        let Some((number, upload, parts)) = staged(&work.pending) else {
            return Ok(None);
        };
        let upload = UploadId(upload.into());
        if number != work.number {
            // The planner has it finished where that is of use.
            self.give_up(&work.key, work.number, &upload).await?;
            return Ok(None);
        }
        if stage {
            return Ok(Some(Progress::Settled));
        }
        let when = match self.guard(&work.object, &work.pending.base).await? {
            Guard::When(when) => when,
            Guard::Met(met) => {
                let met = met.map(|met| *met);
                return self.resolve(work, met).await.map(Some);
            }
        };
        if !self.begin(&work.key, work.number).await? {
            return Ok(Some(Progress::Again));
        }
        let parts = as_done(parts);
        let complete = self.store.complete(&work.object, &upload, &parts, &when);
        match complete.await {
            Err(StoreError::NoSuchUpload) => {
                let met = self.ask(&work.object).await?;
                match self.judge(&work.key, &work.pending, met.as_ref()) {
                    Verdict::Sent | Verdict::Earlier(_) => self.resolve(work, met).await.map(Some),
                    _ => Ok(None),
                }
            }
            Err(StoreError::Invalid(why)) => self.remake(work, &upload, why).await.map(Some),
            Ok(meta) if work.pending.stamp.is_some() => {
                let stamp = work.pending.stamp.unwrap_or(work.number);
                let became = self.became_earlier(work, stamp, meta, None).await;
                became.map(Some)
            }
            Ok(meta) if !work.generation.attrs.is_complete() => {
                // What was sent with Create was inherited, and is not known any more.
                let met = self.ask(&work.object).await?;
                let headers = met.filter(|met| met.id == meta.id);
                let headers = headers.and_then(|met| met.headers).unwrap_or_default();
                let done = self.published(work, headers, &when, Ok(meta)).await;
                done.map(Some)
            }
            done => {
                let is_new = work.pending.base == Base::Absent;
                let headers = self.dress(&work.generation.attrs, work.number, is_new);
                self.published(work, headers, &when, done).await.map(Some)
            }
        }
    }

    /// S3 will not make the object of these parts: it lost or damaged one, or has another. They are
    /// sent once more; if that does not help either, it is for good.
    async fn remake(&self, work: &Work, upload: &UploadId, why: String) -> Result<Progress, Fail> {
        tracing::warn!(why, "the parts of an upload could not be made an object of");
        self.give_up(&work.key, work.number, upload).await?;
        self.count_resent(work.generation.len);
        let is_first = {
            let mut remade = self.remade.lock();
            if remade.len() >= REMADE_MAX {
                remade.clear();
            }
            remade.insert((work.key.clone(), work.number))
        };
        match is_first {
            true => Ok(Progress::Again),
            false => Err(StoreError::Invalid(why).into()),
        }
    }

    /// The upload that was completed for `work` was begun for an earlier generation, and is stamped so:
    /// the bytes are those of `work`, whose attributes are still to follow.
    async fn became_earlier(
        &self,
        work: &Work,
        stamp: Seq,
        meta: ObjectMeta,
        headers: Option<Headers>,
    ) -> Result<Progress, Fail> {
        let mut object = as_sent(meta);
        if let Some(headers) = headers {
            (object.size, object.headers) = (work.generation.len, headers);
        } else if let Some(met) = self.ask(&work.object).await?
            && met.id == object.id
        {
            object = as_sent(met);
        }
        let extents = &work.generation.extents;
        self.sent(&work.key, stamp, Some(extents), object).await?;
        Ok(Progress::Again)
    }

    /// Completes the upload of a generation that was superseded since it was staged.
    pub(super) async fn finish_older(&self, key: &RelKey, number: Seq) -> Result<Progress, Fail> {
        let Some(pending) = self.look(key, number) else {
            return Ok(Progress::Again);
        };
        let Some((older, upload, parts)) = staged(&pending).filter(|(n, ..)| *n != number) else {
            return Ok(Progress::Again);
        };
        let (object, upload) = (ObjectKey::from(key), UploadId(upload.into()));
        let Guard::When(when) = self.guard(&object, &pending.base).await? else {
            self.give_up(key, number, &upload).await?;
            return Ok(Progress::Again);
        };
        self.record(Record::Begun {
            key: key.clone(),
            number: older,
        })?;
        let parts = as_done(parts);
        match self.store.complete(&object, &upload, &parts, &when).await {
            Ok(meta) => {
                let met = self.ask(&object).await?;
                let sent = met.filter(|met| met.id == meta.id).unwrap_or(meta);
                self.sent(key, older, None, as_sent(sent)).await
            }
            Err(error) if error.is_transient() || error.is_silence() => Err(error.into()),
            Err(error) => {
                tracing::debug!(%error, "an older upload was given up");
                self.give_up(key, number, &upload).await?;
                Ok(Progress::Again)
            }
        }
    }

    /// Aborts what was staged, and records that there is nothing to be completed any more.
    async fn give_up(&self, key: &RelKey, number: Seq, upload: &UploadId) -> Result<(), Fail> {
        self.abort(&key.into(), upload).await;
        self.record(Record::Staged {
            key: key.clone(),
            number,
            upload: String::new(),
            parts: Vec::new(),
        })?;
        Ok(())
    }

    async fn upload(&self, work: &Work, headers: &Headers, plan: Planned) -> Result<Parts, Fail> {
        let mut half = match self.continued(work, &plan).await {
            Ok(Some(half)) => half,
            Ok(None) if !self.begin(&work.key, work.number).await? => return Ok(Parts::Moot),
            Ok(None) => self.create(work, headers, plan).await?,
            Err(Fail::Store(StoreError::NoSuchUpload)) => return Ok(Parts::Lost),
            Err(fail) => return Err(fail),
        };
        match self.missing_parts(work, &mut half).await {
            Ok(true) => Ok(Parts::All(Box::new(half))),
            Ok(false) => {
                self.abort(&half.object, &half.upload).await;
                Ok(Parts::Moot)
            }
            Err(Fail::Store(StoreError::NoSuchUpload)) => Ok(Parts::Lost),
            Err(fail) => {
                self.keep(&work.key, half, &fail).await;
                Err(fail)
            }
        }
    }

    /// Begins an upload, and makes sure that it is not forgotten.
    async fn create(&self, work: &Work, headers: &Headers, plan: Planned) -> Result<Half, Fail> {
        let upload = self.store.create_multipart(&work.object, headers).await?;
        let half = Half {
            number: work.number,
            stamp: work.number,
            object: work.object.clone(),
            upload,
            part: plan.part,
            pieces: plan.pieces,
            done: BTreeMap::new(),
            of: HashMap::new(),
            early: None,
            headers: Some(headers.clone()),
        };
        self.note_upload(&work.key, &half).await?;
        Ok(half)
    }

    /// Sends what an upload lacks, as many parts at a time as have their turn. `false`: nobody wants it any more.
    async fn missing_parts(&self, work: &Work, half: &mut Half) -> Result<bool, Fail> {
        let numbered = half.pieces.iter().zip(1u16..);
        let mut todo = numbered.filter(|(_, number)| !half.done.contains_key(number));
        let (total, settled) = sizes(half);
        let underway = self.flights.begin(&work.key, total, settled);
        let at_once = self.config.concurrency.max(1);
        let mut running = FuturesUnordered::new();
        let mut arrived = Vec::new();
        let mut end = Ok(true);
        loop {
            while end == Ok(true) && running.len() < at_once {
                let Some((piece, number)) = todo.next() else {
                    break;
                };
                if self.is_moot(work) {
                    end = Ok(false);
                } else {
                    running.push(self.part(work, &half.upload, number, piece, &underway));
                }
            }
            // Also after a failure what is in flight is waited for: it may be a part less to send.
            match running.next().await {
                Some(Ok(Some(part))) => arrived.push(part),
                Some(Ok(None)) => end = end.and(Ok(false)),
                Some(Err(fail)) => end = Err(fail),
                None => break,
            }
        }
        drop(running);
        for part in arrived {
            half.arrived(part, &work.generation);
        }
        end
    }

    /// `None`: when its turn came, nobody wanted it any more.
    async fn part(
        &self,
        work: &Work,
        upload: &UploadId,
        number: u16,
        piece: &Piece,
        underway: &Underway<'_>,
    ) -> Result<Option<PartDone>, Fail> {
        match piece {
            Piece::Copy { object, range, len } => {
                let (store, range) = (&self.store, range.clone());
                let copied = store.copy_part(&work.object, upload, number, object, range);
                let done = copied.await.map_err(|error| match error {
                    StoreError::Stale | StoreError::Precondition | StoreError::NotFound => {
                        Fail::SourceGone
                    }
                    error => error.into(),
                })?;
                // S3 does not say how long it is: whoever completes would have to ask.
                let size = done.size.or(Some(*len));
                Ok(Some(PartDone { size, ..done }))
            }
            Piece::Send { start, end } => {
                let _turn = self.lanes.turn(end - start).await;
                if self.is_moot(work) {
                    return Ok(None);
                }
                let (payload, _fetched) = self.payload(&work.generation, *start, *end).await?;
                let (payload, moving) = underway.watch(payload);
                let part = self
                    .store
                    .upload_part(&work.object, upload, number, &payload);
                let sent = self.lanes.carry(payload.len, part).await;
                match &sent {
                    Ok(_) => moving.settled(payload.len),
                    Err(_) => self.count_resent(payload.len),
                }
                Ok(Some(sent?))
            }
        }
    }

    /// Whether what is being sent is of no use: superseded by something that shares none of it.
    fn is_moot(&self, work: &Work) -> bool {
        self.tree.pending(|all| match all.get(&work.key) {
            Some(entry) if entry.number == work.number => false,
            Some(entry) => match &entry.want {
                Want::Object(newer) => !share(&newer.extents, &work.generation.extents),
                Want::Open { .. } | Want::Gone => true,
            },
            None => true,
        })
    }
}

/// Bytes of an upload that go over the line, and those of them that S3 has already.
fn sizes(half: &Half) -> (u64, u64) {
    let (mut total, mut settled) = (0, 0);
    for (piece, number) in half.pieces.iter().zip(1u16..) {
        if let Piece::Send { start, end } = piece {
            total += end - start;
            if half.done.contains_key(&number) {
                settled += end - start;
            }
        }
    }
    (total, settled)
}

/// Parts as the log kept them.
fn as_done(parts: &[(u16, String)]) -> Vec<PartDone> {
    let done = |(number, etag): &(u16, String)| PartDone {
        number: *number,
        etag: ETag::new(etag),
        crc64: None,
        size: None,
    };
    parts.iter().map(done).collect()
}

//! Carries out what `conflict` decides.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::conflict::{Verdict, is_only_metadata, reapplied, sibling, verdict};
use super::fail::Fail;
use super::hands::{Hands, Progress};
use super::send::Work;
use super::waits::staged;
use crate::log::{Record, SentObject};
use crate::store::{CopyRequest, StoreError, UploadId};
use crate::tree::Pending;
use crate::types::{Base, Extents, ObjectMeta, RelKey, Seq};

impl Hands {
    /// Something else than the believed version is at the key.
    pub(super) async fn resolve(
        &self,
        work: &Work,
        met: Option<ObjectMeta>,
    ) -> Result<Progress, Fail> {
        let (key, pending) = (&work.key, &work.pending);
        if self.look(key, work.number).is_none() {
            // Superseded: the newer one may build on another base, it has to meet this itself.
            return Ok(Progress::Again);
        }
        match (self.judge(key, pending, met.as_ref()), met) {
            (Verdict::Sent, Some(meta)) => {
                // Metadata may have been set again on somebody else's bytes: those are not known.
                let generation = &work.generation;
                let is_known = meta.size == generation.len
                    && !is_only_metadata(key, generation, &pending.base);
                let extents = is_known.then_some(&generation.extents);
                self.sent(key, work.number, extents, as_sent(meta)).await
            }
            (Verdict::Reapply, Some(meta)) => {
                self.count_conflict(key);
                self.reapply(work, meta).await
            }
            (Verdict::Earlier(number), Some(meta)) => {
                // Of an upload that was completed for this change, but begun for an earlier one.
                let is_mine = pending.stamp == Some(number) && meta.size == work.generation.len;
                let extents = is_mine.then_some(&work.generation.extents);
                self.earlier(key, number, extents, meta).await
            }
            (Verdict::Over(base), met) => {
                let is_foreign = base != pending.base;
                self.record(Record::Conflict {
                    key: key.clone(),
                    number: work.number,
                    base,
                    aside: None,
                })?;
                // A directory that was made there too, or by the server, is what was wanted.
                if key.is_dir() && pending.base == Base::Absent {
                    self.tree.learn(key, met.as_ref(), self.tree.now());
                } else if is_foreign {
                    self.learn_foreign(key, met.as_ref());
                }
                Ok(Progress::Again)
            }
            (Verdict::Aside(base), met) => {
                self.set_aside(work, base).await?;
                self.learn_foreign(key, met.as_ref());
                Ok(Progress::Again)
            }
            (Verdict::GuardRefused, _) => {
                let mut caps = self.caps.lock();
                match key.is_dir() {
                    true => caps.marker_guards = false,
                    false => caps.if_match = false,
                }
                Ok(Progress::Again)
            }
            // The others are about removals, or about what was met and is not there.
            (
                Verdict::Sent
                | Verdict::Earlier(_)
                | Verdict::Reapply
                | Verdict::Removed
                | Verdict::Spared,
                _,
            ) => Ok(Progress::Again),
        }
    }

    /// The verdict on what was met.
    pub(super) fn judge(
        &self,
        key: &RelKey,
        pending: &Pending,
        met: Option<&ObjectMeta>,
    ) -> Verdict {
        let (mount, policy) = (self.log.mount_id(), self.config.conflict);
        verdict(key, pending, met, mount, policy)
    }

    fn count_conflict(&self, key: &RelKey) {
        self.conflicts.fetch_add(1, Ordering::Relaxed);
        tracing::info!("an object that was changed here was changed by somebody else too");
        tracing::debug!(%key, "the object that both changed");
    }

    /// Somebody else changed the object: counted, and shown from now on. It was met while this
    /// key's job was in flight, so no result of ours can be newer than the answer.
    pub(super) fn learn_foreign(&self, key: &RelKey, met: Option<&ObjectMeta>) {
        self.count_conflict(key);
        self.tree.learn(key, met, self.tree.now());
    }

    /// The answer to an earlier generation was lost: it is the base of what is wanted now.
    pub(super) async fn earlier(
        &self,
        key: &RelKey,
        number: Seq,
        extents: Option<&Extents>,
        meta: ObjectMeta,
    ) -> Result<Progress, Fail> {
        self.sent(key, number, extents, as_sent(meta)).await?;
        Ok(Progress::Again)
    }

    async fn set_aside(&self, work: &Work, base: Base) -> Result<(), Fail> {
        // S3 has just answered, so the time was learnt if the system's clock is not to be believed.
        let now = crate::clock::wall().duration_since(SystemTime::UNIX_EPOCH);
        let secs = now.map_or(0, |since| since.as_secs());
        let mount = self.log.mount_id();
        // One of the same second may wait here, or be in the bucket already.
        let is_free = |key: &RelKey| {
            self.tree.known(key).is_none() && self.tree.pending(|all| all.get(key).is_none())
        };
        let rules = &self.config.aside;
        let mut names = (secs..).map_while(|secs| sibling(&work.key, mount, secs, rules));
        let Some(aside) = names.find(is_free) else {
            return Err(Fail::Disk(libc::ENAMETOOLONG));
        };
        let seq = self.record(Record::Conflict {
            key: work.key.clone(),
            number: work.number,
            base,
            aside: Some(aside),
        })?;
        self.log.flushed(seq).await?;
        if let Some((_, upload, _)) = staged(&work.pending) {
            self.abort(&work.object, &UploadId(upload.into())).await;
        }
        Ok(())
    }

    /// Only metadata was changed here: it is set on the version that is there now.
    async fn reapply(&self, work: &Work, met: ObjectMeta) -> Result<Progress, Fail> {
        let theirs = met.headers.clone().unwrap_or_default();
        let attrs = reapplied(&work.generation.attrs, &theirs);
        let headers = self.dress(&attrs, work.number, false);
        if !self.begin(&work.key, work.number).await? {
            return Ok(Progress::Again);
        }
        let request = CopyRequest {
            source: met.id.clone(),
            key: work.object.clone(),
            headers: headers.clone(),
        };
        let copied = match self.store.copy(&request).await {
            Ok(copied) => copied,
            // Once more somebody was faster.
            Err(StoreError::Stale | StoreError::Precondition | StoreError::NotFound) => {
                return Ok(Progress::Again);
            }
            Err(error) => return Err(error.into()),
        };
        let content = Extents::whole(met.id, met.size);
        let object = SentObject {
            id: copied.id,
            size: met.size,
            modified: copied.modified,
            headers,
        };
        self.sent(&work.key, work.number, Some(&content), object)
            .await
    }
}

/// A version that HEAD showed, as the log keeps it.
pub(super) fn as_sent(meta: ObjectMeta) -> SentObject {
    SentObject {
        id: meta.id,
        size: meta.size,
        modified: meta.modified,
        headers: meta.headers.unwrap_or_default(),
    }
}

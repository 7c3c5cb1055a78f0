//! Brings keys to hold nothing.

use std::collections::HashMap;

use super::conflict::Verdict;
use super::fail::Fail;
use super::hands::{Hands, Progress};
use super::waits::staged;
use crate::log::Record;
use crate::store::{StoreError, UNMADE, UploadId};
use crate::tree::Pending;
use crate::types::{Base, ETag, ObjectKey, ObjectMeta, RelKey, Seq, Want};

impl Hands {
    /// Settles a removal of what never was there.
    pub(super) fn drop_change(&self, key: &RelKey, number: Seq) -> Result<Progress, Fail> {
        if self.removal(key, number).is_some() {
            let key = key.clone();
            self.record(Record::Removed { key, number })?;
        }
        Ok(Progress::Settled)
    }

    /// Removes the object at `key`, if it is the believed one.
    pub(super) async fn remove(&self, key: &RelKey, number: Seq) -> Result<Progress, Fail> {
        let Some(pending) = self.removal(key, number) else {
            return Ok(Progress::Again);
        };
        let object = ObjectKey::from(key);
        if let Some((_, upload, _)) = staged(&pending) {
            let upload = UploadId(upload.into());
            self.abort(&object, &upload).await;
        }
        match &pending.base {
            Base::Absent if pending.begun || key.is_dir() => match self.ask(&object).await? {
                Some(met) if met.id.etag.as_str() == UNMADE => {
                    self.delete_unmade(key, &object, &pending).await
                }
                met => self.resolve_removal(key, &pending, met).await,
            },
            Base::Absent => self.removed(&[(key.clone(), number)]).await,
            Base::Version(etag) => self.delete(key, &object, &pending, etag).await,
        }
    }

    /// A directory that nobody made and that is empty now. If it is not, the server lets it be.
    async fn delete_unmade(
        &self,
        key: &RelKey,
        object: &ObjectKey,
        pending: &Pending,
    ) -> Result<Progress, Fail> {
        if !self.begin(key, pending.number).await? {
            return Ok(Progress::Again);
        }
        match self.store.delete(object, None).await {
            Ok(()) | Err(StoreError::NotFound) => {
                self.removed(&[(key.clone(), pending.number)]).await
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn delete(
        &self,
        key: &RelKey,
        object: &ObjectKey,
        pending: &Pending,
        etag: &ETag,
    ) -> Result<Progress, Fail> {
        let caps = self.caps.lock().clone();
        let is_guarded = caps.delete_if_match && caps.guards(object);
        if !is_guarded {
            let met = self.ask(object).await?;
            if met.as_ref().map(|meta| &meta.id.etag) != Some(etag) {
                return self.resolve_removal(key, pending, met).await;
            }
            self.caps.lock().unguarded += 1;
        }
        if !self.begin(key, pending.number).await? {
            return Ok(Progress::Again);
        }
        let guard = is_guarded.then_some(etag);
        match self.store.delete(object, guard).await {
            Ok(()) | Err(StoreError::NotFound) => {
                self.removed(&[(key.clone(), pending.number)]).await
            }
            Err(StoreError::Precondition | StoreError::Stale) => {
                let met = self.ask(object).await?;
                self.resolve_removal(key, pending, met).await
            }
            Err(StoreError::NotImplemented(_)) if is_guarded => {
                self.caps.lock().delete_if_match = false;
                Ok(Progress::Again)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Something else than the believed version is at a key that is to be removed.
    async fn resolve_removal(
        &self,
        key: &RelKey,
        pending: &Pending,
        met: Option<ObjectMeta>,
    ) -> Result<Progress, Fail> {
        if self.look(key, pending.number).is_none() {
            return Ok(Progress::Again);
        }
        match (self.judge(key, pending, met.as_ref()), met) {
            (Verdict::Earlier(number), Some(meta)) => self.earlier(key, number, None, meta).await,
            (Verdict::GuardRefused, _) => {
                let mut caps = self.caps.lock();
                match key.is_dir() {
                    true => caps.marker_guards = false,
                    false => caps.delete_if_match = false,
                }
                Ok(Progress::Again)
            }
            (Verdict::Spared, met) => {
                self.record_removed(&[(key.clone(), pending.number)])
                    .await?;
                self.learn_foreign(key, met.as_ref());
                Ok(Progress::Settled)
            }
            (Verdict::Removed, _) => self.removed(&[(key.clone(), pending.number)]).await,
            // The others are about contents.
            (
                Verdict::Sent
                | Verdict::Earlier(_)
                | Verdict::Over(_)
                | Verdict::Aside(_)
                | Verdict::Reapply,
                _,
            ) => Ok(Progress::Again),
        }
    }

    /// Removes several by one request, each only if it is the believed version.
    pub(super) async fn remove_batch(&self, all: &[(RelKey, Seq)]) -> Result<Progress, Fail> {
        if !self.caps.lock().delete_if_match {
            return self.one_by_one(all).await;
        }
        let (mut wanted, mut keys, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for (key, number) in all {
            let Some(pending) = self.removal(key, *number) else {
                continue;
            };
            match self.batch_guard(key, &pending).await? {
                Some(guard) if self.begin(key, *number).await? => {
                    keys.push((ObjectKey::from(key), guard));
                    wanted.push((key.clone(), pending));
                }
                Some(_) => {}
                None => kept.push((key.clone(), pending, StoreError::Precondition)),
            }
        }
        let refused: HashMap<_, _> = match self.store.delete_batch(&keys).await {
            Ok(refused) => refused.into_iter().collect(),
            // Or it does not understand the guards.
            Err(StoreError::NotImplemented(_) | StoreError::Invalid(_)) => {
                return self.one_by_one(all).await;
            }
            Err(error) => return Err(error.into()),
        };
        wanted.retain(|(key, pending)| {
            let error = refused.get(&ObjectKey::from(key));
            let error = error.filter(|error| **error != StoreError::NotFound);
            kept.extend(error.map(|error| (key.clone(), pending.clone(), error.clone())));
            error.is_none()
        });
        let gone = wanted.into_iter().map(|(key, entry)| (key, entry.number));
        self.removed(&gone.collect::<Vec<_>>()).await?;
        self.refused(kept).await
    }

    /// The ETag that guards a key of a batch; that of a marker is asked for first where it does not
    /// guard. `None`: something else is there.
    async fn batch_guard(
        &self,
        key: &RelKey,
        pending: &Pending,
    ) -> Result<Option<Option<ETag>>, Fail> {
        let object = ObjectKey::from(key);
        if self.caps.lock().guards(&object) {
            return Ok(Some(match &pending.base {
                Base::Version(etag) => Some(etag.clone()),
                Base::Absent => None,
            }));
        }
        let met = self.ask(&object).await?;
        if Base::of(met.as_ref().map(|meta| &meta.id)) != pending.base {
            return Ok(None);
        }
        self.caps.lock().unguarded += 1;
        Ok(Some(None))
    }

    /// What of a batch was not removed: each is met as if it had been asked for alone.
    async fn refused(&self, all: Vec<(RelKey, Pending, StoreError)>) -> Result<Progress, Fail> {
        let (mut progress, mut failed) = (Progress::Settled, None);
        for (key, pending, error) in all {
            let done = match error {
                StoreError::Precondition | StoreError::Stale => {
                    let met = self.ask(&ObjectKey::from(&key)).await?;
                    self.resolve_removal(&key, &pending, met).await
                }
                error => self.parked_or(&key, pending.number, error.into()).await,
            };
            match done {
                Ok(Progress::Settled) => {}
                Ok(Progress::Again) => progress = Progress::Again,
                Err(fail) => failed = Some(fail),
            }
        }
        failed.map_or(Ok(progress), Err)
    }

    async fn one_by_one(&self, all: &[(RelKey, Seq)]) -> Result<Progress, Fail> {
        let mut progress = Progress::Settled;
        for (key, number) in all {
            let done = match self.remove(key, *number).await {
                Err(fail) => self.parked_or(key, *number, fail).await,
                done => done,
            };
            if done? == Progress::Again {
                progress = Progress::Again;
            }
        }
        Ok(progress)
    }

    /// Nothing is at these keys any more.
    async fn removed(&self, all: &[(RelKey, Seq)]) -> Result<Progress, Fail> {
        self.stays()?;
        // Before the record: if this fails, all of it is done again.
        self.keep_emptied_dirs(all).await?;
        self.record_removed(all).await?;
        Ok(Progress::Settled)
    }

    async fn record_removed(&self, all: &[(RelKey, Seq)]) -> Result<(), Fail> {
        let mut last = None;
        for (key, number) in all {
            let (key, number) = (key.clone(), *number);
            last = Some(self.record(Record::Removed { key, number })?);
        }
        if let Some(seq) = last {
            self.log.flushed(seq).await?;
            self.tidy().await;
        }
        Ok(())
    }

    fn removal(&self, key: &RelKey, number: Seq) -> Option<Pending> {
        let entry = self.look(key, number)?;
        (entry.want == Want::Gone).then_some(entry)
    }
}

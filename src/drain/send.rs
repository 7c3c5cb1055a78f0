//! Brings one key to a wanted content: attributes, guard, the requests, the record.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::conflict::Verdict;
use super::fail::Fail;
use super::hands::{Guard, Hands, Progress};
use super::parts::Planned;
use super::payload::{needs_fetch, payload};
use super::pieces::{Facts, Shape, Sizes, candidate, pieces};
use super::waits::staged;
use crate::log::SentObject;
use crate::store::{CopyRequest, Payload, StoreError};
use crate::tree::Pending;
use crate::types::{
    Attrs, Base, Extent, Generation, Headers, ObjectId, ObjectKey, ObjectMeta, Precondition,
    RelKey, Seq, Source, Want,
};

/// One content on its way to its key.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) key: RelKey,
    pub(super) object: ObjectKey,
    pub(super) number: Seq,
    pub(super) pending: Pending,
    pub(super) generation: Arc<Generation>,
}

/// What the new version's metadata inherits.
enum Inherited {
    All(Attrs),
    /// The version it was built on is not at the key any more.
    Met(Option<ObjectMeta>),
}

impl Hands {
    /// Sends (or only stages) what is wanted at `key`.
    pub(super) async fn send(
        &self,
        key: &RelKey,
        number: Seq,
        stage: bool,
    ) -> Result<Progress, Fail> {
        let Some(pending) = self.look(key, number) else {
            return Ok(Progress::Again);
        };
        let Want::Object(generation) = &pending.want else {
            return Ok(Progress::Again);
        };
        let work = Work {
            key: key.clone(),
            object: key.into(),
            number,
            generation: Arc::clone(generation),
            pending,
        };
        match self.bring(&work, stage, true).await {
            Err(Fail::SourceGone) => self.without_source(&work, stage).await,
            done => done,
        }
    }

    /// A version it names is in the bucket no more.
    async fn without_source(&self, work: &Work, stage: bool) -> Result<Progress, Fail> {
        if self.look(&work.key, work.number).is_none() {
            return Ok(Progress::Again);
        }
        let met = self.ask(&work.object).await?;
        let is_own = |piece: &Extent| match &piece.from {
            Source::Remote { object, .. } => object.key == work.object,
            Source::Local { .. } => false,
        };
        let is_replaced = Base::of(met.as_ref().map(|meta| &meta.id)) != work.pending.base
            && work.generation.extents.iter().any(is_own);
        // It was sent before a power cut that took the record of it, and so its source could go.
        let is_sent = self.judge(&work.key, &work.pending, met.as_ref()) == Verdict::Sent;
        if is_replaced || is_sent {
            return self.resolve(work, met).await;
        }
        if self.is_local(&work.generation) {
            self.bring(work, stage, false).await
        } else if self.is_other_staged(&work.key) {
            // It went because another change has its bytes in parts, to be completed first.
            Ok(Progress::Again)
        } else {
            Err(Fail::SourceGone)
        }
    }

    /// `copies`: the versions it names are believed to be there.
    async fn bring(&self, work: &Work, stage: bool, copies: bool) -> Result<Progress, Fail> {
        if let Some(progress) = self.finish_staged(work, stage).await? {
            return Ok(progress);
        }
        let attrs = match self.inherit(work).await? {
            Inherited::All(attrs) => attrs,
            Inherited::Met(met) => return self.resolve(work, met).await,
        };
        let is_new = work.pending.base == Base::Absent;
        let headers = self.dress(&attrs, work.number, is_new);
        let sizes = self.sizes(&work.pending, work.generation.len);
        match self.shape(work, stage, copies, &sizes).await? {
            Shape::Put => self.put(work, headers).await,
            Shape::CopySelf(version) => self.copy_self(work, version, headers).await,
            Shape::Parts(pieces) => {
                let plan = Planned {
                    pieces,
                    part: sizes.part,
                };
                self.send_parts(work, headers, plan, stage).await
            }
        }
    }

    async fn put(&self, work: &Work, headers: Headers) -> Result<Progress, Fail> {
        let _turn = self.lanes.turn(work.generation.len).await;
        let when = match self.guard(&work.object, &work.pending.base).await? {
            Guard::When(when) => when,
            Guard::Met(met) => return self.resolve(work, met.map(|met| *met)).await,
        };
        let (payload, _fetched) = self
            .payload(&work.generation, 0, work.generation.len)
            .await?;
        if !self.begin(&work.key, work.number).await? {
            return Ok(Progress::Again);
        }
        let underway = self.flights.begin(&work.key, payload.len, 0);
        let (payload, _moving) = underway.watch(payload);
        let put = self.store.put(&work.object, &payload, &headers, &when);
        let done = self.lanes.carry(payload.len, put).await;
        if done.is_err() {
            self.resent.fetch_add(payload.len, Ordering::Relaxed);
        }
        self.published(work, headers, &when, done).await
    }

    async fn copy_self(
        &self,
        work: &Work,
        source: ObjectId,
        headers: Headers,
    ) -> Result<Progress, Fail> {
        if !self.begin(&work.key, work.number).await? {
            return Ok(Progress::Again);
        }
        let when = Precondition::IfMatch(source.etag.clone());
        let request = CopyRequest {
            source,
            key: work.object.clone(),
            headers: headers.clone(),
        };
        let done = self.store.copy(&request).await;
        self.published(work, headers, &when, done).await
    }

    /// What follows a request that shows.
    pub(super) async fn published(
        &self,
        work: &Work,
        headers: Headers,
        when: &Precondition,
        done: Result<ObjectMeta, StoreError>,
    ) -> Result<Progress, Fail> {
        match done {
            Ok(meta) => {
                let object = SentObject {
                    id: meta.id,
                    size: work.generation.len,
                    modified: meta.modified,
                    headers,
                };
                let extents = &work.generation.extents;
                self.sent(&work.key, work.number, Some(extents), object)
                    .await
            }
            Err(StoreError::Precondition | StoreError::Stale | StoreError::NotFound)
                if *when != Precondition::None =>
            {
                let met = self.ask(&work.object).await?;
                self.resolve(work, met).await
            }
            Err(StoreError::NotImplemented(_)) if *when != Precondition::None => {
                self.lacks(when);
                Ok(Progress::Again)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// `start..end` as a payload, and the permit that is held as long as fetched bytes are.
    pub(super) async fn payload(
        &self,
        generation: &Generation,
        start: u64,
        end: u64,
    ) -> Result<(Payload, Option<tokio::sync::SemaphorePermit<'_>>), Fail> {
        let permit = if needs_fetch(&generation.extents, start, end) {
            self.fetching.acquire().await.ok()
        } else {
            None
        };
        let (spool, extents) = (self.log.spool(), &generation.extents);
        let payload = payload(spool, &self.reader, extents, start, end).await?;
        Ok((payload, permit))
    }

    fn is_other_staged(&self, key: &RelKey) -> bool {
        self.tree.pending(|all| {
            let mut others = all.below("").filter(|(other, _)| *other != key);
            others.any(|(_, entry)| staged(entry).is_some())
        })
    }

    fn is_local(&self, generation: &Generation) -> bool {
        let (extents, len) = (&generation.extents, generation.len);
        self.reader.is_local(extents, 0, len)
    }

    async fn shape(
        &self,
        work: &Work,
        stage: bool,
        copies: bool,
        sizes: &Sizes,
    ) -> Result<Shape, Fail> {
        let asked = match candidate(&work.generation) {
            Some(version) if self.known_size(version).is_none() => {
                let met = self.ask(&version.key).await?;
                met.filter(|meta| meta.id == *version)
            }
            _ => None,
        };
        let size_of = |version: &ObjectId| match &asked {
            Some(meta) if meta.id == *version => Some(meta.size),
            _ => self.known_size(version),
        };
        let (extents, len) = (&work.generation.extents, work.generation.len);
        let is_local =
            |start: u64, end: u64| self.reader.is_local(extents, start.min(len), end.min(len));
        let facts = Facts {
            key: &work.key,
            base: &work.pending.base,
            size_of: &size_of,
            is_local: &is_local,
            staged: stage,
            copies,
        };
        Ok(pieces(&work.generation, &facts, sizes))
    }

    fn known_size(&self, version: &ObjectId) -> Option<u64> {
        let key = RelKey::parse(version.key.as_str())?;
        let known = self.tree.known(&key)?;
        (known.id == *version).then_some(known.size)
    }

    /// The attributes to send: those it has, over those of the version it was built on.
    async fn inherit(&self, work: &Work) -> Result<Inherited, Fail> {
        let attrs = &work.generation.attrs;
        if attrs.is_complete() {
            return Ok(Inherited::All(attrs.clone()));
        }
        let Some(version) = ancestor(&work.key, &work.pending.base, &work.generation) else {
            return Ok(Inherited::All(attrs.clone()));
        };
        let remembered = self.tree.remembered(&version);
        if let Some(base) = remembered.filter(Attrs::is_complete) {
            return Ok(Inherited::All(attrs.clone().over(&base)));
        }
        let asked = self.tree.now();
        match self.ask(&version.key).await? {
            Some(meta) if meta.id == version => {
                if let Some(key) = RelKey::parse(version.key.as_str()) {
                    self.tree.learn(&key, Some(&meta), asked);
                }
                let headers = meta.headers.unwrap_or_default();
                let base = Attrs::from_headers(&headers, work.key.is_dir());
                Ok(Inherited::All(attrs.clone().over(&base)))
            }
            met if version.key == work.object => Ok(Inherited::Met(met)),
            // It cannot be told any more what another key's lost version had.
            _ => Ok(Inherited::All(attrs.clone())),
        }
    }
}

/// The version whose attributes a content inherits: the one at its key that it was built on or
/// replaces, or, where it was moved or copied here whole, the one it came from.
fn ancestor(key: &RelKey, base: &Base, generation: &Generation) -> Option<ObjectId> {
    let at_key = match base {
        Base::Version(etag) => Some(ObjectId {
            key: key.into(),
            etag: etag.clone(),
        }),
        Base::Absent => None,
    };
    let mut sources = generation
        .extents
        .iter()
        .filter_map(|piece| match &piece.from {
            Source::Remote { object, .. } => Some(object),
            Source::Local { .. } => None,
        });
    let source = match &at_key {
        Some(version) if sources.clone().any(|source| source == version) => None,
        // A content that was written here has a time of its own: it only replaces.
        Some(_) if generation.attrs.mtime.is_some() => None,
        _ => sources.next(),
    };
    source.cloned().or(at_key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ETag, Extents, Time};

    fn version(key: &str, etag: &str) -> ObjectId {
        ObjectId {
            key: ObjectKey::new(key),
            etag: ETag::new(etag),
        }
    }

    fn of(source: ObjectId, mtime: Option<Time>) -> Generation {
        Generation {
            extents: Extents::whole(source, 9),
            len: 9,
            attrs: Attrs {
                mtime,
                ..Attrs::default()
            },
        }
    }

    #[test]
    fn a_moved_file_inherits_from_where_it_was_and_an_edited_one_from_its_own_base() {
        let key = RelKey::parse("b").unwrap();
        let base = Base::Version(ETag::new("2"));
        let moved = of(version("a", "1"), None);
        assert_eq!(
            ancestor(&key, &Base::Absent, &moved),
            Some(version("a", "1"))
        );
        assert_eq!(ancestor(&key, &base, &moved), Some(version("a", "1")));
        let edited = of(version("b", "2"), Some(Time::default()));
        assert_eq!(ancestor(&key, &base, &edited), Some(version("b", "2")));
    }

    #[test]
    fn a_content_copied_into_an_existing_file_keeps_what_that_file_had() {
        let key = RelKey::parse("b").unwrap();
        let copied = of(version("a", "1"), Some(Time::default()));
        let base = Base::Version(ETag::new("2"));
        assert_eq!(ancestor(&key, &base, &copied), Some(version("b", "2")));
    }
}

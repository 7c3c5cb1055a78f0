//! What all jobs share: the rooms they work with, the guard before a write, the record after it.
//!
//! Invariants:
//! - `begin` is recorded before any request that may show, and only while its change is the
//!   wanted one: so the log (and the tree) knows which generation an answer speaks of;
//! - a sent generation enters the cache before `Sent` is recorded, and the record after which
//!   nothing names a spool file is flushed before the file is removed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::fail::Fail;
use super::flights::Flights;
use super::halves::{Half, left_behind};
use super::lanes::Lanes;
use super::pieces::Sizes;
use super::plan::Job;
use super::{Caps, Config};
use crate::log::{Log, Record, Refusal, SentObject};
use crate::read::Reader;
use crate::seeded::{self, Bug};
use crate::store::{ObjectStore, StoreError, UNMADE};
use crate::tree::{Pending, Tree, Uploading};
use crate::types::{
    Attrs, Base, Extents, FileNo, Headers, ObjectKey, ObjectMeta, Precondition, RelKey, STAMP_KEY,
    Seq, Stamp,
};

/// What parts were planned with before the log told it.
const UNTOLD: u64 = 8 << 20;

tokio::task_local! {
    /// How often the mount's root had changed when the job of this task began.
    static ROOTS: u64;
}

/// How a job ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing is left to do for its change.
    Settled,
    /// What stood in the way was cleared: plan again.
    Again,
}

/// What a guarded write asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// Send it with this precondition.
    When(Precondition),
    /// Asked first, as the server does not honour the precondition: something else is there.
    Met(Option<Box<ObjectMeta>>),
}

/// The rooms, and what is remembered while the daemon runs.
#[derive(Debug)]
pub(super) struct Hands {
    pub(super) tree: Arc<Tree>,
    pub(super) log: Arc<Log>,
    pub(super) reader: Arc<Reader>,
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) config: Config,
    pub(super) caps: Mutex<Caps>,
    /// Uploads that broke off and can be continued.
    pub(super) halves: Mutex<HashMap<RelKey, Half>>,
    /// One part at a time holds fetched bytes in memory.
    pub(super) fetching: Semaphore,
    /// How fast the link is, and whose turn it is.
    pub(super) lanes: Lanes,
    /// Directories where what was sent before it was closed turned out to be for nothing.
    pub(super) wasteful: Mutex<HashSet<String>>,
    /// Data files of which nothing is sent early any more: S3 did not know their upload.
    pub(super) spent: Mutex<HashSet<FileNo>>,
    /// Changes whose parts S3 would not complete: those were sent once more.
    pub(super) remade: Mutex<HashSet<(RelKey, Seq)>>,
    /// When an upload could not be aborted.
    pub(super) abort_failed: Mutex<Option<Instant>>,
    pub(super) conflicts: AtomicU64,
    pub(super) resent: AtomicU64,
    pub(super) in_flight: AtomicUsize,
    pub(super) flights: Flights,
    pub(super) last_error: Mutex<Option<(SystemTime, String)>>,
}

impl Hands {
    pub(super) fn new(
        tree: Arc<Tree>,
        log: Arc<Log>,
        reader: Arc<Reader>,
        store: Arc<dyn ObjectStore>,
        config: Config,
    ) -> Self {
        let halves = Mutex::new(left_behind(&tree));
        let lanes = Lanes::new(config.concurrency);
        Self {
            tree,
            log,
            reader,
            store,
            config,
            caps: Mutex::new(Caps::default()),
            halves,
            fetching: Semaphore::new(1),
            lanes,
            wasteful: Mutex::default(),
            spent: Mutex::default(),
            remade: Mutex::default(),
            abort_failed: Mutex::default(),
            conflicts: AtomicU64::new(0),
            resent: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            flights: Flights::default(),
            last_error: Mutex::default(),
        }
    }

    /// Carries out one job. What S3 refuses for good is recorded as dead. What was answered while the
    /// mount came to another root counts for nothing: it is of another folder.
    pub(super) async fn carry_out(&self, job: &Job) -> Result<Progress, Fail> {
        let work = ROOTS.scope(self.tree.roots(), self.carry_out_here(job));
        match work.await {
            Err(Fail::Moved) => Ok(Progress::Again),
            done => done,
        }
    }

    async fn carry_out_here(&self, job: &Job) -> Result<Progress, Fail> {
        let done = match job {
            Job::Send { key, number } => self.send(key, *number, false).await,
            Job::Stage { key, number } => self.send(key, *number, true).await,
            Job::Finish { key, number } => self.finish_older(key, *number).await,
            Job::Remove { key, number } => self.remove(key, *number).await,
            Job::RemoveBatch(all) => self.remove_batch(all).await,
            Job::Ahead { key, number } => self.send_ahead(key, *number).await,
            Job::Drop { key, number } => self.drop_change(key, *number),
        };
        match (done, job) {
            (
                Err(fail),
                Job::Send { key, number }
                | Job::Stage { key, number }
                | Job::Remove { key, number },
            ) => self.parked_or(key, *number, fail).await,
            (done, _) => done,
        }
    }

    /// Appends a record about a job, if the root is still the one that it began in.
    pub(super) fn record(&self, record: Record) -> Result<Seq, Fail> {
        let roots = ROOTS.try_with(|roots| *roots);
        // What needs no request is of any root.
        let roots = roots.unwrap_or_else(|_| self.tree.roots());
        self.tree.record_in(roots, record)?.ok_or(Fail::Moved)
    }

    /// The root is still the one that the job began in.
    pub(super) fn stays(&self) -> Result<(), Fail> {
        match ROOTS.try_with(|roots| *roots == self.tree.roots()) {
            Ok(false) => Err(Fail::Moved),
            Ok(true) | Err(_) => Ok(()),
        }
    }

    /// The change wanted at `key`, if it is still this one.
    pub(super) fn look(&self, key: &RelKey, number: Seq) -> Option<Pending> {
        self.tree.pending(|all| {
            let entry = all.get(key).filter(|entry| entry.number == number)?;
            entry.dead.is_none().then(|| entry.clone())
        })
    }

    /// Records that a request for it may be answered from now on. `false`: it was superseded, and
    /// nothing may be sent.
    pub(super) async fn begin(&self, key: &RelKey, number: Seq) -> Result<bool, Fail> {
        // A number that a power cut could take back must not be in anybody's stamp.
        if !seeded::is(Bug::StampNotDurable) {
            self.log.flushed(number).await?;
        }
        self.record(Record::Begun {
            key: key.clone(),
            number,
        })?;
        Ok(self.look(key, number).is_some())
    }

    /// What is at a key.
    pub(super) async fn ask(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, Fail> {
        let answer = self.store.head(key, None).await;
        self.stays()?;
        match answer {
            Ok(meta) => {
                if meta.id.etag.as_str() == UNMADE {
                    self.caps.lock().marker_guards = false;
                }
                Ok(Some(meta))
            }
            Err(StoreError::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// How a write to `key` over `base` is guarded.
    pub(super) async fn guard(&self, key: &ObjectKey, base: &Base) -> Result<Guard, Fail> {
        let caps = self.caps.lock().clone();
        match base {
            _ if seeded::is(Bug::Unguarded) => return Ok(Guard::When(Precondition::None)),
            Base::Absent if caps.if_absent => return Ok(Guard::When(Precondition::IfAbsent)),
            Base::Version(etag) if caps.if_match && caps.guards(key) => {
                return Ok(Guard::When(Precondition::IfMatch(etag.clone())));
            }
            Base::Absent | Base::Version(_) => {}
        }
        let met = self.ask(key).await?;
        if Base::of(met.as_ref().map(|meta| &meta.id)) == *base {
            self.caps.lock().unguarded += 1;
            Ok(Guard::When(Precondition::None))
        } else {
            Ok(Guard::Met(met.map(Box::new)))
        }
    }

    /// The server answered that it does not have this precondition.
    pub(super) fn lacks(&self, when: &Precondition) {
        let mut caps = self.caps.lock();
        match when {
            Precondition::IfAbsent => caps.if_absent = false,
            Precondition::IfMatch(_) => caps.if_match = false,
            Precondition::None => {}
        }
    }

    /// The metadata of a new version.
    pub(super) fn dress(&self, attrs: &Attrs, number: Seq, is_new: bool) -> Headers {
        let mut headers = attrs.to_headers();
        let mount = self.log.mount_id();
        let stamp = Stamp { mount, number };
        let name = STAMP_KEY.to_owned();
        headers.metadata.insert(name, stamp.to_string());
        if is_new {
            let class = self.config.storage_class.clone();
            headers.storage_class = headers.storage_class.or(class);
            headers.sse = headers.sse.or_else(|| self.config.sse.clone());
        }
        headers
    }

    /// S3 acknowledged a generation.
    pub(super) async fn sent(
        &self,
        key: &RelKey,
        number: Seq,
        extents: Option<&Extents>,
        object: SentObject,
    ) -> Result<Progress, Fail> {
        // What the cache has of an old root's versions may be needed to send them to the new one.
        self.stays()?;
        if let Some(extents) = extents {
            self.reader.adopt(extents, &object.id, object.size).await;
        }
        let seq = self.record(Record::Sent {
            key: key.clone(),
            number,
            object: Box::new(object),
        })?;
        self.log.flushed(seq).await?;
        self.tidy().await;
        Ok(Progress::Settled)
    }

    /// Removes spool files that nothing names any more.
    pub(super) async fn tidy(&self) {
        let files = self.tree.unreferenced();
        if files.is_empty() {
            return;
        }
        // What made them so may have been appended a moment ago: after a power cut it may not be.
        if let Err(error) = self.log.flushed(self.tree.now()).await {
            tracing::warn!(%error, "sent files stay in the spool");
            return;
        }
        let spool = Arc::clone(self.log.spool());
        let removed = tokio::task::spawn_blocking(move || {
            for file in files {
                if let Err(error) = spool.remove(file) {
                    tracing::warn!(%error, file = file.0, "a sent file stays in the spool");
                }
            }
        });
        if let Err(error) = removed.await {
            tracing::error!(%error, "removing sent files from the spool broke off");
        }
    }

    /// Parks a change if its failure says that S3 refuses it for good.
    pub(super) async fn parked_or(
        &self,
        key: &RelKey,
        number: Seq,
        fail: Fail,
    ) -> Result<Progress, Fail> {
        match fail.refusal() {
            Some(reason) => self.park(key, number, reason).await,
            None => Err(fail),
        }
    }

    async fn park(&self, key: &RelKey, number: Seq, reason: Refusal) -> Result<Progress, Fail> {
        tracing::warn!(?reason, "a change was refused for good");
        tracing::debug!(%key, "the refused change");
        let seq = self.record(Record::Dead {
            key: key.clone(),
            number,
            reason,
        })?;
        self.log.flushed(seq).await?;
        Ok(Progress::Settled)
    }

    /// Bytes of the parts of an upload that begins now.
    pub(super) fn part_size(&self, len: u64) -> u64 {
        let set = self.config.part_size;
        set.unwrap_or_else(|| self.lanes.part_size(len))
    }

    /// An upload that has begun is continued with parts as it was planned with.
    pub(super) fn sizes(&self, pending: &Pending, len: u64) -> Sizes {
        let begun = pending.uploading.as_ref();
        let part = match (begun, self.config.part_size) {
            (Some(Uploading { part, .. }), set) => part.or(set).unwrap_or(UNTOLD),
            (None, _) => self.part_size(len),
        };
        Sizes {
            part,
            threshold: self.config.multipart_threshold,
        }
    }
}

//! Asking the bucket for what is not known: which question is the cheapest, one question at a time
//! for a name, and how long anybody waits for it.
//!
//! Invariants:
//! - creating and looking up never list a large directory: a name is asked for by a listing of the
//!   keys that begin with it, which tells of the object and of the directory at once, or by a HEAD;
//!   where many names of a small one are asked for, by a listing of that (`cost` decides);
//! - what is known but old is answered with after `stale_after`; what is unknown is waited for
//!   `read_timeout`; a name that may be about to be made only as long as the link brings anything
//!   at all (a slow link is not a silent one). Once the bucket was silent nobody waits but one
//!   question now and then, no longer than `stale_after`, until somebody is answered;
//! - a question whose askers went away is answered all the same.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;

use crate::read::IsDown;
use crate::store::{ListRequest, ObjectStore, StoreError};
use crate::tree::{Content, Freshness, Seen, Tree};
use crate::types::{Kind, ObjectKey, RelKey, RelPath};

use super::Progress;
use super::cost::{About, Spent, Way};
use super::paging::Paging;
use super::waits::Waits;

/// After a silence nobody waits again for this long, then twice as long, at most `QUIET_MAX`.
const QUIET: Duration = Duration::from_secs(5);
const QUIET_MAX: Duration = Duration::from_secs(60);
/// A link that brings nothing for so many times `stale_after` is believed to be silent: a new name
/// can be made then. Shorter would take a server that thinks for a file that is not there.
const SILENT_AFTER: u32 = 5;
/// Keys asked for at once when a name is looked up.
const PROBE_KEYS: u16 = 3;
const PAGE_KEYS: u16 = 1000;

type Answer = Result<(), StoreError>;
type Flight = Shared<BoxFuture<'static, Answer>>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Question {
    Name(RelPath),
    Deep(RelPath, usize),
    Head(RelKey),
    Empty(RelPath),
    /// All names of a directory, if they fit on a page.
    All(RelPath),
}

/// Nothing came.
struct Silence;

/// How well the wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Learnt {
    /// The tree knows now.
    Yes,
    /// Nobody answered in time (or at all): what is known has to do.
    Silence,
    /// The bucket answered with an error.
    Refused(StoreError),
}

impl Learnt {
    /// For who cannot do with what is known.
    pub(super) fn into_result(self) -> super::Result<()> {
        match self {
            Self::Yes => Ok(()),
            Self::Silence => Err(super::FsError::Unreachable),
            Self::Refused(error) => Err(error.into()),
        }
    }
}

/// The bucket did not answer.
#[derive(Clone, Copy, Debug)]
struct Silent {
    /// Until then nobody waits.
    until: Instant,
    /// How long it is believed to last.
    quiet: Duration,
}

/// Asks.
pub(super) struct Learner {
    tree: Arc<Tree>,
    store: Arc<dyn ObjectStore>,
    stale_after: Duration,
    read_timeout: Duration,
    ttl: Duration,
    progress: Progress,
    spent: Mutex<Spent>,
    flights: Mutex<HashMap<Question, Flight>>,
    listings: Mutex<HashMap<RelPath, Weak<Paging>>>,
    silence: Mutex<Option<Silent>>,
    stale: AtomicU64,
    waits: Arc<Waits>,
    is_down: OnceLock<Arc<IsDown>>,
}

impl std::fmt::Debug for Learner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Learner({} in flight)", self.flights.lock().len())
    }
}

impl Learner {
    pub(super) fn new(
        tree: Arc<Tree>,
        store: Arc<dyn ObjectStore>,
        waits: Arc<Waits>,
        (stale_after, read_timeout, ttl): (Duration, Duration, Duration),
        progress: Progress,
    ) -> Arc<Self> {
        Arc::new(Self {
            tree,
            store,
            stale_after,
            read_timeout,
            ttl,
            progress,
            spent: Mutex::default(),
            flights: Mutex::default(),
            listings: Mutex::default(),
            silence: Mutex::default(),
            stale: AtomicU64::new(0),
            waits,
            is_down: OnceLock::new(),
        })
    }

    /// Has `is_down` asked before a question. The first caller stays.
    pub(super) fn ask_link(&self, is_down: Arc<IsDown>) {
        if self.is_down.set(is_down).is_err() {
            tracing::debug!("the link is asked for by somebody else already");
        }
    }

    /// Answers given with what was known before, since the bucket was silent.
    pub(super) fn stale(&self) -> u64 {
        self.stale.load(Ordering::Relaxed)
    }

    /// What is at `path`; `seen` is what the tree says of it now.
    pub(super) async fn name(self: &Arc<Self>, path: &RelPath, seen: &Seen) -> Learnt {
        let question = match seen {
            Seen::Here(node, _) => match &node.content {
                Content::Remote(..) => Question::Head(RelKey::file(path)),
                _ if node.kind == Kind::Dir => Question::Empty(path.clone()),
                _ => return Learnt::Yes,
            },
            Seen::NotHere(_) | Seen::Unknown => Question::Name(path.clone()),
        };
        if let Some(dir) = self.is_listing_cheaper(path, &question) {
            let learnt = self.wait(Question::All(dir), false).await;
            let is_told = || {
                let seen = self.tree.view(|view| view.lookup(path));
                let fresh = Freshness::Fresh;
                matches!(seen, Seen::Here(_, at) | Seen::NotHere(at) if at == fresh)
            };
            if learnt != Learnt::Yes || is_told() {
                return learnt;
            }
        }
        self.wait(question, matches!(seen, Seen::Unknown)).await
    }

    /// The directory of `path`, if listing it is cheaper than what would be asked about `path`.
    fn is_listing_cheaper(&self, path: &RelPath, question: &Question) -> Option<RelPath> {
        let about = match question {
            Question::Head(_) => About::Version,
            Question::Name(_) => About::Name,
            Question::Deep(..) | Question::Empty(_) | Question::All(_) => return None,
        };
        let dir = path.parent()?;
        let names = self.tree.view(|view| view.listed_names(&dir));
        let when = (now(), self.ttl);
        let way = self.spent.lock().way(about, &dir, names, when);
        (way == Way::All).then_some(dir)
    }

    /// The listing of a directory that is under way, or a new one. One that began longer ago than
    /// `max_age` is not joined.
    pub(super) fn listing(&self, path: &RelPath, max_age: Duration) -> Arc<Paging> {
        let mut listings = self.listings.lock();
        listings.retain(|_, listing| listing.strong_count() > 0);
        let known = listings.get(path).and_then(Weak::upgrade);
        let is_young = |paging: &Arc<Paging>| {
            let started = paging.started();
            started.is_some_and(|started| now().saturating_duration_since(started) < max_age)
        };
        known.filter(is_young).unwrap_or_else(|| {
            let paging = Paging::start(&self.tree, &self.store, path);
            listings.insert(path.clone(), Arc::downgrade(&paging));
            paging
        })
    }

    /// A listing of a directory for one reader.
    pub(super) fn listing_anew(&self, path: &RelPath) -> Arc<Paging> {
        Paging::start(&self.tree, &self.store, path)
    }

    /// So many pages of a listing, or all. `is_known`: names were known before.
    pub(super) async fn pages(&self, paging: &Arc<Paging>, pages: usize, is_known: bool) -> Learnt {
        let flight = || Arc::clone(paging).until(pages).boxed().shared();
        let learnt = self.wait_for(!is_known, false, flight).await;
        if learnt == Learnt::Yes {
            *self.silence.lock() = None;
        }
        learnt
    }

    /// All keys below a directory, if they are not more than `limit`.
    pub(super) async fn deep(
        self: &Arc<Self>,
        path: &RelPath,
        limit: usize,
        is_known: bool,
    ) -> Learnt {
        self.wait(Question::Deep(path.clone(), limit), !is_known)
            .await
    }

    /// The attributes of the object at a key.
    pub(super) async fn head(self: &Arc<Self>, key: &RelKey) -> Learnt {
        self.wait(Question::Head(key.clone()), true).await
    }

    /// Whether anything is in a directory.
    pub(super) async fn empty(self: &Arc<Self>, path: &RelPath) -> Learnt {
        self.wait(Question::Empty(path.clone()), true).await
    }

    async fn wait(self: &Arc<Self>, question: Question, is_needed: bool) -> Learnt {
        let may_be_new = matches!(question, Question::Name(_));
        self.wait_for(is_needed, may_be_new, || self.flight(question))
            .await
    }

    async fn wait_for(
        &self,
        is_needed: bool,
        may_be_new: bool,
        flight: impl FnOnce() -> Flight,
    ) -> Learnt {
        let silence = *self.silence.lock();
        let is_down = self.is_down.get().is_some_and(|is_down| is_down());
        if is_down || silence.is_some_and(|silence| now() < silence.until) {
            self.stale.fetch_add(1, Ordering::Relaxed);
            return Learnt::Silence;
        }
        let patience = match (is_needed, silence) {
            (true, None) => self.read_timeout,
            (true, Some(_)) | (false, _) => self.stale_after,
        };
        let asked = self.patiently(patience, may_be_new, flight());
        let Some(answer) = self.waits.unless_ended(asked).await else {
            self.stale.fetch_add(1, Ordering::Relaxed);
            return Learnt::Silence;
        };
        match answer {
            Ok(Ok(())) => Learnt::Yes,
            Ok(Err(error)) if is_needed && !error.is_silence() => {
                tracing::warn!(%error, "the bucket does not answer a question about a name");
                Learnt::Refused(error)
            }
            // Whoever was refused has learnt nothing about the name: what is known of it stands. A HEAD
            // does not even say whether it was the credentials.
            Ok(Err(error)) if !error.is_beside_the_question() => {
                tracing::warn!(%error, "the bucket does not answer: what is known has to do");
                self.stale.fetch_add(1, Ordering::Relaxed);
                Learnt::Silence
            }
            silence => {
                let why = silence.ok().and_then(Result::err);
                let why = why.map_or_else(|| "no byte came".into(), |error| error.to_string());
                tracing::warn!(%why, "the bucket is silent: what is known has to do");
                self.silent();
                self.stale.fetch_add(1, Ordering::Relaxed);
                Learnt::Silence
            }
        }
    }

    /// Waits for an answer as long as `patience`; where that matters, only as long as the link
    /// brings anything.
    async fn patiently(
        &self,
        patience: Duration,
        while_it_brings: bool,
        flight: Flight,
    ) -> Result<Answer, Silence> {
        let end = now() + patience;
        let silent_after = if while_it_brings {
            self.stale_after * SILENT_AFTER
        } else {
            patience
        };
        tokio::pin!(flight);
        loop {
            let received = self.progress.received();
            let wait = silent_after.min(end.saturating_duration_since(now()));
            if let Ok(answer) = tokio::time::timeout(wait, &mut flight).await {
                return Ok(answer);
            }
            if now() >= end || self.progress.received() == received {
                return Err(Silence);
            }
        }
    }

    /// The bucket is silent: nobody waits for it for a while.
    pub(super) fn silent(&self) {
        let mut silence = self.silence.lock();
        let quiet = silence.map_or(QUIET, |silence| (silence.quiet * 2).min(QUIET_MAX));
        *silence = Some(Silent {
            until: now() + quiet,
            quiet,
        });
    }

    fn flight(self: &Arc<Self>, question: Question) -> Flight {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&question) {
            return flight.clone();
        }
        let asker = Arc::clone(self);
        let asked = question.clone();
        let task = tokio::spawn(async move {
            let answer = asker.ask(&asked).await;
            asker.flights.lock().remove(&asked);
            if answer.is_ok() {
                *asker.silence.lock() = None;
            }
            answer
        });
        let flight = async move { task.await.unwrap_or(Err(StoreError::Deadline)) }
            .boxed()
            .shared();
        flights.insert(question, flight.clone());
        flight
    }

    async fn ask(&self, question: &Question) -> Answer {
        match question {
            Question::Name(path) => self.ask_name(path).await,
            Question::Deep(path, limit) => self.ask_deep(path, *limit).await,
            Question::Head(key) => self.ask_head(key).await,
            Question::Empty(path) => self.ask_empty(path).await,
            Question::All(path) => self.listing(path, self.ttl).until(1).await,
        }
    }

    async fn ask_name(&self, path: &RelPath) -> Answer {
        let asked = self.tree.ask();
        let request = ListRequest {
            prefix: path.as_str().into(),
            delimited: true,
            max_keys: PROBE_KEYS,
            ..ListRequest::default()
        };
        let page = self.store.list(&request).await?;
        if !asked.probed(path, &page) {
            // Many keys begin with this name: whether it is a directory too must be asked for.
            let page = self.store.list(&below(path, 1)).await?;
            asked.dir_probed(path, !page.objects.is_empty() || !page.prefixes.is_empty());
        }
        Ok(())
    }

    async fn ask_deep(&self, path: &RelPath, limit: usize) -> Answer {
        let asked = self.tree.ask();
        let mut request = below(path, PAGE_KEYS);
        let mut count = 0;
        loop {
            let page = self.store.list(&request).await?;
            count += page.objects.len();
            asked.deep_page(path, &page);
            match page.next {
                _ if count > limit => return Ok(()),
                Some(next) => request.continuation = Some(next),
                None => break,
            }
        }
        asked.deep_listed(path);
        Ok(())
    }

    async fn ask_head(&self, key: &RelKey) -> Answer {
        let asked = self.tree.ask();
        let known = self.tree.known(key);
        let has_attrs = known
            .as_ref()
            .is_some_and(|known| self.tree.remembered(&known.id).is_some());
        let unless = known
            .as_ref()
            .filter(|_| has_attrs)
            .map(|known| &known.id.etag);
        match self.store.head(&ObjectKey::from(key), unless).await {
            Ok(meta) => asked.head(key, Some(&meta)),
            Err(StoreError::NotModified) => asked.head(key, known.as_ref()),
            Err(StoreError::NotFound) => asked.head(key, None),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn ask_empty(&self, path: &RelPath) -> Answer {
        let asked = self.tree.ask();
        let request = ListRequest {
            delimited: true,
            ..below(path, 2)
        };
        let page = self.store.list(&request).await?;
        if !path.is_root() {
            asked.dir_probed(path, !page.objects.is_empty() || !page.prefixes.is_empty());
        }
        asked.page(path, &page);
        if page.next.is_none() {
            asked.listed(path);
        }
        Ok(())
    }
}

pub(super) fn below(path: &RelPath, max_keys: u16) -> ListRequest {
    ListRequest {
        prefix: path.dir_prefix(),
        max_keys,
        ..ListRequest::default()
    }
}

pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

//! Listing a directory page by page, no faster than it is read: the first names are shown before
//! the last page is asked for.
//!
//! Invariants:
//! - all who read a directory share one listing of it; it tells each name once, in the order in
//!   which the bucket has them;
//! - at most `AHEAD` pages are asked for before a reader needs them, and none once the last reader
//!   is gone: what was told stays known, but the directory does not count as listed;
//! - a listing that broke off is never taken for a whole one;
//! - of the names it told at most `NAMES_MAX` are kept, and 8 bytes of each of the others. A reader
//!   that is behind those goes on in a listing of its own.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, VecDeque};
use std::hash::{Hash as _, Hasher as _};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::store::{ListPage, ListRequest, ObjectStore, StoreError};
use crate::tree::{NAMES_MAX, Tree, View};
use crate::types::{Name, RelKey, RelPath};

use super::learn::{below, now};
use crate::disk;

/// Pages asked for ahead of the one that is read.
const AHEAD: usize = 1;
/// S3's most.
const PAGE_KEYS: u16 = 1000;

/// One listing under way, or ended. Dropped by its last reader, it ends.
#[derive(Debug)]
pub(super) struct Paging {
    started: Instant,
    told: Mutex<Told>,
    /// How many pages some reader needs. The asker waits for it.
    wanted: watch::Sender<usize>,
    /// Counts pages, and the end. Readers wait for it.
    news: watch::Sender<usize>,
}

/// A name, and whether a directory has it.
type Entry = (Name, bool);

#[derive(Debug, Default)]
struct Told {
    /// Those that are kept.
    names: VecDeque<Entry>,
    /// The hashes of those before them, in pieces, so that it never takes twice the memory to grow.
    passed: Vec<Vec<u64>>,
    /// How many those are.
    first: usize,
    pages: usize,
    end: Option<Result<(), StoreError>>,
}

/// What comes at a place of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// This name; whether a directory has it, as far as the listing told.
    Name(Name, bool),
    /// It is not kept any more.
    Behind,
    /// It is on a page that has not come: so many are needed.
    Wait(usize),
    /// Nothing more.
    End,
}

impl Paging {
    /// Begins a listing of `path`.
    pub(super) fn start(
        tree: &Arc<Tree>,
        store: &Arc<dyn ObjectStore>,
        path: &RelPath,
    ) -> Arc<Self> {
        let paging = Arc::new(Self {
            started: now(),
            told: Mutex::default(),
            wanted: watch::channel(0).0,
            news: watch::channel(0).0,
        });
        let asker = Asker {
            paging: Arc::downgrade(&paging),
            wanted: paging.wanted.subscribe(),
        };
        tokio::spawn(asker.run(Arc::clone(tree), Arc::clone(store), path.clone()));
        paging
    }

    /// Since when what it tells is so; `None` if it broke off.
    pub(super) fn started(&self) -> Option<Instant> {
        let broke = matches!(self.told.lock().end, Some(Err(_)));
        (!broke).then_some(self.started)
    }

    /// How many pages have come.
    pub(super) fn pages(&self) -> usize {
        self.told.lock().pages
    }

    /// Waits until so many pages have come, or the last one.
    ///
    /// # Errors
    /// How it broke off.
    pub(super) async fn until(self: Arc<Self>, pages: usize) -> Result<(), StoreError> {
        let mut news = self.news.subscribe();
        self.wanted.send_if_modified(|wanted| {
            let is_more = *wanted < pages;
            *wanted = pages.max(*wanted);
            is_more
        });
        loop {
            news.borrow_and_update();
            {
                let told = self.told.lock();
                if let Some(end) = &told.end {
                    return end.clone();
                }
                if told.pages >= pages {
                    return Ok(());
                }
            }
            if news.changed().await.is_err() {
                return Err(StoreError::Deadline);
            }
        }
    }

    fn add(&self, names: Vec<Entry>) {
        let mut told = self.told.lock();
        told.names.extend(names);
        told.pages += 1;
        told.let_go();
        drop(told);
        self.news.send_modify(|count| *count += 1);
    }

    fn end(&self, how: Result<(), StoreError>) {
        self.told.lock().end = Some(how);
        self.news.send_modify(|count| *count += 1);
    }
}

/// What asks the bucket.
struct Asker {
    paging: Weak<Paging>,
    wanted: watch::Receiver<usize>,
}

impl Asker {
    async fn run(mut self, tree: Arc<Tree>, store: Arc<dyn ObjectStore>, path: RelPath) {
        let asked = tree.ask();
        let mut request = ListRequest {
            delimited: true,
            ..below(&path, PAGE_KEYS)
        };
        let (mut fetched, mut is_there) = (0, path.is_root());
        while self.is_wanted(fetched).await {
            let page = store.list(&request).await;
            let Some(paging) = self.paging.upgrade() else {
                return;
            };
            let page = match page {
                Ok(page) => page,
                Err(error) => return paging.end(Err(error)),
            };
            fetched += 1;
            is_there |= !page.objects.is_empty() || !page.prefixes.is_empty();
            asked.page(&path, &page);
            paging.add(tree.view(|view| names(&path, &page, view, paging.started)));
            let Some(next) = page.next else {
                if !is_there {
                    asked.dir_probed(&path, false);
                }
                asked.listed(&path);
                drop(asked);
                // Before its end is told: who has seen the directory sees it after a crash too.
                disk::blocking(move || tree.keep_listings()).await;
                return paging.end(Ok(()));
            };
            request.continuation = Some(next);
        }
    }

    /// Waits until another page is wanted; whether one ever is.
    async fn is_wanted(&mut self, fetched: usize) -> bool {
        let is_due = |wanted: &usize| *wanted > 0 && *wanted + AHEAD > fetched;
        self.wanted.wait_for(is_due).await.is_ok()
    }
}

/// The names that a page of a listing that began at `started` tells of the directory `path`; as the
/// tree keeps them, so that they take no memory of their own.
fn names(path: &RelPath, page: &ListPage, view: &View<'_>, started: Instant) -> Vec<Entry> {
    let child = |key: &str| {
        let child = RelKey::parse(key)?.path();
        (child.parent().as_ref() == Some(path)).then_some(child)
    };
    let objects = page.objects.iter().filter_map(|object| child(&object.key));
    // An object of the same name was told before it.
    let dirs = page.prefixes.iter().filter_map(|prefix| child(prefix));
    let dirs = dirs.filter(|dir| !view.has_file_since(dir, started));
    let objects = objects.map(|path| (path, false));
    objects
        .chain(dirs.map(|path| (path, true)))
        .filter_map(|(path, is_dir)| Some((view.kept_name(&path)?, is_dir)))
        .collect()
}

/// One reading of a directory from its start.
#[derive(Debug)]
pub(super) struct Reading {
    /// The listing, where the names were not known.
    paging: Mutex<Option<Arc<Paging>>>,
    /// Names that come after so many of the listing's: those made here meanwhile, or all known.
    tail: Mutex<Option<(usize, Vec<Name>)>>,
}

impl Reading {
    /// All names are known.
    pub(super) fn known(names: Vec<Name>) -> Arc<Self> {
        Arc::new(Self {
            paging: Mutex::new(None),
            tail: Mutex::new(Some((0, names))),
        })
    }

    /// They come with a listing.
    pub(super) fn paged(paging: Arc<Paging>) -> Arc<Self> {
        Arc::new(Self {
            paging: Mutex::new(Some(paging)),
            tail: Mutex::new(None),
        })
    }

    /// The listing it waits for.
    pub(super) fn paging(&self) -> Option<Arc<Paging>> {
        self.paging.lock().as_ref().map(Arc::clone)
    }

    /// Goes on in another listing.
    pub(super) fn go_on_in(&self, paging: Arc<Paging>) {
        *self.tail.lock() = None;
        *self.paging.lock() = Some(paging);
    }

    /// What is at `index`. `all`: every name that is visible now, asked for at the listing's end.
    pub(super) fn step(&self, index: usize, all: impl FnOnce() -> Vec<Name>) -> Step {
        let paging = self.paging();
        let mut tail = self.tail.lock();
        if let (Some(paging), None) = (&paging, &*tail) {
            let told = paging.told.lock();
            if let Some(step) = told.step(index) {
                return step;
            }
            if told.end != Some(Ok(())) {
                return Step::Wait(told.pages + 1);
            }
            drop(told);
            *tail = Some(paging.rest(all()));
        }
        let Some((told, rest)) = &*tail else {
            return Step::End;
        };
        let step = match &paging {
            Some(paging) if index < *told => paging.told.lock().step(index),
            _ => index.checked_sub(*told).and_then(|at| {
                let name = rest.get(at)?.clone();
                Some(Step::Name(name, false))
            }),
        };
        step.unwrap_or(Step::End)
    }

    /// Nothing more comes: what is known has to do.
    pub(super) fn give_up(&self, all: Vec<Name>) {
        if let Some(paging) = self.paging() {
            self.tail.lock().get_or_insert_with(|| paging.rest(all));
        }
    }
}

impl Paging {
    /// How many names were told, and those of `all` that were not.
    fn rest(&self, mut all: Vec<Name>) -> (usize, Vec<Name>) {
        let told = self.told.lock();
        let mut sorted: Vec<&Name> = told.names.iter().map(|(name, _)| name).collect();
        sorted.sort_unstable();
        all.retain(|name| sorted.binary_search(&name).is_err());
        if told.first > 0 {
            let mut rest: HashMap<u64, Name> =
                all.drain(..).map(|name| (hash(&name), name)).collect();
            for passed in told.passed.iter().flatten() {
                rest.remove(passed);
            }
            all = rest.into_values().collect();
            all.sort_unstable();
        }
        (told.first + told.names.len(), all)
    }
}

impl Told {
    /// What is at `index`, if it was told.
    fn step(&self, index: usize) -> Option<Step> {
        let Some(at) = index.checked_sub(self.first) else {
            return Some(Step::Behind);
        };
        let (name, is_dir) = self.names.get(at)?;
        Some(Step::Name(name.clone(), *is_dir))
    }

    /// Keeps no more than it may.
    fn let_go(&mut self) {
        if self.names.len() > NAMES_MAX {
            let passed = self.names.drain(..NAMES_MAX / 2);
            self.passed
                .push(passed.map(|(name, _)| hash(&name)).collect());
            self.first += NAMES_MAX / 2;
        }
    }
}

fn hash(name: &Name) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

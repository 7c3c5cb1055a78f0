//! What is known of the bucket: per directory, per name, a fact about the object and one about the
//! directory of that name, each as old as its last answer.
//!
//! Invariants:
//! - a name not in a listed directory is known to be absent, as of the listing;
//! - an answer to a question asked before one of our own results at a key does not undo that
//!   result (`recent`, kept only while questions are under way);
//! - only keys that are paths are in here; others are counted in `hidden`;
//! - whatever changes a fact notes that it is not told yet to the kept listings (`told`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use crate::seeded::{self, Bug};
use crate::types::{
    ETag, ListPage, Listed, Name, ObjectId, ObjectKey, ObjectMeta, RelKey, RelPath, Seq,
};

/// A version without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its tag.
    pub etag: ETag,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub modified: i64,
    /// The number of our generation that became this version, if this run sent it.
    pub by: Option<Seq>,
}

/// Something that is there, is not there, or was never asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Fact<T> {
    /// Never asked.
    #[default]
    Unknown,
    /// Asked; not there.
    Absent,
    /// Asked; there.
    Present(T),
}

impl<T> Fact<T> {
    /// What is there.
    pub(super) fn present(&self) -> Option<&T> {
        match self {
            Self::Present(it) => Some(it),
            Self::Unknown | Self::Absent => None,
        }
    }

    /// The same of something else.
    pub(super) fn map<U>(self, to: impl FnOnce(T) -> U) -> Fact<U> {
        match self {
            Self::Unknown => Fact::Unknown,
            Self::Absent => Fact::Absent,
            Self::Present(it) => Fact::Present(to(it)),
        }
    }
}

/// What is known of one name.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// The object of that key.
    pub(super) file: Fact<Known>,
    /// The directory of that name, and its marker.
    pub(super) dir: Fact<Fact<Box<Known>>>,
    /// When this was last so.
    pub(super) checked: Instant,
    /// The kept listings tell the same.
    pub(super) told: bool,
}

impl Slot {
    fn new(at: Instant) -> Self {
        Self {
            file: Fact::Unknown,
            dir: Fact::Unknown,
            checked: at,
            told: false,
        }
    }
}

/// What is known of one directory.
#[derive(Debug, Default)]
pub(super) struct Dir {
    /// When all of its names were last known.
    pub(super) listed: Option<Instant>,
    /// When names of it were last forgotten, being too many.
    pub(super) trimmed: Option<Instant>,
    /// Names by what is known of them.
    pub(super) names: BTreeMap<Name, Slot>,
    /// The kept listings tell of it.
    pub(super) told: bool,
    /// Names they tell of that are not in here any more.
    pub(super) gone: Vec<Name>,
}

/// What is known of the bucket.
#[derive(Debug, Default)]
pub(super) struct Remote {
    pub(super) dirs: HashMap<RelPath, Dir>,
    asking: BTreeMap<Seq, usize>,
    pub(super) recent: HashMap<RelKey, Seq>,
    hidden: u64,
    /// Questions asked before were about another root.
    root_since: Seq,
    /// Directories of which the kept listings do not tell all.
    pub(super) untold: BTreeSet<RelPath>,
}

impl From<&ObjectMeta> for Known {
    fn from(meta: &ObjectMeta) -> Self {
        Self {
            etag: meta.id.etag.clone(),
            size: meta.size,
            modified: meta.modified,
            by: None,
        }
    }
}

impl Known {
    /// As an object's metadata (from a listing: without headers).
    #[must_use]
    pub fn meta(&self, key: &RelKey) -> ObjectMeta {
        let id = ObjectId {
            key: ObjectKey::from(key),
            etag: self.etag.clone(),
        };
        ObjectMeta {
            id,
            size: self.size,
            modified: self.modified,
            headers: None,
        }
    }
}

impl Remote {
    /// What is known of a directory.
    #[must_use]
    pub(super) fn dir(&self, path: &RelPath) -> Option<&Dir> {
        self.dirs.get(path)
    }

    /// What is known of a name; for a name that a listing did not have, that it is absent.
    #[must_use]
    pub(super) fn slot(&self, path: &RelPath) -> Option<Slot> {
        let dir = self.dirs.get(&path.parent()?)?;
        dir.names.get(&path.name()?).cloned().or_else(|| {
            let checked = dir.listed?;
            Some(Slot {
                file: Fact::Absent,
                dir: Fact::Absent,
                checked,
                told: false,
            })
        })
    }

    /// The version known to be at a key.
    #[must_use]
    pub(super) fn known(&self, key: &RelKey) -> Option<Known> {
        let slot = self.slot(&key.path())?;
        if key.is_dir() {
            slot.dir.present()?.present().map(|known| (**known).clone())
        } else {
            slot.file.present().cloned()
        }
    }

    /// Keys that were listed and cannot be shown.
    #[must_use]
    pub(super) fn hidden(&self) -> u64 {
        self.hidden
    }

    /// The root is another one from the record at `seq` on: nothing is known of it.
    pub(super) fn reroot(&mut self, seq: Seq) {
        *self = Self {
            asking: std::mem::take(&mut self.asking),
            root_since: seq,
            ..Self::default()
        };
    }

    /// Whether a question asked at `asked` was about the root that is it now.
    #[must_use]
    pub(super) fn is_of_this_root(&self, asked: Seq) -> bool {
        asked >= self.root_since
    }

    /// A question is under way since `at`.
    pub(super) fn asking(&mut self, at: Seq) {
        *self.asking.entry(at).or_default() += 1;
    }

    /// It is answered (or given up).
    pub(super) fn answered(&mut self, at: Seq) {
        if let Some(count) = self.asking.get_mut(&at) {
            *count -= 1;
            if *count == 0 {
                self.asking.remove(&at);
            }
        }
        if self.asking.is_empty() {
            self.recent.clear();
        }
    }

    /// Our own result at `key`: it is this version now, or nothing.
    pub(super) fn result(&mut self, key: &RelKey, now_is: Option<Known>, seq: Seq, at: Instant) {
        if !self.asking.is_empty() {
            self.recent.insert(key.clone(), seq);
        }
        self.set(key, now_is, at);
    }

    /// The answer of a HEAD asked at `asked`.
    pub(super) fn head(&mut self, key: &RelKey, found: Option<Known>, asked: Seq, at: Instant) {
        if self.is_newer(key, asked) {
            return;
        }
        self.set(key, found, at);
    }

    /// That the directory has no name but what is found out from now on (it was made here).
    pub(super) fn empty_dir(&mut self, path: &RelPath, at: Instant) {
        let empty = Dir {
            listed: Some(at),
            ..Dir::default()
        };
        self.dirs.insert(path.clone(), empty);
        self.untold.insert(path.clone());
    }

    /// That the directory has no name but what is known and what is found out from now on.
    pub(super) fn complete_dir(&mut self, path: &RelPath, at: Instant) {
        self.dirs.entry(path.clone()).or_default().listed = Some(at);
        self.untold.insert(path.clone());
    }

    /// Forgets a directory that was removed here.
    pub(super) fn forget_dir(&mut self, path: &RelPath, at: Instant) {
        self.drop_dir(path);
        self.edit(path, at, |slot| slot.dir = Fact::Absent);
    }

    fn drop_dir(&mut self, path: &RelPath) {
        if self.dirs.remove(path).is_some() {
            self.untold.insert(path.clone());
        }
    }

    /// What is at and below `path` is only known to have been so at `old`, or before.
    pub(super) fn doubt(&mut self, path: &RelPath, old: Instant) {
        if let (Some(parent), Some(name)) = (path.parent(), path.name())
            && let Some(dir) = self.dirs.get_mut(&parent)
        {
            match dir.names.get_mut(&name) {
                Some(slot) => slot.checked = slot.checked.min(old),
                // Known to be absent by the listing, which is not doubted for the other names.
                None if dir.listed.is_some() => self.edit(path, old, |_| {}),
                None => {}
            }
        }
        for (at, dir) in &mut self.dirs {
            if at == path || at.is_within(path) {
                dir.listed = dir.listed.map(|listed| listed.min(old));
                for slot in dir.names.values_mut() {
                    slot.checked = slot.checked.min(old);
                }
            }
        }
    }

    /// All is only known to have been so then.
    #[cfg(test)]
    pub(super) fn age(&mut self, to: Instant) {
        for dir in self.dirs.values_mut() {
            dir.listed = dir.listed.map(|_| to);
            dir.names.values_mut().for_each(|slot| slot.checked = to);
        }
    }

    /// A page of a listing of `path` with delimiter, asked at `asked`.
    pub(super) fn page(&mut self, path: &RelPath, page: &ListPage, asked: Seq, at: Instant) {
        self.hidden += page.unreadable;
        let prefix = path.dir_prefix();
        for object in &page.objects {
            if object.key == prefix {
                let known = Known::from(object);
                self.set_unless_newer(&RelKey::dir(path), Some(known), asked, at);
                continue;
            }
            match RelKey::parse(&object.key)
                .filter(|key| key.path().parent().as_ref() == Some(path))
            {
                Some(key) => self.set_unless_newer(&key, Some(Known::from(object)), asked, at),
                None => self.hidden += 1,
            }
        }
        for prefix in &page.prefixes {
            match RelKey::parse(prefix).filter(|key| key.path().parent().as_ref() == Some(path)) {
                Some(key) => self.dir_exists_unless_newer(&key.path(), asked, at),
                None => self.hidden += 1,
            }
        }
    }

    /// All pages of a listing of `path` that began at `started` have come: what none of them named,
    /// and no result of ours has touched since, is gone.
    pub(super) fn listed(&mut self, path: &RelPath, started: Instant) {
        let dir = self.dirs.entry(path.clone()).or_default();
        if dir.trimmed.is_some_and(|at| at >= started) {
            return;
        }
        let was_listed = dir.listed.replace(started).is_some();
        let (mut dirs, mut gone) = (Vec::new(), Vec::new());
        let is_told = dir.told;
        dir.names.retain(|name, slot| {
            let stays = slot.checked >= started;
            if !stays && slot.dir.present().is_some() {
                dirs.push(path.join(name));
            }
            // Also of a slot that is not told as it is now, the kept listings may tell something older.
            if !stays && is_told {
                gone.push(name.clone());
            }
            stays
        });
        if !was_listed || !gone.is_empty() {
            self.untold.insert(path.clone());
        }
        dir.gone.append(&mut gone);
        for path in dirs {
            self.drop_dir(&path);
        }
    }

    /// The answer of a listing of all keys that begin with `path`, at most a few, asked at `asked`:
    /// tells of the name itself, unless it was cut short. Answers whether the directory is decided.
    pub(super) fn probed(
        &mut self,
        path: &RelPath,
        page: &ListPage,
        asked: Seq,
        at: Instant,
    ) -> bool {
        let (file, dir) = (RelKey::file(path), RelKey::dir(path));
        let object = page
            .objects
            .iter()
            .find(|object| object.key == file.as_str());
        let is_dir = page.prefixes.iter().any(|prefix| prefix == dir.as_str())
            || page
                .objects
                .iter()
                .any(|object| object.key.starts_with(dir.as_str()));
        self.set_unless_newer(&file, object.map(Known::from), asked, at);
        if is_dir {
            self.dir_exists_unless_newer(path, asked, at);
        } else if page.next.is_none() && !self.is_newer(&dir, asked) {
            self.forget_dir(path, at);
        }
        is_dir || page.next.is_none()
    }

    /// Whether a key below it exists was asked.
    pub(super) fn dir_probed(&mut self, path: &RelPath, is_there: bool, asked: Seq, at: Instant) {
        if is_there {
            self.dir_exists_unless_newer(path, asked, at);
        } else if !self.is_newer(&RelKey::dir(path), asked) {
            self.forget_dir(path, at);
        }
    }

    /// All objects known below a directory, and since when they are all there are; `None` if some
    /// directory was never listed.
    #[must_use]
    pub(super) fn below(
        &self,
        path: &RelPath,
        now: Instant,
    ) -> (Vec<(RelKey, Known)>, Option<Instant>) {
        let (mut found, mut complete) = (Vec::new(), Some(now));
        let mut todo = vec![path.clone()];
        while let Some(path) = todo.pop() {
            let Some(dir) = self.dirs.get(&path) else {
                complete = None;
                continue;
            };
            complete = complete.min(dir.listed);
            for (name, slot) in &dir.names {
                let child = path.join(name);
                if let Some(known) = slot.file.present() {
                    found.push((RelKey::file(&child), known.clone()));
                }
                if let Some(marker) = slot.dir.present() {
                    if let Some(known) = marker.present() {
                        found.push((RelKey::dir(&child), (**known).clone()));
                    }
                    todo.push(child);
                }
            }
        }
        (found, complete)
    }

    /// Keys for every page of a recursive listing (no delimiter) of `path`.
    pub(super) fn deep_page(&mut self, path: &RelPath, page: &ListPage, asked: Seq, at: Instant) {
        self.hidden += page.unreadable;
        for object in &page.objects {
            match RelKey::parse(&object.key).filter(|key| key.path().is_within(path)) {
                Some(key) => self.set_unless_newer(&key, Some(Known::from(object)), asked, at),
                None => self.hidden += u64::from(object.key != path.dir_prefix()),
            }
        }
    }

    /// All pages of a recursive listing of `path` have come.
    pub(super) fn deep_listed(&mut self, path: &RelPath, started: Instant) {
        let below: Vec<RelPath> = self
            .dirs
            .keys()
            .filter(|dir| dir.is_within(path))
            .cloned()
            .collect();
        for dir in below.iter().chain([path]) {
            self.listed(dir, started);
        }
    }

    fn is_newer(&self, key: &RelKey, asked: Seq) -> bool {
        let result = self.recent.get(key);
        result.is_some_and(|result| *result > asked) && !seeded::is(Bug::OldAnswerWins)
    }

    fn set_unless_newer(&mut self, key: &RelKey, known: Option<Known>, asked: Seq, at: Instant) {
        if !self.is_newer(key, asked) {
            self.set(key, known, at);
        }
    }

    fn set(&mut self, key: &RelKey, known: Option<Known>, at: Instant) {
        let path = key.path();
        let exists = known.is_some();
        self.edit(&path, at, |slot| {
            let fact = match (known, slot.file.present()) {
                // The same version seen again keeps whose it is.
                (Some(known), Some(old)) if old.etag == known.etag => Fact::Present(Known {
                    by: known.by.or(old.by),
                    ..known
                }),
                (Some(known), _) => Fact::Present(known),
                (None, _) => Fact::Absent,
            };
            if !key.is_dir() {
                slot.file = fact;
            } else if exists || slot.dir.present().is_some() {
                slot.dir = Fact::Present(fact.map(Box::new));
            }
        });
        if exists && let Some(parent) = path.parent() {
            self.dir_exists(&parent, at);
        }
    }

    /// A listing tells of a directory by what is below it, which may be what we removed since.
    fn dir_exists_unless_newer(&mut self, path: &RelPath, asked: Seq, at: Instant) {
        if !self.is_newer(&RelKey::dir(path), asked) {
            self.dir_exists(path, at);
        }
    }

    fn dir_exists(&mut self, path: &RelPath, at: Instant) {
        let mut path = path.clone();
        while let Some(parent) = path.parent() {
            self.edit(&path, at, |slot| {
                if slot.dir.present().is_none() {
                    slot.dir = Fact::Present(Fact::Unknown);
                }
            });
            path = parent;
        }
    }

    /// Does something to what is known of a name, as of `at`. The root has none.
    fn edit(&mut self, path: &RelPath, at: Instant, work: impl FnOnce(&mut Slot)) {
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
            return;
        };
        let dir = self.dirs.entry(parent.clone()).or_default();
        let listed = dir.listed.is_some();
        let slot = dir.names.entry(name).or_insert_with(|| {
            let mut slot = Slot::new(at);
            if listed {
                (slot.file, slot.dir) = (Fact::Absent, Fact::Absent);
            }
            slot
        });
        slot.checked = at;
        let before = (slot.file.clone(), slot.dir.clone());
        work(slot);
        if (&before.0, &before.1) != (&slot.file, &slot.dir) || !slot.told {
            slot.told = false;
            self.untold.insert(parent);
        }
    }
}

impl From<&Listed> for Known {
    fn from(listed: &Listed) -> Self {
        Self {
            etag: listed.etag.clone(),
            size: listed.size,
            modified: listed.modified,
            by: None,
        }
    }
}

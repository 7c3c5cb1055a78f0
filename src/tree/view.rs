//! The fold seen from outside: what is visible at a path, as pending changes lie over what is known
//! of the bucket. Pure: a view is borrowed under the tree's lock.
//!
//! Rules (in this order): a directory shadows a file of the same name; a pending change at a key
//! wins over what the bucket holds there; a directory is visible while a visible change lies below
//! it, whatever the bucket says.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::log::Refusal;
use crate::types::{
    Attrs, Base, Extents, Generation, Kind, Name, ObjectId, ObjectKey, RelKey, RelPath, Seq, Want,
};

use super::fold::State;
use super::pending::Pending;
use super::remote::{Fact, Known};

/// Names that `View::subdirs` looks at: it is asked for with every `stat` of a directory.
const COUNTED: usize = 1000;

/// What is to be done with what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Known within `ttl`, or our own.
    Fresh,
    /// Known before that.
    Old,
}

/// Where a visible node's content is.
#[derive(Clone, Debug)]
pub enum Content {
    /// Sealed here, not yet in the bucket.
    Pending(Arc<Generation>, Seq),
    /// Created here, nothing sealed.
    Open(Seq),
    /// A version in the bucket, and the number of our generation that it was, if it was one.
    Remote(ObjectId, Option<Seq>),
    /// A directory has none.
    None,
}

/// A visible node.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Bytes (of a symlink: of its target).
    pub len: u64,
    /// As far as known; `None`: nothing but what a listing tells.
    pub attrs: Option<Attrs>,
    /// `LastModified` of the version in the bucket, seconds since 1970.
    pub modified: Option<i64>,
    /// Its content.
    pub content: Content,
}

impl Node {
    /// A file that is a version in the bucket, of which nothing else is known.
    #[must_use]
    pub fn foreign(version: ObjectId, len: u64) -> Self {
        Self {
            kind: Kind::File,
            len,
            attrs: None,
            modified: None,
            content: Content::Remote(version, None),
        }
    }

    /// Of which nothing is known but that a listing told of it.
    #[must_use]
    pub fn told(is_dir: bool) -> Self {
        Self {
            kind: if is_dir { Kind::Dir } else { Kind::File },
            len: 0,
            attrs: None,
            modified: None,
            content: Content::None,
        }
    }

    /// The extents of its sealed content; none for what has none.
    #[must_use]
    pub fn extents(&self) -> Extents {
        match &self.content {
            Content::Pending(generation, _) => generation.extents.clone(),
            Content::Remote(id, _) => Extents::whole(id.clone(), self.len),
            Content::Open(_) | Content::None => Extents::default(),
        }
    }
}

/// An answer about a path.
#[derive(Clone, Debug)]
pub enum Seen {
    /// It is there.
    Here(Box<Node>, Freshness),
    /// Nothing is there.
    NotHere(Freshness),
    /// Only the bucket can tell.
    Unknown,
}

/// The fold, borrowed.
#[derive(Debug)]
pub struct View<'a> {
    state: &'a State,
    now: Instant,
    fresh_since: Instant,
}

impl<'a> View<'a> {
    pub(super) fn new(state: &'a State, now: Instant, ttl: Duration) -> Self {
        Self {
            state,
            now,
            fresh_since: now.checked_sub(ttl).unwrap_or(now),
        }
    }

    fn freshness(&self, at: Instant) -> Freshness {
        if at >= self.fresh_since {
            Freshness::Fresh
        } else {
            Freshness::Old
        }
    }

    /// What is visible at `path`.
    #[must_use]
    pub fn lookup(&self, path: &RelPath) -> Seen {
        if path.is_root() {
            return Seen::Here(Box::new(self.dir_node(path)), Freshness::Fresh);
        }
        let slot = self.state.remote.slot(path);
        let checked = slot.as_ref().map(|slot| self.freshness(slot.checked));
        let (file_fact, dir_fact) =
            slot.map_or((Fact::Unknown, Fact::Unknown), |slot| (slot.file, slot.dir));
        let marker = self.state.pending.get(&RelKey::dir(path));
        let is_removed = marker.is_some_and(|entry| entry.want == Want::Gone);
        let is_made = marker.is_some_and(|entry| entry.generation().is_some());
        if is_made || self.has_live_below(path) {
            return Seen::Here(Box::new(self.dir_node(path)), Freshness::Fresh);
        }
        if dir_fact.present().is_some() && !is_removed {
            let freshness = checked.unwrap_or(Freshness::Old);
            return Seen::Here(Box::new(self.dir_node(path)), freshness);
        }
        match self.state.pending.get(&RelKey::file(path)) {
            Some(entry) if entry.want == Want::Gone => return Seen::NotHere(Freshness::Fresh),
            Some(entry) => {
                let node = Box::new(self.pending_node(path, entry));
                return Seen::Here(node, Freshness::Fresh);
            }
            None => {}
        }
        match (file_fact, dir_fact, checked) {
            (Fact::Present(known), _, Some(freshness)) => {
                Seen::Here(Box::new(self.remote_node(path, &known)), freshness)
            }
            (Fact::Absent, Fact::Absent, Some(freshness)) => Seen::NotHere(freshness),
            (Fact::Absent, _, _) if is_removed => Seen::NotHere(Freshness::Fresh),
            _ => Seen::Unknown,
        }
    }

    /// Whether all names of the directory are known, and how fresh.
    #[must_use]
    pub fn listed(&self, path: &RelPath) -> Option<Freshness> {
        Some(self.freshness(self.state.remote.dir(path)?.listed?))
    }

    /// How many names are known of a directory, if they are all there are.
    #[must_use]
    pub fn listed_names(&self, path: &RelPath) -> Option<usize> {
        let dir = self.state.remote.dir(path)?;
        dir.listed.map(|_| dir.names.len())
    }

    /// The names visible in a directory, as far as known, in order.
    #[must_use]
    pub fn names(&self, path: &RelPath) -> Vec<Name> {
        let mut names: BTreeSet<Name> = BTreeSet::new();
        if let Some(dir) = self.state.remote.dir(path) {
            let there = dir
                .names
                .iter()
                .filter(|(_, slot)| slot.file.present().is_some() || slot.dir.present().is_some());
            names.extend(there.map(|(name, _)| name.clone()));
        }
        let prefix = path.dir_prefix();
        let mut mine: Vec<(&str, bool)> = Vec::new();
        for (key, entry) in self.state.pending.below(&prefix) {
            let rest = &key.as_str()[prefix.len()..];
            let first = rest.split('/').next().unwrap_or_default();
            if !first.is_empty() && mine.last() != Some(&(first, entry.want != Want::Gone)) {
                mine.push((first, entry.want != Want::Gone));
            }
        }
        for (first, is_live) in mine {
            let Ok(name) = Name::new(first) else { continue };
            if is_live {
                names.insert(name);
            } else if names.contains(&name)
                && !matches!(self.lookup(&path.join(&name)), Seen::Here(..))
            {
                names.remove(&name);
            }
        }
        names.into_iter().collect()
    }

    /// Whether something visible is in the directory, as far as known.
    #[must_use]
    pub fn is_empty(&self, path: &RelPath) -> bool {
        self.names(path).is_empty()
    }

    /// Whether the directory of `path` would be seen no more without `path` and what is below it: the
    /// bucket knows nothing of it, and nothing else is in it.
    #[must_use]
    pub fn vanishes_without(&self, path: &RelPath) -> bool {
        let Some(dir) = path.parent().filter(|dir| !dir.is_root()) else {
            return false;
        };
        let marker = self.state.pending.get(&RelKey::dir(&dir));
        let slot = self.state.remote.slot(&dir);
        let is_known = slot.is_some_and(|slot| slot.dir.present().is_some());
        if marker.map_or(is_known, |entry| entry.generation().is_some()) {
            return false;
        }
        let prefix = dir.dir_prefix();
        let mut below = self.state.pending.below(&prefix);
        !below.any(|(key, entry)| {
            entry.want != Want::Gone && key.as_str() != prefix && !key.path().is_within(path)
        })
    }

    /// How many directories are visible in the directory; `None` if not all of its names are known,
    /// or if counting would look at more than `COUNTED` of them.
    #[must_use]
    pub fn subdirs(&self, path: &RelPath) -> Option<u32> {
        let dir = self.state.remote.dir(path)?;
        dir.listed?;
        if dir.names.len() > COUNTED {
            return None;
        }
        let in_bucket = dir
            .names
            .iter()
            .filter(|(_, slot)| slot.dir.present().is_some())
            .map(|(name, _)| name.as_str());
        let mut found: BTreeSet<&str> = in_bucket.collect();
        found.extend(self.state.pending.dirs_in(&path.dir_prefix(), COUNTED)?);
        let is_dir = |name: &&str| {
            let child = Name::new(name).map(|name| self.lookup(&path.join(&name)));
            matches!(child, Ok(Seen::Here(node, _)) if node.kind == Kind::Dir)
        };
        u32::try_from(found.into_iter().filter(is_dir).count()).ok()
    }

    /// What the bucket is believed to hold at `key`: the base of the next change there.
    #[must_use]
    pub fn base(&self, key: &RelKey) -> Base {
        if let Some(entry) = self.state.pending.get(key) {
            return entry.base.clone();
        }
        self.state
            .remote
            .known(key)
            .map_or(Base::Absent, |known| Base::Version(known.etag))
    }

    /// The pending change at a key.
    #[must_use]
    pub fn pending(&self, key: &RelKey) -> Option<&Pending> {
        self.state.pending.get(key)
    }

    /// Every visible key at or below the directory `path` with its content, and whether all of it
    /// is known, and how fresh.
    #[must_use]
    pub fn subtree(&self, path: &RelPath) -> (Vec<(RelKey, Node)>, Option<Freshness>) {
        let (known, complete) = self.state.remote.below(path, self.now);
        let mut found: Vec<(RelKey, Node)> = Vec::new();
        let marker = self.state.remote.known(&RelKey::dir(path));
        let own = marker.map(|known| (RelKey::dir(path), known));
        for (key, known) in known.into_iter().chain(own) {
            if self.state.pending.get(&key).is_none() {
                let mut node = self.remote_node(&key.path(), &known);
                if key.is_dir() {
                    node.kind = Kind::Dir;
                    node.attrs = self.state.memory.get(&key, &known.etag);
                    node.content = Content::Remote(id_of(&key, &known), known.by);
                }
                found.push((key, node));
            }
        }
        for (key, entry) in self.state.pending.below(&path.dir_prefix()) {
            if entry.want != Want::Gone {
                found.push((key.clone(), self.pending_node(&key.path(), entry)));
            }
        }
        (found, complete.map(|since| self.freshness(since)))
    }

    /// Why changes in the directory of `path` are refused by S3, if one was.
    #[must_use]
    pub fn refusal(&self, path: &RelPath) -> Option<Refusal> {
        if !self.state.pending.has_dead() {
            return None;
        }
        let parent = path.parent()?;
        let prefix = parent.dir_prefix();
        self.state
            .pending
            .below(&prefix)
            .find(|(key, entry)| {
                entry.dead.is_some() && key.path().parent().as_ref() == Some(&parent)
            })
            .and_then(|(_, entry)| entry.dead.clone())
    }

    /// The key of what is shown at `path`, if its object may carry attributes that are not known.
    #[must_use]
    pub fn without_attrs(&self, path: &RelPath) -> Option<RelKey> {
        let Seen::Here(node, _) = self.lookup(path) else {
            return None;
        };
        if node.kind != Kind::Dir {
            let is_plain = matches!(node.content, Content::Remote(..)) && node.attrs.is_none();
            return is_plain.then(|| RelKey::file(path));
        }
        let key = RelKey::dir(path);
        let slot = self.state.remote.slot(path)?;
        let is_unknown = match slot.dir.present()? {
            Fact::Unknown => true,
            Fact::Absent => false,
            Fact::Present(_) => node.attrs.is_none(),
        };
        (is_unknown && self.state.pending.get(&key).is_none()).then_some(key)
    }

    /// The name at `path`, if something is known there, as it is kept.
    #[must_use]
    pub fn kept_name(&self, path: &RelPath) -> Option<Name> {
        let dir = self.state.remote.dir(&path.parent()?)?;
        let (name, _) = dir.names.get_key_value(&path.name()?)?;
        Some(name.clone())
    }

    /// Whether nothing is kept of what was told of `path`, and nothing waits to be sent there or below.
    #[must_use]
    pub fn is_forgotten(&self, path: &RelPath) -> bool {
        let pending = &self.state.pending;
        self.kept_name(path).is_none()
            && pending.get(&RelKey::file(path)).is_none()
            && pending.below(&path.dir_prefix()).next().is_none()
    }

    /// Whether an answer since then showed an object, not a directory, at `path`.
    #[must_use]
    pub fn has_file_since(&self, path: &RelPath, then: Instant) -> bool {
        let slot = self.state.remote.slot(path);
        slot.is_some_and(|slot| slot.checked >= then && slot.file.present().is_some())
    }

    /// Attributes remembered of a version.
    #[must_use]
    pub fn remembered(&self, object: &ObjectId) -> Option<Attrs> {
        let key = RelKey::parse(object.key.as_str())?;
        self.state.memory.get(&key, &object.etag)
    }

    /// The version known to be at a key.
    #[must_use]
    pub fn known(&self, key: &RelKey) -> Option<Known> {
        self.state.remote.known(key)
    }

    fn has_live_below(&self, path: &RelPath) -> bool {
        let prefix = path.dir_prefix();
        self.state
            .pending
            .below(&prefix)
            .any(|(key, entry)| entry.want != Want::Gone && key.as_str() != prefix)
    }

    fn dir_node(&self, path: &RelPath) -> Node {
        let key = RelKey::dir(path);
        let mut node = Node {
            kind: Kind::Dir,
            len: 0,
            attrs: None,
            modified: None,
            content: Content::None,
        };
        // What somebody keeps in a marker goes with the directory's attributes.
        if let Some(entry) = self.state.pending.get(&key) {
            if let Some(generation) = entry.generation() {
                node.attrs = Some(generation.attrs.clone());
                node.len = generation.len;
                node.content = Content::Pending(Arc::clone(generation), entry.number);
            }
        } else if let Some(known) = self.state.remote.known(&key) {
            node.attrs = self.state.memory.get(&key, &known.etag);
            node.modified = Some(known.modified);
            node.len = known.size;
            node.content = Content::Remote(id_of(&key, &known), known.by);
        }
        node
    }

    fn pending_node(&self, path: &RelPath, entry: &Pending) -> Node {
        let file = RelKey::file(path);
        let modified = self.state.remote.known(&file).map(|known| known.modified);
        match &entry.want {
            Want::Object(generation) => Node {
                kind: generation.attrs.kind,
                len: generation.len,
                attrs: Some(self.filled(path, &generation.attrs, &entry.base)),
                modified,
                content: Content::Pending(Arc::clone(generation), entry.number),
            },
            Want::Open { attrs, .. } => Node {
                kind: attrs.kind,
                len: 0,
                attrs: Some((**attrs).clone()),
                modified,
                content: Content::Open(entry.number),
            },
            Want::Gone => self.dir_node(path),
        }
    }

    /// What a generation leaves open is shown as its base has it, where that is remembered.
    fn filled(&self, path: &RelPath, attrs: &Attrs, base: &Base) -> Attrs {
        match base {
            Base::Version(etag) if !attrs.is_complete() => {
                let remembered = self.state.memory.get(&RelKey::file(path), etag);
                remembered.map_or_else(|| attrs.clone(), |base| attrs.clone().over(&base))
            }
            _ => attrs.clone(),
        }
    }

    fn remote_node(&self, path: &RelPath, known: &Known) -> Node {
        let key = RelKey::file(path);
        let attrs = self.state.memory.get(&key, &known.etag);
        Node {
            kind: attrs.as_ref().map_or(Kind::File, |attrs| attrs.kind),
            len: known.size,
            attrs,
            modified: Some(known.modified),
            content: Content::Remote(id_of(&key, known), known.by),
        }
    }
}

fn id_of(key: &RelKey, known: &Known) -> ObjectId {
    ObjectId {
        key: ObjectKey::from(key),
        etag: known.etag.clone(),
    }
}

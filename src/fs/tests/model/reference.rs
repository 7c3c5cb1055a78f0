//! The reference: what a user may see, and nothing of logs, extents, generations and drains. A map
//! from names to nodes, nodes with bytes, handles on nodes.
//!
//! Decisions:
//! - a close of a writer, an fsync by anyone, a snapshot and a change of length by name (where nobody
//!   writes) acknowledge all bytes of a file so far, whoever wrote them;
//! - a crash takes each file back to what was acknowledged last; a name of which nothing ever was is
//!   gone, but where it took the place of another: there that one may be back, as the bucket has it;
//! - two directories cannot be exchanged (`EINVAL`).

use std::collections::{BTreeMap, BTreeSet};

use super::super::{FsError, RenameFlags, Result};
use super::action::{Flags, SLOTS};
use super::node::{Body, DIR_MODE, FILE_MODE, Node, Origin};

/// An open file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handle {
    pub(super) node: usize,
    pub(super) flags: Flags,
    /// Its close acknowledges.
    writes: bool,
}

/// The model.
#[derive(Clone, Debug, Default)]
pub(super) struct Reference {
    names: BTreeMap<String, usize>,
    nodes: Vec<Node>,
    handles: [Option<Handle>; SLOTS + 1],
    /// What may be in the bucket at a key: contents that were acknowledged under that name.
    pub(super) acked: BTreeSet<(String, Vec<u8>)>,
}

impl Reference {
    pub(super) fn at(&self, path: &str) -> Option<&Node> {
        self.names.get(path).map(|id| &self.nodes[*id])
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &Node)> {
        let named = self.names.iter();
        named.map(|(path, id)| (path.as_str(), &self.nodes[*id]))
    }

    pub(super) fn handle(&self, slot: usize) -> Option<Handle> {
        self.handles[slot]
    }

    pub(super) fn open_node(&self, slot: usize) -> Option<&Node> {
        self.handles[slot].map(|handle| &self.nodes[handle.node])
    }

    pub(super) fn open_bytes(&self, slot: usize) -> &[u8] {
        match self.open_node(slot).map(|node| &node.body) {
            Some(Body::File(bytes)) => bytes,
            _ => &[],
        }
    }

    /// Whether it has a name, and bytes that are not acknowledged.
    pub(super) fn is_unsealed(&self, slot: usize) -> bool {
        self.open_node(slot).is_some_and(|node| node.is_dirty) && self.path_of(slot).is_some()
    }

    /// The name of what a handle has open, if it has one still.
    pub(super) fn path_of(&self, slot: usize) -> Option<&str> {
        let node = self.handles[slot]?.node;
        let mut named = self.names.iter().filter(|(_, id)| **id == node);
        named.next().map(|(path, _)| path.as_str())
    }

    /// Whether something is open that holds its file back from the bucket.
    pub(super) fn has_writers(&self) -> bool {
        self.handles.iter().flatten().any(|handle| handle.writes)
    }

    fn parent(&self, path: &str) -> Result<()> {
        for dir in above(path) {
            match self.at(dir).map(|node| &node.body) {
                None => return Err(FsError::NotFound),
                Some(Body::Dir) => {}
                Some(Body::File(_) | Body::Link(_)) => return Err(FsError::NotDir),
            }
        }
        Ok(())
    }

    fn id(&self, path: &str) -> Result<usize> {
        self.parent(path)?;
        self.names.get(path).copied().ok_or(FsError::NotFound)
    }

    fn is_dir(&self, id: usize) -> bool {
        self.nodes[id].body == Body::Dir
    }

    fn is_empty(&self, path: &str) -> bool {
        let below = format!("{path}/");
        !self.names.keys().any(|other| other.starts_with(&below))
    }

    /// A new name.
    pub(super) fn make(&mut self, path: &str, body: Body, mode: u32) -> Result<usize> {
        self.parent(path)?;
        if self.names.contains_key(path) {
            return Err(FsError::Exists);
        }
        Ok(self.add(
            path,
            Node {
                mode,
                ..Node::new(body)
            },
        ))
    }

    fn add(&mut self, path: &str, node: Node) -> usize {
        self.nodes.push(node);
        let id = self.nodes.len() - 1;
        self.put(path, id, false);
        id
    }

    /// Somebody else's object, where nothing is in its way.
    pub(super) fn appears(&mut self, path: &str, body: Body, mode: u32) {
        for dir in above(path) {
            if !self.names.contains_key(dir) {
                self.make(dir, Body::Dir, DIR_MODE).unwrap();
            }
        }
        let mut node = Node::new(body);
        node.origin = Origin::of(path, node.len());
        if let Body::File(bytes) = &node.body {
            node.acked = Some(bytes.clone());
        }
        self.add(path, Node { mode, ..node });
    }

    pub(super) fn vanishes(&mut self, path: &str) {
        self.names.remove(path);
    }

    pub(super) fn open(&mut self, path: &str, flags: Flags, slot: usize) -> Result<()> {
        self.parent(path)?;
        let there = self.names.get(path).copied();
        let (node, is_new) = match there {
            Some(_) if flags.create && flags.exclusive => return Err(FsError::Exists),
            Some(id) if self.is_dir(id) => return Err(FsError::IsDir),
            Some(id) => (id, false),
            None if flags.create => (self.make(path, Body::File(Vec::new()), FILE_MODE)?, true),
            None => return Err(FsError::NotFound),
        };
        if flags.truncate && !is_new {
            self.resize(node, 0);
        }
        let writes = flags.write || flags.truncate || is_new;
        self.handles[slot] = Some(Handle {
            node,
            flags,
            writes,
        });
        Ok(())
    }

    pub(super) fn flush(&mut self, slot: usize) {
        if self.handles[slot].is_some_and(|handle| handle.writes) {
            self.fsync(slot);
        }
    }

    pub(super) fn close(&mut self, slot: usize) {
        self.flush(slot);
        self.handles[slot] = None;
    }

    pub(super) fn fsync(&mut self, slot: usize) {
        if let Some(handle) = self.handles[slot] {
            self.acknowledge(handle.node);
        }
    }

    fn acknowledge(&mut self, id: usize) {
        let node = &mut self.nodes[id];
        let Body::File(bytes) = &node.body else {
            return;
        };
        node.acked = Some(bytes.clone());
        node.is_dirty = false;
        node.over_another = false;
        let bytes = bytes.clone();
        let named = self.names.iter().filter(|(_, other)| **other == id);
        self.acked
            .extend(named.map(|(path, _)| (path.clone(), bytes.clone())));
    }

    fn resize(&mut self, id: usize, len: usize) {
        if let Some(bytes) = self.nodes[id].edited() {
            bytes.resize(len, 0);
            self.nodes[id].origin.resize(len);
        }
    }

    pub(super) fn write(&mut self, slot: usize, at: usize, new: &[u8]) {
        let Some(handle) = self.handles[slot].filter(|_| !new.is_empty()) else {
            return;
        };
        let end = self.open_bytes(slot).len().max(at + new.len());
        self.resize(handle.node, end);
        let node = &mut self.nodes[handle.node];
        if let Body::File(bytes) = &mut node.body {
            bytes[at..at + new.len()].copy_from_slice(new);
            node.origin.replace(at, new.len());
        }
    }

    /// ftruncate(2).
    pub(super) fn cut(&mut self, slot: usize, len: usize) {
        if let Some(handle) = self.handles[slot] {
            self.resize(handle.node, len);
        }
    }

    /// truncate(2).
    pub(super) fn truncate(&mut self, path: &str, len: usize) -> Result<()> {
        let id = self.id(path)?;
        if self.is_dir(id) {
            return Err(FsError::IsDir);
        }
        self.resize(id, len);
        let mut open = self.handles.iter().flatten();
        if !open.any(|handle| handle.node == id && handle.writes) {
            self.acknowledge(id);
        }
        Ok(())
    }

    /// copy_file_range(2), of and to files that have names.
    pub(super) fn copy(
        &mut self,
        from: (usize, usize),
        to: (usize, usize),
        len: usize,
    ) -> Result<usize> {
        let (Some(source), Some(target)) = (self.handles[from.0], self.handles[to.0]) else {
            return Err(FsError::BadHandle);
        };
        if source.node == target.node && from.1 < to.1 + len && to.1 < from.1 + len {
            return Err(FsError::Invalid);
        }
        self.acknowledge(source.node);
        let bytes = self.open_bytes(from.0);
        let end = (from.1 + len).min(bytes.len());
        let piece = bytes.get(from.1..end).unwrap_or_default().to_vec();
        let may_return = self.nodes[source.node].origin.is_any();
        self.write(to.0, to.1, &piece);
        self.nodes[target.node].origin.is_unsure |= may_return;
        Ok(piece.len())
    }

    /// unlink(2); rmdir(2) where it `must_be_dir`.
    pub(super) fn remove(&mut self, path: &str, must_be_dir: bool) -> Result<()> {
        let id = self.id(path)?;
        match (must_be_dir, self.is_dir(id)) {
            (false, true) => return Err(FsError::IsDir),
            (true, false) => return Err(FsError::NotDir),
            (true, true) if !self.is_empty(path) => return Err(FsError::NotEmpty),
            _ => drop(self.names.remove(path)),
        }
        Ok(())
    }

    /// chmod(2), utimensat(2).
    pub(super) fn set(&mut self, path: &str, edit: impl FnOnce(&mut Node)) -> Result<()> {
        let id = self.id(path)?;
        edit(&mut self.nodes[id]);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str, flags: RenameFlags) -> Result<()> {
        self.parent(from)?;
        self.parent(to)?;
        let old = self.id(from)?;
        let new = self.names.get(to).copied();
        if from == to {
            return Ok(());
        }
        if flags == RenameFlags::Exchange {
            let new = new.ok_or(FsError::NotFound)?;
            if self.is_dir(old) || self.is_dir(new) {
                return Err(FsError::Invalid);
            }
            self.put(to, old, true);
            self.put(from, new, true);
            return Ok(());
        }
        if self.is_dir(old) && to.starts_with(&format!("{from}/")) {
            return Err(FsError::Invalid);
        }
        match new {
            Some(_) if flags == RenameFlags::NoReplace => return Err(FsError::Exists),
            Some(new) => match (self.is_dir(old), self.is_dir(new)) {
                (false, false) => {}
                (false, true) => return Err(FsError::IsDir),
                (true, false) => return Err(FsError::NotDir),
                (true, true) if self.is_empty(to) => {}
                (true, true) => return Err(FsError::NotEmpty),
            },
            None => {}
        }
        let below = format!("{from}/");
        for (path, id) in self.names.clone() {
            if path == from || path.starts_with(&below) {
                self.names.remove(&path);
                self.put(&format!("{to}{}", &path[from.len()..]), id, new.is_some());
            }
        }
        Ok(())
    }

    fn put(&mut self, path: &str, id: usize, over_another: bool) {
        let node = &mut self.nodes[id];
        match (&node.acked, &node.body) {
            (Some(bytes), _) | (None, Body::Link(bytes)) => {
                self.acked.insert((path.into(), bytes.clone()));
            }
            (None, _) => node.over_another |= over_another,
        }
        self.names.insert(path.into(), id);
    }

    /// All is in the bucket, as it is.
    pub(super) fn settled(&mut self) {
        for (path, id) in &self.names {
            let node = &mut self.nodes[*id];
            node.origin = Origin::of(path, node.len());
        }
    }

    /// It is not known any more what is in the bucket.
    pub(super) fn unsettled(&mut self) {
        let origins = self.nodes.iter_mut().map(|node| &mut node.origin);
        origins.for_each(|origin| origin.is_unsure = true);
    }

    /// Names that may show again what the bucket has there.
    pub(super) fn crash(&mut self) -> Vec<String> {
        let mut doubtful = Vec::new();
        self.handles = [None; SLOTS + 1];
        let nodes = &mut self.nodes;
        self.names.retain(|path, id| {
            let node = &mut nodes[*id];
            let Body::File(bytes) = &mut node.body else {
                return true;
            };
            let Some(acked) = &node.acked else {
                if node.over_another {
                    doubtful.push(path.clone());
                }
                return false;
            };
            bytes.clone_from(acked);
            if std::mem::take(&mut node.is_dirty) {
                node.mtime = None;
                node.origin.is_unsure = true;
            }
            true
        });
        doubtful
    }
}

/// The directories that a path leads through.
fn above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

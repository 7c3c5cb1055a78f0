//! The kernel's inode numbers: which name each stands for, and what its open handles share.
//!
//! Invariants:
//! - one number for a name as long as the kernel knows it; never reused in a mount;
//! - a rename of a directory moves one edge, paths are walked up when they are needed;
//! - a removed or replaced name leaves its inode without an edge: open handles go on with it, a
//!   path it has no more.
//!
//! Lock order: the table's lock (held by the caller, `Fs::names`) is taken before the tree's.

mod crowd;

use std::collections::HashMap;
use std::sync::Arc;

use crate::tree::{Node, Pin};
use crate::types::{Kind, Name, RelPath};

use super::Ino;
use super::file::OpenFile;
use super::times::Times;

/// The root's number, by FUSE.
pub(super) const ROOT: Ino = Ino(1);

#[derive(Debug)]
struct Inode {
    edge: Option<(Ino, Name)>,
    kind: Kind,
    lookups: u64,
    children: u64,
    open: Option<Arc<OpenFile>>,
    /// Boxed: nearly all have none.
    orphan: Option<Box<Orphan>>,
    /// Boxed: most have none.
    times: Option<Box<Times>>,
}

/// What an inode was when its name was removed or replaced, for who has it open or is opening it.
pub(super) type Orphan = (Node, Pin);

/// All inodes that the kernel knows.
#[derive(Debug)]
pub(super) struct Table {
    nodes: HashMap<Ino, Inode>,
    edges: HashMap<(Ino, Name), Ino>,
    order: crowd::Order,
    next: u64,
}

impl Table {
    pub(super) fn new() -> Self {
        let root = Inode {
            edge: None,
            kind: Kind::Dir,
            lookups: 1,
            children: 0,
            open: None,
            orphan: None,
            times: None,
        };
        Self {
            nodes: HashMap::from([(ROOT, root)]),
            edges: HashMap::new(),
            order: crowd::Order::default(),
            next: 2,
        }
    }

    /// The path an inode has now; `None` if it was removed (or is not known).
    pub(super) fn path(&self, ino: Ino) -> Option<RelPath> {
        let mut names = Vec::new();
        let mut at = ino;
        while at != ROOT {
            let (parent, name) = self.nodes.get(&at)?.edge.as_ref()?;
            names.push(name.as_str());
            at = *parent;
        }
        names.reverse();
        RelPath::new(&names.join("/")).ok()
    }

    /// What the inode was when the kernel was told of it.
    pub(super) fn kind(&self, ino: Ino) -> Option<Kind> {
        self.nodes.get(&ino).map(|node| node.kind)
    }

    /// What is noted of an inode's times.
    pub(super) fn times(&self, ino: Ino) -> Times {
        let node = self.nodes.get(&ino);
        node.and_then(|node| node.times.as_deref().copied())
            .unwrap_or_default()
    }

    /// Notes something of an inode's times.
    pub(super) fn note(&mut self, ino: Ino, note: impl FnOnce(&mut Times)) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            note(node.times.get_or_insert_default());
        }
    }

    /// The number of a name, one lookup more. A name that became something else gets a new one.
    pub(super) fn intern(&mut self, parent: Ino, name: &Name, kind: Kind) -> Ino {
        let ino = self.number(parent, name, kind);
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups += 1;
        }
        ino
    }

    /// The number of a name for a listing: made if need be, not counted as a lookup. (A listing
    /// without attributes names numbers that the kernel does not keep.)
    pub(super) fn peek(&self, parent: Ino, name: &Name) -> Option<Ino> {
        self.edges.get(&(parent, name.clone())).copied()
    }

    fn number(&mut self, parent: Ino, name: &Name, kind: Kind) -> Ino {
        let edge = (parent, name.clone());
        if let Some(ino) = self.edges.get(&edge).copied() {
            if self.kind(ino) == Some(kind) {
                return ino;
            }
            self.detach(parent, name);
        }
        let ino = Ino(self.next);
        self.next += 1;
        self.edges.insert(edge.clone(), ino);
        self.nodes.insert(
            ino,
            Inode {
                edge: Some(edge),
                kind,
                lookups: 0,
                children: 0,
                open: None,
                orphan: None,
                times: None,
            },
        );
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.children += 1;
        }
        self.came(ino);
        ino
    }

    /// The kernel forgets `count` lookups.
    pub(super) fn forget(&mut self, ino: Ino, count: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups = node.lookups.saturating_sub(count);
        }
        self.reap(ino);
    }

    /// Takes a name away from its inode, which is answered.
    pub(super) fn detach(&mut self, parent: Ino, name: &Name) -> Option<Ino> {
        let ino = self.edges.remove(&(parent, name.clone()))?;
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.edge = None;
        }
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.children -= 1;
        }
        self.reap(ino);
        self.reap(parent);
        Some(ino)
    }

    /// Gives the inode of one name another name; what had that name loses it and is answered.
    pub(super) fn rename(&mut self, from: (Ino, &Name), to: (Ino, &Name)) -> Option<Ino> {
        let replaced = self.detach(to.0, to.1);
        if let Some(ino) = self.edges.remove(&(from.0, from.1.clone())) {
            self.attach(ino, to);
            if let Some(parent) = self.nodes.get_mut(&from.0) {
                parent.children -= 1;
            }
            self.reap(from.0);
        }
        replaced
    }

    /// Two names change their inodes.
    pub(super) fn exchange(&mut self, a: (Ino, &Name), b: (Ino, &Name)) {
        let (first, second) = (
            self.edges.remove(&(a.0, a.1.clone())),
            self.edges.remove(&(b.0, b.1.clone())),
        );
        for (ino, new, old) in [(first, b, a), (second, a, b)] {
            let Some(ino) = ino else { continue };
            self.attach(ino, new);
            if let Some(parent) = self.nodes.get_mut(&old.0) {
                parent.children -= 1;
            }
        }
    }

    fn attach(&mut self, ino: Ino, to: (Ino, &Name)) {
        let edge = (to.0, to.1.clone());
        self.edges.insert(edge.clone(), ino);
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.edge = Some(edge);
        }
        if let Some(parent) = self.nodes.get_mut(&to.0) {
            parent.children += 1;
        }
    }

    /// What the handles of an inode share, if it is open.
    pub(super) fn open_file(&self, ino: Ino) -> Option<Arc<OpenFile>> {
        self.nodes.get(&ino)?.open.as_ref().map(Arc::clone)
    }

    /// What the handles of the inode at a name share, if it is open.
    pub(super) fn open_at(&self, parent: Ino, name: &Name) -> Option<Arc<OpenFile>> {
        self.open_file(self.peek(parent, name)?)
    }

    /// All that is open.
    pub(super) fn all_open(&self) -> Vec<Arc<OpenFile>> {
        let open = self.nodes.values().filter_map(|node| node.open.as_ref());
        open.map(Arc::clone).collect()
    }

    /// What is open below a name.
    pub(super) fn open_below(&self, parent: Ino, name: &Name) -> Vec<Arc<OpenFile>> {
        let Some(dir) = self.peek(parent, name) else {
            return Vec::new();
        };
        let open = self.nodes.values().filter_map(|node| {
            let file = node.open.as_ref()?;
            self.is_below(node, dir).then(|| Arc::clone(file))
        });
        open.collect()
    }

    fn is_below(&self, node: &Inode, dir: Ino) -> bool {
        let above = |node: &Inode| node.edge.as_ref().map(|(parent, _)| *parent);
        std::iter::successors(above(node), |at| above(self.nodes.get(at)?)).any(|at| at == dir)
    }

    /// The names of files that the kernel knows at and below a path.
    pub(super) fn files_at_and_below(&self, path: &RelPath) -> Vec<(Ino, Name)> {
        let mut top = Some(ROOT);
        for name in path.as_str().split('/').filter(|name| !name.is_empty()) {
            let name = Name::new(name).ok();
            top = top.and_then(|parent| self.peek(parent, &name?));
        }
        let Some(top) = top else {
            return Vec::new();
        };
        let files = self.nodes.iter().filter(|(ino, node)| {
            node.kind != Kind::Dir && (**ino == top || self.is_below(node, top))
        });
        files.filter_map(|(_, node)| node.edge.clone()).collect()
    }

    /// What the inode at a name is to stay when it loses that name next.
    pub(super) fn keep(&mut self, parent: Ino, name: &Name, orphan: Option<Orphan>) {
        let ino = self.peek(parent, name);
        if let Some(node) = ino.and_then(|ino| self.nodes.get_mut(&ino)) {
            node.orphan = orphan.map(Box::new);
        }
    }

    /// What an inode without a name was.
    pub(super) fn orphan(&mut self, ino: Ino) -> Option<&mut Node> {
        let node = self.nodes.get_mut(&ino)?;
        let (orphan, _) = &mut **node.orphan.as_mut()?;
        node.edge.is_none().then_some(orphan)
    }

    /// Takes its name from an inode.
    pub(super) fn part(&mut self, ino: Ino) {
        let edge = self.nodes.get(&ino).and_then(|node| node.edge.clone());
        if let Some((parent, name)) = edge {
            self.detach(parent, &name);
        }
    }

    /// As `open_file`, made if there is none.
    pub(super) fn open_or_new(&mut self, ino: Ino) -> Option<Arc<OpenFile>> {
        let node = self.nodes.get_mut(&ino)?;
        Some(Arc::clone(
            node.open
                .get_or_insert_with(|| Arc::new(OpenFile::new(ino))),
        ))
    }

    /// Whether `open` is (again) what the inode's handles share.
    pub(super) fn keeps_open(&mut self, ino: Ino, open: &Arc<OpenFile>) -> bool {
        let Some(node) = self.nodes.get_mut(&ino) else {
            return false;
        };
        Arc::ptr_eq(node.open.get_or_insert_with(|| Arc::clone(open)), open)
    }

    /// The last handle is gone.
    pub(super) fn closed(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.open = None;
        }
        self.reap(ino);
    }

    fn reap(&mut self, ino: Ino) {
        let mut at = ino;
        while at != ROOT {
            let Some(node) = self.nodes.get(&at) else {
                return;
            };
            if node.lookups > 0 || node.open.is_some() || node.children > 0 {
                return;
            }
            let edge = node.edge.clone();
            self.nodes.remove(&at);
            let Some(edge) = edge else { return };
            self.edges.remove(&edge);
            let Some(parent) = self.nodes.get_mut(&edge.0) else {
                return;
            };
            parent.children -= 1;
            at = edge.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn a_renamed_directory_takes_its_children_along() {
        let mut table = Table::new();
        let dir = table.intern(ROOT, &name("d"), Kind::Dir);
        let file = table.intern(dir, &name("f"), Kind::File);
        table.rename((ROOT, &name("d")), (ROOT, &name("e")));
        assert_eq!(table.path(file).unwrap().as_str(), "e/f");
        assert_eq!(table.intern(ROOT, &name("e"), Kind::Dir), dir);
    }

    #[test]
    fn a_name_that_became_something_else_gets_a_new_number() {
        let mut table = Table::new();
        let file = table.intern(ROOT, &name("x"), Kind::File);
        let dir = table.intern(ROOT, &name("x"), Kind::Dir);
        assert_ne!(file, dir);
        assert_eq!(table.path(file), None);
        assert_eq!(table.path(dir).unwrap().as_str(), "x");
    }

    #[test]
    fn all_is_forgotten_when_the_kernel_forgets_all() {
        let mut table = Table::new();
        let dir = table.intern(ROOT, &name("d"), Kind::Dir);
        let file = table.intern(dir, &name("f"), Kind::File);
        table.forget(dir, 1);
        assert_eq!(
            table.path(file).unwrap().as_str(),
            "d/f",
            "a child keeps its directory"
        );
        table.forget(file, 1);
        assert_eq!((table.nodes.len(), table.edges.len()), (1, 0));
    }

    #[test]
    fn an_exchange_swaps_the_numbers() {
        let mut table = Table::new();
        let a = table.intern(ROOT, &name("a"), Kind::File);
        let b = table.intern(ROOT, &name("b"), Kind::File);
        table.exchange((ROOT, &name("a")), (ROOT, &name("b")));
        assert_eq!(table.path(a).unwrap().as_str(), "b");
        assert_eq!(table.path(b).unwrap().as_str(), "a");
    }
}

//! How many inodes are kept that nothing but the kernel's cache of names needs.
//!
//! The kernel forgets a name only when it is short of memory itself, which is long after this process
//! would have been: an inode takes about 250 bytes here. So above `INODES_MAX` it is asked to forget
//! those that came first, which costs it a lookup if somebody asks for them again.
//!
//! Invariant: an inode stays until the kernel says that it has forgotten it; what is open, and what
//! is a directory, it is not asked to forget.

use std::collections::VecDeque;

use super::Table;
use crate::fs::Ino;
use crate::types::{Kind, Name};

/// So many inodes are kept. (Few in this crate's own tests.)
const INODES_MAX: usize = if cfg!(test) { 100 } else { 20_000 };
/// Asked for at once: more than come.
const AT_ONCE: usize = 2;

/// Inodes in the order in which they came; also some that are gone.
#[derive(Debug, Default)]
pub(super) struct Order(VecDeque<Ino>);

impl Table {
    /// An inode is new.
    pub(super) fn came(&mut self, ino: Ino) {
        self.order.0.push_back(ino);
        if self.order.0.len() > 2 * (self.nodes.len() + INODES_MAX) {
            let nodes = &self.nodes;
            self.order.0.retain(|ino| nodes.contains_key(ino));
        }
    }

    /// Names that the kernel is to forget, a few at a time.
    pub(in crate::fs) fn crowded_out(&mut self) -> Vec<(Ino, Name)> {
        let mut names = Vec::new();
        for _ in 0..AT_ONCE {
            if self.nodes.len() <= INODES_MAX {
                break;
            }
            let Some(ino) = self.order.0.pop_front() else {
                break;
            };
            let Some(node) = self.nodes.get(&ino) else {
                continue;
            };
            // It may be in use there, or the question be lost: then it comes round again.
            self.order.0.push_back(ino);
            if node.kind != Kind::Dir && node.open.is_none() {
                names.extend(node.edge.clone());
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::super::ROOT;
    use super::*;

    fn name(number: usize) -> Name {
        Name::new(&number.to_string()).unwrap()
    }

    #[test]
    fn a_kernel_that_does_as_it_is_asked_leaves_so_many_inodes_and_no_more() {
        let mut table = Table::new();
        for number in 0..10 * INODES_MAX {
            table.intern(ROOT, &name(number), Kind::File);
            for (parent, name) in table.crowded_out() {
                let ino = table.peek(parent, &name).unwrap();
                table.forget(ino, 1);
            }
            assert!(table.nodes.len() <= INODES_MAX + 1);
            assert!(table.order.0.len() <= 4 * INODES_MAX + 3);
        }
    }

    #[test]
    fn what_is_open_or_a_directory_stays_and_who_does_not_forget_is_asked_again() {
        let mut table = Table::new();
        let dir = table.intern(ROOT, &Name::new("d").unwrap(), Kind::Dir);
        let open = table.intern(dir, &Name::new("open").unwrap(), Kind::File);
        assert!(table.open_or_new(open).is_some());
        let mut asked = Vec::new();
        for number in 0..2 * INODES_MAX {
            table.intern(dir, &name(number), Kind::File);
            asked.extend(table.crowded_out());
        }
        let times = |number| {
            asked
                .iter()
                .filter(|(_, other)| *other == name(number))
                .count()
        };
        assert!(times(0) >= 1 && asked.iter().all(|(parent, _)| *parent == dir));
        assert!(!asked.iter().any(|(_, name)| name.as_str() == "open"));
        for _ in 0..2 * INODES_MAX {
            asked.extend(table.crowded_out());
        }
        let again = asked.iter().filter(|(_, other)| *other == name(0)).count();
        assert!(again >= 2, "{again}");
    }
}

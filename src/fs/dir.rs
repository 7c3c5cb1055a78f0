//! Directories: opendir and readdir.
//!
//! Invariant: one reading from the start shows each name that was there at its start at most once,
//! without those removed since. A directory that is not known is shown while it is listed.

use std::sync::Arc;

use crate::tree::{Freshness, Node, Seen};
use crate::types::{Kind, RelPath};

use super::exact::ATTRS_AHEAD;
use super::inode::ROOT;
use super::learn::Learnt;
use super::paging::{Reading, Step};
use super::{DirEntry, Fh, Fs, FsError, Ino, Result, Stat};

/// `.` and `..` come first.
const DOTS: i64 = 2;

impl Fs {
    /// Opens a directory.
    ///
    /// # Errors
    /// `NotDir`, `EMFILE`.
    pub async fn opendir(&self, ino: Ino) -> Result<Fh> {
        match self.names.lock().kind(ino) {
            Some(Kind::Dir) => self.handles.add_dir(ino),
            Some(_) => Err(FsError::NotDir),
            None => Err(FsError::NotFound),
        }
    }

    /// Closes it.
    pub fn releasedir(&self, fh: Fh) {
        self.handles.remove(fh);
    }

    /// Entries from `offset` on until `emit` answers false (no room: that entry comes again) or
    /// the end. `plus`: each emitted entry but `.` and `..` counts as looked up.
    ///
    /// # Errors
    /// `Unreachable` for a directory that was never listed while the bucket is silent.
    pub async fn readdir(
        &self,
        fh: Fh,
        offset: i64,
        plus: bool,
        emit: &mut (dyn FnMut(&DirEntry) -> bool + Send),
    ) -> Result<()> {
        let handle = self.handles.dir(fh)?;
        let path = self
            .names
            .lock()
            .path(handle.ino)
            .ok_or(FsError::NotFound)?;
        let reading = match handle.reading {
            Some(reading) if offset > 0 => reading,
            _ => {
                let reading = self.begin_reading(&path);
                self.handles.set_reading(fh, Arc::clone(&reading));
                reading
            }
        };
        for at in offset.max(0)..DOTS {
            let entry = self.dot(handle.ino, &path, at)?;
            if !emit(&entry) {
                return Ok(());
            }
        }
        let first = usize::try_from(offset.max(DOTS) - DOTS).unwrap_or(usize::MAX);
        let (mut index, mut emitted) = (first, 0);
        loop {
            let (name, is_dir) = match self.step(&path, &reading, index) {
                Step::Name(name, is_dir) => (name, is_dir),
                Step::End => return Ok(()),
                Step::Behind => {
                    reading.go_on_in(self.learner.listing_anew(&path));
                    continue;
                }
                // What there is is shown; the kernel comes again.
                Step::Wait(_) if emitted > 0 => return Ok(()),
                Step::Wait(pages) => {
                    self.next_page(&path, &reading, pages).await?;
                    continue;
                }
            };
            if self.config.attrs_exact && (index - first).is_multiple_of(ATTRS_AHEAD) {
                self.know_attrs_from(&path, &reading, index).await;
            }
            index += 1;
            let child = path.join(&name);
            let Some(node) = self.listed_node(&child, is_dir, plus).await? else {
                continue;
            };
            let known = self.names.lock().peek(handle.ino, &name);
            let stat = match known {
                Some(ino) => self.stat(ino, &child, &node),
                None => self.stat(UNNUMBERED, &child, &node),
            };
            let next = i64::try_from(index).unwrap_or(i64::MAX - DOTS) + DOTS;
            let mut entry = DirEntry {
                name: name.as_str().into(),
                stat,
                next,
            };
            if plus {
                entry.stat.ino = self.names.lock().intern(handle.ino, &name, node.kind);
                self.relieve();
            }
            if !emit(&entry) {
                if plus {
                    self.forget(entry.stat.ino, 1);
                }
                return Ok(());
            }
            emitted += 1;
        }
    }

    /// Asks for the attributes of the next names at once.
    async fn know_attrs_from(&self, path: &RelPath, reading: &Reading, index: usize) {
        let next =
            (index..index + ATTRS_AHEAD).map_while(|at| match self.step(path, reading, at) {
                Step::Name(name, _) => Some(path.join(&name)),
                Step::Wait(_) | Step::Behind | Step::End => None,
            });
        self.know_all_attrs(next.collect()).await;
    }

    /// The node of a name that a listing told. What was forgotten since, as the directory is too large
    /// to be known, is asked for where more than its kind is to be shown; what is hidden by changes
    /// that wait to be sent is not shown.
    async fn listed_node(&self, path: &RelPath, is_dir: bool, plus: bool) -> Result<Option<Node>> {
        let (mut seen, is_forgotten) = self
            .tree
            .view(|view| (view.lookup(path), view.is_forgotten(path)));
        if plus && is_forgotten && matches!(seen, Seen::Unknown) {
            seen = self.look(path).await?;
        }
        Ok(match seen {
            Seen::Here(node, _) => Some(*node),
            Seen::Unknown if !plus && is_forgotten => Some(Node::told(is_dir)),
            Seen::NotHere(_) | Seen::Unknown => None,
        })
    }

    /// The names are those known, or those of a listing.
    fn begin_reading(&self, path: &RelPath) -> Arc<Reading> {
        if self.tree.view(|view| view.listed(path)) == Some(Freshness::Fresh) {
            return Reading::known(self.tree.view(|view| view.names(path)));
        }
        Reading::paged(self.learner.listing(path, self.config.ttl))
    }

    fn step(&self, path: &RelPath, reading: &Reading, index: usize) -> Step {
        reading.step(index, || self.tree.view(|view| view.names(path)))
    }

    /// Waits for `pages` pages of a listing.
    async fn next_page(&self, path: &RelPath, reading: &Reading, pages: usize) -> Result<()> {
        let Some(paging) = reading.paging() else {
            return Ok(());
        };
        let was_listed = self.tree.view(|view| view.listed(path)).is_some();
        let learnt = self.learner.pages(&paging, pages, was_listed).await;
        let is_begun = paging.pages() > 0 && !was_listed;
        let names = self.tree.view(|view| view.names(path));
        match learnt {
            Learnt::Yes => Ok(()),
            Learnt::Refused(error) => Err(error.into()),
            Learnt::Silence if was_listed => {
                reading.give_up(names);
                Ok(())
            }
            Learnt::Silence if !is_begun && !names.is_empty() => {
                tracing::warn!("the bucket is silent: a directory is shown as far as it is known");
                reading.give_up(names);
                Ok(())
            }
            Learnt::Silence => {
                tracing::warn!(
                    is_begun,
                    "the bucket is silent, and a directory is not known"
                );
                Err(FsError::Unreachable)
            }
        }
    }

    fn dot(&self, ino: Ino, path: &RelPath, at: i64) -> Result<DirEntry> {
        let (of, name): (RelPath, &[u8]) = match at {
            0 => (path.clone(), b"."),
            _ => (path.parent().unwrap_or_else(RelPath::root), b".."),
        };
        let Seen::Here(node, _) = self.tree.view(|view| view.lookup(&of)) else {
            return Err(FsError::NotFound);
        };
        let stat: Stat = self.stat(if at == 0 { ino } else { ROOT }, &of, &node);
        Ok(DirEntry {
            name: name.into(),
            stat,
            next: at + 1,
        })
    }
}

/// What a listing without attributes shows for a name that the kernel has not looked up: any
/// number that says nothing (this one by custom; a larger one fails in 32-bit programs).
const UNNUMBERED: Ino = Ino(0xffff_ffff);

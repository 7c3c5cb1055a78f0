//! Directories: opendir and readdir.
//!
//! Invariant: one reading from the start shows the names as they were at its start, each at most
//! once, without those removed since.

use std::sync::Arc;

use crate::tree::{Freshness, Seen};
use crate::types::{Kind, RelPath};

use super::exact::ATTRS_AHEAD;
use super::inode::ROOT;
use super::learn::Learnt;
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
            Some(Kind::File | Kind::Symlink) => Err(FsError::NotDir),
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
        let names = match handle.names {
            Some(names) if offset > 0 => names,
            _ => {
                self.know_names(&path).await?;
                let names = Arc::new(self.tree.view(|view| view.names(&path)));
                self.handles.set_names(fh, Arc::clone(&names));
                names
            }
        };
        for at in offset.max(0)..DOTS {
            let entry = self.dot(handle.ino, &path, at)?;
            if !emit(&entry) {
                return Ok(());
            }
        }
        let first = usize::try_from(offset.max(DOTS) - DOTS).unwrap_or(usize::MAX);
        for (index, name) in names.iter().enumerate().skip(first) {
            if self.config.attrs_exact && (index - first).is_multiple_of(ATTRS_AHEAD) {
                let next = names.iter().skip(index).take(ATTRS_AHEAD);
                self.know_all_attrs(next.map(|name| path.join(name))).await;
            }
            let child = path.join(name);
            let Seen::Here(node, _) = self.tree.view(|view| view.lookup(&child)) else {
                continue;
            };
            let known = self.names.lock().peek(handle.ino, name);
            let stat = match known {
                Some(ino) => self.stat(ino, &child, &node),
                None => self.stat(UNNUMBERED, &child, &node),
            };
            let next = i64::try_from(index).unwrap_or(i64::MAX - DOTS - 1) + DOTS + 1;
            let mut entry = DirEntry {
                name: name.as_str().into(),
                stat,
                next,
            };
            if plus {
                entry.stat.ino = self.names.lock().intern(handle.ino, name, node.kind);
            }
            if !emit(&entry) {
                if plus {
                    self.forget(entry.stat.ino, 1);
                }
                return Ok(());
            }
        }
        Ok(())
    }

    async fn know_names(&self, path: &RelPath) -> Result<()> {
        let listed = self.tree.view(|view| view.listed(path));
        if listed == Some(Freshness::Fresh) {
            return Ok(());
        }
        match self.learner.list(path, listed.is_some()).await {
            Learnt::Yes => Ok(()),
            Learnt::Silence if listed.is_some() => Ok(()),
            Learnt::Silence if !self.tree.view(|view| view.is_empty(path)) => {
                tracing::warn!("the bucket is silent: a directory is shown as far as it is known");
                Ok(())
            }
            Learnt::Silence => {
                tracing::warn!("the bucket is silent, and nothing is known of a directory");
                Err(FsError::Unreachable)
            }
            Learnt::Refused(error) => Err(error.into()),
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

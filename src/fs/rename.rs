//! Rename: every visible key below the old name is wanted at the new one, in one record.
//!
//! A directory is carried over key by key (at most `rename_limit` objects of the bucket): what is
//! pending moves with its bytes, what is in the bucket is wanted by reference, the old keys are
//! wanted gone. So a crash, a listing or another rename meets nothing but wanted states.

use std::sync::Arc;

use crate::log::Change;
use crate::tree::{Content, Freshness, NAMES_MAX, Node, View};
use crate::types::{Kind, Name, RelKey, RelPath, Seq, Want};

use super::cost;
use super::learn::Learnt;
use super::names::{allowed, as_generation, child, here, kept_dir, marker};
use super::{Fs, FsError, Ino, RenameFlags, Result, clock};

/// What a rename did, for the inodes.
struct Moved {
    seq: Seq,
    replaced: Option<Node>,
    dirs: Vec<RelPath>,
    /// Objects of the bucket that a directory's rename carries there; `None`: it was no directory.
    carried: Option<usize>,
}

/// What a directory's new name is about to cost.
fn tell_cost(objects: Option<usize>) {
    if let Some(objects) = objects.filter(|objects| *objects > 0) {
        let bytes = cost::rename(objects);
        tracing::info!(
            objects,
            bytes,
            "a directory has another name here; in the bucket its objects follow one by one, for about so many bytes"
        );
    }
}

impl Fs {
    /// Renames a file, symlink or directory.
    ///
    /// # Errors
    /// Those of rename(2); `TooManyObjects` above `rename_limit`, so that `mv` copies knowingly.
    pub async fn rename(
        self: &Arc<Self>,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        flags: RenameFlags,
    ) -> Result<()> {
        self.must_be_writable()?;
        let from = (from.0, Name::from_bytes(from.1)?);
        let to = (to.0, Name::from_bytes(to.1)?);
        let (old, _) = self.see(from.0, &from.1).await?;
        let (new, _) = self.see(to.0, &to.1).await?;
        self.know_subtrees(&old, &new).await?;
        let open = {
            let table = self.names.lock();
            let at_names = [&from, &to].map(|(dir, name)| table.open_at(*dir, name));
            let below = table.open_below(from.0, &from.1);
            at_names.into_iter().flatten().chain(below)
        };
        for file in open {
            self.part_from_theirs(&file).await?;
        }
        let (moved, files, below, changed) = {
            let mut table = self.names.lock();
            let old = child(&table, from.0, &from.1)?;
            let new = child(&table, to.0, &to.1)?;
            if old == new {
                return self.tree.view(|view| here(view, &old)).map(|_| ());
            }
            let pin = self.pinned(&new);
            let mut moved = match flags {
                RenameFlags::Exchange => self.exchange(&old, &new)?,
                RenameFlags::Replace => self.move_to(&old, &new, false)?,
                RenameFlags::NoReplace => self.move_to(&old, &new, true)?,
            };
            let (a, b) = ((from.0, &from.1), (to.0, &to.1));
            let mut changed = Vec::new();
            if flags == RenameFlags::Exchange {
                table.exchange(a, b);
                changed.extend(table.peek(a.0, a.1));
            } else {
                table.keep(to.0, &to.1, moved.replaced.take().zip(Some(pin)));
                changed.extend(table.rename(a, b));
            }
            changed.extend(table.peek(b.0, b.1));
            // One moment for both.
            let now = clock();
            for dir in [from.0, to.0] {
                table.note(dir, |times| times.entries_changed(now));
            }
            let mut files: Vec<_> = table.open_at(to.0, &to.1).into_iter().collect();
            if flags == RenameFlags::Exchange {
                files.extend(table.open_at(from.0, &from.1));
            }
            (moved, files, table.open_below(to.0, &to.1), changed)
        };
        for file in files {
            self.carried(&file, moved.seq);
        }
        for file in below {
            self.goes_on(file.ino, &mut file.inner.lock());
        }
        for dir in &moved.dirs {
            self.tree.learn_empty(dir);
        }
        for ino in changed {
            self.attrs_changed(ino);
        }
        tell_cost(moved.carried);
        Ok(self.log.flushed(moved.seq).await?)
    }

    /// Makes sure that all below a directory is known, and whether the target is empty.
    async fn know_subtrees(&self, old: &RelPath, new: &RelPath) -> Result<()> {
        let is_dir = |path: &RelPath| {
            self.tree
                .view(|view| here(view, path).is_ok_and(|n| n.kind == Kind::Dir))
        };
        if !is_dir(old) {
            return Ok(());
        }
        let complete = self.tree.view(|view| view.subtree(old)).1;
        if complete != Some(Freshness::Fresh) {
            match self
                .learner
                .deep(old, self.config.rename_limit, complete.is_some())
                .await
            {
                Learnt::Yes => {}
                Learnt::Silence if complete.is_some() => {}
                Learnt::Silence => return Err(FsError::Unreachable),
                Learnt::Refused(error) => return Err(error.into()),
            }
        }
        if is_dir(new) {
            self.know_if_empty(new).await?;
        }
        Ok(())
    }

    fn move_to(&self, old: &RelPath, new: &RelPath, must_be_new: bool) -> Result<Moved> {
        let (mut replaced, mut dirs, mut carried) = (None, Vec::new(), None);
        let limits = (self.config.rename_limit, self.config.key_max);
        let seq = self.tree.change::<FsError>(|view| {
            let node = here(view, old)?;
            allowed(view, new)?;
            if node.kind == Kind::Dir && new.is_within(old) {
                return Err(FsError::Invalid);
            }
            match here(view, new) {
                Ok(_) if must_be_new => return Err(FsError::Exists),
                Ok(there) => {
                    may_replace(view, &node, &there, new)?;
                    replaced = Some(there);
                }
                Err(FsError::NotFound | FsError::Unreachable) => {}
                Err(error) => return Err(error),
            }
            let mut changes = if node.kind == Kind::Dir {
                let (changes, made, objects) = move_dir(view, old, new, limits)?;
                (dirs, carried) = (made, Some(objects));
                changes
            } else {
                move_file(view, &node, old, new)
            };
            if !old.parent().is_some_and(|dir| new.is_within(&dir)) {
                changes.extend(kept_dir(view, old));
            }
            if changes
                .iter()
                .any(|change| change.key.as_str().len() > limits.1)
            {
                return Err(FsError::NameTooLong);
            }
            Ok((changes, Vec::new()))
        })?;
        Ok(Moved {
            seq,
            replaced,
            dirs,
            carried,
        })
    }

    fn exchange(&self, a: &RelPath, b: &RelPath) -> Result<Moved> {
        let seq = self.tree.change::<FsError>(|view| {
            let (first, second) = (here(view, a)?, here(view, b)?);
            if first.kind == Kind::Dir || second.kind == Kind::Dir {
                return Err(FsError::Invalid);
            }
            let to = |path: &RelPath, node: &Node| {
                let key = RelKey::file(path);
                let base = view.base(&key);
                Change {
                    want: wanted(node),
                    base,
                    key,
                    number: None,
                }
            };
            Ok((vec![to(b, &first), to(a, &second)], Vec::new()))
        })?;
        Ok(Moved {
            seq,
            replaced: None,
            dirs: Vec::new(),
            carried: None,
        })
    }
}

fn may_replace(view: &View<'_>, node: &Node, there: &Node, new: &RelPath) -> Result<()> {
    match (node.kind == Kind::Dir, there.kind == Kind::Dir) {
        (false, false) => Ok(()),
        (false, true) => Err(FsError::IsDir),
        (true, false) => Err(FsError::NotDir),
        (true, true) if view.is_empty(new) => Ok(()),
        (true, true) => Err(FsError::NotEmpty),
    }
}

/// A node's content wanted at another key.
fn wanted(node: &Node) -> Want {
    match (&node.content, &node.attrs) {
        (Content::Open(_), Some(attrs)) => Want::Open {
            attrs: Box::new(attrs.clone()),
            file: None,
        },
        _ => Want::Object(Arc::new(as_generation(node))),
    }
}

fn gone(view: &View<'_>, key: RelKey) -> Change {
    Change {
        want: Want::Gone,
        base: view.base(&key),
        key,
        number: None,
    }
}

fn move_file(view: &View<'_>, node: &Node, old: &RelPath, new: &RelPath) -> Vec<Change> {
    let key = RelKey::file(new);
    let base = view.base(&key);
    vec![
        Change {
            want: wanted(node),
            base,
            key,
            number: None,
        },
        gone(view, RelKey::file(old)),
    ]
}

/// Directories at and below `path` with nothing in them.
fn empty_dirs(view: &View<'_>, path: &RelPath) -> Vec<RelPath> {
    let (mut empty, mut todo) = (Vec::new(), vec![path.clone()]);
    while let Some(dir) = todo.pop() {
        let names = view.names(&dir);
        let below = names.iter().map(|name| dir.join(name));
        todo.extend(below.filter(|at| here(view, at).is_ok_and(|node| node.kind == Kind::Dir)));
        if names.is_empty() {
            empty.push(dir);
        }
    }
    empty
}

/// The changes of a directory's rename, the directories that are thereby wholly known, and how many
/// objects of the bucket it carries.
fn move_dir(
    view: &View<'_>,
    old: &RelPath,
    new: &RelPath,
    limits: (usize, usize),
) -> Result<(Vec<Change>, Vec<RelPath>, usize)> {
    let (nodes, complete) = view.subtree(old);
    let in_bucket = nodes
        .iter()
        .filter(|(_, node)| matches!(node.content, Content::Remote(..)))
        .count();
    // Of a directory too large to be known so many are known at least.
    if in_bucket > limits.0.min(NAMES_MAX / 2) {
        return Err(FsError::TooManyObjects);
    }
    if complete.is_none() && view.listed(old).is_none() && nodes.is_empty() {
        return Err(FsError::Unreachable);
    }
    let mut dirs = std::collections::BTreeSet::from([old.clone()]);
    let mut changes = Vec::new();
    for (key, node) in &nodes {
        let path = key.path();
        let Some(moved) = path.rebased(old, new) else {
            continue;
        };
        let to = if key.is_dir() {
            RelKey::dir(&moved)
        } else {
            RelKey::file(&moved)
        };
        let base = view.base(&to);
        changes.push(Change {
            want: wanted(node),
            base,
            key: to,
            number: None,
        });
        if !key.is_dir() {
            changes.push(gone(view, key.clone()));
        }
        let mut dir = if key.is_dir() {
            Some(path)
        } else {
            path.parent()
        };
        while let Some(at) = dir.filter(|at| at.is_within(old)) {
            dir = at.parent();
            dirs.insert(at);
        }
    }
    // Every directory is gone under its old name, marker or not, until its keys are.
    changes.extend(dirs.iter().map(|dir| gone(view, RelKey::dir(dir))));
    for dir in empty_dirs(view, old) {
        let has_marker = nodes.iter().any(|(key, _)| *key == RelKey::dir(&dir));
        let moved = dir.rebased(old, new).filter(|_| !has_marker);
        changes.extend(moved.map(|moved| marker(view, &moved)));
        if dirs.insert(dir.clone()) {
            changes.push(gone(view, RelKey::dir(&dir)));
        }
    }
    let made = dirs
        .iter()
        .filter_map(|dir| dir.rebased(old, new))
        .collect();
    Ok((changes, made, in_bucket))
}

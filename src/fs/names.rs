//! Names: lookup, and the changes that make or remove one: each a check and one record, answered
//! once the record is flushed.

use std::sync::Arc;

use bytes::Bytes;

use crate::log::{Change, Refusal};
use crate::tree::{Content, Freshness, Node, Pin, Seen, View};
use crate::types::{
    Attrs, Extent, Extents, FileNo, Generation, Kind, Name, NameError, RelKey, RelPath, Seq,
    Source, Want,
};

use super::file::Inner;
use super::inode::Table;
use super::intent;
use super::learn::Learnt;
use super::{Caller, Fs, FsError, Ino, Result, Stat, clock};

impl Fs {
    /// Looks a name up; the answer counts as one reference of the kernel's.
    ///
    /// # Errors
    /// `NotFound`, also while the bucket is silent about a name that was never asked for.
    pub async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Stat> {
        self.lookup_by(0, parent, name).await
    }

    /// As `lookup`, for a system call of `thread` (0: not known). A name that was absent when its
    /// directory was listed is not asked for where the call makes a file anew whatever is there.
    ///
    /// # Errors
    /// Those of `lookup`.
    pub async fn lookup_by(&self, thread: u32, parent: Ino, name: &[u8]) -> Result<Stat> {
        let name = Name::from_bytes(name).map_err(|error| match error {
            NameError::TooLong => FsError::NameTooLong,
            NameError::Invalid | NameError::NotUtf8 => FsError::NotFound,
        })?;
        if self.was_absent(parent, &name)? && intent::makes_anew(thread, &name).await {
            return self.found_ours(parent, &name);
        }
        match self.see(parent, &name).await?.1 {
            Seen::Here(..) => self.part_ways(parent, &name),
            Seen::NotHere(_) | Seen::Unknown => return self.found_ours(parent, &name),
        }
        self.found(parent, &name)
    }

    /// What is being changed here keeps its name, even if its object was removed elsewhere.
    fn found_ours(&self, parent: Ino, name: &Name) -> Result<Stat> {
        let ino = self.locked(parent, name, |table, inner| {
            inner.filter(|inner| inner.is_ours())?;
            Some(table.intern(parent, name, Kind::File))
        });
        let stat = self.orphan_stat(ino.ok_or(FsError::NotFound)?)?;
        Ok(Stat { nlink: 1, ..stat })
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// `Exists`, and those of every change.
    pub async fn mkdir(&self, parent: Ino, name: &[u8], mode: u32, caller: Caller) -> Result<Stat> {
        self.must_be_writable()?;
        let name = Name::from_bytes(name)?;
        self.see(parent, &name).await?;
        let attrs = self.born(parent, Kind::Dir, mode, caller);
        let (path, seq) = self.make(parent, &name, |_| {
            let generation = Generation {
                extents: Extents::default(),
                len: 0,
                attrs,
            };
            (Want::Object(Arc::new(generation)), Vec::new())
        })?;
        self.tree.learn_empty(&path);
        self.log.flushed(seq).await?;
        self.found(parent, &name)
    }

    /// Makes an empty regular file, or a node that the kernel serves (a pipe, a socket, a device):
    /// its object is empty, what it is stands in the attributes.
    ///
    /// # Errors
    /// `Exists`, and those of every change.
    pub async fn mknod(
        &self,
        parent: Ino,
        name: &[u8],
        (kind, mode): (Kind, u32),
        caller: Caller,
    ) -> Result<Stat> {
        self.must_be_writable()?;
        let name = Name::from_bytes(name)?;
        self.see(parent, &name).await?;
        let attrs = if kind == Kind::File {
            self.file_attrs(parent, &name, mode, caller)
        } else {
            self.born(parent, kind, mode, caller)
        };
        let (_, seq) = self.make(parent, &name, |_| {
            let generation = Generation {
                extents: Extents::default(),
                len: 0,
                attrs,
            };
            (Want::Object(Arc::new(generation)), Vec::new())
        })?;
        self.log.flushed(seq).await?;
        self.found(parent, &name)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// `Exists`, and those of every change.
    pub async fn symlink(
        &self,
        parent: Ino,
        name: &[u8],
        target: &[u8],
        caller: Caller,
    ) -> Result<Stat> {
        self.must_be_writable()?;
        let name = Name::from_bytes(name)?;
        self.see(parent, &name).await?;
        let attrs = self.born(parent, Kind::Symlink, 0o777, caller);
        let (_, seq) = self.make(parent, &name, |_| {
            let len = target.len() as u64;
            let mut extents = Extents::default();
            let from = Source::Local {
                file: FileNo::INLINE,
                offset: 0,
            };
            extents.put(Extent { at: 0, len, from });
            let generation = Generation {
                extents,
                len,
                attrs,
            };
            (Want::Object(Arc::new(generation)), target.to_vec())
        })?;
        self.log.flushed(seq).await?;
        self.found(parent, &name)
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// `Invalid` for what is none; of the read.
    pub async fn readlink(&self, ino: Ino) -> Result<Bytes> {
        let path = self.names.lock().path(ino).ok_or(FsError::NotFound)?;
        let Seen::Here(node, _) = self.tree.view(|view| view.lookup(&path)) else {
            return Err(FsError::NotFound);
        };
        if node.kind != Kind::Symlink {
            return Err(FsError::Invalid);
        }
        let size = usize::try_from(node.len).map_err(|_| FsError::Invalid)?;
        let window = crate::read::Window::default();
        Ok(self
            .reader
            .read_at(&node.extents(), node.len, 0, size, &window)
            .await?)
    }

    /// Removes a file or symbolic link. Open handles go on with what they have.
    ///
    /// # Errors
    /// `NotFound`, `IsDir`, and those of every change.
    pub async fn unlink(self: &Arc<Self>, parent: Ino, name: &[u8]) -> Result<()> {
        self.must_be_writable()?;
        let name = Name::from_bytes(name)?;
        self.see(parent, &name).await?;
        let open = self.names.lock().open_at(parent, &name);
        if let Some(file) = open {
            self.part_from_theirs(&file).await?;
        }
        let (seq, ino) = {
            let mut table = self.names.lock();
            let path = child(&table, parent, &name)?;
            let key = RelKey::file(&path);
            let pin = self.pinned(&path);
            let mut removed = None;
            let seq = self.tree.change::<FsError>(|view| {
                let node = here(view, &path)?;
                if node.kind == Kind::Dir {
                    return Err(FsError::IsDir);
                }
                let base = view.base(&key);
                removed = Some(node);
                let gone = Change {
                    key,
                    want: Want::Gone,
                    base,
                    number: None,
                };
                let kept = kept_dir(view, &path);
                Ok((std::iter::once(gone).chain(kept).collect(), Vec::new()))
            })?;
            table.keep(parent, &name, removed.zip(Some(pin)));
            table.note(parent, |times| times.entries_changed(clock()));
            (seq, table.detach(parent, &name))
        };
        if let Some(ino) = ino {
            self.attrs_changed(ino);
        }
        Ok(self.log.flushed(seq).await?)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotFound`, `NotDir`, `NotEmpty`, and those of every change.
    pub async fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<()> {
        self.must_be_writable()?;
        let name = Name::from_bytes(name)?;
        let (path, _) = self.see(parent, &name).await?;
        self.know_if_empty(&path).await?;
        let seq = {
            let mut table = self.names.lock();
            let path = child(&table, parent, &name)?;
            let key = RelKey::dir(&path);
            let seq = self.tree.change::<FsError>(|view| {
                if here(view, &path)?.kind != Kind::Dir {
                    return Err(FsError::NotDir);
                }
                if !view.is_empty(&path) {
                    return Err(FsError::NotEmpty);
                }
                let base = view.base(&key);
                let gone = Change {
                    key,
                    want: Want::Gone,
                    base,
                    number: None,
                };
                let kept = kept_dir(view, &path);
                Ok((std::iter::once(gone).chain(kept).collect(), Vec::new()))
            })?;
            table.note(parent, |times| times.entries_changed(clock()));
            table.detach(parent, &name);
            seq
        };
        Ok(self.log.flushed(seq).await?)
    }

    /// Whether nothing was at a name when the bucket was asked, longer ago than `ttl`.
    pub(super) fn was_absent(&self, parent: Ino, name: &Name) -> Result<bool> {
        let path = child(&self.names.lock(), parent, name)?;
        let seen = self.tree.view(|view| view.lookup(&path));
        Ok(matches!(seen, Seen::NotHere(Freshness::Old)))
    }

    /// What is at a name, the bucket asked if that is needed.
    pub(super) async fn see(&self, parent: Ino, name: &Name) -> Result<(RelPath, Seen)> {
        let path = child(&self.names.lock(), parent, name)?;
        let seen = self.look(&path).await?;
        Ok((path, seen))
    }

    /// What is at a path, the bucket asked if that is needed. `Unknown` if it was silent: for who
    /// looks that is nothing (a new name can be made there, and the bucket will be asked again by
    /// the precondition of its upload).
    pub(super) async fn look(&self, path: &RelPath) -> Result<Seen> {
        let seen = self.look_at_name(path).await?;
        if self.config.attrs_exact && self.know_attrs(path).await {
            return Ok(self.tree.view(|view| view.lookup(path)));
        }
        Ok(seen)
    }

    async fn look_at_name(&self, path: &RelPath) -> Result<Seen> {
        let seen = self.tree.view(|view| view.lookup(path));
        match &seen {
            Seen::Here(_, Freshness::Fresh) | Seen::NotHere(Freshness::Fresh) => return Ok(seen),
            // A directory is as old as its names, which are asked for one by one or all together.
            Seen::Here(node, Freshness::Old) if node.kind == Kind::Dir => return Ok(seen),
            Seen::Here(..) | Seen::NotHere(_) | Seen::Unknown => {}
        }
        match self.learner.name(path, &seen).await {
            Learnt::Yes => {
                let again = self.tree.view(|view| view.lookup(path));
                // A file that vanished may have become a directory: one more question tells.
                if matches!(again, Seen::Unknown) && !matches!(seen, Seen::Unknown) {
                    self.learner.name(path, &again).await;
                    return Ok(self.tree.view(|view| view.lookup(path)));
                }
                Ok(again)
            }
            Learnt::Silence => Ok(seen),
            Learnt::Refused(error) => Err(error.into()),
        }
    }

    /// Makes sure that it is known whether a directory is empty.
    pub(super) async fn know_if_empty(&self, path: &RelPath) -> Result<()> {
        let is_known = self
            .tree
            .view(|view| !view.is_empty(path) || view.listed(path) == Some(Freshness::Fresh));
        if is_known {
            return Ok(());
        }
        let was_listed = self.tree.view(|view| view.listed(path)).is_some();
        match self.learner.empty(path).await {
            Learnt::Silence if !was_listed => Err(FsError::Unreachable),
            Learnt::Yes | Learnt::Silence => Ok(()),
            Learnt::Refused(error) => Err(error.into()),
        }
    }

    /// The node at a name as far as known, interned for the kernel.
    pub(super) fn found(&self, parent: Ino, name: &Name) -> Result<Stat> {
        let (ino, node, path) = {
            let mut table = self.names.lock();
            let path = child(&table, parent, name)?;
            let node = self.tree.view(|view| here(view, &path))?;
            (table.intern(parent, name, node.kind), node, path)
        };
        self.relieve();
        Ok(self.stat(ino, &path, &node))
    }

    /// Takes the name from an inode that readers have open with another foreign version than what
    /// is there now.
    fn part_ways(&self, parent: Ino, name: &Name) {
        self.locked(parent, name, |table, inner| {
            let path = child(table, parent, name);
            if let (Some(inner), Ok(path)) = (inner, path)
                && !inner.is_ours()
                && let Seen::Here(node, _) = self.tree.view(|view| view.lookup(&path))
                && inner.differs(&node)
            {
                table.detach(parent, name);
            }
        });
    }

    /// Does something to a name while nobody else can to it or to the open file it has.
    pub(super) fn locked<T>(
        &self,
        parent: Ino,
        name: &Name,
        work: impl FnOnce(&mut Table, Option<&mut Inner>) -> T,
    ) -> T {
        loop {
            let file = self.names.lock().open_at(parent, name);
            let mut inner = file.as_ref().map(|file| file.inner.lock());
            let mut table = self.names.lock();
            let now = table.open_at(parent, name);
            if now.as_ref().map(Arc::as_ptr) == file.as_ref().map(Arc::as_ptr) {
                return work(&mut table, inner.as_deref_mut());
            }
        }
    }

    /// Keeps the data files of what is at a path, for handles that outlive its name. Before the name
    /// goes: with it goes what keeps them.
    pub(super) fn pinned(&self, path: &RelPath) -> Pin {
        let extents = match self.tree.view(|view| view.lookup(path)) {
            Seen::Here(node, _) => node.extents(),
            Seen::NotHere(_) | Seen::Unknown => Extents::default(),
        };
        self.tree.pin(&extents)
    }

    /// Attributes of a new name. In a directory with the setgid bit it gets the directory's group,
    /// a directory the bit as well.
    fn born(&self, parent: Ino, kind: Kind, mode: u32, caller: Caller) -> Attrs {
        let path = self.names.lock().path(parent);
        let dir = path.and_then(|path| {
            let node = self.tree.view(|view| here(view, &path)).ok()?;
            Some(self.stat_of(parent, &path, &node))
        });
        let (gid, bit) = match dir {
            Some(dir) if u32::from(dir.perm) & libc::S_ISGID != 0 => (dir.gid, libc::S_ISGID),
            Some(_) | None => (caller.gid, 0),
        };
        let mode = if kind == Kind::Dir { mode | bit } else { mode };
        Attrs::new(kind, mode, caller.uid, gid, clock())
    }

    /// Attributes of a new file.
    pub(super) fn file_attrs(&self, parent: Ino, name: &Name, mode: u32, caller: Caller) -> Attrs {
        let mut attrs = self.born(parent, Kind::File, mode, caller);
        if self.config.content_type_auto
            && let Some(headers) = &mut attrs.headers
        {
            headers.content_type = super::mime::content_type(name).map(Into::into);
        }
        attrs
    }

    /// One new name.
    pub(super) fn make(
        &self,
        parent: Ino,
        name: &Name,
        content: impl FnOnce(&RelPath) -> (Want, Vec<u8>),
    ) -> Result<(RelPath, Seq)> {
        let mut table = self.names.lock();
        let path = child(&table, parent, name)?;
        let (want, inline) = content(&path);
        let is_dir = matches!(&want, Want::Object(made) if made.attrs.kind == Kind::Dir);
        let key = if is_dir {
            RelKey::dir(&path)
        } else {
            RelKey::file(&path)
        };
        self.must_fit(&key)?;
        let seq = self.tree.change::<FsError>(|view| {
            if matches!(view.lookup(&path), Seen::Here(..)) {
                return Err(FsError::Exists);
            }
            allowed(view, &path)?;
            let base = view.base(&key);
            Ok((
                vec![Change {
                    key,
                    want,
                    base,
                    number: None,
                }],
                inline,
            ))
        })?;
        table.note(parent, |times| times.entries_changed(clock()));
        Ok((path, seq))
    }

    /// Whether the key is not longer than S3 takes.
    pub(super) fn must_fit(&self, key: &RelKey) -> Result<()> {
        if key.as_str().len() > self.config.key_max {
            Err(FsError::NameTooLong)
        } else {
            Ok(())
        }
    }
}

/// The path of a name in a directory that still has one.
pub(super) fn child(table: &Table, parent: Ino, name: &Name) -> Result<RelPath> {
    if table.kind(parent).is_some_and(|kind| kind != Kind::Dir) {
        return Err(FsError::NotDir);
    }
    Ok(table.path(parent).ok_or(FsError::NotFound)?.join(name))
}

/// The marker of the directory of `path`, where that would vanish with `path`.
pub(super) fn kept_dir(view: &View<'_>, path: &RelPath) -> Option<Change> {
    let dir = path.parent().filter(|_| view.vanishes_without(path))?;
    Some(marker(view, &dir))
}

/// A new marker of a directory.
pub(super) fn marker(view: &View<'_>, dir: &RelPath) -> Change {
    let attrs = Attrs {
        kind: Kind::Dir,
        headers: Some(Default::default()),
        ..Attrs::default()
    };
    let empty = Generation {
        extents: Extents::default(),
        len: 0,
        attrs,
    };
    let key = RelKey::dir(dir);
    Change {
        want: Want::Object(Arc::new(empty)),
        base: view.base(&key),
        key,
        number: None,
    }
}

/// What is at a path as far as known.
pub(super) fn here(view: &View<'_>, path: &RelPath) -> Result<Node> {
    match view.lookup(path) {
        Seen::Here(node, _) => Ok(*node),
        Seen::NotHere(_) => Err(FsError::NotFound),
        Seen::Unknown => Err(FsError::Unreachable),
    }
}

/// Whether S3 has refused a change in this directory: the next writer learns.
pub(super) fn allowed(view: &View<'_>, path: &RelPath) -> Result<()> {
    match view.refusal(path) {
        None => Ok(()),
        Some(Refusal::Denied(_)) => Err(FsError::Denied),
        Some(Refusal::Quota(_)) => Err(FsError::Quota),
        Some(Refusal::Invalid(text)) => {
            Err(FsError::Store(crate::store::StoreError::Invalid(text)))
        }
    }
}

/// A node as a generation that can be wanted at another key.
pub(super) fn as_generation(node: &Node) -> Generation {
    let mut attrs = node.attrs.clone().unwrap_or_else(|| Attrs {
        kind: node.kind,
        ..Attrs::default()
    });
    // Elsewhere the object gets a new LastModified: what was shown as its mtime goes along.
    attrs.mtime = attrs.mtime.or(node
        .modified
        .map(|secs| crate::types::Time { secs, nanos: 0 }));
    match &node.content {
        Content::Pending(generation, _) => Generation {
            attrs,
            ..(**generation).clone()
        },
        Content::Remote(..) | Content::Open(_) | Content::None => Generation {
            extents: node.extents(),
            len: node.len,
            attrs,
        },
    }
}

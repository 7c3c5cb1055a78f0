//! Attributes: what `stat` shows, and the changes to it.

use std::sync::Arc;

use crate::log::Change;
use crate::tree::{Content, Node, Seen};
use crate::types::{Attrs, Kind, RelKey, RelPath, Seq, Time, Want};

use super::file::{OpenFile, Shown};
use super::inode::ROOT;
use super::names::{allowed, as_generation, here};
use super::{Fh, Fs, FsError, Ino, Result, SetAttr, SetTime, Stat, clock};

impl Fs {
    /// What `stat` shows of an inode.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn getattr(&self, ino: Ino, _fh: Option<Fh>) -> Result<Stat> {
        let Some(path) = self.names.lock().path(ino) else {
            return self.orphan_stat(ino);
        };
        match self.look(&path).await? {
            Seen::Here(mut node, _) => {
                // What a name turns out to be, the kernel learns by looking it up: an inode that
                // changed its kind would be an I/O error to whoever has it open.
                node.kind = self.names.lock().kind(ino).unwrap_or(node.kind);
                Ok(self.stat(ino, &path, &node))
            }
            Seen::NotHere(_) => self.orphan_stat(ino),
            Seen::Unknown => Err(FsError::Unreachable),
        }
    }

    /// Changes attributes or size.
    ///
    /// # Errors
    /// Those of chmod(2), chown(2), truncate(2), utimensat(2).
    pub async fn setattr(self: &Arc<Self>, ino: Ino, change: SetAttr) -> Result<Stat> {
        self.must_be_writable()?;
        if let Some(size) = change.size {
            self.truncate(ino, size, change.fh).await?;
        }
        let of_object = change.mode.is_some()
            || change.uid.is_some()
            || change.gid.is_some()
            || change.mtime.is_some();
        if of_object || change.atime.is_some() {
            let before = self.getattr(ino, change.fh).await?;
            if of_object {
                self.set_attrs(ino, |attrs| apply(attrs, &change)).await?;
            }
            self.names.lock().note(ino, |times| {
                if change.mtime.is_some() {
                    times.mtime_set();
                }
                if change.mtime.is_some() || change.atime.is_some() {
                    times.atime_set(change.atime.map_or(before.atime, moment));
                }
            });
            self.attrs_changed(ino);
        }
        self.getattr(ino, change.fh).await
    }

    /// Attributes or the name of an inode changed here: its ctime moves.
    pub(super) fn attrs_changed(&self, ino: Ino) {
        let path = self.names.lock().path(ino);
        let stat = match path {
            None => self.orphan_stat(ino),
            Some(path) => self
                .tree
                .view(|view| here(view, &path))
                .map(|node| self.stat_of(ino, &path, &node)),
        };
        // What is not there any more has no times.
        if let Ok(stat) = stat {
            let mut names = self.names.lock();
            names.note(ino, |times| times.changed(clock(), stat.mtime));
        }
    }

    /// Changes what travels with the object: on the draft if there is one, and on what is sealed.
    pub(super) async fn set_attrs(
        self: &Arc<Self>,
        ino: Ino,
        edit: impl Fn(&mut Attrs) + Send + Sync,
    ) -> Result<()> {
        if ino == ROOT {
            edit(&mut self.root.lock());
            return Ok(());
        }
        // Where a directory's marker is written anyway, what its entries made of its mtime goes along.
        let of_entries = self.names.lock().times(ino).of_entries();
        let edit = |attrs: &mut Attrs| {
            attrs.mtime = of_entries.or(attrs.mtime);
            edit(attrs);
        };
        let file = self.names.lock().open_file(ino);
        if let Some(file) = &file
            && let Some(draft) = &mut file.inner.lock().draft
        {
            edit(&mut draft.attrs);
        }
        let path = {
            let mut table = self.names.lock();
            if let Some(node) = table.orphan(ino) {
                edit(node.attrs.get_or_insert_default());
            }
            table.path(ino)
        };
        let Some(path) = path else { return Ok(()) };
        self.look(&path).await?;
        if let Some(file) = &file {
            self.part_from_theirs(file).await?;
        }
        let seq = {
            let table = self.names.lock();
            let Some(path) = table.path(ino) else {
                return Ok(());
            };
            self.tree.change::<FsError>(|view| {
                let node = here(view, &path)?;
                allowed(view, &path)?;
                Ok((
                    vec![edited(
                        view.base(&key_of(&path, node.kind)),
                        &path,
                        &node,
                        &edit,
                    )],
                    vec![],
                ))
            })?
        };
        if let Some(file) = &file {
            self.carried(file, seq);
        }
        Ok(self.log.flushed(seq).await?)
    }

    /// What is shown of an inode, at `path` a `node` when that was looked up. The draft is asked
    /// first, and then the node again: between a look at the node and one at the draft a seal would
    /// show neither, and a size shorter than what was written makes the kernel lose bytes.
    pub(super) fn stat(&self, ino: Ino, path: &RelPath, node: &Node) -> Stat {
        let mut stat = self.stat_of(ino, path, node);
        if stat.kind == Kind::Dir {
            let inside = self.tree.view(|view| view.subdirs(path));
            stat.nlink = inside.map_or(1, |count| count + 2);
        }
        stat
    }

    /// As `stat`, without counting what is in a directory.
    pub(super) fn stat_of(&self, ino: Ino, path: &RelPath, node: &Node) -> Stat {
        if path.is_root() {
            let attrs = self.root.lock().clone();
            return self.shown(ino, node, Some(&attrs));
        }
        let open = self.names.lock().open_file(ino);
        let inner = open.as_ref().map(|open| open.inner.lock());
        if let Some(draft) = inner.as_ref().and_then(|inner| inner.draft.as_ref()) {
            let mut node = node.clone();
            node.len = draft.len;
            return self.shown(ino, &node, Some(&draft.attrs));
        }
        let now = match self.tree.view(|view| view.lookup(path)) {
            Seen::Here(mut now, _) => {
                now.kind = node.kind;
                *now
            }
            Seen::NotHere(_) | Seen::Unknown => node.clone(),
        };
        let shown = self.shown(ino, &now, now.attrs.as_ref());
        match inner.as_ref().map(|inner| (inner, &inner.shown)) {
            // Its handles read on what they had when they were opened.
            Some((inner, Some(Shown::Foreign(_, size)))) if inner.differs(&now) => Stat {
                size: *size,
                ..shown
            },
            _ => shown,
        }
    }

    /// Our own change `seq` of its name or attributes is what an open file shows.
    pub(super) fn carried(&self, file: &OpenFile, seq: Seq) {
        let mut inner = file.inner.lock();
        if inner.shown.is_some() {
            inner.shows(seq);
        }
        self.goes_on(file.ino, &mut inner);
    }

    fn shown(&self, ino: Ino, node: &Node, attrs: Option<&Attrs>) -> Stat {
        let config = &self.config;
        let (default, mask) = match node.kind {
            Kind::Dir => (config.dir_mode, config.dmask),
            Kind::Symlink => (0o777, 0),
            Kind::File | Kind::Fifo | Kind::Socket | Kind::Char(_) | Kind::Block(_) => {
                (config.file_mode, config.fmask)
            }
        };
        let mode = attrs.and_then(|attrs| attrs.mode).unwrap_or(default) & !mask & 0o7777;
        let modified = node.modified.map(|secs| Time { secs, nanos: 0 });
        let mtime = attrs.and_then(|attrs| attrs.mtime).or(modified);
        let times = self.names.lock().times(ino);
        let times = times.shown(mtime.unwrap_or_default());
        Stat {
            ino,
            size: if node.kind == Kind::Dir { 0 } else { node.len },
            kind: node.kind,
            perm: u16::try_from(mode).unwrap_or(0o644),
            nlink: if node.kind == Kind::Dir { 2 } else { 1 },
            uid: attrs.and_then(|attrs| attrs.uid).unwrap_or(config.uid),
            gid: attrs.and_then(|attrs| attrs.gid).unwrap_or(config.gid),
            mtime: times.mtime,
            atime: times.atime,
            ctime: times.ctime,
        }
    }

    /// What is shown of an inode whose name is gone.
    pub(super) fn orphan_stat(&self, ino: Ino) -> Result<Stat> {
        let open = self.names.lock().open_file(ino);
        let inner = open.as_ref().map(|open| open.inner.lock());
        let draft = inner.as_ref().and_then(|inner| inner.draft.as_ref());
        let orphan = self.names.lock().orphan(ino).cloned();
        let shown = inner.as_ref().and_then(|inner| inner.shown.as_ref());
        let node = match (draft, orphan, shown) {
            (Some(draft), _, _) => Node {
                kind: Kind::File,
                len: draft.len,
                attrs: Some(draft.attrs.clone()),
                modified: None,
                content: Content::None,
            },
            (None, Some(node), _) => node,
            (None, None, Some(Shown::Foreign(id, size))) => Node::foreign(id.clone(), *size),
            (None, None, Some(Shown::Own(_))) => return Err(FsError::Stale),
            (None, None, None) => return Err(FsError::NotFound),
        };
        let attrs = node.attrs.as_ref();
        Ok(Stat {
            nlink: 0,
            ..self.shown(ino, &node, attrs)
        })
    }
}

pub(super) fn key_of(path: &RelPath, kind: Kind) -> RelKey {
    if kind == Kind::Dir {
        RelKey::dir(path)
    } else {
        RelKey::file(path)
    }
}

fn edited(
    base: crate::types::Base,
    path: &RelPath,
    node: &Node,
    edit: &(impl Fn(&mut Attrs) + Send),
) -> Change {
    let key = key_of(path, node.kind);
    let want = match (&node.content, &node.attrs) {
        (Content::Open(_), Some(attrs)) => {
            let mut attrs = Box::new(attrs.clone());
            edit(&mut attrs);
            Want::Open { attrs, file: None }
        }
        _ => {
            let mut generation = as_generation(node);
            edit(&mut generation.attrs);
            Want::Object(Arc::new(generation))
        }
    };
    Change {
        key,
        want,
        base,
        number: None,
    }
}

fn apply(attrs: &mut Attrs, change: &SetAttr) {
    if let Some(mode) = change.mode {
        attrs.mode = Some(mode & 0o7777);
    }
    attrs.uid = change.uid.or(attrs.uid);
    attrs.gid = change.gid.or(attrs.gid);
    attrs.mtime = change.mtime.map(moment).or(attrs.mtime);
}

fn moment(set: SetTime) -> Time {
    match set {
        SetTime::At(time) => time,
        SetTime::Now => clock(),
    }
}

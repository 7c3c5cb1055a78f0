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
        let wants_more = change.mode.is_some()
            || change.uid.is_some()
            || change.gid.is_some()
            || change.mtime.is_some();
        if wants_more {
            self.set_attrs(ino, |attrs| apply(attrs, &change)).await?;
        }
        self.getattr(ino, change.fh).await
    }

    /// Changes what travels with the object: on the draft if there is one, and on what is sealed.
    pub(super) async fn set_attrs(&self, ino: Ino, edit: impl Fn(&mut Attrs) + Send) -> Result<()> {
        if ino == ROOT {
            edit(&mut self.root.lock());
            return Ok(());
        }
        let file = self.names.lock().open_file(ino);
        if let Some(file) = &file
            && let Some(draft) = &mut file.inner.lock().draft
        {
            edit(&mut draft.attrs);
        }
        let Some(path) = self.names.lock().path(ino) else {
            if let Some(file) = &file
                && let Some((node, _)) = &mut file.inner.lock().orphan
            {
                edit(node.attrs.get_or_insert_default());
            }
            return Ok(());
        };
        self.look(&path).await?;
        let (path, seq) = {
            let table = self.names.lock();
            let Some(path) = table.path(ino) else {
                return Ok(());
            };
            let seq = self.tree.change::<FsError>(|view| {
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
            })?;
            (path, seq)
        };
        if let Some(file) = &file {
            self.carried(file, &path, seq);
        }
        Ok(self.log.flushed(seq).await?)
    }

    /// What a node shows, with what its draft has changed.
    pub(super) fn stat(&self, ino: Ino, path: &RelPath, node: &Node) -> Stat {
        let root;
        let mut attrs = node.attrs.as_ref();
        if path.is_root() {
            root = self.root.lock().clone();
            attrs = Some(&root);
        }
        let shown = self.shown(ino, node, attrs);
        let open = self.names.lock().open_file(ino);
        let Some(open) = open else { return shown };
        let inner = open.inner.lock();
        match (&inner.draft, &inner.shown) {
            (Some(draft), _) => Stat {
                size: draft.len,
                ..self.shown(ino, node, Some(&draft.attrs))
            },
            // Its handles read on what they had when they were opened.
            (None, Some(Shown::Foreign(_, size))) if inner.differs(node) => Stat {
                size: *size,
                ..shown
            },
            (None, _) => shown,
        }
    }

    /// Our own change `seq` of its name or attributes is what an open file, now at `path`, shows.
    pub(super) fn carried(&self, file: &OpenFile, path: &RelPath, seq: Seq) {
        let mut inner = file.inner.lock();
        if inner.shown.is_some() {
            inner.shows(seq);
        }
        let is_held = inner.writers > 0;
        self.tree.hold(path, is_held);
    }

    fn shown(&self, ino: Ino, node: &Node, attrs: Option<&Attrs>) -> Stat {
        let config = &self.config;
        let (default, mask) = match node.kind {
            Kind::Dir => (config.dir_mode, config.dmask),
            Kind::File => (config.file_mode, config.fmask),
            Kind::Symlink => (0o777, 0),
        };
        let mode = attrs.and_then(|attrs| attrs.mode).unwrap_or(default) & !mask & 0o7777;
        let modified = node.modified.map(|secs| Time { secs, nanos: 0 });
        Stat {
            ino,
            size: node.len,
            kind: node.kind,
            perm: u16::try_from(mode).unwrap_or(0o644),
            nlink: if node.kind == Kind::Dir { 2 } else { 1 },
            uid: attrs.and_then(|attrs| attrs.uid).unwrap_or(config.uid),
            gid: attrs.and_then(|attrs| attrs.gid).unwrap_or(config.gid),
            mtime: attrs
                .and_then(|attrs| attrs.mtime)
                .or(modified)
                .unwrap_or_default(),
        }
    }

    pub(super) fn orphan_stat(&self, ino: Ino) -> Result<Stat> {
        let open = self.names.lock().open_file(ino).ok_or(FsError::NotFound)?;
        let inner = open.inner.lock();
        let node = match (&inner.draft, &inner.orphan, &inner.shown) {
            (Some(draft), _, _) => Node {
                kind: Kind::File,
                len: draft.len,
                attrs: Some(draft.attrs.clone()),
                modified: None,
                content: Content::None,
            },
            (None, Some((node, _)), _) => node.clone(),
            (None, None, Some(Shown::Foreign(id, size))) => Node {
                kind: Kind::File,
                len: *size,
                attrs: None,
                modified: None,
                content: Content::Remote(id.clone(), None),
            },
            (None, None, _) => return Err(FsError::Stale),
        };
        let attrs = node.attrs.clone();
        Ok(Stat {
            nlink: 0,
            ..self.shown(ino, &node, attrs.as_ref())
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
    match change.mtime {
        Some(SetTime::At(time)) => attrs.mtime = Some(time),
        Some(SetTime::Now) => attrs.mtime = Some(clock()),
        None => {}
    }
}

//! Open, create, release: handles, and which content an inode shows while it has some.

use std::sync::Arc;

use crate::log::Change;
use crate::tree::{Content, Node, Seen};
use crate::types::{Attrs, Base, Extents, Kind, Name, RelKey, RelPath, Want};

use super::draft::Draft;
use super::file::{Inner, OpenFile, Shown};
use super::handle::FileHandle;
use super::names::{allowed, child, here};
use super::{Caller, Fh, Fs, FsError, Ino, Opened, Result, Stat, clock};

impl Fs {
    /// Opens a file. Past `ttl` its version is asked for again.
    ///
    /// # Errors
    /// Those of open(2); `Stale` where somebody else replaced what open handles still read: the
    /// kernel looks the name up again and opens what is there now.
    pub async fn open(self: &Arc<Self>, ino: Ino, flags: i32, caller: Caller) -> Result<Opened> {
        let may_write = flags & libc::O_ACCMODE != libc::O_RDONLY;
        if may_write || flags & libc::O_TRUNC != 0 {
            self.must_be_writable()?;
        }
        let Some(path) = self.names.lock().path(ino) else {
            return self.open_orphan(ino, flags, caller);
        };
        let Seen::Here(node, _) = self.look(&path).await? else {
            return Err(FsError::NotFound);
        };
        if node.kind == Kind::Dir {
            return Err(FsError::IsDir);
        }
        if may_write {
            self.tree.view(|view| allowed(view, &path))?;
        }
        if node.len == 0 && node.attrs.is_none() {
            // A read would bring the attributes along; of an empty object nothing is read.
            self.learner.head(&RelKey::file(&path)).await;
        }
        let (file, keep_cache) = self.enter(ino, &path, &node, may_write)?;
        let opened = self.hand_out(&file, may_write, caller, keep_cache)?;
        if flags & libc::O_TRUNC != 0 {
            self.truncate(ino, 0, Some(opened.fh)).await?;
        }
        Ok(opened)
    }

    /// Creates a file and opens it. The name is visible at once, durable with the first flush.
    ///
    /// # Errors
    /// Those of open(2) with `O_CREAT`.
    pub async fn create(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
        mode: u32,
        flags: i32,
        caller: Caller,
    ) -> Result<(Stat, Opened)> {
        self.must_be_writable()?;
        let name = Name::from_bytes(name)?;
        if let Seen::Here(..) = self.see(parent, &name).await?.1 {
            if flags & libc::O_EXCL != 0 {
                return Err(FsError::Exists);
            }
            let stat = self.lookup(parent, name.as_str().as_bytes()).await?;
            return Ok((stat, self.open(stat.ino, flags, caller).await?));
        }
        let attrs = self.file_attrs(&name, mode, caller);
        let (ino, file, stat) = {
            let mut table = self.names.lock();
            let path = child(&table, parent, &name)?;
            let key = RelKey::file(&path);
            self.must_fit(&key)?;
            let want = Want::Open {
                attrs: Box::new(attrs.clone()),
                file: None,
            };
            let mut base = Base::Absent;
            let seq = self.tree.change::<FsError>(|view| {
                if matches!(view.lookup(&path), Seen::Here(..)) {
                    return Err(FsError::Exists);
                }
                allowed(view, &path)?;
                base = view.base(&key);
                let base = base.clone();
                Ok((
                    vec![Change {
                        key,
                        want,
                        base,
                        number: None,
                    }],
                    Vec::new(),
                ))
            })?;
            let node = self.tree.view(|view| here(view, &path))?;
            table.detach(parent, &name);
            let ino = table.intern(parent, &name, Kind::File);
            let file = table.open_or_new(ino).ok_or(FsError::NotFound)?;
            drop(table);
            let mut inner = file.inner.lock();
            inner.draft = Some(Draft::new(Extents::default(), 0, attrs, base));
            inner.shown = Some(Shown::Own(seq));
            drop(inner);
            (ino, file, self.stat(ino, &path, &node))
        };
        // It counts as a writer even where it may only read: what it made must be sealed.
        self.count_in(&file, true);
        let opened = self.hand_out(&file, true, caller, true)?;
        debug_assert_eq!(stat.ino, ino, "the number just made");
        Ok((stat, opened))
    }

    /// Closes a handle. What was written after the last flush (a mapping's last stores) is sealed.
    ///
    /// # Errors
    /// Nobody is told, but the log.
    pub async fn release(&self, ino: Ino, fh: Fh) -> Result<()> {
        let Some(handle) = self.handles.remove(fh) else {
            return Ok(());
        };
        let file = handle.file;
        let is_last_writer = handle.may_write && file.inner.lock().writers == 1;
        let sealed = if is_last_writer {
            self.seal(&file, true).await.map(|_| ())
        } else {
            Ok(())
        };
        let path = self.names.lock().path(ino);
        {
            let mut inner = file.inner.lock();
            inner.handles -= 1;
            inner.writers -= usize::from(handle.may_write);
            if inner.writers == 0 {
                inner.writer = None;
            }
            if inner.handles == 0 && sealed.is_ok() {
                self.forget_content(&mut inner);
                self.names.lock().closed(ino);
            }
        }
        if let (true, Some(path)) = (is_last_writer, &path) {
            self.tree.hold(path, false);
        }
        if let Err(error) = &sealed {
            tracing::error!("bytes written after the last close are not sealed: {error:?}");
        }
        sealed
    }

    /// Counts a handle in; answers the open file and whether the kernel's pages are still right.
    /// `Stale` if its handles show another version than `node`: the name is parted from them.
    fn enter(
        &self,
        ino: Ino,
        path: &RelPath,
        node: &Node,
        may_write: bool,
    ) -> Result<(Arc<OpenFile>, bool)> {
        loop {
            let file = self
                .names
                .lock()
                .open_or_new(ino)
                .ok_or(FsError::NotFound)?;
            let mut inner = file.inner.lock();
            let continues = inner
                .shown
                .as_ref()
                .is_none_or(|old| old.continues_as(node));
            if inner.handles > 0 && inner.draft.is_none() && !continues {
                drop(inner);
                let mut table = self.names.lock();
                if let Some((parent, name)) = path.parent().zip(path.name())
                    && let Some(parent) = table.find(&parent)
                {
                    table.detach(parent, &name);
                }
                return Err(FsError::Stale);
            }
            // The last handle may have gone meanwhile and taken the open file off the inode.
            if !self.names.lock().keeps_open(ino, &file) {
                continue;
            }
            if inner.draft.is_none() {
                inner.shown = Some(Shown::of(node));
            }
            let keep = inner.draft.is_some() || inner.pages == inner.shown;
            inner.pages = inner.shown.clone();
            inner.handles += 1;
            inner.writers += usize::from(may_write);
            drop(inner);
            return Ok((file, keep));
        }
    }

    fn count_in(&self, file: &OpenFile, may_write: bool) {
        let mut inner = file.inner.lock();
        inner.handles += 1;
        inner.writers += usize::from(may_write);
        inner.pages = inner.shown.clone();
    }

    fn hand_out(
        &self,
        file: &Arc<OpenFile>,
        may_write: bool,
        caller: Caller,
        keep_cache: bool,
    ) -> Result<Opened> {
        let handle = FileHandle {
            file: Arc::clone(file),
            may_write,
            opener: caller.pid,
            window: Arc::default(),
        };
        Ok(Opened {
            fh: self.handles.add_file(handle)?,
            keep_cache,
        })
    }

    fn open_orphan(&self, ino: Ino, flags: i32, caller: Caller) -> Result<Opened> {
        let file = self.names.lock().open_file(ino).ok_or(FsError::Stale)?;
        let may_write = flags & libc::O_ACCMODE != libc::O_RDONLY;
        self.count_in(&file, may_write);
        self.hand_out(&file, may_write, caller, true)
    }

    fn forget_content(&self, inner: &mut Inner) {
        inner.shown = None;
        inner.orphan = None;
        if let Some(draft) = inner.draft.take() {
            self.unbuffer(draft.buffer.len());
        }
    }
}

/// A node that an open handle with these flags may begin a draft from.
pub(super) fn draft_attrs(node: &Node) -> Attrs {
    let unknown = || Attrs {
        kind: node.kind,
        ..Default::default()
    };
    let mut attrs = node.attrs.clone().unwrap_or_else(unknown);
    if !matches!(node.content, Content::None) {
        attrs.mtime = Some(clock());
    }
    attrs
}

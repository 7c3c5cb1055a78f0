//! Open, create, release: handles, and which content an inode shows while it has some.

use std::sync::Arc;

use crate::log::{Change, Need};
use crate::tree::{Content, Node, Seen};
use crate::types::{Attrs, Base, Extents, Kind, Name, RelKey, RelPath, Want};

use super::draft::Draft;
use super::file::{Inner, OpenFile, Shown};
use super::handle::FileHandle;
use super::inode::Table;
use super::intent::overwrites;
use super::names::{allowed, child, here};
use super::opener::Opener;
use super::{Caller, Fh, Fs, FsError, Ino, Opened, Result, Stat, clock};

impl Fs {
    /// Opens a file. Past `ttl` its version is asked for again.
    ///
    /// # Errors
    /// Those of open(2); `Stale` where somebody else replaced what open handles still read, or removed
    /// the name: the kernel looks it up again and opens, or makes, what is there now.
    pub async fn open(self: &Arc<Self>, ino: Ino, flags: i32, caller: Caller) -> Result<Opened> {
        // Who may only read but cuts the file short has changed it: its close seals that.
        let may_write = flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0;
        if may_write {
            self.must_be_writable()?;
        }
        let path = self.names.lock().path(ino);
        if let Some(path) = path {
            self.learn_for_open(&path, may_write).await?;
        }
        let file = self.enter(ino, may_write)?;
        self.hand_out(&file, (flags, may_write), caller).await
    }

    async fn learn_for_open(&self, path: &RelPath, may_write: bool) -> Result<()> {
        let Seen::Here(node, _) = self.look(path).await? else {
            return Ok(());
        };
        if may_write {
            self.tree.view(|view| allowed(view, path))?;
        }
        if node.kind != Kind::Dir && node.len == 0 && node.attrs.is_none() {
            // A read would bring the attributes along; of an empty object nothing is read.
            self.learner.head(&RelKey::file(path)).await;
        }
        Ok(())
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
        let is_believed_new = overwrites(flags) && self.was_absent(parent, &name)?;
        let is_there =
            !is_believed_new && matches!(self.see(parent, &name).await?.1, Seen::Here(..));
        if is_there && flags & libc::O_EXCL != 0 {
            return Err(FsError::Exists);
        }
        let made = if is_there {
            None
        } else {
            let attrs = self.file_attrs(parent, &name, mode, caller);
            self.create_new(parent, &name, attrs, flags & libc::O_EXCL != 0)?
        };
        let Some((file, stat)) = made else {
            return self.open_there(parent, &name, flags, caller).await;
        };
        // It counts as a writer even where it may only read: what it made must be sealed.
        let flags = flags & !libc::O_TRUNC;
        let opened = self.hand_out(&file, (flags, true), caller).await;
        if opened.is_err() {
            self.forget(stat.ino, 1);
        }
        Ok((stat, opened?))
    }

    /// The name is there (or became so while the bucket was asked for it).
    async fn open_there(
        self: &Arc<Self>,
        parent: Ino,
        name: &Name,
        flags: i32,
        caller: Caller,
    ) -> Result<(Stat, Opened)> {
        let stat = self.lookup(parent, name.as_str().as_bytes()).await?;
        let opened = self.open(stat.ino, flags, caller).await;
        if opened.is_err() {
            self.forget(stat.ino, 1);
        }
        Ok((stat, opened?))
    }

    /// The open file of a new name, entered; `None` if the name is there and need not be new.
    fn create_new(
        &self,
        parent: Ino,
        name: &Name,
        attrs: Attrs,
        must_be_new: bool,
    ) -> Result<Option<(Arc<OpenFile>, Stat)>> {
        let made = self.locked(parent, name, |table, there| {
            let path = child(table, parent, name)?;
            let key = RelKey::file(&path);
            self.must_fit(&key)?;
            let mut draft = Draft::new(Extents::default(), 0, attrs.clone(), Base::Absent);
            draft.promise(self.log.spool(), 0, Need::Growth)?;
            let want = Want::Open {
                attrs: Box::new(attrs),
                file: None,
            };
            let mut base = Base::Absent;
            let seq = self.tree.change::<FsError>(|view| {
                // What is being changed here is there, even if its object was removed elsewhere.
                if there.is_some_and(|inner| inner.is_ours())
                    || matches!(view.lookup(&path), Seen::Here(..))
                {
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
            });
            let seq = match seq {
                Err(FsError::Exists) if !must_be_new => return Ok(None),
                seq => seq?,
            };
            table.note(parent, |times| times.entries_changed(clock()));
            let node = self.tree.view(|view| here(view, &path))?;
            table.detach(parent, name);
            let ino = table.intern(parent, name, Kind::File);
            draft.base = base;
            let file = OpenFile::created(ino, draft, seq);
            if !table.keeps_open(ino, &file) {
                return Err(FsError::NotFound);
            }
            Ok(Some((file, path, node)))
        })?;
        Ok(made.map(|(file, path, node)| {
            let stat = self.stat(file.ino, &path, &node);
            (file, stat)
        }))
    }

    /// Closes a handle. What was written after the last flush (a mapping's last stores) is sealed.
    ///
    /// # Errors
    /// Nobody is told, but the log.
    pub async fn release(self: &Arc<Self>, _ino: Ino, fh: Fh) -> Result<()> {
        match self.handles.remove(fh) {
            Some(handle) => self.leave(handle.file, handle.may_write).await,
            None => Ok(()),
        }
    }

    /// Counts a handle in. `Stale` if its handles show another version than its name has now: the
    /// name is parted from them.
    pub(super) fn enter(&self, ino: Ino, may_write: bool) -> Result<Arc<OpenFile>> {
        loop {
            let file = self.names.lock().open_or_new(ino);
            let file = file.ok_or(FsError::NotFound)?;
            let mut inner = file.inner.lock();
            let mut table = self.names.lock();
            // The last handle may have gone meanwhile and taken the open file off the inode.
            if !table.keeps_open(ino, &file) {
                continue;
            }
            if let Err(error) = self.may_enter(&mut table, ino, &mut inner) {
                if inner.handles == 0 && inner.draft.is_none() {
                    table.closed(ino);
                }
                return Err(error);
            }
            drop(table);
            inner.handles += 1;
            inner.writers += usize::from(may_write);
            drop(inner);
            return Ok(file);
        }
    }

    fn may_enter(&self, table: &mut Table, ino: Ino, inner: &mut Inner) -> Result<()> {
        let Some(path) = table.path(ino) else {
            return if inner.handles > 0 || table.orphan(ino).is_some() {
                Ok(())
            } else {
                Err(FsError::Stale)
            };
        };
        let node = match self.tree.view(|view| view.lookup(&path)) {
            Seen::Here(node, _) if node.kind == Kind::Dir => return Err(FsError::IsDir),
            Seen::Here(node, _) => node,
            Seen::NotHere(_) | Seen::Unknown if inner.is_ours() => return Ok(()),
            // The kernel believes in a name that was removed elsewhere, or of an old root.
            Seen::NotHere(_) | Seen::Unknown => return Err(FsError::Stale),
        };
        if !inner.differs(&node) {
            if inner.draft.is_none() {
                inner.shown = Some(Shown::of(&node));
            }
        } else if !inner.is_ours() {
            table.part(ino);
            return Err(FsError::Stale);
        }
        Ok(())
    }

    /// A handle for an open file that was entered, and whether the kernel's pages are still right
    /// (else it drops them). On failure, or if whoever asked went away, it is left again.
    async fn hand_out(
        self: &Arc<Self>,
        file: &Arc<OpenFile>,
        (flags, may_write): (i32, bool),
        caller: Caller,
    ) -> Result<Opened> {
        let mut entered = Entered {
            fs: self,
            file: Some(Arc::clone(file)),
            may_write,
        };
        let keep_cache = {
            let mut inner = file.inner.lock();
            let made_from = inner.shown.clone();
            std::mem::replace(&mut inner.pages, made_from)
                .is_some_and(|old| Some(old) == inner.shown)
        };
        if flags & libc::O_TRUNC != 0 {
            self.cut(file, 0).await?;
        }
        let handle = FileHandle {
            file: Arc::clone(file),
            may_write,
            opener: Opener::new(caller.pid, may_write),
            window: Arc::default(),
        };
        let fh = self.handles.add_file(handle)?;
        entered.file = None;
        Ok(Opened { fh, keep_cache })
    }

    /// Counts a handle out. It is done to its end, also if whoever asked goes away.
    pub(super) async fn leave(
        self: &Arc<Self>,
        file: Arc<OpenFile>,
        may_write: bool,
    ) -> Result<()> {
        let fs = Arc::clone(self);
        let left = tokio::spawn(async move { fs.leave_now(&file, may_write).await });
        left.await.map_err(|_| FsError::Disk(libc::EIO))?
    }

    async fn leave_now(&self, file: &Arc<OpenFile>, may_write: bool) -> Result<()> {
        let is_last_writer = {
            let mut inner = file.inner.lock();
            inner.writers -= usize::from(may_write);
            may_write && inner.writers == 0
        };
        let sealed = if is_last_writer {
            self.seal_now(file).await.map(|_| ())
        } else {
            Ok(())
        };
        if let Err(error) = &sealed {
            tracing::error!("bytes written after the last close are not sealed: {error:?}");
        }
        let mut inner = file.inner.lock();
        inner.handles -= 1;
        let mut table = self.names.lock();
        let path = table.path(file.ino);
        if let (0, Some(path)) = (inner.writers, &path) {
            self.tree.hold(path, false);
        }
        // What could not be sealed for want of room is kept for the next one who closes it.
        let is_kept = sealed.is_err() && inner.poisoned.is_none() && path.is_some();
        if inner.writers == 0 && !is_kept && (inner.handles == 0 || inner.draft.is_none()) {
            inner.writer = None;
        }
        if inner.handles == 0 && !is_kept {
            table.closed(file.ino);
            drop(table);
            self.forget_content(&mut inner);
        }
        sealed
    }

    fn forget_content(&self, inner: &mut Inner) {
        inner.shown = None;
        inner.poisoned = None;
        if let Some(draft) = inner.draft.take() {
            self.unbuffer(draft.buffer.len());
        }
    }
}

/// An open file that was entered for a handle not yet given out: left when dropped.
struct Entered<'a> {
    fs: &'a Arc<Fs>,
    file: Option<Arc<OpenFile>>,
    may_write: bool,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let (Some(file), Ok(runtime)) = (self.file.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let (fs, may_write) = (Arc::clone(self.fs), self.may_write);
        // It says itself what goes wrong.
        runtime.spawn(async move { fs.leave_now(&file, may_write).await });
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

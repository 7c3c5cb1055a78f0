//! Handles: what `open` and `opendir` gave out.
//!
//! Bound: `MAX` at once, then `EMFILE`.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::read::Window;

use super::file::OpenFile;
use super::opener::Opener;
use super::paging::Reading;
use super::{Fh, FsError, Ino, Result};

const MAX: usize = 65_536;

/// A file's handle.
#[derive(Clone, Debug)]
pub(super) struct FileHandle {
    pub(super) file: Arc<OpenFile>,
    pub(super) may_write: bool,
    pub(super) opener: Opener,
    pub(super) window: Arc<Window>,
}

/// A directory's handle, and its reading since it was read from the start.
#[derive(Clone, Debug)]
pub(super) struct DirHandle {
    pub(super) ino: Ino,
    pub(super) reading: Option<Arc<Reading>>,
}

#[derive(Debug)]
enum Handle {
    File(FileHandle),
    Dir(DirHandle),
}

/// All handles.
#[derive(Debug, Default)]
pub(super) struct Handles {
    open: Mutex<(u64, HashMap<Fh, Handle>)>,
}

impl Handles {
    pub(super) fn add_file(&self, handle: FileHandle) -> Result<Fh> {
        self.add(Handle::File(handle))
    }

    pub(super) fn add_dir(&self, ino: Ino) -> Result<Fh> {
        self.add(Handle::Dir(DirHandle { ino, reading: None }))
    }

    pub(super) fn file(&self, fh: Fh) -> Result<FileHandle> {
        match self.open.lock().1.get(&fh) {
            Some(Handle::File(handle)) => Ok(handle.clone()),
            Some(Handle::Dir(_)) | None => Err(FsError::BadHandle),
        }
    }

    pub(super) fn dir(&self, fh: Fh) -> Result<DirHandle> {
        match self.open.lock().1.get(&fh) {
            Some(Handle::Dir(handle)) => Ok(handle.clone()),
            Some(Handle::File(_)) | None => Err(FsError::BadHandle),
        }
    }

    pub(super) fn set_reading(&self, fh: Fh, reading: Arc<Reading>) {
        if let Some(Handle::Dir(handle)) = self.open.lock().1.get_mut(&fh) {
            handle.reading = Some(reading);
        }
    }

    pub(super) fn remove(&self, fh: Fh) -> Option<FileHandle> {
        match self.open.lock().1.remove(&fh)? {
            Handle::File(handle) => Some(handle),
            Handle::Dir(_) => None,
        }
    }

    fn add(&self, handle: Handle) -> Result<Fh> {
        let mut open = self.open.lock();
        if open.1.len() >= MAX {
            return Err(FsError::Disk(libc::EMFILE));
        }
        open.0 += 1;
        let fh = Fh(open.0);
        open.1.insert(fh, handle);
        Ok(fh)
    }
}

//! The bytes of objects and parts: numbered files, and slices of them.
//!
//! Invariants:
//! - a blob is written once, then only read; an object is a list of slices, so a copy, and putting
//!   parts together, moves no bytes;
//! - a blob's file goes when the last slice of it does (and stays when the simulation ends).

use std::fs::File;
use std::io;
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Where the blobs are.
#[derive(Debug)]
pub(super) struct Blobs {
    dir: PathBuf,
    next: AtomicU64,
    closed: AtomicBool,
}

impl Blobs {
    /// In an existing directory.
    pub(super) fn new(dir: &Path) -> Arc<Self> {
        Arc::new(Self {
            dir: dir.to_owned(),
            next: AtomicU64::new(1),
            closed: AtomicBool::new(false),
        })
    }

    /// The blob of that number, whose file exists.
    pub(super) fn existing(self: &Arc<Self>, number: u64) -> Arc<Blob> {
        let home = Arc::clone(self);
        Arc::new(Blob { number, home })
    }

    /// Removes the files of blobs that `keep` does not name; the next blob is numbered behind all.
    pub(super) fn sweep(&self, keep: impl Fn(u64) -> bool) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            self.next.fetch_max(number + 1, Ordering::SeqCst);
            if !keep(number) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// From now on no file is removed.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:012}"))
    }

    pub(super) fn create(self: &Arc<Self>) -> io::Result<(Arc<Blob>, File)> {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let file = File::create_new(self.path(number))?;
        Ok((self.existing(number), file))
    }

    /// One blob of these bytes.
    pub(super) fn write(self: &Arc<Self>, bytes: &[u8]) -> io::Result<Arc<Blob>> {
        let (blob, mut file) = self.create()?;
        file.write_all(bytes)?;
        Ok(blob)
    }
}

/// One file.
#[derive(Debug)]
pub(super) struct Blob {
    number: u64,
    home: Arc<Blobs>,
}

impl Blob {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn open(&self) -> io::Result<File> {
        File::open(self.home.path(self.number))
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        if self.home.closed.load(Ordering::SeqCst) {
            return;
        }
        let path = self.home.path(self.number);
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "sim: a blob could not be removed");
        }
    }
}

/// A piece of a blob.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    pub(super) blob: Arc<Blob>,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// Bytes in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Content(Vec<Slice>);

impl Content {
    pub(super) fn slices(&self) -> &[Slice] {
        &self.0
    }

    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|slice| slice.len).sum()
    }

    /// Puts a slice behind, merged with the last one if it goes on there.
    pub(super) fn push(&mut self, slice: Slice) {
        if slice.len == 0 {
            return;
        }
        if let Some(last) = self.0.last_mut()
            && Arc::ptr_eq(&last.blob, &slice.blob)
            && last.offset + last.len == slice.offset
        {
            last.len += slice.len;
            return;
        }
        self.0.push(slice);
    }

    /// Puts all of `other` behind.
    pub(super) fn append(&mut self, other: &Self) {
        for slice in &other.0 {
            self.push(slice.clone());
        }
    }

    /// The bytes of `range`, which lies within.
    pub(super) fn cut(&self, range: &Range<u64>) -> Self {
        let mut cut = Self::default();
        let mut at = 0;
        for slice in &self.0 {
            let from = range.start.max(at);
            let to = range.end.min(at + slice.len);
            if from < to {
                cut.push(Slice {
                    blob: Arc::clone(&slice.blob),
                    offset: slice.offset + (from - at),
                    len: to - from,
                });
            }
            at += slice.len;
        }
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(blob: Arc<Blob>, len: u64) -> Content {
        let mut content = Content::default();
        content.push(Slice {
            blob,
            offset: 0,
            len,
        });
        content
    }

    #[test]
    fn a_cut_over_two_blobs_is_the_bytes_of_both() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(dir.path());
        let mut content = whole(blobs.write(b"hello").unwrap(), 5);
        content.append(&whole(blobs.write(b"world").unwrap(), 5));
        assert_eq!(content.text(), "helloworld");
        assert_eq!(content.cut(&(3..7)).text(), "lowo");
        assert_eq!(content.cut(&(5..10)).text(), "world");
        assert_eq!(content.cut(&(4..4)).len(), 0);
    }

    #[test]
    fn slices_that_follow_each_other_are_one() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(dir.path());
        let content = whole(blobs.write(b"helloworld").unwrap(), 10);
        let mut again = content.cut(&(0..4));
        again.append(&content.cut(&(4..10)));
        assert_eq!(again.slices().len(), 1);
    }

    #[test]
    fn a_blob_goes_with_its_last_slice_unless_the_end_has_come() {
        let dir = tempfile::tempdir().unwrap();
        let files = || std::fs::read_dir(dir.path()).unwrap().count();
        let blobs = Blobs::new(dir.path());
        let content = whole(blobs.write(b"hello").unwrap(), 5);
        let part = content.cut(&(1..2));
        drop(content);
        assert_eq!(files(), 1);
        drop(part);
        assert_eq!(files(), 0);
        let kept = whole(blobs.write(b"hello").unwrap(), 5);
        blobs.close();
        drop(kept);
        assert_eq!(files(), 1);
    }
}

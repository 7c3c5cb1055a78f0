//! The attributes of versions: what this device wrote or learnt, so that a listing (which does not
//! carry them) need not be followed by a HEAD a file. Losing it costs requests, never data.
//!
//! On disk: a file of records `len: u32, crc32c: u32, payload` (little endian; the checksum is over
//! the payload; the payload is postcard of `Remembered`). Later records win. Appended without a
//! flush; `flush` is called before the log drops what the records came from. Reading stops at the
//! first record that is not whole; a file with more dead than live records is written anew beside
//! and renamed. At most `MAX` keys, the least recently written go first.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crc_fast::{CrcAlgorithm, checksum};
use lru::LruCache;
use serde::{Deserialize, Serialize};

use crate::seeded::{self, Bug};
use crate::types::{Attrs, ETag, RelKey};

/// Keys remembered at most (about 250 B of memory each).
const MAX: usize = 32_768;
/// A file with fewer records than this is never rewritten.
const REWRITE_AT: usize = 1024;
/// No record is longer (S3 keeps 2 KiB of user metadata).
const LONGEST: usize = 64 * 1024;

#[derive(Serialize, Deserialize)]
struct Remembered {
    key: RelKey,
    etag: ETag,
    attrs: Attrs,
}

/// The memory.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    file: Option<File>,
    written: usize,
    known: LruCache<RelKey, Box<[u8]>>,
}

impl Memory {
    /// Reads what is there. A file that cannot be read is like none (and said so).
    #[must_use]
    pub(super) fn open(path: &Path) -> Self {
        let mut memory = Self::empty(path);
        match std::fs::read(path) {
            Ok(bytes) => memory.load(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!("attribute memory unreadable, starting anew: {error}"),
        }
        if let Err(error) = memory.rewrite() {
            tracing::warn!("attribute memory cannot be written, kept in memory only: {error}");
        }
        memory
    }

    /// Reads what is there, and is not written to.
    #[must_use]
    pub(super) fn at_rest(path: &Path) -> Self {
        let mut memory = Self::empty(path);
        if let Ok(bytes) = std::fs::read(path) {
            memory.load(&bytes);
        }
        memory
    }

    fn empty(path: &Path) -> Self {
        let max = std::num::NonZeroUsize::MIN.saturating_add(MAX - 1);
        let mut known = LruCache::unbounded();
        known.resize(max);
        Self {
            path: path.into(),
            file: None,
            written: 0,
            known,
        }
    }

    /// The attributes of the version `etag` of `key`.
    #[must_use]
    pub(super) fn get(&self, key: &RelKey, etag: &ETag) -> Option<Attrs> {
        let payload = self.known.peek(key)?;
        let remembered: Remembered = postcard::from_bytes(payload).ok()?;
        (remembered.etag == *etag).then_some(remembered.attrs)
    }

    /// Remembers.
    pub(super) fn put(&mut self, key: &RelKey, etag: &ETag, attrs: &Attrs) {
        if self.get(key, etag).as_ref() == Some(attrs) {
            return;
        }
        let remembered = Remembered {
            key: key.clone(),
            etag: etag.clone(),
            attrs: attrs.clone(),
        };
        let Ok(payload) = postcard::to_stdvec(&remembered) else {
            return;
        };
        if payload.len() > LONGEST {
            return;
        }
        if let Some(file) = &mut self.file
            && !seeded::is(Bug::AttributesForgotten)
        {
            if let Err(error) = file.write_all(&frame(&payload)) {
                tracing::warn!("attribute memory cannot be written: {error}");
                self.file = None;
            }
            self.written += 1;
        }
        self.known.push(key.clone(), payload.into());
        if self.written > REWRITE_AT.max(2 * self.known.len()) {
            self.write_anew();
        }
    }

    /// Forgets a key.
    pub(super) fn forget(&mut self, key: &RelKey) {
        self.known.pop(key);
    }

    /// Forgets all, also on the disk.
    ///
    /// # Errors
    /// Of the disk.
    pub(super) fn forget_all(&mut self) -> io::Result<()> {
        self.known.clear();
        self.rewrite()
    }

    /// What is to be flushed before the log drops its records; a clone, so that the flush happens
    /// outside of any lock.
    #[must_use]
    pub(super) fn file(&self) -> Option<File> {
        self.file.as_ref().and_then(|file| file.try_clone().ok())
    }

    /// As `rewrite`, said if it fails: losing it costs requests.
    pub(super) fn write_anew(&mut self) {
        if let Err(error) = self.rewrite() {
            tracing::warn!("attribute memory cannot be rewritten: {error}");
            self.file = None;
        }
    }

    fn load(&mut self, mut bytes: &[u8]) {
        while let Some((payload, rest)) = unframe(bytes) {
            let Ok(remembered) = postcard::from_bytes::<Remembered>(payload) else {
                break;
            };
            self.known.push(remembered.key, payload.into());
            bytes = rest;
        }
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        let mut out = io::BufWriter::new(&mut file);
        for (_, payload) in self.known.iter().rev() {
            out.write_all(&frame(payload))?;
        }
        out.flush()?;
        drop(out);
        file.sync_data()?;
        std::fs::rename(&fresh, &self.path)?;
        (self.file, self.written) = (Some(file), self.known.len());
        Ok(())
    }
}

/// A record as it lies in the file.
pub(super) fn frame(payload: &[u8]) -> Vec<u8> {
    let crc = u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, payload)).unwrap_or_default();
    let len = u32::try_from(payload.len()).unwrap_or_default();
    [&len.to_le_bytes()[..], &crc.to_le_bytes()[..], payload].concat()
}

/// The first record of `bytes`, and what follows; `None` if it is not whole.
pub(super) fn unframe(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let (payload, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    (checksum(CrcAlgorithm::Crc32Iscsi, payload) == u64::from(u32::from_le_bytes(*crc)))
        .then_some((payload, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Kind, RelPath, Time};

    fn key(text: &str) -> RelKey {
        RelKey::file(&RelPath::new(text).unwrap())
    }

    fn attrs(secs: i64) -> Attrs {
        Attrs::new(Kind::File, 0o644, 0, 0, Time { secs, nanos: 0 })
    }

    #[test]
    fn what_was_put_is_there_after_a_reopen_for_that_version_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory");
        Memory::open(&path).put(&key("a"), &ETag::new("1"), &attrs(5));
        let memory = Memory::open(&path);
        assert_eq!(memory.get(&key("a"), &ETag::new("1")), Some(attrs(5)));
        assert_eq!(memory.get(&key("a"), &ETag::new("2")), None);
    }

    #[test]
    fn a_torn_or_flipped_tail_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory");
        let mut memory = Memory::open(&path);
        memory.put(&key("a"), &ETag::new("1"), &attrs(5));
        memory.put(&key("b"), &ETag::new("1"), &attrs(6));
        let whole = std::fs::read(&path).unwrap();
        for cut in whole.len() / 2..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(
                Memory::open(&path).get(&key("a"), &ETag::new("1")),
                Some(attrs(5))
            );
        }
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        let memory = Memory::open(&path);
        assert_eq!(memory.get(&key("a"), &ETag::new("1")), Some(attrs(5)));
        assert_eq!(memory.get(&key("b"), &ETag::new("1")), None);
    }

    #[test]
    fn the_file_does_not_grow_with_rewrites_of_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory");
        let mut memory = Memory::open(&path);
        for secs in 0..5000 {
            memory.put(&key("a"), &ETag::new("1"), &attrs(secs));
        }
        assert!(std::fs::metadata(&path).unwrap().len() < 200_000);
    }
}

//! What the buckets hold, on disk: one JSON line per change, in order.
//!
//! Invariants:
//! - replaying the lines gives the state at the last one that was written whole;
//! - a start rewrites the journal to what is left of it, in a new file that takes its place.
//!
//! Nothing is flushed to the device: the simulation outlives its process, not a power cut.

use std::fs::File;
use std::io;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::bucket::Attributes;
use super::checks::{Algorithm, Checksum};

/// A slice: number of the blob, offset, length.
pub(super) type SliceRecord = (u64, u64, u64);

/// An object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ObjectRecord {
    pub(super) slices: Vec<SliceRecord>,
    pub(super) etag: String,
    pub(super) modified: i64,
    pub(super) crc64: u64,
    pub(super) checksum: Checksum,
    pub(super) attributes: Attributes,
}

/// A part of an upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartRecord {
    pub(super) slices: Vec<SliceRecord>,
    pub(super) md5: [u8; 16],
    pub(super) modified: i64,
    pub(super) crc64: u64,
    pub(super) checksum: Checksum,
}

/// An upload, as it was created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UploadRecord {
    pub(super) key: String,
    pub(super) attributes: Attributes,
    pub(super) algorithm: Option<Algorithm>,
    pub(super) composite: bool,
    pub(super) initiated: i64,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Record {
    Bucket {
        bucket: String,
        created: i64,
    },
    Put {
        bucket: String,
        key: String,
        object: ObjectRecord,
    },
    Delete {
        bucket: String,
        key: String,
    },
    Create {
        bucket: String,
        upload: String,
        what: UploadRecord,
    },
    Part {
        bucket: String,
        upload: String,
        number: u16,
        part: PartRecord,
    },
    /// Aborted, or completed.
    End {
        bucket: String,
        upload: String,
    },
}

/// The open journal.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
}

impl Journal {
    /// The records of the journal in `dir`, in order. A torn last line is not one.
    pub(super) fn load(dir: &Path, mut each: impl FnMut(Record)) -> io::Result<()> {
        let file = match File::open(path(dir)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut lines = BufReader::new(file);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            if line.last() == Some(&b'\n') {
                each(serde_json::from_slice(&line)?);
            }
            line.clear();
        }
        Ok(())
    }

    /// A journal of exactly `records`, in the place of the one that was.
    pub(super) fn rewrite(dir: &Path, records: impl Iterator<Item = Record>) -> io::Result<Self> {
        let fresh = dir.join("journal.new");
        let mut out = BufWriter::new(File::create(&fresh)?);
        for record in records {
            out.write_all(&line(&record)?)?;
        }
        let file = out.into_inner()?;
        std::fs::rename(&fresh, path(dir))?;
        Ok(Self { file })
    }

    /// Writes one more; several together are written as one.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for record in records {
            bytes.extend(line(record)?);
        }
        self.file.write_all(&bytes)
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("journal")
}

fn line(record: &Record) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_in_order_and_a_torn_line_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let record = |key: &str| Record::Delete {
            bucket: "b".to_owned(),
            key: key.to_owned(),
        };
        let mut journal = Journal::rewrite(dir.path(), [record("1")].into_iter()).unwrap();
        journal.append(&[record("2\n\u{1}"), record("3")]).unwrap();
        journal.file.write_all(b"{\"Delete\":{\"buck").unwrap();
        let mut seen = Vec::new();
        Journal::load(dir.path(), |record| seen.push(record)).unwrap();
        assert_eq!(seen, [record("1"), record("2\n\u{1}"), record("3")]);
    }
}

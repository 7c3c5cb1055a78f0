//! One version on disk: a sparse data file with the bytes at their own offsets, and beside it the
//! checksums that say which of its blocks are there.
//!
//! `NAME.dat`: byte `i` of the object at offset `i`. May be longer than the object (it can be a
//! hard link of a spool file), may have holes; nothing in it is believed without its checksum.
//!
//! `NAME.idx`, integers little-endian:
//! ```text
//! offset  bytes
//!      0      8  magic "kryptblk"
//!      8      4  format, 1
//!     12      4  H, length of the header with its checksum; a multiple of 8
//!     16      8  size of the object
//!     24      2  length k of the key
//!     26      2  length e of the ETag
//!     28      4  flags; bit 0: the data file came by hard link
//!     32  k + e  key, ETag; then zeros
//!  H - 4      4  CRC-32C of all before
//!  H + 8b     4  "KBLK": block b is there; anything else: it is not
//!         +   4  CRC-32C of the block (BLOCK bytes, or what is left of the object), xor b
//! ```
//! A block counts if and only if header, mark and checksum hold. So whatever a crash, a stranger
//! or a dying card made of the two files is a miss, never wrong data.
//!
//! Order of writes: the bytes, then the entry. Nothing is flushed: losing a block costs time.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::BLOCK;
use crate::seeded::{self, Bug};
use crate::types::ObjectId;

const MAGIC: &[u8; 8] = b"kryptblk";
const FORMAT: u32 = 1;
const FIXED: usize = 32;
/// Another name of the data file may be somebody else's, now or until a moment ago.
pub(super) const LINKED: u32 = 1;
/// Keys have at most 1,024 bytes, ETags a few dozen: a longer header is not ours.
const HEADER_MAX: usize = 8192;
const MARK: [u8; 4] = *b"KBLK";
const ENTRY: u64 = 8;
/// So many entries are read or written at once.
const CHUNK: u64 = 8192;

/// The file name of a version: FNV-1a (128 bits) of its key and ETag. A collision is seen in the
/// header, so it costs a miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name(pub(super) u128);

impl Name {
    pub(super) fn of(object: &ObjectId) -> Self {
        let bytes = object.key.as_str().bytes();
        let all = bytes.chain([0]).chain(object.etag.as_str().bytes());
        Self(
            all.fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
                (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
            }),
        )
    }

    /// Reads `NAME` of `NAME.dat` and `NAME.idx`.
    pub(super) fn parse(stem: &str) -> Option<Self> {
        let plain = stem.len() == 32 && stem.bytes().all(|b| b.is_ascii_hexdigit());
        plain
            .then(|| u128::from_str_radix(stem, 16).ok().map(Self))
            .flatten()
    }

    pub(super) fn dat(self, dir: &Path) -> PathBuf {
        dir.join(format!("{:032x}.dat", self.0))
    }

    pub(super) fn idx(self, dir: &Path) -> PathBuf {
        dir.join(format!("{:032x}.idx", self.0))
    }
}

/// The entries of a version, or of one being made.
#[derive(Debug)]
pub(super) struct Entries {
    file: File,
    /// Where the first entry is.
    head: u64,
}

impl Entries {
    /// A new file with a header and no block.
    pub(super) fn create(
        path: &Path,
        object: &ObjectId,
        size: u64,
        flags: u32,
    ) -> io::Result<Self> {
        let header = header(object, size, flags);
        let file = private().create_new(true).open(path)?;
        file.write_all_at(&header, 0)?;
        Ok(Self {
            file,
            head: header.len() as u64,
        })
    }

    /// `(mark and checksum hold together, checksum)` as stored: `None` is an absent block.
    fn load(&self, blocks: Range<u64>) -> Vec<Option<u32>> {
        let count = blocks.end.saturating_sub(blocks.start);
        let mut raw = vec![0; usize::try_from(count * ENTRY).unwrap_or(0)];
        let read = read_full(&self.file, &mut raw, self.head + blocks.start * ENTRY);
        raw.truncate(read.unwrap_or(0));
        let mut entries: Vec<_> = raw.chunks_exact(8).map(decode).collect();
        entries.resize(usize::try_from(count).unwrap_or(0), None);
        entries
    }

    fn store(&self, first: u64, entries: &[Option<u32>]) -> io::Result<()> {
        let raw: Vec<u8> = entries.iter().flat_map(|entry| encode(*entry)).collect();
        self.file.write_all_at(&raw, self.head + first * ENTRY)
    }

    /// Reads all of `data` once and notes the checksum of every block of an object of `size`.
    pub(super) fn checksum(&self, data: &File, size: u64) -> io::Result<()> {
        let mut frame = vec![0; usize::try_from(BLOCK).map_err(io::Error::other)?];
        let mut batch = Vec::new();
        for block in 0..blocks_of(size) {
            let frame = &mut frame[..block_len(size, block)];
            data.read_exact_at(frame, block * BLOCK)?;
            batch.push(Some(checksum(block, frame)));
            if batch.len() as u64 == CHUNK {
                self.store(block + 1 - CHUNK, &batch)?;
                batch.clear();
            }
        }
        self.store(blocks_of(size) - batch.len() as u64, &batch)
    }

    /// Takes over what `base` has of those blocks that `keep` names; answers how many.
    pub(super) fn copy(
        &self,
        base: &Version,
        blocks: u64,
        keep: &dyn Fn(u64) -> bool,
    ) -> io::Result<u64> {
        let mut kept = 0;
        let mut first = 0;
        let blocks = blocks.min(blocks_of(base.size));
        while first < blocks {
            let last = blocks.min(first + CHUNK);
            let mut entries = base.entries.load(first..last);
            for (block, entry) in (first..last).zip(entries.iter_mut()) {
                *entry = entry.filter(|_| keep(block));
                kept += u64::from(entry.is_some());
            }
            if entries.iter().any(Option::is_some) {
                self.store(first, &entries)?;
            }
            first = last;
        }
        Ok(kept)
    }
}

/// An open version. Reads and writes of it need no lock: the worst a race makes is a miss.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) object: ObjectId,
    pub(super) size: u64,
    pub(super) flags: u32,
    entries: Entries,
    data: File,
    /// Its data file changed hands or its names are gone: nothing more is written to it.
    retired: AtomicBool,
}

impl Version {
    /// Opens it; `None` if what lies there is not this version, whole and of this format.
    pub(super) fn open(dir: &Path, name: Name, object: &ObjectId) -> io::Result<Option<Self>> {
        let file = private().open(name.idx(dir))?;
        let Some((size, flags, head)) = read_header(&file, object)? else {
            return Ok(None);
        };
        let data = match private().open(name.dat(dir)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            data => data?,
        };
        Ok(Some(Self {
            object: object.clone(),
            size,
            flags,
            entries: Entries { file, head },
            data,
            retired: AtomicBool::new(false),
        }))
    }

    /// Makes both files, which must not be there.
    pub(super) fn create(dir: &Path, name: Name, object: &ObjectId, size: u64) -> io::Result<Self> {
        let entries = Entries::create(&name.idx(dir), object, size, 0)?;
        let data = private().create_new(true).open(name.dat(dir))?;
        Ok(Self {
            object: object.clone(),
            size,
            flags: 0,
            entries,
            data,
            retired: AtomicBool::new(false),
        })
    }

    /// The block, if it is there and whole. One that is not whole is struck out.
    pub(super) fn get(&self, block: u64) -> Option<Bytes> {
        if block >= blocks_of(self.size) {
            return None;
        }
        let expected = self.entries.load(block..block + 1).pop().flatten()?;
        let mut bytes = vec![0; block_len(self.size, block)];
        let read = self.data.read_exact_at(&mut bytes, block * BLOCK);
        let is_right = checksum(block, &bytes) == expected;
        if read.is_ok() && (is_right || seeded::is(Bug::BlockChecksumIgnored)) {
            return Some(bytes.into());
        }
        if self.entries.store(block, &[None]).is_err() {
            self.retire();
        }
        None
    }

    /// Writes the block, then its entry. If it came by link, the caller has seen that the data
    /// file is ours alone and keeps it so meanwhile.
    pub(super) fn put(&self, block: u64, bytes: &[u8]) -> io::Result<()> {
        self.data.write_all_at(bytes, block * BLOCK)?;
        self.entries.store(block, &[Some(checksum(block, bytes))])
    }

    /// Notes the block if the data file has just these bytes there already.
    pub(super) fn note(&self, block: u64, bytes: &[u8]) -> io::Result<bool> {
        let mut found = vec![0; bytes.len()];
        let is_there = self.data.read_exact_at(&mut found, block * BLOCK).is_ok() && found == bytes;
        if is_there {
            self.entries.store(block, &[Some(checksum(block, bytes))])?;
        }
        Ok(is_there)
    }

    /// Which of these blocks are said to be there.
    pub(super) fn present(&self, blocks: Range<u64>) -> Vec<bool> {
        let entries = self.entries.load(blocks);
        entries.iter().map(Option::is_some).collect()
    }

    /// Bytes of disk both files take.
    pub(super) fn allocated(&self) -> u64 {
        let taken = |file: &File| file.metadata().map_or(0, |meta| meta.blocks() * 512);
        taken(&self.data) + taken(&self.entries.file)
    }

    /// Whether the data file may be somebody else's.
    pub(super) fn is_linked(&self) -> bool {
        self.flags & LINKED != 0
    }

    /// Whether the data file has this name and no other.
    pub(super) fn is_only(&self, path: &Path) -> bool {
        let (Ok(named), Ok(open)) = (fs::symlink_metadata(path), self.data.metadata()) else {
            return false;
        };
        named.ino() == open.ino() && named.dev() == open.dev() && open.nlink() == 1
    }

    /// Cuts the data file to `size`, where it is longer.
    pub(super) fn shorten(&self, size: u64) -> io::Result<()> {
        if self.data.metadata()?.len() > size {
            self.data.set_len(size)?;
        }
        Ok(())
    }

    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }
}

/// How many blocks an object of `size` has.
pub(super) fn blocks_of(size: u64) -> u64 {
    size.div_ceil(BLOCK)
}

/// The length of one of its blocks.
pub(super) fn block_len(size: u64, block: u64) -> usize {
    let left = size.saturating_sub(block.saturating_mul(BLOCK));
    usize::try_from(left.min(BLOCK)).unwrap_or(0)
}

/// Files of ours: read and write, owner only, never through a link.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options.custom_flags(libc::O_NOFOLLOW);
    options
}

fn crc(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The block's number is mixed in, so bytes that a controller wrote to the wrong place are none.
#[allow(clippy::cast_possible_truncation)]
fn checksum(block: u64, bytes: &[u8]) -> u32 {
    crc(bytes) ^ (block as u32)
}

fn encode(entry: Option<u32>) -> [u8; 8] {
    let mut raw = [0; 8];
    if let Some(sum) = entry {
        raw[..4].copy_from_slice(&MARK);
        raw[4..].copy_from_slice(&sum.to_le_bytes());
    }
    raw
}

fn decode(raw: &[u8]) -> Option<u32> {
    (raw[..4] == MARK).then(|| u32_at(raw, 4))
}

fn u32_at(raw: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&raw[at..at + 4]);
    u32::from_le_bytes(bytes)
}

fn header(object: &ObjectId, size: u64, flags: u32) -> Vec<u8> {
    let (key, etag) = (
        object.key.as_str().as_bytes(),
        object.etag.as_str().as_bytes(),
    );
    let length = (FIXED + key.len() + etag.len() + 4).next_multiple_of(8);
    let count = |n: usize| u16::try_from(n).unwrap_or(u16::MAX).to_le_bytes();
    let mut raw = Vec::with_capacity(length);
    raw.extend_from_slice(MAGIC);
    raw.extend_from_slice(&FORMAT.to_le_bytes());
    raw.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    raw.extend_from_slice(&size.to_le_bytes());
    raw.extend_from_slice(&count(key.len()));
    raw.extend_from_slice(&count(etag.len()));
    raw.extend_from_slice(&flags.to_le_bytes());
    raw.extend_from_slice(key);
    raw.extend_from_slice(etag);
    raw.resize(length - 4, 0);
    let sum = crc(&raw);
    raw.extend_from_slice(&sum.to_le_bytes());
    raw
}

/// `(size, flags, length of the header)` if it is whole, of this format, and of this version.
fn read_header(file: &File, object: &ObjectId) -> io::Result<Option<(u64, u32, u64)>> {
    let mut fixed = [0; FIXED];
    if read_full(file, &mut fixed, 0)? < FIXED {
        return Ok(None);
    }
    let length = u32_at(&fixed, 12) as usize;
    if !(FIXED..=HEADER_MAX).contains(&length) {
        return Ok(None);
    }
    let mut found = vec![0; length];
    let mut size = [0; 8];
    size.copy_from_slice(&fixed[16..24]);
    let size = u64::from_le_bytes(size);
    // The rest follows from the version, and these two are under the checksum: equal bytes are the
    // only right ones.
    let flags = u32_at(&fixed, 28);
    let is_whole = read_full(file, &mut found, 0)? == length;
    let is_right = is_whole && flags & !LINKED == 0 && found == header(object, size, flags);
    Ok(is_right.then_some((size, flags, length as u64)))
}

/// Reads until `buffer` is full or the file ends; answers how much.
fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

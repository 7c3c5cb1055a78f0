//! The log's format, byte by byte. Version 4, frozen: a change of it is a new version.
//! Versions 2 to 4 add kinds of records at the end of `Record`; older ones are read as they are.
//!
//! The log is a row of segments, `log/NUMBER` (16 hex digits), read in order of number. Numbers of
//! all are little-endian; all checksums are CRC-32C (iSCSI). A segment is a header, frames, and
//! zeros up to the length that was allocated. One of zeros alone is *blank*: made in advance.
//!
//! ```text
//! header, 64 bytes
//!   0   8  "KFSLOG\r\n"
//!   8   4  version of the format
//!  12   4  checksum of bytes 0..12: these 16 bytes stay what they are in every version
//!  16   8  number of the segment
//!  24   8  mount id of the spool
//!  32   8  salt of the spool: random, never leaves the device
//!  40   8  first: no record in it or after it has a lower position
//!  48   8  durable: all records up to here were flushed when the header was written
//!  56   4  1: begun when the log was opened (then durable = first - 1), 0: because one was full
//!  60   4  checksum of bytes 0..60
//!
//! frame, a multiple of 8 bytes, at a multiple of 8
//!   0   4  "KFr1"
//!   4   4  kind: 1, a record
//!   8   4  length of the record
//!  12   4  length of the inline data
//!  16   8  seq: the record's position
//!  24   8  durable: all records up to here were flushed when the frame was written
//!  32   4  checksum of the payload, bytes 40..end
//!  36   4  checksum of (salt, number of the segment, offset of the frame in it: 8 bytes each)
//!          and bytes 0..36
//!  40      record (postcard), inline data, zeros up to a multiple of 8
//! ```
//!
//! **A frame is valid if and only if** it lies inside the segment, its two checksums hold, its kind
//! is 1 and its padding is zeros. The salt and the place in the checksum keep bytes of a user's
//! file, and frames that were once written elsewhere, from being taken for a frame.
//!
//! **Commit.** A record is appended by one write behind the last frame and counts as durable once
//! a flush that began after the write has ended well. Positions go up by 1; when the log is opened
//! they skip `Seq` numbers that may have been given out and lost (`commit::LEAD`). A flush covers
//! all segments begun before it, in order. A segment is blank, allocated and in its flushed folder
//! before its header is written, so committing needs no flush of a folder.
//!
//! **Recovery** (`recover.rs`). Let D be the highest *durable* in any valid header or frame. Read
//! on by segment and offset. Where bytes are no valid frame, go on at the next valid one: behind
//! the damaged one if its first 40 bytes hold, else at the next multiple of 8 where 40 such bytes
//! are found. Where something is unreadable or a position is missing, look at the last position
//! read: lower than D, and it is *damage*: the bytes are copied to `aside/` and reported, and
//! reading goes on. Else it is the *torn tail*: nothing from there on was known to be flushed, and
//! what comes later may build on what is missing, so all of it is copied to `aside/`, reported,
//! and cut off. Where the last run ended unclean since the machine was started (`bind.rs`), the
//! segments with position D or a later one are written anew: a flush of them may have failed, and
//! the kernel shows what the device never got. Only then is a new segment begun. Damage stays where it is as long as its segment.

use std::ops::Range;

use crc_fast::crc32_iscsi;

use crate::seeded::{self, Bug};
use crate::types::{FileNo, MountId, Seq};

/// The version of the format written here.
pub(super) const VERSION: u32 = 4;
/// The oldest that is read.
const OLDEST: u32 = 1;
/// Bytes of a segment's header.
pub(super) const HEADER: usize = 64;
/// Bytes of a frame before its record.
pub(super) const FRAME: usize = 40;
/// No frame is longer; so much memory is needed for one.
pub(super) const FRAME_MAX: usize = 16 << 20;
const MAGIC: &[u8; 8] = b"KFSLOG\r\n";
const FRAME_MAGIC: &[u8; 4] = b"KFr1";
const KIND_RECORD: u32 = 1;

/// The spool's salt: whoever knows it could write bytes that look like a frame.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Salt(pub(super) u64);

impl std::fmt::Debug for Salt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salt(..)")
    }
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: FileNo,
    pub(super) mount: MountId,
    pub(super) salt: Salt,
    pub(super) first: Seq,
    pub(super) durable: Seq,
    pub(super) at_open: bool,
}

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoHeader {
    /// Zeros only: made in advance, never begun.
    Blank,
    /// Of a newer format.
    Newer(u32),
    /// Unreadable.
    Damaged,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        put_u32(&mut bytes, 8, VERSION);
        let sum = crc32_iscsi(&bytes[..12]);
        put_u32(&mut bytes, 12, sum);
        put_u64(&mut bytes, 16, self.number.0);
        put_u64(&mut bytes, 24, self.mount.0);
        put_u64(&mut bytes, 32, self.salt.0);
        put_u64(&mut bytes, 40, self.first.0);
        put_u64(&mut bytes, 48, self.durable.0);
        put_u32(&mut bytes, 56, u32::from(self.at_open));
        let sum = crc32_iscsi(&bytes[..60]);
        put_u32(&mut bytes, 60, sum);
        bytes
    }

    /// The header of a segment with these bytes that is called `number`.
    pub(super) fn decode(segment: &[u8], number: FileNo) -> Result<Self, NoHeader> {
        if end_of(segment) == 0 {
            return Err(NoHeader::Blank);
        }
        let is_ours =
            |bytes: &&[u8]| bytes[..8] == *MAGIC && u32_at(bytes, 12) == crc32_iscsi(&bytes[..12]);
        match segment
            .get(..16)
            .filter(is_ours)
            .map(|bytes| u32_at(bytes, 8))
        {
            Some(newer) if newer > VERSION && !seeded::is(Bug::NewerFormatTaken) => {
                return Err(NoHeader::Newer(newer));
            }
            Some(OLDEST..=VERSION) => {}
            _ => return Err(NoHeader::Damaged),
        }
        let Some(bytes) = segment.get(..HEADER) else {
            return Err(NoHeader::Damaged);
        };
        let header = Self {
            number: FileNo(u64_at(bytes, 16)),
            mount: MountId(u64_at(bytes, 24)),
            salt: Salt(u64_at(bytes, 32)),
            first: Seq(u64_at(bytes, 40)),
            durable: Seq(u64_at(bytes, 48)),
            at_open: u32_at(bytes, 56) == 1,
        };
        if u32_at(bytes, 60) != crc32_iscsi(&bytes[..60]) || header.number != number {
            return Err(NoHeader::Damaged);
        }
        Ok(header)
    }
}

/// Which segment of which spool: part of every frame's checksum.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) salt: Salt,
    pub(super) segment: FileNo,
}

/// A frame that does not know its place yet.
#[derive(Debug)]
pub(super) struct Unplaced {
    bytes: Vec<u8>,
    record: usize,
}

impl Unplaced {
    /// `None`: longer than `FRAME_MAX`.
    pub(super) fn new(record: &[u8], inline: &[u8]) -> Option<Self> {
        let len = FRAME.checked_add(record.len())?.checked_add(inline.len())?;
        if len > FRAME_MAX {
            return None;
        }
        let mut bytes = Vec::with_capacity(len.next_multiple_of(8));
        bytes.extend_from_slice(FRAME_MAGIC);
        bytes.extend_from_slice(&KIND_RECORD.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(record.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(inline.len()).ok()?.to_le_bytes());
        bytes.resize(FRAME, 0);
        bytes.extend_from_slice(record);
        bytes.extend_from_slice(inline);
        bytes.resize(len.next_multiple_of(8), 0);
        let sum = crc32_iscsi(&bytes[FRAME..]);
        put_u32(&mut bytes, 32, sum);
        Some(Self {
            bytes,
            record: record.len(),
        })
    }

    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Where the inline data lies when the frame lies at `at`.
    pub(super) fn inline_at(&self, at: u64) -> u64 {
        at + (FRAME + self.record) as u64
    }

    /// The bytes to write at `at`.
    pub(super) fn place(&mut self, place: Place, at: u64, seq: Seq, durable: Seq) -> &[u8] {
        put_u64(&mut self.bytes, 16, seq.0);
        put_u64(&mut self.bytes, 24, durable.0);
        let sum = frame_sum(place, at, &self.bytes);
        put_u32(&mut self.bytes, 36, sum);
        &self.bytes
    }
}

/// What is found in a segment: ranges of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A valid frame.
    Frame(Frame),
    /// Bytes that are none.
    Bad(Range<usize>),
}

/// A valid frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) seq: Seq,
    pub(super) durable: Seq,
    /// All of it.
    pub(super) at: Range<usize>,
    pub(super) record: Range<usize>,
    pub(super) inline: Range<usize>,
}

/// Reads the frames of a segment in order, and what is none between them.
#[derive(Debug)]
pub(super) struct Frames<'a> {
    bytes: &'a [u8],
    place: Place,
    at: usize,
    /// Behind the last byte that is not zero.
    end: usize,
}

impl<'a> Frames<'a> {
    pub(super) fn new(bytes: &'a [u8], place: Place) -> Self {
        Self {
            bytes,
            place,
            at: HEADER,
            end: end_of(bytes),
        }
    }

    /// Behind the last thing found.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The lengths of record, inline data and frame at `at`, if its first 40 bytes hold.
    fn lengths(&self, at: usize) -> Option<(usize, usize, usize)> {
        let head = self.bytes.get(at..at + FRAME)?;
        if head[..4] != *FRAME_MAGIC
            || u32_at(head, 36) != frame_sum(self.place, at as u64, head)
            || u32_at(head, 4) != KIND_RECORD
        {
            return None;
        }
        let record = usize::try_from(u32_at(head, 8)).ok()?;
        let inline = usize::try_from(u32_at(head, 12)).ok()?;
        let len = FRAME.checked_add(record)?.checked_add(inline)?;
        (len <= FRAME_MAX).then(|| (record, inline, len.next_multiple_of(8)))
    }

    fn frame(&self, at: usize, record: usize, inline: usize, len: usize) -> Option<Frame> {
        let bytes = self.bytes.get(at..at + len)?;
        let (record_at, inline_at) = (at + FRAME, at + FRAME + record);
        let padding = &bytes[FRAME + record + inline..];
        let is_whole = u32_at(bytes, 32) == crc32_iscsi(&bytes[FRAME..])
            || seeded::is(Bug::RecordChecksumIgnored);
        if !is_whole || padding.iter().any(|b| *b != 0) {
            return None;
        }
        Some(Frame {
            seq: Seq(u64_at(bytes, 16)),
            durable: Seq(u64_at(bytes, 24)),
            at: at..at + len,
            record: record_at..inline_at,
            inline: inline_at..inline_at + inline,
        })
    }
}

impl Iterator for Frames<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        let at = self.at;
        if at >= self.end {
            return None;
        }
        if let Some((record, inline, len)) = self.lengths(at) {
            self.at = at + len;
            let frame = self.frame(at, record, inline, len);
            return Some(frame.map_or_else(
                || Found::Bad(at..(at + len).min(self.bytes.len())),
                Found::Frame,
            ));
        }
        let next = (at + 8..self.end).step_by(8);
        self.at = next
            .into_iter()
            .find(|next| self.lengths(*next).is_some())
            .unwrap_or(self.end.next_multiple_of(8));
        Some(Found::Bad(at..self.at.min(self.bytes.len())))
    }
}

/// Behind the last byte that is not zero. Most of a segment is zeros: whole pages are compared.
pub(super) fn end_of(bytes: &[u8]) -> usize {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut pages = bytes.chunks(ZEROS.len());
    let Some(page) = pages.rposition(|page| page != &ZEROS[..page.len()]) else {
        return 0;
    };
    let start = page * ZEROS.len();
    let page = &bytes[start..bytes.len().min(start + ZEROS.len())];
    let last = page.iter().rposition(|byte| *byte != 0);
    last.map_or(start, |last| start + last + 1)
}

fn frame_sum(place: Place, at: u64, head: &[u8]) -> u32 {
    let mut bytes = [0; 24 + 36];
    put_u64(&mut bytes, 0, place.salt.0);
    put_u64(&mut bytes, 8, place.segment.0);
    put_u64(&mut bytes, 16, at);
    bytes[24..].copy_from_slice(&head[..36]);
    crc32_iscsi(&bytes)
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// `bytes` reach at least 4 behind `at`: the callers have checked.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

/// As `u32_at`.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

#[cfg(test)]
mod tests;

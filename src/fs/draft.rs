//! The unsealed content of an open file: extents over its base, the bytes written since.
//!
//! Invariants:
//! - what a seal has named is never overwritten: bytes lie in the data file from `sealed` on, or in
//!   the buffer, until then they may be overwritten in place;
//! - up to `INLINE_MAX` bytes stay in memory (they will ride in the record of the seal); more, or
//!   more than all drafts together may keep, and all of them move to a data file;
//! - bytes go to their own offset in the data file while that lies behind all that was written to
//!   it, else to its end: so a file written in order can become a cache file as it is;
//! - before anything is changed, the log has promised room for the record of the seal: there is
//!   `ENOSPC` at a write, never at the close that follows.

use std::io;
use std::sync::Arc;

use crate::log::{DataFile, Need, Promise, Spool};
use crate::seeded::{self, Bug};
use crate::tree::Pin;
use crate::types::{Attrs, Base, Extent, Extents, FileNo, Source};

/// At most so many bytes of a file ride in its record.
pub(super) const INLINE_MAX: usize = 32 * 1024;

/// What the record of a seal takes beside extents and bytes: key, attributes, frame. All that comes
/// from S3 in them is bounded by it: a key by 1 KiB, metadata by 2 KiB.
const SEAL: u64 = 4096;
/// What an extent takes, beside the key and the tag of a version.
const EXTENT: u64 = 40;
/// For so many more extents room is asked for at once; one change makes at most three.
const EXTENTS_MORE: usize = 16;

/// A data file and how far it is written.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    pub(super) file: Arc<DataFile>,
    /// Behind all that was written.
    pub(super) end: u64,
    /// Before it, nothing is overwritten.
    pub(super) sealed: u64,
    /// Counts writes, and those that are flushed: only a flush that ended well makes bytes clean.
    pub(super) written: u64,
    pub(super) flushed: u64,
    /// The log was told whose bytes are in it.
    pub(super) is_noted: bool,
}

/// The draft.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) extents: Extents,
    pub(super) len: u64,
    pub(super) attrs: Attrs,
    pub(super) buffer: Vec<u8>,
    /// Counts changes, so that a seal knows whether more came while it flushed.
    pub(super) epoch: u64,
    /// The version it was built on.
    pub(super) base: Base,
    /// Keep the data files of the base and of what was copied in.
    pub(super) pins: Vec<Pin>,
    promise: Option<Promise>,
    /// How many extents it is good for, and what the largest takes.
    promised: (usize, u64),
}

impl Draft {
    pub(super) fn new(extents: Extents, len: u64, attrs: Attrs, base: Base) -> Self {
        Self {
            extents,
            len,
            attrs,
            buffer: Vec::new(),
            epoch: 0,
            base,
            pins: Vec::new(),
            promise: None,
            promised: (0, 0),
        }
    }

    /// Makes sure that there will be room for the seal, also after one more change that keeps
    /// `more` bytes in memory.
    pub(super) fn promise(&mut self, spool: &Spool, more: usize, need: Need) -> io::Result<()> {
        if seeded::is(Bug::FullAtClose) {
            return Ok(());
        }
        let count = self.extents.count();
        if count + 3 > self.promised.0 {
            let remote = |extent: &Extent| match &extent.from {
                Source::Remote { object, .. } => {
                    object.key.as_str().len() + object.etag.as_str().len()
                }
                Source::Local { .. } => 0,
            };
            let largest = self.extents.iter().map(remote).max().unwrap_or_default();
            self.promised = (count + EXTENTS_MORE, EXTENT + largest as u64);
        }
        let (extents, size) = self.promised;
        let bytes = SEAL + extents as u64 * size + (self.buffer.len() + more) as u64;
        match &mut self.promise {
            Some(promise) => promise.grow_to(bytes, need),
            none => {
                *none = Some(spool.promise(bytes, need)?);
                Ok(())
            }
        }
    }

    /// It was sealed, and more was written meanwhile.
    pub(super) fn is_sealed(&mut self) {
        if let Some(promise) = &mut self.promise {
            promise.is_kept();
        }
    }

    /// How many bytes it is long, if all of them lie in the data file at their own offsets.
    pub(super) fn in_order(&self, writer: &Writer) -> u64 {
        let mine = writer.file.number();
        let is_whole = |extent: &Extent| {
            let from = Source::Local {
                file: mine,
                offset: 0,
            };
            extent.at == 0 && extent.len == self.len && extent.from == from
        };
        let only = self
            .extents
            .iter()
            .next()
            .filter(|_| self.extents.count() == 1);
        only.filter(|extent| is_whole(extent))
            .map_or(0, |_| self.len)
    }

    /// Whether room for its seal was promised once.
    pub(super) fn is_promised(&self) -> bool {
        self.promise.is_some()
    }

    /// Whether `more` bytes may stay in memory: the device has allocated the room for their seal.
    fn may_keep(&mut self, spool: &Spool, more: usize) -> bool {
        self.buffer.len() + more <= INLINE_MAX
            && self.promise(spool, more, Need::Growth).is_ok()
            && self.promise.as_ref().is_some_and(Promise::is_allocated)
    }

    /// Writes. Blocking (page cache). `writer` is the open file's, made when it is needed.
    pub(super) fn write(
        &mut self,
        writer: &mut Option<Writer>,
        spool: &Spool,
        offset: u64,
        data: &[u8],
        may_inline: bool,
    ) -> io::Result<()> {
        self.promise(spool, 0, Need::Growth)?;
        let end = offset + data.len() as u64;
        if writer.is_none() && may_inline && self.may_keep(spool, data.len()) {
            self.epoch += 1;
            self.extents.put(Extent {
                at: offset,
                len: data.len() as u64,
                from: Source::Local {
                    file: FileNo::INLINE,
                    offset: self.buffer.len() as u64,
                },
            });
            self.buffer.extend_from_slice(data);
        } else {
            self.spill(writer, spool)?;
            let Some(writer) = writer else {
                return Err(io::ErrorKind::NotFound.into());
            };
            self.epoch += 1;
            self.write_to(writer, offset, data)?;
        }
        self.len = self.len.max(end);
        Ok(())
    }

    /// Bytes of the base that are in no file that stays.
    pub(super) fn keep_small(&mut self, at: u64, bytes: &[u8]) {
        self.extents.put(Extent {
            at,
            len: bytes.len() as u64,
            from: Source::Local {
                file: FileNo::INLINE,
                offset: self.buffer.len() as u64,
            },
        });
        self.buffer.extend_from_slice(bytes);
    }

    /// Makes the file `len` bytes long; new bytes are zeros.
    pub(super) fn truncate(&mut self, len: u64) {
        self.epoch += 1;
        self.extents.truncate(len);
        self.len = len;
    }

    /// Makes `start..end` zeros without changing the length.
    pub(super) fn punch(&mut self, start: u64, end: u64) {
        self.epoch += 1;
        self.extents.cut(start, end);
    }

    /// Lets `extents` (of another file, from 0 on) stand at `at`.
    pub(super) fn splice(&mut self, at: u64, len: u64, extents: &Extents) {
        self.epoch += 1;
        self.extents.splice(at, len, extents);
        self.len = self.len.max(at + len);
    }

    /// The bytes of the buffer that an inline extent names.
    pub(super) fn inline(&self, offset: u64, len: u64) -> &[u8] {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
        self.buffer.get(start..end).unwrap_or_default()
    }

    /// The extents and the bytes that go into the record, without what was overwritten since.
    pub(super) fn compacted(&self) -> (Extents, Vec<u8>) {
        let mut inline = Vec::new();
        let extents = self.extents.map(|extent| {
            let Source::Local {
                file: FileNo::INLINE,
                offset,
            } = extent.from
            else {
                return vec![extent.clone()];
            };
            let from = Source::Local {
                file: FileNo::INLINE,
                offset: inline.len() as u64,
            };
            inline.extend_from_slice(self.inline(offset, extent.len));
            vec![Extent {
                from,
                ..extent.clone()
            }]
        });
        (extents, inline)
    }

    /// Moves what is in memory to the data file.
    pub(super) fn spill(&mut self, writer: &mut Option<Writer>, spool: &Spool) -> io::Result<()> {
        let writer = match writer {
            Some(writer) => writer,
            None => {
                let file = Arc::new(spool.create()?);
                writer.insert(Writer {
                    file,
                    end: 0,
                    sealed: 0,
                    written: 0,
                    flushed: 0,
                    is_noted: false,
                })
            }
        };
        if self.buffer.is_empty() {
            return Ok(());
        }
        let (extents, bytes) = self.compacted();
        for extent in extents.iter() {
            if let Source::Local {
                file: FileNo::INLINE,
                offset,
            } = extent.from
            {
                let start = usize::try_from(offset).map_err(io::Error::other)?;
                let len = usize::try_from(extent.len).map_err(io::Error::other)?;
                self.write_to(writer, extent.at, &bytes[start..start + len])?;
            }
        }
        self.buffer = Vec::new();
        Ok(())
    }

    fn write_to(&mut self, writer: &mut Writer, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset + data.len() as u64;
        let mine = writer.file.number();
        let in_place: Vec<(u64, u64, u64)> = self
            .extents
            .cover(offset, end)
            .into_iter()
            .filter_map(|piece| match piece.ok()? {
                Extent {
                    at,
                    len,
                    from: Source::Local { file, offset },
                } if file == mine
                    && (offset >= writer.sealed || seeded::is(Bug::SealedBytesOverwritten)) =>
                {
                    Some((at, len, offset))
                }
                _ => None,
            })
            .collect();
        let mut at = offset;
        for (start, len, place) in in_place {
            self.append_to(writer, at, slice(data, offset, at, start))?;
            writer
                .file
                .write_at(slice(data, offset, start, start + len), place)?;
            writer.written += 1;
            at = start + len;
        }
        self.append_to(writer, at, slice(data, offset, at, end))
    }

    /// Bytes for a place where none can be overwritten.
    fn append_to(&mut self, writer: &mut Writer, at: u64, data: &[u8]) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let place = at.max(writer.end);
        writer.file.write_at(data, place)?;
        writer.written += 1;
        writer.end = place + data.len() as u64;
        let from = Source::Local {
            file: writer.file.number(),
            offset: place,
        };
        self.extents.put(Extent {
            at,
            len: data.len() as u64,
            from,
        });
        Ok(())
    }
}

/// `data` begins at `base`; the part of it from `start` to `end`.
fn slice(data: &[u8], base: u64, start: u64, end: u64) -> &[u8] {
    let index = |at: u64| usize::try_from(at - base).unwrap_or(usize::MAX);
    data.get(index(start)..index(end)).unwrap_or_default()
}

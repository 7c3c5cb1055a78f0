//! Reading the log back: the recovery rule of `frame.rs`, without a change to the disk.
//!
//! Invariant: what is handed on are exactly the records of valid frames before the torn tail, in
//! order, each with its inline data placed; everything else that is not zeros is handed on as
//! bytes to be kept. Reading twice gives the same.

use std::io;

use super::frame::{Found, Frame, Frames, HEADER, Header, NoHeader, Place, Salt, end_of};
use super::spool::{file_name, number_of};
use super::{LogError, Record, place};
use crate::disk::Dir;
use crate::seeded::{self, Bug};
use crate::types::{FileNo, MountId, Seq};

/// A blank one that is shorter was never finished.
const BLANK_MIN: usize = 4096;

/// What is in the log's folder.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Those that were begun, oldest first.
    pub(super) segments: Vec<FileNo>,
    /// Those made in advance, oldest first.
    pub(super) blank: Vec<FileNo>,
    /// Those made in advance and never finished.
    pub(super) unfinished: Vec<FileNo>,
    /// What the headers say about the spool.
    pub(super) identity: Option<(MountId, Salt)>,
    /// D of the recovery rule.
    durable: Seq,
    /// For frames of segments without a readable header.
    salt: Salt,
}

/// What is met while reading, in order.
#[derive(Debug)]
pub(super) enum Event<'a> {
    /// A record.
    Record(Seq, Record),
    /// Unreadable; it stays where it is.
    Damaged(Unreadable<'a>),
    /// Positions between these two are not there, and neither are bytes of them.
    Missing(Seq, Seq),
    /// The torn tail of a segment, to be cut off.
    Torn(Unreadable<'a>),
    /// A segment's end.
    End {
        segment: FileNo,
        /// It, up to behind its last byte of use.
        bytes: &'a [u8],
        /// Whether it holds anything but a header.
        is_used: bool,
        /// Whether it holds the last record known to be flushed, or one behind it.
        is_fresh: bool,
        /// Behind the highest position seen so far.
        end: Seq,
    },
}

/// Bytes to be kept.
#[derive(Debug)]
pub(super) struct Unreadable<'a> {
    pub(super) segment: FileNo,
    pub(super) at: u64,
    pub(super) bytes: &'a [u8],
}

impl Survey {
    /// Looks at every segment. `salt` as the binding has it, if it can be read.
    pub(super) fn of(log: &Dir, salt: Option<Salt>) -> Result<Self, LogError> {
        let mut found = Self::default();
        let mut numbers: Vec<_> = log.names()?.iter().filter_map(|n| number_of(n)).collect();
        numbers.sort();
        let mut headless = Vec::new();
        for number in numbers {
            let bytes = log.read(&file_name(number))?;
            match Header::decode(&bytes, number) {
                Ok(header) => {
                    found.identity = Some((header.mount, header.salt));
                    found.segments.push(number);
                    found.durable = found.durable.max(header.durable);
                    found.mark(&bytes, header.salt, number);
                }
                Err(NoHeader::Newer(version)) => return Err(LogError::Newer(version)),
                Err(NoHeader::Damaged) => {
                    found.segments.push(number);
                    headless.push(number);
                }
                Err(NoHeader::Blank) if bytes.len() < BLANK_MIN => found.unfinished.push(number),
                Err(NoHeader::Blank) => found.blank.push(number),
            }
        }
        let of_headers = found.identity.map(|(_, salt)| salt);
        found.salt = salt.or(of_headers).unwrap_or_default();
        for number in headless {
            let bytes = log.read(&file_name(number))?;
            found.mark(&bytes, found.salt, number);
        }
        // Order of number is order of time: one that was overtaken is never begun.
        let last = found.segments.last().map_or(FileNo::INLINE, |last| *last);
        let overtaken = found.blank.partition_point(|number| *number < last);
        found.unfinished.extend(found.blank.drain(..overtaken));
        Ok(found)
    }

    /// Learns from a segment's frames how far the log was durable.
    fn mark(&mut self, bytes: &[u8], salt: Salt, segment: FileNo) {
        for found in Frames::new(bytes, Place { salt, segment }) {
            if let Found::Frame(frame) = found {
                self.durable = self.durable.max(frame.durable);
            }
        }
    }

    fn place(&self, bytes: &[u8], segment: FileNo) -> Place {
        let salt = Header::decode(bytes, segment).map_or(self.salt, |header| header.salt);
        Place { salt, segment }
    }

    /// Reads all segments. Answers the last position that may have been given out.
    pub(super) fn walk(
        &self,
        log: &Dir,
        on: &mut dyn FnMut(Event<'_>) -> io::Result<()>,
    ) -> io::Result<Seq> {
        let mut walk = Walk {
            durable: self.durable,
            read: None,
            last: Seq(0),
            is_torn: false,
            is_behind_damage: false,
            on,
        };
        for number in &self.segments {
            let bytes = log.read(&file_name(*number))?;
            walk.segment(*number, &bytes, self.place(&bytes, *number))?;
        }
        Ok(walk.last)
    }
}

struct Walk<'a> {
    durable: Seq,
    /// The last position read; `None`: nobody knows where the log begins.
    read: Option<Seq>,
    /// The highest position seen, torn ones too.
    last: Seq,
    is_torn: bool,
    /// What is missing now lies in damage that was handed on.
    is_behind_damage: bool,
    on: &'a mut dyn FnMut(Event<'_>) -> io::Result<()>,
}

impl Walk<'_> {
    fn segment(&mut self, number: FileNo, bytes: &[u8], place: Place) -> io::Result<()> {
        let (mut len, mut is_used) = (HEADER.min(bytes.len()), false);
        let mut is_fresh = false;
        let mut begins = None;
        match Header::decode(bytes, number) {
            Ok(header) => {
                let before = Seq(header.first.0.saturating_sub(1));
                self.last = self.last.max(before);
                self.read.get_or_insert(before);
                begins = header.at_open.then_some(header.first);
            }
            Err(_) if self.is_torn => {}
            Err(_) => {
                is_used = true;
                self.damaged(number, &bytes[..len], 0)?;
            }
        }
        if self.is_torn {
            len = 0;
        }
        let mut frames = Frames::new(bytes, place);
        while let Some(found) = frames.next() {
            let (range, is_frame) = match &found {
                Found::Frame(frame) => (frame.at.clone(), Some(frame)),
                Found::Bad(range) => (range.clone(), None),
            };
            self.last = is_frame.map_or(self.last, |frame| self.last.max(frame.seq));
            if self.is_torn {
                continue;
            }
            let follows = is_frame.is_some_and(|frame| {
                begins == Some(frame.seq) || self.read.is_none_or(|read| frame.seq.0 == read.0 + 1)
            });
            let is_unflushed = self.read.is_some_and(|read| read >= self.durable);
            if !follows && is_unflushed && !seeded::is(Bug::TornTailAccepted) {
                self.is_torn = true;
                len = range.start;
                continue;
            }
            is_used = true;
            is_fresh |= is_frame.is_some_and(|frame| frame.seq >= self.durable);
            match is_frame {
                None => self.damaged(number, &bytes[range.clone()], range.start)?,
                Some(frame) => self.frame(number, bytes, frame, follows)?,
            }
            len = frames.at().min(bytes.len());
        }
        if self.is_torn {
            let end = end_of(bytes);
            if len < end {
                (self.on)(Event::Torn(Unreadable {
                    segment: number,
                    at: len as u64,
                    bytes: &bytes[len..end],
                }))?;
            }
        }
        (self.on)(Event::End {
            segment: number,
            bytes: &bytes[..len],
            is_used,
            is_fresh,
            end: Seq(self.last.0.saturating_add(1)),
        })
    }

    fn frame(
        &mut self,
        number: FileNo,
        bytes: &[u8],
        frame: &Frame,
        follows: bool,
    ) -> io::Result<()> {
        if let Some(read) = self.read
            && !follows
        {
            if frame.seq <= read {
                return self.damaged(number, &bytes[frame.at.clone()], frame.at.start);
            }
            if !self.is_behind_damage {
                (self.on)(Event::Missing(read, frame.seq))?;
            }
        }
        self.is_behind_damage = false;
        self.read = Some(frame.seq);
        match postcard::take_from_bytes::<Record>(&bytes[frame.record.clone()]) {
            Ok((record, [])) if place::fits(&record, frame.inline.len() as u64) => {
                let at = frame.inline.start as u64;
                (self.on)(Event::Record(frame.seq, place::placed(record, number, at)))
            }
            _ => self.damaged(number, &bytes[frame.at.clone()], frame.at.start),
        }
    }

    fn damaged(&mut self, segment: FileNo, bytes: &[u8], at: usize) -> io::Result<()> {
        self.is_behind_damage = true;
        (self.on)(Event::Damaged(Unreadable {
            segment,
            at: at as u64,
            bytes,
        }))
    }
}

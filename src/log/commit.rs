//! Append and flush: one writer at a time into the page cache, one flush for all who wait.
//!
//! Invariants:
//! - position order = order in the file: both are taken under the tail's lock;
//! - the lock is never held across a flush. What is made on a rotation was made in advance by the
//!   flusher; where it could not be, it is made without the lock and offered;
//! - a record is durable when the flusher says so: it notes the last position, flushes every
//!   segment begun before, and only then raises the mark;
//! - once a flush failed, or a half-written frame could not be wiped out, the log is dead: every
//!   later append and wait fails. What was durable before stays so.
//!
//! LOCK ORDER: tail, then the leaves of `spool::Shared`.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::frame::{HEADER, Header, Place, Salt, Unplaced};
use super::room::Need;
use super::segment::Segment;
use super::spool::Shared;
use super::{LogError, errno};
use crate::seeded::{self, Bug};
use crate::types::{FileNo, MountId, Seq};

/// At most so many positions are appended and not flushed; so many are skipped when the log is
/// opened, so that one that was given out and lost in a power cut is never given out again.
pub(super) const LEAD: u64 = 1 << 20;

/// How far the log is durable.
#[derive(Clone, Copy, Debug)]
struct Mark {
    durable: Seq,
    failed: Option<i32>,
}

/// What appenders and the flusher share.
#[derive(Debug)]
struct Writer {
    shared: Arc<Shared>,
    mount: MountId,
    salt: Salt,
    /// Held while a segment is made and offered, taken before `tail`: two at once would take the
    /// last of the room from each other, and one of them would find none.
    making: Mutex<()>,
    tail: Mutex<Tail>,
    mark: watch::Sender<Mark>,
}

#[derive(Debug)]
struct Tail {
    current: Arc<Segment>,
    /// Where the next frame goes.
    at: u64,
    last: Seq,
    spare: Option<Segment>,
    /// Full, not flushed yet; with their lengths.
    retired: Vec<(Arc<Segment>, u64)>,
    /// All before the current one, oldest first.
    closed: Vec<Closed>,
    failed: Option<i32>,
    /// That the next segment cannot be made in advance was said.
    is_told: bool,
}

/// A segment that nothing is appended to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Its number.
    pub number: FileNo,
    /// The first position behind it: all records in it have lower ones.
    pub end: Seq,
    /// Bytes.
    pub len: u64,
}

/// Where appending goes on after the log was read.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) mount: MountId,
    pub(super) salt: Salt,
    /// The first position to give out.
    pub(super) first: Seq,
    /// Segments with records, oldest first.
    pub(super) closed: Vec<Closed>,
    /// Blank segments found, oldest first.
    pub(super) blank: Vec<FileNo>,
}

/// The log's end.
#[derive(Debug)]
pub(super) struct Commit {
    writer: Arc<Writer>,
    nudge: Option<SyncSender<()>>,
    flusher: Option<JoinHandle<()>>,
}

impl Commit {
    /// Begins a segment (durably) and starts the flusher.
    pub(super) fn start(shared: &Arc<Shared>, start: Start) -> io::Result<Self> {
        let mut blank = start.blank.into_iter();
        let current = match blank.next() {
            Some(number) => Segment::reuse(shared, number)?,
            None => Segment::make(shared, HEADER as u64)?,
        };
        let spare = blank.next().map(|number| Segment::reuse(shared, number));
        let spare = spare.transpose()?;
        for number in blank {
            Segment::reuse(shared, number)?.discard(shared)?;
        }
        let last = Seq(start.first.0 - 1);
        current.begin(&Header {
            number: current.number,
            mount: start.mount,
            salt: start.salt,
            first: start.first,
            durable: last,
            at_open: true,
        })?;
        current.file.flush()?;
        shared.room.wrote(HEADER as u64);
        shared.segment_begins(current.number);
        let mark = Mark {
            durable: last,
            failed: None,
        };
        let writer = Arc::new(Writer {
            shared: Arc::clone(shared),
            mount: start.mount,
            salt: start.salt,
            making: Mutex::default(),
            tail: Mutex::new(Tail {
                current: Arc::new(current),
                at: HEADER as u64,
                last,
                spare,
                retired: Vec::new(),
                closed: start.closed,
                failed: None,
                is_told: false,
            }),
            mark: watch::Sender::new(mark),
        });
        writer.make_spare();
        let (nudge, nudged) = sync_channel(1);
        let flusher = std::thread::Builder::new()
            .name("log-flush".into())
            .spawn({
                let writer = Arc::clone(&writer);
                move || writer.run(&nudged)
            })?;
        Ok(Self {
            writer,
            nudge: Some(nudge),
            flusher: Some(flusher),
        })
    }

    /// Appends a frame. Answers its position, its segment, and where its inline data lies there.
    pub(super) fn append(
        &self,
        frame: Unplaced,
        need: Need,
    ) -> Result<(Seq, FileNo, u64), LogError> {
        let (room, len) = (&self.writer.shared.room, frame.len());
        room.reserve(len, need)?;
        let done = self.append_reserved(frame);
        room.release(len);
        done
    }

    fn append_reserved(&self, mut frame: Unplaced) -> Result<(Seq, FileNo, u64), LogError> {
        let mut tail = self.writer.lock()?;
        while !tail.current.fits(tail.at, frame.len()) {
            tail = self.next_segment(tail, frame.len())?;
        }
        let durable = self.writer.mark.borrow().durable;
        if tail.last.0 >= durable.0.saturating_add(LEAD) {
            self.nudge();
            return Err(LogError::Full);
        }
        let (at, seq) = (tail.at, Seq(tail.last.0 + 1));
        let segment = tail.current.number;
        let place = Place {
            salt: self.writer.salt,
            segment,
        };
        let bytes = frame.place(place, at, seq, durable);
        if let Err(error) = tail.current.file.write_all_at(bytes, at) {
            return Err(self.writer.wipe(&mut tail, frame.len(), &error));
        }
        self.writer.shared.room.wrote(frame.len());
        tail.last = seq;
        tail.at += frame.len();
        Ok((seq, segment, frame.inline_at(at)))
    }

    /// Begins a segment.
    #[cfg(test)]
    pub(super) fn rotate(&self) -> Result<FileNo, LogError> {
        let mut tail = self.writer.lock()?;
        let before = tail.current.number;
        while tail.current.number == before {
            tail = self.next_segment(tail, 0)?;
        }
        Ok(tail.current.number)
    }

    /// One step towards a current segment with room for a frame of `len` bytes: begins the spare
    /// one, or makes a spare one that is large enough.
    fn next_segment<'a>(
        &'a self,
        mut tail: MutexGuard<'a, Tail>,
        len: u64,
    ) -> Result<MutexGuard<'a, Tail>, LogError> {
        let (writer, is_enough) = (&*self.writer, |spare: &Segment| {
            spare.fits(HEADER as u64, len)
        });
        if let Some(spare) = tail.spare.take_if(|spare| is_enough(spare)) {
            writer.begin(&mut tail, spare)?;
            self.nudge();
            return Ok(tail);
        }
        drop(tail);
        let _one = writer.making.lock();
        let tail = writer.lock()?;
        if tail.spare.as_ref().is_some_and(is_enough) {
            return Ok(tail);
        }
        drop(tail);
        writer.offer(Segment::make(&writer.shared, HEADER as u64 + len)?)?;
        writer.lock()
    }

    /// Waits until all up to `seq` is durable.
    pub(super) async fn flushed(&self, seq: Seq) -> Result<(), LogError> {
        if seeded::is(Bug::AcknowledgedUnflushed) {
            return Ok(());
        }
        let mut mark = self.writer.mark.subscribe();
        if mark.borrow().durable < seq {
            self.nudge();
        }
        let reached = mark.wait_for(|mark| mark.durable >= seq || mark.failed.is_some());
        let mark = *reached.await.map_err(|_| LogError::Disk(libc::EIO))?;
        match mark.failed {
            Some(errno) if mark.durable < seq => Err(LogError::Disk(errno)),
            _ => Ok(()),
        }
    }

    /// Removes the segments before `segment`, oldest first and each durably before the next, so
    /// that after a power cut the log begins later and lacks nothing in between: a record whose
    /// change was settled by one that is gone would be carried out again.
    pub(super) fn drop_before(&self, segment: FileNo) -> Result<(), LogError> {
        let shared = &self.writer.shared;
        // Files removed since some record named them must not come back when it is gone.
        shared.folders.data.flush()?;
        let gone: Vec<_> = {
            let mut tail = self.writer.tail.lock();
            tail.retired.retain(|(old, _)| old.number >= segment);
            let kept = tail.closed.partition_point(|old| old.number < segment);
            tail.closed.drain(..kept).collect()
        };
        for (done, old) in gone.iter().enumerate() {
            let removed = shared
                .remove_segment(old.number)
                .and_then(|()| shared.folders.log.flush());
            if let Err(error) = removed {
                // Removing what is gone already is success: it is tried again.
                let left = gone[done..].iter().copied();
                self.writer.tail.lock().closed.splice(0..0, left);
                return Err(error.into());
            }
            shared.room.give(old.len);
        }
        Ok(())
    }

    /// All segments before the current one, oldest first.
    pub(super) fn closed(&self) -> Vec<Closed> {
        self.writer.tail.lock().closed.clone()
    }

    pub(super) fn size(&self) -> u64 {
        let tail = self.writer.tail.lock();
        tail.at + tail.closed.iter().map(|old| old.len).sum::<u64>()
    }

    /// A nudge that is waiting already stands for this one too.
    fn nudge(&self) {
        if let Some(nudge) = &self.nudge {
            let _is_waiting_already = nudge.try_send(());
        }
    }
}

/// Waits for the flush in progress, so that nothing of ours runs afterwards; begins none.
impl Drop for Commit {
    fn drop(&mut self) {
        drop(self.nudge.take());
        if let Some(flusher) = self.flusher.take()
            && flusher.join().is_err()
        {
            tracing::error!("the log's flusher panicked");
        }
        let is_clean = {
            let tail = self.writer.tail.lock();
            tail.failed.is_none() && tail.last <= self.writer.mark.borrow().durable
        };
        if is_clean {
            self.writer.shared.ends_clean();
        }
    }
}

impl Writer {
    /// The tail of a log that is not dead.
    fn lock(&self) -> Result<MutexGuard<'_, Tail>, LogError> {
        let tail = self.tail.lock();
        match tail.failed {
            Some(errno) => Err(LogError::Disk(errno)),
            None => Ok(tail),
        }
    }

    /// Makes `next` the current segment.
    fn begin(&self, tail: &mut Tail, next: Segment) -> Result<(), LogError> {
        let header = Header {
            number: next.number,
            mount: self.mount,
            salt: self.salt,
            first: Seq(tail.last.0 + 1),
            durable: self.mark.borrow().durable,
            at_open: false,
        };
        if let Err(error) = next.begin(&header) {
            next.discard(&self.shared)?;
            return Err(error.into());
        }
        self.shared.segment_begins(next.number);
        self.shared.room.wrote(HEADER as u64);
        let old = std::mem::replace(&mut tail.current, Arc::new(next));
        let len = std::mem::replace(&mut tail.at, HEADER as u64);
        self.shared.room.cut(old.capacity - len);
        tail.closed.push(Closed {
            number: old.number,
            end: Seq(tail.last.0 + 1),
            len,
        });
        tail.retired.push((old, len));
        Ok(())
    }

    /// Offers a new segment as the spare one. The smaller of two goes, and so does one with a
    /// number before the current one: order of number is order of time.
    fn offer(&self, made: Segment) -> io::Result<()> {
        let surplus = {
            let mut tail = self.tail.lock();
            let is_late = made.number < tail.current.number;
            let is_smaller = |spare: &Segment| spare.capacity >= made.capacity;
            if is_late || tail.spare.as_ref().is_some_and(is_smaller) {
                Some(made)
            } else {
                tail.spare.replace(made)
            }
        };
        surplus.map_or(Ok(()), |segment| segment.discard(&self.shared))
    }

    /// Nothing remains of a frame whose write failed, or the log is dead.
    fn wipe(&self, tail: &mut Tail, len: u64, error: &io::Error) -> LogError {
        let zeros = vec![0; usize::try_from(len).unwrap_or_default()];
        if !seeded::is(Bug::HalfRecordStays)
            && let Err(worse) = tail.current.file.write_all_at(&zeros, tail.at)
        {
            tracing::error!(%error, %worse, "a half-written record cannot be wiped out");
            self.fail(tail, errno(error));
        }
        LogError::of(error)
    }

    fn fail(&self, tail: &mut Tail, errno: i32) {
        let failed = *tail.failed.get_or_insert(errno);
        self.mark.send_modify(|mark| mark.failed = Some(failed));
    }

    /// The flusher: one round for each nudge, until nobody can nudge any more.
    fn run(&self, nudged: &Receiver<()>) {
        let _dead_if_it_panics = Dying(self);
        while nudged.recv().is_ok() {
            self.flush();
            self.make_spare();
        }
    }

    fn flush(&self) {
        let (last, retired, current) = {
            let mut tail = self.tail.lock();
            if tail.failed.is_some() || tail.last <= self.mark.borrow().durable {
                return;
            }
            let retired = std::mem::take(&mut tail.retired);
            (tail.last, retired, Arc::clone(&tail.current))
        };
        let done = retired
            .iter()
            .try_for_each(|(segment, len)| {
                segment.file.truncate(*len)?;
                segment.file.flush()
            })
            .and_then(|()| match seeded::is(Bug::LogFlushSkipped) {
                true => Ok(()),
                false => current.file.flush(),
            });
        match done {
            Err(error) if !seeded::is(Bug::FailedLogFlushIsDone) => {
                tracing::error!(%error, "the log cannot be flushed: nothing more is acknowledged");
                self.fail(&mut self.tail.lock(), errno(&error));
            }
            _ => self.mark.send_modify(|mark| mark.durable = last),
        }
    }

    /// Makes the next segment in advance. Where that fails, the append that needs it tries again
    /// and answers why.
    fn make_spare(&self) {
        let _one = self.making.lock();
        {
            let tail = self.tail.lock();
            if tail.spare.is_some() || tail.failed.is_some() {
                return;
            }
        }
        let made = Segment::make(&self.shared, HEADER as u64).and_then(|made| self.offer(made));
        let is_told = std::mem::replace(&mut self.tail.lock().is_told, made.is_err());
        if let Err(error) = made
            && !is_told
        {
            tracing::warn!(%error, "the next segment of the log cannot be made in advance");
        }
    }
}

/// Kills the log when the flusher ends by a panic, so that nobody waits for ever.
struct Dying<'a>(&'a Writer);

impl Drop for Dying<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&mut self.0.tail.lock(), libc::EIO);
        }
    }
}

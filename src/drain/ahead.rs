//! Parts of a file that is still being written: those behind the write position go up while it grows, so
//! that at its close only the last part and Complete are left.
//!
//! Invariants:
//! - nothing of it shows: an upload is completed only for a sealed generation (`parts`), whose every
//!   part holds the bytes that the generation has there. A part whose range was written again since,
//!   or lies elsewhere now, is sent again under its number;
//! - the upload is stamped with the number of the name's making, as the generation has none yet. So
//!   it becomes an *earlier* version, with the attributes of then, and those of the close follow by
//!   one copy of the object onto itself;
//! - who writes to a temporary name, or renames or removes what was being sent, wastes the parts: names
//!   that look temporary do not go early, and in a directory where that happened nothing does until
//!   the next start. So it costs the parts of one file (of those open at once) per directory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;

use super::fail::Fail;
use super::halves::Half;
use super::hands::{Hands, Progress};
use super::pieces::{MAX_PARTS, Piece};
use super::waits::dir_of;
use crate::store::{PartDone, StoreError, UploadId};
use crate::tree::{Pending, Stream};
use crate::types::{Attrs, Base, Extents, Generation, RelKey, Seq, Want};

/// Endings of names that programs write to before they rename.
const TEMPORARY: [&str; 11] = [
    "tmp",
    "temp",
    "part",
    "partial",
    "swp",
    "swx",
    "new",
    "crdownload",
    "download",
    "filepart",
    "incomplete",
];

/// Whether a name looks like one that will be renamed or removed: rsync's `.NAME.XXXXXX` and all
/// others that are hidden, `NAME~`, `#NAME#`, `NAME.tmp`.
pub(super) fn is_temporary(name: &str) -> bool {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    let ending = ending.to_ascii_lowercase();
    name.starts_with(['.', '#', '~']) || name.ends_with('~') || TEMPORARY.contains(&&*ending)
}

/// So many directories, and files, are remembered; then it is begun anew, which costs some parts.
const NOTES_MAX: usize = 1000;

fn note<T: Eq + std::hash::Hash>(notes: &Mutex<HashSet<T>>, what: T) {
    let mut notes = notes.lock();
    if notes.len() >= NOTES_MAX {
        notes.clear();
    }
    notes.insert(what);
}

impl Hands {
    /// Files that are being written and have a part to send, each with the number of its entry.
    pub(super) fn ahead(&self) -> Vec<(RelKey, Seq)> {
        let streams = self.tree.streams();
        let of = |stream: &Stream| {
            let (number, _) = self.open_entry(&stream.key)?;
            let name = stream.key.path().name()?;
            let is_spent = self.wasteful.lock().contains(dir_of(&stream.key))
                || self.spent.lock().contains(&stream.file);
            let may_begin = self.has_room_for_half() || self.is_begun(stream);
            (!is_temporary(name.as_str())
                && !is_spent
                && may_begin
                && self.next_part(stream).is_some())
            .then(|| (stream.key.clone(), number))
        };
        streams.iter().filter_map(of).collect()
    }

    fn is_begun(&self, stream: &Stream) -> bool {
        let halves = self.halves.lock();
        halves
            .get(&stream.key)
            .is_some_and(|half| half.is_of(stream))
    }

    /// The entry of a name that was made and never sealed.
    fn open_entry(&self, key: &RelKey) -> Option<(Seq, Pending)> {
        self.tree.pending(|all| {
            let entry = all.get(key)?;
            let is_open = matches!(entry.want, Want::Open { .. }) && entry.dead.is_none();
            is_open.then(|| (entry.number, entry.clone()))
        })
    }

    /// The end of the next part, if all of it is there and the file is clearly a large one.
    fn next_part(&self, stream: &Stream) -> Option<u64> {
        let halves = self.halves.lock();
        let half = halves.get(&stream.key).filter(|half| half.is_of(stream));
        let (start, part) = match half {
            Some(half) => (half.end(), half.part),
            None => (0, self.part_size(stream.full)),
        };
        drop(halves);
        let is_large = stream.full > self.config.multipart_threshold.saturating_add(part);
        (is_large && stream.full - start >= part).then(|| start + part)
    }

    /// Sends the parts that are there of a file that is being written.
    pub(super) async fn send_ahead(&self, key: &RelKey, number: Seq) -> Result<Progress, Fail> {
        let Some(stream) = self.tree.stream(key) else {
            return Ok(Progress::Settled);
        };
        let begun = self.halves.lock().remove(key);
        let mut half = match begun {
            Some(half) if half.is_of(&stream) => half,
            other => {
                if let Some(half) = other {
                    self.waste(&half).await;
                }
                match self.begin_ahead(&stream, number).await? {
                    Some(half) => half,
                    None => return Ok(Progress::Settled),
                }
            }
        };
        let done = self.parts_ahead(&mut half).await;
        match done {
            Ok(()) => {
                self.halves.lock().insert(key.clone(), half);
                Ok(Progress::Settled)
            }
            // It is not begun again: the parts would all be sent once more, maybe for nothing.
            Err(Fail::Store(StoreError::NoSuchUpload)) => {
                note(&self.spent, stream.file);
                self.waste(&half).await;
                Ok(Progress::Settled)
            }
            Err(fail) => {
                self.keep(key, half, &fail).await;
                Err(fail)
            }
        }
    }

    /// Begins an upload for a name that has no content yet. `None`: it has one now, or is gone.
    async fn begin_ahead(&self, stream: &Stream, number: Seq) -> Result<Option<Half>, Fail> {
        // A number that a power cut could take back must not be in anybody's stamp.
        self.log.flushed(number).await?;
        let entry = self.open_entry(&stream.key).filter(|(n, _)| *n == number);
        let Some((_, entry)) = entry else {
            return Ok(None);
        };
        let Want::Open { attrs, .. } = &entry.want else {
            return Ok(None);
        };
        let headers = self.dress(attrs, number, entry.base == Base::Absent);
        let part = self.part_size(stream.full);
        let object = (&stream.key).into();
        let upload = self.store.create_multipart(&object, &headers).await?;
        let half = Half {
            number,
            stamp: number,
            object,
            upload,
            part,
            pieces: Vec::new(),
            done: BTreeMap::new(),
            of: HashMap::new(),
            early: Some((stream.file, Arc::clone(&stream.early))),
            headers: Some(headers),
        };
        self.note_upload(&stream.key, &half).await?;
        Ok(Some(half))
    }

    async fn parts_ahead(&self, half: &mut Half) -> Result<(), Fail> {
        let Some(key) = RelKey::parse(half.object.as_str()) else {
            return Ok(());
        };
        let at_once = self.config.concurrency.max(1);
        let (mut running, mut arrived) = (FuturesUnordered::new(), Vec::new());
        let mut end = Ok(());
        let (upload, part) = (half.upload.clone(), half.part);
        loop {
            while end.is_ok() && running.len() < at_once {
                let stream = self.tree.stream(&key).filter(|stream| half.is_of(stream));
                let start = half.end();
                let is_there = |stream: &Stream| stream.full.saturating_sub(start) >= part;
                let Some(stream) = stream.filter(is_there) else {
                    break;
                };
                if half.pieces.len() + 1 >= MAX_PARTS {
                    break;
                }
                let piece = (start, start + part);
                half.pieces.push(Piece::Send {
                    start: piece.0,
                    end: piece.1,
                });
                let number = u16::try_from(half.pieces.len()).unwrap_or(u16::MAX);
                running.push(self.part_ahead(stream, upload.clone(), number, piece));
            }
            match running.next().await {
                Some(Ok(Some(part))) => arrived.push(part),
                Some(Ok(None)) => {}
                Some(Err(fail)) => end = Err(fail),
                None => break,
            }
        }
        drop(running);
        for (part, of) in arrived {
            half.of.insert(part.number, of);
            half.done.insert(part.number, part);
        }
        end
    }

    /// `None`: when its turn came, it was offered no more.
    async fn part_ahead(
        &self,
        stream: Stream,
        upload: UploadId,
        number: u16,
        (start, end): (u64, u64),
    ) -> Result<Option<(PartDone, Extents)>, Fail> {
        let _turn = self.lanes.turn(end - start).await;
        let now = self.tree.stream(&stream.key);
        if now.is_none_or(|now| now.file != stream.file) {
            return Ok(None);
        }
        let of = stream.extents().slice(start, end);
        let generation = Generation {
            extents: stream.extents(),
            len: stream.full,
            attrs: Attrs::default(),
        };
        let (payload, _fetched) = self.payload(&generation, start, end).await?;
        let object = (&stream.key).into();
        let part = self.store.upload_part(&object, &upload, number, &payload);
        let sent = self.lanes.carry(payload.len, part).await;
        if sent.is_err() {
            self.count_resent(payload.len);
        }
        Ok(Some((sent?, of)))
    }

    /// Aborts an upload of which nothing will be used. Where its file was sent before it was closed,
    /// its directory is one where that does not pay.
    pub(super) async fn waste(&self, half: &Half) {
        if half.early.is_some() && !half.done.is_empty() {
            let bytes = half.done.values().filter_map(|part| part.size).sum();
            self.count_resent(bytes);
            if let Some(key) = RelKey::parse(half.object.as_str()) {
                note(&self.wasteful, dir_of(&key).to_owned());
            }
        }
        self.abort(&half.object, &half.upload).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_will_be_renamed_or_removed_are_told_from_those_that_stay() {
        for name in [
            "a.tmp",
            "a.TMP",
            "a.part",
            "a~",
            ".a.swp",
            ".#a",
            ".a.jpg.x8Kd3A",
            "#a#",
            "~a",
            "video.mp4.crdownload",
        ] {
            assert!(is_temporary(name), "{name}");
        }
        for name in [
            "a",
            "a.jpg",
            "part",
            "tmp",
            "a.part.mp4",
            "2026-11-29T10.mp4",
        ] {
            assert!(!is_temporary(name), "{name}");
        }
    }
}

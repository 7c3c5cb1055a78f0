//! Files that are being written from the front to the end, and how far: what can be sent before they
//! are closed.
//!
//! Nothing of it is in the log: it is an offer, which ends with the seal (or with the writer). What was
//! sent by it is judged anew by whoever has a generation.

use std::sync::{Arc, Weak};

use crate::log::{DataFile, Early};
use crate::types::{Extent, Extents, FileNo, RelKey, Source};

use super::Tree;

/// A file that is being written.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Its name.
    pub key: RelKey,
    /// Where all of its bytes lie, at their own offsets.
    pub file: FileNo,
    /// All before it is there.
    pub full: u64,
    /// What of that was written again.
    pub early: Arc<Early>,
    writer: Weak<DataFile>,
}

impl Stream {
    /// The bytes that are offered.
    #[must_use]
    pub fn extents(&self) -> Extents {
        let mut extents = Extents::default();
        extents.put(Extent {
            at: 0,
            len: self.full,
            from: Source::Local {
                file: self.file,
                offset: 0,
            },
        });
        extents
    }
}

impl Tree {
    /// The first `full` bytes of `data`, which are the first of the file at `key`, can be sent.
    pub fn offer(&self, key: RelKey, data: &Arc<DataFile>, full: u64) {
        data.early().offer(full);
        let stream = Stream {
            key,
            file: data.number(),
            full,
            early: Arc::clone(data.early()),
            writer: Arc::downgrade(data),
        };
        let mut streams = self.streams.lock();
        streams.retain(|other| other.file != stream.file && other.writer.strong_count() > 0);
        streams.push(stream);
        drop(streams);
        self.awake();
    }

    /// What lies in `file` is offered no more: a generation names it.
    pub fn withdraw(&self, file: FileNo) {
        self.streams.lock().retain(|stream| stream.file != file);
    }

    /// What is offered now.
    #[must_use]
    pub fn streams(&self) -> Vec<Stream> {
        let mut streams = self.streams.lock();
        streams.retain(|stream| stream.writer.strong_count() > 0);
        streams.clone()
    }

    /// What is offered of the file at `key`.
    #[must_use]
    pub fn stream(&self, key: &RelKey) -> Option<Stream> {
        let streams = self.streams.lock();
        let alive = streams
            .iter()
            .filter(|stream| stream.writer.strong_count() > 0);
        alive.rev().find(|stream| stream.key == *key).cloned()
    }
}

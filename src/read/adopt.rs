//! What was written here and acknowledged enters the cache, so that it is not downloaded to be
//! read here.
//!
//! Three ways, the first that fits:
//! - the whole stands in one data file at its own offsets: that file, by hard link;
//! - much of it is another version's, at the same offsets (an append, an edit, a copy): that
//!   version's blocks change hands, or are shared if it lives on under another key; only blocks
//!   with new bytes in them are written;
//! - else block by block, from the spool and from what is cached.
//!
//! What cannot be kept is not cached; it is fetched when it is read.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::{LocalBytes, Reader, blocking, fill};
use crate::cache::{BLOCK, Cache, Hands};
use crate::types::{Extent, Extents, FileNo, ObjectId, Source};

impl Reader {
    /// What was just acknowledged as `object` enters the cache: a data file by hard link where its
    /// bytes stand at their own offsets, the base's blocks by changing hands, the rest by a copy.
    /// Never fails the caller: what cannot be kept is simply not cached.
    pub async fn adopt(&self, extents: &Extents, object: &ObjectId, size: u64) {
        let work = Adoption {
            local: Arc::clone(&self.local),
            cache: Arc::clone(&self.kept.cache),
            extents: extents.clone(),
            object: object.clone(),
            size,
        };
        if blocking(move || work.run()).await.is_err() {
            tracing::warn!("what was sent could not be adopted by the cache");
        }
    }
}

struct Adoption {
    local: Arc<dyn LocalBytes>,
    cache: Arc<Cache>,
    extents: Extents,
    object: ObjectId,
    size: u64,
}

impl Adoption {
    fn run(&self) {
        if let Some(file) = self.whole_file() {
            let path = self.local.path(file);
            if self.cache.adopt_file(&self.object, self.size, &path) {
                return;
            }
        }
        let base = self.base();
        let same = base.as_ref().map(|base| self.same_as(base));
        let same = same.unwrap_or_default();
        let held = base.as_ref().filter(|base| **base != self.object);
        let held = held.and_then(|base| {
            let is_replaced = base.key == self.object.key;
            // What moved within it is still to be read while blocks are written.
            let hands = if is_replaced && !self.moves(base) {
                Hands::Change
            } else {
                Hands::Share
            };
            let keep = |block| is_in(&same, block);
            self.cache
                .inherit(base, &self.object, self.size, hands, &keep)
        });
        let look = |object: &ObjectId, block| match (&held, &base) {
            (Some(held), Some(base)) if base == object => held.get(block),
            _ => self.cache.get(object, block),
        };
        let changed = self.changed(&same);
        let bytes: u64 = changed
            .iter()
            .map(|run| (run.end - run.start) * BLOCK)
            .sum();
        if bytes > self.cache.usage().1 {
            return;
        }
        for block in changed.into_iter().flatten() {
            let is_put = self
                .bytes_of(block, &look)
                .is_none_or(|bytes| self.cache.put(&self.object, self.size, block, &bytes));
            if !is_put {
                return;
            }
        }
    }

    /// The data file in which all bytes stand at their own offsets.
    fn whole_file(&self) -> Option<FileNo> {
        let pieces = self.extents.cover(0, self.size);
        match pieces.as_slice() {
            [
                Ok(Extent {
                    from: Source::Local { file, offset: 0 },
                    ..
                }),
            ] if *file != FileNo::INLINE => Some(*file),
            _ => None,
        }
    }

    /// The pieces that stand where they stand in a version.
    fn in_place(&self) -> impl Iterator<Item = (&ObjectId, Range<u64>)> {
        self.extents.iter().filter_map(|piece| match &piece.from {
            Source::Remote { object, offset } if *offset == piece.at => {
                Some((object, piece.at..piece.end().min(self.size)))
            }
            _ => None,
        })
    }

    /// The version that gives most bytes in place.
    fn base(&self) -> Option<ObjectId> {
        let mut bytes: HashMap<&ObjectId, u64> = HashMap::new();
        for (object, range) in self.in_place() {
            *bytes.entry(object).or_default() += range.end.saturating_sub(range.start);
        }
        let most = bytes.into_iter().max_by_key(|(_, bytes)| *bytes);
        most.map(|(object, _)| object.clone())
    }

    /// Whether bytes of a version stand elsewhere than they stood in it.
    fn moves(&self, base: &ObjectId) -> bool {
        self.extents.iter().any(|piece| {
            matches!(&piece.from, Source::Remote { object, offset }
                if object == base && *offset != piece.at)
        })
    }

    /// The blocks that hold bytes of `base` in place and nothing else, in runs.
    fn same_as(&self, base: &ObjectId) -> Vec<Range<u64>> {
        let in_place = self.in_place().filter(|(object, _)| *object == base);
        let runs = in_place.map(|(_, range)| {
            let end = if range.end == self.size {
                range.end.div_ceil(BLOCK)
            } else {
                range.end / BLOCK
            };
            range.start.div_ceil(BLOCK)..end
        });
        runs.filter(|run| !run.is_empty()).collect()
    }

    /// All other blocks, and the last one where it is cut otherwise than it was.
    fn changed(&self, same: &[Range<u64>]) -> Vec<Range<u64>> {
        let blocks = self.size.div_ceil(BLOCK);
        let mut changed = Vec::new();
        let mut at = 0;
        for run in same {
            if at < run.start {
                changed.push(at..run.start);
            }
            at = run.end;
        }
        if at < blocks {
            changed.push(at..blocks);
        }
        let last = blocks.saturating_sub(1)..blocks;
        let is_cut = !self.size.is_multiple_of(BLOCK) && is_in(same, last.start);
        if is_cut && !self.cache.missing(&self.object, last.clone()).is_empty() {
            changed.push(last);
        }
        changed
    }

    fn bytes_of(
        &self,
        block: u64,
        look: &dyn Fn(&ObjectId, u64) -> Option<Bytes>,
    ) -> Option<Bytes> {
        let (start, end) = (block * BLOCK, self.size.min((block + 1) * BLOCK));
        let pieces = self.extents.cover(start, end);
        let (bytes, missing) = fill(&*self.local, look, &pieces, start).ok()?;
        missing.is_empty().then(|| bytes.freeze())
    }
}

fn is_in(runs: &[Range<u64>], block: u64) -> bool {
    let after = runs.partition_point(|run| run.end <= block);
    runs.get(after).is_some_and(|run| run.contains(&block))
}

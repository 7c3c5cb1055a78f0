//! Where a file's bytes are: one value that reads, uploads, appends, copies and conflicts are all
//! read off.
//!
//! Invariants of `Extents`: sorted by `at`, disjoint, none empty, neighbours that continue each
//! other in the same source are one. A gap, and all behind the last extent, reads as zeros; how
//! long the file is stands beside it (`Generation::len`).

use serde::{Deserialize, Serialize};

use super::ObjectId;

/// A file of the spool: a data file or a segment of the log (a small file's bytes lie in its own
/// record). `INLINE` stands for the data that travels with the record that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileNo(pub u64);

impl FileNo {
    /// In a record to be appended: the bytes handed over beside it. The log puts its own segment
    /// and offset in its place, so this never stays in memory. In a draft: the draft's buffer.
    pub const INLINE: Self = Self(0);
}

/// Where a run of bytes is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// In the spool: bytes that are not known to be in S3.
    Local {
        /// The spool file.
        file: FileNo,
        /// Where in it.
        offset: u64,
    },
    /// In a version in the bucket, maybe also in the cache.
    Remote {
        /// Which version.
        object: ObjectId,
        /// Where in it.
        offset: u64,
    },
}

impl Source {
    fn advanced(&self, by: u64) -> Self {
        match self {
            Self::Local { file, offset } => Self::Local {
                file: *file,
                offset: offset + by,
            },
            Self::Remote { object, offset } => Self::Remote {
                object: object.clone(),
                offset: offset + by,
            },
        }
    }
}

/// `len` bytes of a file from `at` on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Where in the file.
    pub at: u64,
    /// How many bytes; never 0.
    pub len: u64,
    /// Where they are.
    pub from: Source,
}

impl Extent {
    /// The first byte behind it.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.at + self.len
    }

    /// The part of it inside `start..end`, if any.
    #[must_use]
    pub fn clipped(&self, start: u64, end: u64) -> Option<Self> {
        let (from, to) = (self.at.max(start), self.end().min(end));
        (from < to).then(|| Self {
            at: from,
            len: to - from,
            from: self.from.advanced(from - self.at),
        })
    }

    fn continues(&self, next: &Self) -> bool {
        self.end() == next.at && self.from.advanced(self.len) == next.from
    }
}

/// All of a file's extents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extents(Vec<Extent>);

impl Extents {
    /// A clean file: the whole of one version.
    #[must_use]
    pub fn whole(object: ObjectId, size: u64) -> Self {
        let mut all = Self::default();
        all.put(Extent {
            at: 0,
            len: size,
            from: Source::Remote { object, offset: 0 },
        });
        all
    }

    /// In order.
    pub fn iter(&self) -> std::slice::Iter<'_, Extent> {
        self.0.iter()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Puts `new` over what was there. An empty one changes nothing.
    pub fn put(&mut self, new: Extent) {
        if new.len == 0 {
            return;
        }
        let (start, end) = (new.at, new.end());
        self.cut(start, end);
        let at = self.0.partition_point(|old| old.at < start);
        self.0.insert(at, new);
        self.join_around(at);
    }

    /// Makes `start..end` a gap.
    pub fn cut(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let first = self.0.partition_point(|old| old.end() <= start);
        let last = self.0.partition_point(|old| old.at < end);
        if first >= last {
            return;
        }
        let head = self.0[first].clipped(0, start);
        let tail = self.0[last - 1].clipped(end, u64::MAX);
        self.0.splice(first..last, head.into_iter().chain(tail));
    }

    /// Drops all behind `len`.
    pub fn truncate(&mut self, len: u64) {
        self.cut(len, u64::MAX);
    }

    /// What lies in `start..end`, moved so that `start` is 0.
    #[must_use]
    pub fn slice(&self, start: u64, end: u64) -> Self {
        let first = self.0.partition_point(|old| old.end() <= start);
        let inside = self.0[first..]
            .iter()
            .map_while(|old| old.clipped(start, end));
        Self(
            inside
                .map(|piece| Extent {
                    at: piece.at - start,
                    ..piece
                })
                .collect(),
        )
    }

    /// Puts `len` bytes described by `other` (its gaps too) over `at..at + len`.
    pub fn splice(&mut self, at: u64, len: u64, other: &Self) {
        self.cut(at, at + len);
        for piece in other.iter().filter_map(|piece| piece.clipped(0, len)) {
            self.put(Extent {
                at: piece.at + at,
                ..piece
            });
        }
    }

    /// Covers `start..end` in order: extents clipped to it, and `Err(range)` for each gap.
    #[must_use]
    pub fn cover(&self, start: u64, end: u64) -> Vec<Result<Extent, std::ops::Range<u64>>> {
        let mut covered = Vec::new();
        let mut at = start;
        let first = self.0.partition_point(|old| old.end() <= start);
        for piece in self.0[first..]
            .iter()
            .map_while(|old| old.clipped(start, end))
        {
            if piece.at > at {
                covered.push(Err(at..piece.at));
            }
            at = piece.end();
            covered.push(Ok(piece));
        }
        if at < end {
            covered.push(Err(at..end));
        }
        covered
    }

    /// Replaces each extent by what `change` makes of it (same place, same length).
    #[must_use]
    pub fn map(&self, change: impl FnMut(&Extent) -> Vec<Extent>) -> Self {
        let mut all = Self::default();
        for piece in self.0.iter().flat_map(change) {
            all.put(piece);
        }
        all
    }

    /// The spool files they name, each once.
    #[must_use]
    pub fn files(&self) -> std::collections::BTreeSet<FileNo> {
        let local = self.0.iter().filter_map(|piece| match piece.from {
            Source::Local { file, .. } => Some(file),
            Source::Remote { .. } => None,
        });
        local.collect()
    }

    fn join_around(&mut self, at: usize) {
        for left in [at, at.wrapping_sub(1)] {
            if left != usize::MAX
                && left + 1 < self.0.len()
                && self.0[left].continues(&self.0[left + 1])
            {
                self.0[left].len += self.0[left + 1].len;
                self.0.remove(left + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn local(at: u64, len: u64, offset: u64) -> Extent {
        Extent {
            at,
            len,
            from: Source::Local {
                file: FileNo(1),
                offset,
            },
        }
    }

    /// The model: which source byte stands at each place of a file of 64 bytes.
    fn bytes(extents: &Extents) -> Vec<Option<u64>> {
        let mut all = vec![None; 64];
        for piece in extents.iter() {
            let Source::Local { offset, .. } = piece.from else {
                panic!("only local here")
            };
            for i in 0..piece.len {
                all[usize::try_from(piece.at + i).unwrap()] = Some(offset + i);
            }
        }
        all
    }

    fn is_well_formed(extents: &Extents) -> bool {
        let all: Vec<_> = extents.iter().collect();
        all.iter().all(|piece| piece.len > 0)
            && all
                .windows(2)
                .all(|w| w[0].end() <= w[1].at && !w[0].continues(w[1]))
    }

    #[test]
    fn an_append_continues_the_extent_before_it() {
        let mut extents = Extents::default();
        extents.put(local(0, 10, 0));
        extents.put(local(10, 5, 10));
        assert_eq!(extents.count(), 1);
    }

    #[test]
    fn cover_names_gaps_and_pieces_in_order() {
        let mut extents = Extents::default();
        extents.put(local(4, 4, 100));
        assert_eq!(
            extents.cover(0, 10),
            vec![Err(0..4), Ok(local(4, 4, 100)), Err(8..10)]
        );
        assert_eq!(extents.cover(5, 6), vec![Ok(local(5, 1, 101))]);
    }

    proptest! {
        #[test]
        fn any_sequence_of_puts_and_cuts_equals_the_byte_model(
            ops in prop::collection::vec((0u8..3, 0u64..40, 0u64..24, 0u64..1000), 0..30)
        ) {
            let mut extents = Extents::default();
            let mut model = vec![None; 64];
            for (op, at, len, offset) in ops {
                match op {
                    0 | 1 => {
                        extents.put(local(at, len, offset));
                        for i in 0..len {
                            model[usize::try_from(at + i).unwrap()] = Some(offset + i);
                        }
                    }
                    _ => {
                        extents.cut(at, at + len);
                        model[usize::try_from(at).unwrap()..usize::try_from(at + len).unwrap()]
                            .fill(None);
                    }
                }
                prop_assert!(is_well_formed(&extents));
                prop_assert_eq!(&bytes(&extents), &model);
            }
        }

        #[test]
        fn a_slice_spliced_back_changes_nothing(
            puts in prop::collection::vec((0u64..40, 1u64..24, 0u64..1000), 0..10),
            start in 0u64..64, len in 0u64..64
        ) {
            let mut extents = Extents::default();
            for (at, len, offset) in puts {
                extents.put(local(at, len, offset));
            }
            let before = extents.clone();
            let piece = extents.slice(start, start + len);
            extents.splice(start, len, &piece);
            prop_assert_eq!(bytes(&before), bytes(&extents));
            prop_assert!(is_well_formed(&extents));
        }
    }
}

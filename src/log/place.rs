//! Where a record's inline data is: the same on append and on replay.
//!
//! Invariant: on disk inline extents name `FileNo::INLINE` and an offset in the data beside the
//! record, so a record means the same wherever its frame lies; in memory they never do.

use std::sync::Arc;

use super::{Change, Record};
use crate::types::{Extent, Extents, FileNo, Source, Want};

/// Whether each inline extent lies in `len` bytes of inline data.
pub(super) fn fits(record: &Record, len: u64) -> bool {
    let mut inline = extents(record).flat_map(Extents::iter).filter_map(|piece| {
        let Source::Local { file, offset } = piece.from else {
            return None;
        };
        (file == FileNo::INLINE).then_some((offset, piece.len))
    });
    inline.all(|(offset, size)| offset.checked_add(size).is_some_and(|end| end <= len))
}

/// `record` with its inline extents in `segment`, where the inline data begins at `at`.
pub(super) fn placed(record: Record, segment: FileNo, at: u64) -> Record {
    let Record::Set(changes) = record else {
        return record;
    };
    Record::Set(
        changes
            .into_iter()
            .map(|change| placed_change(change, segment, at))
            .collect(),
    )
}

fn placed_change(mut change: Change, segment: FileNo, at: u64) -> Change {
    if let Want::Object(generation) = &mut change.want
        && generation.extents.files().contains(&FileNo::INLINE)
    {
        let placed = |piece: &Extent| {
            let mut piece = piece.clone();
            if let Source::Local { file, offset } = &mut piece.from
                && *file == FileNo::INLINE
            {
                *file = segment;
                *offset += at;
            }
            vec![piece]
        };
        let extents = generation.extents.map(placed);
        Arc::make_mut(generation).extents = extents;
    }
    change
}

/// The highest spool file a record names.
pub(super) fn highest_file(record: &Record) -> FileNo {
    let changes = match record {
        Record::Set(changes) => changes,
        Record::Draft { file, .. } => return *file,
        _ => return FileNo::INLINE,
    };
    let named = changes.iter().filter_map(|change| match &change.want {
        Want::Object(generation) => generation.extents.files().last().copied(),
        Want::Open { file, .. } => *file,
        Want::Gone => None,
    });
    named.max().unwrap_or(FileNo::INLINE)
}

fn extents(record: &Record) -> impl Iterator<Item = &Extents> {
    let changes: &[Change] = match record {
        Record::Set(changes) => changes,
        _ => &[],
    };
    changes.iter().filter_map(|change| match &change.want {
        Want::Object(generation) => Some(&generation.extents),
        Want::Open { .. } | Want::Gone => None,
    })
}

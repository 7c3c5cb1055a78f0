use proptest::prelude::*;

use super::*;
use crate::types::{Attrs, ETag, FileNo, ObjectKey};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// The name of a version is its size: what it is called tells how long it is.
fn version(key: &str, size: u64) -> ObjectId {
    ObjectId {
        key: ObjectKey::new(key),
        etag: ETag::new(&size.to_string()),
    }
}

fn size_of(version: &ObjectId) -> Option<u64> {
    version.etag.as_str().parse().ok()
}

fn from(at: u64, len: u64, object: &ObjectId, offset: u64) -> Extent {
    Extent {
        at,
        len,
        from: Source::Remote {
            object: object.clone(),
            offset,
        },
    }
}

fn local(at: u64, len: u64) -> Extent {
    Extent {
        at,
        len,
        from: Source::Local {
            file: FileNo(1),
            offset: at,
        },
    }
}

/// A generation for the key `k`, whose base is what the test says.
struct Case {
    generation: Generation,
    base: Base,
    is_local: bool,
    staged: bool,
    copies: bool,
}

fn case(extents: impl IntoIterator<Item = Extent>, len: u64) -> Case {
    let mut all = Extents::default();
    extents.into_iter().for_each(|piece| all.put(piece));
    Case {
        generation: Generation {
            extents: all,
            len,
            attrs: Attrs::default(),
        },
        base: Base::Absent,
        is_local: false,
        staged: false,
        copies: true,
    }
}

impl Case {
    fn over(mut self, version: &ObjectId) -> Self {
        self.base = Base::Version(version.etag.clone());
        self
    }

    fn cached(mut self) -> Self {
        self.is_local = true;
        self
    }

    fn shape(&self) -> Shape {
        let key = RelKey::parse("k").unwrap();
        let facts = Facts {
            key: &key,
            base: &self.base,
            size_of: &size_of,
            is_local: &|_, _| self.is_local,
            staged: self.staged,
            copies: self.copies,
        };
        let sizes = Sizes {
            part: 8 * MIB,
            threshold: 8 * MIB,
        };
        pieces(&self.generation, &facts, &sizes)
    }
}

fn copy(object: &ObjectId, range: Option<Range<u64>>) -> Piece {
    let all = 0..size_of(object).unwrap();
    let bytes = range.clone().unwrap_or(all);
    Piece::Copy {
        object: object.clone(),
        len: bytes.end - bytes.start,
        range,
    }
}

fn send(start: u64, end: u64) -> Piece {
    Piece::Send { start, end }
}

#[test]
fn a_file_up_to_the_threshold_is_one_put() {
    assert_eq!(case([], 0).shape(), Shape::Put);
    assert_eq!(case([local(0, 4 * KIB)], 4 * KIB).shape(), Shape::Put);
    assert_eq!(case([local(0, 8 * MIB)], 8 * MIB).shape(), Shape::Put);
    assert_eq!(case([local(5, 9)], MIB).shape(), Shape::Put);
}

#[test]
fn a_larger_file_goes_in_parts_the_last_of_which_may_be_short() {
    let shape = case([local(0, 17 * MIB)], 17 * MIB).shape();
    let parts = vec![
        send(0, 8 * MIB),
        send(8 * MIB, 16 * MIB),
        send(16 * MIB, 17 * MIB),
    ];
    assert_eq!(shape, Shape::Parts(parts));
}

#[test]
fn an_append_copies_what_is_there_and_sends_the_tail() {
    let base = version("k", 256 * MIB);
    let len = 256 * MIB + 4 * KIB;
    let extents = [from(0, 256 * MIB, &base, 0), local(256 * MIB, 4 * KIB)];
    let parts = vec![copy(&base, None), send(256 * MIB, len)];
    assert_eq!(case(extents, len).over(&base).shape(), Shape::Parts(parts));
}

#[test]
fn an_append_to_a_small_object_is_one_put() {
    let base = version("k", 100 * KIB);
    let extents = [from(0, 100 * KIB, &base, 0), local(100 * KIB, 4 * KIB)];
    assert_eq!(case(extents, 104 * KIB).over(&base).shape(), Shape::Put);
}

#[test]
fn changed_metadata_is_one_copy_of_the_object_onto_itself() {
    for size in [KIB, 256 * MIB] {
        let base = version("k", size);
        let shape = case([from(0, size, &base, 0)], size).over(&base).shape();
        assert_eq!(shape, Shape::CopySelf(base));
    }
}

#[test]
fn a_shortened_file_is_not_taken_for_one_with_changed_metadata() {
    let base = version("k", 20 * MIB);
    let shape = case([from(0, 10 * MIB, &base, 0)], 10 * MIB)
        .over(&base)
        .shape();
    let range = Some(0..10 * MIB);
    assert_eq!(shape, Shape::Parts(vec![copy(&base, range)]));
}

#[test]
fn a_moved_object_of_any_size_is_one_copied_part() {
    for size in [5 * KIB, 5 * MIB, 256 * MIB] {
        let source = version("from", size);
        let shape = case([from(0, size, &source, 0)], size).shape();
        assert_eq!(shape, Shape::Parts(vec![copy(&source, None)]));
    }
}

#[test]
fn a_tiny_moved_object_is_sent_again_if_its_bytes_are_here() {
    let source = version("from", 4 * KIB);
    let moved = case([from(0, 4 * KIB, &source, 0)], 4 * KIB);
    assert_eq!(moved.shape(), Shape::Parts(vec![copy(&source, None)]));
    assert_eq!(moved.cached().shape(), Shape::Put);
}

#[test]
fn what_must_be_staged_never_is_a_put_or_a_copy_onto_itself() {
    let source = version("from", 4 * KIB);
    let mut moved = case([from(0, 4 * KIB, &source, 0)], 4 * KIB).cached();
    moved.staged = true;
    assert_eq!(moved.shape(), Shape::Parts(vec![copy(&source, None)]));
    let mut mixed = case([from(0, KIB, &source, 0), local(KIB, 9)], KIB + 9);
    mixed.staged = true;
    assert_eq!(mixed.shape(), Shape::Parts(vec![send(0, KIB + 9)]));
}

#[test]
fn once_its_versions_are_gone_everything_is_sent() {
    let base = version("k", 256 * MIB);
    let mut edited = case([from(0, 256 * MIB, &base, 0)], 256 * MIB).over(&base);
    edited.copies = false;
    let Shape::Parts(parts) = edited.shape() else {
        panic!("in parts")
    };
    assert!(parts.iter().all(|part| matches!(part, Piece::Send { .. })));
}

#[test]
fn an_edit_in_the_middle_takes_five_mib_and_copies_the_rest() {
    let base = version("k", 256 * MIB);
    let extents = [from(0, 256 * MIB, &base, 0), local(100 * MIB, 4 * KIB)];
    let parts = vec![
        copy(&base, Some(0..100 * MIB)),
        send(100 * MIB, 105 * MIB),
        copy(&base, Some(105 * MIB..256 * MIB)),
    ];
    assert_eq!(
        case(extents, 256 * MIB).over(&base).shape(),
        Shape::Parts(parts)
    );
}

#[test]
fn ranges_of_small_versions_are_never_copied() {
    let source = version("from", 5 * MIB);
    let extents = [local(0, 9 * MIB), from(9 * MIB, MIB, &source, MIB)];
    let parts = vec![send(0, 5 * MIB), send(5 * MIB, 10 * MIB)];
    assert_eq!(case(extents, 10 * MIB).shape(), Shape::Parts(parts));
}

#[test]
fn a_huge_object_is_copied_in_parts_that_one_request_can_carry() {
    let source = version("from", 10 * GIB + 1);
    let shape = case([from(0, 10 * GIB + 1, &source, 0)], 10 * GIB + 1).shape();
    let Shape::Parts(parts) = shape else {
        panic!("in parts")
    };
    assert_eq!(parts.len(), 11);
}

#[test]
fn ten_thousand_parts_hold_the_largest_file() {
    let len = 1024 * GIB;
    let Shape::Parts(parts) = case([local(0, len)], len).shape() else {
        panic!("in parts")
    };
    assert!(parts.len() <= MAX_PARTS);
    assert_legal(&parts, &case([local(0, len)], len).generation);
}

/// S3's rules, and that the pieces are the file.
fn assert_legal(parts: &[Piece], generation: &Generation) {
    assert!(!parts.is_empty() && parts.len() <= MAX_PARTS);
    let mut at = 0;
    for (i, part) in parts.iter().enumerate() {
        let len = match part {
            Piece::Send { start, end } => {
                assert_eq!(*start, at, "a gap or an overlap");
                end - start
            }
            Piece::Copy { object, range, len } => {
                let size = size_of(object).unwrap();
                let bytes = range.clone().unwrap_or(0..size);
                assert!(range.is_none() || size > MIN_PART, "range of a small one");
                assert!(bytes.end <= size);
                assert_eq!(*len, bytes.end - bytes.start);
                let len = *len;
                let copied = generation.extents.slice(at, at + len);
                let copied: Vec<_> = copied.iter().cloned().collect();
                assert_eq!(copied, [from(0, len, object, bytes.start)]);
                len
            }
        };
        assert!(len > 0 && len <= MAX_PART);
        assert!(len >= MIN_PART || i + 1 == parts.len(), "part {i}: {len}");
        at += len;
    }
    assert_eq!(at, generation.len);
}

fn some_extent() -> impl Strategy<Value = Extent> {
    let size = prop_oneof![
        Just(KIB),
        Just(5 * MIB),
        Just(5 * MIB + 1),
        Just(40 * MIB),
        Just(3 * GIB)
    ];
    let place = (0u64..60 * MIB, 1u64..30 * MIB, any::<bool>(), any::<bool>());
    (place, size, any::<u64>()).prop_map(|((at, len, is_local, is_whole), size, offset)| {
        if is_local {
            return local(at, if is_whole { len } else { len % (9 * KIB) + 1 });
        }
        let object = version("from", size);
        if is_whole {
            return from(at, size.min(80 * MIB), &object, 0);
        }
        let offset = offset % size;
        from(at, len.min(size - offset), &object, offset)
    })
}

proptest! {
    #[test]
    fn the_pieces_of_any_content_cover_it_once_and_keep_s3s_rules(
        extents in prop::collection::vec(some_extent(), 0..8),
        len in 1u64..100 * MIB, is_local: bool, staged: bool, copies: bool
    ) {
        let mut case = case(extents, 0);
        case.generation.extents.truncate(len);
        case.generation.len = len;
        (case.is_local, case.staged, case.copies) = (is_local, staged, copies);
        match case.shape() {
            Shape::Put => prop_assert!(len <= 8 * MIB && !staged),
            Shape::Parts(parts) => assert_legal(&parts, &case.generation),
            Shape::CopySelf(_) => prop_assert!(false, "nothing is at this key"),
        }
    }

    #[test]
    fn one_part_never_has_many_bytes_that_must_be_fetched_into_memory(
        extents in prop::collection::vec(some_extent(), 0..8), len in 1u64..100 * MIB
    ) {
        let mut case = case(extents, 0);
        case.generation.extents.truncate(len);
        case.generation.len = len;
        if let Shape::Parts(parts) = case.shape() {
            for part in parts {
                if let Piece::Send { start, end } = part {
                    let part = case.generation.extents.slice(start, end);
                    let fetched = part.iter().filter(|piece| matches!(piece.from, Source::Remote { .. }));
                    let fetched: u64 = fetched.map(|piece| piece.len).sum();
                    prop_assert!(fetched < 2 * MIN_PART);
                }
            }
        }
    }
}

//! A generation as requests: a pure function.
//!
//! Invariants of `Shape::Parts`: the pieces cover the file once, in order; each but the last is
//! at least 5 MiB, none over 5 GiB, at most 10,000; a range is copied only from a version of more
//! than 5 MiB; what S3 holds already is copied where these rules allow it.

use std::collections::VecDeque;
use std::ops::Range;

use crate::types::{Base, Extent, Extents, Generation, ObjectId, RelKey, Source};

/// S3: the smallest part but the last; ranges are copied from larger versions only.
pub(super) const MIN_PART: u64 = 5 << 20;
/// S3: the largest part, and the largest CopyObject.
const MAX_PART: u64 = 5 << 30;
/// S3: parts in one upload.
pub(super) const MAX_PARTS: usize = 10_000;
/// The largest copied part: a larger one may take longer than one request should.
const MAX_COPY: u64 = 1 << 30;
/// Sending so many bytes again is cheaper than the requests around a copied part.
const CHEAP: u64 = 4096;

/// What is known beside the generation.
pub(super) struct Facts<'a> {
    /// Where it goes.
    pub(super) key: &'a RelKey,
    /// What is there.
    pub(super) base: &'a Base,
    /// How long a version is, if known.
    pub(super) size_of: &'a dyn Fn(&ObjectId) -> Option<u64>,
    /// Whether a range of the generation can be read without the network.
    pub(super) is_local: &'a dyn Fn(u64, u64) -> bool,
    /// It must be possible to stop before it shows.
    pub(super) staged: bool,
    /// The versions it names can be copied from (not once one was found gone).
    pub(super) copies: bool,
}

/// How large requests are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Of a part, as long as 10,000 of them hold the file.
    pub(super) part: u64,
    /// What is longer goes in parts.
    pub(super) threshold: u64,
}

/// One part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// UploadPartCopy.
    Copy {
        /// From which version.
        object: ObjectId,
        /// Which bytes of it; `None`: all.
        range: Option<Range<u64>>,
        /// How many bytes that are.
        len: u64,
    },
    /// UploadPart.
    Send {
        /// Where in the file.
        start: u64,
        /// The first byte behind it.
        end: u64,
    },
}

impl Piece {
    /// Which bytes of the file it is, where it begins at `at`, which moves behind it.
    pub(super) fn range(&self, at: &mut u64) -> Range<u64> {
        let len = match self {
            Self::Copy { len, .. } => *len,
            Self::Send { start, end } => end - start,
        };
        let start = *at;
        *at += len;
        start..*at
    }
}

/// The requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One PUT of the whole.
    Put,
    /// Only metadata changed: CopyObject of this version onto itself.
    CopySelf(ObjectId),
    /// A multipart upload.
    Parts(Vec<Piece>),
}

/// The version that this is the whole of, if it is one's.
pub(super) fn whole_of(
    generation: &Generation,
    size_of: &dyn Fn(&ObjectId) -> Option<u64>,
) -> Option<ObjectId> {
    let object = candidate(generation)?;
    (size_of(object) == Some(generation.len)).then(|| object.clone())
}

/// As `whole_of`, where the version may still be longer.
pub(super) fn candidate(generation: &Generation) -> Option<&ObjectId> {
    let only = generation.extents.iter().next()?;
    match &only.from {
        Source::Remote { object, offset: 0 } if only.at == 0 && only.len == generation.len => {
            Some(object)
        }
        _ => None,
    }
}

/// The requests that make `generation`.
pub(super) fn pieces(generation: &Generation, facts: &Facts<'_>, sizes: &Sizes) -> Shape {
    let len = generation.len;
    if len == 0 {
        return Shape::Put;
    }
    if let Some(object) = itself(generation, facts) {
        return Shape::CopySelf(object);
    }
    let parts = parts(generation, facts, sizes);
    if facts.staged || len > sizes.threshold {
        return Shape::Parts(parts);
    }
    let copied: u64 = runs(generation, facts, MIN_PART)
        .iter()
        .map(Run::copied)
        .sum();
    let has_copy = parts.iter().any(|part| matches!(part, Piece::Copy { .. }));
    if !has_copy || (copied <= CHEAP && (facts.is_local)(0, len)) {
        Shape::Put
    } else {
        Shape::Parts(parts)
    }
}

fn itself(generation: &Generation, facts: &Facts<'_>) -> Option<ObjectId> {
    let object = whole_of(generation, facts.size_of)?;
    let is_base = matches!(facts.base, Base::Version(etag) if *etag == object.etag)
        && object.key.as_str() == facts.key.as_str();
    (is_base && facts.copies && !facts.staged && generation.len <= MAX_PART).then_some(object)
}

fn parts(generation: &Generation, facts: &Facts<'_>, sizes: &Sizes) -> Vec<Piece> {
    let (mut min, mut part) = (MIN_PART, sizes.part.clamp(MIN_PART, MAX_PART / 2));
    loop {
        let widened = widen(runs(generation, facts, min), facts, min);
        let parts = cut(&widened, part, min);
        if parts.len() <= MAX_PARTS || min > generation.len {
            return parts;
        }
        min *= 2;
        part = part.max(min).saturating_mul(2).min(MAX_PART / 2);
    }
}

/// A stretch of the file that is copied from one version, or sent.
#[derive(Clone, Debug)]
enum Run {
    Copy {
        at: u64,
        len: u64,
        object: ObjectId,
        offset: u64,
        /// A part of it can be copied too.
        divisible: bool,
        /// Of the version, if known.
        size: Option<u64>,
    },
    Send {
        at: u64,
        len: u64,
        /// Some of it must be read from a version: into memory, so a part of it is small.
        mixed: bool,
    },
}

impl Run {
    fn copied(&self) -> u64 {
        match self {
            Self::Copy { len, .. } => *len,
            Self::Send { .. } => 0,
        }
    }
}

fn runs(generation: &Generation, facts: &Facts<'_>, min: u64) -> Vec<Run> {
    let mut runs = Vec::new();
    for covered in generation.extents.cover(0, generation.len) {
        match covered {
            Ok(piece) => match copy_of(&piece, generation.len, facts, min) {
                Some(run) => runs.push(run),
                None => {
                    let mixed = matches!(piece.from, Source::Remote { .. });
                    push_send(&mut runs, piece.at, piece.len, mixed);
                }
            },
            Err(gap) => push_send(&mut runs, gap.start, gap.end - gap.start, false),
        }
    }
    runs
}

fn copy_of(piece: &Extent, file: u64, facts: &Facts<'_>, min: u64) -> Option<Run> {
    let Source::Remote { object, offset } = &piece.from else {
        return None;
    };
    let size = (facts.size_of)(object);
    let divisible = size.unwrap_or(offset + piece.len) > MIN_PART;
    let is_whole = *offset == 0 && size == Some(piece.len);
    let is_last = piece.end() == file;
    let is_long = piece.len >= min || (is_last && (piece.at == 0 || piece.len > CHEAP));
    (facts.copies && is_long && (divisible || is_whole)).then(|| Run::Copy {
        at: piece.at,
        len: piece.len,
        object: object.clone(),
        offset: *offset,
        divisible,
        size,
    })
}

fn push_send(runs: &mut Vec<Run>, at: u64, len: u64, mixed: bool) {
    if let Some(Run::Send {
        len: before,
        mixed: old,
        ..
    }) = runs.last_mut()
    {
        *before += len;
        *old |= mixed;
    } else {
        runs.push(Run::Send { at, len, mixed });
    }
}

/// Makes every stretch that is sent, but the last, at least `min` long: it takes in bytes of the
/// copied one behind it or before it.
fn widen(runs: Vec<Run>, facts: &Facts<'_>, min: u64) -> Vec<Run> {
    let mut todo = VecDeque::from(runs);
    let mut done: Vec<Run> = Vec::new();
    while let Some(run) = todo.pop_front() {
        let Run::Send { at, len, mixed } = run else {
            done.push(run);
            continue;
        };
        push_send(&mut done, at, len, mixed);
        let Some(Run::Send { at, len, .. }) = done.last().cloned() else {
            continue;
        };
        if todo.is_empty() || len >= min {
            continue;
        }
        let need = min - len;
        let behind = can_give(todo.front(), need, min, todo.len() == 1);
        let before = done.len() >= 2 && can_give(done.get(done.len() - 2), need, min, false);
        let is_near = before && (facts.is_local)(at - need, at);
        if before && (!behind || (is_near && !(facts.is_local)(at + len, at + len + need))) {
            take_before(&mut done, need);
        } else {
            let take = if behind { need } else { u64::MAX };
            take_behind(&mut done, &mut todo, take);
        }
    }
    done
}

/// Whether a copied stretch stays a legal one (the file's last may be short) without `need` bytes.
fn can_give(run: Option<&Run>, need: u64, min: u64, is_last: bool) -> bool {
    match run {
        Some(Run::Copy { len, divisible, .. }) => {
            let rest = len.saturating_sub(need);
            *divisible && (rest >= min || (is_last && rest > 0))
        }
        _ => false,
    }
}

fn take_before(done: &mut [Run], need: u64) {
    if let [
        ..,
        Run::Copy { len: given, .. },
        Run::Send { at, len, mixed },
    ] = done
    {
        *given -= need;
        *at -= need;
        *len += need;
        *mixed = true;
    }
}

fn take_behind(done: &mut Vec<Run>, todo: &mut VecDeque<Run>, most: u64) {
    match todo.front_mut() {
        Some(Run::Copy {
            at, len, offset, ..
        }) if *len > most => {
            push_send(done, *at, most, true);
            *at += most;
            *offset += most;
            *len -= most;
        }
        Some(Run::Copy { at, len, .. }) => {
            // The whole of it; as a stretch to be sent it comes by again, and may need more.
            let run = Run::Send {
                at: *at,
                len: *len,
                mixed: true,
            };
            todo.pop_front();
            todo.push_front(run);
        }
        Some(Run::Send { .. }) | None => {}
    }
}

fn cut(runs: &[Run], part: u64, min: u64) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let is_last = i + 1 == runs.len();
        match run {
            Run::Copy {
                len,
                object,
                offset,
                size,
                ..
            } => {
                let parts = len.div_ceil(MAX_COPY);
                let is_whole = parts == 1 && *size == Some(*len);
                for k in 0..parts {
                    let range = offset + len * k / parts..offset + len * (k + 1) / parts;
                    pieces.push(Piece::Copy {
                        object: object.clone(),
                        len: range.end - range.start,
                        range: (!is_whole).then_some(range),
                    });
                }
            }
            Run::Send { at, len, mixed } => {
                let size = if *mixed { min } else { part.max(min) };
                let (mut start, end) = (*at, at + len);
                while start < end {
                    let next = start.saturating_add(size).min(end);
                    let is_short = !is_last && end - next < min;
                    let next = if is_short { end } else { next };
                    pieces.push(Piece::Send { start, end: next });
                    start = next;
                }
            }
        }
    }
    pieces
}

/// Whether two contents name some of the same bytes of the spool.
pub(super) fn share(one: &Extents, other: &Extents) -> bool {
    let files = other.files();
    one.files().iter().any(|file| files.contains(file))
}

#[cfg(test)]
mod tests;

//! Where bytes are since they were sent: what names their old place is told the new one.
//!
//! A generation that S3 acknowledged moves bytes: from the spool into a version, and from the
//! version it replaced (an append, an edit) into the new one. Whoever else names the old place, a
//! newer generation of the same key, a copy, a draft that is sealed later, finds them here.
//!
//! Invariant: what is answered for a place holds the same bytes as that place did.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::types::{Extent, Extents, FileNo, Generation, ObjectId, RelKey, Seq, Source};

use super::fold::SHARED_MIN;

/// S3 copies ranges of larger versions only.
const COPIED_FROM: u64 = 5 << 20;

/// So many replaced versions are remembered for drafts built on them.
const REPLACED_MAX: usize = 1024;

/// The places.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// A data file's bytes, by offset in it, while a draft or an entry may still name them.
    sent: HashMap<FileNo, Extents>,
    /// A replaced version's bytes, by offset in it.
    replaced: HashMap<ObjectId, Extents>,
    /// Those, oldest first.
    order: VecDeque<ObjectId>,
    /// Generations that a request was sent for and that may since have been superseded.
    begun: HashMap<RelKey, BTreeMap<Seq, Arc<Generation>>>,
}

/// The old places that bytes were moved from.
#[derive(Debug, Default)]
pub(super) struct Moved {
    pub(super) files: BTreeSet<FileNo>,
    pub(super) versions: HashSet<ObjectId>,
}

impl Moved {
    /// Whether `extents` names one of them.
    pub(super) fn concerns(&self, extents: &Extents) -> bool {
        extents.iter().any(|piece| match &piece.from {
            Source::Local { file, .. } => self.files.contains(file),
            Source::Remote { object, .. } => self.versions.contains(object),
        })
    }
}

impl Sources {
    /// A request that may publish `generation` was sent.
    pub(super) fn begin(&mut self, key: &RelKey, number: Seq, generation: &Arc<Generation>) {
        let begun = self.begun.entry(key.clone()).or_default();
        begun.insert(number, Arc::clone(generation));
    }

    /// The generation a request was sent for.
    pub(super) fn begun(&self, key: &RelKey, number: Seq) -> Option<Arc<Generation>> {
        self.begun.get(key)?.get(&number).cloned()
    }

    /// No answer for `number` or before it is to come any more.
    pub(super) fn end(&mut self, key: &RelKey, number: Seq) {
        if let Some(begun) = self.begun.get_mut(key) {
            begun.retain(|other, _| *other > number);
            if begun.is_empty() {
                self.begun.remove(key);
            }
        }
    }

    /// `generation` became `id`. `may_go`: the versions of other keys that may be gone now or soon.
    pub(super) fn learn(
        &mut self,
        generation: &Generation,
        id: &ObjectId,
        may_go: &dyn Fn(&ObjectId) -> bool,
    ) -> Moved {
        let mut moved = Moved::default();
        let mut fresh: HashMap<ObjectId, Extents> = HashMap::new();
        // Then also short pieces need not be sent again: the tail of a log, while it is appended to.
        let is_copied_from = generation.len > COPIED_FROM;
        for piece in generation.extents.iter() {
            let there = |at| Extent {
                at,
                len: piece.len,
                from: Source::Remote {
                    object: id.clone(),
                    offset: piece.at,
                },
            };
            match &piece.from {
                Source::Local { file, offset } if piece.len >= SHARED_MIN || is_copied_from => {
                    self.sent.entry(*file).or_default().put(there(*offset));
                    moved.files.insert(*file);
                }
                Source::Remote { object, offset }
                    if object != id && (object.key == id.key || may_go(object)) =>
                {
                    let places = fresh.entry(object.clone()).or_default();
                    places.put(there(*offset));
                }
                Source::Local { .. } | Source::Remote { .. } => {}
            }
        }
        if !fresh.is_empty() {
            // What was moved into a version that is now replaced moves on.
            let known = self.sent.values_mut().chain(self.replaced.values_mut());
            for places in known {
                *places = places.map(|piece| renamed(piece, &|from| fresh_place(&fresh, from)));
            }
        }
        for (version, places) in fresh {
            moved.versions.insert(version.clone());
            self.replace(version, &places);
        }
        moved
    }

    fn replace(&mut self, version: ObjectId, places: &Extents) {
        if !self.replaced.contains_key(&version) {
            self.order.push_back(version.clone());
        }
        let known = self.replaced.entry(version).or_default();
        for piece in places.iter() {
            known.put(piece.clone());
        }
        while self.order.len() > REPLACED_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.replaced.remove(&oldest);
            }
        }
    }

    /// `generation`, with what was moved named by its new place. `is_there`: a version that is at
    /// its key now, so named rightly: the same bytes, written again, are the same version.
    pub(super) fn renamed(
        &self,
        generation: &Generation,
        is_there: &dyn Fn(&ObjectId) -> bool,
    ) -> Generation {
        let place = |from: &Source| match from {
            Source::Remote { object, .. } if is_there(object) => None,
            Source::Local { file, offset } => self.sent.get(file).map(|all| (all, *offset)),
            Source::Remote { object, offset } => {
                self.replaced.get(object).map(|all| (all, *offset))
            }
        };
        Generation {
            extents: generation.extents.map(|piece| renamed(piece, &place)),
            ..generation.clone()
        }
    }

    /// `extents`, with pieces of replaced versions named by their new place; those of the spool
    /// stay. `is_there`: as in `renamed`.
    pub(super) fn led(&self, extents: &Extents, is_there: &dyn Fn(&ObjectId) -> bool) -> Extents {
        let place = |from: &Source| match from {
            Source::Remote { object, offset } if !is_there(object) => {
                self.replaced.get(object).map(|all| (all, *offset))
            }
            Source::Remote { .. } | Source::Local { .. } => None,
        };
        extents.map(|piece| renamed(piece, &place))
    }

    /// Nobody names a data file any more.
    pub(super) fn forget(&mut self, file: FileNo) {
        self.sent.remove(&file);
    }
}

fn fresh_place<'a>(
    fresh: &'a HashMap<ObjectId, Extents>,
    from: &Source,
) -> Option<(&'a Extents, u64)> {
    match from {
        Source::Remote { object, offset } => fresh.get(object).map(|all| (all, *offset)),
        Source::Local { .. } => None,
    }
}

/// The pieces of `piece`: what `place` knows of it, the rest as it was.
fn renamed<'a>(
    piece: &Extent,
    place: &dyn Fn(&Source) -> Option<(&'a Extents, u64)>,
) -> Vec<Extent> {
    let Some((places, offset)) = place(&piece.from) else {
        return vec![piece.clone()];
    };
    let mut pieces = Extents::default();
    pieces.put(piece.clone());
    for known in places.slice(offset, offset + piece.len).iter() {
        pieces.put(Extent {
            at: piece.at + known.at,
            ..known.clone()
        });
    }
    pieces.iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Attrs, ETag, ObjectKey};

    fn version(key: &str, etag: &str) -> ObjectId {
        ObjectId {
            key: ObjectKey::new(key),
            etag: ETag::new(etag),
        }
    }

    fn remote(at: u64, len: u64, object: &ObjectId, offset: u64) -> Extent {
        let object = object.clone();
        let from = Source::Remote { object, offset };
        Extent { at, len, from }
    }

    fn local(at: u64, len: u64, offset: u64) -> Extent {
        let file = FileNo(1);
        let from = Source::Local { file, offset };
        Extent { at, len, from }
    }

    fn of(pieces: &[Extent]) -> Generation {
        let mut extents = Extents::default();
        pieces.iter().for_each(|piece| extents.put(piece.clone()));
        Generation {
            len: pieces.iter().map(Extent::end).max().unwrap_or(0),
            extents,
            attrs: Attrs::default(),
        }
    }

    #[test]
    fn an_append_over_a_version_that_was_replaced_names_the_new_one() {
        let (old, new) = (version("k", "1"), version("k", "2"));
        let mut sources = Sources::default();
        let sent = of(&[remote(0, 100, &old, 0), local(100, 10, 0)]);
        let moved = sources.learn(&sent, &new, &|_| false);
        let newer = of(&[remote(0, 100, &old, 0), local(100, 20, 0)]);
        assert!(moved.concerns(&newer.extents));
        let is_back = |version: &ObjectId| *version == old;
        assert_eq!(
            sources.renamed(&newer, &is_back),
            newer,
            "the old version is there again"
        );
        let expected = of(&[remote(0, 100, &new, 0), local(100, 20, 0)]);
        assert_eq!(sources.renamed(&newer, &|_| false), expected);
    }

    #[test]
    fn a_draft_that_missed_several_versions_is_led_to_the_last() {
        let mut sources = Sources::default();
        let all: Vec<_> = ["1", "2", "3"].map(|etag| version("k", etag)).to_vec();
        for pair in all.windows(2) {
            sources.learn(&of(&[remote(0, 100, &pair[0], 0)]), &pair[1], &|_| false);
        }
        let draft = of(&[remote(0, 100, &all[0], 0), local(100, 9, 0)]);
        let expected = of(&[remote(0, 100, &all[2], 0), local(100, 9, 0)]);
        assert_eq!(sources.renamed(&draft, &|_| false), expected);
    }

    #[test]
    fn bytes_of_the_spool_that_were_sent_follow_their_version() {
        let (old, new) = (version("k", "1"), version("k", "2"));
        let mut sources = Sources::default();
        sources.learn(&of(&[local(0, SHARED_MIN, 5)]), &old, &|_| false);
        sources.learn(&of(&[remote(7, SHARED_MIN, &old, 0)]), &new, &|_| false);
        let draft = of(&[local(0, SHARED_MIN, 5)]);
        assert_eq!(
            sources.renamed(&draft, &|_| false),
            of(&[remote(0, SHARED_MIN, &new, 7)])
        );
    }

    #[test]
    fn another_keys_version_stays_named_unless_it_may_be_gone() {
        let (source, copy) = (version("a", "1"), version("b", "2"));
        let sent = of(&[remote(0, 9, &source, 0)]);
        let mut sources = Sources::default();
        sources.learn(&sent, &copy, &|_| false);
        assert_eq!(sources.renamed(&sent, &|_| false), sent);
        sources.learn(&sent, &copy, &|_| true);
        assert_eq!(
            sources.renamed(&sent, &|_| false),
            of(&[remote(0, 9, &copy, 0)])
        );
    }

    #[test]
    fn begun_generations_are_kept_until_a_later_one_ended() {
        let mut sources = Sources::default();
        let (key, one) = (RelKey::parse("k").unwrap(), Arc::new(of(&[])));
        sources.begin(&key, Seq(1), &one);
        sources.begin(&key, Seq(2), &one);
        sources.end(&key, Seq(1));
        assert!(sources.begun(&key, Seq(1)).is_none());
        assert!(sources.begun(&key, Seq(2)).is_some());
        sources.end(&key, Seq(2));
        assert!(sources.begun.is_empty());
    }
}

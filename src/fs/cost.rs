//! Which question about a name is the cheapest, in bytes on the wire: the one place that decides
//! between asking for a name by itself and listing its directory.
//!
//! Measured with a session token of 1,200 bytes, which every request carries: a HEAD is 1,961 bytes
//! up and 391 down, a page of a listing 1,974 up, 236 of head and some 400 of frame down, and 327
//! for each key of usual length. So a HEAD costs as much as seven listed keys, and where many names
//! of a directory are asked for one by one, its listing soon is the cheaper answer to all of them.
//! A conditional GET is never cheaper to learn a version than the HEAD (its head is longer, and a
//! changed object brings its bytes, which a `stat` has no use for): it is left to the read.
//!
//! How many names will be asked for nobody knows, so the rule is that of renting or buying: names
//! are asked for one by one until that has cost, within one `ttl`, as much as the listing would.
//! That is never more than twice what the better of the two would have cost.
//!
//! Invariants:
//! - a directory of which not all names are known is never listed for a lookup, nor is one whose
//!   listing would be longer than `LISTING_MAX`;
//! - at most `DIRS_MAX` directories are remembered.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::types::RelPath;

/// A HEAD and its answer.
const HEAD: u64 = 2_352;
/// A page of a listing without its keys.
const PAGE: u64 = 2_610;
/// One key of a listing.
const KEY: u64 = 330;
/// A listing longer than this is nobody's answer to a lookup (about 190 names).
const LISTING_MAX: u64 = 64 << 10;
const DIRS_MAX: usize = 1024;

/// What is asked about one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// Which version an object that was there has now: a HEAD.
    Version,
    /// Whether anything is there: a listing of the keys that begin with it.
    Name,
}

/// The cheapest question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// For the name by itself.
    One,
    /// A listing of its directory.
    All,
}

impl About {
    fn bytes(self) -> u64 {
        match self {
            Self::Version => HEAD,
            Self::Name => PAGE + KEY,
        }
    }
}

/// The bytes of listing so many names.
fn listing(names: usize) -> u64 {
    PAGE.saturating_add(KEY.saturating_mul(names as u64))
}

/// About the bytes of carrying so many objects of the bucket to other keys: a copy as an upload of one
/// part, so that it can be guarded, and a place in a request of removals.
pub(super) fn rename(objects: usize) -> u64 {
    (3 * HEAD + KEY).saturating_mul(objects as u64)
}

/// What was spent on single names of which directory.
#[derive(Debug, Default)]
pub(super) struct Spent {
    /// Since when, and how much.
    dirs: HashMap<RelPath, (Instant, u64)>,
}

impl Spent {
    /// The way to ask about a name of `dir`, of which so many `names` are known (`None`: not all);
    /// what it costs is noted.
    pub(super) fn way(
        &mut self,
        about: About,
        dir: &RelPath,
        names: Option<usize>,
        (now, ttl): (Instant, Duration),
    ) -> Way {
        let all = names.map(listing).filter(|bytes| *bytes <= LISTING_MAX);
        let Some(all) = all else {
            return Way::One;
        };
        let is_recent = |since: &Instant| now.saturating_duration_since(*since) < ttl;
        if self.dirs.len() >= DIRS_MAX {
            self.dirs.retain(|_, (since, _)| is_recent(since));
        }
        if self.dirs.len() >= DIRS_MAX {
            self.dirs.clear();
        }
        let before = self.dirs.remove(dir).filter(|(since, _)| is_recent(since));
        let (since, spent) = before.unwrap_or((now, 0));
        let spent = spent + about.bytes();
        if spent >= all {
            return Way::All;
        }
        self.dirs.insert(dir.clone(), (since, spent));
        Way::One
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TTL: Duration = Duration::from_secs(60);

    fn dir(name: &str) -> RelPath {
        RelPath::new(name).unwrap()
    }

    /// The ways of `count` questions at once.
    fn ways(about: About, names: Option<usize>, count: usize) -> Vec<Way> {
        let (mut spent, now) = (Spent::default(), Instant::now());
        let mut ask = |_| spent.way(about, &dir("d"), names, (now, TTL));
        (0..count).map(&mut ask).collect()
    }

    #[test]
    fn one_file_of_many_that_is_asked_for_again_and_again_is_a_head_each_time() {
        let (mut spent, start) = (Spent::default(), Instant::now());
        for minute in 0..60 {
            let now = start + TTL * minute;
            let way = spent.way(About::Version, &dir("d"), Some(3), (now, TTL));
            assert_eq!(way, Way::One);
        }
    }

    #[test]
    fn a_small_directory_whose_names_are_all_asked_for_is_listed_at_the_second() {
        let ways = ways(About::Version, Some(6), 2);
        assert_eq!(ways, [Way::One, Way::All]);
    }

    #[test]
    fn an_empty_directory_is_listed_at_once_as_that_tells_of_every_name() {
        assert_eq!(ways(About::Name, Some(0), 1), [Way::All]);
    }

    #[test]
    fn a_directory_that_is_not_known_or_large_is_never_listed() {
        for names in [None, Some(191), Some(10_000), Some(usize::MAX)] {
            let ways = ways(About::Version, names, 20_000);
            assert!(ways.iter().all(|way| *way == Way::One), "{names:?}");
        }
    }

    #[test]
    fn so_many_directories_and_no_more_are_remembered() {
        let (mut spent, now) = (Spent::default(), Instant::now());
        for number in 0..3 * DIRS_MAX {
            let dir = dir(&number.to_string());
            spent.way(About::Version, &dir, Some(100), (now, TTL));
        }
        assert!(spent.dirs.len() <= DIRS_MAX);
    }

    proptest! {
        /// Once it is listed, nothing more is asked within the ttl.
        #[test]
        fn it_never_costs_more_than_twice_the_better_way(names in 1usize..190, asked in 1usize..400) {
            let ways = ways(About::Version, Some(names), asked);
            let alone = ways.iter().take_while(|way| **way == Way::One).count();
            let is_listed = alone < asked;
            let cost = HEAD * alone as u64 + if is_listed { listing(names) } else { 0 };
            let best = (HEAD * asked as u64).min(listing(names));
            prop_assert!(cost <= 2 * best, "{cost} {best}");
        }
    }
}

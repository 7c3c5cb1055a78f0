//! Which pending changes may be carried out now: a pure function of what is pending, what is in
//! flight and the time.
//!
//! Invariants, for any order in which the jobs it names end:
//! - at a key there is one job at a time;
//! - who reads a version (`Remote`) is staged or sent before whoever replaces or removes that
//!   version publishes. A circle of such waits is cut by staging, which needs no permission;
//! - with `Order::Dir` publishes within one directory go by number;
//! - all other waits lead to lower numbers, so something can always go on;
//! - once a version went because its reader was staged, that reader's bytes are nowhere but in its
//!   upload: if it is superseded, the upload is finished first, and what took its content along
//!   (a rename, a copy) then copies it from there.
//!
//! One limit: where names change places, and change places again between the staging and the
//! completing of the first change, one of them may need both the version at its key and the upload
//! to it, of which only one is kept. What then finds its source gone is parked, with the reason.
//!
//! What waits for a dead or held change is *parked*: it does not keep others of its directory.
//!
//! Removals have rules of their own: see `removals`, and `markers` for those of directories.

mod growth;
mod markers;
mod removals;
mod turns;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use self::growth::{Published, due};
pub(super) use self::markers::is_marker_removal;
use self::removals::Batch;
use self::turns::Turns;
use super::dead::Dead;
use super::waits::{Shared, Waits, staged};
use crate::tree::{Pending, PendingMap};
use crate::types::{Base, Extent, RelKey, Seq, Source, Want};

/// At most so many keys in one DeleteObjects.
const BATCH_MAX: usize = 1000;
/// While something is in flight, so many entries without a job are looked at: a long queue in one
/// directory is not walked again for each of its files.
const LOOKAHEAD: usize = 512;

/// `close` returns before the kernel tells that the last writer is gone: what was sealed so
/// recently may be held by nobody any more.
const RELEASE_MAX: Duration = Duration::from_secs(1);

/// Whether publishes of one directory keep their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Objects of a directory appear in the order their files were closed.
    #[default]
    Dir,
    /// Small files may pass.
    None,
}

/// What the planner goes by.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// How long a change waits for others that often follow (chmod, rename).
    pub(super) linger: Duration,
    /// What grows by appends is sent again after this long at the latest; `None`: by what it costs.
    pub(super) append_max_age: Option<Duration>,
    /// See `Order`.
    pub(super) order: Order,
    /// When what a writer still holds open is sent.
    pub(super) upload_open: Duration,
    /// At most so many jobs in flight.
    pub(super) concurrency: usize,
    /// No lingering: somebody waits.
    pub(super) hurry: bool,
    /// The server may have directories where no marker was put.
    pub(super) unmade_dirs: bool,
    /// When somebody last asked for all to be sent, or whether it is.
    pub(super) asked: Option<Instant>,
}

/// What a key's job in flight does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InFlight {
    /// For which change.
    pub(super) number: Seq,
    /// It ends before it publishes.
    pub(super) staging: bool,
}

/// What is going on.
#[derive(Clone, Debug, Default)]
pub(super) struct Busy {
    /// Each key that has a job in flight.
    pub(super) keys: HashMap<RelKey, InFlight>,
    /// How many jobs that are.
    pub(super) jobs: usize,
    /// One of them removes.
    pub(super) removing: bool,
    /// Keys that failed, and when they may be tried again.
    pub(super) resting: HashMap<RelKey, Instant>,
    /// When what grows was last sent.
    pub(super) published: Published,
}

/// Something to do, at one key (or, for a batch, at each of several).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Bring the wanted content there, all of the way.
    Send {
        /// Where.
        key: RelKey,
        /// For which change.
        number: Seq,
    },
    /// Bring its parts to S3, and stop before they show.
    Stage {
        /// Where.
        key: RelKey,
        /// For which change.
        number: Seq,
    },
    /// Complete the upload of an older generation.
    Finish {
        /// Where.
        key: RelKey,
        /// The change that superseded it.
        number: Seq,
    },
    /// Remove one object.
    Remove {
        /// Where.
        key: RelKey,
        /// For which change.
        number: Seq,
    },
    /// Remove several whose versions are believed known, by one request.
    RemoveBatch(Vec<(RelKey, Seq)>),
    /// Bring parts of a file there that is still being written. Not planned here: nothing waits for
    /// it, and nothing shows by it.
    Ahead {
        /// Where.
        key: RelKey,
        /// For which making of the name.
        number: Seq,
    },
    /// Nothing is there and nothing is wanted: no request.
    Drop {
        /// Where.
        key: RelKey,
        /// For which change.
        number: Seq,
    },
}

impl Job {
    /// Whether it asks for something to be removed.
    pub(super) fn is_removal(&self) -> bool {
        matches!(self, Self::Remove { .. } | Self::RemoveBatch(_))
    }

    /// Whether it is of a file that is still being written.
    pub(super) fn is_ahead(&self) -> bool {
        matches!(self, Self::Ahead { .. })
    }

    /// The keys it is at.
    pub(super) fn keys(&self) -> Vec<(RelKey, Seq)> {
        match self {
            Self::Send { key, number }
            | Self::Stage { key, number }
            | Self::Finish { key, number }
            | Self::Remove { key, number }
            | Self::Ahead { key, number }
            | Self::Drop { key, number } => vec![(key.clone(), *number)],
            Self::RemoveBatch(all) => all.clone(),
        }
    }
}

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// To be started, all at once.
    pub(super) jobs: Vec<Job>,
    /// When to plan again if nothing happens before.
    pub(super) next: Option<Instant>,
    /// Nothing is pending but what is dead, open, held for good, or parked behind such.
    pub(super) drained: bool,
}

/// Until when the release of what is held may be on its way. What was sealed after the question
/// is nothing the asker closed before.
fn release(entry: &Pending, rules: &Rules) -> Option<Instant> {
    let is_older = rules.asked.is_none_or(|asked| entry.since <= asked);
    is_older.then_some(entry.since + RELEASE_MAX)
}

/// The plan.
pub(super) fn plan(pending: &PendingMap, busy: &Busy, now: Instant, rules: &Rules) -> Plan {
    let ordered = rules.order == Order::Dir;
    let dead = Dead::of(pending, ordered);
    let mut scan = Scan {
        pending,
        busy,
        now,
        rules,
        slots: rules.concurrency.saturating_sub(busy.jobs),
        turns: Turns::of(busy, rules.order),
        shared: Shared::default(),
        growing: Vec::new(),
        waits: Waits::of(pending, ordered, &dead),
        dead: &dead,
        taken: HashSet::new(),
        batch: Batch::default(),
        publishes: HashMap::new(),
        markers: Vec::new(),
        passed: 0,
        plan: Plan {
            drained: true,
            ..Plan::default()
        },
    };
    for (key, entry) in pending.in_order() {
        scan.look_at_markers(entry.number);
        if !scan.look(key, entry) {
            scan.plan.drained = false;
            break;
        }
    }
    scan.look_at_markers(Seq(u64::MAX));
    scan.finish()
}

/// Whether others read what a change replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readers {
    None,
    /// One of them will not be sent for long.
    Parked,
    Pending,
}

struct Scan<'a> {
    pending: &'a PendingMap,
    busy: &'a Busy,
    now: Instant,
    rules: &'a Rules,
    slots: usize,
    turns: Turns<'a>,
    shared: Shared<'a>,
    /// What would be due, and waits to grow.
    growing: Vec<(&'a RelKey, &'a Pending)>,
    waits: Waits<'a>,
    dead: &'a Dead<'a>,
    taken: HashSet<&'a RelKey>,
    batch: Batch<'a>,
    /// The last publish of each directory, as far as looked at.
    publishes: HashMap<&'a str, Seq>,
    /// Removals of markers, looked at when all of their number were: these may be below them.
    markers: Vec<(&'a RelKey, &'a Pending)>,
    passed: usize,
    plan: Plan,
}

impl<'a> Scan<'a> {
    /// Looks at the next entry; whether to go on.
    fn look(&mut self, key: &'a RelKey, entry: &'a Pending) -> bool {
        self.passed += 1;
        if self.passed > LOOKAHEAD && (self.busy.jobs > 0 || !self.plan.jobs.is_empty()) {
            return false;
        }
        if self.dead.has(key, entry) {
            return true;
        }
        self.note_publish(key, entry);
        if self.is_unfinished(key, entry) {
            return self.look_at_older(key, entry);
        }
        if matches!(entry.want, Want::Open { .. }) {
            return true;
        }
        if is_marker_removal(key, entry) {
            self.markers.push((key, entry));
            return true;
        }
        if self.is_busy(key) || self.may_be_needed(entry) {
            return self.must_wait(key, entry);
        }
        let due = due(entry, self.rules);
        if due > self.now {
            self.wake(due);
            if !entry.held {
                self.plan.drained = false;
                self.shared.add(key, entry);
                if is_batchable(entry) && self.resting(key).is_none() {
                    self.may_go_along(key, entry);
                }
            } else if let Some(until) = release(entry, self.rules).filter(|at| *at > self.now) {
                self.plan.drained = false;
                self.wake(until);
            }
            return true;
        }
        if let Some(until) = self.resting(key) {
            self.wake(until);
            return self.must_wait(key, entry);
        }
        if is_nothing(entry) {
            return self.drop_at(key, entry);
        }
        if let Some(until) = self.grows_until(key, entry) {
            self.wake(until);
            self.plan.drained = false;
            self.growing.push((key, entry));
            return true;
        }
        self.take_along(key, entry) && self.go(key, entry)
    }

    /// `entry` is due: whether it can go.
    fn go(&mut self, key: &'a RelKey, entry: &'a Pending) -> bool {
        let batchable = is_batchable(entry);
        if self.turns.blocks(key, entry.number, batchable) {
            return self.must_wait(key, entry);
        }
        if let Some(go_on) = self.waits_for_readers(key, entry, false) {
            return go_on;
        }
        if self.shared.has_earlier(key, entry) {
            return self.must_wait(key, entry);
        }
        if batchable {
            self.take_into_batch(key, entry)
        } else if entry.want == Want::Gone {
            self.take(key, entry, |key, number| Job::Remove { key, number })
        } else {
            self.take(key, entry, |key, number| Job::Send { key, number })
        }
    }

    /// Whether the upload of an older generation is to be finished first.
    fn is_unfinished(&self, key: &RelKey, entry: &Pending) -> bool {
        staged(entry).is_some_and(|(number, ..)| number != entry.number)
            && match &entry.want {
                Want::Object(_) => is_older_first(key, entry),
                Want::Open { .. } | Want::Gone => self.waits.has_readers(),
            }
    }

    /// Whether it has an older upload that is not to be finished now, but may be the only one to
    /// have the bytes of a version that is just being replaced: then it is not given up yet.
    fn may_be_needed(&self, entry: &Pending) -> bool {
        let replaces = |key: &RelKey, job: &InFlight| {
            let entry = self.pending.get(key);
            !job.staging && entry.is_some_and(|entry| entry.base != Base::Absent)
        };
        staged(entry).is_some_and(|(number, ..)| number != entry.number)
            && self.busy.keys.iter().any(|(key, job)| replaces(key, job))
    }

    /// It does not wait for its turn in the directory, and those that read what it replaces are
    /// staged: who is before it may wait for it, as its source is only to be had from there.
    fn look_at_older(&mut self, key: &'a RelKey, entry: &'a Pending) -> bool {
        let rests = self.resting(key);
        if let Some(until) = rests {
            self.wake(until);
        }
        if self.is_busy(key) || rests.is_some() {
            return self.must_wait(key, entry);
        }
        if let Some(go_on) = self.waits_for_readers(key, entry, true) {
            return go_on;
        }
        self.take(key, entry, |key, number| Job::Finish { key, number })
    }

    /// Whether (and then: whether to go on) it waits for those that read what it replaces.
    /// `at_once`: they are staged also where they could be sent later.
    fn waits_for_readers(
        &mut self,
        key: &'a RelKey,
        entry: &'a Pending,
        at_once: bool,
    ) -> Option<bool> {
        match self.readers_first(key, entry, at_once) {
            Readers::None => None,
            Readers::Parked => Some(true),
            Readers::Pending => Some(self.must_wait(key, entry)),
        }
    }

    /// Who reads what it replaces; they are staged where they have to be.
    fn readers_first(&mut self, key: &'a RelKey, entry: &'a Pending, at_once: bool) -> Readers {
        let readers: Vec<_> = self.waits.readers(key, entry).to_vec();
        if readers.is_empty() {
            return Readers::None;
        }
        if self.is_parked(key, entry) {
            return Readers::Parked;
        }
        self.stage(key, entry.number, &readers, at_once);
        Readers::Pending
    }

    /// Not now; what is behind it in its directory, or shares its bytes, waits for it.
    fn must_wait(&mut self, key: &'a RelKey, entry: &'a Pending) -> bool {
        self.plan.drained = false;
        self.turns.wait(key, entry.number);
        self.shared.add(key, entry);
        true
    }

    fn drop_at(&mut self, key: &'a RelKey, entry: &'a Pending) -> bool {
        self.passed -= 1;
        self.plan.jobs.push(Job::Drop {
            key: key.clone(),
            number: entry.number,
        });
        self.plan.drained = false;
        true
    }

    fn take(
        &mut self,
        key: &'a RelKey,
        entry: &'a Pending,
        job: impl FnOnce(RelKey, Seq) -> Job,
    ) -> bool {
        if self.slots == 0 {
            return self.can_batch() && self.must_wait(key, entry);
        }
        self.slots -= 1;
        self.passed -= 1;
        self.taken.insert(key);
        self.plan.jobs.push(job(key.clone(), entry.number));
        self.must_wait(key, entry)
    }

    /// `key` may not publish before `readers` have their parts: those that in turn wait for `key`
    /// to publish are staged; the others will be sent.
    fn stage(&mut self, key: &'a RelKey, number: Seq, readers: &[&'a RelKey], at_once: bool) {
        let mut clear = HashSet::new();
        for reader in readers {
            let Some(entry) = self.pending.get(reader) else {
                continue;
            };
            if self.is_busy(reader)
                || due(entry, self.rules) > self.now
                || self.resting(reader).is_some()
                || self.may_be_needed(entry)
                || (self.is_unfinished(reader, entry)
                    && self.waits.readers(reader, entry).is_empty())
            {
                continue;
            }
            if self.slots == 0 {
                return;
            }
            let is_in_hand =
                |other: &RelKey| self.busy.keys.contains_key(other) || self.taken.contains(other);
            let mut leads_here = || {
                !self.goes_by_itself(reader, entry, number)
                    && self.waits.leads_to(reader, key, &is_in_hand, &mut clear)
            };
            if at_once || leads_here() {
                self.slots -= 1;
                self.taken.insert(reader);
                self.plan.jobs.push(Job::Stage {
                    key: (*reader).clone(),
                    number: entry.number,
                });
            }
        }
    }

    /// Whether nothing keeps it: it will be sent by this plan or the next. All before `seen` were
    /// looked at.
    fn goes_by_itself(&self, key: &RelKey, entry: &Pending, seen: Seq) -> bool {
        entry.number <= seen
            && !self.turns.blocks(key, entry.number, false)
            && self.waits.readers(key, entry).is_empty()
            && !self.shared.has_earlier(key, entry)
    }

    /// Whether it waits, maybe through others, for a reader that will not be sent for long.
    fn is_parked(&self, key: &'a RelKey, entry: &'a Pending) -> bool {
        let is_stuck = |reader: &RelKey, entry: &Pending| {
            !self.is_busy(reader)
                && (self.dead.has(reader, entry)
                    || (entry.held && due(entry, self.rules) > self.now))
        };
        self.waits.has_reader(key, entry, &is_stuck)
    }

    fn is_busy(&self, key: &RelKey) -> bool {
        self.busy.keys.contains_key(key) || self.taken.contains(key)
    }

    fn resting(&self, key: &RelKey) -> Option<Instant> {
        let until = self.busy.resting.get(key).copied();
        until.filter(|until| *until > self.now)
    }

    fn wake(&mut self, at: Instant) {
        self.plan.next = Some(self.plan.next.map_or(at, |next| next.min(at)));
    }

    fn finish(mut self) -> Plan {
        self.finish_batch();
        self.plan
    }
}

/// Whether a generation that was staged before `entry` superseded it goes first: what it was
/// copied from may be gone, and `entry` can be copied from it. Not if `entry` needs the version
/// that it would replace.
fn is_older_first(key: &RelKey, entry: &Pending) -> bool {
    let Want::Object(generation) = &entry.want else {
        return false;
    };
    let is_base = |piece: &Extent| match &piece.from {
        Source::Remote { object, .. } => {
            object.key.as_str() == key.as_str() && Base::of(Some(object)) == entry.base
        }
        Source::Local { .. } => false,
    };
    !generation.extents.iter().any(is_base)
}

/// Never there, not wanted, and no upload is left behind.
fn is_nothing(entry: &Pending) -> bool {
    entry.want == Want::Gone
        && entry.base == Base::Absent
        && !entry.begun
        && staged(entry).is_none()
}

fn is_batchable(entry: &Pending) -> bool {
    entry.want == Want::Gone
        && entry.base != Base::Absent
        && !entry.begun
        && staged(entry).is_none()
}

#[cfg(test)]
mod tests;

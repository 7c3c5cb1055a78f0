//! Whatever happens in whatever order: random changes through the mount, random jobs among those
//! the planner allows, starting and ending interleaved, against a model of the bucket. In the end
//! the bucket holds what is wanted, and no job ever found a version gone that it needed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::drain::waits::dir_of;

/// The bytes of a file: runs of bytes that exist once in the world, by where they begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content(Vec<(u64, u64)>);

impl Content {
    fn push(&mut self, start: u64, len: u64) {
        match self.0.last_mut() {
            Some((old, before)) if *old + *before == start => *before += len,
            _ => self.0.push((start, len)),
        }
    }

    fn extend(&mut self, other: &Self, from: u64, len: u64) {
        let (mut skip, mut left) = (from, len);
        for (start, run) in &other.0 {
            let begin = skip.min(*run);
            let take = (run - begin).min(left);
            if take > 0 {
                self.push(start + begin, take);
            }
            skip -= begin;
            left -= take;
        }
        assert_eq!(left, 0, "read behind the end");
    }

    fn len(&self) -> u64 {
        self.0.iter().map(|(_, len)| len).sum()
    }
}

/// Every key of the model: two directories, one with a marker.
fn keys() -> Vec<RelKey> {
    ["a", "b", "c", "d/", "d/a", "d/b"].map(key).to_vec()
}

#[derive(Clone, Debug)]
enum Op {
    Write(Index),
    Append(Index),
    Touch(Index),
    Remove(Index),
    Copy(Index, Index),
    Rename(Index, Index),
    Exchange(Index, Index),
    /// Start one of the jobs that may start.
    Start(Index),
    /// End one of those in flight.
    End(Index),
}

fn op() -> impl Strategy<Value = Op> {
    let one = any::<Index>;
    let two = any::<(Index, Index)>;
    prop_oneof![
        one().prop_map(Op::Write),
        one().prop_map(Op::Append),
        one().prop_map(Op::Touch),
        one().prop_map(Op::Remove),
        two().prop_map(|(a, b)| Op::Copy(a, b)),
        two().prop_map(|(a, b)| Op::Rename(a, b)),
        two().prop_map(|(a, b)| Op::Exchange(a, b)),
        one().prop_map(Op::Start),
        one().prop_map(Op::Start),
        one().prop_map(Op::End),
    ]
}

/// The whole of a little world. `set`, `rebase` and `settle` are the tree's part.
struct World {
    /// What each key holds.
    bucket: BTreeMap<RelKey, ObjectId>,
    /// The bytes of every version there ever was.
    versions: BTreeMap<ObjectId, Content>,
    pending: BTreeMap<RelKey, Pending>,
    /// The generation each job was begun for.
    begun: BTreeMap<(RelKey, Seq), Arc<Generation>>,
    /// Bytes of parts in S3, by key and number.
    staged: BTreeMap<(RelKey, Seq), Content>,
    flying: Vec<Job>,
    /// What failed since the last job ended.
    resting: BTreeSet<RelKey>,
    /// Bytes of uploads that were given up.
    given_up: Vec<Content>,
    /// A change needs bytes that only such an upload had: see `plan`, its one limit.
    is_at_limit: bool,
    next: u64,
    order: Order,
    start: Instant,
}

impl World {
    fn new(order: Order) -> Self {
        let mut world = Self {
            bucket: BTreeMap::new(),
            versions: BTreeMap::new(),
            pending: BTreeMap::new(),
            begun: BTreeMap::new(),
            staged: BTreeMap::new(),
            flying: Vec::new(),
            resting: BTreeSet::new(),
            given_up: Vec::new(),
            is_at_limit: false,
            next: 1,
            order,
            start: Instant::now(),
        };
        for key in ["a", "b", "d/", "d/a"].map(key) {
            let start = world.number() << 20;
            world.publish(&key, Content(vec![(start, 300)]));
        }
        world
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn publish(&mut self, key: &RelKey, content: Content) -> ObjectId {
        let id = ObjectId {
            key: key.into(),
            etag: ETag::new(&self.number().to_string()),
        };
        self.versions.insert(id.clone(), content);
        self.bucket.insert(key.clone(), id.clone());
        id
    }

    /// A fresh run of bytes in the spool.
    fn fresh(&mut self, at: u64, len: u64) -> Extent {
        let offset = self.number() << 20;
        let file = FileNo(1);
        let from = Source::Local { file, offset };
        Extent { at, len, from }
    }

    /// What the mount shows at a key.
    fn visible(&self, key: &RelKey) -> Option<Extents> {
        match self.pending.get(key).map(|entry| &entry.want) {
            Some(Want::Object(generation)) => Some(generation.extents.clone()),
            Some(_) => None,
            None => {
                let id = self.bucket.get(key)?;
                Some(Extents::whole(id.clone(), self.versions[id].len()))
            }
        }
    }

    fn set(&mut self, number: u64, key: &RelKey, want: Want) {
        let old = self.pending.remove(key);
        let known = Base::of(self.bucket.get(key));
        let entry = Pending {
            number: Seq(number),
            position: Seq(number),
            want,
            base: old.as_ref().map_or(known, |old| old.base.clone()),
            since: self.start,
            unsent_since: self.start,
            was_closed: false,
            held: false,
            urgent: false,
            over_gone: false,
            seen: None,
            begun: old.as_ref().is_some_and(|old| old.begun),
            staged: old.and_then(|old| old.staged),
            uploading: None,
            stamp: None,
            dead: None,
        };
        self.pending.insert(key.clone(), entry);
    }

    fn change(&mut self, op: &Op) {
        let all = keys();
        let number = self.number();
        match op {
            Op::Write(at) => {
                let mut extents = Extents::default();
                extents.put(self.fresh(0, 100_000));
                self.set(number, at.get(&all), object(extents));
            }
            Op::Append(at) => {
                if let Some(mut extents) = self.visible(at.get(&all)) {
                    let end = extents.iter().last().map_or(0, Extent::end);
                    extents.put(self.fresh(end, 10));
                    self.set(number, at.get(&all), object(extents));
                }
            }
            Op::Touch(at) => {
                if let Some(extents) = self.visible(at.get(&all)) {
                    self.set(number, at.get(&all), object(extents));
                }
            }
            Op::Remove(at) => {
                if self.visible(at.get(&all)).is_some() {
                    self.set(number, at.get(&all), Want::Gone);
                }
            }
            Op::Copy(from, to) | Op::Rename(from, to) | Op::Exchange(from, to) => {
                let (from, to) = (from.get(&all), to.get(&all));
                let (Some(extents), true) = (self.visible(from), from != to) else {
                    return;
                };
                match (op, self.visible(to)) {
                    (Op::Rename(..), _) => self.set(number, from, Want::Gone),
                    (Op::Exchange(..), Some(other)) => self.set(number, from, object(other)),
                    (Op::Exchange(..), None) => return,
                    _ => {}
                }
                self.set(number, to, object(extents));
            }
            Op::Start(_) | Op::End(_) => {}
        }
    }

    fn plan(&self) -> Plan {
        let mut busy = Busy {
            jobs: self.flying.len(),
            removing: self.flying.iter().any(Job::is_removal),
            ..Busy::default()
        };
        for key in &self.resting {
            busy.resting
                .insert(key.clone(), self.start + Duration::from_secs(1));
        }
        for job in &self.flying {
            for (key, number) in job.keys() {
                let staging = matches!(job, Job::Stage { .. });
                busy.keys.insert(key, InFlight { number, staging });
            }
        }
        let rules = Rules {
            append_max_age: None,
            linger: Duration::from_secs(2),
            order: self.order,
            upload_open: Duration::from_secs(300),
            concurrency: 4,
            hurry: true,
            unmade_dirs: false,
            asked: None,
        };
        let pending = gathered(self.pending.clone());
        plan(&pending, &busy, self.start, &rules)
    }

    fn begin(&mut self, job: Job) {
        self.assert_turn(&job);
        self.assert_marker(&job);
        for (key, number) in job.keys() {
            let is_taken = |other: &Job| other.keys().iter().any(|(other, _)| *other == key);
            assert!(!self.flying.iter().any(is_taken), "two jobs at {key}");
            let entry = self.pending.get_mut(&key).unwrap();
            assert_eq!(entry.number, number, "planned for what is wanted");
            entry.begun |= !matches!(job, Job::Drop { .. });
            if let Want::Object(generation) = &entry.want {
                let generation = Arc::clone(generation);
                self.begun.insert((key, number), generation);
            }
        }
        self.flying.push(job);
    }

    /// Nothing earlier of the same directory still has to be published when `job` starts to.
    fn assert_turn(&self, job: &Job) {
        let is_free = matches!(
            job,
            Job::Stage { .. } | Job::Finish { .. } | Job::Drop { .. }
        );
        if self.order == Order::None || is_free {
            return;
        }
        let mine = job.keys();
        for (key, number) in &mine {
            if is_marker_removal(key, &self.pending[key]) {
                continue;
            }
            for (other, entry) in &self.pending {
                let is_earlier = entry.number < *number && dir_of(other) == dir_of(key);
                let is_mine = mine.iter().any(|(key, _)| key == other);
                let has_turn = !is_nothing(entry) && !is_marker_removal(other, entry);
                let is_passed = is_earlier && !is_mine && has_turn;
                assert!(!is_passed, "{key} passes {other}");
            }
        }
    }

    /// A marker goes when all below it is settled, or behind all of it in the same request.
    fn assert_marker(&self, job: &Job) {
        let keys: Vec<_> = job.keys().into_iter().map(|(key, _)| key).collect();
        assert!(keys.is_sorted_by(|one, other| one > other), "{keys:?}");
        for dir in keys.iter().filter(|key| key.is_dir()) {
            if job.is_removal() {
                let below = self.pending.keys().filter(|key| *key != dir);
                let mut below = below.filter(|key| key.as_str().starts_with(dir.as_str()));
                assert!(below.all(|key| keys.contains(key)), "{dir} goes too soon");
            }
        }
    }

    /// The bytes of extents; `now`: only if the bucket still has the versions they name.
    fn bytes(&self, extents: &Extents, now: bool) -> Option<Content> {
        let mut all = Content::default();
        for piece in extents.iter() {
            match &piece.from {
                Source::Local { offset, .. } => all.push(*offset, piece.len),
                Source::Remote { object, offset } => {
                    let there = self.bucket.get(object.key.as_str());
                    if now && there != Some(object) {
                        return None;
                    }
                    all.extend(&self.versions[object], *offset, piece.len);
                }
            }
        }
        Some(all)
    }

    /// The bytes of what a job was begun for. A version it names may be gone only if nobody wants
    /// that generation any more, or if somebody else's upload has the bytes.
    fn found(&mut self, key: &RelKey, number: Seq) -> Option<Content> {
        let generation = &self.begun[&(key.clone(), number)];
        let bytes = self.bytes(&generation.extents, true);
        let is_wanted = self.pending.get(key).is_some_and(|e| e.number == number);
        let mut others = self.pending.iter().filter(|(other, _)| *other != key);
        let is_elsewhere = others.any(|(_, entry)| staged(entry).is_some());
        if bytes.is_none() && is_wanted && !is_elsewhere {
            let lost = self.bytes(&generation.extents, false).unwrap();
            let is_of = |given_up: &Content| lost.0.iter().any(|run| given_up.0.contains(run));
            assert!(self.given_up.iter().any(is_of), "what {key} reads is gone");
            self.is_at_limit = true;
        }
        if bytes.is_none() && is_wanted {
            self.resting.insert(key.clone());
        }
        bytes
    }

    fn end(&mut self, job: &Job) {
        match job {
            Job::Send { key, number } => self.end_send(key, *number),
            Job::Stage { key, number } => {
                let Some(bytes) = self.found(key, *number) else {
                    return;
                };
                self.resting.clear();
                self.staged.insert((key.clone(), *number), bytes);
                let entry = self.pending.get_mut(key);
                if let Some(entry) = entry.filter(|entry| entry.number == *number) {
                    entry.staged = Some((*number, "u".into(), vec![]));
                }
            }
            Job::Finish { key, .. } => {
                let entry = self.pending.get_mut(key);
                let older = entry.and_then(|entry| entry.staged.take());
                let (older, ..) = older.expect("nothing else touches it");
                let bytes = self.staged[&(key.clone(), older)].clone();
                self.published(key, older, bytes, true);
            }
            Job::Remove { .. } | Job::RemoveBatch(_) => {
                for (key, number) in job.keys() {
                    if let Some(entry) = self.pending.get_mut(&key) {
                        entry.staged = None;
                    }
                    self.bucket.remove(&key);
                    self.settle(&key, number, Base::Absent);
                }
            }
            Job::Ahead { .. } => unreachable!("it is not planned"),
            Job::Drop { key, number } => {
                assert!(!self.bucket.contains_key(key));
                self.settle(key, *number, Base::Absent);
            }
        }
    }

    fn end_send(&mut self, key: &RelKey, number: Seq) {
        let entry = self.pending.get_mut(key);
        let staged = entry.and_then(|entry| entry.staged.take_if(|(n, ..)| *n <= number));
        let is_staged = staged
            .as_ref()
            .is_some_and(|(staged, ..)| *staged == number);
        if let Some((older, ..)) = staged.filter(|_| !is_staged) {
            let bytes = self.staged[&(key.clone(), older)].clone();
            self.given_up.push(bytes);
        }
        let bytes = if is_staged {
            Some(self.staged[&(key.clone(), number)].clone())
        } else {
            self.found(key, number)
        };
        if let Some(bytes) = bytes {
            self.published(key, number, bytes, is_staged);
        }
    }

    fn published(&mut self, key: &RelKey, number: Seq, bytes: Content, is_staged: bool) {
        let id = self.publish(key, bytes);
        let sent = self.begun[&(key.clone(), number)].extents.clone();
        // Versions of other keys stay there only if this was not staged and nothing is to happen
        // to them.
        let stays = |object: &ObjectId| {
            !is_staged && object.key != id.key && !self.pending.contains_key(object.key.as_str())
        };
        let sent = sent.map(|piece| match &piece.from {
            Source::Remote { object, .. } if stays(object) => vec![],
            _ => vec![piece.clone()],
        });
        self.rebase(&sent, &id);
        self.settle(key, number, Base::of(Some(&id)));
    }

    /// What else names a source that was just sent now names the new version.
    fn rebase(&mut self, sent: &Extents, id: &ObjectId) {
        for entry in self.pending.values_mut() {
            if let Want::Object(generation) = &entry.want {
                entry.want = object(rebased(&generation.extents, sent, id));
            }
        }
        for generation in self.begun.values_mut() {
            let extents = rebased(&generation.extents, sent, id);
            *generation = Arc::new(Generation {
                extents,
                ..Generation::clone(generation)
            });
        }
    }

    fn settle(&mut self, key: &RelKey, number: Seq, base: Base) {
        self.resting.clear();
        match self.pending.get_mut(key) {
            Some(entry) if entry.number == number => {
                self.pending.remove(key);
            }
            Some(entry) => entry.base = base,
            None => {}
        }
    }

    /// The bytes the mount shows, also of versions that are gone.
    fn shown(&self) -> BTreeMap<RelKey, Content> {
        let of = |key: RelKey| {
            let bytes = self.bytes(&self.visible(&key)?, false)?;
            Some((key, bytes))
        };
        keys().into_iter().filter_map(of).collect()
    }
}

/// Each piece of `old` that stands in `sent` too, at its place in the version that became.
fn rebased(old: &Extents, sent: &Extents, id: &ObjectId) -> Extents {
    let shift = |piece: &Extent, other: &Extent| match (&piece.from, &other.from) {
        (Source::Local { file, offset }, Source::Local { file: f, offset: o }) if file == f => {
            offset.checked_sub(*o)
        }
        (
            Source::Remote { object, offset },
            Source::Remote {
                object: b,
                offset: o,
            },
        ) if object == b => offset.checked_sub(*o),
        _ => None,
    };
    old.map(|piece| {
        let found = sent.iter().find_map(|other| {
            let shift = shift(piece, other).filter(|shift| shift + piece.len <= other.len)?;
            Some(Source::Remote {
                object: id.clone(),
                offset: other.at + shift,
            })
        });
        let from = found.unwrap_or_else(|| piece.from.clone());
        vec![Extent {
            from,
            ..piece.clone()
        }]
    })
}

fn run(ops: &[Op], order: Order) {
    let mut world = World::new(order);
    for op in ops {
        match op {
            Op::Start(which) => {
                let mut jobs = world.plan().jobs;
                if !jobs.is_empty() {
                    let job = jobs.swap_remove(which.index(jobs.len()));
                    world.begin(job);
                }
            }
            Op::End(which) if !world.flying.is_empty() => {
                let job = world.flying.swap_remove(which.index(world.flying.len()));
                world.end(&job);
            }
            Op::End(_) => {}
            change => world.change(change),
        }
    }
    let wanted = world.shown();
    for round in 0.. {
        assert!(round < 1000, "it never ends");
        let plan = world.plan();
        for job in plan.jobs {
            world.begin(job);
        }
        if world.is_at_limit {
            return;
        }
        // The last started ends first: as unlike the order of starting as can be.
        let Some(job) = world.flying.pop() else {
            assert_eq!(world.pending.len(), 0, "stuck: {:?}", world.pending);
            assert!(plan.drained);
            break;
        };
        world.end(&job);
        assert_eq!(world.shown(), wanted, "sending shows nothing new");
    }
    let held: BTreeMap<_, _> = world.bucket.iter().collect();
    let held = held.into_iter();
    let held: BTreeMap<_, _> = held
        .map(|(key, id)| (key.clone(), world.versions[id].clone()))
        .collect();
    assert_eq!(held, wanted);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_the_planner_allows_brings_the_bucket_to_what_is_wanted(
        ops in prop::collection::vec(op(), 0..40), dir: bool
    ) {
        run(&ops, if dir { Order::Dir } else { Order::None });
    }
}

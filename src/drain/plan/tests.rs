//! Each rule of the planner by itself; `any_order` has them all at once.

mod any_order;
mod growth;
mod removals;

use std::sync::Arc;

use super::*;
use crate::log::Refusal;
use crate::types::{Attrs, ETag, Extent, Extents, FileNo, Generation, ObjectId, ObjectKey, Source};

const KIB: u64 = 1024;

fn key(text: &str) -> RelKey {
    RelKey::parse(text).unwrap()
}

fn local(file: u64, len: u64) -> Extents {
    let mut extents = Extents::default();
    extents.put(Extent {
        at: 0,
        len,
        from: Source::Local {
            file: FileNo(file),
            offset: 0,
        },
    });
    extents
}

fn remote(of: &str, etag: &str) -> Extents {
    let id = ObjectId {
        key: ObjectKey::new(of),
        etag: ETag::new(etag),
    };
    Extents::whole(id, 100)
}

fn object(extents: Extents) -> Want {
    let len = extents.iter().map(Extent::end).max().unwrap_or(0);
    Want::Object(Arc::new(Generation {
        extents,
        len,
        attrs: Attrs::default(),
    }))
}

fn version(etag: &str) -> Base {
    Base::Version(ETag::new(etag))
}

fn gathered(all: impl IntoIterator<Item = (RelKey, Pending)>) -> PendingMap {
    let mut pending = PendingMap::default();
    for (key, entry) in all {
        pending.put(key, entry);
    }
    pending
}

/// A set of pending changes, their clock and the rules, to be varied by each test.
struct Scene {
    start: Instant,
    pending: Vec<(RelKey, Pending)>,
    busy: Busy,
    rules: Rules,
}

impl Scene {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            pending: Vec::new(),
            busy: Busy::default(),
            rules: Rules {
                linger: Duration::from_secs(2),
                append_max_age: None,
                order: Order::Dir,
                upload_open: Duration::from_secs(300),
                concurrency: 4,
                hurry: false,
                unmade_dirs: false,
                asked: None,
            },
        }
    }

    fn add(&mut self, at: &str, number: u64, want: Want, base: Base) -> &mut Pending {
        let entry = Pending {
            number: Seq(number),
            position: Seq(number),
            want,
            base,
            since: self.start,
            unsent_since: self.start,
            was_closed: false,
            held: false,
            urgent: false,
            over_gone: false,
            seen: None,
            begun: false,
            staged: None,
            uploading: None,
            stamp: None,
            dead: None,
        };
        self.pending.push((key(at), entry));
        &mut self.pending.last_mut().unwrap().1
    }

    fn in_flight(&mut self, at: &str, number: u64, staging: bool) {
        let number = Seq(number);
        self.busy.keys.insert(key(at), InFlight { number, staging });
        self.busy.jobs += 1;
    }

    fn plan_at(&self, secs: u64) -> Plan {
        let pending = gathered(self.pending.iter().cloned());
        let now = self.start + Duration::from_secs(secs);
        plan(&pending, &self.busy, now, &self.rules)
    }

    /// The jobs, in short, once all is due but not yet what is held.
    fn jobs(&self) -> Vec<String> {
        shown(&self.plan_at(10))
    }
}

fn shown(plan: &Plan) -> Vec<String> {
    let name = |job: &Job| match job {
        Job::Send { key, .. } => format!("send {key}"),
        Job::Stage { key, .. } => format!("stage {key}"),
        Job::Finish { key, .. } => format!("finish {key}"),
        Job::Remove { key, .. } => format!("remove {key}"),
        Job::Drop { key, .. } => format!("drop {key}"),
        Job::Ahead { key, .. } => format!("ahead {key}"),
        Job::RemoveBatch(all) => {
            let keys: Vec<_> = all.iter().map(|(key, _)| key.as_str()).collect();
            format!("batch {}", keys.join(" "))
        }
    };
    plan.jobs.iter().map(name).collect()
}

#[test]
fn a_change_lingers_and_the_plan_says_when_to_come_again() {
    let mut scene = Scene::new();
    scene.add("a", 1, object(local(1, 9)), Base::Absent);
    let plan = scene.plan_at(1);
    assert_eq!(shown(&plan), [""; 0]);
    assert_eq!(plan.next, Some(scene.start + Duration::from_secs(2)));
    assert!(!plan.drained);
    assert_eq!(shown(&scene.plan_at(2)), ["send a"]);
    scene.rules.hurry = true;
    assert_eq!(shown(&scene.plan_at(0)), ["send a"]);
}

#[test]
fn what_somebody_waits_for_does_not_linger() {
    let mut scene = Scene::new();
    scene.add("a", 1, object(local(1, 9)), Base::Absent).urgent = true;
    assert_eq!(shown(&scene.plan_at(0)), ["send a"]);
}

#[test]
fn what_is_held_open_is_sent_after_upload_open_and_not_sooner_in_a_hurry() {
    let mut scene = Scene::new();
    scene.add("a", 1, object(local(1, 9)), Base::Absent).held = true;
    scene.rules.hurry = true;
    let plan = scene.plan_at(299);
    assert_eq!((shown(&plan).len(), plan.drained), (0, true));
    assert_eq!(plan.next, Some(scene.start + Duration::from_secs(300)));
    assert_eq!(shown(&scene.plan_at(300)), ["send a"]);
}

#[test]
fn what_was_just_closed_is_waited_for_although_it_is_still_held() {
    let mut scene = Scene::new();
    let second = Duration::from_secs(1);
    scene.add("a", 1, object(local(1, 9)), Base::Absent).held = true;
    scene.rules.hurry = true;
    for asked in [None, Some(scene.start), Some(scene.start + second)] {
        scene.rules.asked = asked;
        let plan = scene.plan_at(0);
        assert_eq!((shown(&plan).len(), plan.drained), (0, false));
        assert_eq!(plan.next, Some(scene.start + second));
        assert!(scene.plan_at(1).drained, "it is held by somebody");
    }
    scene.pending[0].1.held = false;
    assert_eq!(shown(&scene.plan_at(0)), ["send a"]);
}

#[test]
fn what_is_sealed_again_and_again_after_the_question_is_not_waited_for() {
    let mut scene = Scene::new();
    scene.rules.asked = Some(scene.start);
    let sealed = scene.start + Duration::from_secs(2);
    let entry = scene.add("db", 1, object(local(1, 9)), Base::Absent);
    (entry.held, entry.since) = (true, sealed);
    assert!(scene.plan_at(2).drained);
}

#[test]
fn a_file_that_is_written_anew_without_end_is_sent_all_the_same() {
    let mut scene = Scene::new();
    let start = scene.start;
    let entry = scene.add("log", 9, object(local(1, 9)), Base::Absent);
    // Wanted anew at second 9, unsent since second 0.
    entry.since = start + Duration::from_secs(9);
    assert_eq!(shown(&scene.plan_at(9)).len(), 0);
    assert_eq!(shown(&scene.plan_at(10)), ["send log"]);
}

#[test]
fn what_is_open_dead_in_flight_or_resting_is_never_planned() {
    let mut scene = Scene::new();
    let attrs = Box::default();
    scene.add("open", 1, Want::Open { attrs, file: None }, Base::Absent);
    let dead = scene.add("dead", 2, Want::Gone, version("1"));
    dead.dead = Some(Refusal::Denied("no".into()));
    assert!(scene.plan_at(10).drained);
    scene.add("x/flying", 3, object(local(1, 9)), Base::Absent);
    scene.in_flight("x/flying", 3, false);
    scene.add("y/resting", 4, object(local(2, 9)), Base::Absent);
    let until = scene.start + Duration::from_secs(99);
    scene.busy.resting.insert(key("y/resting"), until);
    let plan = scene.plan_at(10);
    assert_eq!((shown(&plan).len(), plan.drained), (0, false));
    assert_eq!(plan.next, Some(until));
}

#[test]
fn an_idle_drain_asks_for_no_timer() {
    let scene = Scene::new();
    let idle = Plan {
        drained: true,
        ..Plan::default()
    };
    assert_eq!(scene.plan_at(10), idle);
}

#[test]
fn what_never_was_in_the_bucket_is_dropped_without_a_request() {
    let mut scene = Scene::new();
    scene.add("a", 1, Want::Gone, Base::Absent);
    assert_eq!(scene.jobs(), ["drop a"]);
}

#[test]
fn a_directory_is_dropped_only_when_nothing_is_pending_below_it() {
    let mut scene = Scene::new();
    scene.add("d/", 1, Want::Gone, Base::Absent);
    scene.add("d/x", 2, Want::Gone, version("1"));
    assert_eq!(scene.jobs(), ["remove d/x"]);
    scene.pending.pop();
    assert_eq!(scene.jobs(), ["drop d/"]);
    scene.rules.unmade_dirs = true;
    assert_eq!(scene.jobs(), ["remove d/"]);
}

#[test]
fn a_removal_is_sent_when_an_answer_or_an_upload_may_have_been_lost() {
    let mut scene = Scene::new();
    scene.add("a", 1, Want::Gone, Base::Absent).begun = true;
    assert_eq!(scene.jobs(), ["remove a"]);
    scene.pending.clear();
    scene.add("a", 1, Want::Gone, Base::Absent).staged = Some((Seq(1), "u".into(), vec![]));
    assert_eq!(scene.jobs(), ["remove a"]);
}

#[test]
fn several_removals_travel_in_one_request_and_a_single_one_is_guarded() {
    let mut scene = Scene::new();
    scene.add("d/a", 1, Want::Gone, version("1"));
    assert_eq!(scene.jobs(), ["remove d/a"]);
    scene.add("d/b", 2, Want::Gone, version("2"));
    scene.add("e/c", 3, Want::Gone, version("3"));
    scene.add("e/d", 4, Want::Gone, version("3")).begun = true;
    assert_eq!(scene.jobs(), ["batch e/c d/b d/a"]);
    scene.rules.order = Order::None;
    assert_eq!(scene.jobs(), ["remove e/d", "batch e/c d/b d/a"]);
}

#[test]
fn removals_that_come_while_others_are_in_flight_travel_together_afterwards() {
    let mut scene = Scene::new();
    scene.add("d/a", 1, Want::Gone, version("1"));
    scene.in_flight("d/a", 1, false);
    scene.busy.removing = true;
    scene.add("e/b", 2, Want::Gone, version("1"));
    scene.add("e/c", 3, Want::Gone, version("1"));
    let plan = scene.plan_at(10);
    assert_eq!((shown(&plan).len(), plan.drained), (0, false));
    for i in 0..1200 {
        scene.add(&format!("f/{i:04}"), i + 4, Want::Gone, version("1"));
    }
    assert_eq!(scene.plan_at(10).jobs.len(), 1, "a full one goes at once");
    scene.busy = Busy::default();
    scene.pending.truncate(3);
    scene.pending.remove(0);
    assert_eq!(scene.jobs(), ["batch e/c e/b"]);
}

#[test]
fn a_directory_goes_behind_what_was_in_it_by_the_same_request() {
    let mut scene = Scene::new();
    scene.add("d/a", 1, Want::Gone, version("1"));
    scene.add("d/e/b", 2, Want::Gone, version("2"));
    scene.add("d/e/", 3, Want::Gone, version("3"));
    scene.add("d/", 4, Want::Gone, version("4"));
    assert_eq!(scene.jobs(), ["batch d/e/b d/e/ d/a d/"]);
    // As a rename has it: all by one number.
    for (_, entry) in &mut scene.pending {
        entry.number = Seq(1);
    }
    assert_eq!(scene.jobs(), ["batch d/e/b d/e/ d/a d/"]);
}

#[test]
fn a_directory_waits_for_what_is_in_it_and_nobody_waits_for_the_directory() {
    let mut scene = Scene::new();
    scene.add("d/a", 1, Want::Gone, version("1")).begun = true;
    scene.add("d/", 2, Want::Gone, version("2"));
    scene.add("b", 3, object(local(1, 9)), Base::Absent);
    assert_eq!(scene.jobs(), ["remove d/a", "send b"]);
    scene.in_flight("d/a", 1, false);
    assert_eq!(scene.jobs(), ["send b"]);
    let until = scene.start + Duration::from_secs(99);
    scene.busy = Busy::default();
    scene.busy.resting.insert(key("d/a"), until);
    assert_eq!(scene.jobs(), ["send b"]);
    scene.pending.remove(0);
    assert_eq!(scene.jobs(), ["remove d/"]);
    scene.busy.resting.insert(key("d/"), until);
    let plan = scene.plan_at(10);
    assert_eq!((shown(&plan), plan.drained), (vec!["send b".into()], false));
    assert_eq!(plan.next, Some(until));
}

#[test]
fn a_directory_does_not_wait_for_what_is_dead_held_or_open_in_it() {
    let mut scene = Scene::new();
    scene.add("d/", 1, Want::Gone, version("1"));
    let dead = scene.add("d/dead", 2, Want::Gone, version("1"));
    dead.dead = Some(Refusal::Denied("no".into()));
    scene.add("d/h", 3, object(local(1, 9)), Base::Absent).held = true;
    let attrs = Box::default();
    scene.add("d/open", 4, Want::Open { attrs, file: None }, Base::Absent);
    assert_eq!(scene.jobs(), ["remove d/"]);
}

#[test]
fn a_directory_behind_what_is_parked_keeps_no_drain_from_ending() {
    let mut scene = Scene::new();
    let dead = scene.add("b", 1, object(remote("d/a", "1")), Base::Absent);
    dead.dead = Some(Refusal::Denied("no".into()));
    scene.add("d/a", 2, Want::Gone, version("1"));
    scene.add("d/", 3, Want::Gone, version("2"));
    let plan = scene.plan_at(10);
    assert_eq!((shown(&plan).len(), plan.drained), (0, true));
}

#[test]
fn who_takes_a_directorys_attributes_along_goes_before_it_and_is_not_held_back_by_it() {
    let mut scene = Scene::new();
    scene.add("d/", 1, Want::Gone, version("1"));
    scene.add("e/", 2, object(remote("d/", "1")), Base::Absent);
    assert_eq!(scene.jobs(), ["send e/"]);
    scene.pending.pop();
    assert_eq!(scene.jobs(), ["remove d/"]);
}

#[test]
fn a_flat_directory_is_removed_by_as_few_requests_as_its_keys_need() {
    for (files, requests) in [(999, 1), (1000, 2), (1500, 2), (2500, 3)] {
        let mut scene = Scene::new();
        for i in 0..files {
            scene.add(&format!("d/{i:04}"), i, Want::Gone, version("1"));
        }
        scene.add("d/", files, Want::Gone, version("1"));
        let mut sent = 0;
        while !scene.pending.is_empty() {
            let jobs = scene.plan_at(10).jobs;
            sent += jobs.len();
            // All that goes now is in flight together, and more is planned meanwhile.
            for (at, number) in jobs.iter().flat_map(Job::keys) {
                scene.in_flight(at.as_str(), number.0, false);
            }
            scene.busy.jobs = sent;
            scene.busy.removing = !jobs.is_empty();
            if jobs.is_empty() {
                let busy = std::mem::take(&mut scene.busy);
                assert!(!busy.keys.is_empty(), "stuck");
                scene
                    .pending
                    .retain(|(key, _)| !busy.keys.contains_key(key));
                scene.rules.concurrency = sent + 4;
            }
        }
        assert_eq!(sent, requests, "{files} files");
    }
}

#[test]
fn a_batch_has_at_most_a_thousand_keys() {
    let mut scene = Scene::new();
    for i in 0..1200 {
        scene.add(&format!("d/{i:04}"), i, Want::Gone, version("1"));
    }
    let plan = scene.plan_at(10);
    let [Job::RemoveBatch(all)] = plan.jobs.as_slice() else {
        panic!("one batch, not {:?}", plan.jobs.len())
    };
    assert_eq!(all.len(), BATCH_MAX);
}

#[test]
fn in_one_directory_publishes_go_by_number_and_directories_do_not_wait_for_each_other() {
    let mut scene = Scene::new();
    scene.add("d/data", 1, object(local(1, 9)), Base::Absent);
    scene.add("d/done", 2, object(local(2, 9)), Base::Absent);
    scene.add("e/data", 3, object(local(3, 9)), Base::Absent);
    scene.add("d/old", 4, Want::Gone, version("1"));
    assert_eq!(scene.jobs(), ["send d/data", "send e/data"]);
    scene.rules.order = Order::None;
    assert_eq!(
        scene.jobs(),
        ["send d/data", "send d/done", "send e/data", "remove d/old"]
    );
}

#[test]
fn a_publish_in_flight_holds_back_its_directory_also_when_it_was_superseded() {
    let mut scene = Scene::new();
    scene.add("d/b", 2, object(local(2, 9)), Base::Absent);
    scene.add("d/a", 3, object(local(3, 9)), Base::Absent);
    scene.in_flight("d/a", 1, false);
    assert_eq!(scene.jobs(), [""; 0]);
}

#[test]
fn what_is_named_after_a_dead_file_waits_for_it_and_nothing_else_does() {
    let mut scene = Scene::new();
    let dead = scene.add("d/x.csv", 2, object(local(1, 9)), Base::Absent);
    dead.dead = Some(Refusal::Denied("no".into()));
    for (at, number) in [("d/x", 1), ("d/x.done", 3), ("d/y.done", 4), ("x.done", 5)] {
        scene.add(at, number, object(local(number, 9)), Base::Absent);
    }
    assert_eq!(scene.jobs(), ["send d/x", "send x.done"]);
    scene.pending.retain(|(at, _)| at.as_str() != "d/x");
    assert_eq!(scene.jobs(), ["send d/y.done", "send x.done"]);
    scene
        .pending
        .retain(|(at, _)| at.as_str() == "d/x.csv" || at.as_str() == "d/x.done");
    let plan = scene.plan_at(10);
    assert!(plan.jobs.is_empty() && plan.drained && plan.next.is_none());
    scene.rules.order = Order::None;
    assert_eq!(scene.jobs(), ["send d/x.done"]);
}

#[test]
fn dead_and_held_changes_do_not_hold_back_their_directory() {
    let mut scene = Scene::new();
    let dead = scene.add("a", 1, object(local(1, 9)), Base::Absent);
    dead.dead = Some(Refusal::Quota("full".into()));
    scene.add("b", 2, object(local(2, 9)), Base::Absent).held = true;
    scene.add("c", 3, object(local(3, 9)), Base::Absent);
    assert_eq!(scene.jobs(), ["send c"]);
}

#[test]
fn a_rename_sends_the_new_name_before_the_old_one_goes() {
    let mut scene = Scene::new();
    scene.add("a", 1, Want::Gone, version("1"));
    scene.add("b", 1, object(remote("a", "1")), Base::Absent);
    assert_eq!(scene.jobs(), ["send b"]);
    scene.pending.pop();
    assert_eq!(scene.jobs(), ["remove a"]);
}

#[test]
fn who_reads_another_version_than_the_one_that_goes_is_not_waited_for() {
    let mut scene = Scene::new();
    scene.add("a", 1, Want::Gone, version("2"));
    scene.add("d/b", 2, object(remote("a", "1")), Base::Absent);
    assert_eq!(scene.jobs(), ["send d/b", "remove a"]);
}

#[test]
fn an_exchange_is_cut_by_staging_one_side() {
    let mut scene = Scene::new();
    scene.add("a", 1, object(remote("b", "2")), version("1"));
    scene.add("b", 1, object(remote("a", "1")), version("2"));
    assert_eq!(scene.jobs(), ["stage b"]);
    scene.in_flight("b", 1, true);
    assert_eq!(scene.jobs(), [""; 0]);
    scene.busy = Busy::default();
    scene.pending[1].1.staged = Some((Seq(1), "u".into(), vec![]));
    assert_eq!(scene.jobs(), ["send a"]);
    scene.pending.remove(0);
    assert_eq!(scene.jobs(), ["send b"]);
}

#[test]
fn a_copy_behind_a_change_of_its_source_in_the_same_directory_is_staged() {
    let mut scene = Scene::new();
    scene.add("a", 1, object(local(1, 9)), version("1"));
    scene.add("b", 2, object(remote("a", "1")), Base::Absent);
    assert_eq!(scene.jobs(), ["stage b"]);
    scene.rules.order = Order::None;
    assert_eq!(scene.jobs(), ["send b"]);
}

#[test]
fn parts_staged_for_an_older_generation_do_not_count() {
    let mut scene = Scene::new();
    scene.add("a", 1, Want::Gone, version("1"));
    let reader = scene.add("d/b", 2, object(remote("a", "1")), Base::Absent);
    reader.staged = Some((Seq(1), "u".into(), vec![]));
    assert_eq!(scene.jobs(), ["finish d/b"]);
    scene.pending[1].1.staged = Some((Seq(2), String::new(), vec![]));
    assert_eq!(scene.jobs(), ["send d/b"]);
}

#[test]
fn an_older_upload_does_not_wait_for_its_turn_and_is_finished_also_where_nothing_is_wanted() {
    let mut scene = Scene::new();
    scene.add("a", 2, object(remote("gone", "1")), Base::Absent);
    scene.add("b", 3, Want::Gone, Base::Absent).staged = Some((Seq(1), "u".into(), vec![]));
    scene.add("c", 4, object(local(1, 9)), Base::Absent);
    assert_eq!(scene.jobs(), ["send a", "finish b"]);
    // Nobody needs a version of another key: the upload is only aborted.
    scene.pending.remove(0);
    assert_eq!(scene.jobs(), ["remove b"]);
}

#[test]
fn an_older_upload_is_not_finished_over_a_version_that_the_newer_generation_needs() {
    let mut scene = Scene::new();
    let entry = scene.add("a", 2, object(remote("a", "1")), version("1"));
    entry.staged = Some((Seq(1), "u".into(), vec![]));
    assert_eq!(scene.jobs(), ["send a"]);
}

#[test]
fn what_a_dead_change_still_needs_is_parked_and_nobody_waits_for_it() {
    let mut scene = Scene::new();
    let dead = scene.add("c", 1, object(remote("b", "1")), Base::Absent);
    dead.dead = Some(Refusal::Denied("no".into()));
    scene.add("b", 2, object(remote("a", "1")), version("1"));
    scene.add("a", 3, Want::Gone, version("1"));
    let plan = scene.plan_at(10);
    assert_eq!((shown(&plan).len(), plan.drained), (0, true));
    scene.add("d", 4, object(local(1, 9)), Base::Absent);
    assert_eq!(scene.jobs(), ["send d"]);
}

#[test]
fn bytes_that_an_earlier_change_sends_are_waited_for_and_copied() {
    let mut scene = Scene::new();
    scene.add("x/a", 1, object(local(1, 64 * KIB)), Base::Absent);
    scene.add("y/b", 2, object(local(1, 64 * KIB)), Base::Absent);
    assert_eq!(scene.jobs(), ["send x/a"]);
    scene.pending[0].1.held = true;
    assert_eq!(scene.jobs(), ["send y/b"]);
}

#[test]
fn a_few_shared_bytes_are_not_waited_for() {
    let mut scene = Scene::new();
    scene.add("x/a", 1, object(local(1, 64 * KIB - 1)), Base::Absent);
    scene.add("y/b", 2, object(local(1, 64 * KIB - 1)), Base::Absent);
    assert_eq!(scene.jobs(), ["send x/a", "send y/b"]);
}

#[test]
fn no_more_jobs_are_planned_than_may_be_in_flight() {
    let mut scene = Scene::new();
    for i in 0..9 {
        scene.add(&format!("{i}/f"), i, object(local(i, 9)), Base::Absent);
    }
    assert_eq!(scene.jobs().len(), 4);
    scene.in_flight("0/f", 0, false);
    assert_eq!(scene.jobs(), ["send 1/f", "send 2/f", "send 3/f"]);
}

#[test]
fn a_long_queue_behind_one_directory_is_not_walked_while_something_is_in_flight() {
    let mut scene = Scene::new();
    for i in 0..2000 {
        scene.add(&format!("d/{i:04}"), i, object(local(i, 9)), Base::Absent);
    }
    scene.add("e/f", 5000, object(local(5000, 9)), Base::Absent);
    assert_eq!(scene.jobs(), ["send d/0000"]);
    // Nothing can go in d: then all of the queue is looked at.
    let until = scene.start + Duration::from_secs(99);
    scene.busy.resting.insert(key("d/0000"), until);
    assert_eq!(scene.jobs(), ["send e/f"]);
}

//! What grows is sent rarely: the bytes of a log's whole life, by the planner and a clock of its own.

use super::*;
use crate::drain::pieces::{Facts, Piece, Shape, Sizes, pieces};

const MIB: u64 = 1 << 20;

/// Of `at`: what S3 has as `etag` (`kept` bytes), and `grown` more.
fn grown(at: &str, etag: u64, kept: u64, grown: u64) -> Want {
    let id = ObjectId {
        key: ObjectKey::new(at),
        etag: ETag::new(&etag.to_string()),
    };
    let mut extents = match kept {
        0 => Extents::default(),
        _ => Extents::whole(id, kept),
    };
    extents.put(Extent {
        at: kept,
        len: grown,
        from: Source::Local {
            file: FileNo(etag + 1),
            offset: 0,
        },
    });
    object(extents)
}

/// The bytes of the file that travel.
fn data(at: &str, entry: &Pending, kept: u64) -> u64 {
    let Want::Object(generation) = &entry.want else {
        panic!("nothing to be sent");
    };
    let facts = Facts {
        key: &key(at),
        base: &entry.base,
        size_of: &|_| Some(kept),
        is_local: &|_, _| true,
        staged: false,
        copies: true,
    };
    let sizes = Sizes {
        part: 8 * MIB,
        threshold: 8 * MIB,
    };
    match pieces(generation, &facts, &sizes) {
        Shape::Put => generation.len,
        Shape::CopySelf(_) => 0,
        Shape::Parts(all) => all.iter().fold(0, |sum, piece| match piece {
            Piece::Copy { .. } => sum,
            Piece::Send { start, end } => sum + (end - start),
        }),
    }
}

/// A line of 100 bytes is appended each second, by a process that opens and closes the file, from
/// `from` bytes until `to`. The bytes of each upload.
fn life(from: u64, to: u64) -> Vec<u64> {
    let mut scene = Scene::new();
    let start = scene.start;
    let (mut kept, mut uploads, mut sent) = (from, 0, Vec::new());
    let (mut len, mut secs) = (from, 0);
    while len < to {
        (len, secs) = (len + 100, secs + 1);
        let now = start + Duration::from_secs(secs);
        let first = scene
            .pending
            .pop()
            .map_or(now, |(_, entry)| entry.unsent_since);
        let base = match kept {
            0 => Base::Absent,
            _ => version(&uploads.to_string()),
        };
        let entry = scene.add("log", secs, grown("log", uploads, kept, len - kept), base);
        (entry.since, entry.unsent_since) = (now, first);
        if scene.plan_at(secs).jobs.is_empty() {
            continue;
        }
        let (_, entry) = scene.pending.pop().unwrap();
        sent.push(data("log", &entry, kept));
        scene.busy.published.begin(&key("log"), &entry, now);
        (kept, uploads) = (len, uploads + 1);
    }
    sent
}

#[test]
fn a_log_that_grows_to_8_mib_sends_at_most_ten_times_its_size_over_its_life() {
    let sent = life(0, 8 * MIB);
    let all: u64 = sent.iter().sum();
    println!("figure: {} uploads, {all} bytes", sent.len());
    assert!(all <= 10 * 8 * MIB, "{all} bytes in {} uploads", sent.len());
    assert!(sent.len() > 10, "it was sent now and then: {}", sent.len());
}

#[test]
fn a_line_a_second_into_100_mib_is_one_small_upload_a_minute() {
    let sent = life(100 * MIB, 100 * MIB + 3600 * 100);
    // The first line goes at once.
    assert!(
        (55..=61).contains(&sent.len()),
        "{} uploads in an hour",
        sent.len()
    );
    let most = sent.iter().max().unwrap();
    // The four requests around it are counted at the socket: see `bars`.
    assert!(*most <= 61 * 100, "{most} bytes");
}

/// `log` of 1000 bytes was sent as a growth just now, and got another line.
fn waiting() -> Scene {
    let mut scene = Scene::new();
    let start = scene.start;
    let entry = scene.add("d/log", 1, grown("d/log", 0, 1000, 10), version("0"));
    let sent = entry.clone();
    scene.busy.published.begin(&key("d/log"), &sent, start);
    scene
}

#[test]
fn what_grew_waits_until_it_grew_by_a_quarter_or_its_time_has_come() {
    let mut scene = waiting();
    let plan = scene.plan_at(10);
    let hour = scene.start + Duration::from_secs(3600);
    assert_eq!(
        (plan.jobs.len(), plan.next, plan.drained),
        (0, Some(hour), false)
    );
    assert_eq!(shown(&scene.plan_at(3600)), ["send d/log"]);
    scene.rules.append_max_age = Some(Duration::from_secs(30));
    assert_eq!(shown(&scene.plan_at(29)), [""; 0]);
    assert_eq!(shown(&scene.plan_at(30)), ["send d/log"]);
    scene.rules.append_max_age = None;
    scene.pending[0].1.want = grown("d/log", 0, 1000, 250);
    assert_eq!(scene.jobs(), ["send d/log"]);
}

#[test]
fn who_waits_for_it_does_not_wait_for_it_to_grow() {
    let mut scene = waiting();
    scene.rules.hurry = true;
    assert_eq!(scene.jobs(), ["send d/log"]);
    scene.rules.hurry = false;
    scene.pending[0].1.urgent = true;
    assert_eq!(scene.jobs(), ["send d/log"]);
}

#[test]
fn an_edit_and_a_truncation_are_no_growth() {
    let mut scene = waiting();
    let first = scene.pending[0].1.want.clone();
    scene.pending[0].1.want = object(local(9, 1010));
    assert_eq!(scene.jobs(), ["send d/log"]);
    let Want::Object(generation) = first else {
        panic!("no content")
    };
    scene.pending[0].1.want = object(generation.extents.slice(0, 500));
    assert_eq!(scene.jobs(), ["send d/log"]);
}

#[test]
fn a_later_change_of_the_directory_takes_along_what_waits_to_grow() {
    let mut scene = waiting();
    scene.add("e/other", 2, object(local(7, 5)), Base::Absent);
    assert_eq!(scene.jobs(), ["send e/other"], "of another directory");
    scene.add("d/log.done", 3, object(local(8, 5)), Base::Absent);
    assert_eq!(scene.jobs(), ["send e/other", "send d/log"]);
    scene.rules.order = Order::None;
    assert_eq!(scene.jobs(), ["send e/other", "send d/log.done"]);
}

#[test]
fn growths_of_one_directory_do_not_take_each_other_along() {
    let mut scene = waiting();
    scene.add("d/new", 2, grown("d/new", 0, 1000, 10), version("0"));
    assert_eq!(
        scene.jobs(),
        ["send d/new"],
        "it was never sent as a growth"
    );
}

#[test]
fn a_copy_that_shares_much_of_what_grew_takes_it_along() {
    let mut scene = waiting();
    let tail = 100 * KIB;
    scene.pending[0].1.want = grown("d/log", 0, 1000 * KIB, tail);
    assert_eq!(scene.jobs(), [""; 0]);
    // The data file of the growth.
    scene.add("e/copy", 2, object(local(1, tail)), Base::Absent);
    assert_eq!(scene.jobs(), ["send d/log"]);
}

#[test]
fn after_a_failure_it_waits_as_what_failed_and_not_to_grow() {
    let mut scene = waiting();
    scene.busy.published.failed(&key("d/log"));
    assert_eq!(scene.jobs(), ["send d/log"]);
}

//! How long removals wait for each other.

use super::*;

/// A removal in `d` that was wanted so many milliseconds after the start.
fn removed(scene: &mut Scene, number: u64, millis: u64) {
    let at = scene.start + Duration::from_millis(millis);
    let entry = scene.add(&format!("d/{number:05}"), number, Want::Gone, version("1"));
    (entry.since, entry.unsent_since) = (at, at);
}

fn sizes(plan: &Plan) -> Vec<usize> {
    plan.jobs.iter().map(|job| job.keys().len()).collect()
}

#[test]
fn a_directory_that_is_emptied_slowly_is_as_few_requests_as_its_keys_need() {
    let mut scene = Scene::new();
    let mut sent = Vec::new();
    // Twenty a second: a full request takes 50 s to gather.
    for number in 0..1500 {
        removed(&mut scene, number, number * 50);
        let sizes = sizes(&scene.plan_at(number / 20));
        if !sizes.is_empty() {
            sent.extend(sizes);
            scene.pending.clear();
        }
    }
    assert_eq!(sent, [1000]);
    let last = 1499 / 20;
    assert_eq!(sizes(&scene.plan_at(last + 1)), [0; 0]);
    assert_eq!(sizes(&scene.plan_at(last + 3)), [500]);
}

#[test]
fn what_would_wait_for_removals_without_end_is_sent_after_thirty_lingers() {
    let mut scene = Scene::new();
    for number in 0..60 {
        removed(&mut scene, number, number * 1000);
        let plan = scene.plan_at(number);
        assert!(plan.jobs.is_empty() && plan.next.is_some(), "{number}");
    }
    assert_eq!(sizes(&scene.plan_at(60)), [59], "those that are due");
}

#[test]
fn a_removal_that_something_is_published_behind_does_not_wait_for_others() {
    let mut scene = Scene::new();
    removed(&mut scene, 1, 0);
    scene.add("d/new", 2, object(local(1, 9)), Base::Absent);
    removed(&mut scene, 3, 1900);
    assert_eq!(shown(&scene.plan_at(2)), ["remove d/00001"]);
    scene.pending.remove(1);
    assert_eq!(shown(&scene.plan_at(2)), [""; 0]);
    scene.rules.hurry = true;
    assert_eq!(shown(&scene.plan_at(2)), ["batch d/00003 d/00001"]);
}

#[test]
fn removals_that_wait_leave_the_last_place_to_others_and_are_a_probe_where_nothing_else_is() {
    let mut scene = Scene::new();
    scene.rules.concurrency = 1;
    removed(&mut scene, 1, 0);
    removed(&mut scene, 2, 1900);
    assert_eq!(shown(&scene.plan_at(2)), ["remove d/00001"]);
    scene.pending.remove(0);
    scene.add("e/f", 3, object(local(1, 9)), Base::Absent);
    assert_eq!(shown(&scene.plan_at(2)), ["send e/f"]);
}

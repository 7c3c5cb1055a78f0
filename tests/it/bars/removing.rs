//! What removing many names costs.

use super::*;

#[test]
fn rm_r_of_thousands_of_objects_is_a_request_for_each_thousand_beside_the_listing() {
    let thousands = if long() { 10 } else { 3 };
    // Nothing of it depends on how fast the names go: see `drain/plan/removals`.
    let options = [("linger", "60s"), ("ttl", "1h")];
    let bench = Bench::with("rm", &options, |world| {
        let objects = 1000 * usize::try_from(thousands).unwrap();
        world.cloud.load(&world.key("huge/n"), objects);
    });
    let cost = bench.cost(run("rm -r huge"));
    assert_eq!(cost.cloud.requests("DeleteObjects"), thousands, "{cost:?}");
    // The pages, and a few about the directory itself. Between the last name and the directory
    // there may be time enough to keep it as an empty one.
    assert!(
        cost.cloud.requests("ListObjectsV2") <= thousands + 4,
        "{cost:?}"
    );
    cost.at_most(2 * thousands + 6);
    let left = bench.world.client.keys(&bench.world.key("huge"));
    assert_eq!(left, Vec::<String>::new());
}

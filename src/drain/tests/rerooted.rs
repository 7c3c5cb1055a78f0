//! The mount comes to another root (another SIM's, `new_identity=send`) while requests are under way.
//! The twin plays both folders: what an old request left in it is taken out again.

use super::*;

/// Nothing is awaited longer; it never is.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

/// The next request of the gate's kind, which a drain that takes the old answer for one never makes.
async fn comes(world: &World) {
    let next = tokio::time::timeout(LIMIT, world.gate.comes()).await;
    assert!(next.is_ok(), "nothing is sent to the new root");
}

async fn reroot(world: &World) {
    let tree = Arc::clone(&world.tree);
    let done = tokio::task::spawn_blocking(move || tree.reroot(false));
    assert!(done.await.unwrap().unwrap());
}

#[tokio::test]
async fn a_put_answered_of_the_old_root_is_sent_to_the_new_one() {
    let world = World::gated(Op::Put);
    world.write("a", b"hello");
    let (drained, swapped) = (world.drained(), async {
        comes(&world).await;
        reroot(&world).await;
        world.gate.lets_pass(1);
        comes(&world).await;
        assert_eq!(world.bytes("a"), b"hello", "that of the old root");
        world.twin.delete_behind("a");
        world.gate.lets_pass(1);
    });
    tokio::join!(drained, swapped);
    assert_eq!(world.bytes("a"), b"hello");
    assert_eq!((world.count(Op::Put), world.refused()), (2, Vec::new()));
    assert_eq!(world.drain.status().conflicts, 0);
}

#[tokio::test]
async fn an_upload_completed_in_the_old_root_is_made_again_in_the_new_one() {
    let world = World::gated(Op::Complete);
    world.write_large("a", 12 * MIB);
    let (drained, swapped) = (world.drained(), async {
        comes(&world).await;
        reroot(&world).await;
        world.gate.lets_pass(1);
        comes(&world).await;
        world.twin.delete_behind("a");
        world.gate.lets_pass(1);
    });
    tokio::join!(drained, swapped);
    assert_eq!(world.bytes("a").len() as u64, 12 * MIB);
    assert_eq!(world.refused(), Vec::new());
}

#[tokio::test]
async fn what_was_built_on_a_version_of_the_old_root_that_nobody_has_is_kept_and_told() {
    let world = World::gated(Op::CopyPart);
    let base = "x".repeat(12 << 20);
    world.twin.put_behind("a", base, Headers::default());
    world.append("a", b" two");
    let (drained, swapped) = (world.drained(), async {
        comes(&world).await;
        reroot(&world).await;
        world.twin.delete_behind("a");
        world.gate.lets_pass(1 << 20);
    });
    tokio::join!(drained, swapped);
    let refused = world.refused();
    assert!(
        matches!(&refused[..], [(name, why)] if name == "a" && why.contains("not in the cache")),
        "{refused:?}"
    );
    assert_eq!(world.twin.keys(), [""; 0], "half of it is not sent");
}

#[tokio::test]
async fn a_removal_under_way_removes_nothing_from_the_new_root() {
    let world = World::gated(Op::Delete);
    world.twin.put_behind("a", "one", Headers::default());
    world.set("a", Want::Gone, &[]);
    let (drained, swapped) = (world.drained(), async {
        comes(&world).await;
        reroot(&world).await;
        world.gate.lets_pass(1);
    });
    tokio::join!(drained, swapped);
    assert_eq!(world.count(Op::Delete), 1, "that of the old root");
    assert!(world.tree.known(&key("a")).is_none());
}

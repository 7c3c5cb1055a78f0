//! Removals: what they spare, what they cost.

use super::*;

#[tokio::test]
async fn a_removal_spares_what_a_stranger_wrote_since() {
    let world = World::new();
    world.twin.put_behind("a", "old", Headers::default());
    world.set("a", Want::Gone, &[]);
    world.twin.put_behind("a", "theirs", Headers::default());
    world.drained().await;
    assert_eq!(world.bytes("a"), b"theirs");
    assert_eq!(world.drain.status().conflicts, 1);
    let known = world.tree.known(&key("a")).unwrap();
    assert_eq!(known.id, world.twin.object("a").unwrap().1.id);
}

#[tokio::test]
async fn a_server_without_guarded_deletes_is_asked_first() {
    let world = World::new();
    world.twin.put_behind("a", "old", Headers::default());
    world.set("a", Want::Gone, &[]);
    let lacks = StoreError::NotImplemented("If-Match".into());
    world.fault.on(Op::Delete, 1, Kind::Before(lacks));
    world.drained().await;
    assert_eq!(world.twin.keys(), Vec::<String>::new());
    assert!(!world.drain.status().caps.delete_if_match);
    assert_eq!(world.count(Op::Head), 1);
}

#[tokio::test]
async fn several_removals_are_one_request() {
    let world = World::new();
    for name in ["a", "b", "c"] {
        world.twin.put_behind(name, "x", Headers::default());
        world.set(name, Want::Gone, &[]);
    }
    world.drained().await;
    assert_eq!(world.twin.keys(), Vec::<String>::new());
    assert_eq!(world.count(Op::DeleteBatch), 1);
    assert_eq!(world.count(Op::Delete), 0);
}

#[tokio::test]
async fn removals_in_one_request_spare_what_a_stranger_wrote_since() {
    let world = World::new();
    for name in ["a", "b", "c"] {
        world.twin.put_behind(name, "x", Headers::default());
        world.set(name, Want::Gone, &[]);
    }
    world.twin.put_behind("b", "theirs", Headers::default());
    world.twin.delete_behind("c");
    world.drained().await;
    assert_eq!(world.twin.keys(), ["b"]);
    assert_eq!(world.bytes("b"), b"theirs");
    assert_eq!(world.drain.status().conflicts, 1);
    let known = world.tree.known(&key("b")).unwrap();
    assert_eq!(known.id, world.twin.object("b").unwrap().1.id);
    let asked = (world.count(Op::DeleteBatch), world.count(Op::Head));
    assert_eq!(asked, (1, 1));
}

#[tokio::test]
async fn where_a_batch_of_removals_is_refused_each_goes_guarded_by_itself() {
    for refused in [
        StoreError::NotImplemented("DeleteObjects".into()),
        StoreError::Invalid("MalformedXML".into()),
    ] {
        let world = World::new();
        for name in ["a", "b", "c"] {
            world.twin.put_behind(name, "x", Headers::default());
            world.set(name, Want::Gone, &[]);
        }
        world.twin.put_behind("b", "theirs", Headers::default());
        world.fault.on(Op::DeleteBatch, 1, Kind::Before(refused));
        let denied = StoreError::AccessDenied("not yours".into());
        world.fault.on(Op::Delete, 3, Kind::Before(denied));
        world.drained().await;
        assert_eq!(world.twin.keys(), ["a", "b"]);
        assert_eq!(world.bytes("b"), b"theirs");
        assert_eq!(world.refused().len(), 1, "a");
    }
}

#[tokio::test]
async fn where_deletes_are_not_guarded_no_batch_goes_without_asking_first() {
    let world = World::new();
    world.twin.put_behind("old", "x", Headers::default());
    world.set("old", Want::Gone, &[]);
    let lacks = StoreError::NotImplemented("If-Match".into());
    world.fault.on(Op::Delete, 1, Kind::Before(lacks));
    world.drained().await;
    for name in ["a", "b"] {
        world.twin.put_behind(name, "x", Headers::default());
        world.set(name, Want::Gone, &[]);
    }
    world.twin.put_behind("b", "theirs", Headers::default());
    world.drained().await;
    assert_eq!(world.twin.keys(), ["b"]);
    assert_eq!(world.drain.status().caps.unguarded, 2, "old and a");
}

#[tokio::test]
async fn a_directory_and_what_was_in_it_are_removed_by_one_request() {
    let world = World::new();
    for name in ["d/", "d/a", "d/e/", "d/e/b"] {
        world.twin.put_behind(name, "", Headers::default());
    }
    for name in ["d/a", "d/e/b", "d/e/", "d/"] {
        world.set(name, Want::Gone, &[]);
    }
    world.drained().await;
    assert_eq!(world.twin.keys(), Vec::<String>::new());
    assert_eq!(world.count(Op::DeleteBatch), 1);
    assert_eq!(world.twin.counts().total(), 1);
}

//! What somebody else wrote meanwhile, and what becomes of what was written here.

use super::*;

#[tokio::test]
async fn the_last_writer_wins_over_a_strangers_version_and_it_is_counted() {
    let world = World::new();
    world.twin.put_behind("a", "old", Headers::default());
    world.write("a", b"ours");
    world.twin.put_behind("a", "theirs", Headers::default());
    world.drained().await;
    assert_eq!(world.bytes("a"), b"ours");
    assert_eq!(world.drain.status().conflicts, 1);
}

#[tokio::test]
async fn with_keep_both_a_replacement_becomes_a_sibling() {
    let world = World::with(Op::ListParts, ConflictPolicy::KeepBoth);
    world.twin.put_behind("a.txt", "old", Headers::default());
    world.write("a.txt", b"ours");
    world.twin.put_behind("a.txt", "theirs", Headers::default());
    world.drained().await;
    assert_eq!(world.bytes("a.txt"), b"theirs");
    let keys = world.twin.keys();
    let sibling = keys.iter().find(|key| key.contains(".conflict-")).unwrap();
    assert!(sibling.starts_with("a.conflict-") && sibling.ends_with(".txt"));
    assert_eq!(world.bytes(sibling), b"ours");
}

#[tokio::test]
async fn an_append_over_a_strangers_version_becomes_a_whole_sibling_from_the_cache() {
    let world = World::new();
    world.write("log", b"one\n");
    world.drained().await;
    world.append("log", b"two\n");
    world.twin.put_behind("log", "theirs", Headers::default());
    world.drained().await;
    assert_eq!(world.bytes("log"), b"theirs");
    let keys = world.twin.keys();
    let sibling = keys.iter().find(|key| key.contains(".conflict-")).unwrap();
    assert_eq!(world.bytes(sibling), b"one\ntwo\n");
}

#[tokio::test]
async fn an_append_whose_base_is_gone_and_not_cached_is_kept_here_with_its_reason() {
    let world = World::new();
    world.twin.put_behind("log", "old\n", Headers::default());
    world.append("log", b"two\n");
    world.twin.put_behind("log", "theirs", Headers::default());
    world.drained().await;
    assert_eq!(world.bytes("log"), b"theirs");
    let refused = world.refused();
    let [(at, why)] = refused.as_slice() else {
        panic!("one, not {refused:?}")
    };
    assert!(at.starts_with("log.conflict-"), "{at}");
    assert!(why.contains("not in the cache"), "{why}");
}

#[tokio::test]
async fn changed_metadata_is_set_on_what_a_stranger_wrote() {
    let world = World::new();
    world.twin.put_behind("a", "old", Headers::default());
    world.chmod("a", 0o600);
    world.twin.put_behind("a", "theirs", Headers::default());
    world.drained().await;
    assert_eq!(world.bytes("a"), b"theirs");
    assert_eq!(world.metadata("a", "mode").as_deref(), Some("33152"));
    assert_eq!(world.drain.status().conflicts, 1);
}

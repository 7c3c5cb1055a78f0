//! Markers of directories: their own kind of conflict, and servers whose keys are paths.

use super::*;
use crate::types::{ListPage, RelPath, Time};

fn refused() -> Kind {
    Kind::Before(StoreError::Precondition)
}

impl World {
    /// As mkdir and chmod do.
    fn mkdir(&self, at: &str, mode: u32) {
        let time = Time { secs: 1, nanos: 0 };
        let attrs = Attrs::new(crate::types::Kind::Dir, mode, 1, 2, time);
        self.object(at, Extents::default(), 0, attrs, &[]);
    }

    fn mode(&self, at: &str) -> u32 {
        let mode: u32 = self.metadata(at, "mode").unwrap().parse().unwrap();
        mode & 0o7777
    }
}

#[tokio::test]
async fn a_directory_that_is_there_already_takes_our_attributes_and_is_no_conflict() {
    for policy in [ConflictPolicy::LastWriter, ConflictPolicy::KeepBoth] {
        let world = World::with(Op::ListParts, policy);
        world.mkdir("d/", 0o750);
        world.twin.put_behind("d/", "", Headers::default());
        world.drained().await;
        assert_eq!(world.mode("d/"), 0o750);
        assert_eq!(world.twin.keys(), ["d/"]);
        assert_eq!(world.drain.status().conflicts, 0);
        let known = world.tree.known(&key("d/")).unwrap();
        assert_eq!(known.id, world.twin.object("d/").unwrap().1.id);
    }
}

#[tokio::test]
async fn what_somebody_keeps_in_a_marker_stays_when_it_takes_our_attributes() {
    let world = World::new();
    world.mkdir("d/", 0o750);
    world.twin.put_behind("d/", "theirs", Headers::default());
    world.drained().await;
    assert_eq!(world.bytes("d/"), b"theirs");
    assert_eq!(world.mode("d/"), 0o750);
}

#[tokio::test]
async fn a_directory_that_the_server_made_and_compares_with_nothing_is_replaced_all_the_same() {
    let world = World::new();
    world.mkdir("d/", 0o750);
    world.twin.put_behind("d/", "", Headers::default());
    world.fault.on(Op::Put, 2, refused());
    world.drained().await;
    assert_eq!(world.mode("d/"), 0o750);
    let status = world.drain.status();
    assert_eq!((status.conflicts, status.caps.unguarded), (0, 1));
    assert!(status.caps.if_match, "of files it is still believed");
}

#[tokio::test]
async fn such_a_directory_is_removed_having_been_asked_for_alone_or_in_a_batch() {
    let world = World::new();
    for at in ["d/", "e/", "e/a", "f/", "f/a"] {
        world.twin.put_behind(at, "", Headers::default());
    }
    world.set("d/", Want::Gone, &[]);
    world.fault.on(Op::Delete, 1, refused());
    world.drained().await;
    let caps = world.drain.status().caps;
    assert!(caps.delete_if_match && !caps.marker_guards);
    for at in ["e/a", "e/", "f/a", "f/"] {
        world.set(at, Want::Gone, &[]);
    }
    world.twin.put_behind("f/", "theirs", Headers::default());
    world.drained().await;
    assert_eq!(world.twin.keys(), ["f/"]);
    assert_eq!(world.count(Op::DeleteBatch), 1);
    let status = world.drain.status();
    assert_eq!((status.conflicts, status.caps.unguarded), (1, 2), "d, e");
}

#[tokio::test]
async fn what_the_server_made_takes_our_attributes_and_goes_when_its_directory_does() {
    let world = World::new();
    world.mkdir("d/", 0o750);
    world.twin.unmade_behind("d/");
    world.drained().await;
    assert_eq!(world.mode("d/"), 0o750);
    assert_eq!((world.count(Op::Put), world.count(Op::Head)), (2, 2));
    let status = world.drain.status();
    assert_eq!((status.conflicts, status.caps.unguarded), (0, 1));
    assert!(status.caps.if_match && !status.caps.marker_guards);
    // Its marker was never sent, so nothing is believed to be there.
    for at in ["e/", "f/", "g/"] {
        world.set(at, Want::Gone, &[]);
    }
    world.twin.unmade_behind("e/");
    world.twin.put_behind("f/", "", Headers::default());
    world.drained().await;
    assert_eq!(world.twin.keys(), ["d/", "f/"], "f is a stranger's");
    assert_eq!(world.drain.status().conflicts, 1);
    // It is known from a listing.
    world.twin.unmade_behind("h/");
    world.set("h/", Want::Gone, &[]);
    world.drained().await;
    assert_eq!(world.twin.keys(), ["d/", "f/"]);
}

/// `d/a`, that somebody else put there.
fn knows_a_file_in_a_directory_without_a_marker(world: &World) {
    let etag = world.twin.put_behind("d/a", "x", Headers::default());
    let (dir, asked) = (RelPath::new("d").unwrap(), world.tree.ask());
    let page = ListPage {
        objects: vec![crate::types::Listed {
            key: "d/a".into(),
            etag,
            size: 1,
            modified: 1,
            storage_class: None,
        }],
        ..ListPage::default()
    };
    asked.page(&dir, &page);
    asked.listed(&dir);
}

#[tokio::test]
async fn a_directory_that_is_removed_while_it_is_being_kept_is_gone() {
    let world = World::gated(Op::Put);
    knows_a_file_in_a_directory_without_a_marker(&world);
    world.set("d/a", Want::Gone, &[]);
    world.drain.hurry();
    world.gate.comes().await;
    world.set("d/", Want::Gone, &[]);
    world.gate.lets_pass(9);
    world.drained().await;
    assert_eq!(world.twin.keys(), Vec::<String>::new());
    let root = world.tree.view(|view| view.names(&RelPath::root()));
    assert_eq!(root, []);
}

#[tokio::test]
async fn an_emptied_directory_stays_also_where_the_server_has_one_of_its_own() {
    for (is_unmade, last) in [(false, None), (false, Some(refused())), (true, None)] {
        let world = World::gated(Op::Put);
        knows_a_file_in_a_directory_without_a_marker(&world);
        world.set("d/a", Want::Gone, &[]);
        world.drain.hurry();
        world.gate.comes().await;
        // A listing did not show it. (The next PUT is the second one.)
        match is_unmade {
            true => world.twin.unmade_behind("d/"),
            false => drop(world.twin.put_behind("d/", "", Headers::default())),
        }
        if let Some(refused) = last {
            world.fault.on(Op::Put, 1, refused);
        }
        world.gate.lets_pass(9);
        world.drained().await;
        assert_eq!(world.twin.keys(), ["d/"]);
        assert!(world.metadata("d/", "kryptonfs").is_some(), "it is ours");
        assert!(world.tree.known(&key("d/")).is_some());
    }
}

#[tokio::test]
async fn a_listing_from_before_a_directory_was_removed_does_not_bring_it_back() {
    let world = World::new();
    world.mkdir("d/", 0o750);
    world.drained().await;
    let (root, dir) = (RelPath::root(), RelPath::new("d").unwrap());
    let page = ListPage {
        prefixes: vec!["d/".into()],
        ..ListPage::default()
    };
    let asked = world.tree.ask();
    world.set("d/", Want::Gone, &[]);
    world.drained().await;
    let shown = || world.tree.view(|view| view.names(&root));
    asked.page(&root, &page);
    asked.listed(&root);
    assert_eq!(shown(), []);
    assert!(asked.probed(&dir, &page));
    asked.dir_probed(&dir, true);
    assert_eq!(shown(), []);
    // Asked since, it is there: somebody else made it.
    drop(asked);
    world.tree.ask().page(&root, &page);
    assert_eq!(shown().len(), 1);
}

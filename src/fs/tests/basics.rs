//! Directories, attributes, handles and awkward names.

use super::*;

#[tokio::test]
async fn directories_are_made_listed_and_removed_only_when_empty() {
    let world = World::new();
    world.mkdir("d").await.unwrap();
    assert_eq!(world.mkdir("d").await.unwrap_err(), FsError::Exists);
    world.put("d/f", b"x").await.unwrap();
    let (dir, name) = world.parent("d").await.unwrap();
    assert_eq!(
        world.fs.rmdir(dir, name).await.unwrap_err(),
        FsError::NotEmpty
    );
    world.unlink("d/f").await.unwrap();
    assert_eq!(world.names("d").await.unwrap(), Vec::<String>::new());
    world.fs.rmdir(dir, name).await.unwrap();
    assert_eq!(world.at("d").await.unwrap_err(), FsError::NotFound);
    assert_eq!(
        world.reboot().await.names("").await.unwrap(),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn creating_in_a_new_directory_asks_the_bucket_nothing() {
    let world = World::new();
    world.mkdir("d").await.unwrap();
    let before = world.twin.counts().total();
    for index in 0..50 {
        world.put(&format!("d/{index}"), b"x").await.unwrap();
    }
    assert_eq!(world.twin.counts().total(), before);
}

#[tokio::test]
async fn creating_in_an_unlisted_directory_asks_once_a_name_and_never_lists_it() {
    let world = World::new();
    for index in 0..50 {
        world
            .twin
            .put_behind(&format!("d/old{index}"), "x", Headers::default());
    }
    world.at("d").await.unwrap();
    let before = world.twin.counts().total();
    world.put("d/new", b"x").await.unwrap();
    assert_eq!(world.twin.counts().total() - before, 1);
}

#[tokio::test]
async fn a_cold_listing_is_one_list_a_page_and_no_head() {
    let world = World::new();
    for index in 0..2500 {
        world
            .twin
            .put_behind(&format!("d/{index:05}"), "x", Headers::default());
    }
    let stat = world.at("d").await.unwrap();
    let before = world.twin.counts();
    assert_eq!(world.names("d").await.unwrap().len(), 2500);
    for index in (0..2500).step_by(100) {
        world
            .fs
            .lookup(stat.ino, format!("{index:05}").as_bytes())
            .await
            .unwrap();
    }
    assert_eq!(
        world.fs.lookup(stat.ino, b"absent").await.unwrap_err(),
        FsError::NotFound
    );
    let counts = world.twin.counts().since(&before);
    assert_eq!((counts.of(Op::List), counts.total()), (3, 3));
}

#[tokio::test]
async fn a_copy_by_reference_moves_no_byte() {
    let world = World::new();
    world
        .twin
        .put_behind("big", vec![5u8; 300_000], Headers::default());
    let (from, source) = world.open("big", libc::O_RDONLY).await.unwrap();
    let (to, target) = world
        .open("copy", libc::O_WRONLY | libc::O_CREAT)
        .await
        .unwrap();
    let copied = world
        .fs
        .copy_file_range((source, 0), (target, 0), 1 << 20)
        .await
        .unwrap();
    assert_eq!(copied, 300_000);
    world.close(to, target).await.unwrap();
    world.close(from, source).await.unwrap();
    assert_eq!(world.twin.counts().of(Op::Get), 0);
    assert_eq!(world.get("copy").await.unwrap(), vec![5u8; 300_000]);
}

#[tokio::test]
async fn attributes_set_on_a_file_are_shown_and_survive_a_reboot() {
    let world = World::new();
    world.put("f", b"x").await.unwrap();
    let ino = world.at("f").await.unwrap().ino;
    let time = Time {
        secs: 1_500_000_000,
        nanos: 5,
    };
    let change = SetAttr {
        mode: Some(0o600),
        uid: Some(42),
        mtime: Some(SetTime::At(time)),
        ..SetAttr::default()
    };
    world.fs.setattr(ino, change).await.unwrap();
    world.fs.setxattr(ino, b"user.k", b"v", 0).await.unwrap();
    let world = world.reboot().await;
    let stat = world.at("f").await.unwrap();
    assert_eq!(
        (stat.perm, stat.uid, stat.gid, stat.mtime),
        (0o600, 42, 8, time)
    );
    assert_eq!(world.fs.getxattr(stat.ino, b"user.k").await.unwrap(), b"v");
    assert_eq!(
        world
            .fs
            .getxattr(stat.ino, b"security.capability")
            .await
            .unwrap_err(),
        FsError::NotSupported
    );
}

#[tokio::test]
async fn an_open_handle_never_shows_a_second_foreign_version() {
    let world = World::with_ttl(Duration::ZERO);
    world.twin.put_behind("f", "one", Headers::default());
    let (ino, fh) = world.open("f", libc::O_RDONLY).await.unwrap();
    assert_eq!(&world.fs.read(ino, fh, 0, 100).await.unwrap()[..], b"one");
    world.twin.put_behind("f", "two", Headers::default());
    let now = world.at("f").await.unwrap();
    assert_ne!(now.ino, ino);
    assert_eq!(&world.fs.read(ino, fh, 0, 100).await.unwrap()[..], b"one");
    assert_eq!(world.get("f").await.unwrap(), b"two");
}

#[tokio::test]
async fn keys_that_are_no_paths_are_hidden_and_block_nobody() {
    let world = World::new();
    for key in ["a//b", "../x", "./y", "a/../z", "good", "/lead"] {
        world.twin.put_behind(key, "x", Headers::default());
    }
    let names = world.names("").await.unwrap();
    assert!(names.contains(&"good".to_string()), "{names:?}");
    assert!(
        names
            .iter()
            .all(|name| name != ".." && name != "." && !name.is_empty())
    );
    assert!(world.fs.tree.hidden() > 0);
    world.names("a").await.unwrap();
}

#[tokio::test]
async fn an_exchange_swaps_contents() {
    let world = World::new();
    world.put("a", b"A").await.unwrap();
    world.put("b", b"B").await.unwrap();
    let (from, to) = (
        world.parent("a").await.unwrap(),
        world.parent("b").await.unwrap(),
    );
    world
        .fs
        .rename(from, to, RenameFlags::Exchange)
        .await
        .unwrap();
    assert_eq!(world.get("a").await.unwrap(), b"B");
    assert_eq!(world.get("b").await.unwrap(), b"A");
}

#[tokio::test]
async fn what_an_open_for_reading_cut_short_stays_cut_short() {
    let world = World::new();
    world.put("f", b"long before").await.unwrap();
    let flags = libc::O_RDONLY | libc::O_TRUNC;
    let (ino, fh) = world.open("f", flags).await.unwrap();
    world.close(ino, fh).await.unwrap();
    assert_eq!(world.get("f").await.unwrap(), b"");
    let world = world.reboot().await;
    assert_eq!(world.get("f").await.unwrap(), b"");
}

async fn listed_and_old(ttl: Duration, count: usize) -> (World, Ino) {
    let world = World::with_ttl(ttl);
    for index in 0..count {
        let key = format!("d/{index}");
        world.twin.put_behind(&key, "x", Headers::default());
    }
    let dir = world.at("d").await.unwrap().ino;
    assert_eq!(world.names("d").await.unwrap().len(), count);
    tokio::time::sleep(ttl).await;
    (world, dir)
}

#[tokio::test]
async fn what_is_made_anew_is_not_asked_for_and_who_must_know_is_told_past_ttl() {
    let (world, dir) = listed_and_old(Duration::from_millis(1), 50).await;
    world.twin.put_behind("d/theirs", "t", Headers::default());
    let (anew, new) = (
        libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC,
        libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL,
    );
    let before = world.twin.counts().total();
    let create = |name: &'static [u8], flags| world.fs.create(dir, name, 0o644, flags, ME);
    create(b"ours", anew).await.unwrap();
    assert_eq!(world.twin.counts().total(), before);
    let error = create(b"theirs", new).await.unwrap_err();
    assert_eq!(error, FsError::Exists);
    assert_eq!(world.twin.counts().total(), before + 1);
}

#[tokio::test]
async fn names_of_a_small_directory_that_are_asked_for_one_by_one_past_ttl_are_soon_listed() {
    let (world, dir) = listed_and_old(Duration::from_secs(2), 4).await;
    world.twin.put_behind("d/3", "changed", Headers::default());
    let before = world.twin.counts();
    for index in 0..4 {
        let name = index.to_string();
        let size = world.fs.lookup(dir, name.as_bytes()).await.unwrap().size;
        assert_eq!(size, if index == 3 { 7 } else { 1 });
    }
    let absent = world.fs.lookup(dir, b"absent").await.unwrap_err();
    assert_eq!(absent, FsError::NotFound);
    let cost = world.twin.counts().since(&before);
    assert_eq!((cost.of(Op::Head), cost.of(Op::List)), (1, 1));
    assert_eq!(cost.total(), 2);
}

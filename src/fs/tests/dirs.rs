//! Directories: what counts as one, and their renames.

use super::*;

/// The bucket's keys that are no markers.
fn files(world: &World) -> Vec<String> {
    let keys = world.twin.keys().into_iter().map(|key| key.to_string());
    keys.filter(|key| !key.ends_with('/')).collect()
}

async fn is_dir(world: &World, path: &str) -> bool {
    world.at(path).await.unwrap().kind == Kind::Dir
}

#[tokio::test]
async fn every_kind_of_directory_is_shown_and_can_be_emptied_and_removed() {
    let world = World::new();
    let put = |key: &str, body: &'static str, headers: Headers| {
        world.twin.put_behind(key, body, headers);
    };
    let plain = Headers::default;
    put("implicit/deep/f", "x", plain());
    put("marked/", "", plain());
    put("kept/", "what somebody keeps in a marker", plain());
    put("both", "a file of the same name", plain());
    put("both/f", "x", plain());
    let as_dir = Headers {
        content_type: Some("application/x-directory".into()),
        ..plain()
    };
    put("typed", "", as_dir);
    let names = ["both", "implicit", "kept", "marked", "typed"];
    assert_eq!(world.names("").await.unwrap(), names);
    for name in ["implicit", "implicit/deep", "marked", "kept", "both"] {
        assert!(is_dir(&world, name).await, "{name}");
        world.names(name).await.unwrap();
    }
    // No directory without a slash: a file that can be read, and nothing dies of it.
    world.get("typed").await.unwrap();
    world.unlink("implicit/deep/f").await.unwrap();
    world.drain().await;
    assert!(
        is_dir(&world, "implicit/deep").await,
        "an emptied one stays"
    );
    for name in ["implicit/deep", "implicit", "marked", "kept"] {
        let (dir, name) = world.parent(name).await.unwrap();
        world.fs.rmdir(dir, name).await.unwrap();
    }
    // The file comes out of the shadow when the directory goes.
    world.unlink("both/f").await.unwrap();
    let (dir, name) = world.parent("both").await.unwrap();
    world.fs.rmdir(dir, name).await.unwrap();
    world.drain().await;
    assert_eq!(world.names("").await.unwrap(), ["both", "typed"]);
    assert_eq!(world.get("both").await.unwrap(), b"a file of the same name");
}

#[tokio::test]
async fn a_directory_with_open_files_in_it_is_renamed_and_they_go_on() {
    let world = World::new();
    world.twin.put_behind("d/old", "sent", Headers::default());
    world.put("d/unsent", b"unsent").await.unwrap();
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
    let (ino, fh) = world.open("d/open", flags).await.unwrap();
    world.write(ino, fh, 0, b"before").await.unwrap();
    let (reader, reading) = world.open("d/old", libc::O_RDONLY).await.unwrap();
    world.rename("d", "e").await.unwrap();
    world.write(ino, fh, 6, b" and after").await.unwrap();
    assert_eq!(
        &world.fs.read(reader, reading, 0, 9).await.unwrap()[..],
        b"sent"
    );
    world.close(ino, fh).await.unwrap();
    world.close(reader, reading).await.unwrap();
    world.drain().await;
    assert_eq!(files(&world), ["e/old", "e/open", "e/unsent"]);
    assert_eq!(world.get("e/open").await.unwrap(), b"before and after");
    assert_eq!(world.at("d").await.unwrap_err(), FsError::NotFound);
}

#[tokio::test]
async fn renames_of_nested_directories_overlap_one_that_is_in_flight() {
    let (world, fault) = World::faulty();
    for index in 0..5 {
        let key = format!("a/sub/{index}");
        world.twin.put_behind(&key, "text", Headers::default());
    }
    world.put("a/sub/new", b"new").await.unwrap();
    world.rename("a", "b").await.unwrap();
    // The first copies are under way.
    fault.on(Op::CreateMultipart, 1, crate::store::fault::Kind::Hold);
    world.drain.hurry();
    while fault.pending() > 0 {
        tokio::task::yield_now().await;
    }
    world.rename("b/sub", "c").await.unwrap();
    world.mkdir("b/sub").await.unwrap();
    world.put("b/sub/other", b"other").await.unwrap();
    world.rename("b", "a").await.unwrap();
    world.rename("c", "a/sub/c").await.unwrap();
    let look = |world: World| async move {
        assert_eq!(world.names("a/sub").await.unwrap(), ["c", "other"]);
        assert_eq!(world.get("a/sub/c/4").await.unwrap(), b"text");
        assert_eq!(world.get("a/sub/c/new").await.unwrap(), b"new");
        assert_eq!(world.at("b").await.unwrap_err(), FsError::NotFound);
        world
    };
    let world = look(world).await;
    fault.let_go();
    world.drain().await;
    let world = look(world).await;
    let mut wanted: Vec<_> = (0..5).map(|index| format!("a/sub/c/{index}")).collect();
    wanted.extend(["a/sub/c/new", "a/sub/other"].map(String::from));
    assert_eq!(files(&world), wanted);
}

#[tokio::test]
async fn a_directory_does_not_go_into_itself_and_above_the_limit_nothing_is_done() {
    let world = World::new();
    for index in 0..=config().rename_limit {
        let key = format!("d/{index:04}");
        world.twin.put_behind(&key, "x", Headers::default());
    }
    let before = world.twin.keys();
    let inside = world.rename("d", "d/e").await.unwrap_err();
    assert_eq!(inside, FsError::Invalid);
    let many = world.rename("d", "e").await.unwrap_err();
    assert_eq!(many, FsError::TooManyObjects);
    assert_eq!(world.at("e").await.unwrap_err(), FsError::NotFound);
    world.drain().await;
    assert_eq!(world.twin.keys(), before);
    world.unlink("d/0000").await.unwrap();
    world.drain().await;
    world.rename("d", "e").await.unwrap();
    assert_eq!(world.get("e/0001").await.unwrap(), b"x");
}

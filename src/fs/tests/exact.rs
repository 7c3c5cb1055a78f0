//! `attrs=exact`: attributes that a listing does not carry are asked for, once.

use super::*;

fn theirs(mode: &str, uid: &str) -> Headers {
    let pairs = [
        ("mode", mode),
        ("uid", uid),
        ("gid", "12"),
        ("mtime", "1000000000.5"),
    ];
    let metadata = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Headers {
        metadata: metadata.into_iter().collect(),
        ..Headers::default()
    }
}

fn world(exact: bool) -> World {
    let (twin, dir) = (Arc::new(Twin::new()), tempfile::tempdir().unwrap());
    // S_IFREG | 0640, S_IFLNK | 0777, S_IFDIR | 0750.
    twin.put_behind("d/f", "x", theirs("33184", "11"));
    twin.put_behind("d/l", "f", theirs("41471", "11"));
    twin.put_behind("d/sub/", "", theirs("16872", "11"));
    twin.put_behind("d/bare/f", "x", Headers::default());
    let (fs, drain) = start_with(Arc::clone(&twin) as _, dir.path(), TTL, |config| {
        config.attrs_exact = exact;
    });
    World {
        fs,
        twin,
        drain,
        dir,
    }
}

/// Name, kind, mode and owner of each entry, as a listing with attributes shows them.
async fn shown(world: &World) -> Vec<(String, Kind, u16, u32)> {
    let fh = world
        .fs
        .opendir(world.at("d").await.unwrap().ino)
        .await
        .unwrap();
    let mut all = Vec::new();
    let mut emit = |entry: &DirEntry| {
        let name = String::from_utf8_lossy(&entry.name).into_owned();
        all.push((name, entry.stat.kind, entry.stat.perm, entry.stat.uid));
        true
    };
    world.fs.readdir(fh, 0, true, &mut emit).await.unwrap();
    world.fs.releasedir(fh);
    let mut all = all.split_off(2);
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

fn expected() -> Vec<(String, Kind, u16, u32)> {
    vec![
        ("bare".into(), Kind::Dir, 0o755, 0),
        ("f".into(), Kind::File, 0o640, 11),
        ("l".into(), Kind::Symlink, 0o777, 11),
        ("sub".into(), Kind::Dir, 0o750, 11),
    ]
}

#[tokio::test]
async fn a_listing_shows_modes_owners_links_and_times_and_asks_once() {
    let world = world(true);
    assert_eq!(shown(&world).await, expected());
    let asked = world.twin.counts();
    // The four, and the directory itself.
    assert_eq!(asked.of(Op::Head), 5, "{asked:?}");
    assert_eq!(shown(&world).await, expected());
    assert_eq!(world.at("d/f").await.unwrap().mtime.secs, 1_000_000_000);
    assert_eq!(world.twin.counts().since(&asked).total(), 0);
}

#[tokio::test]
async fn a_single_name_is_exact_without_a_listing() {
    let world = world(true);
    let stat = world.at("d/l").await.unwrap();
    assert_eq!((stat.kind, stat.uid), (Kind::Symlink, 11));
    assert_eq!(world.at("d/sub").await.unwrap().perm, 0o750);
}

#[tokio::test]
async fn lazily_nothing_is_asked_for() {
    let world = world(false);
    let all = shown(&world).await;
    assert_eq!(all.iter().filter(|entry| entry.3 == 11).count(), 0);
    assert_eq!(world.twin.counts().of(Op::Head), 0);
}

use std::collections::HashMap;
use std::time::Duration;

use super::*;
use crate::log::{Change, Record, SentObject};
use crate::tree::{Freshness, Opened, Seen, Tree};
use crate::types::{
    Attrs, Base, Extents, Generation, Headers, Kind, ListPage, Listed, ObjectId, ObjectKey, RelKey,
    Seq, Time, Want,
};

const TTL: Duration = Duration::from_secs(60);
const FILE: &str = "spool/listings";

fn config(dir: &Path, bucket: &str, spool_max: u64) -> log::Config {
    log::Config {
        dir: dir.join("spool"),
        binding: Binding {
            endpoint: "e".into(),
            bucket: bucket.into(),
            prefix: String::new(),
        },
        spool_max,
        disk_reserve: 0,
    }
}

fn open_as(dir: &Path, bucket: &str, spool_max: u64) -> Opened {
    let config = config(dir, bucket, spool_max);
    Tree::open(config, &dir.join("spool/memory"), TTL).unwrap()
}

fn open(dir: &Path) -> Opened {
    open_as(dir, "b", 1 << 30)
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn listed(key: &str, etag: &str) -> Listed {
    Listed {
        key: key.into(),
        etag: ETag::new(etag),
        size: 7,
        modified: 8,
        storage_class: None,
    }
}

/// A directory was listed: `d/` for a directory in it.
fn list(tree: &Tree, dir: &str, names: &[&str]) {
    let dir = path(dir);
    let keys = names
        .iter()
        .map(|name| format!("{}{name}", dir.dir_prefix()));
    let (dirs, files): (Vec<_>, Vec<_>) = keys.partition(|key| key.ends_with('/'));
    let page = ListPage {
        objects: files.iter().map(|key| listed(key, key)).collect(),
        prefixes: dirs,
        ..ListPage::default()
    };
    let asked = tree.ask();
    asked.page(&dir, &page);
    asked.listed(&dir);
    drop(asked);
    tree.keep_listings();
}

fn names(tree: &Tree, dir: &str) -> Vec<String> {
    let names = tree.view(|view| view.names(&path(dir)));
    names.iter().map(Name::to_string).collect()
}

fn freshness(tree: &Tree, dir: &str) -> Option<Freshness> {
    tree.view(|view| view.listed(&path(dir)))
}

fn etag(tree: &Tree, name: &str) -> Option<String> {
    let known = tree.known(&RelKey::file(&path(name)))?;
    Some(known.id.etag.to_string())
}

fn len(dir: &Path) -> u64 {
    std::fs::metadata(dir.join(FILE)).unwrap().len()
}

/// A new name is wanted; the number of the change.
fn want(tree: &Tree, key: &RelKey, kind: Kind) -> Seq {
    let attrs = Attrs::new(kind, 0o755, 0, 0, Time { secs: 1, nanos: 0 });
    let generation = Generation {
        extents: Extents::default(),
        len: 0,
        attrs,
    };
    let change = Change {
        key: key.clone(),
        want: Want::Object(generation.into()),
        base: Base::Absent,
        number: None,
    };
    tree.change::<crate::log::LogError>(|_| Ok((vec![change], Vec::new())))
        .unwrap()
}

/// The drain sent a new file.
fn send(tree: &Tree, name: &str, etag: &str) {
    let key = RelKey::file(&path(name));
    let number = want(tree, &key, Kind::File);
    let object = Box::new(SentObject {
        id: ObjectId {
            key: ObjectKey::from(&key),
            etag: ETag::new(etag),
        },
        size: 0,
        modified: 1,
        headers: Headers::default(),
    });
    tree.record(Record::Sent {
        key,
        number,
        object,
    })
    .unwrap();
}

#[test]
fn what_was_sent_from_a_directory_whose_own_marker_waits_is_seen_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    want(&opened.tree, &RelKey::dir(&path("d")), Kind::Dir);
    send(&opened.tree, "d/a", "1");
    drop(opened);
    assert_eq!(names(&open(dir.path()).tree, "d"), ["a"]);
}

#[test]
fn what_was_listed_is_known_after_a_restart_and_is_old() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    list(&opened.tree, "", &["d/", "f"]);
    list(&opened.tree, "d", &["x", "y", "sub/"]);
    list(&opened.tree, "d", &["x", "z", "sub/"]);
    drop(opened);
    let tree = open(dir.path()).tree;
    assert_eq!(names(&tree, ""), ["d", "f"]);
    assert_eq!(names(&tree, "d"), ["sub", "x", "z"], "y was gone");
    for dir in ["", "d"] {
        assert_eq!(freshness(&tree, dir), Some(Freshness::Old));
    }
    assert_eq!(freshness(&tree, "d/sub"), None);
    let look = |name: &str| tree.view(|view| view.lookup(&path(name)));
    let Seen::Here(node, Freshness::Old) = look("d/x") else {
        panic!("{:?}", look("d/x"));
    };
    assert_eq!(
        (node.kind, node.len, node.modified),
        (Kind::File, 7, Some(8))
    );
    assert_eq!(etag(&tree, "d/x").unwrap(), "d/x");
    assert!(matches!(look("d/y"), Seen::NotHere(Freshness::Old)));
    assert!(matches!(look("d/sub/a"), Seen::Unknown));
}

#[test]
fn a_torn_or_flipped_file_is_like_a_shorter_one_and_never_shows_what_was_not() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    list(&opened.tree, "", &["d/", "f"]);
    list(&opened.tree, "d", &["x", "y"]);
    drop(opened);
    let whole = std::fs::read(dir.path().join(FILE)).unwrap();
    let check = |bytes: &[u8], what: &str| {
        std::fs::write(dir.path().join(FILE), bytes).unwrap();
        let config = config(dir.path(), "b", 1 << 30);
        let now = tokio::time::Instant::now().into_std();
        let (_, before) = Listings::open(&dir.path().join(FILE), &config, now, TTL);
        for (of, all) in [("", vec!["d", "f"]), ("d", vec!["x", "y"])] {
            let Some(found) = before.remote.dir(&path(of)) else {
                continue;
            };
            let names: Vec<_> = found.names.keys().map(Name::as_str).collect();
            assert_eq!(names, all, "{what}");
            assert!(found.listed.is_some(), "{what}");
        }
    };
    for cut in 0..whole.len() {
        check(&whole[..cut], &format!("cut at {cut}"));
        let mut flipped = whole.clone();
        flipped[cut] ^= 0x10;
        check(&flipped, &format!("flipped at {cut}"));
    }
    check(&[0; 5000], "zeros");
    // What is learnt from then on is kept again, whatever is there.
    for cut in [0, 3, whole.len() / 2, whole.len() - 1] {
        std::fs::write(dir.path().join(FILE), &whole[..cut]).unwrap();
        list(&open(dir.path()).tree, "new", &["n"]);
        assert_eq!(names(&open(dir.path()).tree, "new"), ["n"], "cut at {cut}");
    }
}

#[test]
fn a_directory_that_is_listed_again_unchanged_is_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let tree = open(dir.path()).tree;
    let many: Vec<String> = (0..2500).map(|n| format!("n{n:05}")).collect();
    let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
    list(&tree, "d", &many);
    let first = len(dir.path());
    list(&tree, "d", &many);
    assert_eq!(len(dir.path()), first);
    many.pop();
    list(&tree, "d", &many);
    assert!(len(dir.path()) - first < 100, "one name is gone");
    drop(tree);
    let tree = open(dir.path()).tree;
    assert_eq!(names(&tree, "d"), many);
    assert_eq!(freshness(&tree, "d"), Some(Freshness::Old));
    list(&tree, "d", &many);
    assert!(len(dir.path()) - first < 100, "nor after a restart");
}

#[test]
fn the_file_is_bounded_and_what_this_run_listed_wins() {
    let dir = tempfile::tempdir().unwrap();
    let room = 64 << 10;
    let open = || open_as(dir.path(), "b", room * 64);
    let some: Vec<String> = (0..300).map(|n| format!("name-{n:05}")).collect();
    let some: Vec<&str> = some.iter().map(String::as_str).collect();
    let many: Vec<String> = (0..5000).map(|n| format!("name-{n:05}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let opened = open();
    for number in 0..40 {
        list(&opened.tree, &format!("old{number}"), &some);
    }
    list(&opened.tree, "huge", &many);
    drop(opened);
    let opened = open();
    let kept = |tree: &Tree, kind: &str| {
        let all = (0..40).map(|number| freshness(tree, &format!("{kind}{number}")));
        all.flatten().count()
    };
    let before = kept(&opened.tree, "old");
    assert!((2..10).contains(&before), "{before}");
    assert_eq!(freshness(&opened.tree, "huge"), None);
    list(&opened.tree, "new0", &some);
    list(&opened.tree, "new1", &some);
    drop(opened);
    let opened = open();
    assert_eq!(kept(&opened.tree, "new"), 2);
    assert!(kept(&opened.tree, "old") < before);
    for number in 0..500 {
        let name = format!("changing-{number}");
        list(&opened.tree, "new1", &[&some[..], &[&name]].concat());
        let len = len(dir.path());
        assert!(len <= 2 * room + SLACK + (8 << 10), "{len}");
    }
}

#[test]
fn results_of_the_log_count_only_where_they_are_newer_than_the_listing() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    send(&opened.tree, "d/mine", "1");
    send(&opened.tree, "d/removed", "1");
    send(&opened.tree, "elsewhere/mine", "1");
    // Meanwhile somebody replaced one and removed another.
    let page = ListPage {
        objects: vec![listed("d/mine", "theirs")],
        ..ListPage::default()
    };
    let asked = opened.tree.ask();
    asked.page(&path("d"), &page);
    asked.listed(&path("d"));
    drop(asked);
    opened.tree.keep_listings();
    send(&opened.tree, "d/later", "2");
    drop(opened);
    let tree = open(dir.path()).tree;
    assert_eq!(names(&tree, "d"), ["later", "mine"]);
    assert_eq!(etag(&tree, "d/mine").unwrap(), "theirs");
    assert_eq!(etag(&tree, "d/later").unwrap(), "2");
    assert_eq!(etag(&tree, "elsewhere/mine").unwrap(), "1");
}

#[test]
fn the_listings_of_another_bucket_are_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    list(&open(dir.path()).tree, "d", &["x"]);
    let other = open_as(dir.path(), "other", 1 << 30);
    assert_eq!(freshness(&other.tree, "d"), None);
    assert_eq!(names(&other.tree, "d"), Vec::<String>::new());
}

#[test]
fn a_directory_that_went_is_not_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    list(&opened.tree, "", &["d/"]);
    list(&opened.tree, "d", &["x"]);
    list(&opened.tree, "", &["f"]);
    drop(opened);
    let tree = open(dir.path()).tree;
    assert_eq!(names(&tree, ""), ["f"]);
    assert_eq!(freshness(&tree, "d"), None);
}

/// One step of a directory's life.
#[derive(Clone, Copy, Debug)]
enum Step {
    Want(&'static str),
    Sent(&'static str, &'static str),
    /// `d` is `e` from now on.
    Rename,
    Gone(&'static str),
}

/// A directory with two files is made, sent, renamed, and its old name removed from the bucket.
const STEPS: [Step; 13] = [
    Step::Want("d/"),
    Step::Want("d/a"),
    Step::Want("d/b"),
    Step::Sent("d/", "1"),
    Step::Sent("d/a", "2"),
    Step::Sent("d/b", "3"),
    Step::Rename,
    Step::Sent("e/", "4"),
    Step::Sent("e/a", "5"),
    Step::Sent("e/b", "6"),
    Step::Gone("d/b"),
    Step::Gone("d/a"),
    Step::Gone("d/"),
];

fn key(text: &str) -> RelKey {
    RelKey::parse(text).unwrap()
}

fn kind_of(key: &RelKey) -> Kind {
    match key.is_dir() {
        true => Kind::Dir,
        false => Kind::File,
    }
}

/// The changes of the rename, by the versions that were sent.
fn rename() -> Vec<Change> {
    let names = [("d/", "e/", "1"), ("d/a", "e/a", "2"), ("d/b", "e/b", "3")];
    let both = names.map(|(old, new, etag)| {
        let attrs = Attrs::new(kind_of(&key(new)), 0o755, 0, 0, Time::default());
        let generation = Generation {
            extents: Extents::default(),
            len: 0,
            attrs,
        };
        let change = |at, want, base| Change {
            key: key(at),
            want,
            base,
            number: None,
        };
        [
            change(new, Want::Object(generation.into()), Base::Absent),
            change(old, Want::Gone, Base::Version(ETag::new(etag))),
        ]
    });
    both.into_iter().flatten().collect()
}

fn take(tree: &Tree, step: Step, numbers: &mut HashMap<RelKey, Seq>) {
    match step {
        Step::Want(at) => {
            let number = want(tree, &key(at), kind_of(&key(at)));
            numbers.insert(key(at), number);
        }
        Step::Rename => {
            let changes = rename();
            let keys: Vec<_> = changes.iter().map(|change| change.key.clone()).collect();
            let number = tree.change::<crate::log::LogError>(|_| Ok((changes, Vec::new())));
            let number = number.unwrap();
            numbers.extend(keys.into_iter().map(|key| (key, number)));
        }
        Step::Sent(at, etag) => {
            let object = Box::new(SentObject {
                id: ObjectId {
                    key: ObjectKey::new(at),
                    etag: ETag::new(etag),
                },
                size: 0,
                modified: 1,
                headers: Headers::default(),
            });
            let (key, number) = (key(at), numbers[&key(at)]);
            let sent = Record::Sent {
                key,
                number,
                object,
            };
            tree.record(sent).unwrap();
        }
        Step::Gone(at) => {
            let (key, number) = (key(at), numbers[&key(at)]);
            tree.record(Record::Removed { key, number }).unwrap();
        }
    }
}

/// Told to the file, compacted and listed at some steps, killed at each later one.
#[test]
fn a_directory_that_was_renamed_away_stays_away_whenever_it_is_killed() {
    for kept in 0..=STEPS.len() {
        let (packed, listed) = (STEPS.len() - kept, kept / 2);
        for cut in kept..=STEPS.len() {
            let dir = tempfile::tempdir().unwrap();
            let opened = open(dir.path());
            let tree = &opened.tree;
            list(tree, "", &["f"]);
            let mut numbers = HashMap::new();
            for (at, step) in STEPS[..cut].iter().enumerate() {
                if at == kept {
                    tree.keep_listings();
                }
                if at == packed {
                    tree.compact().unwrap();
                }
                if at == listed {
                    let dirs = [
                        (4..13).contains(&at).then_some("d/"),
                        (at > 7).then_some("e/"),
                    ];
                    let names: Vec<_> = dirs.into_iter().flatten().chain(["f"]).collect();
                    list(tree, "", &names);
                }
                take(tree, *step, &mut numbers);
            }
            if kept == cut {
                tree.keep_listings();
            }
            let all = |tree: &Tree| ["", "d", "e"].map(|dir| names(tree, dir));
            let before = all(tree);
            drop(opened);
            for start in 1..=2 {
                let what = format!("kept at {kept}, cut at {cut}, start {start}");
                assert_eq!(all(&open(dir.path()).tree), before, "{what}");
            }
        }
    }
}

//! Every byte that S3 allows in a key, and what people and programs make of names: each name is
//! listed, stated, read, created, renamed and deleted, and the bucket agrees.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::harness::tree::sha256;
use crate::harness::{Server, World};

/// A component's longest name.
const NAME_MAX: usize = 255;

/// Letters from many scripts and planes; combining, joining, directional and invisible ones.
const LETTERS: [u32; 46] = [
    0x80, 0x85, 0xa0, 0xad, 0xdf, 0xe9, 0xff, 0x130, 0x131, 0x1e9e, 0x212b, 0xfb01, 0x3a9, 0x416,
    0x5d0, 0x627, 0x905, 0xe01, 0x1100, 0xac00, 0x3042, 0x30a2, 0x4e00, 0x9f98, 0x2028, 0x2029,
    0x200b, 0x200d, 0x200f, 0x202e, 0x2066, 0xfe0f, 0xfeff, 0xfffd, 0xff0f, 0x2215, 0x2024, 0x2044,
    0x10000, 0x1f600, 0x1f980, 0x1f1ef, 0x20000, 0x2fa1d, 0xe0001, 0x10ffff,
];

/// At least 300 names, none of which a file system may take for another.
fn names() -> Vec<String> {
    let ascii = || (1u8..=127).filter(|byte| *byte != b'/').map(char::from);
    let letters = || LETTERS.iter().filter_map(|code| char::from_u32(*code));
    let mut names: Vec<String> = Vec::new();
    names.extend(ascii().filter(|c| *c != '.').map(String::from));
    names.extend(ascii().map(|c| format!("in{c}side")));
    names.extend(letters().map(String::from));
    names.extend(letters().map(|c| format!("{c}{c}{c}")));
    let others = [
        "caf\u{e9}",
        "cafe\u{301}",
        "Case",
        "case",
        "CASE",
        "...",
        "..a",
        "a..",
        "a.",
        ".a",
        " .",
        ". ",
        "%2F",
        "%2e%2e%2f",
        "%00",
        "%",
        "%%",
        "a+b c",
        "a%20b",
        "a+b%2Bc",
        "&amp;",
        "&#10;",
        "<Key>",
        "]]>",
        "a?versionId=x",
        "a#b",
        "s3:",
        "http:",
        "C:",
        "--",
        "-rf",
        "~",
        "*",
        "[a]",
        "\u{3042}\u{3099}",
        "\u{304c}",
        "\u{304b}\u{3099}",
        "a\u{301}\u{301}",
        "\r\n",
        "\n",
        ".fuse_hidden1",
        "null",
        "CON",
        "nul.txt",
        "a.conflict-b",
        "a.part",
        "a~",
        "#a#",
        "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
        "\u{e000}",
        "\u{f8ff}",
    ];
    names.extend(others.iter().map(|name| (*name).to_owned()));
    names.push("n".repeat(NAME_MAX));
    names.push("\u{3042}".repeat(NAME_MAX / 3));
    names.push("\u{1f980}".repeat(NAME_MAX / 4) + "end");
    let unique: BTreeSet<String> = names.into_iter().collect();
    unique.into_iter().collect()
}

fn listed(dir: &Path) -> BTreeSet<Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().as_bytes().into();
    entries.map(name).collect()
}

/// Below `dir` of the bucket: each name's checksum.
fn in_bucket(world: &World, dir: &str) -> BTreeMap<String, String> {
    let prefix = world.key(dir);
    let tree = world.client.tree(&prefix).into_iter();
    let tree = tree.filter(|object| !object.key.ends_with('/'));
    tree.map(|object| (object.key[prefix.len()..].to_owned(), object.sha256))
        .collect()
}

fn every_name_can_be_used(server: Server) {
    let names = names();
    assert!(names.len() >= 300, "only {}", names.len());
    let world = World::new(server, "corpus");
    for name in &names {
        for dir in ["made/", "gone/"] {
            world
                .client
                .put(&world.key(&format!("{dir}{name}")), name.as_bytes());
        }
    }
    let mount = world.spec().mount();
    let bytes: BTreeSet<Vec<u8>> = names.iter().map(|name| name.clone().into_bytes()).collect();
    assert_eq!(listed(&mount.path("made")), bytes, "list");
    for dir in ["new", "moved"] {
        fs::create_dir(mount.path(dir)).unwrap();
    }
    for name in &names {
        let at = |dir: &str| mount.path(dir).join(name);
        let stat = fs::symlink_metadata(at("made")).unwrap_or_else(|e| panic!("{name:?}: {e}"));
        assert_eq!(stat.len(), name.len() as u64, "stat {name:?}");
        let read = fs::read(at("made")).unwrap_or_else(|e| panic!("{name:?}: {e}"));
        assert_eq!(read, name.as_bytes(), "read {name:?}");
        let text = format!("new {name}");
        fs::write(at("new"), text).unwrap_or_else(|e| panic!("create {name:?}: {e}"));
        fs::rename(at("made"), at("moved")).unwrap_or_else(|e| panic!("rename {name:?}: {e}"));
        fs::remove_file(at("gone")).unwrap_or_else(|e| panic!("delete {name:?}: {e}"));
        let absent = fs::symlink_metadata(at("gone")).unwrap_err();
        assert_eq!(absent.kind(), std::io::ErrorKind::NotFound, "{name:?}");
    }
    for (dir, wanted) in [
        ("made", &BTreeSet::new()),
        ("gone", &BTreeSet::new()),
        ("new", &bytes),
        ("moved", &bytes),
    ] {
        assert_eq!(&listed(&mount.path(dir)), wanted, "{dir}");
    }
    mount.drain();
    let content = |text: &dyn Fn(&str) -> String| -> BTreeMap<String, String> {
        let each = names.iter();
        each.map(|name| (name.clone(), sha256(text(name).as_bytes())))
            .collect()
    };
    assert_eq!(in_bucket(&world, "moved/"), content(&|name| name.into()));
    assert_eq!(
        in_bucket(&world, "new/"),
        content(&|name| format!("new {name}"))
    );
    assert_eq!(in_bucket(&world, "made/"), BTreeMap::new());
    assert_eq!(in_bucket(&world, "gone/"), BTreeMap::new());
}

#[test]
fn every_name_can_be_used_on_the_simulated_cloud() {
    every_name_can_be_used(Server::Sim);
}

#[test]
fn every_name_can_be_used_on_radosgw() {
    every_name_can_be_used(Server::Radosgw);
}

#[test]
fn what_cannot_be_a_key_is_refused_before_anything_is_done() {
    let world = World::new(Server::Sim, "limits");
    let mount = world.spec().mount();
    let refused = |path: std::path::PathBuf| fs::write(path, "x").unwrap_err().raw_os_error();
    let not_utf8 = std::ffi::OsStr::from_bytes(b"latin-\xe9");
    assert_eq!(refused(mount.dir().join(not_utf8)), Some(libc::EILSEQ));
    let long = mount.path(&"n".repeat(NAME_MAX + 1));
    assert_eq!(refused(long), Some(libc::ENAMETOOLONG));

    // A directory whose move would make one key too long: nothing is moved.
    let below = "d".repeat(200);
    let deep = format!("deep/{below}/{below}/{below}");
    fs::create_dir_all(mount.path(&deep)).unwrap();
    fs::write(mount.path(&format!("{deep}/{below}")), "kept").unwrap();
    fs::write(mount.path("deep/short"), "kept").unwrap();
    mount.drain();
    let before = world.client.keys(&world.key(""));
    let longer = mount.path(&"e".repeat(NAME_MAX));
    let error = fs::rename(mount.path("deep"), &longer).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENAMETOOLONG));
    assert!(!longer.exists());
    assert_eq!(fs::read(mount.path("deep/short")).unwrap(), b"kept");
    mount.drain();
    assert_eq!(world.client.keys(&world.key("")), before);
}

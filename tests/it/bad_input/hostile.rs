//! Keys that others put into the bucket and that no file system can show, among keys that it can.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::harness::tree::read_tree;
use crate::harness::{Server, World, shell};

/// What becomes of a key below the mount's root.
enum Fate {
    /// A file of that name.
    Shown(String),
    /// Not shown; its siblings are.
    Hidden(String),
    /// A directory (its marker).
    Dir(String),
}

use Fate::{Dir, Hidden, Shown};

#[allow(clippy::too_many_lines)] // a table
fn corpus() -> Vec<Fate> {
    let shown = [
        "plain",
        " leading-space",
        "trailing-space ",
        "  ",
        "new\nline",
        "tab\there",
        "escape\x1b[31mred",
        "bell\x07",
        "back\\slash",
        "quote'\"`$(id)",
        "-rf",
        "--help",
        "*",
        "?",
        "[a]",
        "~",
        "#comment",
        "%2e%2e%2f",
        "%",
        "a+b",
        "a&b=c",
        "semi;colon",
        "pipe|",
        "<angle>",
        "{brace}",
        "...",
        "..a",
        ".hidden",
        "a..",
        "a.",
        "..b/c",
        ".fuse_hidden0000001",
        ".nfs0001",
        "lost+found",
        "CON",
        "Case",
        "case",
        "CASE",
        "caf\u{e9}",
        "cafe\u{301}",
        "\u{202e}reversed",
        "\u{200b}",
        "\u{feff}bom",
        "\u{1f980}",
        "日本語/ファイル",
        "deep/1/2/3/4/5/6/7/8/9/10",
        "0",
        "1.conflict-x",
        "spool",
        "lock",
        "log.0",
        "a.part",
        "no-type",
        "dir-and-file/below",
        "sibling/ok",
        "dots/ok",
        "slashes/ok",
        "long/ok",
        "nul/ok",
        "marker-with-content/below",
        "x-directory-without-slash",
    ];
    let hidden = [
        "/absolute",
        "//two",
        "slashes//empty-middle",
        "slashes///",
        "dots/./here",
        "dots/../up",
        "dots/..",
        "dots/.",
        "../outside",
        "../../../../etc/passwd",
        "..",
        ".",
        "sibling/../../x",
        "nul/\0in",
        "\0",
    ];
    let mut all: Vec<Fate> = shown.iter().map(|key| Shown((*key).into())).collect();
    all.extend(hidden.iter().map(|key| Hidden((*key).into())));
    all.push(Shown("long/".to_owned() + &"n".repeat(255)));
    all.push(Hidden("long/".to_owned() + &"n".repeat(256)));
    all.push(Hidden("n".repeat(300) + "/below"));
    all.push(Hidden("dir-and-file".into()));
    all.push(Dir("marker-with-content/".into()));
    all.push(Dir("empty-marker/".into()));
    all
}

/// Keys the server took.
fn put_all(world: &World) -> Vec<Fate> {
    let mut taken = Vec::new();
    for fate in corpus() {
        let (Shown(name) | Hidden(name) | Dir(name)) = &fate;
        let key = world.key(name);
        let done = match name.as_str() {
            "x-directory-without-slash" => {
                world
                    .client
                    .put_with(&key, b"d", &[], "application/x-directory");
                Ok(String::new())
            }
            "no-type" => {
                world
                    .client
                    .put_with(&key, b"t", &[("mode", "garbage"), ("mtime", "x")], "");
                Ok(String::new())
            }
            _ => world.client.try_put(&key, name.as_bytes()),
        };
        match done {
            Ok(_) => taken.push(fate),
            // What a server does not take cannot be in its bucket.
            Err(error) => eprintln!("{name:?} not taken: {error}"),
        }
    }
    taken
}

fn harms_nobody(server: Server) {
    let world = World::new(server, "hostile");
    let taken = put_all(&world);
    let long = world.key(&"k".repeat(1024 - world.key("").len()));
    let fits = world.client.try_put(&long, b"1024");
    assert!(taken.len() >= 60, "only {} keys were taken", taken.len());
    let outside = world.work.path().join("outside");
    fs::write(&outside, "untouched").unwrap();

    let mut mount = world.spec().mount();
    let tree = read_tree(mount.dir());
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    for fate in &taken {
        match fate {
            Shown(name) => {
                wanted.insert(name.clone());
            }
            Dir(name) => {
                wanted.insert(name.trim_end_matches('/').to_owned());
            }
            Hidden(_) => {}
        }
    }
    assert!(
        fits.is_err() || !tree.keys().any(|name| name.len() > 900),
        "over 255 bytes"
    );
    let seen: BTreeSet<String> = tree.keys().cloned().collect();
    let missing: Vec<_> = wanted.difference(&seen).collect();
    assert!(missing.is_empty(), "not shown: {missing:?}");
    let extra: Vec<_> = seen
        .difference(&wanted)
        .filter(|name| {
            !wanted
                .iter()
                .any(|file| file.starts_with(&format!("{name}/")))
        })
        .collect();
    assert!(
        extra
            .iter()
            .all(|name| ["dots", "slashes", "nul", "long"].contains(&name.as_str())),
        "shown, but nothing of that name was put: {extra:?}"
    );
    check_each(&taken, mount.dir());
    use_them(&world, &mut mount);
    assert_eq!(fs::read(outside).unwrap(), b"untouched");
}

fn check_each(taken: &[Fate], dir: &Path) {
    for fate in taken {
        match fate {
            Shown(name) if !["no-type", "x-directory-without-slash"].contains(&name.as_str()) => {
                let content = fs::read(dir.join(name));
                assert_eq!(content.unwrap_or_default(), name.as_bytes(), "{name:?}");
            }
            Dir(name) => assert!(dir.join(name).is_dir(), "{name:?}"),
            // A path with `..` in it is the kernel's to resolve, and never reaches the bucket.
            _ => {}
        }
    }
    let command = "find . -type f -print0 | xargs -0 stat -c %s >/dev/null; ls -lR > /dev/null";
    shell(dir, command);
}

/// New names beside them; and the awkward ones can be changed and removed.
fn use_them(world: &World, mount: &mut crate::harness::Mount) {
    shell(
        mount.dir(),
        r"echo n > dots/new; echo n > slashes/new; echo n > nul/new; echo more >> plain
          mv '*' star; rm -- '-rf'; mkdir -- '--dir'; echo x > '--dir/x'; mv 'CON' 'new
name'; rm -r deep; cat 'dir-and-file/below'",
    );
    mount.drain();
    assert!(mount.is_alive());
    let here = |name: &str| world.client.has(&world.key(name));
    assert!(here("dots/new") && here("star") && here("--dir/x") && here("new\nname"));
    assert!(!here("*") && !here("-rf") && !here("CON") && !here("deep/1/2/3/4/5/6/7/8/9/10"));
    assert_eq!(world.client.get(&world.key("plain")).body, b"plainmore\n");
}

#[test]
fn hostile_keys_harm_nobody_on_the_simulated_cloud() {
    harms_nobody(Server::Sim);
}

#[test]
fn hostile_keys_harm_nobody_on_radosgw() {
    harms_nobody(Server::Radosgw);
}

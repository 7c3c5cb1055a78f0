//! What people type, on a mount of each server: the result in the mount at once is that of a local
//! directory; the bytes and metadata in the bucket after the drain are right as an independent
//! client reads them; a device that remembers nothing sees the same tree.

mod steps;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use crate::harness::tree::{Look, Node, Tree, assert_same, read_node, read_tree, sha256};
use crate::harness::{Mount, Object, Server, World, noise, servers, shell};

/// Made once a test: what is copied, packed and synchronised into the mount.
fn make_source(dir: &Path) {
    fs::write(dir.join("a.txt"), "a small file\nof two lines\n").unwrap();
    fs::write(dir.join("empty"), "").unwrap();
    fs::write(dir.join("odd"), noise(1, 4097)).unwrap();
    fs::write(dir.join("patch"), noise(2, 5000)).unwrap();
    // Over the multipart threshold of 8 MiB, and no multiple of anything.
    fs::write(dir.join("big.bin"), noise(3, (9 << 20) + 123)).unwrap();
    shell(
        dir,
        "printf '#!/bin/sh\\necho ran\\n' > run.sh; chmod 755 run.sh; chmod 640 odd
         mkdir -p docs/deep/er private; chmod 700 private; echo secret > private/s
         echo one > docs/1.txt; echo two > docs/deep/2.txt; echo three > 'docs/deep/er/drei & 日本.txt'
         ln -s ../a.txt docs/link; ln -s /nowhere/at/all docs/dangling
         touch -d '2001-02-03 04:05:06.789012345' a.txt; touch -d '1999-12-31 23:59:59' docs/1.txt
         touch -h -d '2002-01-01' docs/link; touch -d '2003-03-03 03:03:03' docs/deep docs",
    );
}

/// Runs the steps on the mount and on a plain directory, and compares after each.
fn run_steps(steps: &[(&str, &str)], mount: &Mount, plain: &Path, source: &Path) {
    for (name, script) in steps {
        let script = format!(
            "export SRC='{}'; {}\n{script}",
            source.display(),
            steps::SETUP
        );
        let expected = shell(plain, &script);
        let seen = shell(mount.dir(), &script);
        assert_eq!(seen, expected, "the output of {name}");
        compare_at_once(name, mount, plain);
    }
}

fn compare_at_once(what: &str, mount: &Mount, plain: &Path) {
    let (seen, expected) = (read_tree(mount.dir()), read_tree(plain));
    assert_same(
        what,
        &without_volatile(seen),
        &without_volatile(expected),
        Look::ALL,
        dated,
    );
}

/// git's index holds inode numbers, so its content is nobody's to compare.
fn without_volatile(mut tree: Tree) -> Tree {
    for (name, node) in &mut tree {
        if name.ends_with(".git/index") {
            (node.size, node.sha256) = (0, String::new());
        }
    }
    tree
}

/// Names whose mtime was given, so that it is the same everywhere.
fn dated(name: &str) -> bool {
    name.starts_with("dated")
}

/// Compares the mount's tree with the bucket, object by object.
fn compare_with_bucket(world: &World, tree: &Tree) {
    let root = world.key("");
    let mut objects = world.client.tree(&root);
    objects.retain(|object| object.key != root);
    let mut unexplained: Vec<String> = Vec::new();
    for object in &objects {
        let name = object.key.strip_prefix(&root).unwrap();
        match tree.get(name.trim_end_matches('/')) {
            Some(node) => unexplained.extend(object_differs(world.server, name, node, object)),
            None => unexplained.push(format!("{name}: in the bucket, not in the mount")),
        }
    }
    for (name, node) in tree {
        let key = match node.kind {
            // SeaweedFS makes directories of its own and keeps no metadata of ours with them.
            'd' if world.server == Server::Seaweed => continue,
            'd' => format!("{root}{name}/"),
            _ => format!("{root}{name}"),
        };
        if !objects.iter().any(|object| object.key == key) {
            unexplained.push(format!("{name}: in the mount, not in the bucket as {key}"));
        }
    }
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
    assert_eq!(
        world.client.uploads(),
        Vec::<String>::new(),
        "uploads left open"
    );
}

/// The object against the node, in s3fs's terms.
fn object_differs(server: Server, name: &str, node: &Node, object: &Object) -> Vec<String> {
    if node.kind == 'd' && server == Server::Seaweed {
        return Vec::new();
    }
    let bits = match node.kind {
        'd' => 0o040_000,
        'l' => 0o120_000,
        _ => 0o100_000,
    };
    let mode = if node.kind == 'l' {
        // A link's permission bits mean nothing.
        object.metadata.get("mode").cloned().unwrap_or_default()
    } else {
        (bits | node.mode).to_string()
    };
    let mut wanted = vec![
        ("mode", mode),
        ("uid", node.uid.to_string()),
        ("gid", node.gid.to_string()),
    ];
    if node.kind == 'f' || dated(name) {
        wanted.push(("mtime", seconds(node.mtime)));
    }
    let mut found: Vec<_> = wanted
        .into_iter()
        .filter(|(key, value)| object.metadata.get(*key) != Some(value))
        .map(|(key, value)| format!("{name}: {key} is not {value}: {:?}", object.metadata))
        .collect();
    if node.kind == 'l' {
        let kind = object
            .metadata
            .get("mode")
            .and_then(|mode| mode.parse::<u32>().ok());
        if kind.is_none_or(|mode| mode & 0o170_000 != bits) {
            found.push(format!(
                "{name}: not marked as a link: {:?}",
                object.metadata
            ));
        }
    }
    if node.kind == 'd' {
        if !name.ends_with('/') || object.content_type != "application/x-directory" {
            found.push(format!("{name}: no marker of a directory: {object:?}"));
        }
    } else if object.size != node.size || object.sha256 != node.sha256 {
        found.push(format!(
            "{name}: other bytes: {node:?}, {} bytes",
            object.size
        ));
    }
    found
}

/// As s3fs writes it.
fn seconds((secs, nanos): (i64, i64)) -> String {
    if nanos == 0 {
        secs.to_string()
    } else {
        format!("{secs}.{nanos:09}")
    }
}

/// The AWS CLI's copy of the bucket against the mount's regular files.
fn compare_with_aws_cli(world: &World, tree: &Tree) {
    let copy = world.local("aws-cli");
    let mut command = Command::new(servers::aws());
    command
        .args([
            "s3",
            "cp",
            "--recursive",
            "--only-show-errors",
            "--endpoint-url",
        ])
        .arg(&world.access.endpoint)
        .arg(format!("s3://{}/{}", world.access.bucket, world.key("")))
        .arg(&copy)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", world.local("aws-home"))
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_REGION", &world.access.region)
        .env("AWS_ACCESS_KEY_ID", &world.access.keys.access_key)
        .env("AWS_SECRET_ACCESS_KEY", &world.access.keys.secret_key);
    if let Some(token) = &world.access.keys.session_token {
        command.env("AWS_SESSION_TOKEN", token);
    }
    if let Some(ca_file) = &world.access.ca_file {
        command.env("AWS_CA_BUNDLE", ca_file);
    }
    let output = command.output().expect("the AWS CLI starts");
    assert!(output.status.success(), "{output:?}");
    for (name, node) in tree.iter().filter(|(_, node)| node.kind == 'f') {
        let content = fs::read(copy.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(sha256(&content), node.sha256, "{name} by the AWS CLI");
    }
}

/// A device that remembers nothing: names, kinds, sizes and bytes, and what each file carries once
/// it was opened. (What a directory carries a LIST does not tell, and opening one is only that.)
fn compare_with_second_device(world: &World, tree: &Tree) {
    let mount = world.second_device().with("ttl", "1s").mount();
    // The first look opens everything, so that attributes that a LIST cannot tell are learnt.
    let first = read_tree(mount.dir());
    assert_eq!(
        first.keys().collect::<Vec<_>>(),
        tree.keys().collect::<Vec<_>>(),
        "names on a second device"
    );
    let second = read_tree(mount.dir());
    let look = Look {
        of_directories: false,
        ..Look::ALL
    };
    let is_file = |name: &str| tree[name].kind == 'f' || dated(name);
    assert_same("a second device", &second, tree, look, is_file);
    mount.unmount();
}

fn the_whole_list(server: Server) {
    let world = World::new(server, "shell");
    let (source, plain) = (world.local("src"), world.local("plain"));
    make_source(&source);
    shell(&source, "tar cf ../src.tar .");
    let mount = world.spec().mount();
    run_steps(steps::FRESH, &mount, &plain, &source);
    mount.drain();
    compare_at_once("after the drain", &mount, &plain);
    compare_with_bucket(&world, &read_tree(mount.dir()));

    run_steps(steps::ON_SENT, &mount, &plain, &source);
    mount.drain();
    compare_at_once("after the second drain", &mount, &plain);
    let tree = read_tree(mount.dir());
    compare_with_bucket(&world, &tree);
    compare_with_aws_cli(&world, &tree);

    // The same device again: all that it wrote is remembered.
    let mount = mount.unmount().mount();
    let again = read_tree(mount.dir());
    // What entries made of a directory's mtime is kept while the kernel knows it, not longer.
    let keeps = |name: &str| tree[name].kind != 'd' || dated(name);
    assert_same("after a remount", &again, &tree, Look::ALL, keeps);
    shell(mount.dir(), "cd repo && git status --porcelain && git fsck");
    mount.unmount();
    compare_with_second_device(&world, &tree);
}

#[test]
fn the_shell_list_on_the_simulated_cloud() {
    the_whole_list(Server::Sim);
}

#[test]
fn the_shell_list_on_seaweedfs() {
    the_whole_list(Server::Seaweed);
}

#[test]
fn the_shell_list_on_radosgw() {
    the_whole_list(Server::Radosgw);
}

#[test]
fn a_second_rsync_sends_nothing_also_after_a_restart() {
    let world = World::new(Server::Sim, "rsync");
    let source = world.local("src");
    make_source(&source);
    let mount = world.spec().mount();
    let sync = format!("rsync -ai '{}/' copy/", source.display());
    let first = shell(mount.dir(), &sync);
    assert!(first.contains("big.bin"), "{first}");
    mount.drain();
    let quiet = |mount: &Mount, when: &str| {
        let before = world.cloud.counts();
        assert_eq!(shell(mount.dir(), &sync), "", "rsync {when}");
        mount.drain();
        let sent = world.cloud.counts().since(&before);
        let quiet = ["ListObjectsV2", "HeadObject"];
        let loud = sent
            .operations
            .keys()
            .find(|name| !quiet.contains(&name.as_str()));
        assert_eq!(loud, None, "{when}: {sent:?}");
        sent
    };
    let sent = quiet(&mount, "at once");
    assert_eq!(sent.all_requests(), 0, "{sent:?}");
    let mount = mount.unmount().mount();
    quiet(&mount, "after a restart");
    let spec = mount.kill();
    let mount = spec.mount();
    quiet(&mount, "after a crash");
}

/// The classic bug of write-back mounts: names that moved before their bytes were sent.
#[test]
fn a_directory_of_unsent_files_reads_back_at_once_under_its_new_name() {
    let world = World::new(Server::Sim, "mvdir");
    let mount = world.spec().mount();
    for round in 0..5 {
        shell(
            mount.dir(),
            &format!(
                "mkdir d{round}; for i in $(seq 20); do echo {round}-$i > d{round}/$i; done
                 mv d{round} e{round}
                 for i in $(seq 20); do test \"$(cat e{round}/$i)\" = {round}-$i; done
                 test ! -e d{round}"
            ),
        );
    }
    mount.drain();
    let root = world.key("");
    let objects = world.client.tree(&root);
    let files = objects.iter().filter(|object| !object.key.ends_with('/'));
    assert_eq!(files.clone().count(), 100);
    for object in files {
        let name = object.key.strip_prefix(&root).unwrap();
        let wanted = name.strip_prefix('e').unwrap().replace('/', "-");
        assert_eq!(object.body, format!("{wanted}\n").as_bytes(), "{name}");
    }
}

#[test]
fn files_changed_elsewhere_are_seen_at_the_next_open_past_ttl() {
    let world = World::new(Server::Sim, "elsewhere");
    world.client.put(&world.key("f"), b"first");
    let mount = world.spec().with("ttl", "1s").mount();
    assert_eq!(fs::read(mount.path("f")).unwrap(), b"first");
    world.client.put(&world.key("f"), b"second version");
    world.client.put(&world.key("new"), b"n");
    crate::harness::eventually(
        "the new version",
        std::time::Duration::from_secs(20),
        || (fs::read(mount.path("f")).ok()? == b"second version").then_some(()),
    );
    crate::harness::eventually("the new name", std::time::Duration::from_secs(20), || {
        shell(mount.dir(), "ls").contains("new").then_some(())
    });
}

#[test]
fn what_s3_cannot_hold_is_refused_with_the_right_errno() {
    let world = World::new(Server::Sim, "errnos");
    let mount = world.spec().mount();
    let errno = |result: std::io::Result<()>| result.unwrap_err().raw_os_error().unwrap();
    fs::write(mount.path("f"), "x").unwrap();
    fs::create_dir(mount.path("d")).unwrap();
    let dir = mount.dir();
    assert_eq!(
        errno(fs::hard_link(dir.join("f"), dir.join("g"))),
        libc::EPERM
    );
    assert_eq!(
        errno(fs::write(dir.join("x".repeat(256)), "")),
        libc::ENAMETOOLONG
    );
    let deep = (0..5).fold(dir.to_owned(), |path, _| path.join("y".repeat(250)));
    assert_eq!(errno(fs::create_dir_all(deep)), libc::ENAMETOOLONG);
    assert_eq!(errno(fs::create_dir(dir.join("d"))), libc::EEXIST);
    assert_eq!(errno(fs::remove_dir(dir.join("f"))), libc::ENOTDIR);
    assert_eq!(errno(fs::remove_file(dir.join("d"))), libc::EISDIR);
    fs::write(dir.join("d/in"), "x").unwrap();
    assert_eq!(errno(fs::remove_dir(dir.join("d"))), libc::ENOTEMPTY);
    assert_eq!(
        errno(fs::rename(dir.join("d"), dir.join("d/in2"))),
        libc::EINVAL
    );
    assert_eq!(errno(fs::read(dir.join("absent")).map(drop)), libc::ENOENT);
    let not_utf8 = dir.join(std::ffi::OsStr::from_bytes(b"\xff\xfe"));
    assert_eq!(errno(fs::write(not_utf8, "")), libc::EILSEQ);
    assert_eq!(read_node(&dir.join("f")).size, 1);
}

#[test]
fn pipes_and_sockets_work_and_device_nodes_are_kept_and_do_not_open() {
    let world = World::new(Server::Sim, "special");
    let mount = world.spec().mount();
    shell(
        mount.dir(),
        "mkfifo pipe; (echo through > pipe) & test \"$(cat pipe)\" = through
         mknod null c 1 3; ! (echo x > null) 2> refused; grep -q 'Permission denied' refused",
    );
    let socket = std::os::unix::net::UnixListener::bind(mount.path("socket")).unwrap();
    drop(socket);
    mount.drain();
    let mode = |name: &str| world.client.head(&world.key(name)).metadata["mode"].clone();
    let kind = |name: &str| mode(name).parse::<u32>().unwrap() & libc::S_IFMT;
    assert_eq!(kind("pipe"), libc::S_IFIFO);
    assert_eq!(kind("null"), libc::S_IFCHR);
    assert_eq!(kind("socket"), libc::S_IFSOCK);
    drop(mount);
    let mount = world.second_device().with("attrs", "exact").mount();
    let seen = shell(mount.dir(), "stat -c '%F %t,%T' null pipe");
    assert_eq!(seen.trim(), "character special file 1,3\nfifo 0,0");
}

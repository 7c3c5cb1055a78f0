//! Debian's s3fs and rclone beside us in one bucket: what one writes shows right in the other.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::harness::tree::{Look, Tree, assert_same, read_tree};
use crate::harness::{Server, World, eventually, shell};

/// Makes the tree that each side writes: modes, owners, times, a link, directories, an empty file.
const MAKE: &str = "set -e
    printf 'some text\\n' > text; chmod 640 text; chown 1001:1002 text
    printf '#!/bin/sh\\n' > run.sh; chmod 755 run.sh; : > empty
    mkdir -p dir/below; chmod 750 dir; printf x > dir/below/deep
    head -c 300000 /dev/zero | tr '\\0' z > dir/large
    ln -s ../text dir/link
    touch -d '2001-02-03 04:05:06' text; touch -d '2010-11-12 13:14:15' dir/below/deep";

/// Names whose times `MAKE` sets.
fn is_dated(name: &str) -> bool {
    ["text", "dir/below/deep"].contains(&name)
}

/// Whole seconds, as s3fs keeps them for what it was not told more of.
fn in_seconds(mut tree: Tree) -> Tree {
    for node in tree.values_mut() {
        node.mtime.1 = 0;
    }
    tree
}

/// s3fs on the whole bucket, with the prefix of ours below it.
struct S3fs {
    dir: PathBuf,
    root: PathBuf,
}

impl S3fs {
    fn mount(world: &World, name: &str) -> Self {
        let (dir, access) = (world.local(name), &world.access);
        let passwd = world.work.path().join("passwd-s3fs");
        let keys = &access.keys;
        fs::write(&passwd, format!("{}:{}", keys.access_key, keys.secret_key)).unwrap();
        fs::set_permissions(&passwd, fs::Permissions::from_mode(0o600)).unwrap();
        let status = Command::new("s3fs")
            .args([&access.bucket, &dir.display().to_string()])
            .args(["-o", &format!("url={}", access.endpoint)])
            .args(["-o", &format!("endpoint={}", access.region)])
            .args(["-o", &format!("passwd_file={}", passwd.display())])
            .args(["-o", "use_path_request_style,sigv4"])
            .status();
        assert!(status.expect("s3fs is there").success());
        let mounted = || {
            let table = fs::read_to_string("/proc/self/mounts").ok()?;
            table
                .contains(&format!(" {} ", dir.display()))
                .then_some(())
        };
        eventually("s3fs is mounted", Duration::from_secs(60), mounted);
        let root = dir.join(world.key(""));
        Self { dir, root }
    }

    /// All it has written is in the bucket afterwards.
    fn unmount(self) {
        let done = || {
            let umount = Command::new("umount").arg(&self.dir).output();
            umount.unwrap().status.success().then_some(())
        };
        eventually("s3fs is unmounted", Duration::from_secs(60), done);
    }
}

impl Drop for S3fs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.dir).output();
    }
}

#[test]
fn what_s3fs_writes_shows_right_here_and_what_we_write_shows_right_there() {
    let world = World::new(Server::Radosgw, "s3fs");
    let theirs = S3fs::mount(&world, "theirs");
    fs::create_dir_all(&theirs.root).unwrap();
    shell(&theirs.root, MAKE);
    let wanted = in_seconds(read_tree(&theirs.root));
    assert!(wanted.len() >= 8, "{wanted:?}");
    theirs.unmount();
    let ours = world.spec().with("attrs", "exact").mount();
    let seen = in_seconds(read_tree(ours.dir()));
    assert_same("s3fs's in ours", &wanted, &seen, Look::ALL, is_dated);

    fs::create_dir(ours.path("ours")).unwrap();
    shell(&ours.path("ours"), MAKE);
    ours.drain();
    let wanted = in_seconds(read_tree(&ours.path("ours")));
    let theirs = S3fs::mount(&world, "again");
    let seen = in_seconds(read_tree(&theirs.root.join("ours")));
    assert_same("ours in s3fs's", &wanted, &seen, Look::ALL, is_dated);
    theirs.unmount();
}

/// rclone, told of the bucket by its environment.
fn rclone(world: &World, args: &[&str]) -> String {
    let (access, keys) = (&world.access, &world.access.keys);
    let output = Command::new("rclone")
        .args(["--config", "/dev/null", "--s3-no-check-bucket"])
        .args(args)
        .env_remove("AWS_CA_BUNDLE")
        .env("RCLONE_CONFIG_B_TYPE", "s3")
        .env("RCLONE_CONFIG_B_PROVIDER", "Other")
        .env("RCLONE_CONFIG_B_ENDPOINT", &access.endpoint)
        .env("RCLONE_CONFIG_B_REGION", &access.region)
        .env("RCLONE_CONFIG_B_ACCESS_KEY_ID", &keys.access_key)
        .env("RCLONE_CONFIG_B_SECRET_ACCESS_KEY", &keys.secret_key)
        .output()
        .expect("rclone is there");
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn times(dir: &Path, names: &[&str]) -> Vec<String> {
    let time = |name: &&str| shell(dir, &format!("date -u -r {name} +%Y-%m-%dT%H:%M:%S.%N"));
    names.iter().map(time).collect()
}

#[test]
fn times_that_rclone_sets_show_here_and_ours_show_there() {
    let world = World::new(Server::Seaweed, "rclone");
    let local = world.local("local");
    let names = ["a", "b"];
    let set = "printf a > a; printf bb > b; touch -d '2003-04-05 06:07:08.123456789' a
               touch -d '1999-12-31 23:59:59' b";
    shell(&local, set);
    let remote = |name: &str| format!("b:{}/{}", world.access.bucket, world.key(name));
    rclone(
        &world,
        &["copy", &local.display().to_string(), &remote("in")],
    );
    let ours = world.spec().with("attrs", "exact").mount();
    assert_eq!(times(&ours.path("in"), &names), times(&local, &names));
    assert_eq!(fs::read(ours.path("in/b")).unwrap(), b"bb");

    fs::create_dir(ours.path("out")).unwrap();
    shell(&ours.path("out"), set);
    ours.drain();
    // Equal by size and time to the nanosecond: nothing would be copied.
    let local = local.display().to_string();
    rclone(&world, &["check", "--size-only", &local, &remote("out")]);
    let listed = rclone(&world, &["lsf", "--format", "tp", &remote("out")]);
    let fetched = world.local("fetched");
    rclone(
        &world,
        &["copy", &remote("out"), &fetched.display().to_string()],
    );
    assert_eq!(
        times(&fetched, &names),
        times(Path::new(&local), &names),
        "{listed}"
    );
}

#[test]
fn after_the_loss_of_all_local_state_an_exact_mount_has_rsync_send_nothing() {
    let world = World::new(Server::Sim, "lost");
    let local = world.local("local");
    shell(
        &local,
        "for i in $(seq 200); do echo $i > f$i; done; chmod 600 f1 f2; chmod 755 f3
         mkdir d; echo x > d/x; ln -s f1 link; touch -d '2001-02-03 04:05:06.789' f4",
    );
    let sync = |dir: &Path| {
        let command = format!("rsync -a --stats {}/ .", local.display());
        let stats = shell(dir, &command);
        let literal = stats.lines().find(|line| line.starts_with("Literal data"));
        literal.unwrap_or(&stats).to_owned()
    };
    let mount = world.spec().with("attrs", "exact").mount();
    assert_ne!(sync(mount.dir()), "Literal data: 0 bytes");
    mount.drain();
    drop(mount);
    let mount = world.second_device().with("attrs", "exact").mount();
    let before = world.cloud.counts();
    assert_eq!(sync(mount.dir()), "Literal data: 0 bytes");
    mount.drain();
    let cost = world.cloud.counts().since(&before);
    // Down comes where the link points.
    assert_eq!((cost.data_up, cost.data_down), (0, 2), "{cost:?}");
}

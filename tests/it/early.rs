//! Large files that are sent while they are being written, through a real mount.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use crate::harness::cloud::Raw;
use crate::harness::tree::sha256;
use crate::harness::{Holder, Server, World, eventually};

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// Writes `mib` MiB, the first byte of each of which tells its number.
fn more(writer: &mut Holder, from: u64, mib: u64) {
    writer.run(&format!(
        "[f.write(bytes([i]) + b'k' * ({MIB} - 1)) for i in range({from}, {from} + {mib})]"
    ));
}

fn expected(mib: u64) -> Vec<u8> {
    let mut all = vec![b'k'; usize::try_from(mib * MIB).unwrap()];
    for i in 0..mib {
        all[usize::try_from(i * MIB).unwrap()] = u8::try_from(i).unwrap();
    }
    all
}

#[test]
fn a_large_file_goes_up_while_it_is_written_and_shows_when_it_is_closed() {
    let world = World::new(Server::Sim, "early");
    let mount = world.spec().with("part_size", "5MiB").mount();
    let before = world.cloud.counts();
    let mut writer = Holder::new(mount.dir());
    writer.write("f", "video.mp4", "");
    more(&mut writer, 0, 32);
    eventually("what is written goes up", SOON, || {
        (world.cloud.counts().since(&before).data_up >= 25 * MIB).then_some(())
    });
    assert!(!world.client.has(&world.key("video.mp4")));
    more(&mut writer, 32, 4);
    writer.run("f.close()");
    mount.drain();
    let seen = world.client.get(&world.key("video.mp4"));
    assert_eq!(seen.sha256, sha256(&expected(36)));
    let all = world.cloud.counts().since(&before);
    assert_eq!(all.data_up, 36 * MIB, "each byte went once");
    let of = |operation| all.requests(operation);
    assert_eq!((of("CreateMultipartUpload"), of("UploadPart")), (1, 8));
    assert_eq!((of("CompleteMultipartUpload"), of("PutObject")), (1, 0));
    // The time of its last write is known at its close: set by a copy onto itself.
    assert_eq!(of("CopyObject"), 1);
    let local = fs::metadata(mount.path("video.mp4")).unwrap();
    let head = world.client.head(&world.key("video.mp4"));
    let mtime = head.metadata["mtime"].split('.').next().unwrap();
    assert_eq!(mtime, local.mtime().to_string());
    let before = world.cloud.counts();
    assert!(fs::read(mount.path("video.mp4")).unwrap() == expected(36));
    let read = world.cloud.counts().since(&before);
    assert_eq!(read.requests("GetObject"), 0, "it is read from here");
    assert_eq!(world.client.uploads(), Vec::<String>::new());
}

#[test]
fn a_kill_while_a_large_file_is_written_publishes_nothing_and_leaves_no_upload() {
    let world = World::new(Server::Sim, "early-kill");
    let mount = world.spec().with("part_size", "5MiB").mount();
    let before = world.cloud.counts();
    let mut writer = Holder::new(mount.dir());
    writer.write("f", "video.mp4", "");
    more(&mut writer, 0, 24);
    eventually("what is written goes up", SOON, || {
        (world.cloud.counts().since(&before).data_up >= 20 * MIB).then_some(())
    });
    assert_eq!(world.client.uploads(), [world.key("video.mp4")]);
    let spec = mount.kill();
    drop(writer);
    let mount = spec.mount();
    mount.drain();
    assert_eq!(world.client.uploads(), Vec::<String>::new());
    assert!(!world.client.has(&world.key("video.mp4")) && !mount.path("video.mp4").exists());
    assert!(mount.status().contains("video.mp4 (24.0 MiB)"));
}

/// The bucket of the test keeps no versions: one answer says that it does.
#[test]
fn a_bucket_that_keeps_versions_is_told_of_once() {
    let world = World::new(Server::Sim, "versions");
    let mount = world.spec().mount();
    assert_eq!(mount.status_json()["versioned"], false);
    let answer = Raw {
        status: 200,
        headers: &[
            ("etag", "\"0123\""),
            ("x-amz-version-id", "3HL4kqtJvjVBH40"),
        ],
        body: "",
    };
    world.cloud.answer("PutObject", &answer, 0, 2);
    for name in ["a", "b"] {
        fs::write(mount.path(name), name).unwrap();
        mount.drain();
    }
    assert_eq!(mount.status_json()["versioned"], true);
    assert_eq!(mount.log().matches("keeps versions").count(), 1);
}

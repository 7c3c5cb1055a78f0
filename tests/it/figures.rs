//! Figures that are printed, not judged by the clock: `KRYPTONFS_LONG=1 cargo test --release --test
//! it figures -- --nocapture`.

use std::fs;
use std::time::Instant;

use crate::harness::{Server, World, long, noise};

const FILES: usize = 1000;
const MIB: usize = 1 << 20;

/// 1000 files of 1 MiB are pending, the link is down, the daemon is killed: how long until the next
/// one answers, how much memory it takes, and what the first one wrote to the device.
#[test]
fn a_start_with_a_thousand_pending_files() {
    if !long() {
        return;
    }
    let world = World::new(Server::Sim, "figures");
    let spec = world.spec().with("spool_max", "3GiB").with("linger", "1h");
    let mount = spec.mount();
    world.relay.silence();
    let written = || mount.io("write_bytes");
    let before = written();
    for i in 0..FILES {
        fs::write(mount.path(&format!("f{i}")), noise(i as u64, MIB)).unwrap();
    }
    let per_byte = (written() - before) as f64 / (FILES * MIB) as f64;
    let spec = mount.kill();
    let start = Instant::now();
    let mount = spec.mount();
    let mounted = start.elapsed();
    assert_eq!(fs::metadata(mount.path("f7")).unwrap().len(), MIB as u64);
    let answered = start.elapsed();
    println!(
        "figure: start with {FILES} pending files of 1 MiB: mounted {mounted:?}, first answer {answered:?}"
    );
    println!("figure: VmHWM {} KiB", mount.peak_memory() / 1024);
    println!("figure: bytes to the device per user byte, 1 MiB files: {per_byte:.3}");
    assert!(per_byte <= 1.1, "{per_byte}");
    let before = mount.io("write_bytes");
    for i in 0..FILES {
        fs::write(mount.path(&format!("s{i}")), noise(i as u64, 4096)).unwrap();
    }
    let per_byte = (mount.io("write_bytes") - before) as f64 / (FILES * 4096) as f64;
    println!("figure: bytes to the device per user byte, 4 KiB files: {per_byte:.3}");
    assert_eq!(fs::read(mount.path("f999")).unwrap(), noise(999, MIB));
}

//! `fsx` (the Rust crate): random operations on one file against a copy in memory.

use std::fs;
use std::process::Command;

use super::within;
use crate::harness::servers::tool;
use crate::harness::{Server, World, long};

/// Files of 256 KiB; plain, cut short, mapped; many small steps; several parts.
const PROFILES: [(&str, &str, &str); 5] = [
    ("basic", "", "mapread=0 mapwrite=0 truncate=0 close_open=1"),
    (
        "trunc",
        "",
        "mapread=0 mapwrite=0 truncate=5 close_open=2 fsync=1 fdatasync=1",
    ),
    (
        "mmap",
        "",
        "mapread=10 mapwrite=10 truncate=5 close_open=1 invalidate=1 fsync=1",
    ),
    (
        "small",
        "flen=16384 [opsize] max=513 min=1",
        "mapread=0 mapwrite=0 truncate=3 close_open=5",
    ),
    (
        "multi",
        "flen=26214400 [opsize] max=6000000 min=1",
        "mapread=0 mapwrite=0 truncate=1 close_open=1",
    ),
];

#[test]
fn fsx_finds_every_byte_where_it_was_written() {
    let world = World::new(Server::Sim, "fsx");
    let mount = world.spec().mount();
    let (fsx, mut ran) = (tool("fsx"), 0);
    for (name, sizes, weights) in PROFILES {
        let config = format!("{sizes} [weights] read=10 write=10 {weights}");
        let path = world.work.path().join(format!("{name}.toml"));
        fs::write(&path, config.replace(' ', "\n")).unwrap();
        let (seeds, count) = match (long(), name) {
            (true, _) => (10, 2000),
            (false, "multi") => (1, 50),
            (false, _) => (1, 500),
        };
        for seed in 1..=seeds {
            let mut command = Command::new(&fsx);
            command
                .arg("-f")
                .arg(&path)
                .arg("-P")
                .arg(world.work.path());
            command.args(["-S", &seed.to_string(), "-N", &count.to_string()]);
            command.arg(mount.path(&format!("{name}.{seed}")));
            let output = within(900, &command);
            assert!(output.status.success(), "{name}, seed {seed}: {output:?}");
            ran += 1;
        }
    }
    println!("fsx: {ran} runs passed");
    mount.drain();
}

//! A cache that cannot be used, or is not what it was: reads and writes go on, and are right.

use std::fs;
use std::path::Path;

use crate::harness::mount::detach;
use crate::harness::tree::sha256;
use crate::harness::{Mount, Server, Spec, World, noise, shell};

const SIZE: usize = 3 << 20;

/// Reads what is foreign, writes, appends, reads back here and in the bucket.
fn works(world: &World, mount: &Mount, round: u64) {
    let foreign = world.key(&format!("foreign{round}"));
    let body = noise(round, SIZE);
    world.client.put(&foreign, &body);
    let read = |name: &str| fs::read(mount.path(name)).unwrap();
    let name = format!("foreign{round}");
    assert!(read(&name) == body, "the foreign object, cold");
    assert!(read(&name) == body, "the foreign object, again");
    let own = noise(round + 100, SIZE);
    let name = format!("own{round}");
    fs::write(mount.path(&name), &own).unwrap();
    assert!(read(&name) == own, "before it is sent");
    mount.drain();
    assert!(read(&name) == own, "after it was sent");
    shell(mount.dir(), &format!("printf more >> {name}"));
    mount.drain();
    let grown = [&own[..], b"more"].concat();
    assert!(read(&name) == grown, "what grew");
    let sent = world.client.get(&world.key(&name)).sha256;
    assert_eq!(sent, sha256(&grown), "what grew, in the bucket");
}

fn works_with_cache(name: &str, prepare: impl FnOnce(&World) -> Spec) {
    let world = World::new(Server::Sim, name);
    let spec = prepare(&world);
    let mount = spec.mount();
    works(&world, &mount, 1);
    let mount = mount.unmount().mount();
    works(&world, &mount, 2);
}

fn with_cache(world: &World, dir: &Path) -> Spec {
    world.spec().with("cache_dir", &dir.display().to_string())
}

#[test]
fn without_a_cache_reads_and_writes_are_right() {
    works_with_cache("nocache", |world| {
        let file = world.work.path().join("file");
        fs::write(&file, "in the way").unwrap();
        with_cache(world, &file.join("below"))
    });
}

/// A file system of its own, gone with it.
struct Place(std::path::PathBuf);

impl Place {
    fn new(world: &World, options: &str) -> Self {
        // Root writes through mode bits, and a full disk must be one: a file system of its own.
        let place = world.local("place");
        shell(&place, &format!("mount -t tmpfs -o {options} none ."));
        Self(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        detach(&self.0);
    }
}

#[test]
fn with_a_read_only_cache_reads_and_writes_are_right() {
    let mut place = None;
    works_with_cache("rocache", |world| {
        let ro = place.insert(Place::new(world, "ro,size=1m"));
        with_cache(world, &ro.0.join("cache"))
    });
}

#[test]
fn with_a_full_disk_under_the_cache_reads_and_writes_are_right() {
    let mut place = None;
    works_with_cache("fullcache", |world| {
        let full = place.insert(Place::new(world, "size=300k"));
        let spec = with_cache(world, &full.0.join("cache"));
        spec.with("cache_max", "64MiB").with("disk_reserve", "0")
    });
}

#[test]
fn with_a_cache_that_was_overwritten_reads_and_writes_are_right() {
    let world = World::new(Server::Sim, "badcache");
    let mount = world.spec().mount();
    works(&world, &mount, 1);
    let spec = mount.unmount();
    let mut damaged = 0;
    for path in files_below(&spec.cache) {
        let mut bytes = fs::read(&path).unwrap();
        // Every 4 KiB something is another byte, in data, checksums and headers.
        for at in (0..bytes.len()).step_by(4096) {
            bytes[at] ^= 0x40;
            damaged += 1;
        }
        // A new file: what it shared with the spool stays as it was.
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    assert!(damaged > 500, "{damaged}");
    let mount = spec.mount();
    let own = [&noise(101, SIZE)[..], b"more"].concat();
    assert!(fs::read(mount.path("foreign1")).unwrap() == noise(1, SIZE));
    assert!(fs::read(mount.path("own1")).unwrap() == own);
    works(&world, &mount, 2);
}

fn files_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

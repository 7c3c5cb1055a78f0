//! What listing large directories costs, in requests and in memory.

use super::*;

/// A bucket with so many objects in one directory.
fn filled(name: &str, count: usize) -> Bench {
    let bench = Bench::with(name, &[], |world| {
        world.cloud.load(&world.key("huge/n"), count);
    });
    shell(bench.mount.dir(), "test -d huge");
    bench
}

#[test]
fn the_first_names_of_100_000_come_long_before_the_last_page() {
    let bench = filled("first", 100_000);
    let cost = bench.cost(|dir| {
        let names = fs::read_dir(dir.join("huge")).unwrap().take(10);
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names[9], "n000009");
    });
    // Of a hundred pages: that one, and those that were asked for while it was read.
    let pages = cost.cloud.requests("ListObjectsV2");
    assert!((1..=4).contains(&pages), "{cost:?}");
    cost.at_most(4);
}

#[test]
fn a_directory_of_20_000_is_known_once_it_was_listed() {
    let bench = filled("known", 20_000);
    let list = |dir: &Path| {
        let count = shell(dir, "ls -f huge | wc -l");
        assert_eq!(count.trim(), "20002");
    };
    let cost = bench.cost(list);
    assert_eq!(cost.cloud.requests("HeadObject"), 0, "{cost:?}");
    cost.at_most(21);
    bench.cost(list).is(&[]);
}

/// More than are known of one directory. What each name costs the process is in `tree/large` and
/// `fs/paging`.
#[test]
fn listing_a_directory_too_large_to_be_known_fits_in_the_memory() {
    let count = if long() { 1_000_000 } else { 60_000 };
    let bench = filled("million", count);
    let cost = bench.cost(|dir| {
        let names = shell(dir, "ls -f huge | wc -l");
        assert_eq!(names.trim(), (count + 2).to_string());
    });
    assert_eq!(cost.cloud.requests("HeadObject"), 0, "{cost:?}");
    cost.at_most(count as u64 / 1000 + 1);
    println!(
        "{count} names: VmHWM {} KiB",
        bench.mount.peak_memory() / KIB
    );
}

/// The kernel gets an inode for each, more than are kept: see `fs/inode/crowd`.
#[test]
fn listing_a_large_directory_with_all_attributes_fits_in_the_memory() {
    let count = if long() { 1_000_000 } else { 25_000 };
    let bench = filled("inodes", count);
    let cost = bench.cost(|dir| {
        let lines = shell(dir, "ls -lU huge | wc -l");
        assert_eq!(lines.trim(), (count + 1).to_string());
    });
    assert_eq!(cost.cloud.requests("HeadObject"), 0, "{cost:?}");
    println!(
        "{count} inodes: VmHWM {} KiB",
        bench.mount.peak_memory() / KIB
    );
}

use std::os::fd::AsRawFd;

use super::*;

fn source(dir: &TempDir, all: &[u8]) -> PathBuf {
    let path = dir.path().join("spool-file");
    fs::write(&path, all).unwrap();
    path
}

#[test]
fn a_data_file_is_adopted_by_link_and_never_written_to() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir);
    let (object, mut all) = (id("a", "1"), bytes(1, 3 * BLOCK));
    let path = source(&dir, &all);
    let size = 2 * BLOCK + 100;
    assert!(cache.adopt_file(&object, size, &path));
    let data = files(&dir, "dat").pop().unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().ino(),
        fs::metadata(data).unwrap().ino()
    );
    assert!(files(&dir, "tmp").is_empty());
    all.truncate(usize::try_from(size).unwrap());
    assert!(has_all(&cache, &object, &all));
    // Other bytes where the spool's file has its own: that file stays as it is.
    let other = bytes(9, BLOCK);
    assert!(cache.put(&object, size, 1, &other));
    assert!(fs::read(&path).unwrap() == bytes(1, 3 * BLOCK));
    assert!(cache.get(&object, 1).unwrap() == other);
    assert!(cache.get(&object, 2).unwrap() == block_of(&all, 2));
    assert_eq!(cache.usage().0, disk_use(&dir));
}

#[test]
fn where_there_can_be_no_link_the_file_is_copied() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir);
    let (object, all) = (id("a", "1"), bytes(1, 2 * BLOCK + 5));
    let file = fs::File::open(source(&dir, &all)).unwrap();
    // In /proc, hence on another file system.
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    assert!(cache.adopt_file(&object, all.len() as u64, &path));
    assert!(has_all(&cache, &object, &all));
    let data = files(&dir, "dat").pop().unwrap();
    assert_eq!(fs::metadata(data).unwrap().nlink(), 1);
}

#[test]
fn a_file_that_is_too_short_too_large_or_absent_is_not_adopted() {
    let dir = TempDir::new().unwrap();
    let cache = open_with(&dir, MIB, 0);
    let path = source(&dir, &bytes(1, BLOCK));
    assert!(!cache.adopt_file(&id("a", "1"), BLOCK + 1, &path));
    assert!(!cache.adopt_file(&id("a", "1"), 2 * MIB, &path));
    assert!(!cache.adopt_file(&id("a", "1"), 1, &dir.path().join("absent")));
    assert_eq!((disk_use(&dir), cache.usage().0), (0, 0));
}

#[test]
fn blocks_change_hands_and_old_readers_get_right_bytes_or_a_miss() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir);
    let (old, new) = (id("a", "1"), id("a", "2"));
    let (before, after) = (bytes(1, 3 * BLOCK), bytes(2, 4 * BLOCK));
    put_all(&cache, &old, &before);
    let held = cache.inherit(&old, &new, 4 * BLOCK, Hands::Change, &|block| block != 1);
    let held = held.unwrap();
    assert_eq!(cache.get(&old, 0), None);
    assert!(cache.get(&new, 0).unwrap() == block_of(&before, 0));
    assert_eq!(cache.missing(&new, 0..4), [1..2, 3..4]);
    assert_eq!(held.get(1).unwrap(), block_of(&before, 1));
    assert!(cache.put(&new, 4 * BLOCK, 1, block_of(&after, 1)));
    assert_eq!(held.get(1), None, "its bytes were written over");
    assert_eq!(held.get(2).unwrap(), block_of(&before, 2));
    assert_eq!(cache.usage().0, disk_use(&dir));
    drop(cache);
    let cache = open(&dir);
    assert!(cache.get(&new, 1).unwrap() == block_of(&after, 1));
    assert!(cache.get(&new, 2).unwrap() == block_of(&before, 2));
    assert_eq!(files(&dir, "dat").len(), 1);
}

#[test]
fn a_block_that_is_cut_otherwise_is_not_inherited() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir);
    let (old, new) = (id("a", "1"), id("a", "2"));
    put_all(&cache, &old, &bytes(1, 2 * BLOCK + 50));
    assert!(
        cache
            .inherit(&old, &new, BLOCK + 50, Hands::Change, &|_| true)
            .is_some()
    );
    assert_eq!(cache.missing(&new, 0..2), vec![1..2]);
    assert!(
        cache
            .inherit(&old, &new, BLOCK, Hands::Change, &|_| true)
            .is_none()
    );
    assert!(
        cache
            .inherit(&new, &new, BLOCK, Hands::Change, &|_| true)
            .is_none()
    );
    assert!(
        cache
            .inherit(&new, &old, BLOCK, Hands::Change, &|_| false)
            .is_none()
    );
    assert!(cache.get(&new, 0).is_some());
    assert!(files(&dir, "tmp").is_empty());
}

#[test]
fn shared_blocks_part_when_one_is_written() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir);
    let (one, two) = (id("a", "1"), id("b", "1"));
    let (all, other) = (bytes(1, 3 * BLOCK), bytes(2, 3 * BLOCK));
    put_all(&cache, &one, &all);
    let held = cache.inherit(&one, &two, 3 * BLOCK, Hands::Share, &|block| block != 0);
    assert!(held.is_some());
    assert!(cache.put(&two, 3 * BLOCK, 0, block_of(&other, 0)));
    assert!(has_all(&cache, &one, &all));
    assert!(cache.get(&two, 0).unwrap() == block_of(&other, 0));
    assert!(cache.get(&two, 2).unwrap() == block_of(&all, 2));
}

#[test]
fn where_both_do_not_fit_the_copy_gets_the_blocks() {
    let dir = TempDir::new().unwrap();
    let cache = open_with(&dir, MIB, 0);
    let (one, two) = (id("a", "1"), id("b", "1"));
    let all = bytes(1, 20 * BLOCK);
    put_all(&cache, &one, &all);
    let size = all.len() as u64;
    assert!(
        cache
            .inherit(&one, &two, size, Hands::Share, &|_| true)
            .is_some()
    );
    assert!(has_all(&cache, &two, &all));
    assert_eq!(cache.get(&one, 0), None);
}

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::types::{ETag, ObjectKey};

mod scan;
mod take;

const MIB: u64 = 1 << 20;

fn id(key: &str, etag: &str) -> ObjectId {
    ObjectId {
        key: ObjectKey::new(key),
        etag: ETag::new(etag),
    }
}

fn open_with(dir: &TempDir, max: u64, reserve: u64) -> Arc<Cache> {
    Cache::open(&Config {
        dir: dir.path().into(),
        max,
        reserve,
    })
}

fn open(dir: &TempDir) -> Arc<Cache> {
    open_with(dir, 64 * MIB, 0)
}

/// Bytes that differ by version, block and place.
fn bytes(seed: u64, size: u64) -> Vec<u8> {
    (0..size)
        .map(|i| (i ^ (i >> 8) ^ (i >> 15).wrapping_mul(31) ^ seed.wrapping_mul(97)) as u8)
        .collect()
}

fn block_of(all: &[u8], block: u64) -> &[u8] {
    let (start, len) = (block * BLOCK, block_len(all.len() as u64, block));
    &all[usize::try_from(start).unwrap()..][..len]
}

fn put_all(cache: &Cache, object: &ObjectId, all: &[u8]) {
    for block in 0..blocks_of(all.len() as u64) {
        assert!(cache.put(object, all.len() as u64, block, block_of(all, block)));
    }
}

fn has_all(cache: &Cache, object: &ObjectId, all: &[u8]) -> bool {
    (0..blocks_of(all.len() as u64)).all(|block| {
        let found = cache.get(object, block);
        found.is_some_and(|found| found == block_of(all, block))
    })
}

fn files(dir: &TempDir, kind: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir.path().join("blocks")).unwrap();
    let paths = all.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|ext| ext == kind))
        .collect()
}

fn disk_use(dir: &TempDir) -> u64 {
    let all = [files(dir, "dat"), files(dir, "idx"), files(dir, "tmp")].concat();
    all.iter()
        .map(|path| fs::metadata(path).unwrap().blocks() * 512)
        .sum()
}

#[test]
fn what_was_put_is_there_also_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let (object, all) = (id("a/b", "1"), bytes(1, 3 * BLOCK + 17));
    let cache = open(&dir);
    assert_eq!(cache.get(&object, 0), None);
    put_all(&cache, &object, &all);
    assert!(has_all(&cache, &object, &all));
    assert_eq!(cache.get(&object, 4), None);
    assert_eq!(cache.get(&id("a/b", "2"), 0), None);
    drop(cache);
    let cache = open(&dir);
    assert!(has_all(&cache, &object, &all));
    assert!(cache.has(&object, 0..all.len() as u64));
    assert_eq!(cache.usage().0, disk_use(&dir));
}

#[test]
fn a_block_of_the_wrong_length_is_not_kept() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir);
    assert!(!cache.put(&id("a", "1"), 100, 0, &[0; 99]));
    assert!(!cache.put(&id("a", "1"), 100, 1, &[0; 100]));
    assert!(!cache.put(&id("a", "1"), 0, 0, &[]));
    assert!(files(&dir, "dat").is_empty());
}

/// Flips `byte` of a file that held a whole version and says which blocks are still answered.
fn after_flip(dir: &TempDir, path: &Path, byte: usize, mask: u8, all: &[u8]) -> Vec<bool> {
    let object = id("some/key", "an-etag");
    let original = fs::read(path).unwrap();
    let index = files(dir, "idx").pop();
    let entries = index.as_ref().map(|path| fs::read(path).unwrap());
    let mut flipped = original.clone();
    flipped[byte] ^= mask;
    fs::write(path, flipped).unwrap();
    let (data, index) = (files(dir, "dat").pop().unwrap(), index.unwrap());
    let untouched = fs::read(&data).unwrap();
    let cache = open(dir);
    let answered = (0..blocks_of(all.len() as u64)).map(|block| {
        let found = cache.get(&object, block);
        assert!(
            found
                .as_ref()
                .is_none_or(|found| found == block_of(all, block))
        );
        found.is_some()
    });
    let answered = answered.collect();
    drop(cache);
    fs::write(&data, untouched).unwrap();
    fs::write(&index, entries.unwrap()).unwrap();
    fs::write(path, original).unwrap();
    answered
}

#[test]
fn any_flipped_byte_is_a_miss_and_never_wrong_data() {
    let dir = TempDir::new().unwrap();
    let all = bytes(2, 300);
    put_all(&open(&dir), &id("some/key", "an-etag"), &all);
    for kind in ["dat", "idx"] {
        let path = files(&dir, kind).pop().unwrap();
        for byte in 0..usize::try_from(fs::metadata(&path).unwrap().len()).unwrap() {
            for mask in [1, 0x80] {
                let answered = after_flip(&dir, &path, byte, mask, &all);
                assert_eq!(answered, [false], "{kind} byte {byte} mask {mask:x}");
            }
        }
    }
    assert!(has_all(&open(&dir), &id("some/key", "an-etag"), &all));
}

#[test]
fn a_flipped_byte_of_one_block_leaves_the_others() {
    let dir = TempDir::new().unwrap();
    let all = bytes(2, 2 * BLOCK + 5);
    put_all(&open(&dir), &id("some/key", "an-etag"), &all);
    let data = files(&dir, "dat").pop().unwrap();
    for byte in (0..all.len()).step_by(1009) {
        let answered = after_flip(&dir, &data, byte, 4, &all);
        let hit = byte / usize::try_from(BLOCK).unwrap();
        assert!((0..3).all(|block| answered[block] == (block != hit)));
    }
    let index = files(&dir, "idx").pop().unwrap();
    let length = fs::read(&index).unwrap().len();
    for byte in length - 24..length {
        let answered = after_flip(&dir, &index, byte, 1, &all);
        assert_eq!(answered.iter().filter(|is| !**is).count(), 1);
    }
}

#[test]
fn a_damaged_block_is_missing_and_can_be_put_again() {
    let dir = TempDir::new().unwrap();
    let (object, all) = (id("a", "1"), bytes(3, 2 * BLOCK));
    let cache = open(&dir);
    put_all(&cache, &object, &all);
    let data = files(&dir, "dat").pop().unwrap();
    fs::write(&data, vec![7; all.len()]).unwrap();
    assert_eq!(cache.get(&object, 1), None);
    assert_eq!(cache.missing(&object, 0..2), vec![1..2]);
    put_all(&cache, &object, &all);
    assert!(has_all(&cache, &object, &all));
}

#[test]
fn short_files_and_those_of_other_versions_are_misses() {
    let dir = TempDir::new().unwrap();
    let (one, two) = (id("a", "1"), id("b", "1"));
    let (bytes_one, bytes_two) = (bytes(4, BLOCK + 9), bytes(5, BLOCK + 9));
    let cache = open(&dir);
    put_all(&cache, &one, &bytes_one);
    put_all(&cache, &two, &bytes_two);
    drop(cache);
    let folder = dir.path().join("blocks");
    let path = |object, kind: fn(Name, &Path) -> PathBuf| kind(Name::of(object), &folder);
    fs::copy(path(&one, Name::dat), path(&two, Name::dat)).unwrap();
    let cache = open(&dir);
    assert_eq!(cache.missing(&two, 0..2), Vec::<Range<u64>>::new());
    assert_eq!((cache.get(&two, 0), cache.get(&two, 1)), (None, None));
    drop(cache);
    fs::copy(path(&one, Name::idx), path(&two, Name::idx)).unwrap();
    let cache = open(&dir);
    assert_eq!(cache.get(&two, 0), None);
    assert!(has_all(&cache, &one, &bytes_one));
    drop(cache);
    fs::File::options()
        .write(true)
        .open(path(&one, Name::dat))
        .unwrap()
        .set_len(BLOCK + 8)
        .unwrap();
    let cache = open(&dir);
    assert!(cache.get(&one, 0).is_some());
    assert_eq!(cache.get(&one, 1), None);
}

#[test]
fn another_size_of_the_same_version_starts_it_again() {
    let dir = TempDir::new().unwrap();
    let (object, longer) = (id("a", "1"), bytes(7, BLOCK + 20));
    let cache = open(&dir);
    put_all(&cache, &object, &bytes(6, BLOCK + 10));
    assert!(cache.put(&object, BLOCK + 20, 1, block_of(&longer, 1)));
    assert_eq!(cache.get(&object, 0), None);
    assert!(cache.get(&object, 1).unwrap() == block_of(&longer, 1));
}

#[test]
fn opening_clears_what_a_crash_left_and_leaves_strangers_alone() {
    let dir = TempDir::new().unwrap();
    let (one, two, three) = (id("a", "1"), id("b", "1"), id("c", "1"));
    let cache = open(&dir);
    for object in [&one, &two, &three] {
        put_all(&cache, object, &bytes(1, 100));
    }
    drop(cache);
    let folder = dir.path().join("blocks");
    fs::remove_file(Name::of(&one).idx(&folder)).unwrap();
    fs::remove_file(Name::of(&two).dat(&folder)).unwrap();
    fs::write(folder.join("7.tmp"), b"half").unwrap();
    fs::write(folder.join("README"), b"hello").unwrap();
    let cache = open(&dir);
    assert_eq!((cache.get(&one, 0), cache.get(&two, 0)), (None, None));
    assert!(has_all(&cache, &three, &bytes(1, 100)));
    assert_eq!(files(&dir, "dat").len() + files(&dir, "idx").len(), 2);
    assert!(files(&dir, "tmp").is_empty());
    assert!(folder.join("README").exists());
    assert_eq!(cache.usage().0, disk_use(&dir));
}

#[test]
fn a_large_folder_is_used_while_it_is_still_being_looked_at() {
    let dir = TempDir::new().unwrap();
    let object = |n: usize| id(&format!("k{n}"), "1");
    let cache = open(&dir);
    for n in 0..=SCAN_AT_ONCE {
        put_all(&cache, &object(n), &[n as u8; 3]);
    }
    let used = cache.usage().0;
    drop(cache);
    let cache = open(&dir);
    assert!(has_all(&cache, &object(7), &[7; 3]));
    put_all(&cache, &id("new", "1"), &bytes(1, 100));
    while cache.usage().0 < used {
        std::thread::yield_now();
    }
    assert_eq!(cache.usage().0, disk_use(&dir));
    assert!(has_all(&cache, &id("new", "1"), &bytes(1, 100)));
}

#[test]
fn the_cap_holds_and_the_version_used_longest_ago_goes() {
    let dir = TempDir::new().unwrap();
    let cache = open_with(&dir, MIB, 0);
    let object = |n: u64| id(&format!("k{n}"), "1");
    put_all(&cache, &object(0), &bytes(0, 100));
    let _pin = cache.pin(&object(0));
    for n in 1..20 {
        put_all(&cache, &object(n), &bytes(n, 5 * BLOCK));
        assert!(disk_use(&dir) <= MIB);
        assert_eq!(cache.usage().0, disk_use(&dir));
    }
    assert!(has_all(&cache, &object(0), &bytes(0, 100)), "it was pinned");
    assert!(has_all(&cache, &object(19), &bytes(19, 5 * BLOCK)));
    assert_eq!(cache.get(&object(1), 0), None);
}

#[test]
fn a_version_larger_than_the_cap_is_kept_as_far_as_it_fits() {
    let dir = TempDir::new().unwrap();
    let cache = open_with(&dir, MIB, 0);
    let (object, all) = (id("big", "1"), bytes(1, 4 * MIB));
    let kept = |block: &u64| cache.put(&object, 4 * MIB, *block, block_of(&all, *block));
    let kept: Vec<u64> = (0..blocks_of(4 * MIB)).filter(kept).collect();
    assert!((25..32).contains(&kept.len()), "{kept:?}");
    assert!(disk_use(&dir) <= MIB);
    assert!(
        kept.iter()
            .all(|block| cache.get(&object, *block).is_some())
    );
}

#[test]
fn a_cap_made_smaller_is_kept_at_the_next_start() {
    let dir = TempDir::new().unwrap();
    for n in 0..10 {
        put_all(
            &open(&dir),
            &id(&format!("k{n}"), "1"),
            &bytes(n, 4 * BLOCK),
        );
    }
    let cache = open_with(&dir, MIB / 2, 0);
    assert!(disk_use(&dir) <= MIB / 2);
    assert_eq!(cache.usage().0, disk_use(&dir));
    assert!(cache.usage().0 > 0);
}

#[test]
fn what_must_stay_free_stays_free() {
    let dir = TempDir::new().unwrap();
    put_all(&open(&dir), &id("old", "1"), &bytes(1, 100));
    let cache = open_with(&dir, MIB, u64::MAX);
    assert!(!cache.put(&id("new", "1"), 100, 0, &bytes(1, 100)));
    assert_eq!(disk_use(&dir), 0, "the cache gives way");
}

#[test]
fn a_folder_that_cannot_be_used_makes_everything_a_miss() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("file"), b"").unwrap();
    let absent = Cache::open(&Config {
        dir: dir.path().join("file/below"),
        max: MIB,
        reserve: 0,
    });
    let first = open(&dir);
    let second = open(&dir);
    let loose = TempDir::new().unwrap();
    fs::create_dir(loose.path().join("blocks")).unwrap();
    let mode = fs::Permissions::from_mode(0o777);
    fs::set_permissions(loose.path().join("blocks"), mode).unwrap();
    let object = id("a", "1");
    for cache in [absent, second, open(&loose)] {
        assert!(!cache.put(&object, 100, 0, &bytes(1, 100)));
        assert_eq!(cache.get(&object, 0), None);
        assert_eq!(cache.missing(&object, 0..3), vec![0..3]);
        assert!(!cache.adopt_file(&object, 1, &dir.path().join("file")));
        cache.forget(&object);
        drop(cache.pin(&object));
    }
    put_all(&first, &object, &bytes(1, 100));
}

#[test]
fn files_are_ours_alone_and_do_not_tell_the_key() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir);
    put_all(&cache, &id("secret-plan", "1"), &bytes(1, 100));
    let folder = dir.path().join("blocks");
    assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().mode() & 0o777, 0o600);
        assert!(!entry.file_name().to_string_lossy().contains("secret"));
    }
}

#[test]
fn missing_names_runs() {
    let dir = TempDir::new().unwrap();
    let cache = open(&dir);
    let (object, all) = (id("a", "1"), bytes(1, 8 * BLOCK));
    for block in [2, 3, 6] {
        assert!(cache.put(&object, 8 * BLOCK, block, block_of(&all, block)));
    }
    assert_eq!(cache.missing(&object, 0..9), [0..2, 4..6, 7..9]);
    assert_eq!(cache.missing(&object, 2..4), Vec::<Range<u64>>::new());
    assert!(cache.has(&object, 2 * BLOCK + 5..4 * BLOCK));
    assert!(!cache.has(&object, 2 * BLOCK..4 * BLOCK + 1));
    cache.forget(&object);
    assert_eq!(cache.missing(&object, 2..4), vec![2..4]);
    assert_eq!(disk_use(&dir), 0);
}

#[derive(Clone, Debug)]
enum Op {
    Put(u64, u64),
    Forget(u64),
    Inherit(u64, u64, bool, u64),
    Adopt(u64),
    Damage(u64),
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0u64..4, 0u64..3).prop_map(|(v, b)| Op::Put(v, b)),
        1 => (0u64..4).prop_map(Op::Forget),
        2 => (0u64..4, 0u64..4, any::<bool>(), 0u64..8)
            .prop_map(|(a, b, share, keep)| Op::Inherit(a, b, share, keep)),
        1 => (0u64..4).prop_map(Op::Adopt),
        1 => (0u64..40_000).prop_map(Op::Damage),
        1 => Just(Op::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_history_answers_the_right_bytes_or_none(ops in prop::collection::vec(op(), 1..25)) {
        // All versions have the same bytes in block 2, so that it may be inherited.
        let size = 2 * BLOCK + 100;
        let content: Vec<Vec<u8>> = (0..4u64)
            .map(|v| [bytes(v, 2 * BLOCK), bytes(77, 100)].concat())
            .collect();
        let content_of = |version: u64| &content[usize::try_from(version).unwrap()];
        let version = |v: u64| id("k", &v.to_string());
        let dir = TempDir::new().unwrap();
        let mut cache = open(&dir);
        let mut sources = HashMap::new();
        for op in ops {
            match op {
                Op::Put(v, b) => {
                    prop_assert!(cache.put(&version(v), size, b, block_of(content_of(v), b)));
                    prop_assert!(cache.get(&version(v), b).is_some());
                }
                Op::Forget(v) => cache.forget(&version(v)),
                Op::Inherit(from, to, share, keep) => {
                    let hands = if share { Hands::Share } else { Hands::Change };
                    cache.inherit(&version(from), &version(to), size, hands, &|b| {
                        b == 2 && keep > 0
                    });
                }
                Op::Adopt(v) => {
                    let path = dir.path().join(format!("source-{v}"));
                    if sources.insert(v, path.clone()).is_none() {
                        fs::write(&path, content_of(v)).unwrap();
                    }
                    prop_assert!(cache.adopt_file(&version(v), size, &path));
                    prop_assert!(has_all(&cache, &version(v), content_of(v)));
                }
                Op::Damage(byte) => {
                    for path in [files(&dir, "dat"), files(&dir, "idx")].concat() {
                        // A copy, so that no source is damaged.
                        let mut raw = fs::read(&path).unwrap();
                        if let Some(byte) = raw.get_mut(usize::try_from(byte).unwrap()) {
                            *byte ^= 0x10;
                        }
                        fs::remove_file(&path).unwrap();
                        fs::write(&path, raw).unwrap();
                    }
                }
                Op::Reopen => {
                    drop(cache);
                    cache = open(&dir);
                }
            }
            for v in 0..4 {
                for b in 0..3 {
                    let found = cache.get(&version(v), b);
                    prop_assert!(found.is_none_or(|found| found == block_of(content_of(v), b)));
                }
            }
        }
        for (v, path) in sources {
            prop_assert!(fs::read(path).unwrap() == *content_of(v), "source {v} was written to");
        }
    }
}

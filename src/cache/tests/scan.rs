use super::*;

#[test]
fn a_scan_of_ten_times_the_cap_leaves_what_was_used_twice() {
    let dir = TempDir::new().unwrap();
    let cache = open_with(&dir, MIB, 0);
    let (wanted, all) = (id("wanted", "1"), bytes(1, 4 * BLOCK));
    drop(cache.pin(&wanted));
    put_all(&cache, &wanted, &all);
    drop(cache.pin(&wanted));
    for n in 0..64 {
        let (object, all) = (id(&format!("scan{n}"), "1"), bytes(n, 5 * BLOCK));
        let _reader = cache.pin(&object);
        put_all(&cache, &object, &all);
        assert!(has_all(&cache, &object, &all));
    }
    assert!(has_all(&cache, &wanted, &all));
    assert!(disk_use(&dir) <= MIB);
}

#[test]
fn what_grew_from_a_version_used_twice_is_as_safe_from_a_scan() {
    let dir = TempDir::new().unwrap();
    let cache = open_with(&dir, MIB, 0);
    let (old, all) = (id("log", "1"), bytes(1, 4 * BLOCK));
    put_all(&cache, &old, &all);
    drop(cache.pin(&old));
    let new = id("log", "2");
    let grown = bytes(1, 4 * BLOCK + 50);
    cache.inherit(&old, &new, 4 * BLOCK + 50, Hands::Change, &|block| {
        block < 4
    });
    assert!(cache.put(&new, 4 * BLOCK + 50, 4, block_of(&grown, 4)));
    for n in 0..64 {
        put_all(&cache, &id(&format!("scan{n}"), "1"), &bytes(n, 5 * BLOCK));
    }
    assert!(has_all(&cache, &new, &grown));
}

#[test]
fn what_an_open_file_holds_stays_even_if_everything_else_is_wanted_more() {
    let dir = TempDir::new().unwrap();
    let cache = open_with(&dir, MIB, 0);
    let (held, all) = (id("held", "1"), bytes(1, 4 * BLOCK));
    let pin = cache.pin(&held);
    put_all(&cache, &held, &all);
    let wanted = |n: u64| id(&format!("k{n}"), "1");
    for n in 0..20 {
        put_all(&cache, &wanted(n), &bytes(n, 5 * BLOCK));
        drop(cache.pin(&wanted(n)));
    }
    assert!(has_all(&cache, &held, &all));
    drop(pin);
    for n in 20..40 {
        put_all(&cache, &wanted(n), &bytes(n, 5 * BLOCK));
    }
    assert_eq!(cache.get(&held, 0), None, "once closed it goes like others");
}

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn a_data_file_is_adopted_and_read_without_a_request() {
    let world = World::new();
    let all = bytes(1, 2 * MIB + 11);
    let file = world.local(1, &all);
    let len = all.len() as u64;
    let object = id("a", "new");
    world
        .reader
        .adopt(&extents([local(0, len, file, 0)]), &object, len)
        .await;
    fs::remove_file(world.files.path(file)).unwrap();
    world.read_all(&Extents::whole(object, len), &all).await;
    assert_eq!(world.store.count(), 0);
}

#[tokio::test]
async fn what_lies_elsewhere_in_the_spool_is_adopted_by_copy() {
    let world = World::new();
    let (one, two) = (bytes(1, 3 * BLOCK), bytes(2, 5000));
    let (a, b) = (world.local(1, &one), world.local(2, &two));
    let len = 3 * BLOCK + 4000;
    let pieces = extents([local(0, 2 * BLOCK, a, 77), local(2 * BLOCK + 9, 5000, b, 0)]);
    let mut model = vec![0; at(len)];
    model[..at(2 * BLOCK)].copy_from_slice(&one[77..][..at(2 * BLOCK)]);
    model[at(2 * BLOCK) + 9..][..5000].copy_from_slice(&two);
    let object = id("a", "new");
    world.reader.adopt(&pieces, &object, len).await;
    world.read_all(&Extents::whole(object, len), &model).await;
    assert_eq!(world.store.count(), 0);
}

#[tokio::test]
async fn an_append_keeps_the_blocks_of_its_base() {
    let world = World::new();
    let base = bytes(1, MIB + 100);
    let (old, whole) = world.object("a", &base);
    world.read_all(&whole, &base).await;
    world.quiet().await;
    let before = world.store.count();
    let tail = bytes(2, 2 * BLOCK);
    let file = world.local(1, &tail);
    let len = MIB + 100 + 2 * BLOCK;
    let pieces = extents([
        remote(0, MIB + 100, &old, 0),
        local(MIB + 100, 2 * BLOCK, file, 0),
    ]);
    let new = id("a", "2");
    world.reader.adopt(&pieces, &new, len).await;
    let all = [base, tail].concat();
    world.read_all(&Extents::whole(new, len), &all).await;
    assert_eq!(world.store.count(), before);
}

#[tokio::test]
async fn a_logger_that_appends_to_its_adopted_file_keeps_it_cached_and_unharmed() {
    let world = World::new();
    let all = bytes(1, MIB);
    let file = world.local(1, &all);
    let mut object = id("log", "0");
    let mut len = 5 * BLOCK + 17;
    world
        .reader
        .adopt(&extents([local(0, len, file, 0)]), &object, len)
        .await;
    for step in 1..8u64 {
        let add = step * 20_000;
        let pieces = extents([remote(0, len, &object, 0), local(len, add, file, len)]);
        len += add;
        object = id("log", &step.to_string());
        world.reader.adopt(&pieces, &object, len).await;
        let whole = Extents::whole(object.clone(), len);
        world.read_all(&whole, &all[..at(len)]).await;
        world.quiet().await;
    }
    assert_eq!(world.store.count(), 0);
    assert!(fs::read(world.files.path(file)).unwrap() == all);
    let (used, _) = world.reader.kept.cache.usage();
    assert!(used < MIB + 100_000, "one data file: {used}");
}

#[tokio::test]
async fn an_edit_in_the_middle_keeps_the_rest() {
    let world = World::new();
    let base = bytes(1, 8 * BLOCK + 3);
    let (old, whole) = world.object("a", &base);
    world.read_all(&whole, &base).await;
    world.quiet().await;
    let before = world.store.count();
    let file = world.local(1, &bytes(2, 100));
    let mut pieces = whole.clone();
    pieces.put(local(3 * BLOCK - 50, 100, file, 0));
    let len = 8 * BLOCK + 3 - 1;
    pieces.truncate(len);
    let mut model = base.clone();
    model[at(3 * BLOCK - 50)..][..100].copy_from_slice(&bytes(2, 100));
    model.pop();
    let new = id("a", "2");
    world.reader.adopt(&pieces, &new, len).await;
    assert!(
        world
            .reader
            .is_local(&Extents::whole(new.clone(), len), 0, len)
    );
    world.read_all(&Extents::whole(new, len), &model).await;
    assert_eq!(world.store.count(), before);
    assert!(!world.reader.is_local(&Extents::whole(old, 1), 0, 1));
}

#[tokio::test]
async fn a_copy_shares_the_blocks_and_new_attributes_keep_them() {
    let world = World::new();
    let all = bytes(1, 8 * BLOCK + 3);
    let (old, whole) = world.object("a", &all);
    world.read_all(&whole, &all).await;
    world.quiet().await;
    let before = world.store.count();
    let copy = id("b", "1");
    world.reader.adopt(&whole, &copy, all.len() as u64).await;
    world.reader.adopt(&whole, &old, all.len() as u64).await;
    world.read_all(&whole, &all).await;
    let whole = Extents::whole(copy, all.len() as u64);
    world.read_all(&whole, &all).await;
    assert_eq!(world.store.count(), before);
}

#[tokio::test]
async fn what_cannot_be_adopted_is_fetched() {
    let world = World::with(OPEN_GATE, |config| config.cache_max = 10 * BLOCK);
    let all = bytes(1, 20 * BLOCK);
    let file = world.local(1, &all);
    let (object, whole) = world.object("a", &all);
    let pieces = extents([local(0, 20 * BLOCK, file, 0)]);
    world.reader.adopt(&pieces, &object, 20 * BLOCK).await;
    let lost = extents([local(0, BLOCK, FileNo(99), 0)]);
    let (second, _) = world.object("b", &all[..at(BLOCK)]);
    world.reader.adopt(&lost, &second, BLOCK).await;
    world.read_all(&whole, &all).await;
    world
        .read_all(&Extents::whole(second, BLOCK), &all[..at(BLOCK)])
        .await;
}

/// (where, length, source, offset in it)
type Piece = (u64, u64, usize, u64);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_extents_read_as_the_byte_model_before_and_after_adoption(
        pieces in prop::collection::vec((0u64..150_000, 1u64..80_000, 0usize..6, 0u64..70_000), 1..8),
        reads in prop::collection::vec((0u64..240_000, 1usize..100_000), 1..6),
        len in 1u64..230_000,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
        let runtime = runtime.unwrap();
        runtime.block_on(check(&pieces, &reads, len));
    }
}

/// Sources 0 and 1 are spool files, 2 to 4 versions in the bucket, 5 makes a gap. A multiple of
/// four for an offset stands for "where it is in the file".
async fn check(pieces: &[Piece], reads: &[(u64, usize)], len: u64) {
    let world = World::new();
    let sources: Vec<_> = (0..5).map(|n| bytes(n, 230_000)).collect();
    let (first, second) = (world.local(1, &sources[0]), world.local(2, &sources[1]));
    let keys = ["target", "other", "third"];
    let objects: Vec<_> = (2..5)
        .map(|n| world.object(keys[n - 2], &sources[n]).0)
        .collect();
    let mut all = Extents::default();
    let mut model = vec![0; 250_000];
    for (place, length, source, offset) in pieces {
        let offset = if offset % 4 == 0 { *place } else { *offset };
        let range = at(*place)..at(place + length);
        match source {
            0 => all.put(local(*place, *length, first, offset)),
            1 => all.put(local(*place, *length, second, offset)),
            2..5 => all.put(remote(*place, *length, &objects[source - 2], offset)),
            _ => all.cut(*place, place + length),
        }
        match sources.get(*source) {
            Some(bytes) => {
                model[range.clone()].copy_from_slice(&bytes[at(offset)..][..range.len()])
            }
            None => model[range].fill(0),
        }
    }
    all.truncate(len);
    model.truncate(at(len));
    let expected = |offset: u64, size: usize| {
        let start = model.len().min(at(offset));
        &model[start..model.len().min(start + size)]
    };
    let window = Window::default();
    for (offset, size) in reads {
        let read = world
            .reader
            .read_at(&all, len, *offset, *size, &window)
            .await;
        assert!(read.unwrap() == expected(*offset, *size));
    }
    let size = at(len);
    let read = world.reader.read_at(&all, len, 0, size, &window).await;
    assert!(read.unwrap() == model);
    world.quiet().await;
    let object = id("target", "new");
    world.store.set(&object, &model);
    let before = world.store.bytes_sent();
    world.reader.adopt(&all, &object, len).await;
    let whole = Extents::whole(object, len);
    let read = world
        .reader
        .read_at(&whole, len, 0, size, &Window::default())
        .await;
    assert!(read.unwrap() == model);
    assert_eq!(
        world.store.bytes_sent(),
        before,
        "all was local when it was adopted"
    );
    for (n, file) in [first, second].into_iter().enumerate() {
        assert!(fs::read(world.files.path(file)).unwrap() == sources[n]);
    }
}

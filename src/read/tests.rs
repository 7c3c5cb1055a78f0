use std::fs;
use std::os::unix::fs::FileExt;

use tempfile::TempDir;

use super::fake::{Fake, Fault};
use super::*;
use crate::types::{ETag, ObjectKey};

const MIB: u64 = 1 << 20;
const OPEN_GATE: usize = 1 << 20;

/// A spool of plain files.
#[derive(Debug)]
struct Files(TempDir);

impl LocalBytes for Files {
    fn read_at(&self, file: FileNo, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; len];
        fs::File::open(self.path(file))?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }
    fn path(&self, file: FileNo) -> PathBuf {
        self.0.path().join(file.0.to_string())
    }
}

struct World {
    reader: Arc<Reader>,
    store: Arc<Fake>,
    files: Arc<Files>,
    cache: TempDir,
}

fn config(cache: &TempDir) -> Config {
    Config {
        cache_dir: cache.path().into(),
        disk_reserve: 0,
        ..Config::default()
    }
}

impl World {
    fn with(gate: usize, change: impl FnOnce(&mut Config)) -> Self {
        let (cache, store) = (TempDir::new().unwrap(), Fake::new(gate));
        let files = Arc::new(Files(TempDir::new().unwrap()));
        let mut config = config(&cache);
        change(&mut config);
        let port: Arc<dyn ObjectStore> = Arc::<Fake>::clone(&store);
        Self {
            reader: Reader::over(config, port, Arc::<Files>::clone(&files)),
            store,
            files,
            cache,
        }
    }

    fn new() -> Self {
        Self::with(OPEN_GATE, |_| {})
    }

    /// A foreign object in the bucket.
    fn object(&self, key: &str, bytes: &[u8]) -> (ObjectId, Extents) {
        let object = id(key, "1");
        self.store.set(&object, bytes);
        (object.clone(), Extents::whole(object, bytes.len() as u64))
    }

    fn local(&self, number: u64, bytes: &[u8]) -> FileNo {
        fs::write(self.files.path(FileNo(number)), bytes).unwrap();
        FileNo(number)
    }

    async fn read(&self, extents: &Extents, len: u64, offset: u64, size: usize) -> Bytes {
        let window = Window::default();
        let read = self.reader.read_at(extents, len, offset, size, &window);
        read.await.unwrap()
    }

    async fn fails(&self, extents: &Extents, len: u64) -> ReadError {
        let window = Window::default();
        let size = usize::try_from(len).unwrap();
        let read = self.reader.read_at(extents, len, 0, size, &window);
        read.await.unwrap_err()
    }

    /// Reads all, in pieces of 128 KiB, as one handle does.
    async fn read_all(&self, extents: &Extents, expected: &[u8]) {
        let window = Window::default();
        let len = expected.len() as u64;
        for offset in (0..len).step_by(128 * 1024) {
            let read = self
                .reader
                .read_at(extents, len, offset, 128 * 1024, &window);
            let start = usize::try_from(offset).unwrap();
            let end = expected.len().min(start + 128 * 1024);
            assert!(read.await.unwrap() == expected[start..end], "at {offset}");
        }
    }

    /// All that is fetched ahead has arrived.
    async fn quiet(&self) {
        while self.reader.flights.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

fn id(key: &str, etag: &str) -> ObjectId {
    ObjectId {
        key: ObjectKey::new(key),
        etag: ETag::new(etag),
    }
}

fn bytes(seed: u64, len: u64) -> Vec<u8> {
    (0..len)
        .map(|i| (i ^ (i >> 8) ^ (i >> 15).wrapping_mul(31) ^ seed.wrapping_mul(97)) as u8)
        .collect()
}

fn at(n: u64) -> usize {
    usize::try_from(n).unwrap()
}

fn local(at: u64, len: u64, file: FileNo, offset: u64) -> Extent {
    Extent {
        at,
        len,
        from: Source::Local { file, offset },
    }
}

fn remote(at: u64, len: u64, object: &ObjectId, offset: u64) -> Extent {
    Extent {
        at,
        len,
        from: Source::Remote {
            object: object.clone(),
            offset,
        },
    }
}

fn extents(pieces: impl IntoIterator<Item = Extent>) -> Extents {
    let mut all = Extents::default();
    pieces.into_iter().for_each(|piece| all.put(piece));
    all
}

#[tokio::test]
async fn a_first_read_fetches_its_blocks_and_a_second_nothing() {
    let world = World::new();
    let all = bytes(1, 10 * BLOCK + 100);
    let (object, whole) = world.object("a", &all);
    let len = all.len() as u64;
    let read = world.read(&whole, len, 2 * BLOCK + 5, 4096).await;
    assert!(read == all[at(2 * BLOCK + 5)..][..4096]);
    assert_eq!(
        *world.store.gets.lock(),
        [(object, 2 * BLOCK..3 * BLOCK)],
        "asked with If-Match"
    );
    assert!(world.reader.is_local(&whole, 2 * BLOCK, 3 * BLOCK));
    assert!(!world.reader.is_local(&whole, 2 * BLOCK, 3 * BLOCK + 1));
    world.read(&whole, len, 2 * BLOCK, at(BLOCK)).await;
    assert_eq!(world.store.count(), 1);
    let tail = world.read(&whole, len, 10 * BLOCK + 50, 4096).await;
    assert!(tail == all[at(10 * BLOCK + 50)..], "shorter at the end");
    assert!(world.read(&whole, len, len, 10).await.is_empty());
    assert_eq!(world.store.bytes_sent(), BLOCK + 100);
}

#[tokio::test]
async fn what_was_read_is_there_after_a_restart() {
    let world = World::new();
    let all = bytes(1, 3 * BLOCK);
    let (_, whole) = world.object("a", &all);
    world.read_all(&whole, &all).await;
    let before = world.store.count();
    let World {
        reader,
        store,
        files,
        cache,
    } = world;
    let config = config(&cache);
    drop(reader);
    let port: Arc<dyn ObjectStore> = Arc::<Fake>::clone(&store);
    let world = World {
        reader: Reader::over(config, port, Arc::<Files>::clone(&files)),
        store,
        files,
        cache,
    };
    world.read_all(&whole, &all).await;
    assert_eq!(world.store.count(), before);
}

#[tokio::test]
async fn ten_readers_of_a_cold_block_make_one_request() {
    let world = World::with(0, |_| {});
    let all = bytes(1, 4 * BLOCK);
    let (_, whole) = world.object("a", &all);
    let readers: Vec<_> = (0..10)
        .map(|n| {
            let (reader, whole) = (Arc::clone(&world.reader), whole.clone());
            tokio::spawn(async move {
                let window = Window::default();
                let read = reader.read_at(&whole, 4 * BLOCK, BLOCK + n, 100, &window);
                (n, read.await.unwrap())
            })
        })
        .collect();
    // The body is held back until all ten wait for it.
    while world.reader.flights.waiting() < 10 {
        tokio::task::yield_now().await;
    }
    world.store.gate.add_permits(OPEN_GATE);
    for reader in readers {
        let (n, read) = reader.await.unwrap();
        assert!(read == all[at(BLOCK + n)..][..100]);
    }
    assert_eq!(world.store.count(), 1);
    assert_eq!(world.store.bytes_sent(), BLOCK);
}

#[tokio::test]
async fn a_waiter_gets_its_block_before_the_run_has_ended() {
    let world = World::with(0, |_| {});
    let all = bytes(1, 8 * BLOCK);
    let (_, whole) = world.object("a", &all);
    let (reader, extents) = (Arc::clone(&world.reader), whole.clone());
    let long = tokio::spawn(async move {
        let window = Window::default();
        let size = at(8 * BLOCK);
        reader.read_at(&extents, 8 * BLOCK, 0, size, &window).await
    });
    while world.reader.flights.waiting() < 8 {
        tokio::task::yield_now().await;
    }
    // Pieces of 10,000 bytes: four of them bring the first block, no more.
    world.store.gate.add_permits(4);
    let first = world.read(&whole, 8 * BLOCK, 0, 100).await;
    assert!(first == all[..100]);
    assert!(!long.is_finished());
    assert_eq!(world.store.count(), 1);
    world.store.gate.add_permits(OPEN_GATE);
    assert!(long.await.unwrap().unwrap() == all[..]);
    assert_eq!(world.store.bytes_sent(), 8 * BLOCK);
}

#[tokio::test]
async fn a_reader_that_goes_away_does_not_end_the_fetch_for_others() {
    let world = World::with(0, |_| {});
    let all = bytes(1, 2 * BLOCK);
    let (_, whole) = world.object("a", &all);
    let spawn = || {
        let (reader, whole) = (Arc::clone(&world.reader), whole.clone());
        tokio::spawn(async move {
            let window = Window::default();
            reader.read_at(&whole, 2 * BLOCK, 0, 100, &window).await
        })
    };
    let first = spawn();
    while world.reader.flights.waiting() < 1 {
        tokio::task::yield_now().await;
    }
    let second = spawn();
    while world.reader.flights.waiting() < 2 {
        tokio::task::yield_now().await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    world.store.gate.add_permits(OPEN_GATE);
    assert!(second.await.unwrap().unwrap() == all[..100]);
    assert_eq!(world.store.count(), 1);
}

#[tokio::test]
async fn a_long_sequential_read_takes_few_requests_and_every_byte_once() {
    let world = World::new();
    let all = bytes(1, 48 * MIB + 777);
    let (_, whole) = world.object("a", &all);
    world.read_all(&whole, &all).await;
    world.quiet().await;
    assert_eq!(world.store.bytes_sent(), all.len() as u64);
    assert!(world.store.count() <= 48, "{}", world.store.count());
    let before = world.store.count();
    world.read_all(&whole, &all).await;
    world.quiet().await;
    assert_eq!(world.store.count(), before);
}

#[tokio::test]
async fn random_reads_fetch_a_block_each() {
    let world = World::new();
    let all = bytes(1, 16 * MIB);
    let (_, whole) = world.object("a", &all);
    let window = Window::default();
    let reads = 100;
    for i in 1..=reads {
        let offset = i * 7_919 * 4096 % (16 * MIB);
        let read = world
            .reader
            .read_at(&whole, 16 * MIB, offset, 4096, &window);
        assert!(read.await.unwrap() == all[at(offset)..][..4096]);
    }
    world.quiet().await;
    assert!(world.store.bytes_sent() <= reads * BLOCK);
    let gets = world.store.gets.lock();
    assert!(
        gets.iter()
            .all(|(_, range)| range.end - range.start == BLOCK)
    );
}

#[tokio::test]
async fn without_a_cache_everything_reads_right_and_a_sequential_read_fetches_once() {
    let world = World::with(OPEN_GATE, |config| {
        config.cache_dir = "/dev/null/nowhere".into();
    });
    let all = bytes(1, 20 * MIB);
    let (_, whole) = world.object("a", &all);
    world.read_all(&whole, &all).await;
    world.quiet().await;
    assert_eq!(world.store.bytes_sent(), 20 * MIB);
    assert!(world.store.count() < 60, "{}", world.store.count());
}

#[tokio::test]
async fn a_full_cache_reads_right() {
    let world = World::with(OPEN_GATE, |config| config.cache_max = MIB);
    let all = bytes(1, 6 * MIB);
    let (_, whole) = world.object("a", &all);
    world.read_all(&whole, &all).await;
    world.quiet().await;
    assert_eq!(world.store.bytes_sent(), 6 * MIB);
    let again = bytes(2, 2 * MIB);
    let (_, other) = world.object("b", &again);
    world.read_all(&other, &again).await;
}

#[tokio::test]
async fn a_version_that_is_gone_is_stale_unless_it_is_cached() {
    let world = World::new();
    let all = bytes(1, 3 * BLOCK);
    let (object, whole) = world.object("a", &all);
    world.read(&whole, 3 * BLOCK, 0, 10).await;
    world.store.set(&id("a", "2"), &bytes(2, 3 * BLOCK));
    assert!(world.read(&whole, 3 * BLOCK, 0, 10).await == all[..10]);
    assert_eq!(world.fails(&whole, 3 * BLOCK).await, ReadError::Stale);
    let gone = Extents::whole(id("absent", "1"), 5);
    assert_eq!(world.fails(&gone, 5).await, ReadError::Stale);
    // A server that does not look at If-Match is seen through.
    world.store.set(&object, &all);
    world.store.faults.lock().push_back(Fault::OtherVersion);
    assert_eq!(world.fails(&whole, 3 * BLOCK).await, ReadError::Stale);
    world.read_all(&whole, &all).await;
}

#[tokio::test]
async fn broken_bodies_give_right_bytes_or_an_error() {
    let all = bytes(1, 3 * BLOCK);
    let link = || StoreError::Link("reset".into());
    let denied = || StoreError::AccessDenied("no".into());
    for (faults, is_right) in [
        (vec![Fault::Cut(10)], true),
        (vec![Fault::Cut(40_000)], true),
        (vec![Fault::Cut(at(BLOCK))], true),
        (vec![Fault::Break(0, link())], true),
        (vec![Fault::Break(50_000, link()); 3], true),
        (vec![Fault::Break(9, link()); 9], false),
        (vec![Fault::Break(50_000, denied())], false),
        (vec![Fault::Refuse(link())], false),
        (vec![Fault::WrongRange], false),
        (vec![Fault::Panic], true),
        (vec![Fault::Panic; 9], false),
    ] {
        let world = World::new();
        let (_, whole) = world.object("a", &all);
        world.store.faults.lock().extend(faults.clone());
        let window = Window::default();
        let size = at(3 * BLOCK);
        let read = world.reader.read_at(&whole, 3 * BLOCK, 0, size, &window);
        match read.await {
            Ok(read) => assert!(is_right && read == all[..], "{faults:?}"),
            Err(error) => assert!(!is_right, "{faults:?}: {error}"),
        }
        world.store.faults.lock().clear();
        world.read_all(&whole, &all).await;
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_adds_nothing() {
    let world = World::new();
    let all = bytes(1, 3 * BLOCK + 5);
    let (_, whole) = world.object("a", &all);
    world.store.faults.lock().push_back(Fault::TooLong);
    assert!(world.read(&whole, 3 * BLOCK + 5, 0, 1 << 20).await == all[..]);
    world.read_all(&whole, &all).await;
}

#[tokio::test]
async fn a_read_fails_when_no_byte_comes_in_time() {
    let world = World::with(OPEN_GATE, |config| {
        config.read_timeout = Duration::from_millis(50);
    });
    let all = bytes(1, 3 * BLOCK);
    let (_, whole) = world.object("a", &all);
    world.store.faults.lock().push_back(Fault::Stall(40_000));
    let deadline = ReadError::Store(StoreError::Deadline);
    assert_eq!(world.fails(&whole, 3 * BLOCK).await, deadline);
    assert!(world.reader.is_local(&whole, 0, BLOCK), "what came is kept");
    assert_eq!(world.reader.flights.in_flight(), 0);
}

#[tokio::test]
async fn a_cold_read_fails_at_once_where_the_link_is_known_to_be_down_and_a_cached_one_does_not() {
    let world = World::with(OPEN_GATE, |config| {
        config.read_timeout = Duration::from_secs(3600);
    });
    let all = bytes(1, 3 * BLOCK);
    let (_, whole) = world.object("a", &all);
    world.read(&whole, 3 * BLOCK, 0, 10).await;
    world.quiet().await;
    world.reader.ask_link(Arc::new(|| true));
    assert!(world.read(&whole, 3 * BLOCK, 0, 100).await == all[..100]);
    let before = world.store.count();
    let error = world.fails(&whole, 3 * BLOCK).await;
    assert!(
        matches!(error, ReadError::Store(StoreError::Link(_))),
        "{error}"
    );
    assert_eq!(world.store.count(), before, "nothing was asked");
}

#[tokio::test]
async fn an_object_shorter_than_was_known_is_an_error() {
    let world = World::new();
    let (object, _) = world.object("a", &bytes(1, BLOCK + 10));
    for len in [BLOCK + 11, 3 * BLOCK] {
        let whole = Extents::whole(object.clone(), len);
        let error = world.fails(&whole, len).await;
        assert!(matches!(error, ReadError::Store(StoreError::BadAnswer(_))));
    }
}

#[tokio::test]
async fn a_damaged_block_is_fetched_again() {
    let world = World::new();
    let all = bytes(1, 4 * BLOCK);
    let (_, whole) = world.object("a", &all);
    world.read_all(&whole, &all).await;
    world.quiet().await;
    let blocks = fs::read_dir(world.cache.path().join("blocks")).unwrap();
    for path in blocks.map(|entry| entry.unwrap().path()) {
        if path.extension().is_some_and(|ext| ext == "dat") {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.write_all_at(b"rot", 2 * BLOCK + 7).unwrap();
        }
    }
    world.read_all(&whole, &all).await;
    world.quiet().await;
    assert_eq!(world.store.bytes_sent(), 5 * BLOCK);
}

#[tokio::test]
async fn local_bytes_and_gaps_need_no_network() {
    let world = World::new();
    let spool = bytes(3, 1000);
    let file = world.local(4, &spool);
    let pieces = extents([local(100, 500, file, 200), local(1000, 10, file, 0)]);
    let read = world.read(&pieces, 2000, 50, 4000).await;
    let mut model = vec![0; 2000];
    model[100..600].copy_from_slice(&spool[200..700]);
    model[1000..1010].copy_from_slice(&spool[..10]);
    assert!(read == model[50..]);
    assert!(world.reader.is_local(&pieces, 0, 2000));
    assert_eq!(world.store.count(), 0);
    let lost = extents([local(0, 10, FileNo(9), 0)]);
    let error = world.fails(&lost, 10).await;
    assert_eq!(error, ReadError::Disk(libc::ENOENT));
}

mod adoption;
mod scan;

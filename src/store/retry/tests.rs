//! What is repeated, what is not, and that every call ends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use bytes::Bytes;

use super::super::Body;
use super::super::counted::{Counted, Counters};
use super::super::fault::{Fault, Kind};
use super::super::twin::Twin;
use super::*;

/// Waits are short and ends far away: only what a test sets decides it.
fn config() -> Config {
    let far = Duration::from_secs(3600);
    Config {
        first_wait: Duration::ZERO,
        longest_wait: Duration::ZERO,
        meta: far,
        work: far,
        data: far,
        resends: 3,
        stall_up: far,
        stall_down: far,
    }
}

struct Bench {
    twin: Twin,
    fault: Arc<Fault>,
    /// Of the requests below the retries.
    counters: Arc<Counters>,
    store: Arc<Retry>,
}

fn bench(config: Config) -> Bench {
    let (twin, counters) = (Twin::new(), Arc::new(Counters::default()));
    let (faulty, fault) = Fault::over(Arc::new(twin.clone()));
    let counted = Counted::over(faulty, Arc::clone(&counters));
    let store = Retry::over(counted, config);
    Bench {
        twin,
        fault,
        counters,
        store,
    }
}

impl Bench {
    async fn put(&self, payload: Payload, when: Precondition) -> Result<ObjectMeta> {
        let headers = Headers::default();
        self.store.put(&key(), &payload, &headers, &when).await
    }
}

fn key() -> ObjectKey {
    ObjectKey::new("k")
}

async fn read(download: Download) -> Result<Vec<u8>> {
    let mut body = download.body;
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}

fn noise(len: u32) -> Bytes {
    (0..len)
        .map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect()
}

#[test]
fn waits_are_anything_up_to_a_bound_that_doubles_to_its_cap() {
    let config = Config {
        first_wait: Duration::from_millis(100),
        longest_wait: Duration::from_millis(1000),
        ..Config::default()
    };
    for (repeat, bound) in [
        (0, 100),
        (1, 200),
        (2, 400),
        (3, 800),
        (4, 1000),
        (99, 1000),
    ] {
        assert_eq!(wait(&config, repeat, 0), Duration::ZERO);
        assert_eq!(wait(&config, repeat, bound), Duration::from_millis(bound));
        assert_eq!(wait(&config, repeat, bound + 1), Duration::ZERO);
    }
}

#[tokio::test]
async fn what_may_pass_is_repeated_until_it_does() {
    let bench = bench(config());
    bench.twin.put_behind("k", "x", Headers::default());
    for (nth, error) in (1..).zip([
        StoreError::Throttled,
        StoreError::Link("reset".to_owned()),
        StoreError::Conflict,
        StoreError::BadAnswer("a portal".to_owned()),
    ]) {
        bench.fault.on(Op::Head, nth, Kind::Before(error));
    }
    assert_eq!(bench.store.head(&key(), None).await.unwrap().size, 1);
    assert_eq!(bench.counters.counts().of(Op::Head), 5);
}

#[tokio::test]
async fn an_answer_is_never_repeated() {
    for error in [
        StoreError::NotFound,
        StoreError::NotModified,
        StoreError::Stale,
        StoreError::Precondition,
        StoreError::NoSuchUpload,
        StoreError::NoSuchBucket,
        StoreError::WrongRegion(None),
        StoreError::AccessDenied(String::new()),
        StoreError::Credentials(String::new()),
        StoreError::NoCredentials(String::new()),
        StoreError::Quota(String::new()),
        StoreError::Archived,
        StoreError::Invalid(String::new()),
        StoreError::NotImplemented(String::new()),
        StoreError::Disk(5),
    ] {
        let bench = bench(config());
        let payload = Payload::of("x".into());
        for op in [Op::Delete, Op::Put, Op::Get] {
            bench.fault.on(op, 1, Kind::Before(error.clone()));
        }
        let deleted = bench.store.delete(&key(), None).await;
        assert_eq!(deleted, Err(error.clone()));
        let put = bench.put(payload.clone(), Precondition::None).await;
        assert_eq!(put, Err(error.clone()));
        let got = bench.store.get(&key(), None, None).await;
        assert_eq!(got.map(|_| ()), Err(error));
        assert_eq!(bench.counters.counts().total(), 3);
    }
}

#[tokio::test]
async fn a_call_that_is_never_answered_ends() {
    let soon = Duration::from_millis(20);
    let bench = bench(Config {
        meta: soon,
        work: soon,
        data: soon,
        stall_up: soon,
        stall_down: soon,
        // A second attempt would begin behind the deadline.
        first_wait: Duration::from_secs(3600),
        longest_wait: Duration::from_secs(3600),
        ..config()
    });
    for op in [Op::Head, Op::Copy, Op::Put, Op::Get] {
        for nth in 1..=20 {
            bench.fault.on(op, nth, Kind::Hang);
        }
    }
    let head = bench.store.head(&key(), None).await;
    assert_eq!(head, Err(StoreError::Deadline));
    let source = ObjectId {
        key: key(),
        etag: ETag::new("x"),
    };
    let copy = CopyRequest {
        source,
        key: key(),
        headers: Headers::default(),
    };
    assert_eq!(bench.store.copy(&copy).await, Err(StoreError::Deadline));
    let payload = Payload::of("x".into());
    let put = bench.put(payload, Precondition::None).await;
    assert_eq!(put, Err(stalled()));
    let got = bench.store.get(&key(), None, None).await;
    assert_eq!(got.map(|_| ()), Err(stalled()));
}

#[tokio::test]
async fn the_last_error_is_told_when_the_time_is_over() {
    let bench = bench(Config {
        meta: Duration::from_millis(20),
        ..config()
    });
    bench.fault.link_down(true);
    let head = bench.store.head(&key(), None).await;
    assert!(matches!(head, Err(StoreError::Link(_))), "{head:?}");
}

#[tokio::test]
async fn a_repeat_may_meet_what_the_lost_answer_was_about() {
    let bench = bench(config());
    let lost = StoreError::Link("the answer was lost".to_owned());
    bench.fault.on(Op::Put, 1, Kind::After(lost));
    let payload = Payload::of("x".into());
    let put = bench
        .store
        .put(
            &key(),
            &payload,
            &Headers::default(),
            &Precondition::IfAbsent,
        )
        .await;
    assert_eq!(put, Err(StoreError::Precondition));
    assert_eq!(bench.twin.object("k").unwrap().0, "x");
}

#[tokio::test]
async fn a_broken_body_goes_on_at_the_byte_reached() {
    let bench = bench(config());
    let bytes = noise(300_000);
    bench
        .twin
        .put_behind("k", bytes.clone(), Headers::default());
    bench.fault.on(Op::Get, 1, Kind::Cut(100_001));
    bench
        .fault
        .on(Op::Get, 2, Kind::Before(StoreError::Throttled));
    bench.fault.on(Op::Get, 3, Kind::Cut(0));
    bench.fault.on(Op::Get, 4, Kind::Cut(1));
    let got = bench.store.get(&key(), Some(10..290_000), None).await;
    let got = read(got.unwrap()).await.unwrap();
    assert!(got == bytes[10..290_000], "the bytes of the range");
    let counts = bench.counters.counts();
    assert_eq!(counts.of(Op::Get), 5);
    assert_eq!(counts.down, 289_990, "no byte came twice");
}

#[tokio::test]
async fn a_body_is_never_of_two_versions() {
    let bench = bench(config());
    bench
        .twin
        .put_behind("k", noise(300_000), Headers::default());
    bench.fault.on(Op::Get, 1, Kind::Cut(100_000));
    let got = bench.store.get(&key(), None, None).await.unwrap();
    bench
        .twin
        .put_behind("k", noise(300_001), Headers::default());
    assert_eq!(read(got).await, Err(StoreError::Stale));
}

/// A body that yields nothing, ever.
struct Silent;

#[async_trait]
impl Body for Silent {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_body_that_stands_still_is_asked_for_again() {
    let bench = bench(Config {
        stall_down: Duration::from_millis(20),
        ..config()
    });
    let etag = bench.twin.put_behind("k", "0123456789", Headers::default());
    let id = ObjectId { key: key(), etag };
    let body = Resumed::new(Retry::clone(&bench.store), id, 4..8, Box::new(Silent));
    let download = Download {
        meta: bench.twin.object("k").unwrap().1,
        range: 4..8,
        body: Box::new(body),
    };
    assert_eq!(read(download).await.unwrap(), b"4567");
}

#[tokio::test]
async fn bytes_that_s3_has_had_are_sent_again_only_so_often() {
    let bench = bench(config());
    let damaged = Payload {
        crc64: 1,
        ..Payload::of(noise(600_000))
    };
    let put = bench.put(damaged, Precondition::None);
    assert_eq!(put.await, Err(StoreError::BadDigest));
    assert_eq!(bench.counters.counts().of(Op::Put), 4);
}

#[tokio::test]
async fn attempts_that_send_nothing_are_not_counted_as_resends() {
    let bench = bench(config());
    for nth in 1..=50 {
        let down = StoreError::Link("no route".to_owned());
        bench.fault.on(Op::Put, nth, Kind::Before(down));
    }
    let payload = Payload::of("x".into());
    let put = bench.put(payload, Precondition::None);
    put.await.unwrap();
    assert_eq!(bench.counters.counts().of(Op::Put), 51);
}

#[tokio::test]
async fn an_upload_that_stands_still_is_tried_again() {
    let bench = bench(Config {
        stall_up: Duration::from_millis(20),
        ..config()
    });
    bench.fault.on(Op::UploadPart, 1, Kind::Hang);
    let (key, headers) = (key(), Headers::default());
    let upload = bench.store.create_multipart(&key, &headers).await.unwrap();
    let payload = Payload::of("x".into());
    let part = bench.store.upload_part(&key, &upload, 1, &payload);
    assert_eq!(part.await.unwrap().size, Some(1));
}

#[tokio::test]
async fn an_upload_that_moves_is_left_alone() {
    let progress = Progress::new();
    let source = Watched {
        source: Arc::new(noise(1000)),
        progress: Arc::clone(&progress),
    };
    let polls = AtomicU64::new(0);
    // Takes a frame each time it is looked at, and is looked at only when its time is over.
    let moving = std::future::poll_fn(|_| {
        let at = polls.fetch_add(1, Ordering::Relaxed);
        source.read(at, 1).unwrap();
        if at < 99 {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    });
    assert_eq!(
        unless_stalled(moving, &progress, Duration::ZERO).await,
        Ok(())
    );
    assert_eq!(Progress::reached(&progress).0, 100);
}

//! Power cuts and bit rot: any part of what was not flushed is lost, any byte of what was flips.

use proptest::prelude::*;

use super::*;
use crate::disk::{Dir, Step};
use crate::log::recover::{Event, Survey};
use parking_lot::Mutex;

/// What reading `log/` yields: the records, and how much was unreadable.
fn read(config: &Config) -> (Records, usize) {
    let log = Dir::private(&Disk::default(), &config.dir.join("log")).unwrap();
    let salt = salt(config);
    let survey = Survey::of(&log, Some(salt)).unwrap();
    let (mut records, mut unreadable) = (Records::new(), 0);
    survey
        .walk(&log, &mut |event| {
            match event {
                Event::Record(seq, record) => records.push((seq, record)),
                Event::Damaged(bytes) | Event::Torn(bytes) => unreadable += bytes.bytes.len(),
                Event::Missing(..) | Event::End { .. } => {}
            }
            Ok(())
        })
        .unwrap();
    (records, unreadable)
}

fn salt(config: &Config) -> frame::Salt {
    let json = std::fs::read(config.dir.join("binding")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    frame::Salt(u64::from_str_radix(json["salt"].as_str().unwrap(), 16).unwrap())
}

/// A log of three records, flushed one by one if `is_flushed`; its segment and its frames' ends.
async fn three(config: &Config, is_flushed: bool) -> (Records, std::path::PathBuf, Vec<u8>) {
    let (log, _) = open(config).unwrap();
    let mut all = Records::new();
    for name in ["one", "two", "three"] {
        all.push(
            log.append(small(name, name.len()), name.as_bytes(), Need::Growth)
                .unwrap(),
        );
        if is_flushed {
            log.flushed(all.last().unwrap().0).await.unwrap();
        }
    }
    let used = usize::try_from(log.size()).unwrap();
    drop(log);
    let (name, bytes) = segments(config).pop_first().unwrap();
    (
        all,
        config.dir.join("log").join(name),
        bytes[..used].to_vec(),
    )
}

#[tokio::test]
async fn a_log_cut_at_any_byte_yields_the_records_before_the_cut() {
    for is_flushed in [false, true] {
        let tmp = tempfile::tempdir().unwrap();
        let config = config(tmp.path());
        let (all, path, bytes) = three(&config, is_flushed).await;
        let mut seen = 0;
        for len in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..len]).unwrap();
            let (records, unreadable) = read(&config);
            assert_eq!(records, all[..records.len()], "cut at {len}");
            assert!(records.len() >= seen);
            seen = records.len();
            if len < bytes.len() {
                assert!(seen < 3);
            }
            assert!(unreadable <= len);
        }
        assert_eq!(seen, 3);
    }
}

#[tokio::test]
async fn a_flipped_byte_costs_its_own_record_and_no_flushed_one_beside_it() {
    for is_flushed in [false, true] {
        let tmp = tempfile::tempdir().unwrap();
        let config = config(tmp.path());
        let (all, path, bytes) = three(&config, is_flushed).await;
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x11;
            std::fs::write(&path, &flipped).unwrap();
            let (records, unreadable) = read(&config);
            assert!(records.iter().all(|found| all.contains(found)), "byte {at}");
            assert!(unreadable > 0, "byte {at}");
            let lost = all.iter().position(|record| !records.contains(record));
            if at < frame::HEADER {
                assert_eq!(lost, None, "the header holds no record");
            } else if is_flushed {
                assert_eq!(records.len(), 2, "byte {at}");
            } else {
                assert_eq!(
                    records,
                    all[..lost.unwrap()],
                    "not known to be flushed: a prefix"
                );
            }
        }
    }
}

#[tokio::test]
async fn damage_is_set_aside_once_reported_at_every_start_and_survived() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (all, path, mut bytes) = three(&config, true).await;
    let second = bytes
        .windows(3)
        .position(|window| window == b"two")
        .unwrap();
    bytes[second] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let expected = [all[0].clone(), all[2].clone()];
    for _ in 0..2 {
        let (log, records) = open(&config).unwrap();
        assert_eq!(records, expected);
        let [note] = &log.set_aside()[..] else {
            panic!("{:?}", log.set_aside())
        };
        let kept = std::fs::read_dir(config.dir.join("aside")).unwrap();
        let kept: Vec<_> = kept.map(|entry| entry.unwrap().path()).collect();
        assert_eq!(kept.len(), 1);
        assert!(note.contains(kept[0].to_str().unwrap()), "{note}");
        let kept = std::fs::read(&kept[0]).unwrap();
        assert!(bytes.windows(kept.len()).any(|window| window == kept));
        assert!(kept.windows(2).any(|window| window == b"wo"));
    }
}

#[tokio::test]
async fn the_last_record_of_an_earlier_run_is_damaged_not_torn() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (all, path, mut bytes) = three(&config, true).await;
    drop(open(&config).unwrap());
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (log, records) = open(&config).unwrap();
    assert_eq!(records, all[..2]);
    assert!(log.set_aside()[0].contains(": damaged;"));
    assert_eq!(
        std::fs::read(&path).unwrap(),
        bytes,
        "damage stays where it is"
    );
}

#[tokio::test]
async fn a_torn_tail_is_kept_and_cut_so_that_nothing_of_it_comes_back() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (all, path, mut bytes) = three(&config, false).await;
    // The second record's write was lost, the third's was not: neither was acknowledged.
    let second = bytes
        .windows(3)
        .position(|window| window == b"two")
        .unwrap();
    bytes[second] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (log, records) = open(&config).unwrap();
    assert_eq!(records, all[..1]);
    assert!(log.set_aside()[0].contains("when the power went"));
    let (seq, _) = log.append(Record::Retry, b"", Need::Growth).unwrap();
    assert!(seq > all[2].0);
    log.flushed(seq).await.unwrap();
    drop(log);
    let (log, records) = open(&config).unwrap();
    assert_eq!(records, [all[0].clone(), (seq, Record::Retry)]);
    assert_eq!(log.set_aside().len(), 1, "it is still listed");
}

/// One thing done to a file of the log, and what was acknowledged when it began.
#[derive(Clone, Debug)]
enum Done {
    Write(String, usize, Vec<u8>),
    Truncate(String, usize),
    Flush(String),
    Remove(String),
}

type Trace = Arc<Mutex<Vec<(Done, Seq)>>>;

fn recording(acknowledged: &Arc<Mutex<Seq>>) -> (Disk, Trace) {
    let trace = Trace::default();
    let disk = Disk::watched(Box::new({
        let (trace, acknowledged) = (Arc::clone(&trace), Arc::clone(acknowledged));
        move |step| {
            let name = |path: &Path| {
                let is_segment = path.parent().is_some_and(|dir| dir.ends_with("log"));
                is_segment.then(|| path.file_name().unwrap().to_str().unwrap().to_owned())
            };
            let size = |size: u64| usize::try_from(size).unwrap();
            let done = match step {
                Step::Write { path, offset, data } => {
                    name(path).map(|name| Done::Write(name, size(*offset), data.to_vec()))
                }
                Step::Allocate(path, len) | Step::Truncate(path, len) => {
                    name(path).map(|name| Done::Truncate(name, size(*len)))
                }
                Step::Flush(path) => name(path).map(Done::Flush),
                Step::Remove(path) => name(path).map(Done::Remove),
                _ => None,
            };
            if let Some(done) = done {
                trace.lock().push((done, *acknowledged.lock()));
            }
            Ok(())
        }
    }));
    (disk, trace)
}

/// The disk after a power cut: all that was flushed, and of the rest the sectors `keeps` picks.
fn after_cut(trace: &[(Done, Seq)], mut keeps: impl FnMut() -> bool) -> BTreeMap<String, Vec<u8>> {
    let mut flushed: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut cached: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (done, _) in trace {
        match done {
            Done::Write(name, at, data) => {
                let file = cached.entry(name.clone()).or_default();
                file.resize(file.len().max(at + data.len()), 0);
                file[*at..at + data.len()].copy_from_slice(data);
            }
            Done::Truncate(name, len) => {
                cached.entry(name.clone()).or_default().resize(*len, 0);
            }
            Done::Flush(name) => {
                let file = cached.entry(name.clone()).or_default().clone();
                flushed.insert(name.clone(), file);
            }
            Done::Remove(name) => {
                cached.remove(name);
                flushed.remove(name);
            }
        }
    }
    for (name, new) in &cached {
        let old = flushed.entry(name.clone()).or_default();
        if new.len() < old.len() && keeps() {
            old.truncate(new.len());
        }
        old.resize(old.len().max(new.len()), 0);
        for (old, new) in old.chunks_mut(512).zip(new.chunks(512)) {
            if keeps() {
                old[..new.len()].copy_from_slice(new);
            }
        }
    }
    flushed
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Append(usize),
    Flush,
    Rotate,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        5 => (0usize..20_000).prop_map(Op::Append),
        3 => Just(Op::Append(10)),
        2 => Just(Op::Flush),
        1 => Just(Op::Rotate),
    ];
    prop::collection::vec(op, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn after_a_power_cut_at_any_step_all_acknowledged_is_there_and_no_record_without_the_ones_before(
        ops in ops(), seed: u64
    ) {
        let tmp = tempfile::tempdir().unwrap();
        let config = Config { spool_max: 1 << 20, ..config(tmp.path()) };
        let acknowledged = Arc::new(Mutex::new(Seq(0)));
        let (disk, trace) = recording(&acknowledged);
        let mut appended = Records::new();
        let (log, _) = open_on(disk, &config).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for op in ops {
            match op {
                Op::Append(len) => match log.append(small("f", len), &vec![7; len], Need::Growth) {
                    Ok(record) => appended.push(record),
                    Err(error) => prop_assert_eq!(error, LogError::Full),
                },
                Op::Rotate => drop(log.rotate().unwrap()),
                Op::Flush => {
                    let last = appended.last().map_or(Seq(0), |(seq, _)| *seq);
                    runtime.block_on(log.flushed(last)).unwrap();
                    *acknowledged.lock() = last;
                }
            }
        }
        drop(log);
        let trace = trace.lock();
        let mut random = seed | 1;
        let mut toss = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % 3 != 0
        };
        for cut in (0..=trace.len()).step_by(1 + trace.len() / 30) {
            let after = after_cut(&trace[..cut], &mut toss);
            let dir = config.dir.join("log");
            std::fs::remove_dir_all(&dir).unwrap();
            drop(Dir::private(&Disk::default(), &dir).unwrap());
            for (name, bytes) in after {
                std::fs::write(dir.join(name), bytes).unwrap();
            }
            let (records, _) = read(&config);
            prop_assert_eq!(&records[..], &appended[..records.len()]);
            // What was acknowledged before the last step that was done.
            let promised = trace[..cut].last().map_or(Seq(0), |(_, seq)| *seq);
            let last = records.last().map_or(Seq(0), |(seq, _)| *seq);
            prop_assert!(last >= promised, "cut at {cut}: {last:?} < {promised:?}");
        }
    }
}

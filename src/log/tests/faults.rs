//! Flushes shared, flushes that fail, writes that fail, no room.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::Mutex;

use super::*;
use crate::disk::Step;

fn is_segment(path: &Path) -> bool {
    path.parent().is_some_and(|dir| dir.ends_with("log"))
}

/// A disk on which, once `armed`, the steps that `which` picks fail with EIO.
fn failing(which: fn(&Step<'_>) -> bool) -> (Disk, Arc<AtomicBool>) {
    let armed = Arc::new(AtomicBool::new(false));
    let disk = Disk::watched(Box::new({
        let armed = Arc::clone(&armed);
        move |step| match armed.load(Ordering::SeqCst) && which(step) {
            true => Err(io::Error::from_raw_os_error(libc::EIO)),
            false => Ok(()),
        }
    }));
    (disk, armed)
}

/// Holds each flush of the log from when it is armed.
struct Gate {
    is_armed: Arc<AtomicBool>,
    begun: Arc<Mutex<Receiver<()>>>,
    go: SyncSender<()>,
}

impl Gate {
    fn new() -> (Disk, Self) {
        let (begins, begun) = sync_channel(0);
        let (go, may_go) = sync_channel::<()>(0);
        let (is_armed, may_go) = (Arc::new(AtomicBool::new(false)), Mutex::new(may_go));
        let gate = Self {
            is_armed: Arc::clone(&is_armed),
            begun: Arc::new(Mutex::new(begun)),
            go,
        };
        let disk = Disk::watched(Box::new(move |step| {
            if let Step::Flush(path) = step
                && is_segment(path)
                && is_armed.load(Ordering::SeqCst)
            {
                begins.send(()).map_err(io::Error::other)?;
                may_go.lock().recv().map_err(io::Error::other)?;
            }
            Ok(())
        }));
        (disk, gate)
    }

    /// Waits for a flush to begin; it stays there until `go`.
    async fn begun(&self) {
        let begun = Arc::clone(&self.begun);
        crate::disk::blocking(move || begun.lock().recv())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn all_who_wait_while_a_flush_runs_share_the_next_one() {
    let tmp = tempfile::tempdir().unwrap();
    let (disk, gate) = Gate::new();
    let (log, _) = open_on(disk.clone(), &config(tmp.path())).unwrap();
    gate.is_armed.store(true, Ordering::SeqCst);
    let before = disk.flushes();
    let waiter = |seq| {
        let log = Arc::clone(&log);
        tokio::spawn(async move { log.flushed(seq).await })
    };
    let first = waiter(log.append(small("first", 1), b"1", Need::Growth).unwrap().0);
    gate.begun().await;
    let later: Vec<_> = (0..20)
        .map(|i| {
            log.append(small(&format!("f{i}"), 1), b"x", Need::Growth)
                .unwrap()
                .0
        })
        .map(waiter)
        .collect();
    gate.go.send(()).unwrap();
    first.await.unwrap().unwrap();
    gate.begun().await;
    assert!(later.iter().all(|waiter| !waiter.is_finished()));
    gate.go.send(()).unwrap();
    for waiter in later {
        waiter.await.unwrap().unwrap();
    }
    assert_eq!(disk.flushes() - before, 2);
}

#[tokio::test]
async fn what_is_durable_is_not_flushed_again() {
    let tmp = tempfile::tempdir().unwrap();
    let (log, _) = open(&config(tmp.path())).unwrap();
    let (seq, _) = log.append(Record::Retry, b"", Need::Growth).unwrap();
    log.flushed(seq).await.unwrap();
    let before = log.disk().flushes();
    log.flushed(seq).await.unwrap();
    log.flushed(Seq(0)).await.unwrap();
    let (next, _) = log.append(Record::Retry, b"", Need::Growth).unwrap();
    log.flushed(next).await.unwrap();
    assert_eq!(log.disk().flushes(), before + 1);
}

#[tokio::test]
async fn a_close_takes_two_flushes_with_a_data_file_and_one_without() {
    let tmp = tempfile::tempdir().unwrap();
    let (log, _) = open(&config(tmp.path())).unwrap();
    let count = || log.disk().flushes() + log.disk().dir_flushes();
    let before = count();
    let data = log.spool().create().unwrap();
    data.write_at(&[1; 100_000], 0).unwrap();
    data.flush().unwrap();
    let record = set("large", file(&[(data.number(), 0, 100_000)]));
    let (seq, _) = log.append(record, b"", Need::Growth).unwrap();
    log.flushed(seq).await.unwrap();
    assert_eq!(count() - before, 2);
    let (seq, _) = log
        .append(small("small", 4), b"4444", Need::Growth)
        .unwrap();
    log.flushed(seq).await.unwrap();
    assert_eq!(count() - before, 3);
}

#[tokio::test]
async fn once_a_flush_failed_nothing_is_acknowledged_any_more() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (disk, armed) = failing(|step| matches!(step, Step::Flush(path) if is_segment(path)));
    let (log, _) = open_on(disk, &config).unwrap();
    let good = log.append(small("good", 1), b"g", Need::Growth).unwrap();
    log.flushed(good.0).await.unwrap();
    let (bad, _) = log.append(small("bad", 1), b"b", Need::Growth).unwrap();
    armed.store(true, Ordering::SeqCst);
    let dead = LogError::Disk(libc::EIO);
    assert_eq!(log.flushed(bad).await, Err(dead.clone()));
    // The device is well again: the log stays dead, as nobody knows what was lost.
    armed.store(false, Ordering::SeqCst);
    assert_eq!(log.flushed(bad).await, Err(dead.clone()));
    assert_eq!(
        log.append(Record::Retry, b"", Need::Growth).unwrap_err(),
        dead
    );
    assert_eq!(log.rotate().unwrap_err(), dead);
    assert_eq!(log.flushed(good.0).await, Ok(()));
    assert_eq!(bytes_of(&log, &good.1)[&key("good")], b"g");
    drop(log);
    let (_, records) = open(&config).unwrap();
    assert_eq!(records[0], good);
}

#[tokio::test]
async fn an_append_that_failed_leaves_nothing_behind() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let fails = Arc::new(AtomicU64::new(0));
    // A write that fails leaves all but its last bytes; one of zeros leaves nothing.
    let disk = Disk::watched(Box::new({
        let fails = Arc::clone(&fails);
        move |step| match step {
            Step::Write { path, offset, data } if is_segment(path) => {
                let left = fails.load(Ordering::SeqCst);
                if left == 0 {
                    return Ok(());
                }
                fails.store(left - 1, Ordering::SeqCst);
                let file = std::fs::File::options().write(true).open(path)?;
                if data[0] != 0 {
                    file.write_all_at(&data[..data.len() - 9], *offset)?;
                }
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
            _ => Ok(()),
        }
    }));
    let (log, _) = open_on(disk, &config).unwrap();
    let first = log.append(small("a", 1), b"a", Need::Growth).unwrap();
    // One write fails, what is wiped out after it does not.
    fails.store(1, Ordering::SeqCst);
    let failed = log.append(small("b", 100), &[b'b'; 100], Need::Growth);
    assert_eq!(failed.unwrap_err(), LogError::Disk(libc::EIO));
    let (_, segment) = segments(&config).pop_first().unwrap();
    assert!(frame::end_of(&segment) as u64 <= log.size());
    let second = log.append(small("c", 1), b"c", Need::Growth).unwrap();
    assert_eq!(second.0, Seq(first.0.0 + 1));
    log.flushed(second.0).await.unwrap();
    // Nor can it be wiped out: nothing may be written behind it.
    fails.store(2, Ordering::SeqCst);
    log.append(small("d", 100), &[b'd'; 100], Need::Growth)
        .unwrap_err();
    let dead = LogError::Disk(libc::EIO);
    assert_eq!(fails.load(Ordering::SeqCst), 0);
    assert_eq!(
        log.append(small("e", 1), b"e", Need::Growth).unwrap_err(),
        dead
    );
    drop(log);
    let (log, records) = open(&config).unwrap();
    assert_eq!(records, [first, second]);
    let set_aside = log.set_aside();
    assert_eq!(
        set_aside.len(),
        1,
        "the second half-written one: {set_aside:?}"
    );
}

#[tokio::test]
async fn a_data_file_whose_flush_failed_is_never_clean_again() {
    let tmp = tempfile::tempdir().unwrap();
    let (disk, armed) = failing(
        |step| matches!(step, Step::Flush(path) if path.parent().unwrap().ends_with("data")),
    );
    let (log, _) = open_on(disk, &config(tmp.path())).unwrap();
    let data = log.spool().create().unwrap();
    data.write_at(b"x", 0).unwrap();
    armed.store(true, Ordering::SeqCst);
    assert_eq!(data.flush().unwrap_err().raw_os_error(), Some(libc::EIO));
    armed.store(false, Ordering::SeqCst);
    let before = log.disk().flushes();
    assert_eq!(data.flush().unwrap_err().raw_os_error(), Some(libc::EIO));
    assert_eq!(
        log.disk().flushes(),
        before,
        "the device is not asked again"
    );
    let other = log.spool().create().unwrap();
    other.write_at(b"x", 0).unwrap();
    other.flush().unwrap();
}

#[tokio::test]
async fn a_full_spool_refuses_data_and_still_takes_removals() {
    let tmp = tempfile::tempdir().unwrap();
    let config = Config {
        spool_max: 2 << 20,
        ..config(tmp.path())
    };
    let (log, _) = open(&config).unwrap();
    let data = log.spool().create().unwrap();
    let mut written = 0;
    let error = loop {
        match data.write_at(&[1; 10_000], written) {
            Ok(()) => written += 10_000,
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    assert!(written > 1 << 20);
    data.flush().unwrap();
    let (used, max) = log.spool().usage();
    assert!(used <= max && max == 2 << 20);
    let new = log.append(small("x", 10_000), &[0; 10_000], Need::Growth);
    assert_eq!(new.unwrap_err(), LogError::Full);
    // Each goes as far as its part of the reserve, and what is behind it is left to the next.
    let gone = |i: usize, need| log.append(set(&format!("f{i}"), Want::Gone), b"", need);
    for need in [Need::Shrink, Need::Drain] {
        let fitted = (0..).find(|i| gone(*i, need).is_err()).unwrap();
        assert!(fitted > 1500, "{need:?}: {fitted}");
        assert_eq!(gone(0, need).unwrap_err(), LogError::Full);
        assert!(log.spool().usage().0 <= max);
    }
    let segment = log.rotate().unwrap();
    for i in 0..500 {
        gone(i, Need::Anyway).unwrap();
    }
    let (seq, _) = gone(0, Need::Anyway).unwrap();
    log.flushed(seq).await.unwrap();
    assert!(log.spool().usage().0 <= max);
    log.drop_before(segment).unwrap();
    assert!(log.spool().usage().0 < max);
    // What is removed can be written again.
    let number = data.number();
    drop(data);
    log.spool().remove(number).unwrap();
    let data = log.spool().create().unwrap();
    data.write_at(&[1; 10_000], 0).unwrap();
}

#[test]
fn the_reserve_of_the_file_system_is_kept_from_data_and_not_from_the_log() {
    let tmp = tempfile::tempdir().unwrap();
    let config = Config {
        disk_reserve: u64::MAX,
        ..config(tmp.path())
    };
    let (log, _) = open(&config).unwrap();
    let full = log.spool().create().unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
    log.append(set("a", Want::Gone), b"", Need::Shrink).unwrap();
    log.rotate().unwrap();
}

fn inodes(config: &Config) -> BTreeMap<String, u64> {
    use std::os::unix::fs::MetadataExt;
    let all = std::fs::read_dir(config.dir.join("log")).unwrap();
    let inode = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        (name, entry.metadata().unwrap().ino())
    };
    all.map(|entry| inode(entry.unwrap())).collect()
}

/// After a flush that failed the kernel shows the bytes and says that they are clean: they may be
/// nowhere but in its memory.
#[tokio::test]
async fn what_a_failed_flush_may_not_have_written_is_written_anew_at_the_next_start() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (disk, armed) = failing(|step| matches!(step, Step::Flush(path) if is_segment(path)));
    let (log, _) = open_on(disk, &config).unwrap();
    let good = log.append(small("good", 1), b"g", Need::Growth).unwrap();
    log.flushed(good.0).await.unwrap();
    let bad = log.append(small("bad", 3), b"bad", Need::Growth).unwrap();
    armed.store(true, Ordering::SeqCst);
    log.flushed(bad.0).await.unwrap_err();
    let segment = spool::file_name(place::highest_file(&bad.1));
    drop(log);
    let before = inodes(&config);
    // Where that cannot be done, nothing is said to be well.
    let (disk, armed) = failing(
        |step| matches!(step, Step::Flush(path) if path.extension().is_some_and(|it| it == "tmp") && is_segment(path)),
    );
    armed.store(true, Ordering::SeqCst);
    assert_eq!(
        open_on(disk, &config).unwrap_err(),
        LogError::Disk(libc::EIO)
    );
    let (log, records) = open(&config).unwrap();
    assert_eq!(records, [good.clone(), bad.clone()]);
    assert_ne!(
        inodes(&config)[&segment],
        before[&segment],
        "it is another file"
    );
    assert_eq!(bytes_of(&log, &bad.1)[&key("bad")], b"bad");
    drop(log);
    // That run ended with nothing to be flushed: there is nothing to doubt.
    let before = inodes(&config);
    let (_, records) = open(&config).unwrap();
    assert_eq!(records, [good, bad]);
    assert_eq!(inodes(&config)[&segment], before[&segment]);
}

#[test]
fn what_a_run_before_this_start_of_the_machine_left_is_read_from_the_device() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (log, _) = open(&config).unwrap();
    let kept = log.append(small("a", 1), b"a", Need::Growth).unwrap();
    let segment = spool::file_name(place::highest_file(&kept.1));
    drop(log);
    let lock = config.dir.join("lock");
    assert_eq!(
        std::fs::read_to_string(&lock).unwrap().lines().count(),
        2,
        "not clean"
    );
    let before = inodes(&config);
    std::fs::write(&lock, "1\nanother-boot\n").unwrap();
    let (_, records) = open(&config).unwrap();
    assert_eq!(records, [kept]);
    assert_eq!(inodes(&config)[&segment], before[&segment]);
}

#[test]
fn without_room_to_note_the_identity_it_is_known_until_the_end_and_after_a_failure_it_is_not() {
    for (errno, told, known) in [
        (libc::ENOSPC, Ok(()), Some("r:1")),
        (libc::EIO, Err(LogError::Disk(libc::EIO)), Some("r:0")),
    ] {
        let tmp = tempfile::tempdir().unwrap();
        let config = config(tmp.path());
        let armed = Arc::new(AtomicBool::new(false));
        let disk = Disk::watched(Box::new({
            let armed = Arc::clone(&armed);
            move |step| match step {
                Step::Write { path, .. } if path.ends_with("binding.tmp") => {
                    match armed.load(Ordering::SeqCst) {
                        true => Err(io::Error::from_raw_os_error(errno)),
                        false => Ok(()),
                    }
                }
                _ => Ok(()),
            }
        }));
        let log = Log::open_on(disk, &config, &mut |_, _| {}).unwrap();
        log.bind_to("r:0").unwrap();
        armed.store(true, Ordering::SeqCst);
        assert_eq!(log.bind_to("r:1"), told);
        assert_eq!(log.identity().as_deref(), known);
        drop(log);
        let log = Log::open(config.clone(), &mut |_, _| {}).unwrap();
        assert_eq!(log.identity().as_deref(), Some("r:0"), "the file is whole");
    }
}

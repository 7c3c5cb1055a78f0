//! Every call to the disk fails once: whoever asked is told, or it is done all the same.

use super::*;

/// One operation after the other while the step `at` fails with `errno`. Answers whether it came
/// to that, and what is certain then.
async fn with_a_fault(
    all: &[Do],
    at: usize,
    errno: i32,
) -> (bool, Run, BTreeMap<String, Option<Vec<u8>>>) {
    use std::sync::atomic::{AtomicBool, Ordering};
    let has_failed = Arc::new(AtomicBool::new(false));
    let mut run = Run::new(|_| None);
    let told = Arc::clone(&has_failed);
    run.restart(move |step| {
        (step == at).then(|| told.store(true, Ordering::SeqCst))?;
        Some(errno)
    })
    .await;
    let mut certain: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
    let mut unsure: BTreeSet<String> = BTreeSet::new();
    let mut states = oracle(all).into_iter().skip(1);
    for this in all {
        let (names, steps): (Vec<&str>, usize) = match this {
            Do::Sync(name, ..) => (vec![name], 2),
            Do::Put(name, _) | Do::Append(name, _) | Do::MakeDir(name) | Do::Unlink(name) => {
                (vec![name], 1)
            }
            Do::Rename(from, to) => (vec![from, to], 1),
            Do::Leave(..) | Do::Chmod(_) | Do::Send | Do::Compact | Do::Restart => (vec![], 1),
        };
        let state = states.nth(steps - 1).unwrap();
        let is_unsure = names.iter().any(|name| unsure.contains(*name));
        let done = run.carry_out(this).await;
        for name in names {
            match (&done, this) {
                // Whatever was there: it is this now.
                (Ok(()), Do::Put(..) | Do::Unlink(_)) => drop(unsure.remove(name)),
                (Ok(()), _) if !is_unsure => {}
                _ => drop(unsure.insert(name.to_owned())),
            }
            certain.insert(name.to_owned(), state.get(name).cloned().flatten());
        }
    }
    certain.retain(|name, _| !unsure.contains(name));
    (has_failed.load(Ordering::SeqCst), run, certain)
}

async fn holds(what: &str, world: &World, certain: &BTreeMap<String, Option<Vec<u8>>>) {
    for (name, expected) in certain {
        let found = match world.get(name).await {
            Err(FsError::NotFound) => None,
            found => Some(found.unwrap_or_else(|error| panic!("{what}: {name}: {error:?}"))),
        };
        assert!(
            found == *expected,
            "{what}: {name}: {:?} bytes",
            found.map(|bytes| bytes.len())
        );
    }
}

/// What was acknowledged is on the device, not only in the kernel's memory; also after a flush that
/// failed, whatever a later one said.
async fn survives_a_power_cut(
    what: &str,
    events: &[Event],
    certain: &BTreeMap<String, Option<Vec<u8>>>,
) {
    let device = Device::after(events);
    let dir = tempfile::tempdir().unwrap();
    device.put_into(dir.path(), Cut::Power);
    let world = world_on(&Disk::default(), &device.bucket(), None, dir.path());
    holds(&format!("{what}, then no power"), &world, certain).await;
    stop(world).await;
}

#[tokio::test]
async fn a_call_to_the_disk_that_fails_is_told_or_makes_no_difference() {
    use Do::*;
    let all = [
        Put("a", bytes(1, 700)),
        Put("b", bytes(2, 70_000)),
        Append("a", bytes(3, 900)),
        Rename("b", "c"),
        Put("d", bytes(4, 70_000)),
        Unlink("a"),
        Put("a", bytes(5, 70_000)),
        Sync("d", 1000, bytes(6, 5000)),
        Put("e", bytes(7, 100)),
    ];
    let step = if is_long() { 1 } else { 7 };
    for errno in [libc::EIO, libc::ENOSPC] {
        for at in (0..).step_by(step) {
            // The first steps are those of the start.
            let what = format!("errno {errno} at step {at}");
            let started = start_fails(at, errno).await;
            if started {
                continue;
            }
            let (has_failed, mut run, certain) = with_a_fault(&all, at, errno).await;
            holds(&what, run.world(), &certain).await;
            survives_a_power_cut(&what, &run.recorder.all(), &certain).await;
            // What comes next works, unless nobody can know any more what of the log is on the
            // device: then nothing is acknowledged until the next start.
            let probe = run.world().put("probe", b"probe").await;
            let is_told = match probe {
                Ok(()) | Err(FsError::Disk(_)) => true,
                // The run had fewer steps: the fault fell on this.
                Err(FsError::Full) => !has_failed && errno == libc::ENOSPC,
                Err(_) => false,
            };
            assert!(is_told, "{what}: {probe:?}");
            run.restart(|_| None).await;
            holds(&what, run.world(), &certain).await;
            run.world().put("probe", b"probe").await.unwrap();
            run.world().drain().await;
            for (name, expected) in &certain {
                let sent = run.twin.object(name).map(|(bytes, _)| bytes.to_vec());
                assert!(sent == *expected, "{what}: {name} in the bucket");
            }
            stop(run.world.take().unwrap()).await;
            if !has_failed {
                break;
            }
        }
    }
}

/// A user who is told that a write or an fsync failed, and asks again. Answers whether it came to a
/// fault, and the bytes if they were acknowledged in the end.
async fn insist(at: usize, errno: i32, size: usize) -> (bool, Run, Option<Vec<u8>>) {
    use std::sync::atomic::{AtomicBool, Ordering};
    let has_failed = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&has_failed);
    let mut run = Run::new(|_| None);
    run.restart(move |step| {
        (step == at).then(|| told.store(true, Ordering::SeqCst))?;
        Some(errno)
    })
    .await;
    let (world, all) = (run.world(), bytes(9, size));
    let mut kept = None;
    if let Ok((ino, fh)) = world.open("a", libc::O_WRONLY | libc::O_CREAT).await {
        for _ in 0..3 {
            let is_written = world.write(ino, fh, 0, &all).await.is_ok();
            // The second time nothing was written since.
            let is_kept =
                world.fs.fsync(ino, fh).await.is_ok() || world.fs.fsync(ino, fh).await.is_ok();
            if is_written && is_kept {
                kept = Some(all);
                break;
            }
        }
    }
    (has_failed.load(Ordering::SeqCst), run, kept)
}

/// The kernel says of bytes it could not write that they are clean, once: whoever asks it again is
/// told that all is well.
#[tokio::test]
async fn an_fsync_that_succeeds_after_one_that_failed_has_kept_the_bytes() {
    let step = if is_long() { 1 } else { 2 };
    for (size, errno) in [
        (700, libc::EIO),
        (70_000, libc::EIO),
        (70_000, libc::ENOSPC),
    ] {
        for at in (0..).step_by(step) {
            let what = format!("{size} bytes, errno {errno} at step {at}");
            if start_fails(at, errno).await {
                continue;
            }
            let (has_failed, mut run, kept) = insist(at, errno, size).await;
            if kept.is_some() {
                let certain = BTreeMap::from([("a".to_owned(), kept)]);
                survives_a_power_cut(&what, &run.recorder.all(), &certain).await;
            }
            stop(run.world.take().unwrap()).await;
            if !has_failed {
                break;
            }
        }
    }
}

/// The disk fails at its first step after the last part of an upload has arrived: the record of them.
#[tokio::test]
async fn parts_whose_record_fails_are_neither_sent_again_nor_left_behind() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let mut run = Run::new(|_| None);
    let (recorder, has_failed) = (run.recorder.clone(), Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&has_failed);
    run.restart(move |_| {
        let events = recorder.all();
        let arrived = |event: &&Event| matches!(event, Event::Sent(Op::UploadPart, _));
        let is_due = events.iter().filter(arrived).count() == 2;
        (is_due && !told.swap(true, Ordering::SeqCst)).then_some(libc::EIO)
    })
    .await;
    let large = bytes(1, 9 << 20);
    run.carry_out(&Do::Put("a", large.clone())).await.unwrap();
    run.world().drain().await;
    assert!(has_failed.load(Ordering::SeqCst));
    assert_eq!(run.twin.object("a").unwrap().0.to_vec(), large);
    assert_eq!(
        run.twin.counts().of(Op::UploadPart),
        2,
        "each part went once"
    );
    assert_eq!(run.twin.uploads(), 0);
    stop(run.world.take().unwrap()).await;
}

/// Whether the step is one of a start, which fails then; the next start is well.
async fn start_fails(at: usize, errno: i32) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let open = |disk: Disk| {
        let config = log::Config {
            dir: dir.path().join("spool"),
            binding: Binding {
                endpoint: "twin".into(),
                bucket: "b".into(),
                prefix: String::new(),
            },
            spool_max: CAP,
            disk_reserve: 0,
        };
        Tree::open_on(disk, &config, &dir.path().join("memory"), TTL)
    };
    drop(open(Disk::default()).unwrap());
    let disk = Recorder::default().disk(dir.path(), move |step| (step == at).then_some(errno));
    let fails = open(disk).is_err();
    drop(open(Disk::default()).unwrap());
    fails
}

//! A log's life without faults.

use super::*;

#[tokio::test]
async fn what_is_appended_is_read_back_placed_alike_and_twice_the_same() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (log, before) = open(&config).unwrap();
    assert_eq!(before, []);
    let first = log.append(small("a", 3), b"abc", Need::Growth).unwrap();
    assert_eq!(first.0, Seq(1));
    let gone = log.append(set("a", Want::Gone), b"", Need::Growth).unwrap();
    let Record::Set(changes) = small("b", 2) else {
        unreachable!()
    };
    // Two changes share the inline data of one record; one of them names a part of it.
    let both = [
        changes,
        vec![Change {
            want: file(&[(FileNo(77), 5, 6), (FileNo::INLINE, 1, 1)]),
            ..change_of(small("c", 1))
        }],
    ];
    let shared = log
        .append(Record::Set(both.concat()), b"xy", Need::Growth)
        .unwrap();
    assert_eq!(bytes_of(&log, &first.1)[&key("a")], b"abc");
    let Want::Object(c) = &change_at(&shared.1, 1).want else {
        panic!("{shared:?}")
    };
    let files: Vec<_> = c.extents.iter().map(|piece| piece.len).collect();
    assert_eq!((files, c.extents.files().len()), (vec![6, 1], 2));
    log.flushed(shared.0).await.unwrap();
    drop(log);

    let (log, once) = open(&config).unwrap();
    assert_eq!(once, [first.clone(), gone, shared]);
    assert_eq!(bytes_of(&log, &once[0].1)[&key("a")], b"abc");
    assert_eq!(log.set_aside(), [""; 0]);
    drop(log);
    let (log, twice) = open(&config).unwrap();
    assert_eq!(once, twice);
    let (next, _) = log.append(Record::Retry, b"", Need::Growth).unwrap();
    assert!(next > once[2].0);
    assert!(log.spool().create().unwrap().number() > FileNo(77));
}

fn change_of(record: Record) -> Change {
    change_at(&record, 0).clone()
}

fn change_at(record: &Record, at: usize) -> &Change {
    match record {
        Record::Set(changes) => &changes[at],
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_position_is_never_given_out_again_even_if_its_record_was_lost() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let mut last = Seq(0);
    for _ in 0..3 {
        let (log, _) = open(&config).unwrap();
        let (lost, _) = log.append(Record::Retry, b"", Need::Growth).unwrap();
        assert!(lost > last);
        last = lost;
        drop(log);
        // The power goes before anything is flushed: only what `open` flushed is there.
        for (name, bytes) in segments(&config) {
            std::fs::write(config.dir.join("log").join(name), &bytes[..frame::HEADER]).unwrap();
        }
    }
}

#[tokio::test]
async fn an_empty_log_that_is_opened_often_does_not_grow() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    for _ in 0..5 {
        let (log, records) = open(&config).unwrap();
        assert_eq!(records, []);
        drop(log);
        assert_eq!(segments(&config).len(), 2, "the current and the spare one");
    }
}

#[tokio::test]
async fn full_segments_are_followed_by_the_next_in_order() {
    let tmp = tempfile::tempdir().unwrap();
    let config = Config {
        spool_max: 1 << 20,
        ..config(tmp.path())
    };
    let (log, _) = open(&config).unwrap();
    let mut appended = Records::new();
    for i in 0..40u8 {
        let name = format!("f{i}");
        let (seq, record) = log
            .append(small(&name, 9000), &[i; 9000], Need::Growth)
            .unwrap();
        log.flushed(seq).await.unwrap();
        appended.push((seq, record));
    }
    let numbers: Vec<_> = appended
        .iter()
        .map(|(_, record)| segment_of(record))
        .collect();
    assert!(numbers.is_sorted());
    assert!(numbers[39] > numbers[0]);
    assert!(log.size() > 40 * 9000 && log.size() < 40 * 9500);
    drop(log);
    let (log, records) = open(&config).unwrap();
    assert_eq!(records, appended);
    for (i, (_, record)) in (0..).zip(&records) {
        let bytes = bytes_of(&log, record);
        assert_eq!(bytes.into_values().next().unwrap(), [i; 9000]);
    }
}

fn segment_of(record: &Record) -> FileNo {
    place::highest_file(record)
}

#[tokio::test]
async fn a_record_larger_than_a_segment_gets_one_of_its_own_size() {
    let tmp = tempfile::tempdir().unwrap();
    let config = Config {
        spool_max: 2 << 20,
        ..config(tmp.path())
    };
    let (log, _) = open(&config).unwrap();
    let large = vec![7; 300_000];
    let kept = log
        .append(small("l", large.len()), &large, Need::Growth)
        .unwrap();
    let after = log.append(small("s", 1), b"s", Need::Growth).unwrap();
    log.flushed(after.0).await.unwrap();
    assert_eq!(bytes_of(&log, &kept.1)[&key("l")], large);
    let too_large = vec![0; frame::FRAME_MAX];
    let refused = log.append(small("x", too_large.len()), &too_large, Need::Growth);
    assert_eq!(refused.unwrap_err(), LogError::Disk(libc::EFBIG));
    drop(log);
    let (log, records) = open(&config).unwrap();
    assert_eq!(records, [kept, after]);
    assert_eq!(bytes_of(&log, &records[0].1)[&key("l")], large);
}

#[tokio::test]
async fn an_inline_extent_outside_of_its_data_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let (log, _) = open(&config(tmp.path())).unwrap();
    let refused = log.append(small("a", 3), b"ab", Need::Growth);
    assert_eq!(refused.unwrap_err(), LogError::Disk(libc::EINVAL));
    assert_eq!(
        log.append(small("a", 2), b"ab", Need::Growth).unwrap().0,
        Seq(1)
    );
}

#[tokio::test]
async fn after_rotate_and_drop_only_what_was_appended_since_is_there() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (log, _) = open(&config).unwrap();
    let old = log.append(small("old", 4), b"4444", Need::Growth).unwrap();
    let segment = log.rotate().unwrap();
    let new = log.append(small("new", 3), b"333", Need::Growth).unwrap();
    assert_eq!(segment_of(&new.1), segment);
    assert!(segment_of(&old.1) < segment);
    log.flushed(new.0).await.unwrap();
    let size = log.size();
    let old_path = config
        .dir
        .join("log")
        .join(spool::file_name(segment_of(&old.1)));
    // What was allocated and not needed is given back when the segment is flushed.
    assert!(std::fs::metadata(&old_path).unwrap().len() < 200);
    assert_eq!(bytes_of(&log, &old.1)[&key("old")], b"4444");
    log.drop_before(segment).unwrap();
    assert!(log.size() < size && !old_path.exists());
    let gone = log.spool().read_at(segment_of(&old.1), 64, 4).unwrap_err();
    assert_eq!(gone.kind(), std::io::ErrorKind::NotFound);
    log.drop_before(FileNo(u64::MAX)).unwrap();
    assert_eq!(bytes_of(&log, &new.1)[&key("new")], b"333");
    drop(log);
    let (log, records) = open(&config).unwrap();
    assert_eq!(records, std::slice::from_ref(&new));
    let (next, _) = log.append(Record::Retry, b"", Need::Growth).unwrap();
    assert!(next > new.0);
}

#[tokio::test]
async fn positions_go_on_when_everything_was_dropped() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (log, _) = open(&config).unwrap();
    let (last, _) = log.append(Record::Retry, b"", Need::Growth).unwrap();
    log.flushed(last).await.unwrap();
    let segment = log.rotate().unwrap();
    log.drop_before(segment).unwrap();
    drop(log);
    let (log, records) = open(&config).unwrap();
    assert_eq!(records, []);
    assert!(log.append(Record::Retry, b"", Need::Growth).unwrap().0 > last);
}

#[test]
fn a_second_daemon_is_told_who_has_it() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (log, _) = open(&config).unwrap();
    let busy = LogError::Busy(Some(std::process::id()));
    assert_eq!(open(&config).unwrap_err(), busy);
    // A draft still writes: the spool is not free yet.
    let data = log.spool().create().unwrap();
    drop(log);
    assert_eq!(open(&config).unwrap_err(), busy);
    drop(data);
    open(&config).unwrap();
}

#[test]
fn an_unsafe_folder_is_refused_in_words() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    drop(open(&config).unwrap());
    std::fs::remove_dir(config.dir.join("aside")).unwrap();
    std::os::unix::fs::symlink("/tmp", config.dir.join("aside")).unwrap();
    let Err(LogError::Unsafe(text)) = open(&config) else {
        panic!("a symlink was followed")
    };
    assert!(text.contains("aside"), "{text}");
}

#[tokio::test]
async fn a_newer_segment_is_refused_before_anything_is_replayed_or_changed() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (log, _) = open(&config).unwrap();
    let (seq, _) = log.append(Record::Retry, b"", Need::Growth).unwrap();
    log.flushed(seq).await.unwrap();
    drop(log);
    let mut newer = b"KFSLOG\r\n\x05\0\0\0".to_vec();
    newer.extend_from_slice(&crc_fast::crc32_iscsi(&newer).to_le_bytes());
    newer.extend_from_slice(b"whatever it holds");
    std::fs::write(config.dir.join("log/00000000ffffffff"), newer).unwrap();
    let before = segments(&config);
    let mut replayed = 0;
    let opened = Log::open(config.clone(), &mut |_, _| replayed += 1);
    assert_eq!(opened.unwrap_err(), LogError::Newer(5));
    assert_eq!((replayed, segments(&config)), (0, before));
}

#[test]
fn what_is_handed_out_was_in_its_flushed_folder_before() {
    use crate::disk::Step;
    let tmp = tempfile::tempdir().unwrap();
    let config = Config {
        spool_max: 1 << 20,
        ..config(tmp.path())
    };
    // The files that were made and whose folder was not flushed since.
    let loose = Arc::new(parking_lot::Mutex::new(Vec::<PathBuf>::new()));
    let disk = Disk::watched(Box::new({
        let loose = Arc::clone(&loose);
        move |step| {
            match step {
                Step::Create(path) => loose.lock().push(path.to_path_buf()),
                Step::FlushDir(dir) => loose.lock().retain(|path| path.parent() != Some(dir)),
                Step::Rename(from, _) => loose.lock().retain(|path| path != from),
                Step::Write { path, .. } if path.parent().unwrap().ends_with("log") => {
                    assert!(!loose.lock().contains(&path.to_path_buf()));
                }
                _ => {}
            }
            Ok(())
        }
    }));
    let (log, _) = open_on(disk, &config).unwrap();
    for i in 0..40u8 {
        log.append(small("f", 9000), &[i; 9000], Need::Growth)
            .unwrap();
        let data = log.spool().create().unwrap();
        assert!(!loose.lock().contains(&log.spool().path(data.number())));
    }
}

#[tokio::test]
async fn a_blank_segment_that_was_overtaken_is_not_begun() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (log, _) = open(&config).unwrap();
    log.rotate().unwrap();
    log.rotate().unwrap();
    let kept = log.append(small("a", 1), b"a", Need::Growth).unwrap();
    log.flushed(kept.0).await.unwrap();
    let segment = log.rotate().unwrap();
    drop(log);
    // As if it had been made beside another that was begun, and the power went then.
    std::fs::write(config.dir.join("log/0000000000000001"), [0; 8192]).unwrap();
    let (log, records) = open(&config).unwrap();
    assert_eq!(records, std::slice::from_ref(&kept));
    let next = log.append(small("b", 1), b"b", Need::Growth).unwrap();
    assert!(place::highest_file(&next.1) > segment);
    log.flushed(next.0).await.unwrap();
    drop(log);
    assert_eq!(open(&config).unwrap().1, [kept, next]);
}

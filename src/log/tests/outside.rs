//! A spool read from outside: what is found, and that nothing is changed.

use std::sync::mpsc::channel;

use super::*;
use crate::disk::{Dir, Disk};

/// Every file below `dir`, with its bytes.
pub(in crate::log) fn snapshot(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.display().to_string();
        if path.is_dir() {
            all.extend(snapshot(&path));
            all.insert(name, Vec::new());
        } else {
            all.insert(name, std::fs::read(&path).unwrap());
        }
    }
    all
}

#[tokio::test]
async fn a_reading_finds_what_a_start_finds_and_changes_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (log, _) = open(&config).unwrap();
    let data = log.spool().create().unwrap();
    data.write_at(b"data", 0).unwrap();
    data.flush().unwrap();
    let number = data.number();
    log.append(set("large", file(&[(number, 0, 4)])), b"", Need::Growth)
        .unwrap();
    let (seq, _) = log.append(small("a", 3), b"abc", Need::Growth).unwrap();
    log.flushed(seq).await.unwrap();
    drop((data, log));

    let before = snapshot(&config.dir);
    let (reading, records) = Reading::of(&config.dir).unwrap();
    assert_eq!(reading.in_use(), None);
    assert_eq!(*reading.binding().unwrap().0, config.binding);
    let files: Vec<_> = reading.data_files().unwrap();
    assert_eq!((files.len(), files[0].file, files[0].len), (1, number, 4));
    let Want::Object(a) = &small_of(&records).want else {
        panic!("{records:?}")
    };
    let Source::Local { file, offset } = a.extents.iter().next().unwrap().from else {
        panic!("{a:?}")
    };
    let mut bytes = [0; 3];
    let segment = reading.open(file).unwrap();
    segment.read_exact_at(&mut bytes, offset).unwrap();
    assert_eq!(&bytes, b"abc");
    assert!(reading.written(seq).is_some());
    assert!(reading.occupied().unwrap() > 0);
    assert_eq!(reading.set_aside().unwrap(), [""; 0]);
    assert_eq!(snapshot(&config.dir), before);
    assert_eq!(open(&config).unwrap().1, records);
}

fn small_of(records: &Records) -> &Change {
    match &records.last().unwrap().1 {
        Record::Set(changes) => &changes[0],
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_a_start_would_set_aside_is_named_before_it_is() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (log, _) = open(&config).unwrap();
    let (seq, _) = log.append(small("a", 3), b"abc", Need::Growth).unwrap();
    log.flushed(seq).await.unwrap();
    drop(log);
    let (name, mut bytes) = segments(&config)
        .into_iter()
        .find(|(_, bytes)| frame::end_of(bytes) > frame::HEADER)
        .unwrap();
    let end = frame::end_of(&bytes).next_multiple_of(8);
    bytes[end..end + 8].copy_from_slice(b"half of ");
    std::fs::write(config.dir.join("log").join(name), &bytes).unwrap();

    let before = snapshot(&config.dir);
    let (reading, records) = Reading::of(&config.dir).unwrap();
    assert_eq!(records.len(), 1);
    let [piece] = &reading.unreadable().unwrap()[..] else {
        panic!("{reading:?}")
    };
    assert_eq!((piece.at, piece.len), (end as u64, 8));
    assert!(reading.set_aside().unwrap()[0].contains("when the power went"));
    assert_eq!(snapshot(&config.dir), before);

    drop(open(&config).unwrap());
    let (reading, _) = Reading::of(&config.dir).unwrap();
    assert_eq!(reading.aside().unwrap()[0].name, piece.name);
    assert_eq!(reading.unreadable().unwrap(), [], "it is kept now");
    assert_eq!(reading.set_aside().unwrap().len(), 1);
    let (log, _) = open(&config).unwrap();
    assert!(!log.spool().discard_aside("lock").unwrap());
    assert!(log.spool().discard_aside(&piece.name).unwrap());
    assert_eq!(log.set_aside(), [""; 0]);
    drop(log);
    assert_eq!(open(&config).unwrap().0.set_aside(), [""; 0]);
}

/// Somebody appends during each reading; a new segment is begun, and the old ones go, at any moment
/// of it.
#[tokio::test]
async fn a_log_in_use_is_read_as_it_was_at_one_moment() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (log, _) = open(&config).unwrap();
    let ((ask, asked), (done, is_done)) = (channel::<()>(), channel::<()>());
    let writer = std::thread::spawn(move || {
        while asked.recv().is_ok() {
            for round in 0..1000 {
                log.append(small("f", 9), b"some text", Need::Growth)
                    .unwrap();
                if round == 500 {
                    log.drop_before(log.rotate().unwrap()).unwrap();
                }
            }
            done.send(()).unwrap();
        }
    });
    let mut last = Seq(0);
    for _ in 0..20 {
        ask.send(()).unwrap();
        let (reading, records) = Reading::of(&config.dir).unwrap();
        assert_eq!(reading.in_use(), Some(Some(std::process::id())));
        assert_eq!(reading.set_aside().unwrap(), [""; 0]);
        let positions: Vec<_> = records.iter().map(|(seq, _)| seq.0).collect();
        assert!(positions.windows(2).all(|two| two[0] + 1 == two[1]));
        let newest = records.last().map_or(last, |(seq, _)| *seq);
        assert!(newest >= last);
        last = newest;
        is_done.recv().unwrap();
    }
    drop(ask);
    writer.join().unwrap();
}

#[test]
fn a_spool_of_a_newer_kryptonfs_and_a_folder_that_is_none_are_told_apart() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    assert!(!Reading::is_spool(tmp.path()));
    drop(open(&config).unwrap());
    assert!(Reading::is_spool(&config.dir));
    let binding = config.dir.join("binding");
    std::fs::write(&binding, "{\"version\":9}").unwrap();
    assert_eq!(Reading::of(&config.dir).unwrap_err(), LogError::Newer(9));
    std::fs::remove_file(&binding).unwrap();
    let (reading, _) = Reading::of(&config.dir).unwrap();
    assert!(reading.binding().is_none(), "it can be read all the same");
}

#[test]
fn a_note_is_made_in_a_spool_of_another_machine_without_making_it_ours() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (log, _) = open(&config).unwrap();
    let mount = log.mount_id();
    drop(log);
    let binding = config.dir.join("binding");
    let mut bound: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&binding).unwrap()).unwrap();
    bound["machine"] = "0123456789abcdef".into();
    std::fs::write(&binding, bound.to_string()).unwrap();
    let found = Config::of(&config.dir).unwrap();
    let log = Log::reopen(&found, &mut |_, _| ()).unwrap();
    assert_eq!(log.mount_id(), mount);
    log.append(Record::Retry, b"", Need::Drain).unwrap();
    drop(log);
    assert_eq!(
        std::fs::read(&binding).unwrap(),
        bound.to_string().as_bytes()
    );
    let (_, records) = Reading::of(&config.dir).unwrap();
    assert_eq!(records.last().unwrap().1, Record::Retry);
}

#[test]
fn nothing_is_reached_through_a_symlink_and_nothing_is_replaced() {
    let tmp = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/", tmp.path().join("out")).unwrap();
    let dir = Dir::as_it_is(&Disk::default(), tmp.path()).unwrap();
    assert!(dir.made_below("out").is_err());
    dir.create("a").unwrap();
    dir.create("b").unwrap();
    let error = dir.rename_new("a", "b").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    dir.rename_new("a", "c").unwrap();
    assert_eq!(dir.has("c").unwrap(), Some(true));
    assert_eq!(dir.has("out").unwrap(), Some(false));
    assert_eq!(dir.has("a").unwrap(), None);
}

use super::*;
use crate::log::tests::{config, open};

#[test]
fn what_is_written_is_read_while_it_is_being_written_with_zeros_for_holes() {
    let tmp = tempfile::tempdir().unwrap();
    let (log, _) = open(&config(tmp.path())).unwrap();
    let spool = log.spool();
    let data = spool.create().unwrap();
    let read = |offset, len| spool.read_at(data.number(), offset, len);
    data.write_at(b"abc", 2).unwrap();
    assert_eq!(&read(0, 5).unwrap()[..], b"\0\0abc");
    data.write_at(b"de", 5).unwrap();
    assert_eq!(&read(4, 3).unwrap()[..], b"cde");
    assert_eq!(read(4, 4).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(read(7, 0).unwrap().len(), 0);
}

#[test]
fn data_files_are_numbered_upwards_and_listed_until_removed() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (log, _) = open(&config).unwrap();
    let spool = log.spool();
    assert_eq!(spool.files(), []);
    let all: Vec<_> = (0..20).map(|_| spool.create().unwrap()).collect();
    let numbers: Vec<_> = all.iter().map(DataFile::number).collect();
    assert!(numbers.is_sorted() && spool.files() == numbers);
    assert!(numbers.iter().all(|number| spool.path(*number).exists()));
    assert!(spool.has_writer(numbers[3]));
    for data in &all {
        data.write_at(b"x", 0).unwrap();
        data.flush().unwrap();
    }
    drop(all);
    assert!(!spool.has_writer(numbers[3]));
    spool.read_at(numbers[3], 0, 1).unwrap();
    spool.remove(numbers[3]).unwrap();
    spool.remove(numbers[3]).unwrap();
    let gone = spool.read_at(numbers[3], 0, 1).unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    drop(log);
    let (log, _) = open(&config).unwrap();
    let left: Vec<_> = numbers
        .iter()
        .filter(|n| **n != numbers[3])
        .copied()
        .collect();
    assert_eq!(log.spool().files(), left);
    assert!(log.spool().create().unwrap().number() > numbers[19]);
}

#[test]
fn more_files_than_may_be_open_are_read_all_the_same() {
    let tmp = tempfile::tempdir().unwrap();
    let (log, _) = open(&config(tmp.path())).unwrap();
    let spool = log.spool();
    let numbers: Vec<_> = (0..100u8)
        .map(|i| {
            let data = spool.create().unwrap();
            data.write_at(&[i], 0).unwrap();
            data.number()
        })
        .collect();
    for (i, number) in (0..100u8).zip(&numbers).chain((0..100).zip(&numbers)) {
        assert_eq!(&spool.read_at(*number, 0, 1).unwrap()[..], [i]);
    }
    assert_eq!(spool.shared.open.lock().len(), OPEN_MAX.get());
}

#[test]
fn what_a_file_occupies_is_counted_and_given_back() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (log, _) = open(&config).unwrap();
    let spool = log.spool();
    let used = || spool.usage().0;
    let empty = used();
    let data = spool.create().unwrap();
    data.write_at(&[1; 8192], 0).unwrap();
    assert_eq!(used(), empty + 8192);
    for _ in 0..10 {
        data.write_at(&[2; 8192], 0).unwrap();
    }
    // Far behind its end: a hole occupies nothing.
    data.write_at(&[3; 4096], 1 << 40).unwrap();
    data.flush().unwrap();
    let written = used() - empty;
    assert!((12_288..40_000).contains(&written), "{written}");
    let number = data.number();
    spool.remove(number).unwrap();
    assert_eq!(used(), empty + written, "the writer still holds it");
    assert_eq!(spool.files(), []);
    drop(data);
    assert_eq!(used(), empty);
    let data = spool.create().unwrap();
    data.write_at(&[1; 8192], 0).unwrap();
    data.flush().unwrap();
    let before = used() - empty;
    drop((log, data));
    let (log, _) = open(&config).unwrap();
    let number = log.spool().files()[0];
    let with = log.spool().usage().0;
    log.spool().remove(number).unwrap();
    assert_eq!(with - log.spool().usage().0, before);
}

#[test]
fn a_partial_keeps_its_bytes_and_name_also_after_a_restart() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (log, _) = open(&config).unwrap();
    let data = log.spool().create().unwrap();
    data.write_at(b"half a fil", 0).unwrap();
    let number = data.number();
    drop((log, data));
    let (log, _) = open(&config).unwrap();
    let before = log.spool().usage().0;
    for _ in 0..2 {
        log.spool().set_aside(number, "dir/日本.csv").unwrap();
    }
    let expected = [("dir/日本.csv".to_owned(), 10)];
    assert_eq!(log.spool().partials(), expected);
    assert_eq!(
        (log.spool().files(), log.spool().usage().0),
        (vec![], before)
    );
    drop(log);
    let (log, _) = open(&config).unwrap();
    assert_eq!(log.spool().partials(), expected);
    assert!(log.spool().create().unwrap().number() > number);
    let kept = config.dir.join("partial").join(file_name(number));
    assert_eq!(std::fs::read(&kept).unwrap(), b"half a fil");
    std::fs::remove_file(kept.with_extension("json")).unwrap();
    assert_eq!(log.spool().partials(), [(file_name(number), 10)]);
}

#[test]
fn a_data_file_that_never_got_a_byte_is_gone_at_the_next_start() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (log, _) = open(&config).unwrap();
    let number = log.spool().create().unwrap().number();
    drop(log);
    let (log, _) = open(&config).unwrap();
    assert_eq!(log.spool().files(), []);
    log.spool().set_aside(number, "nothing").unwrap();
    assert_eq!(log.spool().partials(), []);
}

#[test]
fn names_of_other_things_are_no_numbers() {
    assert_eq!(number_of("00000000000000ff"), Some(FileNo(255)));
    for name in [
        "ff",
        "0000000000000000",
        "00000000000000FF",
        "00000000000000ff.json",
        "",
    ] {
        assert_eq!(number_of(name), None, "{name}");
    }
}

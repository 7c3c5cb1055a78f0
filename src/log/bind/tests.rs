use super::*;
use crate::log::Need;
use crate::log::tests::{config, file, key, open as open_log, set, small};
use crate::log::{Config, Refusal, SentObject};
use crate::types::{ETag, FileNo, Headers, ObjectId, ObjectKey};

fn other(config: &Config) -> Config {
    let mut other = config.clone();
    other.binding.prefix = "q/".into();
    other
}

fn sent(name: &str, number: Seq) -> Record {
    let object = SentObject {
        id: ObjectId {
            key: ObjectKey::new(name),
            etag: ETag::new("e"),
        },
        size: 1,
        modified: 0,
        headers: Headers::default(),
    };
    Record::Sent {
        key: key(name),
        number,
        object: Box::new(object),
    }
}

/// Writes `records` to a new spool.
async fn spool_with(config: &Config, records: &[Record]) {
    let (log, _) = open_log(config).unwrap();
    for record in records {
        let inline: &[u8] = if matches!(record, Record::Set(_)) {
            b"1"
        } else {
            b""
        };
        let (seq, _) = log.append(record.clone(), inline, Need::Growth).unwrap();
        log.flushed(seq).await.unwrap();
    }
}

fn foreign(config: &Config) -> String {
    match open_log(config) {
        Err(LogError::Foreign(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn unsent_changes_are_refused_for_another_binding_with_the_way_out() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    spool_with(&config, &[small("a", 1), small("b", 1), sent("a", Seq(1))]).await;
    let text = foreign(&other(&config));
    for word in [
        "1 unsent",
        "s3://b/p/",
        "amazonaws",
        "kryptonfs drain",
        "spool_dir",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let (_, records) = open_log(&config).unwrap();
    assert_eq!(records.len(), 3, "nothing was changed by the refusal");
}

#[tokio::test]
async fn a_spool_whose_changes_are_all_sent_is_bound_anew_with_a_new_identity() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let records = [
        small("a", 1),
        sent("a", Seq(1)),
        set("never-sent", Want::Gone),
    ];
    spool_with(&config, &records).await;
    let before = open_log(&config).unwrap().0.mount_id();
    let (log, records) = open_log(&other(&config)).unwrap();
    assert_eq!(records, []);
    assert_ne!(log.mount_id(), before);
    drop(log);
    open_log(&other(&config)).unwrap();
}

#[tokio::test]
async fn data_files_and_unreadable_pieces_are_unsent_too() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    spool_with(&config, &[small("a", 1), sent("a", Seq(1))]).await;
    let segment = config.dir.join("log/0000000000000001");
    let good = std::fs::read(&segment).unwrap();
    let mut bad = good.clone();
    bad[100] ^= 1;
    std::fs::write(&segment, bad).unwrap();
    assert!(foreign(&other(&config)).contains("1 unreadable"));
    std::fs::write(&segment, good).unwrap();
    let (log, _) = open_log(&config).unwrap();
    let data = log.spool().create().unwrap();
    data.write_at(b"x", 0).unwrap();
    drop((log, data));
    assert!(foreign(&other(&config)).contains("1 data files"));
}

#[test]
fn what_is_unsent_follows_the_records() {
    let mut unsent = Unsent::default();
    let mut apply = |seq, record: &Record| {
        unsent.apply(Seq(seq), record);
        unsent
            .0
            .keys()
            .map(|key| key.as_str().to_owned())
            .collect::<Vec<_>>()
    };
    let removed = |name, number| Record::Removed {
        key: key(name),
        number: Seq(number),
    };
    assert_eq!(apply(1, &small("a", 1)), ["a"]);
    assert_eq!(apply(2, &small("a", 1)), ["a"]);
    assert_eq!(apply(3, &sent("a", Seq(1))), ["a"], "an older one was sent");
    let dead = Record::Dead {
        key: key("a"),
        number: Seq(2),
        reason: Refusal::Denied("no".into()),
    };
    assert_eq!(apply(4, &dead), ["a"], "refused is not sent");
    let aside = Record::Conflict {
        key: key("a"),
        number: Seq(2),
        base: Base::Absent,
        aside: Some(key("a.conflict")),
    };
    assert_eq!(apply(5, &aside), ["a.conflict"]);
    assert_eq!(apply(6, &sent("a.conflict", Seq(2))), [""; 0]);
    assert_eq!(apply(7, &small("b", 1)), ["b"]);
    assert_eq!(apply(8, &removed("b", 7)), [""; 0]);
    assert_eq!(apply(9, &small("c", 1)), ["c"]);
    assert_eq!(
        apply(10, &set("c", Want::Gone)),
        [""; 0],
        "never was in the bucket"
    );
}

#[test]
fn a_copy_on_another_machine_gets_an_identity_of_its_own_and_keeps_what_it_holds() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (folders, _lock, _) = open(&Disk::default(), &config.dir).unwrap();
    let on = |machine| bind(&folders, &config.binding, machine).unwrap();
    let made = on(Some("one"));
    assert_eq!(
        (on(Some("one")).mount, on(None).mount),
        (made.mount, made.mount)
    );
    let copied = on(Some("two"));
    assert_ne!(copied.mount, made.mount);
    assert_eq!((copied.salt, copied.notes.len()), (made.salt, 1));
    let again = on(Some("two"));
    assert_eq!((again.mount, again.notes.len()), (copied.mount, 0));
}

#[tokio::test]
async fn without_its_binding_a_spool_is_adopted_and_with_an_unreadable_one_it_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    spool_with(&config, &[set("a", file(&[(FileNo::INLINE, 0, 1)]))]).await;
    let mount = open_log(&config).unwrap().0.mount_id();
    let path = config.dir.join("binding");
    std::fs::write(&path, b"{\"version\":1,").unwrap();
    assert!(foreign(&config).contains("remove"));
    std::fs::remove_file(&path).unwrap();
    let (log, records) = open_log(&other(&config)).unwrap();
    assert_eq!((records.len(), log.mount_id()), (1, mount));
    assert!(log.set_aside()[0].contains("no binding"));
    drop(log);
    foreign(&config);
    open_log(&other(&config)).unwrap();
}

#[test]
fn a_newer_binding_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    drop(open_log(&config).unwrap());
    std::fs::write(config.dir.join("binding"), b"{\"version\":3,\"new\":true}").unwrap();
    assert_eq!(open_log(&config).unwrap_err(), LogError::Newer(3));
}

#[test]
fn the_secret_of_a_spool_is_not_shown() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (log, _) = open_log(&config).unwrap();
    let json = std::fs::read(config.dir.join("binding")).unwrap();
    let on_disk: OnDisk = serde_json::from_slice(&json).unwrap();
    let salt = number(&on_disk.salt).unwrap();
    assert_eq!(on_disk.mount, log.mount_id().to_string());
    assert!(!format!("{log:?}").contains(&salt.to_string()));
}

#[test]
fn the_identity_is_there_after_a_restart_and_unknown_in_a_spool_of_before() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    let (log, _) = open_log(&config).unwrap();
    assert_eq!(log.identity(), None);
    log.bind_to("r:0").unwrap();
    log.learn_region("eu-west-1").unwrap();
    let mount = log.mount_id();
    drop(log);
    let (log, _) = open_log(&config).unwrap();
    assert_eq!(
        (log.identity().as_deref(), log.mount_id()),
        (Some("r:0"), mount)
    );
    assert_eq!(log.region().as_deref(), Some("eu-west-1"));
    drop(log);
    let (folders, _lock, _) = open(&Disk::default(), &config.dir).unwrap();
    let copied = bind(&folders, &config.binding, Some("elsewhere")).unwrap();
    assert_eq!(
        copied.learnt.identity.as_deref(),
        Some("r:0"),
        "it moves with what is unsent"
    );
    let path = config.dir.join("binding");
    let old = std::fs::read_to_string(&path).unwrap();
    let old = old.replace("\"version\": 2", "\"version\": 1");
    std::fs::write(&path, old.replace("\"identity\": \"r:0\",", "")).unwrap();
    let before = bind(&folders, &config.binding, None).unwrap();
    assert_eq!((before.learnt.identity, before.mount), (None, copied.mount));
}

#[tokio::test]
async fn a_spool_that_is_bound_anew_has_no_identity_yet() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(tmp.path());
    open_log(&config).unwrap().0.bind_to("r:0").unwrap();
    assert_eq!(open_log(&other(&config)).unwrap().0.identity(), None);
}

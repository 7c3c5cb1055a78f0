use super::*;
use s3s::S3ErrorCode;

use super::super::checks::Summer;
use super::super::multipart::{Completion, Creation, Named, Part};

fn store(dir: &Path) -> Store {
    let store = Store::open(dir).unwrap();
    store.create_bucket("b").unwrap();
    store
}

fn content(store: &Store, bytes: &[u8]) -> (Content, Sums) {
    let mut summer = Summer::new(None);
    summer.update(bytes);
    let mut content = Content::default();
    content.push(Slice {
        blob: store.blobs.write(bytes).unwrap(),
        offset: 0,
        len: bytes.len() as u64,
    });
    (content, summer.finish())
}

fn object(store: &Store, bytes: &[u8]) -> Object {
    let (content, sums) = content(store, bytes);
    Object::single(content, sums, Attributes::default())
}

fn put(store: &Store, key: &str, bytes: &[u8]) -> Arc<Object> {
    let object = object(store, bytes);
    store.put("b", key, object, &Condition::default()).unwrap()
}

fn code<T>(result: S3Result<T>) -> Option<S3ErrorCode> {
    result.err().map(|error| error.code().clone())
}

fn blobs(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("blobs")).unwrap().count()
}

fn if_match(etag: &str) -> Condition {
    Condition {
        if_match: Some(etag.parse().unwrap()),
        if_none_match: None,
    }
}

#[test]
fn strange_keys_are_just_keys() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let keys = [
        "", "/", "//", "f", "f/", "f/x", "../..", "a\nb", "\u{0}", "é",
    ];
    for key in keys {
        put(&store, key, key.as_bytes());
    }
    for key in keys {
        assert_eq!(store.get("b", key).unwrap().size, key.len() as u64);
    }
}

#[test]
fn a_condition_is_judged_against_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let absent = Condition {
        if_match: None,
        if_none_match: Some(ETagCondition::Any),
    };
    let try_put = |when: &Condition| code(store.put("b", "k", object(&store, b"x"), when));
    assert_eq!(try_put(&if_match("\"00\"")), Some(S3ErrorCode::NoSuchKey));
    assert_eq!(try_put(&absent), None);
    assert_eq!(try_put(&absent), Some(S3ErrorCode::PreconditionFailed));
    let etag = store.get("b", "k").unwrap().etag.clone();
    assert_eq!(try_put(&if_match(&etag)), None);
    assert_eq!(
        try_put(&if_match("\"00\"")),
        Some(S3ErrorCode::PreconditionFailed)
    );
    let delete = |when: &Condition| code(store.delete("b", "k", when));
    assert_eq!(
        delete(&if_match("\"00\"")),
        Some(S3ErrorCode::PreconditionFailed)
    );
    assert_eq!(delete(&if_match(&etag)), None);
    assert_eq!(delete(&if_match("*")), Some(S3ErrorCode::NoSuchKey));
    assert_eq!(delete(&Condition::default()), None);
}

#[test]
fn a_refused_put_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    put(&store, "k", b"one");
    let refused = store.put("b", "k", object(&store, b"two"), &if_match("\"00\""));
    assert!(refused.is_err());
    assert_eq!(blobs(dir.path()), 1);
    assert!(
        store
            .put("none", "k", object(&store, b"x"), &Condition::default())
            .is_err()
    );
    assert_eq!(blobs(dir.path()), 1);
}

#[test]
fn a_reader_keeps_a_version_that_was_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let old = put(&store, "k", b"old");
    put(&store, "k", b"newer");
    assert_eq!(blobs(dir.path()), 2);
    assert_eq!(old.content.sum(None).unwrap().len, 3);
    drop(old);
    assert_eq!(blobs(dir.path()), 1);
}

#[test]
fn what_was_there_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = store(dir.path());
    put(&first, "gone", b"gone");
    put(&first, "kept", b"old");
    let kept = put(&first, "kept", b"kept");
    first.delete("b", "gone", &Condition::default()).unwrap();
    let (half, half_sums) = content(&first, b"half");
    let upload = Creation {
        key: "u".to_owned(),
        attributes: Attributes::default(),
        algorithm: None,
        composite: false,
    };
    let id = first.create_upload("b", upload).unwrap();
    let part = Part::new(half, half_sums);
    let etag = first.put_part("b", &id, 1, part).unwrap().etag();
    // As a kill leaves it: nothing was closed, and a file is there that nobody knows.
    first.blobs.close();
    drop(first);
    std::fs::write(dir.path().join("blobs/000000000999"), b"orphan").unwrap();

    for _ in 0..2 {
        let again = Store::open(dir.path()).unwrap();
        let found = again.get("b", "kept").unwrap();
        assert_eq!(found.etag, kept.etag);
        assert_eq!(found.content.sum(None).unwrap().crc64, kept.crc64);
        assert_eq!(code(again.get("b", "gone")), Some(S3ErrorCode::NoSuchKey));
        assert_eq!(blobs(dir.path()), 2);
        again.blobs.close();
    }
    let again = Store::open(dir.path()).unwrap();
    let completion = Completion {
        parts: vec![Named {
            number: 1,
            etag,
            checksum: None,
        }],
        ..Completion::default()
    };
    let object = again.complete("b", "u", &id, &completion).unwrap();
    assert_eq!(object.size, 4);
    put(&again, "next", b"next");
    assert_eq!(again.get("b", "kept").unwrap().size, 4);
}

#[test]
fn seeded_objects_share_a_blob_and_are_objects() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let objects = (0..100).map(|n| (format!("s/{n:03}"), vec![b'a'; n]));
    assert_eq!(store.seed("b", objects).unwrap(), 100);
    assert_eq!(blobs(dir.path()), 1);
    let object = store.get("b", "s/042").unwrap();
    assert_eq!(object.content.sum(None).unwrap().len, 42);
    assert!(
        store
            .seed("none", [("k".to_owned(), vec![])].into_iter())
            .is_err()
    );
}

#[test]
fn the_etag_of_a_single_put_is_its_md5() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let object = put(&store, "k", b"hello");
    assert_eq!(object.etag, "5d41402abc4b2a76b9719d911017c592");
    assert_eq!(hex(&object.md5().unwrap()), object.etag);
}

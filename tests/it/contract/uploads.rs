//! Uploads in parts.

use kryptonfs::store::{PartDone, Payload, StoreError};
use kryptonfs::types::{ETag, Headers, Precondition};

use super::kit::{Kit, MIB, headers, key, keys, noise};

const PART: usize = 5 * MIB;

pub(super) async fn parts_become_one_object(kit: &Kit) {
    let at = "parts/a";
    let (first, last) = (noise(PART, 5), noise(1000, 6));
    let sent = Headers {
        content_type: Some("video/x-test".to_owned()),
        ..headers(&[("mode", "33188"), ("name", "日本")])
    };
    let upload = kit.create_as(at, &sent).await;
    let second = kit.part(at, &upload, 2, &last).await;
    // Sent again, a part is replaced.
    kit.part(at, &upload, 1, &noise(PART, 7)).await;
    let first_part = kit.part(at, &upload, 1, &first).await;
    assert!(kit.is_absent(at).await, "not there before it is complete");
    assert_eq!(
        keys(&kit.page("parts/", false).await),
        <[&str; 0]>::default()
    );
    let mut parts = kit.store.list_parts(&key(at), &upload).await.unwrap();
    if !kit.caps.parts_replaced {
        parts.retain(|part| [&first_part.etag, &second.etag].contains(&&part.etag));
    }
    let listed = parts
        .iter()
        .map(|part| (part.number, &part.etag, part.size));
    assert_eq!(
        listed.collect::<Vec<_>>(),
        [
            (1, &first_part.etag, Some(PART as u64)),
            (2, &second.etag, Some(1000))
        ]
    );
    let done = kit
        .complete(at, &upload, [first_part, second], Precondition::None)
        .await
        .unwrap();
    assert_eq!(done.size, PART as u64 + 1000);
    let head = kit.head(at).await;
    assert_eq!(head.id, done.id);
    assert_eq!(head.size, done.size);
    let got = head.headers.unwrap();
    assert_eq!(got.metadata, sent.metadata);
    assert_eq!(got.content_type, sent.content_type);
    let bytes = kit.bytes(at).await;
    assert!(bytes == [first, last].concat(), "the parts in their order");
}

pub(super) async fn parts_may_be_copied_from_a_version(kit: &Kit) {
    let old = noise(11 * MIB, 8);
    let source = kit.put("append/a", old.clone()).await.id;
    let at = key("append/a");
    let upload = kit.create("append/a").await;
    let store = &kit.store;
    let copied = store.copy_part(&at, &upload, 1, &source, Some(0..5 << 20));
    let first = copied.await.unwrap();
    let copied = store.copy_part(&at, &upload, 2, &source, Some(5 << 20..11 << 20));
    let second = copied.await.unwrap();
    assert_eq!(second.size, Some(6 << 20));
    let tail = noise(4096, 9);
    let third = kit.part("append/a", &upload, 3, &tail).await;
    if kit.caps.unnamed_parts {
        let whole = store.copy_part(&at, &upload, 4, &source, None);
        assert!(whole.await.is_ok());
    }
    let when = if kit.caps.complete_conditions {
        Precondition::IfMatch(source.etag.clone())
    } else {
        Precondition::None
    };
    let done = kit
        .complete("append/a", &upload, [first, second, third], when)
        .await
        .unwrap();
    assert_eq!(done.size, (11 << 20) + 4096);
    let bytes = kit.bytes("append/a").await;
    assert!(bytes == [old, tail].concat(), "the old bytes and the new");
    if kit.caps.copy_if_match {
        let upload = kit.create("append/a").await;
        let copied = store.copy_part(&at, &upload, 1, &source, None).await;
        assert_eq!(copied, Err(StoreError::Stale));
        store.abort(&at, &upload).await.unwrap();
    }
}

pub(super) async fn a_conditional_complete_sees_what_is_there(kit: &Kit) {
    if !kit.caps.complete_conditions {
        return;
    }
    let refused = Err(StoreError::Precondition);
    let (at, bytes) = ("done/a", noise(1000, 10));
    let there = kit.put(at, "there").await.id.etag;
    let upload = kit.create(at).await;
    let part = [kit.part(at, &upload, 1, &bytes).await];
    let done = kit.complete(at, &upload, &part, Precondition::IfAbsent);
    assert_eq!(done.await.map(|_| ()), refused);
    let other = Precondition::IfMatch(ETag::new("00000000000000000000000000000000"));
    let done = kit.complete(at, &upload, &part, other);
    assert_eq!(done.await.map(|_| ()), refused);
    assert_eq!(kit.bytes(at).await, "there");
    // The refused upload is still there, and may be completed by the right condition.
    let done = kit.complete(at, &upload, &part, Precondition::IfMatch(there));
    done.await.unwrap();
    assert_eq!(kit.bytes(at).await, bytes);
    let upload = kit.create("done/b").await;
    let part = [kit.part("done/b", &upload, 1, &bytes).await];
    let done = kit.complete("done/b", &upload, &part, Precondition::IfAbsent);
    done.await.unwrap();
}

pub(super) async fn an_upload_that_is_gone_is_told(kit: &Kit) {
    let at = key("gone/a");
    let upload = kit.create("gone/a").await;
    let part = kit.part("gone/a", &upload, 1, &noise(1000, 11)).await;
    kit.abort("gone/a", &upload).await;
    kit.abort("gone/a", &upload).await;
    let gone = StoreError::NoSuchUpload;
    let payload = Payload::of("x".into());
    let put = kit.store.upload_part(&at, &upload, 1, &payload).await;
    assert_eq!(put, Err(gone.clone()));
    let listed = kit.store.list_parts(&at, &upload).await;
    assert_eq!(listed, Err(gone.clone()));
    let done = kit.complete("gone/a", &upload, [part], Precondition::None);
    if kit.caps.complete_tells_gone {
        assert_eq!(done.await, Err(gone));
    } else {
        assert_eq!(done.await, Err(StoreError::Throttled));
    }
    assert!(kit.is_absent("gone/a").await);
}

pub(super) async fn a_wrong_or_small_part_is_refused(kit: &Kit) {
    let at = "wrong/a";
    let upload = kit.create(at).await;
    let parts = [
        kit.part(at, &upload, 1, &noise(1000, 12)).await,
        kit.part(at, &upload, 2, &noise(1000, 13)).await,
    ];
    let wrong = PartDone {
        etag: parts[1].etag.clone(),
        ..parts[0].clone()
    };
    let done = kit.complete(at, &upload, [wrong], Precondition::None);
    let error = done.await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid(_)), "{error:?}");
    if kit.caps.part_minimum {
        let done = kit.complete(at, &upload, &parts, Precondition::None);
        let error = done.await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid(_)), "{error:?}");
    }
    assert!(kit.is_absent(at).await);
    kit.abort(at, &upload).await;
}

pub(super) async fn an_object_of_another_checksum_is_refused(kit: &Kit) {
    let at = "sums/a";
    let upload = kit.create(at).await;
    let (first, last) = (noise(PART, 14), noise(1000, 15));
    let parts = [
        kit.part(at, &upload, 1, &first).await,
        kit.part(at, &upload, 2, &last).await,
    ];
    if kit.caps.whole_checksums {
        let mut wrong = parts.clone();
        wrong[0].crc64 = Some(Payload::of(last.clone()).crc64);
        let done = kit.complete(at, &upload, wrong, Precondition::None);
        let error = done.await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid(_)), "{error:?}");
        assert!(kit.is_absent(at).await);
    }
    let done = kit.complete(at, &upload, parts, Precondition::None);
    done.await.unwrap();
    assert!(kit.bytes(at).await == [first, last].concat());
}

//! Objects as they are read back: bytes, ranges, versions, metadata, names.

use kryptonfs::store::{ListPage, Payload, StoreError};
use kryptonfs::types::{ETag, Headers, ObjectId, Precondition};

use super::kit::{Kit, headers, key, keys, noise, read};

pub(super) async fn an_object_comes_back_whole_with_its_version(kit: &Kit) {
    let bytes = noise(300_000, 1);
    let put = kit.put("whole/a", bytes.clone()).await;
    assert_eq!(put.id.key, key("whole/a"));
    assert_eq!(put.size, 300_000);
    let head = kit.head("whole/a").await;
    assert_eq!(head.id, put.id);
    assert_eq!(head.size, 300_000);
    assert!(
        (head.modified - put.modified).abs() <= 60,
        "a PUT's date is its object's: {} and {}",
        put.modified,
        head.modified
    );
    let download = kit.get("whole/a", None, None).await.unwrap();
    assert_eq!(download.meta.id, put.id);
    assert_eq!(download.meta.size, 300_000);
    assert_eq!(download.meta.modified, head.modified);
    assert_eq!(download.range, 0..300_000);
    assert_eq!(read(download).await, bytes);
    let listed = &kit.page("whole/", false).await.objects[0];
    assert_eq!(listed.etag, put.id.etag);
    assert_eq!(listed.size, 300_000);
    assert_eq!(listed.modified, head.modified);
    // Equal bytes are an equal version, others are not.
    assert_eq!(kit.put("whole/a", bytes).await.id, put.id);
    assert_ne!(kit.put("whole/a", "other").await.id, put.id);
}

pub(super) async fn a_range_is_cut_to_the_object(kit: &Kit) {
    let bytes = noise(10_000, 2);
    kit.put("range/a", bytes.clone()).await;
    for (asked, got) in [
        (0..1, 0..1),
        (17..4242, 17..4242),
        (9_999..10_000, 9_999..10_000),
        (9_000..20_000, 9_000..10_000),
        (0..1 << 40, 0..10_000),
    ] {
        let (range, came) = kit.range("range/a", asked.clone()).await;
        assert_eq!(range, got, "{asked:?}");
        let place = usize::try_from(got.start).unwrap()..usize::try_from(got.end).unwrap();
        assert_eq!(came, bytes.slice(place), "{asked:?}");
    }
    let download = kit.get("range/a", Some(5..9), None);
    assert_eq!(
        download.await.unwrap().meta.size,
        10_000,
        "the object's size"
    );
    let behind = kit.get("range/a", Some(10_000..10_001), None).await;
    assert!(matches!(behind, Err(StoreError::Invalid(_))), "{behind:?}");
}

pub(super) async fn a_read_of_another_version_is_stale(kit: &Kit) {
    let old = kit.put("stale/a", "old").await.id.etag;
    let got = kit.get("stale/a", Some(1..3), Some(&old)).await;
    assert_eq!(read(got.unwrap()).await, "ld");
    kit.put("stale/a", "new").await;
    let got = kit.get("stale/a", Some(1..3), Some(&old)).await;
    assert_eq!(got.map(|_| ()), Err(StoreError::Stale));
}

pub(super) async fn a_head_of_the_same_version_is_not_modified(kit: &Kit) {
    let old = kit.put("same/a", "old").await.id.etag;
    let head = kit.head_unless("same/a", Some(&old)).await;
    assert_eq!(head, Err(StoreError::NotModified));
    let new = kit.put("same/a", "new").await.id;
    let head = kit.head_unless("same/a", Some(&old)).await;
    assert_eq!(head.unwrap().id, new);
}

pub(super) async fn an_absent_key_is_not_found(kit: &Kit) {
    let absent = key("absent/a");
    let got = kit.store.get(&absent, None, None).await.map(|_| ());
    assert_eq!(got, Err(StoreError::NotFound));
    let etag = ETag::new("00000000000000000000000000000000");
    let got = kit.store.head(&absent, None).await;
    assert_eq!(got, Err(StoreError::NotFound));
    let got = kit.store.head(&absent, Some(&etag)).await;
    assert_eq!(got, Err(StoreError::NotFound));
    let source = ObjectId { key: absent, etag };
    let copied = kit.copy(&source, "absent/b", headers(&[])).await;
    assert_eq!(copied, Err(StoreError::NotFound));
    assert_eq!(kit.page("absent/", false).await, ListPage::default());
}

pub(super) async fn an_empty_object_is_an_object(kit: &Kit) {
    let put = kit.put("empty/a", "").await;
    assert_eq!(put.size, 0);
    assert_eq!(kit.head("empty/a").await.id, put.id);
    let download = kit.get("empty/a", None, None).await.unwrap();
    assert_eq!(download.range, 0..0);
    assert_eq!(read(download).await, "");
    assert_eq!(kit.page("empty/", false).await.objects[0].size, 0);
}

pub(super) async fn metadata_comes_back_whatever_its_letters(kit: &Kit) {
    let metadata = [
        ("mode", "33188"),
        ("kryptonfs", "00000000deadbeef-42"),
        ("with-dash", "a  b=c; d=\"e\" %41+"),
        ("unicode", "ファイル é ñ 😀"),
        ("blanks", "  at both ends  "),
        ("lines", "one\ntwo\ttabbed"),
        ("word", "=?UTF-8?B?5pel?= is not decoded"),
        ("long", &"ö".repeat(300)),
    ];
    let sent = Headers {
        content_type: Some("text/x-test".to_owned()),
        cache_control: Some("no-cache".to_owned()),
        content_disposition: Some("attachment; filename=\"a b\"".to_owned()),
        content_encoding: Some("gzip".to_owned()),
        content_language: Some("ja".to_owned()),
        ..headers(&metadata)
    };
    let payload = Payload::of("x".into());
    let put = kit.put_as("meta/a", payload, sent.clone(), Precondition::None);
    put.await.unwrap();
    let head = kit.head("meta/a").await.headers.unwrap();
    let got = kit.get("meta/a", None, None).await.unwrap();
    assert_eq!(got.meta.headers.as_ref(), Some(&head));
    // A server may add encryption of its own.
    assert_eq!(Headers { sse: None, ..head }, sent);
}

pub(super) async fn odd_keys_are_keys(kit: &Kit) {
    let mut odd = vec![
        "odd/with blank",
        "odd/plus+plus",
        "odd/100%25",
        "odd/%zz",
        "odd/a:b",
        "odd/q?a=b&c#d",
        "odd/日本/語",
        "odd/e\u{301}",
        "odd/😀",
        "odd/'\"<>&;,@=$!*()[]{}|~^`",
        "odd/-dash",
        "odd/.dot",
        "odd/...",
        "odd/new\nline\ttab",
    ];
    if kit.caps.flat_keys {
        odd.push("odd/back\\slash");
    }
    odd.sort_unstable();
    for (seed, at) in odd.iter().enumerate() {
        let bytes = noise(100, u32::try_from(seed).unwrap() + 10);
        let id = kit.put(at, bytes.clone()).await.id;
        assert_eq!(kit.bytes(at).await, bytes, "{at:?}");
        let copied = kit.copy(&id, &format!("odd-copy/{at}"), headers(&[])).await;
        assert!(copied.is_ok(), "{at:?}: {copied:?}");
        assert_eq!(kit.bytes(&format!("odd-copy/{at}")).await, bytes, "{at:?}");
    }
    let page = kit.page("odd/", false).await;
    let mut listed = keys(&page);
    listed.sort_unstable();
    assert_eq!(listed, odd);
    assert_eq!(page.unreadable, 0);
    let below = kit.page("odd/日", true).await;
    assert_eq!(below.prefixes, ["odd/日本/"]);
    let named: Vec<_> = odd.iter().map(|at| (key(at), None)).collect();
    assert_eq!(kit.store.delete_batch(&named).await.unwrap(), []);
    assert_eq!(keys(&kit.page("odd/", false).await), <[&str; 0]>::default());
}

pub(super) async fn a_key_may_begin_another(kit: &Kit) {
    kit.put("both/f", "file").await;
    kit.put("both/f/x", "below").await;
    assert_eq!(kit.bytes("both/f").await, "file");
    assert_eq!(kit.bytes("both/f/x").await, "below");
    let page = kit.page("both/", true).await;
    assert_eq!(keys(&page), ["both/f"]);
    assert_eq!(page.prefixes, ["both/f/"]);
    kit.delete("both/f", None).await.unwrap();
    assert_eq!(kit.bytes("both/f/x").await, "below");
}

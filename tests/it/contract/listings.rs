//! Listings and the key space.

use bytes::Bytes;
use kryptonfs::store::{ListRequest, Payload};
use kryptonfs::types::Precondition;

use super::kit::{Kit, headers, keys};

pub(super) async fn a_listing_comes_in_pages(kit: &Kit) {
    let all: Vec<String> = (0..7).map(|at| format!("pages/k{at}")).collect();
    for at in &all {
        kit.put(at, "x").await;
    }
    let mut request = ListRequest {
        prefix: "pages/".to_owned(),
        max_keys: 3,
        ..ListRequest::default()
    };
    let (mut listed, mut sizes) = (Vec::new(), Vec::new());
    loop {
        let page = kit.store.list(&request).await.unwrap();
        sizes.push(page.objects.len());
        listed.extend(page.objects.into_iter().map(|object| object.key));
        request.continuation = page.next;
        if request.continuation.is_none() {
            break;
        }
    }
    assert_eq!(listed, all);
    assert_eq!(sizes, [3, 3, 1]);
}

pub(super) async fn a_listing_folds_directories(kit: &Kit) {
    for at in ["fold/a", "fold/d/1", "fold/d/2", "fold/e/f/g", "fold/z"] {
        kit.put(at, "x").await;
    }
    let page = kit.page("fold/", true).await;
    assert_eq!(keys(&page), ["fold/a", "fold/z"]);
    assert_eq!(page.prefixes, ["fold/d/", "fold/e/"]);
    assert_eq!(page.next, None);
    assert_eq!(kit.page("fold/e/", true).await.prefixes, ["fold/e/f/"]);
    // A prefix need not end at a slash, and counts as one entry of a page.
    assert_eq!(kit.page("fold/d", true).await.prefixes, ["fold/d/"]);
    let mut request = ListRequest {
        prefix: "fold/".to_owned(),
        delimited: true,
        max_keys: 1,
        ..ListRequest::default()
    };
    let mut entries = Vec::new();
    loop {
        let page = kit.store.list(&request).await.unwrap();
        assert!(page.objects.len() + page.prefixes.len() <= 1);
        entries.extend(page.objects.into_iter().map(|object| object.key));
        entries.extend(page.prefixes);
        request.continuation = page.next;
        if request.continuation.is_none() {
            break;
        }
    }
    assert_eq!(entries, ["fold/a", "fold/d/", "fold/e/", "fold/z"]);
}

pub(super) async fn a_listing_starts_behind_a_key(kit: &Kit) {
    for at in ["behind/a", "behind/b", "behind/c"] {
        kit.put(at, "x").await;
    }
    let request = ListRequest {
        prefix: "behind/".to_owned(),
        start_after: Some("behind/a".to_owned()),
        max_keys: 1,
        ..ListRequest::default()
    };
    let page = kit.store.list(&request).await.unwrap();
    assert_eq!(keys(&page), ["behind/b"]);
    assert!(page.next.is_some());
}

pub(super) async fn a_listing_is_ordered_by_bytes(kit: &Kit) {
    if !kit.caps.flat_keys {
        return;
    }
    let ordered = [
        "order/A",
        "order/a-b",
        "order/a/x",
        "order/a0",
        "order/b//x",
        "order/é",
        "order/日",
        "order/😀",
    ];
    for at in ordered.iter().rev() {
        kit.put(at, "x").await;
    }
    assert_eq!(keys(&kit.page("order/", false).await), ordered);
    assert_eq!(kit.page("order/b/", true).await.prefixes, ["order/b//"]);
}

pub(super) async fn a_marker_holds_metadata(kit: &Kit) {
    if !kit.caps.flat_keys {
        return;
    }
    let payload = Payload::of(Bytes::new());
    let mode = headers(&[("mode", "16877")]);
    let put = kit.put_as("marker/d/", payload, mode.clone(), Precondition::IfAbsent);
    let id = put.await.unwrap().id;
    assert_eq!(kit.metadata("marker/d/").await, mode.metadata);
    assert_eq!(keys(&kit.page("marker/d/", true).await), ["marker/d/"]);
    kit.copy(&id, "marker/e/", headers(&[("mode", "16832")]))
        .await
        .unwrap();
    assert_eq!(kit.metadata("marker/e/").await["mode"], "16832");
    // A directory that only its content makes has no marker.
    kit.put("marker/f/x", "x").await;
    assert!(kit.is_absent("marker/f/").await);
}

//! Keys in the folder of the identity that signs.

use super::*;

const ROOT: &str = "ap-northeast-1:00000000-0000-4000-8000-000000000001";

fn rooted() -> (Server, Arc<Keys>, S3Store) {
    bench_with(Keys {
        rooted: true,
        ..Keys::default()
    })
}

#[tokio::test]
async fn no_request_is_repeated_with_another_identitys_keys() {
    let (server, keys, store) = rooted();
    server.refuses(400, "ExpiredToken");
    let Err(error @ StoreError::Link(_)) = head(&store).await else {
        panic!("repeated");
    };
    assert!(error.is_transient());
    assert_eq!((server.count(), *keys.refusals.lock()), (1, 1));
    server.answers(200, &[TAG, DATE, ("content-length", b"0")], "");
    head(&store).await.unwrap();
    let signed = header(&server.requests()[1], "authorization").to_owned();
    assert!(signed.contains("Credential=KEY1/"), "{signed}");
}

#[tokio::test]
async fn a_colon_is_encoded_in_the_path_and_in_a_copys_source() {
    let (server, _, store) = rooted();
    let object = |name: &str| ObjectKey::new(&format!("{ROOT}/{name}"));
    server.answers(200, &[TAG, DATE, ("content-length", b"0")], "");
    store.head(&object("a"), None).await.unwrap();
    let body = "<CopyObjectResult><ETag>\"e\"</ETag></CopyObjectResult>";
    server.answers(200, &[], body);
    let copy = CopyRequest {
        source: ObjectId {
            key: object("a:b"),
            etag: ETag::new("e"),
        },
        key: object("c"),
        headers: Headers::default(),
    };
    store.copy(&copy).await.unwrap();
    let requests = server.requests();
    let encoded = ROOT.replace(':', "%3A");
    assert_eq!(requests[0].uri().path(), format!("/{encoded}/a"));
    assert_eq!(requests[1].uri().path(), format!("/{encoded}/c"));
    let source = header(&requests[1], "x-amz-copy-source");
    assert_eq!(source, format!("bucket/{encoded}/a%3Ab"));
    let request = ListRequest {
        prefix: format!("{ROOT}/"),
        start_after: Some(format!("{ROOT}/a")),
        max_keys: 1,
        ..ListRequest::default()
    };
    server.answers(200, &[], "<ListBucketResult></ListBucketResult>");
    store.list(&request).await.unwrap();
    let query = server.requests()[2].uri().query().unwrap().to_owned();
    assert!(query.contains(&format!("prefix={encoded}%2F")), "{query}");
}

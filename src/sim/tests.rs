//! The whole cloud, driven by the real SDK over TLS.

mod client;

use super::*;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, MetadataDirective,
};
use serde_json::{Value, json};

use client::{Bench, Web, bench, client, put, read, refusal};

#[tokio::test(flavor = "multi_thread")]
async fn an_object_goes_up_and_comes_down_with_what_travels_with_it() {
    let Bench {
        cloud,
        s3,
        dir: _dir,
    } = bench().await;
    let key = "a b/../é//\u{1}";
    let sent = s3
        .put_object()
        .bucket("demo")
        .key(key)
        .metadata("mode", "33188")
        .metadata("word", "=?UTF-8?B?ICA=?=")
        .content_type("text/x")
        .body(ByteStream::from_static(b"hello"))
        .send()
        .await
        .unwrap();
    assert_eq!(sent.e_tag(), Some("\"5d41402abc4b2a76b9719d911017c592\""));
    let get = || s3.get_object().bucket("demo").key(key);
    let got = get().range("bytes=1-2").send().await.unwrap();
    assert_eq!(got.content_range(), Some("bytes 1-2/5"));
    assert_eq!(got.content_type(), Some("text/x"));
    assert_eq!(got.metadata().unwrap()["mode"], "33188");
    assert_eq!(got.metadata().unwrap()["word"], "=?UTF-8?B?ICA=?=");
    assert_eq!(got.body.collect().await.unwrap().to_vec(), b"el");
    let known = get().if_none_match(sent.e_tag().unwrap()).send().await;
    assert_eq!(refusal(known).0, 304);
    let other = get().if_match("\"00\"").send().await;
    assert_eq!(refusal(other), (412, "PreconditionFailed".to_owned()));
    put(&s3, "void", b"").await.unwrap();
    let void = s3.get_object().bucket("demo").key("void").range("bytes=-1");
    assert_eq!(refusal(void.send().await), (416, "InvalidRange".to_owned()));
    let listed = s3.list_objects_v2().bucket("demo").delimiter("/");
    let listed = listed.encoding_type("url".into()).send().await.unwrap();
    assert_eq!(listed.common_prefixes()[0].prefix(), Some("a+b/"));
    let counts = cloud.counts();
    assert_eq!(counts.requests("PutObject"), 2);
    assert_eq!(counts.requests("GetObject"), 4);
    assert_eq!(counts.requests("ListObjectsV2"), 1);
    assert_eq!(counts.s3_requests(), 7);
    assert_eq!(counts.operations["GetObject"].failed, 2);
    assert_eq!(cloud.log().len(), 7);
    cloud.stop().await;
}

/// Copies all of an object into a part, adds a small part, and answers the parts.
async fn appended(s3: &Client, upload: &str, base: &str, len: usize) -> CompletedMultipartUpload {
    let copied = s3
        .upload_part_copy()
        .bucket("demo")
        .key("big")
        .upload_id(upload);
    let copied = copied.copy_source("demo/big").copy_source_if_match(base);
    let copied = copied.copy_source_range(format!("bytes=0-{}", len - 1));
    let copied = copied.part_number(1).send().await.unwrap();
    let tail = s3.upload_part().bucket("demo").key("big").upload_id(upload);
    let tail = tail.part_number(2).body(ByteStream::from_static(b"tail"));
    let tail = tail.send().await.unwrap();
    let part = |number, etag| {
        let part = CompletedPart::builder().part_number(number);
        part.set_e_tag(etag).build()
    };
    CompletedMultipartUpload::builder()
        .parts(part(1, copied.copy_part_result.unwrap().e_tag))
        .parts(part(2, tail.e_tag))
        .build()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_object_is_appended_to_and_copied_without_its_bytes() {
    let Bench { cloud, s3, dir } = bench().await;
    let words = 0..3_u32 << 19;
    let whole: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
    let base = put(&s3, "big", &whole).await.unwrap();
    cloud.reset_counts();
    let upload = s3.create_multipart_upload().bucket("demo").key("big");
    let upload = upload.send().await.unwrap().upload_id.unwrap();
    let parts = appended(&s3, &upload, &base, whole.len()).await;
    let complete = |when: &str| {
        let complete = s3.complete_multipart_upload().bucket("demo").key("big");
        let complete = complete.upload_id(&upload).multipart_upload(parts.clone());
        complete.if_match(when).send()
    };
    assert_eq!(refusal(complete("\"00\"").await).0, 412);
    let done = complete(&base).await.unwrap();
    assert!(done.e_tag().unwrap().ends_with("-2\""));
    let operations = cloud.counts().operations;
    let payload: u64 = operations.values().map(|count| count.payload_in).sum();
    assert!(payload < 4096, "{payload}");
    let copy = s3
        .copy_object()
        .bucket("demo")
        .key("copy")
        .copy_source("demo/big");
    let copy = copy
        .metadata_directive(MetadataDirective::Replace)
        .metadata("n", "1");
    let copy = copy.copy_source_if_match(done.e_tag().unwrap());
    copy.send().await.unwrap();
    // The first body and the tail; all else is slices of them.
    let blobs = std::fs::read_dir(dir.path().join("blobs")).unwrap();
    assert_eq!(blobs.count(), 2);
    let read = read(&s3, "copy").await;
    assert!(read[..whole.len()] == *whole && read[whole.len()..] == *b"tail");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crc64_is_checked_kept_and_shown() {
    let Bench {
        cloud,
        s3,
        dir: _dir,
    } = bench().await;
    let put = || {
        let put = s3.put_object().bucket("demo").key("k");
        put.body(ByteStream::from_static(b"123456789"))
    };
    let right = put().checksum_algorithm(ChecksumAlgorithm::Crc64Nvme);
    right.send().await.unwrap();
    let head = s3.head_object().bucket("demo").key("k");
    let head = head.checksum_mode("ENABLED".into()).send().await.unwrap();
    // 0xae8b14860a799888, the check value of the catalogue.
    assert_eq!(head.checksum_crc64_nvme(), Some("rosUhgp5mIg="));
    assert_eq!(head.checksum_type(), Some(&"FULL_OBJECT".into()));
    let wrong = put().checksum_crc64_nvme("AAAAAAAAAAA=").send().await;
    assert_eq!(refusal(wrong), (400, "BadDigest".to_owned()));
    assert_eq!(read(&s3, "k").await, b"123456789");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_krypton_and_of_cognito_open_the_bucket_until_they_end() {
    let Bench {
        cloud, dir: _dir, ..
    } = bench().await;
    let web = Web::to(&cloud);
    let (status, lease) = web.krypton(&cloud, "credentials").await;
    assert_eq!(
        (status, &lease["identityId"]),
        (200, &json!(cloud.identity_id()))
    );
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let keys = &lease["credentials"];
    let keys = FixedKeys {
        access_key_id: text(&keys["accessKeyId"]),
        secret_key: text(&keys["secretKey"]),
        session_token: Some(text(&keys["sessionToken"])),
    };
    let s3 = client(&cloud, &keys, cloud.region());
    put(&s3, "k", b"1").await.unwrap();
    cloud.expire_keys();
    let late = put(&s3, "k", &vec![0; 8 << 20]).await;
    assert_eq!(late, Err((400, "ExpiredToken".to_owned())));

    let exchange = |token: String| {
        let target = "AWSCognitoIdentityService.GetCredentialsForIdentity";
        let logins = json!({ "cognito-identity.amazonaws.com": token });
        let body = json!({ "IdentityId": cloud.identity_id(), "Logins": logins }).to_string();
        let (web, url) = (web.clone(), cloud.cognito_url().to_owned());
        async move { web.ask("POST", url, target, &body).await }
    };
    let (_, token) = web.krypton(&cloud, "open_id_tokens").await;
    let (status, exchanged) = exchange(text(&token["token"])).await;
    assert_eq!(status, 200);
    assert!(exchanged["Credentials"]["Expiration"].is_f64());
    let (status, refused) = exchange("other".to_owned()).await;
    assert_eq!(
        (status, &refused["__type"]),
        (400, &json!("NotAuthorizedException"))
    );
    let counts = cloud.counts();
    assert_eq!(
        (counts.requests("Krypton"), counts.requests("Cognito")),
        (2, 2)
    );
    assert!(counts.krypton.received > 0 && counts.cognito.sent > 0);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_not_right_are_refused_by_their_name() {
    let Bench {
        cloud, dir: _dir, ..
    } = bench().await;
    let keys = cloud.issue_keys().unwrap();
    let refused = async |keys: FixedKeys, region: &str| {
        put(&client(&cloud, &keys, region), "k", b"1")
            .await
            .unwrap_err()
    };
    let mut other = keys.clone();
    other.session_token = None;
    let region = cloud.region();
    assert_eq!(
        refused(other.clone(), region).await,
        (403, "AccessDenied".to_owned())
    );
    other.session_token = Some("x".to_owned());
    assert_eq!(
        refused(other, region).await,
        (400, "InvalidToken".to_owned())
    );
    let mut other = keys.clone();
    other.secret_key = "x".to_owned();
    assert_eq!(
        refused(other, region).await,
        (403, "SignatureDoesNotMatch".to_owned())
    );
    let other = "AKIAX:x".parse().unwrap();
    assert_eq!(
        refused(other, region).await,
        (403, "InvalidAccessKeyId".to_owned())
    );
    let elsewhere = refused(keys, "eu-west-1").await;
    assert_eq!(elsewhere, (400, "AuthorizationHeaderMalformed".to_owned()));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_commanded_to_go_wrong_does_and_nothing_else() {
    let Bench {
        cloud,
        s3,
        dir: _dir,
    } = bench().await;
    let faults = cloud.faults();
    faults.add(Fault::refuse("PutObject", 503, "SlowDown"));
    let large = vec![7; 8 << 20];
    assert_eq!(
        put(&s3, "k", &large).await,
        Err((503, "SlowDown".to_owned()))
    );
    put(&s3, "k", &large).await.unwrap();
    // A lost reply: the object is there.
    faults.add(Fault::next("PutObject", Action::DropAfter));
    assert_eq!(put(&s3, "lost", b"there").await.unwrap_err().0, 0);
    assert_eq!(read(&s3, "lost").await, b"there");
    faults.add(Fault::next("PutObject", Action::DropBefore));
    assert_eq!(put(&s3, "never", b"x").await.unwrap_err().0, 0);
    let absent = s3.head_object().bucket("demo").key("never").send().await;
    assert_eq!(refusal(absent).0, 404);
    faults.add(Fault::next("GetObject", Action::Truncate(1000)));
    let got = s3
        .get_object()
        .bucket("demo")
        .key("k")
        .send()
        .await
        .unwrap();
    assert_eq!(got.content_length(), Some(8 << 20));
    assert!(got.body.collect().await.is_err());
    faults.add(Fault::next("GetObject", Action::Corrupt(2)));
    let got = s3.get_object().bucket("demo").key("lost").range("bytes=0-");
    let got = got.send().await.unwrap().body.collect().await.unwrap();
    assert_eq!(got.to_vec(), [b't', b'h', b'e' ^ 0x55, b'r', b'e']);
    let value = Some("\"wrong\"".to_owned());
    let name = "etag".to_owned();
    faults.add(Fault::next("HeadObject", Action::Header { name, value }));
    let head = s3
        .head_object()
        .bucket("demo")
        .key("k")
        .send()
        .await
        .unwrap();
    assert_eq!(head.e_tag(), Some("\"wrong\""));
    let log = cloud.log();
    assert_eq!(
        log.iter().filter(|logged| logged.fault.is_some()).count(),
        6
    );
    assert_eq!(log[0].payload_in, 8 << 20);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_listener_answers_when_the_silence_ends() {
    let Bench {
        cloud,
        s3,
        dir: _dir,
    } = bench().await;
    put(&s3, "k", b"1").await.unwrap();
    cloud.faults().silence(Service::S3, true);
    // It may come by another connection: that one is taken, and not read from.
    let heard = || (cloud.counts().operations, cloud.counts().s3.received);
    let before = heard();
    let asked = tokio::spawn(async move { put(&s3, "k2", b"2").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!asked.is_finished());
    assert_eq!(heard(), before);
    cloud.faults().silence(Service::S3, false);
    asked.await.unwrap().unwrap();
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_sees_only_what_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(CloudConfig {
        identity_prefix_policy: true,
        tls: false,
        ..CloudConfig::new(dir.path().to_owned())
    })
    .await
    .unwrap();
    let lease = cloud.shared.lease(DAY).unwrap();
    let s3 = client(&cloud, &FixedKeys::of(lease), cloud.region());
    let own = format!("{}/k", cloud.identity_id());
    put(&s3, &own, b"1").await.unwrap();
    let denied = (403, "AccessDenied".to_owned());
    assert_eq!(put(&s3, "k", b"1").await, Err(denied.clone()));
    let list = |prefix: &str| s3.list_objects_v2().bucket("demo").prefix(prefix).send();
    assert_eq!(refusal(list("").await), denied);
    let prefix = format!("{}/", cloud.identity_id());
    assert_eq!(list(&prefix).await.unwrap().contents().len(), 1);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_endpoint_counts_seeds_and_commands() {
    let Bench {
        cloud,
        s3,
        dir: _dir,
    } = bench().await;
    let web = Web::to(&cloud);
    let control = async |method: &str, path: &str, body: Value| {
        let url = format!("{}{path}", cloud.control_url());
        web.ask(method, url, "", &body.to_string()).await
    };
    let seed = json!({ "bucket": "demo", "prefix": "s/", "count": 2500, "size": 1 });
    assert_eq!(
        control("POST", "/seed", seed).await,
        (200, json!({ "put": 2500 }))
    );
    let mut pages = s3.list_objects_v2().bucket("demo").into_paginator().send();
    let mut keys = 0;
    while let Some(page) = pages.next().await {
        keys += page.unwrap().contents().len();
    }
    assert_eq!(keys, 2500);
    let (_, counts) = control("GET", "/counts", json!({})).await;
    assert_eq!(counts["operations"]["ListObjectsV2"]["requests"], 3);
    let command = json!([{ "fault": { "operation": "*", "action": "drop_before" } }]);
    assert_eq!(control("POST", "/faults", command).await.0, 200);
    assert!(put(&s3, "k", b"1").await.is_err());
    assert_eq!(control("POST", "/faults", json!(["nonsense"])).await.0, 400);
    assert_eq!(control("POST", "/reset", json!({})).await.0, 200);
    assert_eq!(cloud.counts(), Counts::default());
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_that_starts_again_is_the_same_cloud() {
    let Bench { cloud, s3, dir } = bench().await;
    put(&s3, "k", b"kept").await.unwrap();
    let (identity, ca) = (cloud.identity_id(), cloud.ca_file().unwrap().to_owned());
    let ca = std::fs::read(ca).unwrap();
    cloud.stop().await;
    let cloud = Cloud::start(CloudConfig::new(dir.path().to_owned()))
        .await
        .unwrap();
    assert_eq!(cloud.identity_id(), identity);
    assert_eq!(std::fs::read(cloud.ca_file().unwrap()).unwrap(), ca);
    let s3 = client(&cloud, &cloud.issue_keys().unwrap(), cloud.region());
    assert_eq!(read(&s3, "k").await, b"kept");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_that_are_not_honoured_are_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(CloudConfig {
        honours: Honours::no_writes(),
        tls: false,
        ..CloudConfig::new(dir.path().to_owned())
    })
    .await
    .unwrap();
    let s3 = client(&cloud, &cloud.issue_keys().unwrap(), cloud.region());
    put(&s3, "k", b"1").await.unwrap();
    let again = s3.put_object().bucket("demo").key("k").if_none_match("*");
    again
        .body(ByteStream::from_static(b"2"))
        .send()
        .await
        .unwrap();
    assert_eq!(read(&s3, "k").await, b"2");
    cloud.stop().await;
}

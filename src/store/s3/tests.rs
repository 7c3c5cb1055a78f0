//! The adapter against a scripted server: what it sends, what it makes of each answer.

use std::collections::VecDeque;
use std::io;
use std::time::SystemTime;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body_util::BodyExt;
use zeroize::Zeroizing;

mod broken;
mod parsers;
mod region;
mod rooted;

use super::*;
use crate::creds::{CredsError, Lease};
use crate::store::region::Forgetful;

/// An answer to come, or no answer.
type Answer = std::result::Result<http::Response<Bytes>, io::Error>;

#[derive(Clone, Debug, Default)]
struct Server {
    script: Arc<Mutex<VecDeque<Answer>>>,
    requests: Arc<Mutex<Vec<http::Request<Bytes>>>>,
}

impl Server {
    fn answers(&self, status: u16, headers: &[(&str, &[u8])], body: &str) {
        let mut answer = http::Response::builder().status(status);
        for (name, value) in headers {
            answer = answer.header(*name, http::HeaderValue::from_bytes(value).unwrap());
        }
        let length = body.len();
        if !headers.iter().any(|(name, _)| *name == "content-length") {
            answer = answer.header("content-length", length);
        }
        let body = Bytes::copy_from_slice(body.as_bytes());
        self.script.lock().push_back(Ok(answer.body(body).unwrap()));
    }

    fn refuses(&self, status: u16, code: &str) {
        let body = format!("<Error><Code>{code}</Code><Message>said</Message></Error>");
        self.answers(status, &[], &body);
    }

    fn breaks(&self, error: io::Error) {
        self.script.lock().push_back(Err(error));
    }

    fn requests(&self) -> Vec<http::Request<Bytes>> {
        self.requests.lock().clone()
    }

    fn count(&self) -> usize {
        self.requests.lock().len()
    }
}

impl HttpConnector for Server {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let server = self.clone();
        HttpConnectorFuture::new(async move {
            let (parts, body) = request.try_into_http1x().unwrap().into_parts();
            let body = body.collect().await;
            let body = body.map_err(ConnectorError::user)?;
            let request = http::Request::from_parts(parts, body.to_bytes());
            server.requests.lock().push(request);
            let answer = server.script.lock().pop_front().expect("an answer");
            let answer = answer.map_err(|error| ConnectorError::io(error.into()))?;
            Ok(HttpResponse::try_from(answer.map(SdkBody::from)).unwrap())
        })
    }
}

impl HttpClient for Server {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

/// Leases `KEY0`, `KEY1`…: the next one after each refusal of the present one.
#[derive(Debug, Default)]
struct Keys {
    refusals: Mutex<usize>,
    absent: bool,
    /// Each key is another identity's.
    rooted: bool,
}

#[async_trait]
impl Leases for Keys {
    async fn lease(&self) -> std::result::Result<Arc<Lease>, CredsError> {
        if self.absent {
            return Err(CredsError::Silent("Krypton is silent".to_owned()));
        }
        let life = Duration::from_secs(3600);
        let mut lease = Lease::new(
            format!("KEY{}", self.refusals.lock()),
            Zeroizing::new("secret".to_owned()),
            Some(Zeroizing::new("token".to_owned())),
            Duration::ZERO,
            life,
            SystemTime::now() + life,
        );
        lease.identity = self.rooted.then(|| lease.access_key_id.clone());
        Ok(Arc::new(lease))
    }

    fn refused(&self, access_key_id: &str) {
        let mut refusals = self.refusals.lock();
        assert_eq!(access_key_id, format!("KEY{refusals}"), "the key in use");
        *refusals += 1;
    }
}

fn bench() -> (Server, Arc<Keys>, S3Store) {
    bench_with(Keys::default())
}

fn bench_with(keys: Keys) -> (Server, Arc<Keys>, S3Store) {
    let (server, keys) = (Server::default(), Arc::new(keys));
    let config = Config {
        bucket: "bucket".to_owned(),
        region: Some("eu-west-1".to_owned()),
        endpoint_url: None,
        path_style: false,
        is_rooted: keys.rooted,
    };
    let http = SharedHttpClient::new(server.clone());
    let base = aws_config::SdkConfig::builder().build();
    let leases = Arc::clone(&keys) as Arc<dyn Leases>;
    let memory = Arc::<Forgetful>::default();
    let store = S3Store::new(&config, http, &base, leases, memory);
    (server, keys, store)
}

fn key() -> ObjectKey {
    ObjectKey::new("a b")
}

async fn head(store: &S3Store) -> Result<ObjectMeta> {
    store.head(&key(), None).await
}

async fn get(store: &S3Store, range: Option<Range<u64>>) -> Result<Download> {
    store.get(&key(), range, None).await
}

async fn put(store: &S3Store, payload: Payload, when: Precondition) -> Result<ObjectMeta> {
    let headers = Headers::default();
    store.put(&key(), &payload, &headers, &when).await
}

async fn complete(store: &S3Store) -> Result<ObjectMeta> {
    let part = PartDone {
        number: 1,
        etag: ETag::new("part"),
        crc64: None,
        size: Some(7),
    };
    let upload = UploadId("id".into());
    store
        .complete(&key(), &upload, &[part], &Precondition::None)
        .await
}

const TAG: (&str, &[u8]) = ("etag", b"\"tag\"");
const DATE: (&str, &[u8]) = ("date", b"Tue, 14 Nov 2023 22:13:20 GMT");

fn header<'a>(request: &'a http::Request<Bytes>, name: &str) -> &'a str {
    let value = request.headers().get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_request_carries_what_it_must_and_no_more() {
    let (server, _, store) = bench();
    server.answers(200, &[TAG, DATE], "");
    let payload = Payload::of(Bytes::from(vec![7; 600_000]));
    let crc64 = payload.crc64;
    let meta = put(&store, payload, Precondition::IfAbsent).await.unwrap();
    assert_eq!(meta.id.etag, ETag::new("tag"));
    assert_eq!(meta.modified, 1_700_000_000, "the server's time");
    let request = &server.requests()[0];
    assert_eq!(
        request.uri().host(),
        Some("bucket.s3.eu-west-1.amazonaws.com")
    );
    assert_eq!(request.uri().path(), "/a%20b");
    assert_eq!(request.body().len(), 600_000);
    assert_eq!(header(request, "content-length"), "600000");
    assert_eq!(header(request, "if-none-match"), "*");
    assert_eq!(header(request, "x-amz-content-sha256"), "UNSIGNED-PAYLOAD");
    assert_eq!(header(request, "x-amz-security-token"), "token");
    assert_eq!(
        header(request, "x-amz-checksum-crc64nvme"),
        object::crc_header(crc64)
    );
    let agent = concat!("kryptonfs/", env!("CARGO_PKG_VERSION"));
    assert_eq!(header(request, "user-agent"), agent);
    for absent in [
        "x-amz-user-agent",
        "amz-sdk-invocation-id",
        "amz-sdk-request",
        "x-amz-sdk-checksum-algorithm",
        "content-encoding",
        "transfer-encoding",
        "x-amz-trailer",
    ] {
        assert_eq!(header(request, absent), "", "{absent}");
    }
    let signed = header(request, "authorization");
    assert!(signed.contains("Credential=KEY0/"), "{signed}");
    assert!(!signed.contains("user-agent"), "{signed}");
}

#[tokio::test]
async fn a_lease_that_is_over_is_replaced_and_the_request_repeated_once() {
    for code in ["ExpiredToken", "InvalidToken", "TokenRefreshRequired"] {
        let (server, keys, store) = bench();
        server.refuses(400, code);
        server.answers(200, &[TAG, DATE], "");
        let payload = Payload::of(Bytes::from(vec![7; 300_000]));
        put(&store, payload, Precondition::None).await.unwrap();
        assert_eq!(*keys.refusals.lock(), 1);
        let requests = server.requests();
        assert!(header(&requests[1], "authorization").contains("KEY1"));
        assert_eq!(requests[1].body().len(), 300_000, "the whole body again");
        server.refuses(400, code);
        server.refuses(400, code);
        let again = get(&store, None).await.map(|_| ());
        let told = super::words::with_cure(Some(code), format!("{code}: said"));
        assert_eq!(again, Err(StoreError::Credentials(told)));
        assert_eq!(server.count(), 4, "once");
    }
}

#[tokio::test]
async fn a_head_that_is_refused_without_a_word_is_suspect_once_per_lease() {
    for status in [400, 403] {
        let (server, keys, store) = bench();
        server.answers(status, &[], "");
        server.answers(200, &[TAG, DATE], "");
        assert!(head(&store).await.is_ok(), "the lease was the reason");
        assert_eq!(*keys.refusals.lock(), 1);
        // The lease is not the reason: two requests for the first, one for each further.
        for requests in [4, 5, 6] {
            server.answers(status, &[], "");
            if requests == 4 {
                server.answers(status, &[], "");
            }
            let error = head(&store).await.unwrap_err();
            let kind = matches!(error, StoreError::AccessDenied(_) | StoreError::Invalid(_));
            assert!(kind, "{error:?}");
            assert_eq!(server.count(), requests);
        }
        assert_eq!(*keys.refusals.lock(), 2);
    }
}

#[tokio::test]
async fn a_wrong_clock_is_set_by_the_servers_and_the_lease_kept() {
    let (server, keys, store) = bench();
    let skewed = "<Error><Code>RequestTimeTooSkewed</Code></Error>";
    server.answers(403, &[DATE], skewed);
    server.answers(200, &[TAG, DATE], "");
    put(&store, Payload::of("x".into()), Precondition::None)
        .await
        .unwrap();
    assert_eq!(*keys.refusals.lock(), 0);
    let requests = server.requests();
    let signed_at = header(&requests[1], "x-amz-date").to_owned();
    assert!(signed_at.starts_with("20231114T2213"), "{signed_at}");
}

#[tokio::test]
async fn without_a_lease_nothing_is_sent() {
    let (server, _, store) = bench_with(Keys {
        absent: true,
        ..Keys::default()
    });
    let error = StoreError::NoCredentials("Krypton is silent".to_owned());
    assert_eq!(head(&store).await, Err(error.clone()));
    let put = put(&store, Payload::of("x".into()), Precondition::None).await;
    assert_eq!(put, Err(error));
    assert_eq!(server.count(), 0);
}

#[tokio::test]
async fn a_complete_that_fails_behind_its_status_has_failed() {
    let (server, _, store) = bench();
    for (code, error) in [
        ("InternalError", StoreError::Throttled),
        ("SlowDown", StoreError::Throttled),
        ("NoSuchUpload", StoreError::NoSuchUpload),
        ("PreconditionFailed", StoreError::Precondition),
    ] {
        server.refuses(200, code);
        assert_eq!(complete(&store).await, Err(error), "{code}");
    }
    server.refuses(200, "Whatever");
    let error = complete(&store).await.unwrap_err();
    assert!(matches!(error, StoreError::BadAnswer(_)), "{error:?}");
}

#[tokio::test]
async fn a_complete_without_an_etag_is_asked_for_by_head() {
    let (server, _, store) = bench();
    let done = "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>";
    server.answers(200, &[DATE], done);
    server.answers(200, &[TAG, DATE, ("content-length", b"7")], "");
    let meta = complete(&store).await.unwrap();
    assert_eq!((meta.id.etag.as_str(), meta.size), ("tag", 7));
    assert_eq!(server.requests()[1].method(), http::Method::HEAD);
    let done = done.replace("></", "><ETag>&quot;tag-1&quot;</ETag></");
    server.answers(200, &[DATE], &done);
    let meta = complete(&store).await.unwrap();
    assert_eq!((meta.id.etag.as_str(), meta.size), ("tag-1", 7));
    assert_eq!(server.count(), 3, "no further question");
}

#[tokio::test]
async fn each_refusal_is_a_decision() {
    let said = |code: &str| format!("{code}: said");
    let (server, _, store) = bench();
    for (status, code, error) in [
        (404, "NoSuchKey", StoreError::NotFound),
        (404, "NoSuchBucket", StoreError::NoSuchBucket),
        (412, "PreconditionFailed", StoreError::Stale),
        (
            403,
            "AccessDenied",
            StoreError::AccessDenied(said("AccessDenied")),
        ),
        (
            403,
            "SignatureDoesNotMatch",
            StoreError::Credentials(super::words::with_cure(
                Some("SignatureDoesNotMatch"),
                said("SignatureDoesNotMatch"),
            )),
        ),
        (403, "InvalidObjectState", StoreError::Archived),
        (409, "OperationAborted", StoreError::Conflict),
        (
            416,
            "InvalidRange",
            StoreError::Invalid(said("InvalidRange")),
        ),
        (429, "Whatever", StoreError::Throttled),
        (500, "InternalError", StoreError::Throttled),
        (
            501,
            "NotImplemented",
            StoreError::NotImplemented(said("NotImplemented")),
        ),
        (503, "SlowDown", StoreError::Throttled),
        (507, "Whatever", StoreError::Quota(said("Whatever"))),
        (
            400,
            "RequestTimeout",
            StoreError::Link(said("RequestTimeout")),
        ),
    ] {
        server.refuses(status, code);
        let got = get(&store, None).await.map(|_| ());
        assert_eq!(got, Err(error), "{status} {code}");
    }
    for (status, code, error) in [
        (412, "PreconditionFailed", StoreError::Precondition),
        (404, "NoSuchKey", StoreError::Precondition),
        (409, "ConditionalRequestConflict", StoreError::Conflict),
        (400, "BadDigest", StoreError::BadDigest),
        (
            403,
            "QuotaExceeded",
            StoreError::Quota(said("QuotaExceeded")),
        ),
    ] {
        server.refuses(status, code);
        let when = Precondition::IfMatch(ETag::new("tag"));
        let put = put(&store, Payload::of("x".into()), when).await;
        assert_eq!(put, Err(error), "{status} {code}");
    }
    for (status, error) in [(304, StoreError::NotModified), (404, StoreError::NotFound)] {
        server.answers(status, &[], "");
        assert_eq!(head(&store).await, Err(error), "{status}");
    }
}

#[tokio::test]
async fn a_portals_page_is_not_an_answer() {
    let (server, _, store) = bench();
    let bad = |answer: Result<()>| {
        assert!(
            matches!(answer, Err(StoreError::BadAnswer(_))),
            "{answer:?}"
        )
    };
    let page = "<html><body>Please log in</body></html>";
    for _ in 0..4 {
        server.answers(200, &[("content-type", b"text/html")], page);
    }
    bad(get(&store, None).await.map(|_| ()));
    bad(head(&store).await.map(|_| ()));
    bad(put(&store, Payload::of("x".into()), Precondition::None)
        .await
        .map(|_| ()));
    bad(store.list(&ListRequest::default()).await.map(|_| ()));
}

#[tokio::test]
async fn a_link_that_fails_says_why_in_short() {
    let (server, _, store) = bench();
    server.breaks(io::Error::from_raw_os_error(libc::ENETUNREACH));
    let error = head(&store).await;
    let text = io::Error::from_raw_os_error(libc::ENETUNREACH).to_string();
    assert_eq!(error, Err(StoreError::Link(text)));
}

#[tokio::test]
async fn only_the_asked_range_is_taken() {
    let (server, _, store) = bench();
    server.answers(206, &[TAG, ("content-range", b"bytes 2-4/100")], "cde");
    let mut got = get(&store, Some(2..5)).await.unwrap();
    assert_eq!((got.meta.size, got.range), (100, 2..5));
    assert_eq!(got.body.next().await, Some(Ok("cde".into())));
    assert_eq!(got.body.next().await, None);
    assert_eq!(header(&server.requests()[0], "range"), "bytes=2-4");
    // Ignored, shifted, shorter than it says.
    server.answers(200, &[TAG], "abcdefgh");
    server.answers(206, &[TAG, ("content-range", b"bytes 3-5/100")], "def");
    server.answers(206, &[TAG, ("content-range", b"bytes 2-4/100")], "cd");
    for _ in 0..3 {
        let got = get(&store, Some(2..5)).await.map(|_| ());
        assert!(matches!(got, Err(StoreError::BadAnswer(_))), "{got:?}");
    }
    let sent = server.count();
    let got = get(&store, Some(5..5)).await.map(|_| ());
    assert!(matches!(got, Err(StoreError::Invalid(_))), "{got:?}");
    assert_eq!(server.count(), sent, "an empty range cannot be asked for");
}

#[tokio::test]
async fn a_body_shorter_than_announced_is_an_error() {
    let (server, _, store) = bench();
    server.answers(200, &[TAG, ("content-length", b"5")], "abc");
    let mut got = get(&store, None).await.unwrap();
    assert_eq!(got.body.next().await, Some(Ok("abc".into())));
    let end = got.body.next().await;
    assert!(matches!(end, Some(Err(StoreError::Link(_)))), "{end:?}");
    server.answers(200, &[TAG, ("content-length", b"2")], "abc");
    let mut got = get(&store, None).await.unwrap();
    let end = got.body.next().await;
    assert!(
        matches!(end, Some(Err(StoreError::BadAnswer(_)))),
        "{end:?}"
    );
}

#[tokio::test]
async fn a_strangers_metadata_is_read_whatever_its_bytes() {
    let (server, _, store) = bench();
    let headers: &[(&str, &[u8])] = &[
        TAG,
        ("x-amz-meta-latin", b"caf\xe9"),
        ("x-amz-meta-utf", "日本".as_bytes()),
        ("x-amz-storage-class", b"GLACIER_IR"),
        ("x-amz-server-side-encryption", b"aws:kms"),
        ("x-amz-server-side-encryption-aws-kms-key-id", b"id"),
    ];
    server.answers(200, headers, "");
    let headers = head(&store).await.unwrap().headers.unwrap();
    assert_eq!(headers.metadata["latin"], "café");
    assert_eq!(headers.metadata["utf"], "日本");
    assert_eq!(headers.storage_class.as_deref(), Some("GLACIER_IR"));
    let kms = crate::types::Sse::Kms(Some("id".to_owned()));
    assert_eq!(headers.sse, Some(kms));
}

#[tokio::test]
async fn listed_keys_are_decoded_if_encoded_and_counted_if_unreadable() {
    let (server, _, store) = bench();
    let entry = |key: &str| {
        format!("<Contents><Key>{key}</Key><ETag>&quot;e&quot;</ETag><Size>3</Size></Contents>")
    };
    let entries = [entry("a+b%2Bc%E6%97%A5"), entry("broken%FF"), entry("n%0A")].concat();
    let more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t+%</NextContinuationToken>";
    let page = |encoding: &str| {
        format!(
            "<ListBucketResult>{encoding}{more}{entries}<CommonPrefixes><Prefix>d+%2F/</Prefix></CommonPrefixes></ListBucketResult>"
        )
    };
    server.answers(200, &[], &page("<EncodingType>url</EncodingType>"));
    server.answers(200, &[], &page(""));
    let request = ListRequest {
        max_keys: 1000,
        delimited: true,
        ..ListRequest::default()
    };
    let listed = store.list(&request).await.unwrap();
    let keys: Vec<&str> = listed.objects.iter().map(|object| &*object.key).collect();
    assert_eq!(keys, ["a b+c日", "n\n"]);
    assert_eq!(listed.prefixes, ["d //"]);
    assert_eq!(listed.unreadable, 1);
    assert_eq!(listed.next.as_deref(), Some("t+%"));
    let listed = store.list(&request).await.unwrap();
    assert_eq!(listed.objects[0].key, "a+b%2Bc%E6%97%A5", "not encoded");
    assert_eq!(listed.unreadable, 0);
}

#[tokio::test]
async fn a_directory_that_nobody_made_is_listed_without_an_etag_and_a_file_never() {
    let (server, _, store) = bench();
    let page = |entry: &str| format!("<ListBucketResult>{entry}</ListBucketResult>");
    let request = ListRequest {
        max_keys: 1000,
        ..ListRequest::default()
    };
    for rest in [
        "<ETag></ETag><Size>0</Size>",
        "<ETag>&quot;&quot;</ETag>",
        "",
    ] {
        let entry = format!("<Contents><Key>d/</Key>{rest}</Contents>");
        server.answers(200, &[], &page(&entry));
        let listed = store.list(&request).await.unwrap();
        assert_eq!((&*listed.objects[0].key, listed.objects[0].size), ("d/", 0));
    }
    for key in ["<Key>f</Key><Size>0</Size>", "<Key>d/</Key><Size>9</Size>"] {
        server.answers(200, &[], &page(&format!("<Contents>{key}</Contents>")));
        let listed = store.list(&request).await;
        assert!(matches!(listed, Err(StoreError::BadAnswer(_))), "{key}");
    }
}

#[tokio::test]
async fn a_refused_key_of_a_batch_is_named() {
    let (server, _, store) = bench();
    let error = |key: &str, code: &str| {
        format!("<Error><Key>{key}</Key><Code>{code}</Code><Message>said</Message></Error>")
    };
    let errors = [
        error("b", "AccessDenied"),
        error("c", "PreconditionFailed"),
        error("d", "NoSuchKey"),
    ];
    let body = format!("<DeleteResult>{}</DeleteResult>", errors.concat());
    server.answers(204, &[], "");
    server.answers(200, &[], &body);
    let version = |key: &str| (ObjectKey::new(key), Some(ETag::new("e")));
    let any = |key: &str| (ObjectKey::new(key), None);
    let keys = [
        any("a"),
        any("b"),
        version("c"),
        version("d"),
        version("odd\u{1}"),
    ];
    let refused = store.delete_batch(&keys).await.unwrap();
    let denied = StoreError::AccessDenied("AccessDenied: said".to_owned());
    let refusals = [("b", denied), ("c", StoreError::Precondition)];
    assert_eq!(
        refused,
        refusals.map(|(key, error)| (ObjectKey::new(key), error))
    );
    let requests = server.requests();
    assert_eq!(requests[0].uri().path(), "/odd%01", "XML cannot carry it");
    assert_eq!(header(&requests[0], "if-match"), "\"e\"");
    let batch = std::str::from_utf8(requests[1].body()).unwrap();
    let is_named = |text: &str| batch.contains(text);
    assert!(is_named("<Object><Key>a</Key></Object>"), "{batch}");
    assert!(
        is_named("<Key>c</Key><ETag>") && !is_named("odd"),
        "{batch}"
    );
}

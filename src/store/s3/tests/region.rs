//! The region that nobody said.

use super::*;

const TOLD: (&str, &[u8]) = ("x-amz-bucket-region", b"ap-northeast-1");

fn learning(
    endpoint_url: Option<&str>,
    path_style: bool,
    memory: &Arc<Forgetful>,
) -> (Server, S3Store) {
    let (server, keys) = (Server::default(), Arc::<Keys>::default());
    let config = Config {
        bucket: "bucket".to_owned(),
        region: None,
        endpoint_url: endpoint_url.map(str::to_owned),
        path_style,
        is_rooted: false,
    };
    let http = SharedHttpClient::new(server.clone());
    let base = aws_config::SdkConfig::builder().build();
    let memory = Arc::clone(memory) as Arc<dyn RegionMemory>;
    let store = S3Store::new(&config, http, &base, keys, memory);
    (server, store)
}

/// Method, URL and the region of the signature of each request.
fn asked(server: &Server) -> Vec<String> {
    let one = |request: http::Request<Bytes>| {
        let signature = request.headers()["authorization"].to_str().unwrap();
        let region = signature.split('/').nth(2).unwrap().to_owned();
        let url = request.uri().to_string();
        let url = url.split('?').next().unwrap().to_owned();
        format!("{} {url} {region}", request.method())
    };
    server.requests().into_iter().map(one).collect()
}

#[tokio::test]
async fn it_is_asked_for_once_and_what_was_learnt_is_signed_and_dialled() {
    let memory = Arc::<Forgetful>::default();
    let (server, store) = learning(None, false, &memory);
    // However S3 answers: from elsewhere, without the right to list, or gladly.
    server.answers(400, &[TOLD], "");
    server.refuses(404, "NoSuchKey");
    server.refuses(404, "NoSuchKey");
    let both = tokio::join!(get(&store, None), get(&store, None));
    assert!(both.0.is_err() && both.1.is_err());
    let object = "GET https://bucket.s3.ap-northeast-1.amazonaws.com/a%20b ap-northeast-1";
    let question = "HEAD https://bucket.s3.amazonaws.com/ us-east-1";
    assert_eq!(asked(&server), [question, object, object]);
    // Another process with the same memory.
    let (server, store) = learning(None, false, &memory);
    server.refuses(404, "NoSuchKey");
    assert!(get(&store, None).await.is_err());
    assert_eq!(asked(&server), [object]);
}

#[tokio::test]
async fn an_endpoint_is_asked_itself_and_any_answer_will_do() {
    for status in [200, 301, 400, 403] {
        let memory = Arc::<Forgetful>::default();
        let (server, store) = learning(Some("https://vpce.example"), true, &memory);
        server.answers(status, &[TOLD], "");
        server.refuses(404, "NoSuchKey");
        assert!(get(&store, None).await.is_err());
        let asked = asked(&server);
        assert_eq!(asked[0], "HEAD https://vpce.example/bucket/ us-east-1");
        let object = "GET https://vpce.example/bucket/a%20b ap-northeast-1";
        assert_eq!(asked[1..], [object], "{status}");
        assert_eq!(memory.region().as_deref(), Some("ap-northeast-1"));
    }
}

#[tokio::test]
async fn a_server_that_knows_no_regions_is_signed_for_as_if_it_were_in_the_first() {
    let memory = Arc::<Forgetful>::default();
    let (server, store) = learning(Some("https://minio.example"), true, &memory);
    server.answers(403, &[], "");
    server.refuses(404, "NoSuchKey");
    assert!(get(&store, None).await.is_err());
    let object = "GET https://minio.example/bucket/a%20b us-east-1";
    assert_eq!(asked(&server)[1..], [object]);
    assert_eq!(memory.region(), None, "it told nothing");
}

#[tokio::test]
async fn nothing_else_is_sent_until_it_is_known() {
    let memory = Arc::<Forgetful>::default();
    let (server, store) = learning(None, false, &memory);
    server.breaks(io::Error::other("no way"));
    let silent = get(&store, None).await.map(drop).unwrap_err();
    assert!(
        matches!(&silent, StoreError::Link(why) if why.contains("no way") && why.contains("region=NAME")),
        "{silent:?}"
    );
    server.answers(503, &[], "");
    let busy = get(&store, None).await.map(drop).unwrap_err();
    assert_eq!(busy, StoreError::Throttled);
    server.answers(404, &[], "");
    let absent = get(&store, None).await.map(drop).unwrap_err();
    assert_eq!(absent, StoreError::NoSuchBucket);
    server.answers(200, &[], "");
    let mute = get(&store, None).await.map(drop).unwrap_err();
    assert!(matches!(&mute, StoreError::BadAnswer(why) if why.contains("region=NAME")));
    let question = "HEAD https://bucket.s3.amazonaws.com/ us-east-1";
    assert_eq!(asked(&server), [question; 4]);
}

#[tokio::test]
async fn a_bucket_that_was_made_anew_elsewhere_is_followed_once() {
    let memory = Arc::<Forgetful>::default();
    memory.learnt("eu-west-1").await;
    let (server, store) = learning(None, false, &memory);
    server.answers(301, &[TOLD], "");
    server.answers(301, &[("x-amz-bucket-region", b"us-west-2")], "");
    let error = head(&store).await.unwrap_err();
    assert_eq!(error, StoreError::WrongRegion(Some("us-west-2".to_owned())));
    let at = |region: &str| format!("HEAD https://bucket.s3.{region}.amazonaws.com/a%20b {region}");
    assert_eq!(asked(&server), [at("eu-west-1"), at("ap-northeast-1")]);
    assert_eq!(memory.region().as_deref(), Some("ap-northeast-1"));
}

#[tokio::test]
async fn another_region_is_named_if_the_server_names_it() {
    let (server, _, store) = super::bench();
    server.answers(301, &[("x-amz-bucket-region", b"ap-northeast-1")], "");
    let named = StoreError::WrongRegion(Some("ap-northeast-1".to_owned()));
    assert_eq!(head(&store).await, Err(named.clone()));
    let body =
        "<Error><Code>AuthorizationHeaderMalformed</Code><Region>ap-northeast-1</Region></Error>";
    server.answers(400, &[], body);
    assert_eq!(get(&store, None).await.map(|_| ()), Err(named));
    server.refuses(301, "PermanentRedirect");
    let got = get(&store, None).await.map(|_| ());
    assert_eq!(got, Err(StoreError::WrongRegion(None)));
}

use std::net::TcpListener;
use std::time::SystemTime;

use reqwest::header::HeaderMap;
use zeroize::Zeroizing;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::net::stub::{Asked, Stub, reply};
use crate::net::{Config as NetConfig, Net};

const DATE_LINE: &str = "date: Sat, 09 Feb 2019 07:39:14 GMT\r\n";
/// One hour after `DATE_LINE`, in seconds.
const END: i64 = 1_549_701_554;

fn net() -> Net {
    Net::new(&NetConfig {
        interface: Some("lo".to_owned()),
        ..NetConfig::default()
    })
    .unwrap()
}

/// A Krypton at `url` and a clock that says 1970.
fn krypton(url: &str, mode: Mode) -> (Krypton, std::sync::Arc<ManualClock>) {
    let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
    let config = Config {
        krypton_url: url.to_owned(),
        mode,
        cognito_url: Some(url.to_owned()),
        ..Config::default()
    };
    let shared: SharedClock = std::sync::Arc::<ManualClock>::clone(&clock);
    (Krypton::new(&config, &net(), shared).unwrap(), clock)
}

fn credentials(expiration: &str) -> String {
    format!(
        r#"{{"identityId":"ap-northeast-1:0-1","new":[1],"credentials":{{"accessKeyId":"ASIAX",
           "secretKey":"s3cr3t-key","sessionToken":"s3cr3t-token"{expiration}}}}}"#
    )
}

/// What Krypton's answer leads to, and the requests it took.
async fn answered(answer: String) -> (Result<Lease, CredsError>, Vec<Asked>) {
    let stub = Stub::new(move |_, _| answer.clone());
    let (krypton, _) = krypton(&stub.url(), Mode::Auto);
    (krypton.obtain().await, stub.asked())
}

async fn error_of(answer: String) -> CredsError {
    answered(answer).await.0.unwrap_err()
}

#[tokio::test]
async fn the_request_is_an_empty_object_and_holds_nothing_else() {
    let (lease, asked) = answered(reply("200 OK", DATE_LINE, &credentials(""))).await;
    let lease = lease.unwrap();
    assert_eq!(lease.access_key_id, "ASIAX");
    assert_eq!(lease.secret_key.as_str(), "s3cr3t-key");
    assert_eq!(
        lease.session_token.as_ref().unwrap().as_str(),
        "s3cr3t-token"
    );
    assert_eq!(lease.identity.as_deref(), Some("ap-northeast-1:0-1"));
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].line, format!("POST {CREDENTIALS} HTTP/1.1"));
    assert_eq!(asked[0].body, "{}");
    let mut headers = asked[0].headers.clone();
    headers.retain(|header| !header.starts_with("host:"));
    headers.sort();
    assert_eq!(
        headers,
        ["content-length: 2", "content-type: application/json"]
    );
}

#[tokio::test]
async fn every_documented_form_of_the_expiration_is_the_same_hour() {
    for expiration in [
        format!("{END}"),
        format!("{END}.0"),
        format!("{END}000"),
        format!("\"{END}000\""),
        r#""2019-02-09T08:39:14Z""#.to_owned(),
        r#""2019-02-09T08:39:14.701Z""#.to_owned(),
        r#""2019-02-09T17:39:14+09:00""#.to_owned(),
        r#""2019-02-09T17:39:14.701+0900""#.to_owned(),
        r#""2019-02-09T03:09:14-05:30""#.to_owned(),
        r#""2019-02-09T08:39:14""#.to_owned(),
        r#""2019-02-09 08:39:14Z""#.to_owned(),
    ] {
        let body = credentials(&format!(r#","expiration":{expiration}"#));
        let stub = Stub::new(move |_, _| reply("200 OK", DATE_LINE, &body));
        let (krypton, clock) = krypton(&stub.url(), Mode::Credentials);
        let lease = krypton.obtain().await.unwrap();
        clock.advance(Duration::from_secs(3580));
        assert!(lease.holds(clock.boot()), "{expiration}");
        clock.advance(Duration::from_secs(20));
        assert!(!lease.holds(clock.boot()), "{expiration}");
    }
}

#[tokio::test]
async fn a_missing_expiration_or_date_is_a_short_life() {
    let ends = credentials(&format!(r#","expiration":{END}"#));
    for (head, body) in [
        (DATE_LINE, credentials("")),
        (DATE_LINE, credentials(r#","expiration":null"#)),
        ("", ends),
    ] {
        let stub = Stub::new(move |_, _| reply("200 OK", head, &body));
        let (krypton, clock) = krypton(&stub.url(), Mode::Credentials);
        let lease = krypton.obtain().await.unwrap();
        clock.advance(Duration::from_secs(880));
        assert!(lease.holds(clock.boot()));
        clock.advance(Duration::from_secs(20));
        assert!(!lease.holds(clock.boot()));
    }
}

#[tokio::test]
async fn an_absent_session_token_is_fine() {
    let body = r#"{"credentials":{"accessKeyId":"AK","secretKey":"s"}}"#;
    let lease = answered(reply("200 OK", "", body)).await.0.unwrap();
    assert!(lease.session_token.is_none() && lease.identity.is_none());
}

#[tokio::test]
async fn what_is_not_credentials_is_refused_by_saying_what_was_seen_and_no_secret() {
    for (body, seen) in [
        ("", "no content-type, 0 bytes"),
        (
            "<html>\n<title>Log in</title>",
            "<html> <title>Log in</title>",
        ),
        ("{", "1 bytes"),
        ("[]", "readable credentials"),
        (
            r#"{"credentials":null,"secretKey":"s3cr3t"}"#,
            "without credentials",
        ),
        (
            r#"{"credentials":{"secretKey":"s3cr3t"}}"#,
            "without credentials.accessKeyId",
        ),
        (
            r#"{"credentials":{"accessKeyId":"A","secretKey":""}}"#,
            "without credentials.secretKey",
        ),
        (
            r#"{"credentials":{"accessKeyId":"A","secretKey":["s3cr3t"]}}"#,
            "without readable",
        ),
        (
            r#"{"credentials":{"accessKeyId":"A","secretKey":"s3cr3t","expiration":"soon"}}"#,
            "without a readable expiration",
        ),
        (
            r#"{"credentials":{"accessKeyId":"A","secretKey":"s3cr3t","expiration":true}}"#,
            "without a readable expiration",
        ),
    ] {
        let error = error_of(reply("200 OK", DATE_LINE, body)).await;
        let CredsError::Refused(text) = &error else {
            panic!("{body}: {error:?}");
        };
        assert!(text.contains(seen), "{body}: {text}");
        assert!(!text.contains("s3cr3t") && !text.contains('\n'), "{text}");
    }
}

#[tokio::test]
async fn credentials_that_are_over_are_refused() {
    let body = credentials(r#","expiration":1549697954"#);
    let error = error_of(reply("200 OK", DATE_LINE, &body)).await;
    assert!(
        matches!(&error, CredsError::Refused(text) if text.contains("over")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_refusal_is_told_apart_from_a_bad_moment() {
    for (status, refused) in [
        ("400 Bad Request", true),
        ("401 Unauthorized", true),
        ("403 Forbidden", true),
        ("302 Found", true),
        ("408 Request Timeout", false),
        ("429 Too Many Requests", false),
        ("500 Internal Server Error", false),
        ("503 Service Unavailable", false),
    ] {
        let body = r#"{"code":"KRY0001","message":"no such group"}"#;
        let error = error_of(reply(status, "location: http://192.0.2.1/\r\n", body)).await;
        let expected = format!("Krypton answered {}: KRY0001 no such group; ", &status[..3]);
        assert!(error.to_string().starts_with(&expected), "{error}");
        let is_refused = matches!(error, CredsError::Refused(_));
        assert_eq!(is_refused, refused, "{error}");
    }
}

#[tokio::test]
async fn a_raw_error_text_is_shown_in_one_bounded_line_unless_it_may_hold_a_secret() {
    let long = format!("first\r\nsecond\u{1b}[31m {}", "x".repeat(5000));
    let text = error_of(reply("403 Forbidden", "", &long))
        .await
        .to_string();
    assert!(
        text.starts_with("Krypton answered 403: first second [31m xxx"),
        "{text}"
    );
    assert!(text.chars().count() < 500 && !text.contains('\n'), "{text}");

    let text = error_of(reply("500 Oops", "", &credentials("")))
        .await
        .to_string();
    assert!(
        text.starts_with("Krypton answered 500: (not shown); "),
        "{text}"
    );
    let text = error_of(reply("500 Oops", "", "")).await.to_string();
    assert!(
        text.starts_with("Krypton answered 500: (nothing); "),
        "{text}"
    );
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let error = error_of(reply("200 OK", "", &"x".repeat(ANSWER_MAX + 1))).await;
    assert!(
        matches!(&error, CredsError::Refused(text) if text.contains("longer")),
        "{error:?}"
    );
}

#[tokio::test]
async fn nobody_there_is_silence() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (krypton, _) = krypton(&format!("http://{closed}"), Mode::Auto);
    let error = krypton.obtain().await.unwrap_err();
    assert!(
        matches!(&error, CredsError::Silent(text) if text.contains("by lo")),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_silence() {
    let error = error_of("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_owned()).await;
    assert!(matches!(error, CredsError::Silent(_)), "{error:?}");
    let error = error_of(String::new()).await;
    assert!(matches!(error, CredsError::Silent(_)), "{error:?}");
}

#[tokio::test]
async fn plain_http_off_loopback_is_a_refusal() {
    let (krypton, _) = krypton("http://192.0.2.1:8036", Mode::Auto);
    let error = krypton.obtain().await.unwrap_err();
    assert!(
        matches!(&error, CredsError::Refused(text) if text.contains("plain http")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_url_may_have_a_path() {
    let body = credentials("");
    let stub = Stub::new(move |_, _| reply("200 OK", "", &body));
    let (krypton, _) = krypton(&format!("{}/k/", stub.url()), Mode::Auto);
    krypton.obtain().await.unwrap();
    assert_eq!(paths(&stub), [format!("/k{CREDENTIALS}")]);
}

#[test]
fn what_is_no_url_is_refused_at_once() {
    for url in [
        "",
        "krypton.soracom.io:8036",
        "ftp://krypton.soracom.io",
        "https://",
        "https://u:p4ss@h",
    ] {
        let config = Config {
            krypton_url: url.to_owned(),
            ..Config::default()
        };
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
        let error = Krypton::new(&config, &net(), clock).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("krypton_url") && !text.contains("p4ss"),
            "{url}"
        );
    }
}

// The token mode.

const TOKEN: &str =
    r#"{"region":"ap-northeast-1","identityId":"ap-northeast-1:0-1","token":"s3cr3t-jwt"}"#;

fn cognito_answer() -> String {
    let body = format!(
        r#"{{"IdentityId":"ap-northeast-1:0-1","Credentials":{{"AccessKeyId":"ASIAC",
           "SecretKey":"s3cr3t-key","SessionToken":"s3cr3t-token","Expiration":{END}.0}}}}"#
    );
    let head = format!("{DATE_LINE}content-type: application/x-amz-json-1.1\r\n");
    reply("200 OK", &head, &body)
}

fn cognito_error(status: &str, code: &str) -> String {
    let head = "content-type: application/x-amz-json-1.1\r\n";
    reply(
        status,
        head,
        &format!(r#"{{"__type":"{code}","message":"it says no"}}"#),
    )
}

/// Krypton without credentials but with tokens, and a Cognito that answers so.
fn without_credentials(cognito: impl Fn() -> String + Send + Sync + 'static) -> Stub {
    Stub::new(move |_, asked| {
        if asked.line.contains(CREDENTIALS) {
            reply("404 Not Found", "", "")
        } else if asked.line.contains(TOKENS) {
            reply("200 OK", DATE_LINE, TOKEN)
        } else {
            cognito()
        }
    })
}

fn paths(stub: &Stub) -> Vec<String> {
    let path = |asked: Asked| asked.line.split(' ').nth(1).unwrap().to_owned();
    stub.asked().into_iter().map(path).collect()
}

#[tokio::test]
async fn where_krypton_has_no_credentials_a_token_is_changed_at_cognito_unsigned() {
    let stub = without_credentials(cognito_answer);
    let (krypton, clock) = krypton(&stub.url(), Mode::Auto);
    let lease = krypton.obtain().await.unwrap();
    assert_eq!(lease.access_key_id, "ASIAC");
    assert_eq!(
        lease.session_token.as_ref().unwrap().as_str(),
        "s3cr3t-token"
    );
    assert_eq!(lease.identity.as_deref(), Some("ap-northeast-1:0-1"));
    clock.advance(Duration::from_secs(3580));
    assert!(lease.holds(clock.boot()));
    clock.advance(Duration::from_secs(20));
    assert!(!lease.holds(clock.boot()));

    assert_eq!(paths(&stub), [CREDENTIALS, TOKENS, "/"]);
    let asked = stub.asked().pop().unwrap();
    let target = "x-amz-target: awscognitoidentityservice.getcredentialsforidentity";
    assert!(
        asked.headers.iter().any(|header| header == target),
        "{:?}",
        asked.headers
    );
    assert!(
        !asked
            .headers
            .iter()
            .any(|header| header.starts_with("authorization"))
    );
    let body: serde_json::Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(body["IdentityId"], "ap-northeast-1:0-1");
    assert_eq!(
        body["Logins"]["cognito-identity.amazonaws.com"],
        "s3cr3t-jwt"
    );

    krypton.obtain().await.unwrap();
    assert_eq!(
        paths(&stub)[3..],
        [TOKENS, "/"],
        "it need not be learnt twice"
    );
}

#[tokio::test]
async fn each_mode_keeps_to_itself() {
    let stub = without_credentials(cognito_answer);
    let (tokens, _) = krypton(&stub.url(), Mode::Tokens);
    tokens.obtain().await.unwrap();
    assert_eq!(paths(&stub), [TOKENS, "/"]);
    let (credentials, _) = krypton(&stub.url(), Mode::Credentials);
    credentials.obtain().await.unwrap_err();
    assert_eq!(paths(&stub)[2..], [CREDENTIALS]);
}

#[tokio::test]
async fn a_token_that_is_not_accepted_is_replaced_once() {
    let stub = without_credentials(|| cognito_error("400 Bad Request", "NotAuthorizedException"));
    let (krypton, _) = krypton(&stub.url(), Mode::Tokens);
    let error = krypton.obtain().await.unwrap_err();
    let expected = "Cognito: 400 NotAuthorizedException: it says no; the token is not accepted";
    assert!(
        matches!(&error, CredsError::Refused(text) if text.starts_with(expected)),
        "{error}"
    );
    assert_eq!(paths(&stub), [TOKENS, "/", TOKENS, "/"]);
}

#[tokio::test]
async fn what_cognito_says_is_told_apart() {
    for (status, code, refused) in [
        ("400 Bad Request", "ResourceNotFoundException", true),
        (
            "400 Bad Request",
            "InvalidIdentityPoolConfigurationException",
            true,
        ),
        (
            "400 Bad Request",
            "com.amazonaws#SomethingNewException",
            true,
        ),
        ("400 Bad Request", "TooManyRequestsException", false),
        ("400 Bad Request", "ExternalServiceException", false),
        ("500 Oops", "InternalErrorException", false),
        ("503 Oops", "SomethingNewException", false),
    ] {
        let stub = without_credentials(move || cognito_error(status, code));
        let (krypton, _) = krypton(&stub.url(), Mode::Tokens);
        let error = krypton.obtain().await.unwrap_err();
        assert_eq!(
            matches!(error, CredsError::Refused(_)),
            refused,
            "{code}: {error:?}"
        );
        assert_eq!(paths(&stub).len(), 2, "{code}: nothing is retried here");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_cognitos_is_refused_without_its_text() {
    let garbage = || reply("200 OK", "", "s3cr3t garbage");
    let stub = without_credentials(garbage);
    let (krypton, _) = krypton(&stub.url(), Mode::Tokens);
    let error = krypton.obtain().await.unwrap_err();
    assert!(
        matches!(&error, CredsError::Refused(text) if !text.contains("s3cr3t")),
        "{error:?}"
    );
}

#[test]
fn the_region_is_the_one_told_or_that_of_the_identity() {
    let token = |body: &str| {
        read_token(&Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Zeroizing::new(body.as_bytes().to_vec()),
        })
    };
    assert_eq!(
        token(TOKEN).map(|token| token.region).unwrap(),
        "ap-northeast-1"
    );
    let body = r#"{"identityId":"us-west-2:0-1","token":"t"}"#;
    assert_eq!(token(body).map(|token| token.region).unwrap(), "us-west-2");
    for body in [
        "{}",
        r#"{"identityId":"x:1"}"#,
        r#"{"identityId":"x","token":"s3cr3t"}"#,
    ] {
        let error = token(body).map(|token| token.region).unwrap_err();
        assert!(!error.to_string().contains("s3cr3t"));
    }
}

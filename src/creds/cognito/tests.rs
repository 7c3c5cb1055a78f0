//! Cognito is not trusted: whatever it says is a lease or a refusal, in one bounded line.

use std::sync::Arc;
use std::time::SystemTime;

use aws_sdk_cognitoidentity::config::{BehaviorVersion, Region, SharedHttpClient};
use aws_sdk_cognitoidentity::error::BoxError;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::ser_de::{DeserializeResponse, SharedResponseDeserializer};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::RetryConfig;

use super::*;
use crate::clock::ManualClock;
use crate::net::broken::Dice;

const INPUTS: usize = 5_000;
const SEEDS: [&str; 4] = [
    r#"{"IdentityId":"ap-northeast-1:0-1","Credentials":{"AccessKeyId":"ASIAX","SecretKey":"k","SessionToken":"t","Expiration":1549701554.0}}"#,
    r#"{"Credentials":{"AccessKeyId":"ASIAX","SecretKey":"k","Expiration":1.549701554E9}}"#,
    r#"{"__type":"NotAuthorizedException","message":"Invalid login token."}"#,
    r#"{"__type":"com.amazonaws.cognito#LimitExceededException","Message":"no"}"#,
];

/// Status and body.
type Answer = (u16, Vec<u8>);

/// Answers a request with what is in it.
#[derive(Clone, Debug, Default)]
struct Canned(Arc<Mutex<Option<Answer>>>);

impl HttpConnector for Canned {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let (status, body) = self.0.lock().take().expect("one request an answer");
        let answer = http::Response::builder()
            .status(status)
            .header("date", "Sat, 09 Feb 2019 07:39:14 GMT")
            .body(SdkBody::from(body))
            .unwrap();
        HttpConnectorFuture::ready(Ok(HttpResponse::try_from(answer).unwrap()))
    }
}

impl HttpClient for Canned {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

fn token() -> Token {
    Token {
        region: "ap-northeast-1".into(),
        identity: "ap-northeast-1:0-1".into(),
        token: Zeroizing::new("s3cr3t-jwt".into()),
    }
}

fn is_one_line(error: Error) {
    let text = CredsError::from(error).to_string();
    assert!(text.chars().count() < 700, "{text:?}");
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(!text.contains("s3cr3t"), "{text:?}");
}

/// In place of reading one answer, reads a hundred thousand with the same reader and settings.
#[derive(Debug)]
struct Flood;

#[dyn_dispatch_hint]
impl Intercept for Flood {
    fn name(&self) -> &'static str {
        "Flood"
    }

    fn read_before_deserialization(
        &self,
        _: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        settings: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let (token, now) = (token(), SystemTime::UNIX_EPOCH);
        let (mut dice, mut leases) = (Dice(0x5EED_CAFE_F00D_0005), 0);
        for _ in 0..100_000 {
            let status = [200, 200, 200, 400, 403, 429, 500][dice.below(7)];
            let body = SdkBody::from(dice.broken(&SEEDS));
            let answer = http::Response::builder().status(status).body(body)?;
            let answer = HttpResponse::try_from(answer)?;
            match told(answer, settings, &token, now) {
                None => {}
                Some(Ok(_)) => leases += 1,
                Some(Err(error)) => is_one_line(error),
            }
        }
        assert!(leases > 1_000, "only {leases} were read");
        Ok(())
    }
}

/// What becomes of an answer; `None`: it is none of Cognito's.
fn told(
    answer: HttpResponse,
    settings: &ConfigBag,
    token: &Token,
    now: SystemTime,
) -> Option<Result<Lease, Error>> {
    let reader = settings.load::<SharedResponseDeserializer>();
    let reader = reader.expect("a reader of answers");
    match reader.deserialize_nonstreaming_with_config(&answer, settings) {
        Ok(output) => {
            let output = output.downcast::<GetCredentialsForIdentityOutput>();
            let output = output.expect("its answer");
            Some(read(output, token, (None, now), Duration::ZERO))
        }
        Err(error) => {
            let mut said = None;
            let _taken = error.map_operation_error(|error| {
                said = Some(error.downcast::<Said>().expect("its error"));
            });
            let refused = SdkError::service_error(said?, answer);
            Some(Err(refusal(&refused)))
        }
    }
}

fn client(canned: &Canned) -> Client {
    let config = aws_sdk_cognitoidentity::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("ap-northeast-1"))
        .retry_config(RetryConfig::disabled())
        .http_client(SharedHttpClient::new(canned.clone()));
    Client::from_conf(config.build())
}

#[tokio::test]
async fn a_hundred_thousand_broken_answers_of_cognito_are_read_or_refused() {
    let canned = Canned::default();
    *canned.0.lock() = Some((200, SEEDS[0].into()));
    let call = client(&canned).get_credentials_for_identity();
    let call = call.identity_id("ap-northeast-1:0-1").customize();
    let one = call.interceptor(Flood).send().await;
    assert!(one.unwrap().credentials.is_some());
}

#[tokio::test]
async fn whatever_cognito_answers_is_a_lease_or_a_refusal_in_one_line() {
    let canned = Canned::default();
    let client = client(&canned);
    let token = token();
    let clock: SharedClock = ManualClock::at(SystemTime::UNIX_EPOCH);
    let (mut dice, mut leases) = (Dice(0x5EED_CAFE_F00D_0002), 0);
    for _ in 0..INPUTS {
        let status = [200, 200, 200, 400, 403, 429, 500][dice.below(7)];
        *canned.0.lock() = Some((status, dice.broken(&SEEDS)));
        match asked_of(&client, &token, &clock).await {
            Ok(lease) => {
                leases += 1;
                assert!(!lease.access_key_id.is_empty() || status == 200);
            }
            Err(error) => is_one_line(error),
        }
    }
    assert!(leases > INPUTS / 100, "only {leases} were read");
}

//! Cognito is not trusted: whatever it says is a lease or a refusal, in one bounded line.

use std::sync::Arc;
use std::time::SystemTime;

use aws_sdk_cognitoidentity::config::{BehaviorVersion, Region, SharedHttpClient};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
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

#[tokio::test]
async fn whatever_cognito_answers_is_a_lease_or_a_refusal_in_one_line() {
    let canned = Canned::default();
    let config = aws_sdk_cognitoidentity::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("ap-northeast-1"))
        .retry_config(RetryConfig::disabled())
        .http_client(SharedHttpClient::new(canned.clone()));
    let client = Client::from_conf(config.build());
    let token = Token {
        region: "ap-northeast-1".into(),
        identity: "ap-northeast-1:0-1".into(),
        token: Zeroizing::new("s3cr3t-jwt".into()),
    };
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
            Err(error) => {
                let text = CredsError::from(error).to_string();
                assert!(text.chars().count() < 700, "{text:?}");
                assert!(!text.chars().any(char::is_control), "{text:?}");
                assert!(!text.contains("s3cr3t"), "{text:?}");
            }
        }
    }
    assert!(leases > INPUTS / 100, "only {leases} were read");
}

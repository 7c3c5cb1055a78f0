//! SORACOM Krypton, as a device behind its SIM sees it: credentials, or an OpenID token to be
//! exchanged at Cognito, for whoever asks on this line.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use s3s::dto::{Timestamp, TimestampFormat};
use serde_json::{Value, json};

use super::Shared;
use super::answer::{self, Body, BoxError};
use super::faults::Expiration;

const CREDENTIALS: &str = "/v1/provisioning/aws/cognito/credentials";
const TOKENS: &str = "/v1/provisioning/aws/cognito/open_id_tokens";

/// An error, as the sibling APIs of SORACOM write theirs.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    answer::json(status, &json!({ "code": code, "message": message }))
}

/// Answers a request whose body has been read.
pub(super) fn answer(
    shared: &Shared,
    head: &Parts,
    body: &Bytes,
) -> Result<Response<Body>, BoxError> {
    let path = head.uri.path();
    if path != CREDENTIALS && path != TOKENS {
        return Ok(error(StatusCode::NOT_FOUND, "KRY0404", "No such API."));
    }
    if head.method != Method::POST {
        let message = "Only POST is allowed.";
        return Ok(error(StatusCode::METHOD_NOT_ALLOWED, "KRY0405", message));
    }
    if !body.is_empty() && !serde_json::from_slice::<Value>(body).is_ok_and(|v| v.is_object()) {
        let message = "The body is not a JSON object.";
        return Ok(error(StatusCode::BAD_REQUEST, "KRY0400", message));
    }
    let life = shared.faults.lease_life();
    let identity = shared.identity();
    if path == TOKENS {
        let token = shared.keys.issue_token(&identity, life)?;
        let value = json!({ "region": shared.region, "identityId": identity, "token": token });
        return Ok(answer::json(StatusCode::OK, &value));
    }
    let lease = shared.lease(life)?;
    let mut credentials = json!({
        "accessKeyId": lease.access_key_id,
        "secretKey": lease.secret_key,
    });
    if let Some(token) = lease.session_token {
        credentials["sessionToken"] = token.into();
    }
    if let Some(end) = expiration(lease.expires, shared.faults.expiration())? {
        credentials["expiration"] = end;
    }
    let value = json!({
        "region": shared.region,
        "identityId": identity,
        "credentials": credentials,
    });
    Ok(answer::json(StatusCode::OK, &value))
}

fn expiration(end: Option<SystemTime>, form: Expiration) -> Result<Option<Value>, BoxError> {
    let Some(end) = end else {
        return Ok(None);
    };
    let since = end.duration_since(UNIX_EPOCH)?;
    Ok(match form {
        Expiration::EpochMillis => Some(u64::try_from(since.as_millis())?.into()),
        Expiration::EpochSeconds => Some(since.as_secs().into()),
        Expiration::Absent => None,
        Expiration::Iso8601 => {
            let mut text = Vec::new();
            Timestamp::from(end).format(TimestampFormat::DateTime, &mut text)?;
            Some(String::from_utf8(text)?.into())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_end_is_written_in_each_form() {
        let end = Some(UNIX_EPOCH + Duration::from_millis(1_549_701_554_701));
        let form = |form| expiration(end, form).unwrap();
        assert_eq!(
            form(Expiration::EpochMillis),
            Some(json!(1_549_701_554_701_u64))
        );
        assert_eq!(form(Expiration::EpochSeconds), Some(json!(1_549_701_554)));
        assert_eq!(
            form(Expiration::Iso8601),
            Some(json!("2019-02-09T08:39:14.701Z"))
        );
        assert_eq!(form(Expiration::Absent), None);
    }
}

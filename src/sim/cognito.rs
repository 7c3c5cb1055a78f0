//! Amazon Cognito's exchange of an OpenID token for credentials.

use std::time::UNIX_EPOCH;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::Shared;
use super::answer::{self, Body, BoxError};

const TARGET: &str = "AWSCognitoIdentityService.GetCredentialsForIdentity";
const PROVIDER: &str = "cognito-identity.amazonaws.com";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Asked {
    identity_id: String,
    #[serde(default)]
    logins: std::collections::BTreeMap<String, String>,
}

/// An error, as the AWS JSON protocol has it.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let value = json!({ "__type": code, "message": message });
    let mut response = answer::amz_json(status, &value);
    if let Ok(value) = HeaderValue::from_str(&format!("{code}:")) {
        response.headers_mut().insert("x-amzn-errortype", value);
    }
    response
}

fn refused(code: &str, message: &str) -> Result<Response<Body>, BoxError> {
    Ok(error(StatusCode::BAD_REQUEST, code, message))
}

/// Answers a request whose body has been read.
pub(super) fn answer(
    shared: &Shared,
    head: &Parts,
    body: &Bytes,
) -> Result<Response<Body>, BoxError> {
    let target = head.headers.get("x-amz-target");
    if head.method != Method::POST || target.is_none_or(|target| target != TARGET) {
        return refused(
            "UnknownOperationException",
            "Not an operation of this service.",
        );
    }
    let Ok(asked) = serde_json::from_slice::<Asked>(body) else {
        return refused("SerializationException", "The body is not understood.");
    };
    if asked.identity_id != shared.identity() {
        let message = format!("Identity '{}' not found.", asked.identity_id);
        return refused("ResourceNotFoundException", &message);
    }
    let Some(token) = asked.logins.get(PROVIDER) else {
        return refused(
            "NotAuthorizedException",
            "Unauthenticated access is not supported.",
        );
    };
    if !shared.keys.token_holds(token, &asked.identity_id) {
        return refused(
            "NotAuthorizedException",
            "Invalid login token. Token expired.",
        );
    }
    let lease = shared.lease(shared.faults.lease_life())?;
    let mut credentials = json!({
        "AccessKeyId": lease.access_key_id,
        "SecretKey": lease.secret_key,
    });
    if let Some(token) = lease.session_token {
        credentials["SessionToken"] = token.into();
    }
    if let Some(end) = lease.expires {
        // Seconds with a fraction, as a number.
        credentials["Expiration"] = end.duration_since(UNIX_EPOCH)?.as_secs_f64().into();
    }
    let value = json!({ "IdentityId": asked.identity_id, "Credentials": credentials });
    Ok(answer::amz_json(StatusCode::OK, &value))
}

//! Answers that are made here and not by `s3s`.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;

/// Why a connection ends without an answer.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Any body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;

fn whole(status: StatusCode, content_type: &'static str, bytes: Bytes) -> Response<Body> {
    let body = Full::new(bytes).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

/// JSON, as `application/json`.
pub(super) fn json(status: StatusCode, value: &Value) -> Response<Body> {
    whole(status, "application/json", value.to_string().into())
}

/// JSON, as Cognito has it.
pub(super) fn amz_json(status: StatusCode, value: &Value) -> Response<Body> {
    whole(
        status,
        "application/x-amz-json-1.1",
        value.to_string().into(),
    )
}

/// As it is.
pub(super) fn plain(status: StatusCode, body: String) -> Response<Body> {
    whole(status, "application/octet-stream", body.into())
}

/// An error of S3; `more` goes into the document as it is.
pub(super) fn s3_error(
    status: StatusCode,
    code: &str,
    message: &str,
    more: &str,
) -> Response<Body> {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{}</Code><Message>{}</Message>\
         {more}<RequestId>{}</RequestId></Error>",
        escaped(code),
        escaped(message),
        request_id()
    );
    whole(status, "application/xml", text.into())
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;")
}

/// Sixteen signs, as S3 has it. Not unique: nobody looks anything up by it.
pub(super) fn request_id() -> &'static str {
    "5K1M5T1MC10VD000"
}

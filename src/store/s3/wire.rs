//! What is done to each request and answer on its way: who signs, what is left out, what is noted.

use std::fmt;
use std::sync::Arc;

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_s3::config::interceptors::{
    BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextMut,
    BeforeTransmitInterceptorContextRef,
};
use aws_sdk_s3::config::{ConfigBag, Credentials, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use parking_lot::Mutex;

use crate::creds::{CredsError, Leases};

/// Gives the SDK the lease of each request.
#[derive(Debug)]
pub(super) struct Provider(pub(super) Arc<dyn Leases>);

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let lease = self.0.lease().await;
            let lease = lease.map_err(|error| CredentialsError::provider_error(NoLease(error)))?;
            Ok(Credentials::new(
                lease.access_key_id.clone(),
                lease.secret_key.as_str(),
                lease.session_token.as_ref().map(|token| token.to_string()),
                None,
                "kryptonfs",
            ))
        })
    }
}

/// The error that says that nothing was sent for want of a lease.
#[derive(Debug)]
pub(super) struct NoLease(CredsError);

impl fmt::Display for NoLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for NoLease {}

/// Takes off what tells S3 about us and costs 273 bytes a request.
#[derive(Debug)]
pub(super) struct Trim;

impl Intercept for Trim {
    fn name(&self) -> &'static str {
        "Trim"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.request_mut().headers_mut();
        headers.remove("x-amz-user-agent");
        headers.insert(
            "user-agent",
            concat!("kryptonfs/", env!("CARGO_PKG_VERSION")),
        );
        Ok(())
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request_mut();
        let empty = request.body().content_length() == Some(0);
        let sends = matches!(request.method(), "PUT" | "POST");
        // The SDK adds these behind the signature.
        let headers = request.headers_mut();
        headers.remove("amz-sdk-invocation-id");
        headers.remove("amz-sdk-request");
        // HTTP lets it out where there is no body; Ceph refuses a copy without it.
        if empty && sends && headers.get("content-length").is_none() {
            headers.insert("content-length", "0");
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Noted {
    access_key_id: Option<String>,
    date: Option<i64>,
    has_version: bool,
}

/// Notes of one request what the SDK's answer does not carry.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(Arc<Mutex<Noted>>);

impl Seen {
    /// The key the request was signed with.
    pub(super) fn access_key_id(&self) -> Option<String> {
        self.0.lock().access_key_id.clone()
    }

    /// Whether the bucket made a version of it.
    pub(super) fn has_version(&self) -> bool {
        self.0.lock().has_version
    }

    /// The answer's `Date` in seconds since 1970; 0 if there was none.
    pub(super) fn date(&self) -> i64 {
        self.0.lock().date.unwrap_or(0)
    }
}

/// `AWS4-HMAC-SHA256 Credential=KEY/20260101/…`
fn access_key_id(authorization: &str) -> Option<&str> {
    let (_, credential) = authorization.split_once("Credential=")?;
    credential.split('/').next()
}

impl Intercept for Seen {
    fn name(&self) -> &'static str {
        "Seen"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let authorization = context.request().headers().get("authorization");
        let key = authorization.and_then(access_key_id);
        self.0.lock().access_key_id = key.map(str::to_owned);
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.response_mut().headers_mut();
        let date = headers.get("date");
        let date = date.and_then(|text| DateTime::from_str(text, DateTimeFormat::HttpDate).ok());
        let version = headers.get("x-amz-version-id");
        {
            let mut noted = self.0.lock();
            noted.date = date.map(|date| date.secs());
            noted.has_version = version.is_some_and(|version| version != "null");
        }
        // A metadata value in Latin-1 (a stranger's) would make the whole answer unreadable.
        let strange = headers.iter_bytes().filter_map(|(name, value)| {
            let latin = || value.iter().map(|byte| char::from(*byte)).collect();
            std::str::from_utf8(value)
                .is_err()
                .then(|| (name.to_owned(), latin()))
        });
        for (name, value) in strange.collect::<Vec<(String, String)>>() {
            headers.try_insert(name, value)?;
        }
        Ok(())
    }
}

//! Cognito: changes Krypton's OpenID token into credentials (enhanced flow).
//!
//! Invariant: the call is unsigned, as its client is given no credentials; it goes by the same
//! `Net` as everything else.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::timeout::TimeoutConfig;
use aws_sdk_cognitoidentity::Client;
use aws_sdk_cognitoidentity::config::{Builder, Region};
use aws_sdk_cognitoidentity::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_cognitoidentity::operation::get_credentials_for_identity::{
    GetCredentialsForIdentityError as Said, GetCredentialsForIdentityOutput,
};
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::Format;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::answer::Token;
use super::lease::term;
use super::words::{self, shown};
use super::{CredsError, Lease};
use crate::clock::SharedClock;
use crate::net::Net;

const PATIENCE: Duration = Duration::from_secs(60);
/// The name under which Cognito knows its own tokens.
const LOGIN: &str = "cognito-identity.amazonaws.com";

/// Why there are no credentials.
#[derive(Debug)]
pub(super) enum Error {
    /// The token is not accepted: another one may be.
    BadToken(String),
    /// As for the caller.
    Other(CredsError),
}

impl From<Error> for CredsError {
    fn from(error: Error) -> Self {
        match error {
            Error::BadToken(text) => Self::Refused(text),
            Error::Other(error) => error,
        }
    }
}

/// Remembers the `Date` of the answer: the output of the SDK does not hold it.
#[derive(Clone, Debug, Default)]
struct DateSeen(Arc<Mutex<Option<DateTime>>>);

#[dyn_dispatch_hint]
impl Intercept for DateSeen {
    fn name(&self) -> &'static str {
        "DateSeen"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), aws_smithy_runtime_api::box_error::BoxError> {
        let date = context.response().headers().get("date");
        *self.0.lock() = date.and_then(|date| DateTime::from_str(date, Format::HttpDate).ok());
        Ok(())
    }
}

/// Credentials for the token.
pub(super) async fn exchange(
    net: &Net,
    url: Option<&str>,
    token: &Token,
    clock: &SharedClock,
) -> Result<Lease, Error> {
    let patience = TimeoutConfig::builder().operation_timeout(PATIENCE).build();
    let mut config = Builder::from(&net.sdk_config())
        .region(Region::new(token.region.clone()))
        .timeout_config(patience);
    config.set_endpoint_url(url.map(str::to_owned));
    asked_of(&Client::from_conf(config.build()), token, clock).await
}

async fn asked_of(client: &Client, token: &Token, clock: &SharedClock) -> Result<Lease, Error> {
    let seen = DateSeen::default();
    let asked = clock.boot();
    let call = client
        .get_credentials_for_identity()
        .identity_id(&token.identity)
        .logins(LOGIN, token.token.as_str())
        .customize()
        .interceptor(seen.clone());
    let output = call.send().await.map_err(|error| refusal(&error))?;
    let date = seen.0.lock().take();
    read(output, token, (date, clock.wall()), asked)
}

/// The lease that an answer holds, which came with that date when the clock said that it was so late.
fn read(
    output: GetCredentialsForIdentityOutput,
    token: &Token,
    (date, now): (Option<DateTime>, SystemTime),
    asked: Duration,
) -> Result<Lease, Error> {
    let missing = |what: &str| {
        Error::Other(CredsError::Refused(format!(
            "Cognito answered without {what}"
        )))
    };
    let credentials = output.credentials.ok_or_else(|| missing("credentials"))?;
    let (life, end) = term(credentials.expiration, date, now)
        .ok_or_else(|| missing("credentials that still hold"))?;
    let mut lease = Lease::new(
        credentials
            .access_key_id
            .ok_or_else(|| missing("AccessKeyId"))?,
        Zeroizing::new(credentials.secret_key.ok_or_else(|| missing("SecretKey"))?),
        credentials.session_token.map(Zeroizing::new),
        asked,
        life,
        end,
    );
    lease.identity = Some(output.identity_id.unwrap_or_else(|| token.identity.clone()));
    Ok(lease)
}

fn refusal(error: &SdkError<Said, HttpResponse>) -> Error {
    let status = error
        .raw_response()
        .map(|response| response.status().as_u16());
    match error {
        SdkError::TimeoutError(_) => silent("no answer in time".to_owned()),
        SdkError::DispatchFailure(failure) => {
            let text = failure.as_connector_error().map_or_else(
                || "not reached".to_owned(),
                |error| {
                    std::error::Error::source(error)
                        .map_or_else(|| error.to_string(), ToString::to_string)
                },
            );
            if failure.is_user() {
                refused(text)
            } else {
                silent(text)
            }
        }
        SdkError::ServiceError(service) => {
            let said = service.err();
            let status = status.unwrap_or_default();
            let code = said.code().unwrap_or("error");
            let message = shown(said.message().unwrap_or_default().as_bytes());
            let cure = words::cognito(code);
            let code = shown(code.as_bytes());
            let text = format!("{status} {code}: {message}; {cure}");
            match said {
                Said::NotAuthorizedException(_) => Error::BadToken(format!("Cognito: {text}")),
                Said::TooManyRequestsException(_)
                | Said::InternalErrorException(_)
                | Said::ExternalServiceException(_) => silent(text),
                _ if status >= 500 || status == 429 => silent(text),
                _ => refused(text),
            }
        }
        _ => refused(match status {
            Some(status) => format!(
                "an answer that is not Cognito's (status {status}); check cognito_url, and that \
                 nothing on the way answers in its place"
            ),
            None => "the request could not be made; check region and cognito_url".to_owned(),
        }),
    }
}

fn silent(text: String) -> Error {
    Error::Other(CredsError::Silent(format!("Cognito: {text}")))
}

fn refused(text: String) -> Error {
    Error::Other(CredsError::Refused(format!("Cognito: {text}")))
}

#[cfg(test)]
mod tests;

//! What the AWS SDK gets from us: its HTTP client, and a base configuration built by hand.
//!
//! Invariants: nothing is read from the environment or from a profile (the SDK's default client
//! would take proxies from the environment, its loader everything else); there are no credentials
//! in it, so that a client must be given its provider explicitly; timeouts and retries are the
//! caller's, who alone knows how long a part may take.

use std::error::Error;

use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use hyper_util::client::legacy::Client;

use super::dial::{Trouble, trouble};
use super::time::Time;
use super::tls::Connector;

/// Our client behind the SDK's traits.
#[derive(Clone, Debug)]
struct Http {
    client: Client<Connector, SdkBody>,
    time: Time,
}

/// The client, with one pool for all who share it.
pub(super) fn http_client(connector: &Connector, time: Time) -> SharedHttpClient {
    SharedHttpClient::new(Http {
        client: connector.client(),
        time,
    })
}

impl HttpClient for Http {
    /// The settings hold the caller's connect and read timeouts. The first is `Net`'s business; the
    /// second would cover the sending of a body too and kill healthy uploads on a slow link.
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Http {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Self { client, time } = self.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(user)?;
            let uri = request.uri().clone();
            let response = client
                .request(request)
                .await
                .map_err(|error| connector_error(&error))?;
            time.hear(&uri, response.headers());
            HttpResponse::try_from(response.map(SdkBody::from_body_1_x)).map_err(other)
        })
    }
}

fn user(error: impl Error + Send + Sync + 'static) -> ConnectorError {
    ConnectorError::user(Box::new(error))
}

fn other(error: impl Error + Send + Sync + 'static) -> ConnectorError {
    ConnectorError::other(Box::new(error), None)
}

/// A rule of ours is the user's (`is_user`, never to be retried), the link is `is_io` or
/// `is_timeout`; the text is one line that says where it was going and by what.
fn connector_error(error: &hyper_util::client::legacy::Error) -> ConnectorError {
    let (kind, text) = trouble(error);
    let converted = match kind {
        Trouble::Forbidden => ConnectorError::user(text.into()),
        Trouble::TimedOut => ConnectorError::timeout(text.into()),
        Trouble::Link => ConnectorError::io(text.into()),
        Trouble::Protocol => ConnectorError::other(text.into(), None),
    };
    if error.is_connect() {
        return converted.never_connected();
    }
    converted
}

/// The base of every SDK client of ours.
pub(super) fn config(http: SharedHttpClient, time: Time) -> SdkConfig {
    SdkConfig::builder()
        // Pinned: a newer behaviour comes with a release of ours, not with a `cargo update`.
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .sleep_impl(TokioSleep::new())
        .time_source(time)
        // A cached identity outlives an `ExpiredToken` and cannot be invalidated; `creds` keeps its own.
        .identity_cache(IdentityCache::no_cache())
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::disabled())
        // It wants 1 B/s in each second or so, sees frames and not acknowledged bytes, and killed a
        // healthy 128 kbit/s upload after 7 s. TCP_USER_TIMEOUT and the callers' progress deadlines
        // do what it is for.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build()
}

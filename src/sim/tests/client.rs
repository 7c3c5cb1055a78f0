//! The real SDK on a plain hyper client, and JSON for the rest.

use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, StalledStreamProtectionConfig};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http_body_util::BodyExt as _;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector as Tcp;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;

use super::super::{Cloud, CloudConfig, FixedKeys};

type Hyper = hyper_util::client::legacy::Client<HttpsConnector<Tcp>, SdkBody>;

/// The SDK's way to the network: a plain hyper client.
#[derive(Clone, Debug)]
pub(super) struct Web(Hyper);

impl Web {
    pub(super) fn to(cloud: &Cloud) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        if let Some(file) = cloud.ca_file() {
            roots
                .add(CertificateDer::from_pem_file(file).unwrap())
                .unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        Self(hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(https))
    }

    /// Status and JSON of an answer.
    pub(super) async fn ask(
        &self,
        method: &str,
        url: String,
        target: &str,
        body: &str,
    ) -> (u16, Value) {
        let request = http::Request::builder()
            .method(method)
            .uri(url)
            .header("x-amz-target", target)
            .body(SdkBody::from(body));
        let response = self.0.request(request.unwrap()).await.unwrap();
        let status = response.status().as_u16();
        assert!(response.headers().contains_key("date"));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    pub(super) async fn krypton(&self, cloud: &Cloud, what: &str) -> (u16, Value) {
        let url = format!("{}/v1/provisioning/aws/cognito/{what}", cloud.krypton_url());
        self.ask("POST", url, "", "").await
    }
}

impl HttpConnector for Web {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x();
            let request = request.map_err(|error| ConnectorError::user(error.into()))?;
            let response = client.request(request).await;
            let response = response.map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(response.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

impl HttpClient for Web {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

pub(super) fn client(cloud: &Cloud, keys: &FixedKeys, region: &str) -> Client {
    let credentials = Credentials::new(
        &keys.access_key_id,
        &keys.secret_key,
        keys.session_token.clone(),
        None,
        "test",
    );
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(region.to_owned()))
        .endpoint_url(cloud.s3_url())
        .credentials_provider(credentials)
        .force_path_style(true)
        .http_client(Web::to(cloud))
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build();
    Client::from_conf(config)
}

pub(super) struct Bench {
    pub(super) dir: tempfile::TempDir,
    pub(super) cloud: Cloud,
    pub(super) s3: Client,
}

pub(super) async fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(CloudConfig::new(dir.path().to_owned()))
        .await
        .unwrap();
    let s3 = client(&cloud, &cloud.issue_keys().unwrap(), cloud.region());
    Bench { dir, cloud, s3 }
}

/// Status and code of a refusal.
pub(super) fn refusal<T: std::fmt::Debug, E: ProvideErrorMetadata + std::fmt::Debug>(
    result: Result<T, SdkError<E, HttpResponse>>,
) -> (u16, String) {
    let error = result.unwrap_err();
    let status = error.raw_response().map_or(0, |raw| raw.status().as_u16());
    let code = error
        .as_service_error()
        .and_then(ProvideErrorMetadata::code);
    (status, code.unwrap_or_default().to_owned())
}

pub(super) async fn put(s3: &Client, key: &str, bytes: &[u8]) -> Result<String, (u16, String)> {
    let body = ByteStream::from(bytes.to_vec());
    let sent = s3
        .put_object()
        .bucket("demo")
        .key(key)
        .body(body)
        .send()
        .await;
    match sent {
        Ok(output) => Ok(output.e_tag.unwrap()),
        Err(error) => Err(refusal(Err::<(), _>(error))),
    }
}

pub(super) async fn read(s3: &Client, key: &str) -> Vec<u8> {
    let got = s3
        .get_object()
        .bucket("demo")
        .key(key)
        .send()
        .await
        .unwrap();
    got.body.collect().await.unwrap().to_vec()
}

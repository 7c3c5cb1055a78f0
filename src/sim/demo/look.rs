//! A look at the bucket by somebody who does not know the mount: one signed GET on a connection of
//! its own, with keys of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_s3::config::{BehaviorVersion, Region};
use aws_sdk_s3::presigning::PresigningConfig;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Failed;
use crate::sim::{Cloud, FixedKeys};

/// The most that is read of an object.
const MAX_BODY: usize = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// An object, as S3 told it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) etag: String,
    pub(super) content_type: String,
    /// User metadata.
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) body: Bytes,
}

/// The client beside the mount.
#[derive(Debug)]
pub(super) struct Onlooker {
    s3: aws_sdk_s3::Client,
    address: String,
    tls: Arc<ClientConfig>,
}

impl Onlooker {
    pub(super) fn new(cloud: &Cloud) -> Result<Self, Failed> {
        let FixedKeys {
            access_key_id,
            secret_key,
            session_token,
        } = cloud.issue_keys()?;
        let keys = Credentials::new(access_key_id, secret_key, session_token, None, "demo");
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(cloud.region().to_owned()))
            .endpoint_url(cloud.s3_url())
            .force_path_style(true)
            .credentials_provider(keys)
            .build();
        let address = cloud.s3_url().trim_start_matches("https://");
        let mut roots = RootCertStore::empty();
        let ca_file = cloud.ca_file().ok_or("the cloud has no certificate")?;
        for certificate in CertificateDer::pem_file_iter(ca_file).map_err(Failed::because)? {
            let certificate = certificate.map_err(Failed::because)?;
            roots.add(certificate).map_err(Failed::because)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Failed::because)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            s3: aws_sdk_s3::Client::from_conf(config),
            address: address.trim_end_matches('/').to_owned(),
            tls: Arc::new(tls),
        })
    }

    /// GETs an object.
    pub(super) async fn look(&self, bucket: &str, key: &str) -> Result<Seen, Failed> {
        let soon = PresigningConfig::expires_in(PATIENCE).map_err(Failed::because)?;
        let signed = self.s3.get_object().bucket(bucket).key(key);
        let signed = signed.presigned(soon).await.map_err(Failed::because)?;
        let fetch = self.fetch(signed.uri(), key);
        tokio::time::timeout(PATIENCE, fetch)
            .await
            .map_err(|_| Failed::because("S3 did not answer"))?
    }

    async fn fetch(&self, url: &str, key: &str) -> Result<Seen, Failed> {
        let (_, path) = url
            .split_once(&self.address)
            .ok_or("the signed URL names another host")?;
        let tcp = TcpStream::connect(&self.address).await?;
        let host = self.address.rsplit_once(':').map_or("", |(host, _)| host);
        let name = ServerName::try_from(host.to_owned()).map_err(Failed::because)?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = TokioIo::new(connector.connect(name, tcp).await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
            .await
            .map_err(Failed::because)?;
        let connection = tokio::spawn(connection);
        let request = Request::get(path)
            .header(header::HOST, &self.address)
            .body(Empty::<Bytes>::new())
            .map_err(Failed::because)?;
        let response = sender
            .send_request(request)
            .await
            .map_err(Failed::because)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await;
        connection.abort();
        let body = body.map_err(Failed::because)?.to_bytes();
        if !head.status.is_success() {
            return Err(Failed::because(format!(
                "S3 answered {} for {key}",
                head.status
            )));
        }
        let text = |name: &str| {
            let value = head.headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let metadata = head.headers.iter().filter_map(|(name, value)| {
            let name = name.as_str().strip_prefix("x-amz-meta-")?;
            Some((name.to_owned(), value.to_str().ok()?.to_owned()))
        });
        Ok(Seen {
            etag: text("etag"),
            content_type: text("content-type"),
            metadata: metadata.collect(),
            body,
        })
    }
}

//! TLS for everything: rustls on ring, HTTP/1.1 only, one `ClientConfig` shared, so that a second
//! connection resumes the session of the first and saves the certificates (some 4 KB down).
//!
//! Invariant: trust is either the system's bundle or exactly `ca_file`, never both, and never what
//! an environment variable names: so the bundle is looked for here, not by a library.
//!
//! Certificates are checked against the believed time (`time`). Where that cannot be relied on, or a
//! certificate seems to be of another time, a time server is asked, and then it is tried once more.
//! A wrong certificate is not told apart from a link that is down: until the time is known, every
//! certificate may be wrong for a while.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tower_service::Service;

use super::NetError;
use super::dial::{BoxError, DialError, Dialer, Dialling};
use super::quiet::Quiet;
use super::time::Time;

/// A warm connection costs nothing to keep and some 7 KB to make again.
const POOL_IDLE: Duration = Duration::from_secs(60);
const POOL_MAX_IDLE: usize = 16;
/// How much longer than the connect itself the handshake may take: some 7 KB at 32 kbit/s.
const HANDSHAKE: Duration = Duration::from_secs(20);

/// Where distributions keep their bundle.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The client side of TLS.
pub(super) fn client_config(
    ca_file: Option<&Path>,
    time: &Time,
) -> Result<Arc<ClientConfig>, NetError> {
    let roots = match ca_file {
        Some(path) => only(path)?,
        None => native(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(time.clone()))
        .with_safe_default_protocol_versions()
        .map_err(|error| NetError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn only(path: &Path) -> Result<RootCertStore, NetError> {
    let wrong = |why: String| NetError::CaFile(path.to_owned(), why);
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("no certificate in it".to_owned()));
    }
    Ok(roots)
}

/// The system's roots. None at all is no error here: a mount on loopback needs none, and every
/// handshake will name the unknown issuer.
fn native() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let bundle = BUNDLES
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file());
    if let Some(bundle) = bundle {
        match CertificateDer::pem_file_iter(&bundle) {
            // One that cannot be read or used does not keep the others out.
            Ok(certificates) => {
                roots.add_parsable_certificates(certificates.filter_map(Result::ok));
            }
            Err(error) => tracing::warn!("CA certificates of {}: {error}", bundle.display()),
        }
    }
    if roots.is_empty() {
        tracing::warn!("no CA certificates found: install ca-certificates or say ca_file=");
    }
    roots
}

/// Dials and, for https, shakes hands; both inside a deadline.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    https: HttpsConnector<Dialer>,
    dialer: Dialer,
    deadline: Duration,
}

impl Connector {
    pub(super) fn new(dialer: Dialer, tls: Arc<ClientConfig>) -> Self {
        Self {
            deadline: dialer.connect_timeout() + HANDSHAKE,
            https: HttpsConnector::from((dialer.clone(), tls)),
            dialer,
        }
    }

    /// What dials for it.
    pub(super) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// A client with a pool of its own over this connector.
    pub(super) fn client<B>(&self) -> Client<Self, B>
    where
        B: http_body::Body + Send,
        B::Data: Send,
    {
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_MAX_IDLE)
            .build(self.clone())
    }
}

impl Service<Uri> for Connector {
    type Response = Connected;
    type Error = BoxError;
    type Future = Dialling<Self::Response, BoxError>;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), BoxError>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let mut this = self.clone();
        Box::pin(async move {
            let tls = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
            if tls && !this.dialer.knows_the_time() {
                // Whatever comes of it: the certificate decides.
                this.dialer.learn_the_time().await;
            }
            match this.connected(uri.clone()).await {
                Err(error) if is_about_time(&*error) && this.dialer.learn_the_time().await => {
                    this.connected(uri).await
                }
                done => done,
            }
        })
    }
}

pub(super) type Connected = Quiet<<HttpsConnector<Dialer> as Service<Uri>>::Response>;

impl Connector {
    async fn connected(&mut self, uri: Uri) -> Result<Connected, BoxError> {
        let host = uri.host().unwrap_or_default().to_owned();
        let connecting = tokio::time::timeout(self.deadline, self.https.call(uri));
        let Ok(connected) = connecting.await else {
            let why = format!("{host}: no TLS handshake in time");
            return Err(DialError::TimedOut(why).into());
        };
        connected.map(Quiet)
    }
}

/// Whether a certificate was refused for its dates.
fn is_about_time(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(rustls::Error::InvalidCertificate(why)) = cause.downcast_ref() {
            return matches!(
                why,
                CertificateError::Expired
                    | CertificateError::ExpiredContext { .. }
                    | CertificateError::NotValidYet
                    | CertificateError::NotValidYetContext { .. }
            );
        }
        // An io::Error hides what it holds from `source`.
        let held = cause.downcast_ref().and_then(io::Error::get_ref);
        next = held.map_or_else(
            || cause.source(),
            |held| Some(held as &(dyn Error + 'static)),
        );
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::believed::Believed;

    fn time() -> Time {
        Time(Believed::of_process())
    }

    #[test]
    fn a_ca_file_that_is_absent_or_empty_or_no_certificate_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        for content in [
            None,
            Some(""),
            Some("hello"),
            Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ] {
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let error = client_config(Some(&path), &time()).unwrap_err().to_string();
            assert!(error.contains("ca.pem"), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[tokio::test]
    async fn a_server_that_never_shakes_hands_is_given_up() {
        // The kernel accepts for it, and nobody says anything.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let dialer = Dialer::new(crate::net::dial::tests::way("lo"));
        let mut connector = Connector::new(dialer, client_config(None, &time()).unwrap());
        connector.deadline = Duration::from_millis(50);
        let uri = format!("https://{}", listener.local_addr().unwrap());
        let error = connector.call(uri.parse().unwrap()).await.err().unwrap();
        let error = error.downcast_ref::<DialError>();
        assert!(matches!(error, Some(DialError::TimedOut(_))), "{error:?}");
    }

    #[test]
    fn only_http_1_1_is_offered() {
        let config = client_config(None, &time()).unwrap();
        assert_eq!(config.alpn_protocols, [b"http/1.1"]);
    }
}

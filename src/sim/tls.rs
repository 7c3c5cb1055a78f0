//! The simulation's own certificate authority, and the certificate of its listeners.
//!
//! Invariant: made once for a directory, so that a client that trusts `ca.pem` still does after a
//! restart.

use std::fs::{File, OpenOptions};
use std::io;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// What the listeners speak, and the file to trust.
pub(super) struct Tls {
    pub(super) acceptor: TlsAcceptor,
    pub(super) ca_file: PathBuf,
}

/// The certificate in `dir`, made if there is none, for loopback and `names`.
pub(super) fn prepare(dir: &Path, names: &[String]) -> io::Result<Tls> {
    let ca_file = dir.join("ca.pem");
    let (certificate, key) = (dir.join("server.pem"), dir.join("server.key"));
    if ![&ca_file, &certificate, &key]
        .iter()
        .all(|file| file.exists())
    {
        let made = make(names).map_err(io::Error::other)?;
        std::fs::write(&ca_file, made.ca)?;
        std::fs::write(&certificate, made.certificate)?;
        private(&key)?.write_all(made.key.as_bytes())?;
    }
    let chain = CertificateDer::pem_file_iter(&certificate).map_err(io::Error::other)?;
    let chain = chain
        .collect::<Result<Vec<_>, _>>()
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(&key).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Tls {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        ca_file,
    })
}

fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}

struct Made {
    ca: String,
    certificate: String,
    key: String,
}

fn make(names: &[String]) -> Result<Made, rcgen::Error> {
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let name = "kryptonfs simulated cloud";
    ca.distinguished_name.push(DnType::CommonName, name);
    let ca_key = KeyPair::generate()?;
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);
    let loopback = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let names: Vec<_> = loopback.iter().chain(names).cloned().collect();
    let mut server = CertificateParams::new(names)?;
    server
        .distinguished_name
        .push(DnType::CommonName, "localhost");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &issuer)?;
    Ok(Made {
        ca: ca_certificate.pem(),
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

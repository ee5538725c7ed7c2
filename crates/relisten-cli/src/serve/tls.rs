//! TLS: the certificate and its key, read once at start, so that a new certificate is a reload, and a broken one
//! a reload that is rolled back.

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

/// Why TLS can't be served.
#[derive(Debug, Error)]
pub(super) enum TlsError {
    #[error("the certificate '{}' can't be read", .0.display())]
    Certificate(PathBuf, #[source] pem::Error),
    #[error("'{}' holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)", .0.display())]
    NoCertificate(PathBuf),
    #[error("the private key '{}' can't be read", .0.display())]
    Key(PathBuf, #[source] pem::Error),
    #[error("the certificate '{}' and the private key '{}' can't be used together", cert.display(), key.display())]
    Unusable { cert: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("TLS can't be set up")]
    Setup(#[source] rustls::Error),
}

/// Reads both files and checks that they belong together.
pub(super) fn load(cert: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let cert_error = |error| TlsError::Certificate(cert.to_owned(), error);
    let chain: Vec<_> = CertificateDer::pem_file_iter(cert)
        .map_err(cert_error)?
        .collect::<Result<_, _>>()
        .map_err(cert_error)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(cert.to_owned()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::Key(key.to_owned(), error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|source| TlsError::Unusable { cert: cert.to_owned(), key: key.to_owned(), source })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

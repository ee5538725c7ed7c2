//! TLS as a client that comes for the first time: each connection makes a whole handshake.

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Which certificates of a server are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those that this machine trusts: of `SSL_CERT_FILE` and `SSL_CERT_DIR`, else of the distribution's store.
    #[default]
    System,
    /// Those signed by a certificate in this file, PEM. A certificate that signed itself is taken, too, unless it
    /// says that it is an authority's.
    File(PathBuf),
    /// Any, whatever name it is for: anybody could be in between.
    Anyone,
}

/// Why TLS can't be spoken.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The target's host is neither a name nor an address.
    #[error("'{0}' is not a name that a certificate could be for")]
    Name(String),
    /// The file of trusted certificates can't be read.
    #[error("the trusted certificates can't be read from '{}'", .0.display())]
    File(PathBuf, #[source] pem::Error),
    /// There is none in it, or none that is a certificate.
    #[error("'{}' holds no usable certificate in PEM form (-----BEGIN CERTIFICATE-----)", .0.display())]
    NoCertificate(PathBuf),
    /// This machine has no store, or an empty one.
    #[error("this machine trusts no certificate (Debian package ca-certificates)")]
    NoStore,
    /// Something else about TLS.
    #[error("TLS can't be set up")]
    Setup(#[source] rustls::Error),
}

/// What makes TLS of a connection.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    /// `server`: the name, or address, that the certificate must be for.
    pub(super) fn new(server: &str, trust: &Trust) -> Result<Tls, TlsError> {
        let name = ServerName::try_from(server.to_owned()).map_err(|_| TlsError::Name(server.to_owned()))?;
        // The one that the built-in worker uses.
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?;
        let config = match trust {
            Trust::System => config.with_root_certificates(system()?),
            Trust::File(file) => config.with_root_certificates(from_file(file)?),
            Trust::Anyone => {
                config.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            }
        };
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Every connection is a client of its own, and sees the certificate that is served now.
        config.resumption = Resumption::disabled();
        Ok(Tls { connector: TlsConnector::from(Arc::new(config)), name })
    }

    pub(super) async fn handshake(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.name.clone(), stream).await
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What TLS says about an error, if it was TLS that failed and not the connection.
pub(super) fn cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Whether the server shows a certificate that may only sign others, as `openssl req -x509` makes them when nothing
/// else is asked for. rustls has no word of its own for it.
pub(super) fn is_authority(cause: &rustls::Error) -> bool {
    matches!(cause, rustls::Error::InvalidCertificate(CertificateError::Other(other))
        if format!("{other:?}").contains("CaUsedAsEndEntity"))
}

fn system() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // Single ones that are of no use are no reason to do without the others.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsError::NoStore) } else { Ok(roots) }
}

fn from_file(file: &Path) -> Result<RootCertStore, TlsError> {
    let error = |error| TlsError::File(file.to_owned(), error);
    let certificates =
        CertificateDer::pem_file_iter(file).map_err(error)?.collect::<Result<Vec<_>, _>>().map_err(error)?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() { Err(TlsError::NoCertificate(file.to_owned())) } else { Ok(roots) }
}

/// Takes any certificate. That the server has its key is checked all the same.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

//! The TLS of a rendezvous: a certificate of the operator, or one of our own that is kept in the state folder.
//!
//! Agents pin the key of the rendezvous, not its certificate. A certificate of our own only has to have the form of one.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use overlay_os::folder::Folder;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::failure::{Kind, ServeError};
use crate::state::{read, temporary};

const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "certificate.key";

/// The operator's certificate: a PEM file with the chain, and one with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the own certificate first.
    pub chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// A certificate with its chain, and its key, as PEM.
struct Pair {
    chain: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

/// Refuses files that are not usable. Writes nothing: a certificate of our own that is missing is not made.
pub(crate) fn check(files: Option<&CertificateFiles>, folder: &Folder) -> Result<(), ServeError> {
    let pair = match files {
        Some(files) => Some(given(files)?),
        None => kept(folder)?,
    };
    pair.map_or(Ok(()), |pair| usable(&pair, files, folder).map(drop))
}

/// Makes what accepts TLS connections.
pub(crate) fn acceptor(
    files: Option<&CertificateFiles>,
    folder: &Folder,
    listen: SocketAddr,
) -> Result<TlsAcceptor, ServeError> {
    let pair = match (files, kept(folder)?) {
        (Some(files), _) => given(files)?,
        (None, Some(kept)) => kept,
        (None, None) => make(folder, listen)?,
    };
    Ok(TlsAcceptor::from(Arc::new(usable(&pair, files, folder)?)))
}

/// The certificate of the operator.
fn given(files: &CertificateFiles) -> Result<Pair, ServeError> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| ServeError::of_file("read", path, &error));
    Ok(Pair { chain: read(&files.chain)?, key: Zeroizing::new(read(&files.key)?) })
}

/// Our own certificate. `None`: it was not made yet.
fn kept(folder: &Folder) -> Result<Option<Pair>, ServeError> {
    let (chain, key) = (read(folder, CERTIFICATE)?, read(folder, KEY)?);
    Ok(chain.zip(key).map(|(chain, key)| Pair { chain: chain.to_vec(), key }))
}

/// Makes a certificate of our own.
fn make(folder: &Folder, listen: SocketAddr) -> Result<Pair, ServeError> {
    let made = rcgen::generate_simple_self_signed([listen.ip().to_string(), "localhost".to_owned()])
        .map_err(|error| ServeError::new(Kind::Other, "cannot make a certificate").with_cause(error))?;
    let (chain, key) = (made.cert.pem().into_bytes(), Zeroizing::new(made.signing_key.serialize_pem().into_bytes()));
    for (name, content) in [(KEY, &key[..]), (CERTIFICATE, &chain[..])] {
        folder
            .replace(OsStr::new(name), &temporary(name), content, 0o600)
            .map_err(|error| ServeError::of_file("write", &folder.path_of(name), &error))?;
    }
    Ok(Pair { chain, key })
}

fn usable(pair: &Pair, files: Option<&CertificateFiles>, folder: &Folder) -> Result<ServerConfig, ServeError> {
    config(&pair.chain, &pair.key).map_err(|cause| {
        let path = files.map_or_else(|| folder.path_of(CERTIFICATE), |files| files.chain.clone());
        let failure = ServeError::new(Kind::Other, format!("`{}` and its key are not usable for TLS", path.display()));
        let failure = failure.with_cause(cause);
        match files {
            Some(_) => failure.with_hint("both files are PEM, and the certificate of this host comes first"),
            None => failure.with_hint(format!(
                "rm {} {}, and a new certificate is made; agents do not notice",
                path.display(),
                folder.path_of(KEY).display()
            )),
        }
    })
}

fn config(chain: &[u8], key: &[u8]) -> Result<ServerConfig, String> {
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("the certificate cannot be read: {error}"))?;
    if chain.is_empty() {
        return Err("the file holds no certificate".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the key cannot be read: {error}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

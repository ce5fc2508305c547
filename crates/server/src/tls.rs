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
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The chain, the own certificate first.
    pub chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Makes what accepts TLS connections.
pub(crate) fn acceptor(
    files: Option<&CertificateFiles>,
    folder: &Folder,
    listen: SocketAddr,
) -> Result<TlsAcceptor, ServeError> {
    let (chain, key, path) = match files {
        Some(files) => {
            let read = |path: &Path| std::fs::read(path).map_err(|error| ServeError::of_file("read", path, &error));
            (read(&files.chain)?, Zeroizing::new(read(&files.key)?), files.chain.clone())
        }
        None => {
            let (chain, key) = own(folder, listen)?;
            (chain, key, folder.path_of(CERTIFICATE))
        }
    };
    config(&chain, &key).map(|config| TlsAcceptor::from(Arc::new(config))).map_err(|cause| {
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

/// Our own certificate, which is made if it is missing.
fn own(folder: &Folder, listen: SocketAddr) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), ServeError> {
    if let (Some(chain), Some(key)) = (read(folder, CERTIFICATE)?, read(folder, KEY)?) {
        return Ok((chain.to_vec(), key));
    }
    let made = rcgen::generate_simple_self_signed([listen.ip().to_string(), "localhost".to_owned()])
        .map_err(|error| ServeError::new(Kind::Other, "cannot make a certificate").with_cause(error))?;
    let (chain, key) = (made.cert.pem().into_bytes(), Zeroizing::new(made.signing_key.serialize_pem().into_bytes()));
    for (name, content) in [(KEY, &key[..]), (CERTIFICATE, &chain[..])] {
        folder
            .replace(OsStr::new(name), &temporary(name), content, 0o600)
            .map_err(|error| ServeError::of_file("write", &folder.path_of(name), &error))?;
    }
    Ok((chain, key))
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

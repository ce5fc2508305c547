//! What is not a rendezvous is told from one that cannot be reached. `tests/rendezvous` connects to a real one.

use std::time::Instant;

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

fn target(port: u16) -> Target {
    let key = |byte| SecretKey::from_bytes(&[byte; 32]);
    Target {
        rendezvous: Pinned {
            host: "127.0.0.1".to_owned(),
            port,
            rendezvous: key(1).public(),
            network: key(2).public(),
        },
        identity: Arc::new(key(3)),
        epoch: 0,
        ca_file: None,
    }
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

/// Shows a certificate, and signs with a key that may not be its own.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// A TLS server on loopback that then answers as HTTP servers do. Returns its port.
async fn web_server(own_key: bool) -> u16 {
    let made = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (shown, other) = (made(), made());
    let signing = if own_key { &shown } else { &other };
    let key = PrivateKeyDer::try_from(signing.signing_key.serialize_der()).expect("a key");
    let key = rustls::crypto::ring::sign::any_supported_type(&key).expect("a key that signs");
    let certified = Arc::new(CertifiedKey::new(vec![shown.cert.der().clone()], key));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shown(certified)));
    let (listener, port) = listener().await;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut tls) = TlsAcceptor::from(Arc::new(config.clone())).accept(tcp).await else { continue };
            let _ = tls.read(&mut [0; 4_096]).await;
            let _ = tls.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
            let _ = tls.shutdown().await;
        }
    });
    port
}

#[tokio::test]
async fn nobody_there_is_unreachable_and_a_web_server_is_not_a_rendezvous() {
    let (listener, port) = listener().await;
    drop(listener);
    let error = connect(&target(port)).await.expect_err("nobody listens");
    assert_eq!(error.code(), "unreachable", "{error}");

    let error = connect(&target(web_server(true).await)).await.expect_err("a web server");
    assert_eq!(error.code(), "not_a_rendezvous", "{error}");
    assert!(error.to_string().contains("WebSocket: HTTP error: 404"), "any certificate will do: {error}");
}

#[tokio::test]
async fn a_tls_handshake_that_its_certificate_did_not_sign_is_refused() {
    let error = connect(&target(web_server(false).await)).await.expect_err("a stolen certificate");
    assert_eq!(error.code(), "not_a_rendezvous", "{error}");
    assert!(error.to_string().contains("TLS: invalid peer certificate: BadSignature"), "{error}");
}

#[tokio::test]
async fn a_certificate_must_have_one_of_our_roots_where_there_are_some() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let roots = folder.path().join("roots.pem");
    let root = rcgen::generate_simple_self_signed(["root".to_owned()]).expect("a certificate");
    std::fs::write(&roots, root.cert.pem()).expect("a file");
    let port = web_server(true).await;
    let error = connect(&Target { ca_file: Some(roots), ..target(port) }).await.expect_err("a different root");
    assert!(error.to_string().contains("TLS: invalid peer certificate"), "{error}");
    let missing = folder.path().join("none.pem");
    let error = connect(&Target { ca_file: Some(missing), ..target(port) }).await.expect_err("no roots");
    assert_eq!(error.code(), "local", "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up_after_ten_seconds() {
    let (listener, port) = listener().await;
    let began = tokio::time::Instant::now();
    let held = tokio::spawn(async move {
        let held = listener.accept().await;
        tokio::time::sleep(2 * CONNECT_PATIENCE).await;
        drop(held);
    });
    let real = Instant::now();
    let error = connect(&target(port)).await.expect_err("it says nothing");
    assert!(matches!(error.code(), "silent" | "unreachable"), "{error}");
    assert_eq!(began.elapsed().as_secs(), CONNECT_PATIENCE.as_secs());
    assert!(real.elapsed() < CONNECT_PATIENCE, "the clock was advanced, not waited for");
    held.abort();
}

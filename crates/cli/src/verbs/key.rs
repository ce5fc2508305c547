//! `overlay key`: WireGuard keys, the identity of an agent, and its tunnel key. Secrets are read from stdin, and written to stdout or to
//! a file that only its owner may read.

pub(crate) mod rotate;

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use overlay_daemon::Failure;
use overlay_daemon::failure::ExitKind;
use overlay_daemon::files;
use overlay_daemon::keys::{self, KeyError, PrivateKey};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::arguments::Key;
use crate::file_failure;
use crate::session::Session;

/// The most bytes read from stdin. A key has 44 characters.
const MAX_INPUT: u64 = 1024;

#[derive(Default, Serialize)]
struct Made<'a> {
    schema: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    private_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preshared_key: Option<&'a str>,
    /// The secret key of an identity, as in `identity.key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    identity_key: Option<&'a str>,
    /// The identity, which is public: 52 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a Path>,
}

impl Made<'_> {
    const SCHEMA: &'static str = "overlay.key.v1";
}

pub(crate) fn run(session: &Session, verb: &Key) -> Result<(), Failure> {
    match verb {
        Key::Gen { identity: false, output } => make_private(session, output.as_ref()),
        Key::Gen { identity: true, output } => make_identity(session, output.as_ref()),
        Key::Pub { identity } => show_public(session, *identity),
        Key::Psk { output } => make_preshared(session, output.as_ref()),
        Key::Rotate { compromised, on } => rotate::run(session, *compromised, on),
    }
}

fn make_private(session: &Session, file: Option<&PathBuf>) -> Result<(), Failure> {
    let key = PrivateKey::generate();
    let private = key.to_base64();
    let public = keys::encode_public(&key.public());
    let made = Made { schema: Made::SCHEMA, public_key: Some(&public), ..Made::default() };
    match file {
        Some(file) => {
            write(file, &private)?;
            session.output.result(&Made { file: Some(file), ..made }, || public.clone());
        }
        None => session.output.result(&Made { private_key: Some(&private), ..made }, || private.to_string()),
    }
    Ok(())
}

fn make_identity(session: &Session, file: Option<&PathBuf>) -> Result<(), Failure> {
    let key = keys::generate_identity();
    let secret = keys::encode_secret(&key.to_bytes());
    let identity = key.public().to_string();
    let made = Made { schema: Made::SCHEMA, identity: Some(&identity), ..Made::default() };
    match file {
        Some(file) => {
            write(file, &secret)?;
            session.output.result(&Made { file: Some(file), ..made }, || identity.clone());
        }
        None => session.output.result(&Made { identity_key: Some(&secret), ..made }, || secret.to_string()),
    }
    Ok(())
}

fn make_preshared(session: &Session, file: Option<&PathBuf>) -> Result<(), Failure> {
    let secret = keys::encode_secret(&keys::generate_preshared());
    let made = Made { schema: Made::SCHEMA, ..Made::default() };
    match file {
        Some(file) => {
            write(file, &secret)?;
            session.output.result(&Made { file: Some(file), ..made }, || file.display().to_string());
        }
        None => session.output.result(&Made { preshared_key: Some(&secret), ..made }, || secret.to_string()),
    }
    Ok(())
}

fn show_public(session: &Session, is_identity: bool) -> Result<(), Failure> {
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_INPUT as usize));
    io::stdin()
        .take(MAX_INPUT)
        .read_to_end(&mut text)
        .map_err(|error| Failure::new(ExitKind::Other, "cannot read the private key from stdin").with_cause(error))?;
    let text = std::str::from_utf8(&text).map(str::trim).map_err(|_| KeyError::Padding);
    let refused = |error: KeyError| {
        let option = if is_identity { " --identity" } else { "" };
        Failure::new(ExitKind::Config, format!("the private key on stdin {error}"))
            .with_hint(format!("overlay key gen{option} -o FILE && overlay key pub{option} < FILE"))
    };
    let made = Made { schema: Made::SCHEMA, ..Made::default() };
    if is_identity {
        let identity = text.and_then(keys::decode_identity).map_err(refused)?.public().to_string();
        session.output.result(&Made { identity: Some(&identity), ..made }, || identity.clone());
    } else {
        let public = text.and_then(PrivateKey::from_base64).map_err(refused)?;
        let public = keys::encode_public(&public.public());
        session.output.result(&Made { public_key: Some(&public), ..made }, || public.clone());
    }
    Ok(())
}

fn write(file: &Path, secret: &str) -> Result<(), Failure> {
    files::write_secret(file, secret).map_err(|error| file_failure("write", file, &error))
}

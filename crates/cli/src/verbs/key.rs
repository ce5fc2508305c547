//! `overlay key`: WireGuard keys, and the tunnel key of an agent. Secrets are read from stdin, and written to stdout or to
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
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a Path>,
}

impl Made<'_> {
    const SCHEMA: &'static str = "overlay.key.v1";
}

pub(crate) fn run(session: &Session, verb: &Key) -> Result<(), Failure> {
    match verb {
        Key::Gen { output } => make_private(session, output.as_ref()),
        Key::Pub => show_public(session),
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

fn show_public(session: &Session) -> Result<(), Failure> {
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_INPUT as usize));
    io::stdin()
        .take(MAX_INPUT)
        .read_to_end(&mut text)
        .map_err(|error| Failure::new(ExitKind::Other, "cannot read the private key from stdin").with_cause(error))?;
    let key =
        std::str::from_utf8(&text).map_err(|_| KeyError::Padding).and_then(|text| PrivateKey::from_base64(text.trim()));
    let key = key.map_err(|error| {
        Failure::new(ExitKind::Config, format!("the private key on stdin {error}"))
            .with_hint("overlay key gen -o FILE && overlay key pub < FILE")
    })?;
    let public = keys::encode_public(&key.public());
    session
        .output
        .result(&Made { schema: Made::SCHEMA, public_key: Some(&public), ..Made::default() }, || public.clone());
    Ok(())
}

fn write(file: &Path, secret: &str) -> Result<(), Failure> {
    files::write_secret(file, secret).map_err(|error| file_failure("write", file, &error))
}

//! The text of a key file: the secret in base64, a blank, and the public key that belongs to it.
//!
//! The public key shows whether the secret is still the one that was written.

use data_encoding::BASE64;
use overlay_wire::signed::{PublicKey, SecretKey};
use zeroize::Zeroizing;

/// The content of the file for `key`.
pub(super) fn text(key: &SecretKey) -> Zeroizing<String> {
    let secret = Zeroizing::new(BASE64.encode(&*key.to_bytes()));
    Zeroizing::new(format!("{} {}\n", &*secret, key.public()))
}

/// Reads the content of a key file. An error says what is wrong with it, and nothing of what is in it.
pub(super) fn parse(content: &[u8]) -> Result<SecretKey, &'static str> {
    if content.is_empty() {
        return Err("it is empty");
    }
    let text = std::str::from_utf8(content).map_err(|_| "it is not a key file")?;
    let line = text.strip_suffix('\n').ok_or("its end is missing")?;
    let (secret, public) = line.split_once(' ').ok_or("it is not a key file")?;
    let secret = Zeroizing::new(BASE64.decode(secret.as_bytes()).map_err(|_| "its secret is not base64")?);
    let secret: &[u8; 32] = secret.as_slice().try_into().map_err(|_| "its secret does not have 32 bytes")?;
    let key = SecretKey::from_bytes(secret);
    match public.parse::<PublicKey>() {
        Ok(public) if public == key.public() => Ok(key),
        Ok(_) => Err("its two halves do not belong together"),
        Err(_) => Err("its second half is not a public key"),
    }
}

//! The URL of a rendezvous, with the keys that it must prove to have: `https://HOST:PORT#RVKEY.NETKEY`.
//!
//! What follows `#` never leaves the agent. A browser would not send it either.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use overlay_wire::signed::{KEY_TEXT_LEN, PublicKey};

/// The port of a URL that names none.
pub const DEFAULT_PORT: u16 = 443;
/// The longest host name in bytes (RFC 1035 section 2.3.4).
const MAX_HOST_LEN: usize = 253;

/// A rendezvous: where it is, and the keys that an agent has pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// A host name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The port, of TCP and of UDP.
    pub port: u16,
    /// The key of the rendezvous.
    pub rendezvous: PublicKey,
    /// The key of the network.
    pub network: PublicKey,
}

impl Pinned {
    /// The URL without the keys.
    pub fn url(&self) -> String {
        url_of(&self.host, self.port)
    }
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}.{}", self.url(), self.rendezvous, self.network)
    }
}

/// Why a text is not the URL of a rendezvous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotPinned {
    /// It does not begin with `https://`.
    Scheme,
    /// It has no keys behind a `#`.
    NoKeys,
    /// What is behind the `#` is not two keys.
    Keys,
    /// The host is missing, or is not one.
    Host,
    /// The port is not a number from 1 to 65535.
    Port,
    /// It has a path, a user or a query.
    Path,
}

impl fmt::Display for NotPinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str("it does not begin with `https://`"),
            Self::NoKeys => {
                f.write_str("it has no keys: the URL that `overlay rendezvous serve` prints ends in `#RVKEY.NETKEY`")
            }
            Self::Keys => write!(
                f,
                "what follows `#` is not two keys: it is `RVKEY.NETKEY`, each {KEY_TEXT_LEN} characters from a to z and 2 to 7"
            ),
            Self::Host => f.write_str("it has no valid host between `https://` and the port"),
            Self::Port => f.write_str("its port is not a number from 1 to 65535"),
            Self::Path => {
                f.write_str("it has a path, a query or a user name: only `https://HOST:PORT#RVKEY.NETKEY` is valid")
            }
        }
    }
}

impl std::error::Error for NotPinned {}

impl FromStr for Pinned {
    type Err = NotPinned;

    fn from_str(text: &str) -> Result<Self, NotPinned> {
        let rest = text.strip_prefix("https://").ok_or(NotPinned::Scheme)?;
        let (place, keys) = rest.split_once('#').ok_or(NotPinned::NoKeys)?;
        let (rendezvous, network) = keys.split_once('.').ok_or(NotPinned::Keys)?;
        let key = |text: &str| text.parse::<PublicKey>().map_err(|_| NotPinned::Keys);
        let (rendezvous, network) = (key(rendezvous)?, key(network)?);
        let (host, port) = parse_place(place)?;
        Ok(Self { host, port, rendezvous, network })
    }
}

/// Parses `HOST:PORT`.
fn parse_place(place: &str) -> Result<(String, u16), NotPinned> {
    let place = place.strip_suffix('/').unwrap_or(place);
    if place.contains(['/', '?', '@']) {
        return Err(NotPinned::Path);
    }
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, behind) = rest.split_once(']').ok_or(NotPinned::Host)?;
            host.parse::<Ipv6Addr>().map_err(|_| NotPinned::Host)?;
            let port = match behind {
                "" => None,
                _ => Some(behind.strip_prefix(':').ok_or(NotPinned::Port)?),
            };
            (host, port)
        }
        None => {
            let (host, port) = place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port)));
            let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            if host.is_empty() || host.len() > MAX_HOST_LEN || !host.bytes().all(is_good) {
                return Err(NotPinned::Host);
            }
            (host, port)
        }
    };
    let port = match port {
        None => DEFAULT_PORT,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port > 0).ok_or(NotPinned::Port)?
        }
        Some(_) => return Err(NotPinned::Port),
    };
    Ok((host.to_owned(), port))
}

/// Parses a URL without keys, `https://HOST:PORT`, and returns it in full.
///
/// # Errors
/// It is not such a URL.
pub fn parse_url(url: &str) -> Result<String, NotPinned> {
    let (host, port) = parse_place(url.strip_prefix("https://").ok_or(NotPinned::Scheme)?)?;
    Ok(url_of(&host, port))
}

fn url_of(host: &str, port: u16) -> String {
    if host.contains(':') { format!("https://[{host}]:{port}") } else { format!("https://{host}:{port}") }
}

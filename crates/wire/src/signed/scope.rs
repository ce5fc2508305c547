//! Scopes: what a peer may open. They are kept as the text that was signed.
//!
//! ```text
//! scope = "any" | "icmp" | "tcp" [ ports ] | "udp" [ ports ] | number of an IP protocol
//! ports = "/" port [ "-" port ]
//! ```
//!
//! The grammar is that of `allow` in a config file, and `any`.

use minicbor::{Decode, Encode};

use super::refused::Refused;

/// The most scopes of one list.
pub const MAX_SCOPES: usize = 32;
/// The IPv6 extension headers, which precede the protocol (RFC 8200 section 4.1).
const EXTENSION_HEADERS: [u8; 4] = [0, 43, 44, 60];

/// What one scope allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything.
    Any,
    /// One protocol, and all or some of its ports.
    Only(Protocol, Option<Ports>),
}

/// The protocols of scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// ICMP and ICMPv6.
    Icmp,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// A different IP protocol, by its number.
    Number(u8),
}

/// A range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    /// The first port, not 0.
    pub first: u16,
    /// The last port, not below the first.
    pub last: u16,
}

/// The error for a text that is not a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadScope;

impl Scope {
    /// Parses a scope.
    ///
    /// # Errors
    /// [`BadScope`], without a reason: people's input is judged by the config's parser, which has reasons and hints.
    pub fn parse(text: &str) -> Result<Self, BadScope> {
        let (word, ports) = match text.split_once('/') {
            Some((word, ports)) => (word, Some(parse_ports(ports)?)),
            None => (text, None),
        };
        let protocol = match word {
            "any" if ports.is_none() => return Ok(Self::Any),
            "icmp" => Protocol::Icmp,
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => match parse_number::<u8>(word)? {
                1 | 58 => Protocol::Icmp,
                6 => Protocol::Tcp,
                17 => Protocol::Udp,
                number if EXTENSION_HEADERS.contains(&number) => return Err(BadScope),
                number => Protocol::Number(number),
            },
        };
        let has_ports = matches!(word, "tcp" | "udp");
        if ports.is_some() && !has_ports { Err(BadScope) } else { Ok(Self::Only(protocol, ports)) }
    }

    /// Whether everything that `other` allows is allowed by this one.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Only(..), Self::Any) => false,
            (Self::Only(ours, our_ports), Self::Only(theirs, their_ports)) => {
                ours == theirs
                    && match (our_ports, their_ports) {
                        (None, _) => true,
                        (Some(_), None) => false,
                        (Some(ours), Some(theirs)) => ours.first <= theirs.first && theirs.last <= ours.last,
                    }
            }
        }
    }
}

fn parse_ports(text: &str) -> Result<Ports, BadScope> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let ports = Ports { first: parse_number(first)?, last: parse_number(last)? };
    if ports.first == 0 || ports.first > ports.last { Err(BadScope) } else { Ok(ports) }
}

/// Parses digits without a sign or a leading zero, so that each scope has few texts.
fn parse_number<T: std::str::FromStr>(text: &str) -> Result<T, BadScope> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    if is_plain { text.parse().map_err(|_| BadScope) } else { Err(BadScope) }
}

/// A list of scopes: at most [`MAX_SCOPES`], each as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct ScopeList(pub Vec<String>);

impl ScopeList {
    /// The scopes of a list that was checked.
    pub fn scopes(&self) -> impl Iterator<Item = Scope> + '_ {
        self.0.iter().filter_map(|text| Scope::parse(text).ok())
    }

    /// Whether everything that `other` allows is allowed by this list, scope by scope.
    pub fn covers(&self, other: &Self) -> bool {
        other.scopes().all(|wanted| self.scopes().any(|given| given.covers(&wanted)))
    }

    pub(super) fn check(&self) -> Result<(), Refused> {
        let are_good = self.0.len() <= MAX_SCOPES && self.0.iter().all(|text| Scope::parse(text).is_ok());
        if are_good { Ok(()) } else { Err(Refused::BadScope) }
    }
}

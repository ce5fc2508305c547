//! The record of an agent: what others may know of it. It holds no endpoints.

use std::net::{Ipv4Addr, Ipv6Addr};

use minicbor::{Decode, Encode};

use super::address::ipv6_address;
use super::envelope::{Kind, Object, Signed};
use super::key::PublicKey;
use super::member::Attestation;
use super::name::{MAX_TAGS, are_different, check_name, check_tag};
use super::refused::Refused;
use crate::x25519::{is_canonical, is_low_order};

/// The most services of a record.
pub const MAX_SERVICES: usize = 16;
/// The longest time for which a record is fresh, in milliseconds: seven days.
pub const MAX_FRESH: u64 = 7 * 24 * 3_600 * 1_000;
/// The length of an X-Wing public key in bytes.
pub const XWING_KEY_LEN: usize = 1_216;
/// The longest text of a service in bytes.
const MAX_TEXT_LEN: usize = 64;
/// The tunnel keys: the current one, and the one before it while it is still answered.
const MAX_TUNNEL_KEYS: usize = 2;

/// The record of an agent, signed by its identity.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Record {
    /// The network's key.
    #[n(0)]
    pub network: PublicKey,
    /// The agent.
    #[n(1)]
    pub identity: PublicKey,
    /// A higher one replaces a lower one.
    #[n(2)]
    pub sequence: u64,
    /// When it was signed, in milliseconds since 1970.
    #[n(3)]
    pub issued: u64,
    /// Until when a registry shows it, in milliseconds since 1970: at most [`MAX_FRESH`] later.
    #[n(4)]
    pub fresh_until: u64,
    /// The agent's name.
    #[n(5)]
    pub name: String,
    /// Its IPv4 address, if it has one.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub ipv4: Option<[u8; 4]>,
    /// The X25519 keys of its tunnels: the current one, and the one before it while it is still answered.
    #[n(7)]
    pub tunnel_keys: Vec<TunnelKey>,
    /// The X25519 key of its mailbox.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub mailbox_x25519: [u8; 32],
    /// The X-Wing key of its mailbox, [`XWING_KEY_LEN`] bytes.
    #[cbor(n(9), with = "minicbor::bytes")]
    pub mailbox_xwing: Option<Vec<u8>>,
    /// What it says about itself. Nobody vouches for these: see [`Signed::attested_tags`].
    #[n(10)]
    pub tags: Vec<String>,
    /// What it offers.
    #[n(11)]
    pub services: Vec<Service>,
    /// The agents that may find it.
    #[n(12)]
    pub visibility: Visibility,
    /// What its program can do.
    #[n(13)]
    pub abilities: Abilities,
    /// The token by which the network's operator vouches for its tags.
    #[n(14)]
    pub attestation: Option<Attestation>,
}

/// An X25519 key, as in [`Record::tunnel_keys`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct TunnelKey(#[cbor(with = "minicbor::bytes")] pub [u8; 32]);

/// One service of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Service {
    /// Its name, as `http` or `mcp`.
    #[n(0)]
    pub name: String,
    /// The protocol that carries it.
    #[n(1)]
    pub transport: Transport,
    /// Its port, not 0.
    #[n(2)]
    pub port: u16,
    /// A description of at most 64 bytes.
    #[n(3)]
    pub text: String,
}

/// The protocols of services, by their IP protocol numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Transport {
    /// TCP.
    #[n(6)]
    Tcp,
    /// UDP.
    #[n(17)]
    Udp,
}

/// The agents that may find an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Visibility {
    /// Those that know its key.
    #[n(0)]
    Hidden,
    /// Every agent of the network.
    #[default]
    #[n(1)]
    Members,
    /// Everybody.
    #[n(2)]
    Public,
}

/// What a program can do, one bit each. Unknown bits mean nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Abilities(pub u64);

impl Record {
    /// The agent's IPv6 address, which follows from its key.
    pub fn ipv6(&self) -> Ipv6Addr {
        ipv6_address(&self.network, &self.identity)
    }

    /// The agent's IPv4 address.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.ipv4.map(Ipv4Addr::from)
    }

    /// The X25519 keys. An X-Wing key ends in one.
    fn x25519_keys(&self) -> impl Iterator<Item = &[u8; 32]> {
        let xwing = self.mailbox_xwing.as_ref().and_then(|key| key.last_chunk());
        self.tunnel_keys.iter().map(|key| &key.0).chain([&self.mailbox_x25519]).chain(xwing)
    }

    /// Whether a registry may show it at this time, in milliseconds since 1970.
    pub fn is_fresh(&self, now: u64) -> bool {
        now <= self.fresh_until
    }
}

impl Signed<Record> {
    /// The tags that the network's operator vouches for. The claims in [`Record::tags`] do not matter. The attestation was
    /// verified with the record, so this costs no signature.
    pub fn attested_tags(&self) -> Vec<String> {
        let token = self.attestation.as_ref().and_then(Attestation::verified_token);
        token.map(|token| token.tags).unwrap_or_default()
    }
}

impl Object for Record {
    const KIND: Kind = Kind::Record;
    const MAX_LEN: usize = 4_096;

    fn signer(&self) -> &PublicKey {
        &self.identity
    }

    fn keys(&self) -> Vec<&PublicKey> {
        vec![&self.network, &self.identity]
    }

    fn check(&self) -> Result<(), Refused> {
        check_name(&self.name).map_err(|_| Refused::BadName)?;
        self.tags.iter().try_for_each(|tag| check_tag(tag)).map_err(|_| Refused::BadName)?;
        self.services.iter().try_for_each(Service::check)?;
        self.x25519_keys().try_for_each(|key| if is_low_order(key) { Err(Refused::WeakKey) } else { Ok(()) })?;
        let is_good = self.sequence > 0
            && self.issued <= self.fresh_until
            && self.fresh_until - self.issued <= MAX_FRESH
            && self.x25519_keys().all(is_canonical)
            && (1..=MAX_TUNNEL_KEYS).contains(&self.tunnel_keys.len())
            && self.tunnel_keys.first() != self.tunnel_keys.get(1)
            && self.mailbox_xwing.as_ref().is_none_or(|key| key.len() == XWING_KEY_LEN)
            && self.tags.len() <= MAX_TAGS
            && are_different(&self.tags)
            && self.services.len() <= MAX_SERVICES;
        if !is_good {
            return Err(Refused::BadValue);
        }
        let Some(attestation) = &self.attestation else { return Ok(()) };
        let token = attestation.token(&self.network, &self.identity)?;
        if token.suits(&self.name) { Ok(()) } else { Err(Refused::BadPart) }
    }
}

impl Service {
    fn check(&self) -> Result<(), Refused> {
        check_tag(&self.name).map_err(|_| Refused::BadName)?;
        if self.port > 0 && self.text.len() <= MAX_TEXT_LEN { Ok(()) } else { Err(Refused::BadValue) }
    }
}

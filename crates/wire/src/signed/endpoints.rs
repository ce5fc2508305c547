//! Where an agent can be reached. It is told to one trusted agent at a time, sealed.

use std::net::{IpAddr, SocketAddr};

use minicbor::{Decode, Encode};

use super::envelope::{Kind, Object};
use super::key::PublicKey;
use super::refused::Refused;

/// The most endpoints of one agent.
pub const MAX_ENDPOINTS: usize = 16;

/// The endpoints of `from`, for `to`, signed by `from`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Endpoints {
    /// The network's key.
    #[n(0)]
    pub network: PublicKey,
    /// Whose endpoints they are.
    #[n(1)]
    pub from: PublicKey,
    /// The agent that may know them.
    #[n(2)]
    pub to: PublicKey,
    /// A higher one replaces a lower one.
    #[n(3)]
    pub sequence: u64,
    /// When it was signed, in milliseconds since 1970.
    #[n(4)]
    pub issued: u64,
    /// At most [`MAX_ENDPOINTS`], the best first. None: it can be reached by relay only, or not at all.
    #[n(5)]
    pub places: Vec<Place>,
}

/// An outer address and a UDP port.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Place {
    /// 4 or 16 bytes.
    #[cbor(n(0), with = "minicbor::bytes")]
    address: Vec<u8>,
    #[n(1)]
    port: u16,
}

impl Place {
    /// The address, if it is one that packets can be sent to.
    pub fn address(&self) -> Option<SocketAddr> {
        let ip: IpAddr = match self.address.len() {
            4 => <[u8; 4]>::try_from(&self.address[..]).ok()?.into(),
            16 => <[u8; 16]>::try_from(&self.address[..]).ok()?.into(),
            _ => return None,
        };
        // An IPv4 address in the form of an IPv6 address would be a second form, and could hide a broadcast address.
        let is_good =
            self.port > 0 && ip == ip.to_canonical() && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast(ip);
        is_good.then(|| SocketAddr::new(ip, self.port))
    }
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        let bytes = match address.ip().to_canonical() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        Self { address: bytes, port: address.port() }
    }
}

fn is_broadcast(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.is_broadcast())
}

impl Object for Endpoints {
    const KIND: Kind = Kind::Endpoints;

    fn signer(&self) -> &PublicKey {
        &self.from
    }

    fn keys(&self) -> Vec<&PublicKey> {
        vec![&self.network, &self.from, &self.to]
    }

    fn check(&self) -> Result<(), Refused> {
        let is_good = self.sequence > 0
            && self.from != self.to
            && self.places.len() <= MAX_ENDPOINTS
            && self.places.iter().all(|place| place.address().is_some());
        if is_good { Ok(()) } else { Err(Refused::BadValue) }
    }
}

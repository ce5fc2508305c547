//! Where an agent can be reached. It is told to one trusted agent at a time, sealed.

use std::net::{IpAddr, SocketAddr};

use minicbor::{Decode, Encode};

use super::envelope::{Envelope, Kind, Object, Signed};
use super::key::PublicKey;
use super::name::are_different;
use super::refused::Refused;
use super::relay::RelayPermit;

/// The most endpoints of one agent.
pub const MAX_ENDPOINTS: usize = 16;
/// The most relays at which one agent is reached.
pub const MAX_RELAYS: usize = 2;

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
    /// 1 to [`MAX_RELAYS`] relays, the home relay first. `None`: it is bound at none.
    #[n(6)]
    pub relays: Option<Vec<RelayPlace>>,
}

/// A relay at which an agent is reached.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RelayPlace {
    /// An IPv4 address and port (6 bytes), an IPv6 address and port (18 bytes), or both in this order (24 bytes).
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(super) addresses: Vec<u8>,
    /// An envelope of kind `relay_permit`, for the agent that may know the endpoints. It names the relay.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) permit: Vec<u8>,
}

impl RelayPlace {
    /// The place of a relay at these addresses, of which one of each family counts. `None`: `addresses` is empty.
    pub fn new(addresses: &[SocketAddr], permit: &Signed<RelayPermit>) -> Option<Self> {
        let of = |is_ipv4: bool| addresses.iter().find(|address| address.is_ipv4() == is_ipv4);
        let chosen = [of(true), of(false)].into_iter().flatten().copied().map(Place::from);
        let bytes: Vec<u8> =
            chosen.flat_map(|place| [&place.address[..], &place.port.to_be_bytes()].concat()).collect();
        (!bytes.is_empty()).then(|| Self { addresses: bytes, permit: permit.bytes().to_vec() })
    }

    /// Its addresses, which datagrams can be sent to: one of each family at most.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.parsed().unwrap_or_default()
    }

    /// The permit of a place that was verified before, by [`Signed::open`].
    pub fn permit(&self) -> Option<Signed<RelayPermit>> {
        Signed::open(&self.permit).ok()
    }

    /// `None`: not all of them can be sent to.
    fn parsed(&self) -> Option<Vec<SocketAddr>> {
        let (v4, v6) = match self.addresses.len() {
            6 => (&self.addresses[..], &[][..]),
            18 => (&[][..], &self.addresses[..]),
            24 => self.addresses.split_at(6),
            _ => return None,
        };
        let parts = [v4, v6].into_iter().filter(|part| !part.is_empty());
        parts
            .map(|part| {
                let (address, port) = part.split_last_chunk::<2>()?;
                Place { address: address.to_vec(), port: u16::from_be_bytes(*port) }.address()
            })
            .collect()
    }

    /// The key of the relay, which is not verified yet.
    fn named(&self) -> Option<PublicKey> {
        Some(minicbor::decode::<RelayPermit>(Envelope::parse(&self.permit).ok()?.payload).ok()?.relay)
    }

    fn check(&self, endpoints: &Endpoints) -> Result<(), Refused> {
        self.parsed().ok_or(Refused::BadValue)?;
        let permit = Signed::<RelayPermit>::open(&self.permit).map_err(|_| Refused::BadPart)?;
        let is_theirs =
            permit.network == endpoints.network && permit.issuer == endpoints.from && permit.subject == endpoints.to;
        if is_theirs { Ok(()) } else { Err(Refused::BadPart) }
    }
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
            && self.places.iter().all(|place| place.address().is_some())
            && self.relays.as_ref().is_none_or(|relays| (1..=MAX_RELAYS).contains(&relays.len()));
        if !is_good {
            return Err(Refused::BadValue);
        }
        let relays = self.relays.as_deref().unwrap_or_default();
        relays.iter().try_for_each(|relay| relay.check(self))?;
        let named: Vec<_> = relays.iter().filter_map(RelayPlace::named).collect();
        if are_different(&named) { Ok(()) } else { Err(Refused::BadValue) }
    }
}

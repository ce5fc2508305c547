//! Where the relay beside a rendezvous is.

use std::net::{IpAddr, SocketAddr};

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use overlay_wire::signed::PublicKey;

/// The relay beside a rendezvous. It also answers STUN.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RelayAt {
    /// Its key.
    #[n(0)]
    pub key: PublicKey,
    /// Its UDP port.
    #[n(1)]
    port: u16,
    /// Its address, 4 or 16 bytes. `None`: it has the addresses of the rendezvous.
    #[n(2)]
    address: Option<ByteVec>,
}

impl RelayAt {
    /// The relay with this key and port. `address`: if it does not have those of the rendezvous.
    pub fn new(key: PublicKey, port: u16, address: Option<IpAddr>) -> Self {
        let bytes = |address| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        Self { key, port, address: address.map(|address| bytes(address).into()) }
    }

    /// Where it is, if the rendezvous has these addresses: one of each family at most.
    pub fn addresses(&self, rendezvous: &[SocketAddr]) -> Vec<SocketAddr> {
        let own = self.address.as_ref().map(|bytes| match bytes.len() {
            4 => <[u8; 4]>::try_from(&bytes[..]).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(&bytes[..]).ok().map(IpAddr::from),
            _ => None,
        });
        let all: Vec<_> = match own {
            Some(own) => own.into_iter().collect(),
            None => rendezvous.iter().map(SocketAddr::ip).collect(),
        };
        let first = |is_ipv4: bool| all.iter().find(|ip| ip.is_ipv4() == is_ipv4).copied();
        let chosen = [first(true), first(false)].into_iter().flatten().filter(|_| self.port > 0);
        chosen.map(|ip| SocketAddr::new(ip, self.port)).collect()
    }
}

#[cfg(test)]
mod tests {
    use overlay_wire::signed::SecretKey;

    use super::super::{Reply, decode, encode};
    use super::*;

    /// The welcome of the release before.
    #[derive(Debug, PartialEq, Encode, Decode)]
    enum Before {
        #[n(2)]
        Welcome {
            #[n(0)]
            network: ByteVec,
            #[n(1)]
            record: Option<ByteVec>,
            #[n(2)]
            epoch: u64,
            #[n(3)]
            seen_from: ByteVec,
        },
    }

    #[test]
    fn a_welcome_is_read_by_the_release_before_and_the_other_way_round() {
        let relay = Some(RelayAt::new(SecretKey::from_bytes(&[7; 32]).public(), 7447, None));
        let (network, seen_from) = (ByteVec::from(vec![1]), ByteVec::from(vec![2; 4]));
        let before = Before::Welcome { network: network.clone(), record: None, epoch: 3, seen_from: seen_from.clone() };
        let now = |relay| Reply::Welcome {
            network: network.clone(),
            record: None,
            epoch: 3,
            seen_from: seen_from.clone(),
            relay,
        };
        assert_eq!(decode::<Before>(&encode(&now(relay))).as_ref(), Ok(&before));
        assert_eq!(decode::<Reply>(&encode(&before)), Ok(now(None)));
    }

    #[test]
    fn a_relay_has_the_addresses_of_its_rendezvous_or_its_own() {
        let key = SecretKey::from_bytes(&[7; 32]).public();
        let parse =
            |texts: &[&str]| -> Vec<SocketAddr> { texts.iter().map(|text| text.parse().expect("one")).collect() };
        let rendezvous = parse(&["[2001:db8::1]:443", "192.0.2.1:443", "192.0.2.2:443"]);
        let beside = RelayAt::new(key, 7447, None);
        assert_eq!(beside.addresses(&rendezvous), parse(&["192.0.2.1:7447", "[2001:db8::1]:7447"]));
        let apart = RelayAt::new(key, 7448, Some("198.51.100.1".parse().expect("one")));
        assert_eq!(apart.addresses(&rendezvous), parse(&["198.51.100.1:7448"]));
        assert!(RelayAt::new(key, 0, None).addresses(&rendezvous).is_empty());
        let bad = RelayAt { address: Some(vec![1; 5].into()), ..beside };
        assert!(bad.addresses(&rendezvous).is_empty());
    }
}

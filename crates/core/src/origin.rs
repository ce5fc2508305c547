//! Where a datagram came from, and how it travelled. Its sender is not known yet.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use overlay_wire::relay::Channel;

use crate::Via;

/// Where a datagram came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) source: SocketAddr,
    pub(crate) via: Via,
    /// The two ECN bits of the outer header.
    pub(crate) ecn: u8,
}

/// How a frame came.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) origin: Origin,
    /// It came in a session that a newer one has replaced.
    pub(crate) is_former: bool,
    /// How long it has waited here, because it had overtaken others.
    pub(crate) waited: Duration,
}

/// The far end of a path: an address, and the channel if that is the address of a relay.
pub(crate) type Far = (SocketAddr, Option<Channel>);

impl Origin {
    /// The datagram inside one that came through a relay.
    pub(crate) fn through(self, channel: Channel) -> Self {
        Self { via: Via { channel: Some(channel), ..self.via }, ..self }
    }

    pub(crate) fn far(self) -> Far {
        (self.source, self.via.channel)
    }

    /// What stands for the sender where limits count by address and cookies prove one. All that a relay forwards comes from the
    /// relay's address, so each of its channels gets an address of its own: one that nobody can have (RFC 6666), with the
    /// channel and the relay's port in front, because the first 64 bits tell sources apart.
    pub(crate) fn address(self) -> IpAddr {
        let Some(channel) = self.via.channel else { return self.source.ip() };
        let [_, a, b, c] = channel.number().to_be_bytes();
        let port = self.source.port().to_be_bytes();
        let relay = match self.source.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        let mut octets = [0x01, 0, a, b, c, port[0], port[1], 0, 0, 0, 0, 0, 0, 0, 0, 0];
        // Relays with the same channel and port differ in the rest, as far as that has room.
        for (at, byte) in relay.into_iter().enumerate() {
            octets[7 + at % 9] ^= byte;
        }
        Ipv6Addr::from(octets).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(source: &str, channel: Option<u32>) -> Origin {
        let channel = channel.and_then(Channel::new);
        Origin { source: source.parse().unwrap(), via: Via { channel, ..Via::ANY }, ecn: 0 }
    }

    #[test]
    fn each_channel_of_a_relay_is_a_source_of_its_own() {
        let relay = "192.0.2.9:7447";
        assert_eq!(origin(relay, None).address(), "192.0.2.9".parse::<IpAddr>().unwrap());
        let prefix = |origin: Origin| match origin.address() {
            IpAddr::V6(address) => address.octets()[..8].to_vec(),
            IpAddr::V4(address) => panic!("{address}"),
        };
        let one = prefix(origin(relay, Some(1)));
        assert_eq!(one[0], 0x01);
        assert_ne!(one, prefix(origin(relay, Some(2))));
        assert_ne!(one, prefix(origin("192.0.2.9:7448", Some(1))));
        assert_ne!(origin(relay, Some(1)).address(), origin("192.0.2.10:7447", Some(1)).address());
        assert_ne!(origin(relay, Some(1)).address(), origin("[2001:db8::9]:7447", Some(1)).address());
    }
}

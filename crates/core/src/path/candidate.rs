//! Candidates: addresses at which this host or a peer may be reached (RFC 8445), as control knows them.

use std::net::{IpAddr, SocketAddr};

use overlay_wire::relay::Channel;

/// How an address of this host is known (RFC 8445 section 5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CandidateKind {
    /// The host itself has it.
    Host,
    /// A STUN server saw datagrams of the node's own socket come from there.
    ServerReflexive,
    /// A router was asked to forward it.
    Mapped,
}

/// An address at which this host may be reached from outside the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The address, and the UDP port.
    pub address: SocketAddr,
    /// How it is known.
    pub kind: CandidateKind,
    /// What datagrams have to leave from. `None`: the kernel chooses.
    pub base: Option<Base>,
}

/// What datagrams leave from: the base of a candidate (RFC 8445 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Base {
    /// An address of this host, and the index of its interface.
    pub local: (IpAddr, u32),
    /// Whether the interface is an uplink that may be used even where the routing table prefers a different one.
    pub is_uplink: bool,
}

/// Which addresses of this host a peer is told, and whether direct paths are looked for at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CandidateScope {
    /// Private addresses are told to a peer that shares a public address of ours.
    #[default]
    Auto,
    /// All addresses are told to every peer.
    All,
    /// No address is told, and no direct path is looked for.
    Relay,
}

/// Where a peer may be reached, as control knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    /// Addresses that the peer has named, the best one first. At most [`crate::Node::MAX_REMOTE_CANDIDATES`] count.
    pub candidates: Vec<SocketAddr>,
    /// Channels of relays that lead to the peer, the best one first. The relays are among those of
    /// [`crate::Command::SetRelays`].
    pub relayed: Vec<(SocketAddr, Channel)>,
    /// Whether a channel to the peer is expected soon. Its candidates are then called two seconds later: what arrives at a
    /// router before its own side has sent anything may spoil the direct path.
    pub awaits_relay: bool,
}

/// Whether datagrams may be sent to an address that a peer has named.
pub(crate) fn is_usable(address: SocketAddr) -> bool {
    let is_good = match address.ip() {
        IpAddr::V4(ip) => {
            let [first, ..] = ip.octets();
            first != 0 && first < 240 && !ip.is_loopback() && !ip.is_multicast() && !ip.is_link_local()
        }
        IpAddr::V6(ip) => {
            !ip.is_loopback()
                && !ip.is_unspecified()
                && !ip.is_multicast()
                && !ip.is_unicast_link_local()
                && ip.to_ipv4_mapped().is_none()
        }
    };
    is_good && address.port() != 0
}

/// Whether an address means something in one network only (RFC 1918, RFC 4193).
pub(crate) fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_sent_to_addresses_that_mean_a_group_this_host_or_nobody() {
        for bad in [
            "0.1.2.3:1",
            "127.0.0.1:1",
            "169.254.1.1:1",
            "224.0.0.1:1",
            "240.0.0.1:1",
            "255.255.255.255:1",
            "192.0.2.1:0",
            "[::]:1",
            "[::1]:1",
            "[ff02::1]:1",
            "[fe80::1]:1",
            "[::ffff:192.0.2.1]:1",
        ] {
            assert!(!is_usable(bad.parse().unwrap()), "{bad}");
        }
        for good in ["192.0.2.1:1", "10.0.0.1:1", "[2001:db8::1]:1", "[fd00::1]:1"] {
            assert!(is_usable(good.parse().unwrap()), "{good}");
        }
    }
}

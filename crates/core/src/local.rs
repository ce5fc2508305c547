//! This host's end of every session: its key, addresses and limits.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::data::allowed_ips::AllowedIps;
use crate::data::allowlist::HostPorts;
use crate::data::shares::Party;
use crate::session::local_key::LocalKeys;
use crate::wall_clock::WallClock;
use crate::{Candidate, CandidateScope, Joins, Nat, PeerTag};

/// This host's side of every session.
pub(crate) struct Local {
    /// Our keys. Without one, no handshake is possible.
    pub(crate) keys: LocalKeys,
    /// Whether the interface is up.
    pub(crate) is_up: bool,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) forward: bool,
    /// The MTU of inner packets to a peer while nothing is known of its path, in bytes.
    pub(crate) mtu: usize,
    /// The largest MTU that a search tries, in bytes.
    pub(crate) max_mtu: usize,
    /// The kinds of super-packets that TUN takes.
    pub(crate) joins: Joins,
    /// The clock for the timestamps of handshakes.
    pub(crate) wall: WallClock,
    /// The UDP ports of this host when control last looked.
    pub(crate) ports: Option<HostPorts>,
    /// The prefixes in which only trusted peers have addresses.
    pub(crate) pools: Vec<IpNet>,
    /// The relays that we use. Nobody else is heard with a relay's bytes: a stranger could count as many sources.
    pub(crate) relays: Vec<SocketAddr>,
    /// The addresses of this host that peers may be told, and which of them.
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) candidate_scope: CandidateScope,
    /// The NAT in front of this host.
    pub(crate) nat: Nat,
    /// Keeps others from choosing which party they count as.
    pub(crate) secret: u64,
}

impl Local {
    /// Whether handshakes are possible at all.
    pub(crate) fn can_speak(&self) -> bool {
        self.is_up && self.keys.present().is_some()
    }

    /// Whether an inner address is ours. A node without addresses cannot tell, as in WireGuard, and returns false.
    pub(crate) fn owns(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// Returns the party that sent a packet into TUN: this host, the peer that it is forwarded for, or a different sender.
    ///
    /// A prefix of length 0 names nobody. Its peer may send from any address, and so may a host beside us.
    #[inline]
    pub(crate) fn party(&self, source: IpAddr, allowed_ips: &AllowedIps<PeerTag>) -> Party {
        if self.may_forward() { self.party_of_many(source, allowed_ips) } else { Party::OWN }
    }

    /// The party of a sender, where packets may come from beyond this host.
    fn party_of_many(&self, source: IpAddr, allowed_ips: &AllowedIps<PeerTag>) -> Party {
        if self.owns(source) {
            return Party::OWN;
        }
        match allowed_ips.lookup_at_least(source, 1) {
            Some(peer) => Party::peer(peer, self.secret),
            None => Party::other(source, self.secret),
        }
    }

    /// Whether packets with this inner source may go out.
    pub(crate) fn may_send_from(&self, source: IpAddr) -> bool {
        self.may_forward() || self.owns(source)
    }

    /// Whether packets to this inner destination may come in.
    pub(crate) fn may_deliver_to(&self, destination: IpAddr) -> bool {
        self.may_forward() || self.owns(destination)
    }

    /// Whether packets of other hosts pass. A node without addresses cannot tell them from ours.
    fn may_forward(&self) -> bool {
        self.addresses.is_empty() || self.forward
    }
}

//! The paths to one peer: the one in use, and what is known of those before it.
//!
//! A stock peer has one: where it was last authenticated from, or else where it was configured. Any authenticated message moves
//! it, whatever its kind. A cookie reply does not. For overlay nodes that find their paths, only the agent moves it.
//! The local address that the peer wrote to
//! is kept with it, so that answers leave from that address (sticky source).

use std::net::SocketAddr;

use crate::path::agent::Agent;
use crate::path::discovery::{Discovery, Way};
use crate::path::endpoint::Endpoint;
use crate::path::greeting::Acquaintance;
use crate::{PathTag, PeerTag};

/// How many paths that are not in use are remembered.
const MAX_OTHERS: usize = 4;

/// All paths to one peer.
#[derive(Default)]
pub(crate) struct Paths {
    primary: Option<Path>,
    /// Chooses the path, if the peer is an overlay node that does so, too. Otherwise authenticated messages move it.
    pub(crate) agent: Option<Box<Agent>>,
    /// Paths that were in use before, with what is known of their MTU, the latest last.
    others: Vec<Path>,
    /// The number of the latest path.
    latest: u32,
}

/// One path: where its datagrams are sent, and what is known of it.
pub(crate) struct Path {
    /// Counts the peer's paths: see [`PathTag`].
    number: u32,
    pub(crate) endpoint: Endpoint,
    /// The search for its MTU, while there is one.
    pub(crate) discovery: Option<Box<Discovery>>,
}

impl Paths {
    /// The path that packets take. `None` if the peer's address is not known.
    pub(crate) fn primary(&self) -> Option<&Path> {
        self.primary.as_ref()
    }

    pub(crate) fn primary_mut(&mut self) -> Option<&mut Path> {
        self.primary.as_mut()
    }

    /// The path that a tag names, if the peer still has it.
    pub(crate) fn named(&mut self, tag: PathTag) -> Option<&mut Path> {
        self.primary.as_mut().filter(|path| path.number == tag.number)
    }

    /// Where packets go now.
    pub(crate) fn endpoint(&self) -> Option<Endpoint> {
        self.primary.as_ref().map(|path| path.endpoint)
    }

    /// Where packets go now, without the local address.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.primary.as_ref().map(|path| path.endpoint.address)
    }

    /// Sends packets to this endpoint from now on. Returns whether that is a different path: a new port on the same IP is
    /// not.
    pub(crate) fn move_to(&mut self, endpoint: Endpoint) -> bool {
        match &mut self.primary {
            Some(path) => {
                let route = |endpoint: Endpoint| (endpoint.address.ip(), endpoint.via.channel);
                let is_elsewhere = route(path.endpoint) != route(endpoint);
                path.endpoint = endpoint;
                path.number = path.number.wrapping_add(is_elsewhere.into());
                is_elsewhere
            }
            None => {
                self.primary = Some(Path { number: 0, endpoint, discovery: None });
                true
            }
        }
    }

    /// Sends packets over this pair from now on. What is known of the path before is kept, and what is known of this one counts
    /// again. Returns whether nothing is known of it.
    pub(crate) fn take(&mut self, endpoint: Endpoint) -> bool {
        if let Some(path) = self.primary.as_mut().filter(|path| path.endpoint.is_along(endpoint)) {
            path.endpoint = endpoint;
            return false;
        }
        let known = self.others.iter().position(|path| path.endpoint.is_along(endpoint));
        let path = known.map(|at| Path { endpoint, ..self.others.remove(at) });
        let is_new = path.is_none();
        let path = path.unwrap_or_else(|| {
            self.latest = self.latest.wrapping_add(1);
            Path { number: self.latest, endpoint, discovery: None }
        });
        if let Some(before) = self.primary.replace(path) {
            self.latest = self.latest.max(before.number);
            if self.others.len() == MAX_OTHERS {
                self.others.remove(0);
            }
            self.others.push(before);
        }
        is_new
    }

    /// Lets the kernel choose the local address again, because the present one may be gone.
    pub(crate) fn forget_source(&mut self) {
        if let Some(path) = self.primary.as_mut().filter(|_| self.agent.is_none()) {
            path.endpoint.via.local = None;
        }
    }
}

impl Path {
    /// The tag that names this path.
    pub(crate) fn tag(&self, peer: PeerTag) -> PathTag {
        PathTag { peer, number: self.number }
    }

    /// How long packets may be, and `assumed` if nothing is known of the path.
    pub(crate) fn way(&self, assumed: usize, acquaintance: Acquaintance) -> Way {
        match &self.discovery {
            Some(discovery) => discovery.way(assumed, acquaintance),
            None => Way { mtu: assumed, is_proven: false, may_cut: false },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Via;

    #[test]
    fn a_different_address_is_a_different_path_and_a_new_port_is_not() {
        let at = |text: &str| Endpoint::configured(text.parse().unwrap());
        let (mut paths, peer) = (Paths::default(), PeerTag::from_bits(7));
        assert!(paths.move_to(at("192.0.2.1:1")));
        let first = paths.primary().unwrap().tag(peer);
        assert!(!paths.move_to(at("192.0.2.1:2")));
        assert!(paths.named(first).is_some());
        assert!(paths.move_to(at("192.0.2.2:2")));
        assert!(paths.named(first).is_none(), "what was said of the first path does not count for the second");
        let second = paths.primary().unwrap().tag(peer);
        assert_eq!(PathTag::from_bits(second.to_bits()), second);
    }

    #[test]
    fn what_is_known_of_a_path_counts_for_its_uplink_alone() {
        let over = |interface, is_pinned| Endpoint {
            address: "203.0.113.1:51820".parse().unwrap(),
            via: Via { is_pinned, ..Via::to([192, 168, 1, interface].into(), interface.into()) },
        };
        let (mut paths, peer) = (Paths::default(), PeerTag::from_bits(7));
        assert!(paths.take(over(2, true)));
        let first = paths.primary().unwrap().tag(peer);
        assert!(paths.take(over(3, true)), "nothing is known of the other uplink");
        assert!(paths.named(first).is_none());
        assert!(!paths.take(over(2, true)), "and what was known of the first one counts again");
        assert!(paths.named(first).is_some());
        assert!(!paths.take(over(3, false)), "which way the kernel chooses makes no path");
    }
}

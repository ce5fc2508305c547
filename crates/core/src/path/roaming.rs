//! Roaming: authenticated messages move the path of a peer, and so does control.

use std::net::SocketAddr;

use crate::context::Context;
use crate::origin::Origin;
use crate::outbox::{Draft, Heading};
use crate::path::endpoint::Endpoint;
use crate::peer::Peer;
use crate::{Event, Instant};

impl Context {
    /// Handles an authentic message of the peer. It proves where the peer is, but not that the peer hears us.
    pub(crate) fn on_authenticated(&mut self, peer: &mut Peer, origin: Origin, now: Instant) {
        peer.on_authenticated(now);
        let Origin { source, via, .. } = origin;
        let endpoint = Endpoint { address: source, via };
        if peer.paths.agent.is_some() || peer.paths.endpoint() == Some(endpoint) {
            return;
        }
        if peer.paths.address() != Some(source)
            && let Some(event) = peer.news.on_endpoint(peer.tag, (source, via.channel.is_some()), now)
        {
            self.outbox.event(event);
        }
        self.move_path(peer, endpoint, now);
    }

    /// Handles a message that the peer sends only while it hears from us.
    pub(crate) fn on_heard(&mut self, peer: &mut Peer, now: Instant) {
        if peer.on_heard(now) {
            self.outbox.event(Event::Answering(peer.tag, true));
        }
    }

    /// Moves the peer to this address, as control asks. A peer with a path agent is moved by nothing else.
    pub(crate) fn move_to(&mut self, peer: &mut Peer, address: SocketAddr, now: Instant) {
        if peer.paths.agent.is_some() {
            return;
        }
        peer.tunnel.hasten(&mut self.rng);
        peer.news.forget_endpoint();
        self.move_path(peer, Endpoint::configured(address), now);
    }

    fn move_path(&mut self, peer: &mut Peer, endpoint: Endpoint, now: Instant) {
        self.endpoints.on_moved(peer.paths.endpoint().map(Endpoint::far), Some(endpoint.far()));
        if peer.paths.move_to(endpoint) {
            self.on_path_change(peer, now);
        }
    }

    /// Sends a message to the peer over this pair. It may be fragmented.
    pub(crate) fn transmit_over(&mut self, peer: &Peer, to: Endpoint, message: Draft, traffic_class: u8) {
        let Endpoint { address: destination, via } = to;
        let len = via.lead() + message.len();
        self.outbox.send(message, Heading { destination, via, traffic_class, ttl: None, whole_for: None });
        self.stats.count_sent(&peer.stats, via, len);
    }

    /// Answers the peer over the way that its message came.
    pub(crate) fn transmit_back(&mut self, peer: &Peer, origin: Origin, message: Draft, traffic_class: u8) {
        let to = origin.endpoint();
        let to = peer.paths.agent.as_ref().map_or(to, |agent| agent.way_back(to));
        self.transmit_over(peer, to, message, traffic_class);
    }

    /// Sends a message to the peer. `is_whole`: it must not be fragmented.
    pub(crate) fn transmit(&mut self, peer: &Peer, message: Draft, traffic_class: u8, is_whole: bool) {
        let Some(path) = peer.paths.primary() else { return };
        let Endpoint { address, via } = path.endpoint;
        let len = via.lead() + message.len();
        let whole_for = is_whole.then_some(path.tag(peer.tag));
        self.outbox.send(message, Heading { destination: address, via, traffic_class, whole_for, ttl: None });
        self.stats.count_sent(&peer.stats, via, len);
    }
}

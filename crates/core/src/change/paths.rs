//! Changes of where a peer is looked for.

use std::net::SocketAddr;

use overlay_wire::relay::Channel;

use crate::node::Node;
use crate::{CommandError, Instant, PeerTag};

impl Node {
    /// Sets the addresses of a peer's host name.
    pub(super) fn set_candidates(
        &mut self,
        tag: PeerTag,
        addresses: &[SocketAddr],
        now: Instant,
    ) -> Result<(), CommandError> {
        let peer = self.peers.peer(tag).ok_or(CommandError::UnknownPeer)?;
        self.context.set_candidates(peer, addresses, now);
        self.attend(tag, now);
        Ok(())
    }

    pub(super) fn forget_candidates(&mut self, tag: PeerTag) -> Result<(), CommandError> {
        let peer = self.peers.peer(tag).ok_or(CommandError::UnknownPeer)?;
        peer.candidates.get_or_insert_default().forget();
        Ok(())
    }

    pub(super) fn set_relays(&mut self, relays: Vec<SocketAddr>) -> Result<(), CommandError> {
        if relays.len() > Self::MAX_RELAYS {
            return Err(CommandError::TooManyRelays);
        }
        self.context.local.relays = relays;
        Ok(())
    }

    /// Sends to the peer through a channel of a relay.
    pub(super) fn move_through(
        &mut self,
        tag: PeerTag,
        relay: SocketAddr,
        channel: Channel,
        now: Instant,
    ) -> Result<(), CommandError> {
        if !self.context.local.relays.contains(&relay) {
            return Err(CommandError::UnknownRelay);
        }
        let peer = self.peers.peer(tag).ok_or(CommandError::UnknownPeer)?;
        self.context.move_through(peer, relay, channel, now);
        self.attend(tag, now);
        Ok(())
    }
}

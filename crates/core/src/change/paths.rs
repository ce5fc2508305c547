//! Changes of where a peer is looked for.

use std::net::SocketAddr;

use crate::node::Node;
use crate::{Candidate, CandidateScope, CommandError, Instant, PeerTag, Remote};

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

    /// Sets where the peer may be reached.
    pub(super) fn set_remote(&mut self, tag: PeerTag, remote: &Remote, now: Instant) -> Result<(), CommandError> {
        if remote.relayed.iter().any(|(relay, _)| !self.context.local.relays.contains(relay)) {
            return Err(CommandError::UnknownRelay);
        }
        let peer = self.peers.peer(tag).ok_or(CommandError::UnknownPeer)?;
        if !self.context.set_remote(peer, remote, now) {
            self.context.set_candidates(peer, &remote.candidates, now);
        }
        self.attend(tag, now);
        Ok(())
    }

    /// Sets the addresses that peers are told.
    pub(super) fn set_local_candidates(&mut self, mut candidates: Vec<Candidate>, scope: CandidateScope, now: Instant) {
        candidates.truncate(Self::MAX_LOCAL_CANDIDATES);
        if (&self.context.local.candidates, self.context.local.candidate_scope) == (&candidates, scope) {
            return;
        }
        let before = self.context.local.bases();
        self.context.local.candidates = candidates;
        self.context.local.candidate_scope = scope;
        let has_moved = self.context.local.bases() != before;
        for tag in self.peers.tags() {
            if let Some(peer) = self.peers.peer(tag) {
                self.context.on_local_candidates(peer, has_moved, now);
            }
            self.attend(tag, now);
        }
    }
}

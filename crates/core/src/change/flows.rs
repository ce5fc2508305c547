//! Flows that outlive a node: what it knows at its end, and what the next one takes over.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::node::Node;
use crate::{CommandError, Instant, PeerFlows, PeerTag};

impl Node {
    /// Returns the flows of all peers that have an allowlist, for the [`crate::Command::RestoreFlows`] of a later node.
    pub fn known_flows(&mut self, now: Instant) -> Vec<PeerFlows> {
        let mut known = Vec::new();
        let mut holes = self.holes();
        for tag in self.peers.tags() {
            let Some(peer) = self.peers.peer(tag) else { continue };
            let Some(allowlist) = &peer.rights.allowlist else { continue };
            let (flows, is_complete) = allowlist.known_flows(now);
            let prefixes = peer.rights.allowed_ips.iter().copied().collect();
            let holes = holes.remove(&tag).unwrap_or_default();
            known.push(PeerFlows { peer: peer.tunnel.key, flows, is_complete, prefixes, holes });
        }
        known
    }

    /// The prefixes that a different peer has inside a prefix of each peer.
    fn holes(&mut self) -> BTreeMap<PeerTag, Vec<IpNet>> {
        let mut holes: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for tag in self.peers.tags() {
            let prefixes = self.peers.peer(tag).map(|peer| peer.rights.allowed_ips.clone()).unwrap_or_default();
            for prefix in prefixes {
                let around = prefix.supernet().and_then(|around| self.peers.allowed_ips.covering(&around));
                if let Some(around) = around.filter(|around| *around != tag) {
                    holes.entry(around).or_default().push(prefix);
                }
            }
        }
        holes
    }

    /// Takes over what an earlier node knew. Its list is complete only for the addresses that were the peer's then.
    pub(super) fn restore_flows(&mut self, known: PeerFlows, now: Instant) -> Result<(), CommandError> {
        let tag = self.peers.find(known.peer).ok_or(CommandError::UnknownPeer)?;
        let is_heir = known.holes.iter().any(|hole| self.peers.allowed_ips.covering(hole) == Some(tag));
        let (peer, allowed_ips) = self.peers.peer_and_allowed_ips(tag).ok_or(CommandError::UnknownPeer)?;
        let has_gained = peer.rights.allowed_ips.iter().any(|prefix| !known.prefixes.contains(prefix));
        if let Some(allowlist) = peer.rights.allowlist.as_mut() {
            let party = |source| self.context.local.party(source, allowed_ips);
            allowlist.restore(known.flows, known.is_complete && !is_heir && !has_gained, party, now);
        }
        self.attend(tag, now);
        Ok(())
    }
}

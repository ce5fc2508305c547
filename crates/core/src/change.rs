//! Changes from control: what becomes of peers, and of our own key, while the node runs.
//!
//! Each is whole or not at all, and leaves alone what it does not name: a session lives on unless our own key changed.

use std::sync::Arc;
use std::time::Duration;

use rand_core::RngCore;
use zeroize::Zeroizing;

use crate::data::allowlist::Allowlist;
use crate::data::handshake::LOAD_LIMIT;
use crate::data::session::LocalKey;
use crate::node::Node;
use crate::peers::PeerId;
use crate::{
    AllowedIpChange, CommandError, DropReason, Instant, PeerChange, PeerConfig, PeerFlows, PeerKey, PeerStats, WallStep,
};

/// From one peer to the next where all are called anew: a handshake takes a fraction of it to begin.
const CALL_INTERVAL: Duration = Duration::from_millis(1);

impl Node {
    /// Makes `config` all that a peer is configured with.
    pub(crate) fn set_peer(
        &mut self,
        config: PeerConfig,
        stats: Arc<PeerStats>,
        now: Instant,
    ) -> Result<(), CommandError> {
        let known = self.peers.find(config.public_key);
        let is_new = known.is_none();
        let id = match known {
            Some(id) => id,
            None => self.add_peer(config.public_key, now)?,
        };
        let before = self.peers.set_allowed_ips(id, config.allowed_ips);
        let none = Zeroizing::new([0; 32]);
        self.set_preshared_key(id, config.preshared_key.unwrap_or(none), now);
        let Some(peer) = self.peers.peer(id) else { return Err(CommandError::UnknownPeer) };
        if let Some(address) = config.endpoint {
            peer.candidates = None;
            self.context.move_to(peer, address, now);
        }
        peer.stats = stats;
        peer.is_declared = true;
        peer.discovers = config.mtu_discovery;
        self.context.on_change(peer, now);
        if peer.is_alive(now) {
            // No need to wait for the next session.
            self.context.on_session(peer, true, now);
        }
        peer.persistent_keepalive = config.persistent_keepalive;
        let ports = self.context.local.ports.clone();
        match (&mut peer.allowlist, config.allow) {
            (_, None) => peer.allowlist = None,
            (Some(allowlist), Some(rules)) => {
                if !peer.allowed_ips.is_subset(&before) && ports.is_some() {
                    allowlist.doubt(ports, now);
                }
                allowlist.set_rules(rules);
            }
            // Nobody has said that there is a host beneath: no flow can be from before.
            (None, Some(rules)) if is_new && ports.is_none() => {
                peer.allowlist = Some(Box::new(Allowlist::new(rules, self.context.rng.next_u64())));
            }
            (None, Some(rules)) => {
                peer.allowlist = Some(Box::new(Allowlist::restricting(rules, self.context.rng.next_u64(), ports, now)));
            }
        }
        self.attend(id, now);
        Ok(())
    }

    /// Changes what `change` names.
    pub(crate) fn change_peer(&mut self, change: PeerChange, now: Instant) -> Result<(), CommandError> {
        let id = match (self.peers.find(change.public_key), change.add) {
            (Some(id), _) => id,
            (None, None) => return Err(CommandError::UnknownPeer),
            (None, Some(stats)) => {
                let id = self.add_peer(change.public_key, now)?;
                if let Some(peer) = self.peers.peer(id) {
                    peer.stats = stats;
                    // It is added without one.
                    peer.allowlist = None;
                }
                id
            }
        };
        let has_other_prefixes = !change.allowed_ips.is_empty();
        let gains = change.allowed_ips.iter().any(|change| matches!(change, AllowedIpChange::Add(_)));
        for change in change.allowed_ips {
            match change {
                AllowedIpChange::Add(prefix) => self.peers.add_allowed_ip(id, prefix),
                AllowedIpChange::Remove(prefix) => self.peers.remove_allowed_ip(id, prefix),
            }
        }
        if let Some(preshared_key) = change.preshared_key {
            self.set_preshared_key(id, preshared_key, now);
        }
        let Some(peer) = self.peers.peer(id) else { return Err(CommandError::UnknownPeer) };
        if let Some(address) = change.endpoint {
            peer.candidates = None;
            self.context.move_to(peer, address, now);
        }
        if has_other_prefixes {
            self.context.on_change(peer, now);
        }
        if gains
            && let Some(allowlist) = &mut peer.allowlist
            && let ports @ Some(_) = self.context.local.ports.clone()
        {
            allowlist.doubt(ports, now);
        }
        let mut is_switched_on = false;
        if let Some(interval) = change.persistent_keepalive {
            is_switched_on = peer.persistent_keepalive.is_none() && interval.is_some();
            peer.persistent_keepalive = interval;
        }
        if is_switched_on && peer.is_alive(now) {
            self.context.send_keepalive(peer, now);
        }
        self.attend(id, now);
        Ok(())
    }

    /// Forgets a peer, but for its flows.
    pub(crate) fn remove_peer(&mut self, key: PeerKey, now: Instant) -> Result<(), CommandError> {
        let mut peer = self.peers.remove(key).ok_or(CommandError::UnknownPeer)?;
        self.context.indices.release(&peer);
        if let Some(allowlist) = peer.allowlist.take() {
            self.parked.park(key, *allowlist, now);
        }
        self.context.endpoints.on_moved(peer.endpoint.map(|endpoint| endpoint.address), None);
        self.context.stats.count_drops(DropReason::StagedExpired, peer.staged.clear());
        Ok(())
    }

    /// Changes our own key. The one that we have already changes nothing.
    pub(crate) fn set_private_key(&mut self, key: Option<Zeroizing<[u8; 32]>>, now: Instant) {
        let key = key.map(|key| LocalKey::new(&key, LOAD_LIMIT, now));
        let public = key.as_ref().map(LocalKey::public);
        if public == self.public_key() {
            return;
        }
        self.context.local.key = key;
        let can_speak = self.context.local.can_speak();
        if let Some(own) = public {
            // Most often it is not there.
            let _ = self.remove_peer(own, now);
        }
        let mut at = now;
        for id in self.peers.ids() {
            let Some(peer) = self.peers.peer(id) else { continue };
            peer.on_local_end(can_speak, now);
            if public.is_none() {
                let dropped = peer.staged.clear();
                self.context.stats.count_drops(DropReason::OutboundNoKey, dropped);
                peer.stats.drops.add(dropped);
            }
            self.attend_in_turn(id, &mut at, now);
        }
    }

    /// The interface came up or went down.
    pub(crate) fn set_up(&mut self, is_up: bool, now: Instant) {
        if self.context.local.is_up == is_up {
            return;
        }
        self.context.local.is_up = is_up;
        let can_speak = self.context.local.can_speak();
        let mut at = now;
        for id in self.peers.ids() {
            let Some(peer) = self.peers.peer(id) else { continue };
            let dropped = peer.staged.clear();
            self.context.stats.count_drops(DropReason::InterfaceDown, dropped);
            peer.stats.drops.add(dropped);
            peer.on_local_end(can_speak, now);
            peer.on_unwanted();
            self.attend_in_turn(id, &mut at, now);
        }
    }

    /// Somebody set the wall clock. A peer that is being called in vain may be so because of the time we gave: it is called
    /// again without delay.
    pub(crate) fn on_wall_clock_set(&mut self, step: WallStep, now: Instant) {
        self.context.local.wall.on_step(step);
        for id in self.peers.ids() {
            let Some(peer) = self.peers.peer(id) else { continue };
            peer.on_wall_clock_set(&mut self.context.rng);
            self.deadlines.arm_next(peer, now);
        }
    }

    /// Calls one of many peers that are all to be called: now if packets wait for it, else at `at`, which is later for the
    /// next one. Ten thousand handshakes at once would keep packets waiting for seconds.
    fn attend_in_turn(&mut self, id: PeerId, at: &mut Instant, now: Instant) {
        let Some(peer) = self.peers.peer(id) else { return };
        if !peer.staged.is_empty() {
            return self.attend(id, now);
        }
        if peer.deadline(now).is_some() {
            self.deadlines.arm(id, &mut peer.armed, *at);
            *at = *at + CALL_INTERVAL;
        }
    }

    fn add_peer(&mut self, key: PeerKey, now: Instant) -> Result<PeerId, CommandError> {
        if Some(key) == self.public_key() {
            return Err(CommandError::OwnKey);
        }
        if self.peers.len() >= Self::MAX_PEERS {
            return Err(CommandError::TooManyPeers);
        }
        let id = self.peers.insert(key, &mut self.context.indices, now, &mut self.context.rng);
        if let Some(peer) = self.peers.peer(id) {
            peer.on_local_end(self.context.local.can_speak(), now);
            peer.allowlist = self.parked.take(key, now).map(Box::new);
        }
        Ok(id)
    }

    /// The flows of all peers that have an allowlist, for the [`crate::Command::RestoreFlows`] of a later node.
    pub fn known_flows(&mut self, now: Instant) -> Vec<PeerFlows> {
        let mut known = Vec::new();
        for id in self.peers.ids() {
            let Some(peer) = self.peers.peer(id) else { continue };
            let Some(allowlist) = &peer.allowlist else { continue };
            let (flows, is_complete) = allowlist.known_flows(now);
            known.push(PeerFlows { peer: peer.key, flows, is_complete });
        }
        known
    }

    pub(crate) fn restore_flows(&mut self, known: PeerFlows, now: Instant) -> Result<(), CommandError> {
        let id = self.peers.find(known.peer).ok_or(CommandError::UnknownPeer)?;
        if let Some(allowlist) = self.peers.peer(id).and_then(|peer| peer.allowlist.as_mut()) {
            allowlist.restore(known.flows, known.is_complete, now);
        }
        Ok(())
    }

    /// All zero means none. It counts from the next handshake on, as in the kernel.
    fn set_preshared_key(&mut self, id: PeerId, key: Zeroizing<[u8; 32]>, now: Instant) {
        let Some(peer) = self.peers.peer(id) else { return };
        let key = Some(key).filter(|key| **key != [0; 32]);
        if peer.preshared_key == key {
            return;
        }
        peer.preshared_key = key;
        if !peer.session.as_ref().is_some_and(|session| session.is_in_use(now)) {
            return peer.forget_sessions(now);
        }
        self.context.renew_engine(peer, now);
    }
}

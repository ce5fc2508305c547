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
use crate::{AllowedIpChange, CommandError, DropReason, Instant, PeerChange, PeerConfig, PeerKey, PeerStats};

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
        self.peers.set_allowed_ips(id, config.allowed_ips);
        let none = Zeroizing::new([0; 32]);
        self.set_preshared_key(id, config.preshared_key.unwrap_or(none), now);
        let Some(peer) = self.peers.peer(id) else { return Err(CommandError::UnknownPeer) };
        if let Some(address) = config.endpoint {
            peer.candidates = None;
            self.context.move_to(peer, address, now);
        }
        peer.stats = stats;
        peer.discovers = config.mtu_discovery;
        self.context.on_change(peer, now);
        if peer.is_alive(now) {
            // No need to wait for the next session.
            self.context.on_session(peer, true, now);
        }
        peer.persistent_keepalive = config.persistent_keepalive;
        match (&mut peer.allowlist, config.allow) {
            (_, None) => peer.allowlist = None,
            (Some(allowlist), Some(rules)) => allowlist.set_rules(rules),
            (None, Some(rules)) if is_new => {
                peer.allowlist = Some(Allowlist::new(rules, self.context.rng.next_u64()));
            }
            (None, Some(rules)) => {
                peer.allowlist = Some(Allowlist::restricting(rules, self.context.rng.next_u64(), now));
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
                }
                id
            }
        };
        let has_other_prefixes = !change.allowed_ips.is_empty();
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

    /// Forgets a peer.
    pub(crate) fn remove_peer(&mut self, key: PeerKey) -> Result<(), CommandError> {
        let mut peer = self.peers.remove(key).ok_or(CommandError::UnknownPeer)?;
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
            let _ = self.remove_peer(own);
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
        let id = self.peers.insert(key, now, &mut self.context.rng);
        if let Some(peer) = self.peers.peer(id) {
            peer.on_local_end(self.context.local.can_speak(), now);
        }
        Ok(id)
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
        self.peers.renew_index(id, now, &mut self.context.rng);
        if let Some(peer) = self.peers.peer(id) {
            self.context.renew_preshared_key(peer, now);
        }
    }
}

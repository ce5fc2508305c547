//! Changes from control: what happens to peers, and to our own keys, while the node runs.
//!
//! Each change is applied whole or not at all, and leaves alone what it does not name. A session continues unless one of
//! its keys goes.

mod flows;
mod paths;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng as _};
use zeroize::Zeroizing;

use crate::data::allowlist::{Allowlist, HostPorts};
use crate::data::budget::Purse;
use crate::data::shares::Party;
use crate::node::Node;
use crate::path::endpoint::Endpoint;
use crate::peer::Peer;
use crate::session::answered::Answered;
use crate::session::gate::LOAD_LIMIT;
use crate::session::local_key::LocalKeys;
use crate::{
    AllowedIpChange, Command, CommandError, DropReason, Instant, PathTag, PeerChange, PeerConfig, PeerKey, PeerStats,
    PeerTag, WallStep,
};

/// The time between calls when all peers are called again: a handshake takes a fraction of it to begin.
const CALL_INTERVAL: Duration = Duration::from_millis(1);

impl Node {
    /// See [`Node::handle_command`].
    pub(crate) fn change(&mut self, command: Command, now: Instant) -> Result<(), CommandError> {
        match command {
            Command::SetPeer { peer, config, stats } => return self.set_peer(peer, *config, stats, now),
            Command::ChangePeer(change) => return self.change_peer(*change, now),
            Command::RemovePeer(peer) => return self.remove_peer(peer, now),
            Command::SetPrivateKeys { present, former } => return self.set_private_keys(present, &former, now),
            Command::SetCandidates(peer, addresses) => return self.set_candidates(peer, &addresses, now),
            Command::ForgetCandidates(peer) => return self.forget_candidates(peer),
            Command::SetRelays(relays) => return self.set_relays(relays),
            Command::SetRemote { peer, remote } => return self.set_remote(peer, &remote, now),
            Command::SetLocalCandidates { candidates, scope, nat } => {
                self.context.local.nat = nat;
                self.set_local_candidates(candidates, scope, now);
            }
            Command::TooBig(path, mtu) => return self.too_big(path, mtu, now),
            Command::SayWord(peer, word) => return self.say_word(peer, &word, now),
            Command::SendParcel(peer, parcel) => return self.send_parcel(peer, &parcel, now),
            Command::Call(peer) => return self.call(peer, now),
            Command::CallForWord(peer) => return self.call_for_word(peer, now),
            Command::KnowsPresharedKey(peer) => return self.on_preshared_key_known(peer, now),
            Command::RestoreFlows(known) => return self.restore_flows(known, now),
            Command::RestoreInitiations(known) => self.restore_initiations(known, now),
            Command::RunAhead(by) => self.context.local.wall.run_ahead(by),
            Command::SetUp(is_up) => self.set_up(is_up, now),
            Command::SetAddresses { addresses, forward } => self.set_addresses(addresses, forward, now),
            Command::SetPools(pools) => self.context.local.pools = pools,
            Command::SetMtu { mtu, max } => self.set_mtu(mtu, max, now),
            Command::WallClockSet(step) => self.on_wall_clock_set(step, now),
            Command::Copied { seed } => self.on_copied(&seed, now),
            Command::SetJoins(joins) => self.context.local.joins = joins,
            Command::HostPorts { taken, ephemeral } => {
                self.context.local.ports = Some(HostPorts::new(&self.context.local.addresses, taken, ephemeral));
            }
        }
        Ok(())
    }

    /// Makes `config` the whole configuration of a peer.
    fn set_peer(
        &mut self,
        tag: PeerTag,
        config: PeerConfig,
        stats: Arc<PeerStats>,
        now: Instant,
    ) -> Result<(), CommandError> {
        let is_new = self.peers.peer(tag).is_none();
        let is_to_call = if is_new {
            self.add_peer(tag, config.public_key, now)?.tunnel.own_key = config.own_key;
            false
        } else {
            self.set_public_key(tag, config.public_key, config.former_key, now)?
        };
        let before = self.peers.set_allowed_ips(tag, config.allowed_ips);
        self.doubt_heirs(tag, before.iter(), now);
        let none = Zeroizing::new([0; 32]);
        self.set_preshared_key(tag, config.preshared_key.unwrap_or(none), config.former_preshared_key, now);
        let Some(peer) = self.peers.peer(tag) else { return Err(CommandError::UnknownPeer) };
        if let Some(address) = config.endpoint {
            peer.candidates = None;
            self.context.move_to(peer, address, now);
        }
        self.context.set_finds_paths(peer, config.finds_paths);
        peer.stats = stats;
        peer.rights.is_declared = true;
        peer.rights.opens = config.opens.map(Vec::into_boxed_slice);
        peer.discovers = config.mtu_discovery;
        self.context.on_change(peer, now);
        if peer.is_alive(now) {
            // A new session need not be awaited.
            self.context.on_session(peer, true, now);
        }
        peer.tunnel.persistent_keepalive = config.persistent_keepalive;
        let ports = self.context.local.ports.clone();
        let party = Party::peer(tag, self.context.local.secret);
        let purse = Purse { party, budget: self.context.flows.clone() };
        match (&mut peer.rights.allowlist, config.allow) {
            (_, None) => peer.rights.allowlist = None,
            (Some(allowlist), Some(rules)) => {
                if !peer.rights.allowed_ips.is_subset(&before) && ports.is_some() {
                    allowlist.doubt(ports, now);
                }
                allowlist.set_rules(rules);
            }
            // The node was never told of a host beneath it, so no flow can be older than the node.
            (None, Some(rules)) if is_new && ports.is_none() => {
                peer.rights.allowlist = Some(Box::new(Allowlist::new(rules, self.context.rng.next_u64(), purse)));
            }
            (None, Some(rules)) => {
                peer.rights.allowlist =
                    Some(Box::new(Allowlist::restricting(rules, self.context.rng.next_u64(), purse, ports, now)));
            }
        }
        if is_to_call {
            // The next handshake need not wait for one by the earlier key.
            peer.tunnel.initiated = None;
            self.context.call_back(peer, now);
        }
        self.attend(tag, now);
        Ok(())
    }

    /// Changes the parts of a peer that `change` names.
    fn change_peer(&mut self, change: PeerChange, now: Instant) -> Result<(), CommandError> {
        let tag = change.peer;
        if self.peers.peer(tag).is_none() {
            let (key, stats) = change.add.ok_or(CommandError::UnknownPeer)?;
            let peer = self.add_peer(tag, key, now)?;
            peer.stats = stats;
            // A peer that is added this way has no allowlist.
            peer.rights.allowlist = None;
        }
        let has_other_prefixes = !change.allowed_ips.is_empty();
        let removed = |change: &AllowedIpChange| match change {
            AllowedIpChange::Remove(prefix) => Some(prefix.trunc()),
            AllowedIpChange::Add(_) => None,
        };
        let removed: Vec<_> = change.allowed_ips.iter().filter_map(removed).collect();
        let gains = change.allowed_ips.iter().any(|change| matches!(change, AllowedIpChange::Add(_)));
        for change in change.allowed_ips {
            match change {
                AllowedIpChange::Add(prefix) => self.peers.add_allowed_ip(tag, prefix),
                AllowedIpChange::Remove(prefix) => self.peers.remove_allowed_ip(tag, prefix),
            }
        }
        self.doubt_heirs(tag, removed.iter(), now);
        if let Some(preshared_key) = change.preshared_key {
            self.set_preshared_key(tag, preshared_key, None, now);
        }
        let Some(peer) = self.peers.peer(tag) else { return Err(CommandError::UnknownPeer) };
        if let Some(address) = change.endpoint {
            peer.candidates = None;
            self.context.move_to(peer, address, now);
        }
        if has_other_prefixes {
            self.context.on_change(peer, now);
        }
        if gains
            && let Some(allowlist) = &mut peer.rights.allowlist
            && let ports @ Some(_) = self.context.local.ports.clone()
        {
            allowlist.doubt(ports, now);
        }
        let mut is_switched_on = false;
        if let Some(interval) = change.persistent_keepalive {
            is_switched_on = peer.tunnel.persistent_keepalive.is_none() && interval.is_some();
            peer.tunnel.persistent_keepalive = interval;
        }
        if is_switched_on && peer.is_alive(now) {
            self.context.send_keepalive(peer, now);
        }
        self.attend(tag, now);
        Ok(())
    }

    /// Removes a peer, but keeps its flows and its replay state.
    fn remove_peer(&mut self, tag: PeerTag, now: Instant) -> Result<(), CommandError> {
        let mut peer = self.peers.remove(tag).ok_or(CommandError::UnknownPeer)?;
        self.context.indices.release(&peer.tunnel.receivers);
        self.doubt_heirs(tag, peer.rights.allowed_ips.iter(), now);
        if let Some(allowlist) = peer.rights.allowlist.take() {
            self.flows_parked.park(peer.tunnel.key, *allowlist, now);
        }
        let replays = peer.tunnel.replays();
        if !replays.is_empty() {
            self.replays_parked.park(peer.tunnel.key, replays, now);
        }
        self.answered.forget(tag);
        self.context.endpoints.on_moved(peer.paths.endpoint().map(Endpoint::far), None);
        self.context.stats.count_drops(DropReason::StagedExpired, peer.staged.clear());
        Ok(())
    }

    /// The peer may have lost these prefixes. Where a different peer has a shorter prefix around one of them, its addresses
    /// are that peer's now, and there may be flows with them that were never that peer's.
    fn doubt_heirs<'a>(&mut self, tag: PeerTag, prefixes: impl Iterator<Item = &'a IpNet>, now: Instant) {
        let Some(ports) = &self.context.local.ports else { return };
        for prefix in prefixes {
            let Some(heir) = self.peers.allowed_ips.covering(prefix).filter(|heir| *heir != tag) else { continue };
            if let Some(allowlist) = self.peers.peer(heir).and_then(|heir| heir.rights.allowlist.as_mut()) {
                allowlist.doubt(Some(ports.clone()), now);
            }
        }
    }

    /// Changes our own keys. Keys that we already have change nothing.
    fn set_private_keys(
        &mut self,
        present: Option<Zeroizing<[u8; 32]>>,
        former: &[Zeroizing<[u8; 32]>],
        now: Instant,
    ) -> Result<(), CommandError> {
        if former.len() > Self::MAX_FORMER_KEYS {
            return Err(CommandError::TooManyKeys);
        }
        let keys = LocalKeys::new(present.as_deref(), former, LOAD_LIMIT, now);
        self.answered = Answered::default();
        if keys.publics().eq(self.context.local.keys.publics()) {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.context.local.keys, keys);
        let is_new = before.publics().next() != self.context.local.keys.publics().next();
        let can_speak = self.context.local.can_speak();
        let own: Vec<_> = self.context.local.keys.publics().filter_map(|own| self.peers.find(own)).collect();
        for tag in own {
            self.remove_peer(tag, now)?;
        }
        let mut at = now;
        for tag in self.peers.tags() {
            let Some(peer) = self.peers.peer(tag) else { continue };
            peer.tunnel.knows_present_key &= !is_new;
            if peer.tunnel.own_key.is_none() {
                // As far as is known, the peer knows the key before.
                peer.tunnel.own_key =
                    before.publics().next().filter(|own| self.context.local.keys.find(*own).is_some());
            }
            let is_kept = |own| [&before, &self.context.local.keys].iter().all(|keys| keys.find(own).is_some());
            if peer.tunnel.own_key.is_some_and(is_kept) {
                continue;
            }
            peer.on_local_end(can_speak, now);
            if present.is_none() {
                let dropped = peer.staged.clear();
                self.context.stats.count_drops(DropReason::OutboundNoKey, dropped);
                peer.stats.drops.add(dropped);
            }
            self.attend_in_turn(tag, &mut at, now);
        }
        Ok(())
    }

    fn on_preshared_key_known(&mut self, tag: PeerTag, now: Instant) -> Result<(), CommandError> {
        let peer = self.peers.peer(tag).ok_or(CommandError::UnknownPeer)?;
        if peer.tunnel.preshared.are_two() {
            // It need not wait for a handshake that the peer could not have answered.
            peer.tunnel.initiated = None;
            self.context.call_back(peer, now);
        }
        self.attend(tag, now);
        Ok(())
    }

    fn say_word(&mut self, tag: PeerTag, word: &[u8], now: Instant) -> Result<(), CommandError> {
        let peer = self.peers.peer(tag).ok_or(CommandError::UnknownPeer)?;
        self.context.say_word(peer, word, now);
        peer.arm(&mut self.deadlines, now);
        Ok(())
    }

    fn send_parcel(&mut self, tag: PeerTag, parcel: &[u8], now: Instant) -> Result<(), CommandError> {
        let peer = self.peers.peer(tag).ok_or(CommandError::UnknownPeer)?;
        self.context.send_parcel(peer, parcel, now);
        peer.arm(&mut self.deadlines, now);
        Ok(())
    }

    fn call(&mut self, tag: PeerTag, now: Instant) -> Result<(), CommandError> {
        let peer = self.peers.peer(tag).ok_or(CommandError::UnknownPeer)?;
        if !peer.is_alive(now) {
            if let Some(agent) = &mut peer.paths.agent {
                agent.call_at_once(now);
            }
            peer.tunnel.on_wanted(now, &mut self.context.rng);
        }
        peer.arm(&mut self.deadlines, now);
        Ok(())
    }

    fn call_for_word(&mut self, tag: PeerTag, now: Instant) -> Result<(), CommandError> {
        let peer = self.peers.peer(tag).ok_or(CommandError::UnknownPeer)?;
        self.context.call_for_word(peer, now);
        peer.arm(&mut self.deadlines, now);
        Ok(())
    }

    /// Handles an unverified "too big" about a path. It is ignored if the peer no longer has that path.
    fn too_big(&mut self, path: PathTag, mtu: u16, now: Instant) -> Result<(), CommandError> {
        let peer = self.peers.peer(path.peer).ok_or(CommandError::UnknownPeer)?;
        if let Some(discovery) = peer.paths.named(path).and_then(|path| path.discovery.as_mut()) {
            discovery.on_too_big(mtu.into());
        }
        self.attend(path.peer, now);
        Ok(())
    }

    fn set_addresses(&mut self, addresses: Vec<IpAddr>, forward: bool, now: Instant) {
        self.context.local.addresses = addresses;
        self.context.local.forward = forward;
        for tag in self.peers.tags() {
            let Some(peer) = self.peers.peer(tag) else { continue };
            self.context.on_change(peer, now);
            peer.arm(&mut self.deadlines, now);
        }
    }

    fn set_mtu(&mut self, mtu: u16, max: u16, now: Instant) {
        let is_news = self.context.local.max_mtu != usize::from(max);
        self.context.local.mtu = usize::from(mtu);
        self.context.local.max_mtu = usize::from(max);
        for tag in self.peers.tags() {
            let Some(peer) = self.peers.peer(tag) else { continue };
            if is_news {
                self.context.on_local_mtu(peer, now);
            }
            self.context.settle(peer, now);
            self.attend(tag, now);
        }
    }

    /// Handles the interface coming up or going down.
    fn set_up(&mut self, is_up: bool, now: Instant) {
        if self.context.local.is_up == is_up {
            return;
        }
        self.context.local.is_up = is_up;
        let can_speak = self.context.local.can_speak();
        let mut at = now;
        for tag in self.peers.tags() {
            let Some(peer) = self.peers.peer(tag) else { continue };
            let dropped = peer.staged.clear();
            self.context.stats.count_drops(DropReason::InterfaceDown, dropped);
            peer.stats.drops.add(dropped);
            peer.on_local_end(can_speak, now);
            peer.tunnel.on_unwanted();
            self.attend_in_turn(tag, &mut at, now);
        }
    }

    /// Handles a change of the wall clock. The time that we gave may be why a peer does not answer, so such a peer is
    /// called again without delay.
    fn on_wall_clock_set(&mut self, step: WallStep, now: Instant) {
        self.context.local.wall.on_step(step);
        for tag in self.peers.tags() {
            let Some(peer) = self.peers.peer(tag) else { continue };
            peer.tunnel.on_wall_clock_set(&mut self.context.rng);
            peer.arm(&mut self.deadlines, now);
        }
    }

    /// Ends everything that a copy of this node has, too.
    fn on_copied(&mut self, seed: &[u8; 32], now: Instant) {
        self.context.rng = ChaCha8Rng::from_seed(*seed);
        self.answered = Answered::default();
        self.context.local.keys.forget_cookies(LOAD_LIMIT, now);
        let can_speak = self.context.local.can_speak();
        let mut at = now;
        for tag in self.peers.tags() {
            let Some(peer) = self.peers.peer(tag) else { continue };
            let was_connected = peer.is_alive(now);
            peer.on_local_end(can_speak, now);
            if was_connected {
                // It would speak into the former session until it notices.
                peer.tunnel.on_wanted(now, &mut self.context.rng);
            }
            self.context.indices.renew(tag, &mut peer.tunnel.receivers, |_| false, &mut self.context.rng);
            self.attend_in_turn(tag, &mut at, now);
        }
    }

    /// Calls one of many peers. A peer for which packets wait is called now. Each other peer is called at `at`, which then
    /// moves on for the next one. Ten thousand handshakes at once would delay packets for seconds.
    fn attend_in_turn(&mut self, tag: PeerTag, at: &mut Instant, now: Instant) {
        let Some(peer) = self.peers.peer(tag) else { return };
        if !peer.staged.is_empty() {
            return self.attend(tag, now);
        }
        if peer.deadline(now).is_some() {
            self.deadlines.arm(tag, &mut peer.armed, *at);
            *at = *at + CALL_INTERVAL;
        }
    }

    fn add_peer(&mut self, tag: PeerTag, key: PeerKey, now: Instant) -> Result<&mut Peer, CommandError> {
        if self.context.local.keys.find(key).is_some() {
            return Err(CommandError::OwnKey);
        }
        self.peers.check(tag, key)?;
        let receivers = self.context.indices.assign(tag, &mut self.context.rng);
        let mut peer = Peer::new(tag, key, receivers, now);
        peer.on_local_end(self.context.local.can_speak(), now);
        if let Some(mut allowlist) = self.flows_parked.take(key, now) {
            allowlist.set_party(Party::peer(tag, self.context.local.secret));
            peer.rights.allowlist = Some(Box::new(allowlist));
        }
        peer.tunnel.remembered = self.replays_parked.take(key, now).unwrap_or_default();
        Ok(self.peers.insert(peer))
    }

    /// Gives a peer a new tunnel key. Its sessions end, unless they were made with the key `former` that the peer still
    /// answers under. Everything else stays. Returns whether the peer has to be called while its sessions continue.
    fn set_public_key(
        &mut self,
        tag: PeerTag,
        key: PeerKey,
        former: Option<PeerKey>,
        now: Instant,
    ) -> Result<bool, CommandError> {
        if self.context.local.keys.find(key).is_some() {
            return Err(CommandError::OwnKey);
        }
        let can_speak = self.context.local.can_speak();
        let before = self.peers.peer(tag).map(|peer| peer.tunnel.key);
        if before == Some(key) {
            return Ok(false);
        }
        self.peers.set_key(tag, key)?;
        self.answered.forget(tag);
        let remembered = self.replays_parked.take(key, now).unwrap_or_default();
        let Some(peer) = self.peers.peer(tag) else { return Ok(false) };
        let replays = peer.tunnel.on_key_changed(remembered);
        if let Some(before) = before.filter(|_| !replays.is_empty()) {
            self.replays_parked.park(before, replays, now);
        }
        let continues = former.is_some() && before == former && !key.is_low_order() && peer.is_alive(now);
        if continues {
            self.context.renew_engine(peer, now);
            peer.tunnel.remind_session(now);
        } else {
            peer.tunnel.session = None;
            peer.on_local_end(can_speak, now);
        }
        Ok(continues)
    }

    /// Sets the preshared key, and the one that counts until the peer has proven it. All zero means that there is no key. It
    /// counts from the next handshake on, as in the kernel.
    fn set_preshared_key(
        &mut self,
        tag: PeerTag,
        key: Zeroizing<[u8; 32]>,
        former: Option<Zeroizing<[u8; 32]>>,
        now: Instant,
    ) {
        let Some(peer) = self.peers.peer(tag) else { return };
        let key = Some(key).filter(|key| **key != [0; 32]);
        if !peer.tunnel.preshared.set(key, former) {
            return;
        }
        if !peer.tunnel.session.as_ref().is_some_and(|session| session.is_in_use(now)) {
            return peer.tunnel.forget_sessions(!peer.staged.is_empty(), now);
        }
        // As in the kernel, the key counts from the repetition of a handshake that is under way. The key of an agent comes from its
        // peer, which has it: there is no reason to wait for the repetition.
        let is_hurried = peer.paths.agent.is_some() && peer.tunnel.is_initiating() && !peer.is_alive(now);
        self.context.renew_engine(peer, now);
        if is_hurried {
            peer.tunnel.initiated = None;
            self.context.call_back(peer, now);
        }
    }
}

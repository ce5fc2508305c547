//! The hosts of a world, and what each node knows about the others.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use overlay_core::{
    Command, CommandError, DropReason, Event, HandOver, Instant, NodeStats, PeerConfig, PeerFlows, PeerKey, PeerStats,
    PeerTag,
};

use zeroize::Zeroizing;

use super::World;
use crate::host::{Host, HostId, HostOptions};
use crate::packet::Ends;
use crate::place::Realm;

impl World {
    /// Adds a host that knows no peers. The n-th has the outer addresses `192.0.2.n:51820` and `[2001:db8::n]:51820`,
    /// and the virtual IPs `10.77.0.n` and `fd77::n`.
    pub fn host(&mut self) -> HostId {
        self.host_with(HostOptions::default())
    }

    /// Adds a host with options of its own.
    pub fn host_with(&mut self, options: HostOptions) -> HostId {
        self.numbered += 1;
        self.hosts.push(Host::new(self.numbered, options, self.start, self.now, &mut self.rng));
        HostId(self.hosts.len() - 1)
    }

    /// Adds two hosts that know each other's key and endpoint.
    pub fn pair(&mut self) -> (HostId, HostId) {
        let (one, other) = (self.host(), self.host());
        self.introduce(one, other);
        (one, other)
    }

    /// Makes two hosts peers of each other.
    pub fn introduce(&mut self, one: HostId, other: HostId) {
        self.set_peer(one, other, |_| {});
        self.set_peer(other, one, |_| {});
    }

    /// Configures `peer` at `host`, or changes its configuration. `edit` gets the earlier configuration without the
    /// endpoint. A new peer has its first IPv4 address as endpoint, both its virtual IPs, and nothing else.
    pub fn set_peer(&mut self, host: HostId, peer: HostId, edit: impl FnOnce(&mut PeerConfig)) {
        let mut config = match self.hosts[host.0].peers.get(&self.key(peer)) {
            Some((config, _)) => PeerConfig { endpoint: None, ..config.clone() },
            None => self.new_peer(host, peer),
        };
        edit(&mut config);
        self.configure(host, config).expect("a host takes every other host as its peer");
    }

    /// Replaces the prefixes of a peer, which may be an outsider.
    pub fn set_allowed_ips(&mut self, host: HostId, peer: PeerKey, allowed_ips: Vec<IpNet>) {
        let (config, _) = &self.hosts[host.0].peers[&peer];
        let config = PeerConfig { endpoint: None, allowed_ips, ..config.clone() };
        self.configure(host, config).expect("it was taken before");
    }

    /// Configures this peer at `host`.
    ///
    /// # Errors
    /// Returns the node's error.
    pub fn configure(&mut self, host: HostId, config: PeerConfig) -> Result<(), CommandError> {
        let known = self.hosts[host.0].peers.get(&config.public_key).cloned();
        let (former, stats) = known.unwrap_or_else(|| (config.clone(), Arc::default()));
        let peer = self.tag_for(host, config.public_key);
        let command = Command::SetPeer { peer, config: Box::new(config.clone()), stats: Arc::clone(&stats) };
        self.command(host, command)?;
        let config = PeerConfig { endpoint: config.endpoint.or(former.endpoint), ..config };
        self.hosts[host.0].peers.insert(config.public_key, (config, stats));
        Ok(())
    }

    /// Removes a peer.
    pub fn remove_peer(&mut self, host: HostId, peer: PeerKey) {
        let tag = self.tag(host, peer);
        self.command(host, Command::RemovePeer(tag)).expect("the peer is there");
        let host = &mut self.hosts[host.0];
        host.peers.remove(&peer);
        host.tags.remove(&peer);
        host.free_tags.give_back(tag);
    }

    /// The peer has a new tunnel key, and `host` hears of it. Everything else stays.
    pub fn replace_key(&mut self, host: HostId, before: PeerKey, public_key: PeerKey) {
        self.replace_key_with(host, before, public_key, None);
    }

    /// As [`World::replace_key`], but `host` hears too that the peer still answers under the key before.
    pub fn rotate_key(&mut self, host: HostId, before: PeerKey, public_key: PeerKey) {
        self.replace_key_with(host, before, public_key, Some(before));
    }

    fn replace_key_with(&mut self, host: HostId, before: PeerKey, public_key: PeerKey, former_key: Option<PeerKey>) {
        let tag = self.tag(host, before);
        let (config, stats) = self.hosts[host.0].peers.remove(&before).expect("it is a peer");
        self.hosts[host.0].tags.remove(&before);
        self.hosts[host.0].tags.insert(public_key, tag);
        self.hosts[host.0].peers.insert(public_key, (PeerConfig { public_key, ..config.clone() }, stats));
        let config = PeerConfig { public_key, former_key, endpoint: None, ..config };
        self.configure(host, config).expect("a new key");
    }

    /// What `host` calls its peer in commands and events.
    pub fn tag(&self, host: HostId, peer: PeerKey) -> PeerTag {
        self.hosts[host.0].tags[&peer]
    }

    /// As [`World::tag`], and where there is no such peer, a tag for it.
    pub fn tag_for(&mut self, host: HostId, peer: PeerKey) -> PeerTag {
        let host = &mut self.hosts[host.0];
        *host.tags.entry(peer).or_insert_with(|| host.free_tags.take().expect("a world is small"))
    }

    /// Replaces or removes the private key of a host. Other hosts are not told.
    pub fn set_private_key(&mut self, host: HostId, key: Option<[u8; 32]>) {
        self.set_private_keys(host, key, Vec::new());
    }

    /// Gives a host another private key, and lets it answer under these former ones too. Nobody else is told.
    pub fn set_private_keys(&mut self, host: HostId, key: Option<[u8; 32]>, former: Vec<[u8; 32]>) {
        let present = key.map(Zeroizing::new);
        let former = former.into_iter().map(Zeroizing::new).collect();
        let command = Command::SetPrivateKeys { present: present.clone(), former };
        self.command(host, command).expect("any key is taken");
        let host = &mut self.hosts[host.0];
        host.key = host.node.public_key().unwrap_or(host.key);
        host.private_key = present;
    }

    /// The private key of a host.
    pub fn private_key(&self, host: HostId) -> Option<[u8; 32]> {
        self.hosts[host.0].private_key.as_deref().copied()
    }

    /// Sets the addresses that the peer's host name resolves to.
    ///
    /// # Errors
    /// Returns the node's error.
    pub fn resolve(&mut self, host: HostId, peer: PeerKey, addresses: &[SocketAddr]) -> Result<(), CommandError> {
        let tag = self.tag_for(host, peer);
        self.command(host, Command::SetCandidates(tag, addresses.to_vec()))
    }

    /// Passes a command to the node.
    ///
    /// # Errors
    /// Returns the node's error.
    pub fn command(&mut self, host: HostId, command: Command) -> Result<(), CommandError> {
        let result = self.hosts[host.0].node.handle_command(command, self.now);
        self.drain(host);
        result
    }

    /// What the node of a host would hand over to the next one.
    pub fn known_flows(&mut self, host: HostId) -> Vec<PeerFlows> {
        self.hosts[host.0].node.known_flows(self.now)
    }

    /// What the node of a host would hand over to the next one, with its flows.
    pub fn hand_over(&mut self, host: HostId) -> HandOver {
        self.hosts[host.0].node.hand_over(self.now)
    }

    /// Restarts the program with the same config. Counters start at zero, records stay.
    pub fn restart(&mut self, host: HostId) {
        self.hosts[host.0].restart(self.start, self.now, &mut self.rng);
        self.repeat_peers(host);
    }

    /// Configures the peers of a host again, after a restart.
    fn repeat_peers(&mut self, host: HostId) {
        let peers = std::mem::take(&mut self.hosts[host.0].peers);
        for (config, _) in peers.into_values() {
            self.configure(host, config).expect("it was taken before");
        }
        self.on_node_restarted(host);
    }

    /// Restarts the program as [`World::restart`] does, but in order: what the node hands over goes to the next one.
    pub fn restart_in_order(&mut self, host: HostId) {
        let HandOver { flows, initiations, ahead } = self.hosts[host.0].node.hand_over(self.now);
        self.hosts[host.0].restart(self.start, self.now, &mut self.rng);
        self.command(host, Command::RunAhead(ahead)).expect("it is never refused");
        for known in initiations {
            self.command(host, Command::RestoreInitiations(known)).expect("it is never refused");
        }
        self.repeat_peers(host);
        for known in flows {
            self.command(host, Command::RestoreFlows(known)).expect("a peer");
        }
    }

    /// Replaces the host's outer addresses, in the networks where it is. Datagrams in flight to the old ones are lost.
    pub fn roam(&mut self, host: HostId, outer: &[&str]) {
        let outer: Vec<SocketAddr> =
            outer.iter().map(|address| address.parse().expect("an address and a port")).collect();
        for address in &outer {
            if let Realm::Behind(router) = self.hosts[host.0].realm(*address) {
                self.routers[router.0].nat.on_host(address.ip());
            }
        }
        self.hosts[host.0].outer = outer;
        self.on_addresses(host);
    }

    /// Changes the MTU of the host's network interface: see [`HostOptions::device_mtu`].
    pub fn set_device_mtu(&mut self, host: HostId, mtu: usize) {
        self.hosts[host.0].device_mtu = mtu;
    }

    /// The outer addresses of a host.
    pub fn outer(&self, host: HostId) -> &[SocketAddr] {
        &self.hosts[host.0].outer
    }

    /// The public key of a host.
    pub fn key(&self, host: HostId) -> PeerKey {
        self.hosts[host.0].key
    }

    /// The virtual IPv4 addresses of two hosts.
    pub fn v4(&self, from: HostId, to: HostId) -> Ends {
        Ends::new(self.hosts[from.0].inner_v4, self.hosts[to.0].inner_v4)
    }

    /// The virtual IPv6 addresses of two hosts.
    pub fn v6(&self, from: HostId, to: HostId) -> Ends {
        Ends::new(self.hosts[from.0].inner_v6, self.hosts[to.0].inner_v6)
    }

    /// The counters of a host since it was started.
    pub fn stats(&self, host: HostId) -> &NodeStats {
        &self.hosts[host.0].stats
    }

    /// The host's counters for one peer.
    pub fn peer_stats(&self, host: HostId, peer: PeerKey) -> &PeerStats {
        &self.hosts[host.0].peers[&peer].1
    }

    /// How many handshakes `host` has completed with `peer`.
    pub fn handshakes(&self, host: HostId, peer: HostId) -> u64 {
        self.peer_stats(host, self.key(peer)).handshakes.value()
    }

    /// How many packets a host has dropped so far, by reason. Empty if none.
    pub fn drops(&self, host: HostId) -> BTreeMap<&'static str, u64> {
        let count = |reason: &DropReason| (reason.name(), self.hosts[host.0].stats.drops(*reason));
        DropReason::ALL.iter().map(count).filter(|(_, count)| *count > 0).collect()
    }

    /// The events that a node reported to control, and when.
    pub fn events(&self, host: HostId) -> &[(Instant, Event)] {
        &self.hosts[host.0].events
    }

    /// The datagrams that a node handed to control because they belong to no peer: their sources and contents.
    pub fn foreign(&self, host: HostId) -> &[(SocketAddr, Vec<u8>)] {
        &self.hosts[host.0].foreign
    }

    /// The last endpoint that `host` reported for its peer.
    pub fn last_endpoint(&self, host: HostId, peer: PeerKey) -> Option<SocketAddr> {
        let peer = self.hosts[host.0].tags.get(&peer).copied();
        self.hosts[host.0].events.iter().rev().find_map(|(_, event)| match event {
            Event::EndpointChanged(of, address, _) if Some(*of) == peer => Some(*address),
            _ => None,
        })
    }

    /// How often a node was called because its deadline had passed.
    pub fn wakeups(&self, host: HostId) -> u64 {
        self.hosts[host.0].wakeups
    }

    /// How often a node wrote to TUN. This is less than the number of packets received if some were joined into
    /// super-packets.
    pub fn tun_writes(&self, host: HostId) -> u64 {
        self.hosts[host.0].tun_writes
    }

    fn new_peer(&self, host: HostId, peer: HostId) -> PeerConfig {
        let mtu_discovery = self.hosts[host.0].options.mtu_discovery;
        let peer = &self.hosts[peer.0];
        let host_net = |address: IpAddr| IpNet::from(address);
        PeerConfig {
            endpoint: peer.outer.first().copied(),
            allowed_ips: vec![host_net(peer.inner_v4.into()), host_net(peer.inner_v6.into())],
            mtu_discovery,
            ..PeerConfig::of(peer.key)
        }
    }
}

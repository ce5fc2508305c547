//! The agents of a world: what they say reaches their nodes and each other.

use std::net::SocketAddr;
use std::time::Duration;

use overlay_core::{CandidateScope, Command, Nat, PathsReport, Remote};
use overlay_wire::signed::PublicKey;
use overlay_wire::wireguard::{DATA_OVERHEAD, PADDING};

use super::{Datagram, World};
use crate::agent::{Act, Agent, KnownRelay, Notice};
use crate::host::HostId;
use crate::place::{Party, RelayId};
use crate::record::Sent;

/// How long a message takes by way of the rendezvous, unless a test says otherwise.
pub(super) const RENDEZVOUS_DELAY: Duration = Duration::from_millis(50);
/// What the daemon sets for every peer that is an agent.
const KEEPALIVE: Duration = Duration::from_secs(25);
/// How much the packet carries that shows a route, in bytes. Nothing else in a test is as long.
const MARK_LEN: usize = 777;
/// How long a daemon waits for more changes of addresses before it looks.
const ADDRESSES_SETTLE: Duration = Duration::from_millis(250);

/// How a packet goes to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// Without a relay.
    Direct,
    /// Through this relay.
    Relayed(RelayId),
}

impl World {
    /// Puts an agent around the node of a host. It has not begun yet. It wants to be found at these relays.
    pub fn agent(&mut self, host: HostId, relays: &[RelayId]) {
        let homes = relays.iter().map(|relay| self.known_relay(*relay)).collect();
        // Every agent of a world is of the same network.
        let network = overlay_wire::signed::SecretKey::from_bytes(&[200; 32]).public();
        let agent = Agent::new(network, homes, self.fresh());
        self.hosts[host.0].agent = Some(Box::new(agent));
    }

    /// Two agents trust each other. Their nodes know each other's keys, and no endpoint.
    pub fn trust(&mut self, one: HostId, other: HostId) {
        for (host, peer) in [(one, other), (other, one)] {
            self.set_peer(host, peer, |config| {
                config.endpoint = None;
                config.finds_paths = true;
                config.persistent_keepalive = Some(KEEPALIVE);
            });
            let (identity, now) = (self.identity(peer), self.now);
            self.agent_of(host).on_trust(identity, now);
            self.carry(host);
        }
    }

    /// An agent begins. It hears what its peers have told the rendezvous so far.
    pub fn start_agent(&mut self, host: HostId) {
        let (outer, now) = (self.hosts[host.0].outer.clone(), self.now);
        self.agent_of(host).on_started(&outer, now);
        self.carry(host);
        let identity = self.identity(host);
        let told = self.hosts.iter().filter_map(|peer| Some((peer.agent.as_ref()?, peer)));
        let notices: Vec<_> = told.filter_map(|(agent, _)| Some((agent.identity(), agent.told(&identity)?))).collect();
        for (from, notice) in notices {
            self.deliver(from, identity, notice);
        }
    }

    /// How long a message takes by way of the rendezvous from now on.
    pub fn set_rendezvous_delay(&mut self, delay: Duration) {
        self.rendezvous_delay = delay;
    }

    /// The key that is the agent of a host.
    pub fn identity(&self, host: HostId) -> PublicKey {
        self.hosts[host.0].agent.as_ref().expect("the host has an agent").identity()
    }

    /// Where an agent says it can be reached: the addresses of its host, and those that its relays see.
    pub fn candidates(&self, host: HostId) -> Vec<SocketAddr> {
        self.hosts[host.0].agent.as_ref().map_or_else(Vec::new, |agent| agent.candidates())
    }

    /// Where an agent heard that its peer can be reached.
    pub fn known_candidates(&self, host: HostId, peer: HostId) -> Vec<SocketAddr> {
        let identity = self.identity(peer);
        self.hosts[host.0].agent.as_ref().map_or_else(Vec::new, |agent| agent.candidates_of(&identity).to_vec())
    }

    /// How many datagrams an agent's relays have sent it that answered nothing.
    pub fn distrusted(&self, host: HostId) -> u64 {
        self.hosts[host.0].agent.as_ref().map_or(0, |agent| agent.distrusted())
    }

    /// Sends a packet, and says how it left. Empty if it waits for a session. Two where it is mirrored.
    pub fn routes(&mut self, from: HostId, to: HostId) -> Vec<Route> {
        let before = self.sent.len();
        let packet = self.v4(from, to).udp(&[0xa5; MARK_LEN]);
        let len = packet.len().next_multiple_of(PADDING) + DATA_OVERHEAD;
        self.send(from, packet);
        // Probes may leave at the same moment. They are shorter.
        let of_it = self.sent[before..].iter().filter(|sent| sent.from == from && sent.inside().len() == len);
        of_it.map(route).collect()
    }

    /// What the node of a host says of the paths to its peer.
    pub fn paths(&mut self, host: HostId, peer: HostId) -> Option<PathsReport> {
        let tag = *self.hosts[host.0].tags.get(&self.hosts[peer.0].key)?;
        self.hosts[host.0].node.paths(tag, self.now)
    }

    /// The host's addresses changed: its agent notices soon.
    pub(super) fn on_addresses(&mut self, host: HostId) {
        if self.hosts[host.0].agent.is_none() {
            return;
        }
        self.after(ADDRESSES_SETTLE, move |world| {
            let (outer, now) = (world.hosts[host.0].outer.clone(), world.now);
            world.agent_of(host).on_addresses(&outer, now);
            world.carry(host);
        });
    }

    /// The node of a host was replaced by a new one, which knows its peers and nothing else.
    pub(super) fn on_node_restarted(&mut self, host: HostId) {
        if let Some(agent) = &mut self.hosts[host.0].agent {
            agent.on_node_restarted();
            self.carry(host);
        }
    }

    /// Calls the agent of a host if its deadline has passed.
    pub(super) fn wake_agent(&mut self, host: HostId) {
        if self.hosts[host.0].agent_deadline().is_none_or(|at| at > self.now) {
            return;
        }
        let now = self.now;
        self.agent_of(host).handle_timeout(now);
        self.carry(host);
        let deadline = self.hosts[host.0].agent_deadline();
        assert!(deadline.is_none_or(|at| at > self.now), "an agent with this deadline never sleeps: {deadline:?}");
    }

    /// Gives what belongs to no peer to the agent, or keeps it if the agent does not want it.
    pub(super) fn give_to_agent(&mut self, host: HostId, source: SocketAddr, datagram: Vec<u8>) {
        let now = self.now;
        let agent = self.hosts[host.0].agent.as_mut();
        if agent.is_some_and(|agent| agent.handle_foreign(source, &datagram, now)) {
            self.carry(host);
        } else {
            self.hosts[host.0].foreign.push((source, datagram));
        }
    }

    /// Does for an agent what it wants.
    fn carry(&mut self, host: HostId) {
        while let Some(act) = self.agent_of(host).poll_act() {
            match act {
                Act::Send { to, bytes } => {
                    self.launch(host, Datagram::plain(to, bytes));
                }
                Act::SetRelays(relays) => self.command(host, Command::SetRelays(relays)).expect("few relays"),
                Act::SetLocalCandidates(candidates) => {
                    let command =
                        Command::SetLocalCandidates { candidates, scope: CandidateScope::Auto, nat: Nat::Unknown };
                    self.command(host, command).expect("it is never refused");
                }
                Act::SetRemote { peer, remote } => self.set_remote(host, peer, remote),
                Act::Publish { to, notice } => self.deliver(self.identity(host), to, notice),
            }
        }
    }

    /// Tells a node where its peer may be reached.
    fn set_remote(&mut self, host: HostId, peer: PublicKey, remote: Remote) {
        let Some(peer) = self.host_of(&peer).map(|peer| self.tag(host, self.key(peer))) else { return };
        self.command(host, Command::SetRemote { peer, remote }).expect("a peer, and relays of ours");
    }

    /// Lets a notice reach a peer by way of the rendezvous. A peer that has not begun hears it when it begins.
    fn deliver(&mut self, from: PublicKey, to: PublicKey, notice: Notice) {
        self.after(self.rendezvous_delay, move |world| {
            if let Some(host) = world.host_of(&to) {
                let now = world.now;
                world.agent_of(host).on_notice(from, notice, now);
                world.carry(host);
            }
        });
    }

    /// The host whose agent has this identity.
    fn host_of(&self, identity: &PublicKey) -> Option<HostId> {
        let is_it = |agent: &Agent| agent.identity() == *identity;
        self.hosts.iter().position(|host| host.agent.as_deref().is_some_and(is_it)).map(HostId)
    }

    fn agent_of(&mut self, host: HostId) -> &mut Agent {
        self.hosts[host.0].agent.as_mut().expect("the host has an agent")
    }

    fn known_relay(&self, id: RelayId) -> KnownRelay {
        KnownRelay { id, key: self.relay_key(id), addresses: self.relay_addresses(id) }
    }
}

fn route(sent: &Sent) -> Route {
    match sent.to {
        Some(Party::Relay(relay)) => Route::Relayed(relay),
        _ => Route::Direct,
    }
}

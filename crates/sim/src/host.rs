//! A host: a node, its outer and inner addresses, and enough of a kernel to answer a ping.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use overlay_core::{
    Event, Instant, Joins, Node, NodeConfig, NodeStats, PeerConfig, PeerKey, PeerStats, PeerTag, PeerTags, Via,
};
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore as _;
use zeroize::Zeroizing;

use crate::agent::Agent;
use crate::place::Realm;
use crate::record::Received;

/// WireGuard's usual port.
const PORT: u16 = 51820;
/// The interface index that every host's only interface has.
const INTERFACE: u32 = 1;

/// Identifies a host of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub(crate) usize);

/// The settings of a host. Everything else follows from its number.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// See [`NodeConfig::mtu`].
    pub mtu: u16,
    /// See [`NodeConfig::max_mtu`].
    pub max_mtu: u16,
    /// The MTU in bytes of its only network interface. A longer packet with DF is refused.
    pub device_mtu: usize,
    /// Whether its node searches for the path MTU of its peers.
    pub mtu_discovery: bool,
    /// See [`NodeConfig::forward`].
    pub forward: bool,
    /// See [`NodeConfig::joins`].
    pub joins: Joins,
    /// Whether the node knows the host's virtual IPs. If not, inner addresses are not restricted to them, as in
    /// WireGuard.
    pub knows_addresses: bool,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            mtu: 1420,
            max_mtu: 1420,
            device_mtu: 65_535,
            mtu_discovery: false,
            forward: false,
            joins: Joins::NOTHING,
            knows_addresses: true,
        }
    }
}

pub(crate) struct Host {
    pub(crate) node: Node,
    pub(crate) key: PeerKey,
    pub(crate) private_key: Option<Zeroizing<[u8; 32]>>,
    pub(crate) options: HostOptions,
    pub(crate) device_mtu: usize,
    /// The outer addresses. Datagrams leave from the first one of their family unless the node wants a different one.
    pub(crate) outer: Vec<SocketAddr>,
    /// The networks of its IPv4 and its IPv6 addresses.
    pub(crate) realms: [Realm; 2],
    pub(crate) inner_v4: Ipv4Addr,
    pub(crate) inner_v6: Ipv6Addr,
    /// The peers that the node was told about, to be repeated after a restart.
    pub(crate) peers: BTreeMap<PeerKey, (PeerConfig, Arc<PeerStats>)>,
    /// The tags that the node knows its peers by, also those that it has no longer.
    pub(crate) tags: BTreeMap<PeerKey, PeerTag>,
    pub(crate) free_tags: PeerTags,
    pub(crate) stats: Arc<NodeStats>,
    /// The deadline that the node asked for when it was last drained.
    pub(crate) deadline: Option<Instant>,
    pub(crate) wakeups: u64,
    /// How many packets and super-packets were written to TUN.
    pub(crate) tun_writes: u64,
    pub(crate) received: Vec<Received>,
    pub(crate) events: Vec<(Instant, Event)>,
    /// What surrounds the node in agent mode.
    pub(crate) agent: Option<Box<Agent>>,
    /// Datagrams that belong to no peer, nor to the agent: their sources and contents.
    pub(crate) foreign: Vec<(SocketAddr, Vec<u8>)>,
}

impl Host {
    /// Creates the host with this number, 1 to 254. Its clock began at `start`.
    pub(crate) fn new(number: u8, options: HostOptions, start: Instant, now: Instant, rng: &mut ChaCha8Rng) -> Self {
        let mut private_key = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *private_key);
        let (inner_v4, inner_v6) = inner_addresses(number);
        let node = make_node(Some(&private_key), &options, (inner_v4, inner_v6), start, now, rng);
        Self {
            key: node.public_key().expect("a host has a key"),
            stats: node.stats(),
            node,
            private_key: Some(private_key),
            device_mtu: options.device_mtu,
            options,
            outer: vec![
                SocketAddr::from((Ipv4Addr::new(192, 0, 2, number), PORT)),
                SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()), PORT)),
            ],
            realms: [Realm::Internet; 2],
            inner_v4,
            inner_v6,
            peers: BTreeMap::new(),
            tags: BTreeMap::new(),
            free_tags: PeerTags::default(),
            deadline: None,
            wakeups: 0,
            tun_writes: 0,
            received: Vec::new(),
            events: Vec::new(),
            agent: None,
            foreign: Vec::new(),
        }
    }

    /// Replaces the node by a new one with the same key and no other memory.
    pub(crate) fn restart(&mut self, start: Instant, now: Instant, rng: &mut ChaCha8Rng) {
        let inner = (self.inner_v4, self.inner_v6);
        self.node = make_node(self.private_key.as_ref(), &self.options, inner, start, now, rng);
        self.stats = self.node.stats();
        self.deadline = None;
        self.tags.clear();
        self.free_tags = PeerTags::default();
    }

    /// When the agent has something to do. Never while the host is suspended.
    pub(crate) fn agent_deadline(&self) -> Option<Instant> {
        self.agent.as_ref().filter(|_| !self.outer.is_empty())?.deadline()
    }

    pub(crate) fn owns_inner(&self, address: IpAddr) -> bool {
        address == IpAddr::V4(self.inner_v4) || address == IpAddr::V6(self.inner_v6)
    }

    /// The network in which the host has this address.
    pub(crate) fn realm(&self, address: SocketAddr) -> Realm {
        self.realms[usize::from(address.is_ipv6())]
    }

    /// The source address of a datagram: the one that the node wants, or, if the host no longer has it, the one that
    /// the kernel would choose. `None` if the host has no address of that family.
    pub(crate) fn source_for(&self, via: Via, destination: SocketAddr) -> Option<SocketAddr> {
        let of_family = |address: &&SocketAddr| address.is_ipv4() == destination.is_ipv4();
        let wanted = via.local.map(|(address, _)| address);
        let sticky = self.outer.iter().filter(of_family).find(|address| Some(address.ip()) == wanted);
        sticky.or_else(|| self.outer.iter().find(of_family)).copied()
    }

    /// The local end of a datagram that was sent to `address`.
    pub(crate) fn via(address: SocketAddr) -> Via {
        Via::to(address.ip(), INTERFACE)
    }
}

/// The virtual IPs of the host or outsider with this number.
pub(crate) fn inner_addresses(number: u8) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(10, 77, 0, number), Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into()))
}

fn make_node(
    private_key: Option<&Zeroizing<[u8; 32]>>,
    options: &HostOptions,
    (v4, v6): (Ipv4Addr, Ipv6Addr),
    start: Instant,
    now: Instant,
    rng: &mut ChaCha8Rng,
) -> Node {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    let config = NodeConfig {
        private_key: private_key.cloned(),
        addresses: if options.knows_addresses { vec![v4.into(), v6.into()] } else { Vec::new() },
        forward: options.forward,
        mtu: options.mtu,
        max_mtu: options.max_mtu,
        seed,
        joins: options.joins,
        wall_anchor: Some(start),
    };
    Node::new(config, now)
}

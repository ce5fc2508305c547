//! What could be read of a file, with the place of each value: halfway between its tables and a `Config`.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;

use ipnet::IpNet;
use overlay_core::{PeerKey, Rule};
use zeroize::Zeroizing;

use super::key_file::ReadKeys;
use super::{
    Agent, Config, Dns, Endpoint, Guard, Interface, Mtu, MtuDiscovery, Peer, PrivateKey, Table, Tuning, Warning,
};

/// A value and its place.
pub(super) type Placed<T> = (T, Range<usize>);

/// Where key, addresses and peers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// From the file alone.
    Static,
    /// From the agent's identity and from trust. The file may add peers.
    Agent,
}

/// The readable part of `[interface]`.
pub(super) struct InterfaceDraft {
    pub(super) span: Range<usize>,
    pub(super) name: Option<String>,
    /// In static mode a missing one was reported.
    pub(super) private_key: Option<PrivateKey>,
    pub(super) addresses: Vec<Placed<IpNet>>,
    pub(super) listen_port: u16,
    pub(super) mtu: Mtu,
    pub(super) forward: bool,
    pub(super) fwmark: Option<u32>,
    pub(super) table: Table,
    pub(super) dns: Dns,
    pub(super) guard: Guard,
}

/// The readable part of a `[[peer]]`.
pub(super) struct PeerDraft {
    pub(super) name: Option<Placed<String>>,
    pub(super) public_key: Option<Placed<PeerKey>>,
    pub(super) preshared_key: Option<Zeroizing<[u8; 32]>>,
    pub(super) endpoint: Option<Placed<Endpoint>>,
    pub(super) allowed_ips: Vec<Placed<IpNet>>,
    pub(super) persistent_keepalive: Option<u16>,
    pub(super) allow: Option<Vec<Rule>>,
    /// The number of the peer in the file, from 1.
    pub(super) number: usize,
}

/// The readable part of the whole file.
pub(super) struct Parts {
    pub(super) interface: Option<InterfaceDraft>,
    pub(super) peers: Vec<PeerDraft>,
    /// `None` in static mode.
    pub(super) agent: Option<Agent>,
    pub(super) metrics: Option<SocketAddr>,
    pub(super) tuning: Tuning,
}

impl Parts {
    /// Builds the config. Must only be called if nothing was reported, because then every required part exists.
    pub(super) fn into_config(self, path: &Path, read_keys: ReadKeys, warnings: Vec<Warning>) -> Config {
        let interface = self.interface.expect("a missing [interface] was reported");
        Config {
            interface: Interface {
                name: interface.name.expect("a missing name was reported"),
                private_key: interface.private_key,
                addresses: interface.addresses.into_iter().map(|(address, _)| address).collect(),
                listen_port: interface.listen_port,
                mtu: interface.mtu,
                forward: interface.forward,
                fwmark: interface.fwmark,
                table: interface.table,
                dns: interface.dns,
                guard: interface.guard,
            },
            peers: self.peers.into_iter().map(|peer| peer.into_peer(&self.tuning)).collect(),
            agent: self.agent,
            former_keys: Vec::new(),
            metrics: self.metrics,
            tuning: self.tuning,
            path: path.to_owned(),
            read_keys,
            warnings,
        }
    }
}

impl PeerDraft {
    /// Returns the peer's name in messages.
    pub(super) fn label(&self) -> String {
        match &self.name {
            Some((name, _)) => format!("`{name}`"),
            None => format!("number {}", self.number),
        }
    }

    fn into_peer(self, tuning: &Tuning) -> Peer {
        Peer {
            name: self.name.map(|(name, _)| name),
            public_key: self.public_key.expect("a missing key was reported").0,
            preshared_key: self.preshared_key,
            former_preshared_key: None,
            endpoint: self.endpoint.map(|(endpoint, _)| endpoint),
            allowed_ips: self.allowed_ips.into_iter().map(|(prefix, _)| prefix).collect(),
            persistent_keepalive: self.persistent_keepalive,
            allow: self.allow,
            opens: None,
            mtu_discovery: tuning.mtu_discovery == MtuDiscovery::Auto,
            agent: None,
        }
    }
}

//! The config of one interface: the content of a TOML file, checked to the last value. In static mode it says everything;
//! in agent mode key, addresses and most peers come later ([`Config::in_force`]).
//!
//! [`Config::load`] is the usual way in. A value of these types has passed every check, so later code does not check
//! again. A file with mistakes yields a [`ConfigError`] that contains *all* of them, each with its place and its fix.
//! Keys are read from the files that the config names. They are never written in the config itself.
//!
//! Left out: whether the host supports it (`host` asks the kernel), and resolving host names (`resolve`).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
pub use overlay_os::schedule::Scheduling;

use overlay_core::{Joins, NodeConfig, PeerConfig, PeerKey, Rule};
use zeroize::Zeroizing;

mod agent;
mod check;
mod credential;
mod document;
mod draft;
mod failure;
mod key_file;
mod keys;
mod problem;
mod reference;
mod schema;
mod secret;
mod sections;
mod template;
mod value;

pub use crate::keys::PrivateKey;
pub use agent::{Agent, AgentPart, AgentPeer, Approved, Candidates, RendezvousUrl, Trust};
pub(crate) use key_file::KeyFiles;
use key_file::ReadKeys;
pub use keys::{Absent, Applied, Key, KeyTable, keys_for_next_up, tables};
pub use problem::{ConfigError, Problem, Warning};
pub use reference::reference;
pub use schema::schema;
pub use template::{AgentTemplate, Template, agent_template, template};
pub(crate) use value::{check_agent_name, is_peer_name, parse_endpoint, parse_net, parse_service, parse_tag};
pub use value::{check_scope, interface_name_of, parse_address, parse_rendezvous};

/// The folder in which a bare NAME is looked up.
pub const CONFIG_FOLDER: &str = "/etc/overlay";

/// UDP port when the config names none, as most WireGuard guides have it.
pub const DEFAULT_LISTEN_PORT: u16 = 51820;

/// The config of one interface and its peers.
#[derive(Clone, Debug)]
pub struct Config {
    /// This host's side.
    pub interface: Interface,
    /// The peers, in the order of the file.
    pub peers: Vec<Peer>,
    /// Agent mode; `None` in static mode.
    pub agent: Option<Agent>,
    /// Former tunnel keys of this host that are still answered. No file has any: [`Config::in_force`] adds them.
    pub former_keys: Vec<PrivateKey>,
    /// The address at which metrics are served, if any.
    pub metrics: Option<SocketAddr>,
    /// Switches that nobody should need.
    pub tuning: Tuning,
    /// The path of the file, as given.
    pub path: PathBuf,
    read_keys: ReadKeys,
    warnings: Vec<Warning>,
}

/// This host's side of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's name for it: 1 to 15 of `A-Z a-z 0-9 _ = + . -`. Without a `name` in the file, the file's own.
    pub name: String,
    /// The tunnel key. The file of agent mode has none: [`Config::in_force`] adds it.
    pub private_key: Option<PrivateKey>,
    /// The virtual IPs with the prefix each is connected to. Host bits are kept: `10.77.0.1/24`. At least one, except in
    /// agent mode before [`Config::in_force`].
    pub addresses: Vec<IpNet>,
    /// UDP port; 0 lets the kernel choose.
    pub listen_port: u16,
    /// MTU of the inner packets.
    pub mtu: Mtu,
    /// Whether peers may reach destinations that are not this host's own addresses.
    pub forward: bool,
    /// Mark of the outer packets, never 0.
    pub fwmark: Option<u32>,
    /// Where the routes to `allowed_ips` go.
    pub table: Table,
    /// How the programs of this host find agents by name.
    pub dns: Dns,
    /// From where virtual IPs are reached, and whether a default route has a second lock.
    pub guard: Guard,
}

/// MTU of the inner packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mtu {
    /// That of the route to the endpoint minus 80, as wg-quick computes it, and for a path that carries more up to what
    /// that route carries.
    #[default]
    Auto,
    /// Bytes, 576..=65535.
    Fixed(u16),
}

/// The MTUs of inner packets in bytes: what [`Mtu`] amounts to on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MtuRange {
    /// The MTU for a peer about whose path nothing is known, 576..=65535.
    pub start: u16,
    /// The most that a path may turn out to carry, `start`..=65535. This is the interface's MTU.
    pub max: u16,
}

impl MtuRange {
    /// The range for an MTU that the config sets: never more, and less only when a path is found to carry less.
    pub fn fixed(mtu: u16) -> Self {
        Self { start: mtu, max: mtu }
    }
}

/// The routing table for the peers' prefixes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Table {
    /// The main table; a /0 gets a table and policy rules of its own, as with wg-quick.
    #[default]
    Auto,
    /// No routes are added.
    Off,
    /// This table, never 0, and no policy rules.
    Number(u32),
}

/// How the programs of this host find agents by name. Static mode has no names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dns {
    /// By systemd-resolved where this host asks it, else by the hosts file.
    #[default]
    Auto,
    /// By systemd-resolved.
    Resolved,
    /// By the hosts file.
    Hosts,
    /// Not at all.
    Off,
}

/// The table in nft that keeps others from the virtual IPs, and what a default route covers inside the tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guard {
    /// The virtual IPs answer on their interface, on loopback, and to this host's own containers.
    #[default]
    Auto,
    /// The virtual IPs answer on their interface and on loopback alone.
    Strict,
    /// There is no table: the virtual IPs answer on every interface, and policy rules alone keep a default route.
    Off,
}

/// A remote node and what it may do.
#[derive(Clone, PartialEq, Eq)]
pub struct Peer {
    /// For people; one per peer and no peer key.
    pub name: Option<String>,
    /// The X25519 public key, never a low-order point.
    pub public_key: PeerKey,
    /// Mixed into every handshake.
    pub preshared_key: Option<Zeroizing<[u8; 32]>>,
    /// The preshared key before, until the peer has proven the present one. Only agent mode has it.
    pub former_preshared_key: Option<Zeroizing<[u8; 32]>>,
    /// Where it is reached; `None`: it calls us.
    pub endpoint: Option<Endpoint>,
    /// Inner prefixes that are this peer's, host bits zero, no prefix twice in one config.
    pub allowed_ips: Vec<IpNet>,
    /// Seconds, 1..=65535.
    pub persistent_keepalive: Option<u16>,
    /// What it may open towards us. `None`: everything it is routed for. Empty: only answers.
    pub allow: Option<Vec<Rule>>,
    /// What this host may open towards it, as it has granted. `None`: it decides by itself.
    pub opens: Option<Vec<Rule>>,
    /// Whether the MTU of its path is searched for: see [`Tuning::mtu_discovery`]. Not for one that `wg` has added and no file names.
    pub mtu_discovery: bool,
    /// What only a peer of agent mode has.
    pub agent: Option<Box<AgentPeer>>,
}

/// Where a peer is reached before it was heard from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A literal address.
    Address(SocketAddr),
    /// A name that is looked up, and again whenever the peer stays silent.
    Name {
        /// Without a trailing dot, at most 253 bytes.
        host: String,
        /// 1..=65535.
        port: u16,
    },
}

/// Switches that exist because kernels and drivers have faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// Trains of outer datagrams: cut by the kernel on the way out (UDP_SEGMENT), joined on the way in (UDP_GRO).
    pub udp_gso: Switch,
    /// Super-packets between the kernel and the daemon.
    pub tun_offload: Switch,
    /// How the engine thread is scheduled.
    pub scheduling: Scheduling,
    /// Whether the path MTU to each peer is searched for.
    pub mtu_discovery: MtuDiscovery,
}

/// Whether the MTU of paths is searched for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MtuDiscovery {
    /// By probes inside the sessions of the config's peers.
    #[default]
    Auto,
    /// Not at all: every peer keeps the MTU it starts with, and gets nothing that WireGuard does not send.
    Off,
}

/// Whether an offload is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Switch {
    /// When the kernel has it.
    #[default]
    Auto,
    /// As `Auto`, and `up` is refused where the kernel lacks it. A device that fails with it later is served without.
    On,
    /// Never.
    Off,
}

impl Config {
    /// Reads the file at `path` and the key files that it names.
    ///
    /// # Errors
    /// Everything that is wrong with the file, see [`ConfigError::problems`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = document::read_file(path)?;
        Self::parse(&text, path)
    }

    /// Reads the file of this config again. If a key file can no longer be read but has the same name as before, its
    /// key is kept, with a warning, because the daemon may have given up the right to read it.
    ///
    /// # Errors
    /// The same as for [`Config::load`].
    pub fn load_again(&self) -> Result<Self, ConfigError> {
        let text = document::read_file(&self.path)?;
        Self::parse_with(&text, &self.path, &KeyFiles::DiskOr(&self.read_keys))
    }

    /// Returns the files that this config was read from: the config file itself and its key files.
    pub(crate) fn files(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        std::iter::once(self.path.clone()).chain(self.read_keys.names().map(|name| folder.join(name)))
    }

    /// Parses a config from `text`. `path` is the file that it came from. Messages name it, and relative key files are
    /// looked up in its folder.
    ///
    /// # Errors
    /// The same as for [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Self::parse_with(text, path, &KeyFiles::Disk)
    }

    /// Like [`Config::parse`], but with a different source of key files.
    pub(crate) fn parse_with(text: &str, path: &Path, key_files: &KeyFiles<'_>) -> Result<Self, ConfigError> {
        sections::read(text, path, key_files)
    }

    /// Returns what is allowed but deserves attention, in the order of the file. `render` shows it like an error.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Returns this host's virtual IPs without their prefixes.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.interface.addresses.iter().map(IpNet::addr).collect()
    }

    /// Builds the node's config. `mtu` is the range that [`Mtu`] amounts to, `joins` says which super-packets TUN
    /// accepts, and `seed` is random.
    pub fn to_node(&self, mtu: MtuRange, joins: Joins, seed: [u8; 32]) -> NodeConfig {
        NodeConfig {
            private_key: self.interface.private_key.as_ref().map(PrivateKey::to_bytes),
            addresses: self.addresses(),
            forward: self.interface.forward,
            mtu: mtu.start,
            max_mtu: mtu.max,
            joins,
            seed,
            wall_anchor: None,
        }
    }
}

impl Peer {
    /// Builds the node's config of this peer. [`overlay_core::Command::SetCandidates`] supplies the addresses of a host name.
    pub fn to_core(&self) -> PeerConfig {
        PeerConfig {
            public_key: self.public_key,
            former_key: self.agent.as_ref().and_then(|agent| agent.former_key),
            own_key: self.agent.as_ref().and_then(|agent| agent.own_key),
            preshared_key: self.preshared_key.clone(),
            former_preshared_key: self.former_preshared_key.clone(),
            endpoint: self.endpoint.as_ref().and_then(Endpoint::address),
            allowed_ips: self.allowed_ips.clone(),
            persistent_keepalive: self.persistent_keepalive.map(|seconds| Duration::from_secs(seconds.into())),
            allow: self.allow.clone(),
            opens: self.opens.clone(),
            mtu_discovery: self.mtu_discovery,
            finds_paths: self.agent.is_some(),
        }
    }

    /// Creates a peer with nothing but its key.
    pub fn of(public_key: PeerKey) -> Self {
        Self {
            name: None,
            public_key,
            preshared_key: None,
            former_preshared_key: None,
            endpoint: None,
            allowed_ips: Vec::new(),
            persistent_keepalive: None,
            allow: None,
            opens: None,
            mtu_discovery: false,
            agent: None,
        }
    }

    /// Returns what users call the peer: its name, or else its public key in base64.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| crate::keys::encode_public(&self.public_key))
    }
}

impl fmt::Debug for Peer {
    /// Writes everything except the preshared keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("name", &self.name)
            .field("public_key", &self.public_key)
            .field("preshared_key", &self.preshared_key.as_ref().map(|_| "redacted"))
            .field("former_preshared_key", &self.former_preshared_key.as_ref().map(|_| "redacted"))
            .field("endpoint", &self.endpoint)
            .field("allowed_ips", &self.allowed_ips)
            .field("persistent_keepalive", &self.persistent_keepalive)
            .field("allow", &self.allow)
            .field("opens", &self.opens)
            .field("mtu_discovery", &self.mtu_discovery)
            .field("agent", &self.agent)
            .finish()
    }
}

impl Endpoint {
    /// The address, where it is written as one; `None` for a host name.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Name { .. } => None,
        }
    }
}

impl fmt::Display for Endpoint {
    /// Formats the endpoint as in the config: `203.0.113.7:51820`, `[2001:db8::7]:51820`, `host.example.net:51820`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Returns the file that an argument means: a bare NAME is `/etc/overlay/NAME.toml`. An argument with a `/` in it, or
/// one that ends in `.toml`, is a path. So is one that ends in `.conf`: that is a wg-quick config, and reading it leads
/// to an error that says so.
pub fn resolve_path(argument: &str) -> PathBuf {
    if is_path(argument) { PathBuf::from(argument) } else { Path::new(CONFIG_FOLDER).join(format!("{argument}.toml")) }
}

/// Whether an argument is a path rather than a bare NAME.
pub fn is_path(argument: &str) -> bool {
    argument.contains('/') || [".toml", ".conf"].iter().any(|suffix| argument.ends_with(suffix))
}

/// Returns the shortest argument that means this file: the inverse of [`resolve_path`].
pub fn argument_for(path: &Path) -> String {
    let written = path.display().to_string();
    let name = path.file_stem().and_then(|stem| stem.to_str()).filter(|name| resolve_path(name) == path);
    match name {
        Some(name) => name.to_owned(),
        None if is_path(&written) => written,
        None => format!("./{written}"),
    }
}

#[cfg(test)]
mod tests;

//! What may change in a running device, and what a change of a peer means for the engine.
//!
//! A change names only what it changes. The table is brought up to date first and says what the engine has to be told:
//! whoever gives a peer the 130,000 prefixes that it has already tells the engine nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use overlay_core::{AllowedIpChange, Command, Node, PeerChange, PeerKey};
use zeroize::Zeroizing;

use super::table::State;
use crate::config::Endpoint;
use crate::keys::PrivateKey;
use crate::resolve::Answer;

/// Prefixes in one command: a fraction of a millisecond, so that packets do not wait for long.
const PREFIXES_A_COMMAND: usize = 512;

/// One thing that is to be otherwise.
pub enum Change {
    /// Our own key; `None` takes it away.
    PrivateKey(Option<PrivateKey>),
    /// UDP port; 0 lets the kernel choose.
    ListenPort(u16),
    /// Mark of the outer packets.
    Fwmark(Option<u32>),
    /// No peer is left.
    RemoveAllPeers,
    /// Something about one peer.
    Peer(PeerEdit),
}

/// What is to be otherwise with a peer. The peer is added if it is not there, with the name, the allow list and the search for
/// its path that the config file in force has for its key: over the UAPI none of them can be said, and who removes a peer
/// and adds it again, as `wg setconf` does, must not have opened everything to it, nor switched the search off.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerEdit {
    /// Names the peer. With our own key nothing happens, as in the kernel.
    pub public_key: PeerKey,
    /// Only if the peer is there.
    pub update_only: bool,
    /// It is removed; nothing else counts then.
    pub remove: bool,
    /// All zero takes it away.
    pub preshared_key: Option<Zeroizing<[u8; 32]>>,
    /// Where to send from now on, also in a session that is alive.
    pub endpoint: Option<SocketAddr>,
    /// Seconds; 0 switches it off.
    pub persistent_keepalive: Option<u16>,
    /// It loses the allowed IPs that it has before it is given others.
    pub replace_allowed_ips: bool,
    /// In order.
    pub allowed_ips: Vec<AllowedIpChange>,
}

/// Why a change was not made; those before it were.
#[derive(Debug)]
pub enum ChangeError {
    /// Another process has the port.
    PortInUse,
    /// The kernel refused.
    Refused(io::ErrorKind),
    /// [`Node::MAX_PEERS`] are there.
    TooManyPeers,
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortInUse => f.write_str("the port is in use"),
            Self::Refused(kind) => write!(f, "{kind}"),
            Self::TooManyPeers => f.write_str("too many peers"),
        }
    }
}

impl std::error::Error for ChangeError {}

impl PeerEdit {
    /// A change of nothing, but that the peer is there.
    pub fn of(public_key: PeerKey) -> Self {
        Self {
            public_key,
            update_only: false,
            remove: false,
            preshared_key: None,
            endpoint: None,
            persistent_keepalive: None,
            replace_allowed_ips: false,
            allowed_ips: Vec::new(),
        }
    }

    /// Brings the table up to date, and says what the engine is to be told for it.
    pub(super) fn apply(self, state: &mut State) -> Result<Vec<Command>, ChangeError> {
        let key = self.public_key;
        if state.interface.public_key == Some(key) {
            return Ok(Vec::new());
        }
        if self.remove {
            return Ok(remove(key, state));
        }
        let mut commands = Vec::new();
        let mut add = None;
        if state.peer(key).is_none() {
            if self.update_only {
                return Ok(Vec::new());
            }
            if state.peer_count() >= Node::MAX_PEERS {
                return Err(ChangeError::TooManyPeers);
            }
            let stats = Arc::default();
            let added = state.add(key, Arc::clone(&stats));
            if added.allow.is_some() || added.mtu_discovery {
                // Not for a moment without them: a change of a peer can name neither.
                commands.push(Command::SetPeer { config: Box::new(added.to_core()), stats });
            } else {
                add = Some(stats);
            }
        }
        let allowed_ips =
            if self.replace_allowed_ips { difference(key, &self.allowed_ips, state) } else { self.allowed_ips };
        let allowed_ips = allowed_ips.into_iter().filter(|change| is_news(key, change, state)).collect();
        if let Some(peer) = state.peer_mut(key) {
            if let Some(preshared_key) = &self.preshared_key {
                peer.set_preshared_key(preshared_key.clone());
            }
            if let Some(endpoint) = self.endpoint {
                peer.set_endpoint(endpoint);
            }
            if let Some(seconds) = self.persistent_keepalive {
                peer.persistent_keepalive = Some(seconds).filter(|seconds| *seconds != 0);
            }
        }
        let keepalive = |seconds: u16| (seconds != 0).then(|| Duration::from_secs(seconds.into()));
        let change = PeerChange {
            public_key: key,
            add,
            preshared_key: self.preshared_key,
            endpoint: self.endpoint,
            persistent_keepalive: self.persistent_keepalive.map(keepalive),
            allowed_ips: Vec::new(),
        };
        commands.extend(in_pieces(change, allowed_ips));
        Ok(commands)
    }
}

/// Forgets a peer; its prefixes go piece by piece.
pub(super) fn remove(key: PeerKey, state: &mut State) -> Vec<Command> {
    let Some(peer) = state.remove(key) else { return Vec::new() };
    let mut commands = Vec::new();
    if peer.allowed_ips.len() > PREFIXES_A_COMMAND {
        let prefixes = peer.allowed_ips.into_iter().map(AllowedIpChange::Remove).collect();
        commands = in_pieces(PeerChange::of(key), prefixes);
    }
    commands.push(Command::RemovePeer(key));
    commands
}

/// What the engine is told when the host name of a peer's endpoint was resolved. Nothing where the peer is gone or was given
/// an address since the question was asked.
pub(super) fn resolved(answer: Answer, state: &State) -> Option<Command> {
    let Answer { peer, addresses } = answer;
    let is_name = matches!(state.peer(peer)?.configured_endpoint(), Some(Endpoint::Name { .. }));
    is_name.then_some(Command::SetCandidates(peer, addresses))
}

/// What makes the prefixes that a peer has into those it is to have.
fn difference(key: PeerKey, changes: &[AllowedIpChange], state: &State) -> Vec<AllowedIpChange> {
    let mut wanted = BTreeSet::new();
    for change in changes {
        match change {
            AllowedIpChange::Add(prefix) => wanted.insert(*prefix),
            AllowedIpChange::Remove(prefix) => wanted.remove(prefix),
        };
    }
    let empty = BTreeSet::new();
    let has = state.peer(key).map_or(&empty, |peer| &peer.allowed_ips);
    let gone = has.difference(&wanted).map(|prefix: &IpNet| AllowedIpChange::Remove(*prefix));
    gone.chain(wanted.difference(has).map(|prefix| AllowedIpChange::Add(*prefix))).collect()
}

fn is_news(key: PeerKey, change: &AllowedIpChange, state: &mut State) -> bool {
    match change {
        AllowedIpChange::Add(prefix) => state.add_allowed_ip(key, *prefix),
        AllowedIpChange::Remove(prefix) => state.remove_allowed_ip(key, *prefix),
    }
}

/// The change, with its prefixes in as many commands as they need.
fn in_pieces(first: PeerChange, prefixes: Vec<AllowedIpChange>) -> Vec<Command> {
    let key = first.public_key;
    let mut pieces = prefixes.chunks(PREFIXES_A_COMMAND);
    let allowed_ips = pieces.next().unwrap_or_default().to_vec();
    let first = PeerChange { allowed_ips, ..first };
    let rest = pieces.map(|piece| PeerChange { allowed_ips: piece.to_vec(), ..PeerChange::of(key) });
    std::iter::once(first).chain(rest).map(|change| Command::ChangePeer(Box::new(change))).collect()
}

#[cfg(test)]
mod tests;

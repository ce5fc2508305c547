//! What can change in a running device, and what a change of a peer means for the engine.
//!
//! A change names only what it changes. The table is updated first and determines what to tell the engine: setting
//! 130,000 prefixes that a peer already has tells the engine nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use overlay_core::{AllowedIpChange, Command, PeerChange, PeerKey};
use zeroize::Zeroizing;

use super::table::State;
use crate::config::Endpoint;
use crate::keys::PrivateKey;
use crate::resolve::Answer;

/// How many prefixes one command contains. This takes a fraction of a millisecond, so that packets do not wait for long.
const PREFIXES_A_COMMAND: usize = 512;

/// A single change.
pub enum Change {
    /// Sets our own key, or removes it with `None`.
    PrivateKey(Option<PrivateKey>),
    /// Sets the UDP port. 0 lets the kernel choose.
    ListenPort(u16),
    /// Sets the mark of outer packets.
    Fwmark(Option<u32>),
    /// Removes all peers.
    RemoveAllPeers,
    /// Changes one peer.
    Peer(PeerEdit),
}

/// A change of a peer. A peer that does not exist is added. Its name, its allow list and whether its path MTU is
/// searched come from the entry for its key in the config file in force, because the UAPI has no keys for them. Removing
/// a peer and adding it again, as `wg setconf` does, must neither open everything to it nor switch the search off.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerEdit {
    /// The peer's key. An edit of our own key does nothing, as in the kernel.
    pub public_key: PeerKey,
    /// Whether to ignore the edit if the peer does not exist.
    pub update_only: bool,
    /// Whether to remove the peer. Everything else is then ignored.
    pub remove: bool,
    /// The new preshared key. All zero removes it.
    pub preshared_key: Option<Zeroizing<[u8; 32]>>,
    /// The new endpoint. It is used immediately, even in a live session.
    pub endpoint: Option<SocketAddr>,
    /// The keepalive interval in seconds. 0 switches it off.
    pub persistent_keepalive: Option<u16>,
    /// Whether to remove all existing allowed IPs first.
    pub replace_allowed_ips: bool,
    /// The changes of allowed IPs, in order.
    pub allowed_ips: Vec<AllowedIpChange>,
}

/// Why a change was not applied. The changes before it were.
#[derive(Debug)]
pub enum ChangeError {
    /// The port is in use by a different process.
    PortInUse,
    /// The kernel refused.
    Refused(io::ErrorKind),
    /// There are already [`overlay_core::Node::MAX_PEERS`] peers.
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
    /// Creates an edit that changes nothing, except that it adds a missing peer.
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

    /// Updates the table. Returns the commands that the engine needs.
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
        let mut tag = state.peer(key).map(|peer| peer.tag);
        if tag.is_none() {
            if self.update_only {
                return Ok(Vec::new());
            }
            let stats = Arc::default();
            let added = state.add(key, Arc::clone(&stats)).ok_or(ChangeError::TooManyPeers)?;
            let peer = added.tag;
            tag = Some(peer);
            if added.config.allow.is_some() || added.config.opens.is_some() || added.config.mtu_discovery {
                // The peer must never exist without its allow list and its search, and a `PeerChange` can carry neither.
                commands.push(Command::SetPeer { peer, config: Box::new(added.config.to_core()), stats });
            } else {
                add = Some((key, stats));
            }
        }
        let Some(tag) = tag else { return Ok(commands) };
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
            peer: tag,
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

/// Removes a peer. Large numbers of prefixes are removed in several commands.
pub(super) fn remove(key: PeerKey, state: &mut State) -> Vec<Command> {
    let Some(peer) = state.remove(key) else { return Vec::new() };
    let mut commands = Vec::new();
    if peer.allowed_ips.len() > PREFIXES_A_COMMAND {
        let prefixes = peer.allowed_ips.into_iter().map(AllowedIpChange::Remove).collect();
        commands = in_pieces(PeerChange::of(peer.tag), prefixes);
    }
    commands.push(Command::RemovePeer(peer.tag));
    commands
}

/// Returns the command for the engine after the host name of a peer's endpoint was resolved. Returns `None` if the peer
/// no longer exists or has been given an address since the lookup began.
pub(super) fn resolved(answer: Answer, state: &State) -> Option<Command> {
    let Answer { peer, addresses } = answer;
    let peer = state.peer(peer)?;
    let is_name = matches!(peer.configured_endpoint(), Some(Endpoint::Name { .. }));
    is_name.then_some(Command::SetCandidates(peer.tag, addresses))
}

/// Returns the changes that turn the peer's current prefixes into the wanted ones.
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

/// Splits a change into as many commands as its prefixes require.
fn in_pieces(first: PeerChange, prefixes: Vec<AllowedIpChange>) -> Vec<Command> {
    let peer = first.peer;
    let mut pieces = prefixes.chunks(PREFIXES_A_COMMAND);
    let allowed_ips = pieces.next().unwrap_or_default().to_vec();
    let first = PeerChange { allowed_ips, ..first };
    let rest = pieces.map(|piece| PeerChange { allowed_ips: piece.to_vec(), ..PeerChange::of(peer) });
    std::iter::once(first).chain(rest).map(|change| Command::ChangePeer(Box::new(change))).collect()
}

#[cfg(test)]
mod tests;

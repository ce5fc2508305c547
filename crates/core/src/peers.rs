//! All peers of the node, found by tag, by key and by inner address.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::data::allowed_ips::AllowedIps;
use crate::peer::Peer;
use crate::{CommandError, PeerKey, PeerTag};

/// The table of all peers.
pub(crate) struct Peers {
    places: Vec<Option<Peer>>,
    by_key: BTreeMap<PeerKey, PeerTag>,
    pub(crate) allowed_ips: AllowedIps<PeerTag>,
}

impl Peers {
    pub(crate) fn new() -> Self {
        Self { places: Vec::new(), by_key: BTreeMap::new(), allowed_ips: AllowedIps::new() }
    }

    /// The peer that has this key.
    pub(crate) fn find(&self, key: PeerKey) -> Option<PeerTag> {
        self.by_key.get(&key).copied()
    }

    pub(crate) fn peer(&mut self, tag: PeerTag) -> Option<&mut Peer> {
        self.places.get_mut(tag.place())?.as_mut().filter(|peer| peer.tag == tag)
    }

    /// A peer, and the table that finds the peer of an inner source.
    pub(crate) fn peer_and_allowed_ips(&mut self, tag: PeerTag) -> Option<(&mut Peer, &AllowedIps<PeerTag>)> {
        let peer = self.places.get_mut(tag.place())?.as_mut().filter(|peer| peer.tag == tag)?;
        Some((peer, &self.allowed_ips))
    }

    /// The tags of all peers.
    pub(crate) fn tags(&self) -> Vec<PeerTag> {
        self.by_key.values().copied().collect()
    }

    /// Checks whether a peer may be added under this tag and key.
    ///
    /// # Errors
    /// `KeyTaken`, and `TagTaken` if a peer uses the tag's place.
    pub(crate) fn check(&self, tag: PeerTag, key: PeerKey) -> Result<(), CommandError> {
        if self.by_key.contains_key(&key) {
            return Err(CommandError::KeyTaken);
        }
        let is_taken = self.places.get(tag.place()).is_some_and(Option::is_some);
        if is_taken { Err(CommandError::TagTaken) } else { Ok(()) }
    }

    /// Adds a peer that passed [`Peers::check`].
    pub(crate) fn insert(&mut self, peer: Peer) -> &mut Peer {
        let place = peer.tag.place();
        if self.places.len() <= place {
            self.places.resize_with(place + 1, || None);
        }
        self.by_key.insert(peer.tunnel.key, peer.tag);
        self.places[place].insert(peer)
    }

    /// Gives a peer a new key.
    ///
    /// # Errors
    /// `KeyTaken`: a different peer has it.
    pub(crate) fn set_key(&mut self, tag: PeerTag, key: PeerKey) -> Result<(), CommandError> {
        match self.find(key) {
            Some(owner) if owner == tag => return Ok(()),
            Some(_) => return Err(CommandError::KeyTaken),
            None => {}
        }
        let peer = self.peer(tag).ok_or(CommandError::UnknownPeer)?;
        let before = std::mem::replace(&mut peer.tunnel.key, key);
        self.by_key.remove(&before);
        self.by_key.insert(key, tag);
        Ok(())
    }

    /// Removes a peer. The caller must still release its receiver indices.
    pub(crate) fn remove(&mut self, tag: PeerTag) -> Option<Peer> {
        let peer = self.places.get_mut(tag.place())?.take_if(|peer| peer.tag == tag)?;
        self.by_key.remove(&peer.tunnel.key);
        for prefix in &peer.rights.allowed_ips {
            self.allowed_ips.remove(prefix, tag);
        }
        Some(peer)
    }

    /// Makes these prefixes the only ones of the peer, and returns those that it had. A prefix of a different peer moves,
    /// as in WireGuard.
    pub(crate) fn set_allowed_ips(&mut self, tag: PeerTag, prefixes: Vec<IpNet>) -> BTreeSet<IpNet> {
        let Some(peer) = self.peer(tag) else { return BTreeSet::new() };
        let before = std::mem::take(&mut peer.rights.allowed_ips);
        for prefix in &before {
            self.allowed_ips.remove(prefix, tag);
        }
        for prefix in prefixes {
            self.add_allowed_ip(tag, prefix);
        }
        before
    }

    /// Makes `prefix` the peer's, even if a different peer had it.
    pub(crate) fn add_allowed_ip(&mut self, tag: PeerTag, prefix: IpNet) {
        let prefix = prefix.trunc();
        let before = self.allowed_ips.insert(prefix, tag);
        if let Some(other) = before.filter(|other| *other != tag).and_then(|other| self.peer(other)) {
            other.rights.allowed_ips.remove(&prefix);
        }
        if let Some(peer) = self.peer(tag) {
            peer.rights.allowed_ips.insert(prefix);
        }
    }

    /// Takes `prefix` away from the peer, if the peer has it.
    pub(crate) fn remove_allowed_ip(&mut self, tag: PeerTag, prefix: IpNet) {
        let prefix = prefix.trunc();
        if let Some(peer) = self.peer(tag)
            && peer.rights.allowed_ips.remove(&prefix)
        {
            self.allowed_ips.remove(&prefix, tag);
        }
    }
}

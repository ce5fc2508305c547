//! The tags by which the engine knows peers.
//!
//! The config and the UAPI identify a peer by its key. The engine identifies it by a tag, which outlives a key.

use std::collections::HashMap;

use overlay_core::{PeerKey, PeerTag, PeerTags};

/// The tags of all peers, including those that the engine does not know yet.
#[derive(Default)]
pub(super) struct Tags {
    free: PeerTags,
    tags: HashMap<PeerKey, PeerTag>,
    keys: HashMap<PeerTag, PeerKey>,
}

impl Tags {
    /// Returns the tag of the peer with this key, or takes a new one. `None` if all are in use.
    pub(super) fn take_for(&mut self, key: PeerKey) -> Option<PeerTag> {
        if let Some(tag) = self.tags.get(&key) {
            return Some(*tag);
        }
        let tag = self.free.take()?;
        self.tags.insert(key, tag);
        self.keys.insert(tag, key);
        Some(tag)
    }

    pub(super) fn tag_of(&self, key: PeerKey) -> Option<PeerTag> {
        self.tags.get(&key).copied()
    }

    /// Gives the peer with the key `before` the key `now`, which no peer has.
    pub(super) fn rekey(&mut self, before: PeerKey, now: PeerKey) {
        if let Some(tag) = self.tags.remove(&before) {
            self.tags.insert(now, tag);
            self.keys.insert(tag, now);
        }
    }

    /// Frees the tag of the peer with this key, which is gone.
    pub(super) fn give_back(&mut self, key: PeerKey) {
        if let Some(tag) = self.tags.remove(&key) {
            self.keys.remove(&tag);
            self.free.give_back(tag);
        }
    }

    /// Returns the key of the peer with this tag.
    pub(super) fn key_of(&self, tag: PeerTag) -> Option<PeerKey> {
        self.keys.get(&tag).copied()
    }
}
